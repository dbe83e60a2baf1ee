//! Which files of two sources differ.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use similar::{ChangeTag, TextDiffConfig};

use super::outcome::{FileChange, FileStatus};
use super::patience::Patience;

/// How many files of a source are looked at: nobody reads more, and a source may be a whole repository.
const MOST: usize = 100_000;

/// Of how many files the lines are compared, and how long a text may be for that, in bytes.
const TEXTS: usize = 10;
const LONGEST_TEXT: u64 = 256 * 1024;

/// How many changed lines of a file are kept, and how much of each, in characters.
const LINES: usize = 20;
const LONGEST_LINE: usize = 200;

/// What stands in the place of a name in a tree.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    Link(PathBuf),
    File { length: u64, is_executable: bool },
}

/// The files that differ between two trees, by name; nothing where one of them is not there, or has too many. Blocks.
pub(super) fn changes(old: &Path, new: &Path, patience: &Patience) -> Option<Vec<FileChange>> {
    let (before, now) = (list(old)?, list(new)?);
    let (mut found, mut read) = (Vec::new(), 0);
    for (name, kind) in &before {
        let status = match now.get(name) {
            None if is_shown(&before, name) => FileStatus::Removed,
            Some(other) if other != kind => FileStatus::Changed,
            Some(Kind::File { .. }) if !is_same(&at(old, name), &at(new, name)) => FileStatus::Changed,
            Some(_) | None => continue,
        };
        let lines = match status {
            FileStatus::Changed if read < TEXTS => {
                read += 1;
                changed_lines(&at(old, name), &at(new, name), patience)
            }
            _ => Vec::new(),
        };
        found.push(FileChange { file: shown(name, kind), status, lines });
    }
    for (name, kind) in &now {
        if !before.contains_key(name) && is_shown(&now, name) {
            found.push(FileChange { file: shown(name, kind), status: FileStatus::Added, lines: Vec::new() });
        }
    }
    found.sort_by(|one, other| one.file.cmp(&other.file));
    Some(found)
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
        } else {
            Kind::File { length: meta.len(), is_executable: meta.permissions().mode() & 0o100 != 0 }
        };
        found.insert(name, kind);
    }
    Some(found)
}

/// A name in a tree. Joined to the empty one, a file would be taken for a directory.
fn at(top: &Path, name: &Path) -> PathBuf {
    if name.as_os_str().is_empty() { top.to_owned() } else { top.join(name) }
}

/// The lines that went and came, where both files are texts that are not too long.
fn changed_lines(old: &Path, new: &Path, patience: &Patience) -> Vec<String> {
    let text = |path: &Path| {
        let is_short = fs::metadata(path).is_ok_and(|meta| meta.len() <= LONGEST_TEXT);
        is_short.then(|| fs::read_to_string(path).ok()).flatten().filter(|text| !text.contains('\0'))
    };
    let Some((old, new)) = text(old).zip(text(new)) else { return Vec::new() };
    let difference = patience.compare(&old, &new, TextDiffConfig::diff_lines);
    let changed = difference.iter_all_changes().filter(|change| change.tag() != ChangeTag::Equal);
    changed
        .take(LINES)
        .map(|change| {
            let sign = if change.tag() == ChangeTag::Delete { '-' } else { '+' };
            let line: String = change.value().trim_end_matches('\n').chars().take(LONGEST_LINE).collect();
            format!("{sign}{line}")
        })
        .collect()
}

/// Whether two files of one length have one content. One that cannot be read is not the same.
fn is_same(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (File::open(one), File::open(other)) else { return false };
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
        let lines = vec!["-1".to_owned(), "+2".to_owned()];
        let changed = FileChange { file: String::new(), status: FileStatus::Changed, lines };
        assert_eq!(compare("a", "b"), Some(vec![changed]));
        assert_eq!(compare("a", "c"), Some(Vec::new()));
    }
}
