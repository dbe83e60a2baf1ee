//! Which files of two sources differ.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use similar::{DiffTag, TextDiffConfig};

use super::outcome::{FileChange, FileStatus, LinkChange};
use super::patience::Patience;

/// How many files of a source are looked at: nobody reads more, and a source may be a whole repository.
const MOST: usize = 100_000;

/// Of how many files the lines are compared, and how long a text may be for that, in bytes.
const TEXTS: usize = 10;
const LONGEST_TEXT: u64 = 256 * 1024;

/// How many changed lines of a file are kept, and how much of each, in characters.
const LINES: usize = 20;
const LONGEST_LINE: usize = 200;

/// How many characters that are the same stand before the first of a long line that is not.
const NEAR: usize = 40;

/// What follows a line that does not end, in the words of `diff`.
const NO_LINE_END: &str = "\\ no newline at the end";

/// What stands in the place of a name in a tree.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    Link(PathBuf),
    File {
        length: u64,
        is_executable: bool,
    },
    /// A pipe or a device, which nobody reads. A store has none; a directory that calls itself one may.
    Other,
}

/// The files that differ between two trees, by name; nothing where one of them is not there, or has too many. Blocks.
pub(super) fn changes(old: &Path, new: &Path, patience: &Patience) -> Option<Vec<FileChange>> {
    let (before, now) = (list(old)?, list(new)?);
    let (mut found, mut read) = (Vec::new(), 0);
    for (name, kind) in &before {
        match now.get(name) {
            None if is_shown(&before, name) => found.push(change(name, kind, FileStatus::Removed)),
            Some(other) if other != kind => found.push(changed(name, kind, other)),
            Some(Kind::File { .. }) if !is_same(&at(old, name), &at(new, name)) => {
                found.push(change(name, kind, FileStatus::Changed));
            }
            Some(_) | None => continue,
        }
        let are_files = matches!((kind, now.get(name)), (Kind::File { .. }, Some(Kind::File { .. })));
        if let Some(change) = found.last_mut().filter(|_| are_files && read < TEXTS) {
            read += 1;
            change.lines = changed_lines(&at(old, name), &at(new, name), patience);
        }
    }
    for (name, kind) in &now {
        if !before.contains_key(name) && is_shown(&now, name) {
            found.push(change(name, kind, FileStatus::Added));
        }
    }
    found.sort_by(|one, other| one.file.cmp(&other.file));
    Some(found)
}

fn change(name: &Path, kind: &Kind, status: FileStatus) -> FileChange {
    FileChange { file: shown(name, kind), status, link: None, executable: None, lines: Vec::new() }
}

/// What has become of something that is of another kind, leads elsewhere, has another length, or may or may not be run.
fn changed(name: &Path, before: &Kind, now: &Kind) -> FileChange {
    let target = |kind: &Kind| match kind {
        Kind::Link(target) => Some(target.display().to_string()),
        _ => None,
    };
    let (old, new) = (target(before), target(now));
    let executable = match (before, now) {
        (Kind::File { is_executable: before, .. }, Kind::File { is_executable: now, .. }) => {
            (before != now).then_some(*now)
        }
        _ => None,
    };
    let link = (old.is_some() || new.is_some()).then_some(LinkChange { old, new });
    FileChange { link, executable, ..change(name, now, FileStatus::Changed) }
}

/// Whether something is worth a line where it comes or goes. What is in a directory tells of it; one that is empty has a line of its own.
fn is_shown(tree: &BTreeMap<PathBuf, Kind>, name: &Path) -> bool {
    let next = tree.range::<Path, _>((Bound::Excluded(name), Bound::Unbounded)).next();
    tree.get(name) != Some(&Kind::Directory) || !next.is_some_and(|(next, _)| next.starts_with(name))
}

fn shown(name: &Path, kind: &Kind) -> String {
    let slash = if *kind == Kind::Directory && !name.as_os_str().is_empty() { "/" } else { "" };
    format!("{}{slash}", name.display())
}

/// Every name in a tree; the tree itself has the empty one.
fn list(top: &Path) -> Option<BTreeMap<PathBuf, Kind>> {
    let mut found = BTreeMap::new();
    let mut open = VecDeque::from([PathBuf::new()]);
    while let Some(name) = open.pop_front() {
        if found.len() > MOST {
            return None;
        }
        let path = at(top, &name);
        let meta = fs::symlink_metadata(&path).ok()?;
        let kind = if meta.is_dir() {
            for entry in fs::read_dir(&path).ok()? {
                open.push_back(name.join(entry.ok()?.file_name()));
            }
            Kind::Directory
        } else if meta.is_symlink() {
            Kind::Link(fs::read_link(&path).ok()?)
        } else if meta.is_file() {
            Kind::File { length: meta.len(), is_executable: meta.permissions().mode() & 0o100 != 0 }
        } else {
            Kind::Other
        };
        found.insert(name, kind);
    }
    Some(found)
}

/// A name in a tree. Joined to the empty one, a file would be taken for a directory.
fn at(top: &Path, name: &Path) -> PathBuf {
    if name.as_os_str().is_empty() { top.to_owned() } else { top.join(name) }
}

/// Opens a file, and nothing else. A source is what somebody else has made: a link in it may lead to anything on this machine,
/// and what has been a file may have become a pipe, for which one would wait.
fn open(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?);
    file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
}

/// A text that is not too long, whatever its length is said to be.
fn text_of(path: &Path) -> Option<String> {
    let mut text = String::new();
    open(path)?.take(LONGEST_TEXT + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= LONGEST_TEXT && !text.contains('\0')).then_some(text)
}

/// The lines that went and came, where both files are texts that are not too long.
fn changed_lines(old: &Path, new: &Path, patience: &Patience) -> Vec<String> {
    let Some((old, new)) = text_of(old).zip(text_of(new)) else { return Vec::new() };
    let difference = patience.compare(&old, &new, TextDiffConfig::diff_lines);
    let mut lines = Vec::new();
    for op in difference.ops().iter().filter(|op| op.tag() != DiffTag::Equal) {
        let before: Vec<&str> = op.old_range().filter_map(|line| difference.old_slice(line)).collect();
        let now: Vec<&str> = op.new_range().filter_map(|line| difference.new_slice(line)).collect();
        for (sign, side, other) in [('-', &before, &now), ('+', &now, &before)] {
            for (place, line) in side.iter().enumerate() {
                lines.extend(shown_line(sign, line, other.get(place).copied()));
                if lines.len() >= LINES {
                    lines.truncate(LINES);
                    return lines;
                }
            }
        }
    }
    lines
}

/// A line with its sign, and what `diff` says too after one that does not end. Of a long one, what is around the place where it
/// begins to differ from the one in its place.
fn shown_line(sign: char, line: &str, other: Option<&str>) -> impl Iterator<Item = String> {
    let text = line.strip_suffix('\n');
    let characters: Vec<char> = text.unwrap_or(line).chars().collect();
    let same = other.map_or(0, |other| {
        characters.iter().zip(other.chars()).take_while(|(one, other)| **one == *other).count()
    });
    let start = if same + NEAR < LONGEST_LINE { 0 } else { same - NEAR };
    let kept: String = characters[start..].iter().take(LONGEST_LINE).collect();
    let mark = |is_cut| if is_cut { "…" } else { "" };
    let shown = format!("{sign}{}{kept}{}", mark(start > 0), mark(characters.len() > start + LONGEST_LINE));
    [Some(shown), text.is_none().then(|| NO_LINE_END.to_owned())].into_iter().flatten()
}

/// Whether two files of one length have one content. One that cannot be read is not the same.
fn is_same(one: &Path, other: &Path) -> bool {
    let Some((one, other)) = open(one).zip(open(other)) else { return false };
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (Ok(left), Ok(right)) = (one.fill_buf(), other.fill_buf()) else { return false };
        let length = left.len().min(right.len());
        if left[..length] != right[..length] || (length == 0 && left.len() != right.len()) {
            return false;
        }
        if length == 0 {
            return true;
        }
        one.consume(length);
        other.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &Path, new: &Path) -> Option<Vec<FileChange>> {
        super::changes(old, new, &Patience::ample())
    }

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, content).expect("a file");
        }
        directory
    }

    #[test]
    fn what_differs_between_trees_is_named() {
        let old = tree(&[("a", "1"), ("b/c", "2"), ("b/d", "3"), ("same/e", "4")]);
        let new = tree(&[("a", "x"), ("b/d", "3"), ("f/g", "5"), ("same/e", "4")]);
        let found = changes(old.path(), new.path()).expect("both are there");
        let shown: Vec<_> = found.iter().map(|change| (change.file.as_str(), change.status)).collect();
        let expected = [("a", FileStatus::Changed), ("b/c", FileStatus::Removed), ("f/g", FileStatus::Added)];
        assert_eq!(shown, expected);
        assert_eq!(changes(old.path(), old.path()), Some(Vec::new()));
        let with_empty = tree(&[("a", "1"), ("b/c", "2"), ("b/d", "3"), ("same/e", "4")]);
        for name in ["empty", "b/one/two", "b/one.more"] {
            fs::create_dir_all(with_empty.path().join(name)).expect("a directory");
        }
        for (found, expected) in [
            (changes(old.path(), with_empty.path()), FileStatus::Added),
            (changes(with_empty.path(), old.path()), FileStatus::Removed),
        ] {
            let found = found.expect("both are there");
            let shown: Vec<_> = found.iter().map(|change| (change.file.as_str(), change.status)).collect();
            assert_eq!(shown, [("b/one.more/", expected), ("b/one/two/", expected), ("empty/", expected)]);
        }
        assert_eq!(changes(&old.path().join("nothing"), new.path()), None);
    }

    #[test]
    fn two_single_files_are_compared_too() {
        let old = tree(&[("a", "1"), ("b", "2"), ("c", "1")]);
        let compare = |one: &str, other: &str| changes(&old.path().join(one), &old.path().join(other));
        let lines = vec!["-1".to_owned(), NO_LINE_END.to_owned(), "+2".to_owned(), NO_LINE_END.to_owned()];
        let changed = FileChange { lines, ..change(Path::new(""), &Kind::Other, FileStatus::Changed) };
        assert_eq!(compare("a", "b"), Some(vec![changed]));
        assert_eq!(compare("a", "c"), Some(Vec::new()));
    }

    #[test]
    fn links_are_not_followed_and_pipes_are_not_opened() {
        let secret = tree(&[("one", "secret one\n"), ("two", "secret two\n")]);
        let (old, new) = (tree(&[("same", "")]), tree(&[("same", "")]));
        for (tree, target) in [(&old, "one"), (&new, "two")] {
            std::os::unix::fs::symlink(secret.path().join(target), tree.path().join("a")).expect("a link");
            rustix::fs::mkfifoat(CWD, tree.path().join("pipe"), Mode::RWXU).expect("a pipe");
        }
        // What was a link is a file, and the other way round; and what never ends.
        fs::write(old.path().join("b"), "x\n").expect("a file");
        std::os::unix::fs::symlink("/dev/zero", new.path().join("b")).expect("a link");
        std::os::unix::fs::symlink("/dev/zero", old.path().join("c")).expect("a link");
        fs::write(new.path().join("c"), "x\n").expect("a file");
        let found = changes(old.path(), new.path()).expect("both are there");
        assert!(found.iter().all(|change| change.lines.is_empty()), "{found:?}");
        let leads = |change: &FileChange| change.link.clone().map(|link| (link.old, link.new));
        let target = |name: &str| Some(secret.path().join(name).display().to_string());
        let zero = || Some("/dev/zero".to_owned());
        let expected = [Some((target("one"), target("two"))), Some((None, zero())), Some((zero(), None))];
        assert_eq!(found.iter().map(leads).collect::<Vec<_>>(), expected);
        // Nor is one that has come into the place of a file since it was looked at.
        for name in ["a", "pipe", "/dev/zero"] {
            assert_eq!(text_of(&old.path().join(name)), None, "{name}");
        }
        assert!(!is_same(&old.path().join("pipe"), &new.path().join("pipe")));
    }

    #[test]
    fn a_file_that_may_be_run_now_says_so() {
        let (old, new) = (tree(&[("x", "1"), ("y", "1")]), tree(&[("x", "1"), ("y", "1")]));
        for (tree, name) in [(&new, "x"), (&old, "y")] {
            let name = tree.path().join(name);
            fs::set_permissions(name, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let found = changes(old.path(), new.path()).expect("both are there");
        let executable: Vec<_> = found.iter().map(|change| change.executable).collect();
        assert_eq!(executable, [Some(true), Some(false)]);
    }

    #[test]
    fn a_long_line_is_shown_where_it_differs() {
        let text = |word: &str| format!("{}{word}{}\n", "a".repeat(1000), "b".repeat(1000));
        let (one, other) = (text("x"), text("y"));
        let files = tree(&[("one", &one), ("other", &other), ("cut", one.trim_end())]);
        let lines = |one: &str, other: &str| {
            changed_lines(&files.path().join(one), &files.path().join(other), &Patience::default())
        };
        let shown = |sign: &str, word: &str| {
            format!("{sign}…{}{word}{}…", "a".repeat(NEAR), "b".repeat(LONGEST_LINE - NEAR - 1))
        };
        assert_eq!(lines("one", "other"), [shown("-", "x"), shown("+", "y")]);
        let end = |sign: &str| format!("{sign}…{}", "b".repeat(NEAR));
        assert_eq!(lines("one", "cut"), [end("-"), end("+"), NO_LINE_END.to_owned()]);
    }
}
