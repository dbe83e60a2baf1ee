//! A revision of the repository that is worked in, as a flake that Nix takes.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use tokio::process::Command;

use super::{DiffError, Request};
use crate::text::Printable;

/// What of a path is not written as it is into the address of a flake, whatever Nix would take it for there.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What makes git look at another repository than that of the directory it is started in: a hook of another one sets these.
const ELSEWHERE: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
];

/// The flake that `text` stands for if it is a revision of the repository, with the attribute of `other` unless it has one;
/// nothing if it is something else.
///
/// # Errors
///
/// When it can be nothing else than a revision, and there is none.
pub(super) async fn flake_at(
    text: &str,
    other: &str,
    request: &Request,
) -> Result<Option<String>, DiffError> {
    let (revision, attribute) = match text.split_once('#') {
        Some((revision, attribute)) => (revision, Some(attribute)),
        None => (text, None),
    };
    let is_plain = is_plainly_a_revision(revision);
    let cannot_be = revision.is_empty() || revision.starts_with(['-', '.', '/', '~']);
    if request.arguments.has_source || cannot_be || (revision.contains(':') && !is_plain) {
        return Ok(None);
    }
    // Before an attribute, a word is a flake of the registry as well. There it has to be the name of something in full: git
    // takes the beginning of a hash, and the name of a remote, for a revision too.
    let names: Vec<String> = if is_plain || attribute.is_none() {
        vec![revision.to_owned()]
    } else {
        ["tags", "heads", "remotes"].iter().map(|kind| format!("refs/{kind}/{revision}")).collect()
    };
    let mut failure = None;
    for name in names {
        // After `:/` all is a pattern, and what it finds is a commit.
        let commit = if name.starts_with(":/") { name } else { format!("{name}^{{commit}}") };
        match git(request, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await {
            Ok(commit) => {
                let attribute = attribute.or_else(|| other.split_once('#').map(|(_, attribute)| attribute));
                return at_commit(&commit, revision, attribute, request).await.map(Some);
            }
            Err(error) => failure = Some(error),
        }
    }
    let revision = Printable(revision).to_string();
    match failure {
        Some(GitError::Start(source)) if is_plain => Err(DiffError::NoGit { revision, source }),
        Some(GitError::Refused(reason)) if is_plain => {
            let reason = if reason.is_empty() { "it has no such commit".to_owned() } else { reason };
            Err(DiffError::Revision { revision, directory: request.directory.clone(), reason })
        }
        _ => Ok(None),
    }
}

/// Whether a text can be a revision, and no name of a flake.
fn is_plainly_a_revision(text: &str) -> bool {
    let is_hash = text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_head = text
        .strip_prefix("HEAD")
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "-_/?".contains(c)));
    // What is not an address, whose parameters may hold anything.
    let is_word = !text.contains(':') || text.contains("^{");
    // `NAME^dev` are outputs of a flake.
    let has_parent = text
        .match_indices('^')
        .any(|(place, _)| !text[place + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '*'));
    let is_relative = text.contains('~') || text.contains("@{") || has_parent;
    is_hash || is_head || text == "@" || text.starts_with(":/") || (is_word && is_relative)
}

/// The flake at a commit of the repository that is worked in.
async fn at_commit(
    commit: &OsString,
    revision: &str,
    attribute: Option<&str>,
    request: &Request,
) -> Result<String, DiffError> {
    let ask = async |words: &[&str]| {
        git(request, words).await.map_err(|error| match error {
            GitError::Start(source) => DiffError::NoGit { revision: revision.to_owned(), source },
            GitError::Refused(reason) => DiffError::Repository { revision: revision.to_owned(), reason },
        })
    };
    let is_bare = ask(&["rev-parse", "--is-bare-repository"]).await? == "true";
    let (top, inside) = if is_bare {
        (PathBuf::from(ask(&["rev-parse", "--absolute-git-dir"]).await?), PathBuf::new())
    } else {
        let top = PathBuf::from(ask(&["rev-parse", "--show-toplevel"]).await?);
        let mut inside = PathBuf::from(ask(&["rev-parse", "--show-prefix"]).await?);
        // The directory of the flake that `.` would be: the nearest above that has one.
        while !top.join(&inside).join("flake.nix").exists() && inside.pop() {}
        (top, inside)
    };
    let mut flake = format!("git+file://{}?rev={}", escaped(&top), commit.display());
    if !inside.as_os_str().is_empty() {
        flake.push_str(&format!("&dir={}", escaped(&inside).trim_end_matches('/')));
    }
    // Nix refuses a repository without its history, the usual one of a CI, unless that is said.
    if ask(&["rev-parse", "--is-shallow-repository"]).await? == "true" {
        flake.push_str("&shallow=1");
    }
    if let Some(attribute) = attribute {
        flake.push_str(&format!("#{attribute}"));
    }
    Ok(flake)
}

fn escaped(path: &Path) -> String {
    percent_encode(path.as_os_str().as_bytes(), ESCAPED).to_string()
}

/// Why `git` gives no answer.
enum GitError {
    /// It cannot be run.
    Start(std::io::Error),
    /// It says no: what it says, which may be nothing.
    Refused(String),
}

/// What `git` prints, a path as it is.
async fn git(request: &Request, words: &[&str]) -> Result<OsString, GitError> {
    let mut command = Command::new("git");
    command.args(words).current_dir(&request.directory).stdin(Stdio::null()).kill_on_drop(true);
    for variable in ELSEWHERE {
        command.env_remove(variable);
    }
    let output = command.output().await.map_err(GitError::Start)?;
    if !output.status.success() {
        return Err(GitError::Refused(Printable(&String::from_utf8_lossy(&output.stderr)).to_string()));
    }
    let mut printed = output.stdout;
    if printed.last() == Some(&b'\n') {
        printed.pop();
    }
    Ok(OsString::from_vec(printed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_only_be_a_revision_is_told_from_flakes() {
        for revision in [
            "HEAD",
            "HEAD~1",
            "HEAD^",
            "main^2",
            "v1~3",
            "@",
            "@{1}",
            "HEAD..main",
            "a1b2c3d",
            ":/one",
            "x^{/a: b}",
        ] {
            assert!(is_plainly_a_revision(revision), "{revision}");
        }
        for other in [
            "main",
            "nixpkgs",
            "nixpkgs^dev",
            "nixpkgs^*",
            "HEADER",
            "nixpkgs/a",
            "cafe",
            "github:a/b?ref=c~d",
            "a@b",
        ] {
            assert!(!is_plainly_a_revision(other), "{other}");
        }
    }

    #[test]
    fn a_path_is_escaped_whatever_it_holds() {
        let path = Path::new("/a b/p%20q/x#y?z/\u{fc}&c");
        assert_eq!(escaped(path), "/a%20b/p%2520q/x%23y%3Fz/%C3%BC%26c");
    }
}
