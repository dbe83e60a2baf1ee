//! A directory for one test, removed afterwards even where Nix made it read-only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A temporary directory that other users can enter.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a fresh directory. Its path has no symbolic links, which Nix refuses above a store.
    pub(crate) fn new() -> Self {
        let path = tempfile::Builder::new().prefix("cht-").tempdir().expect("a temporary directory").keep();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path: path.canonicalize().unwrap() }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A fresh directory inside.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A file inside, with its directories.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// An executable shell script inside.
    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.file(name, format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("CACHE_HELPER_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
        } else {
            remove_tree(&self.path);
        }
    }
}

/// Removes a tree, read-only directories included.
pub(crate) fn remove_tree(path: &Path) {
    let Ok(meta) = path.symlink_metadata() else { return };
    if !meta.is_dir() {
        drop(fs::remove_file(path));
        return;
    }
    make_writable(path);
    drop(fs::remove_dir_all(path));
}

/// Makes every directory of a tree writable, so that its content can be changed or removed.
pub(crate) fn make_writable(path: &Path) {
    drop(fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

/// Every regular file or link below a directory, as sorted relative paths.
pub(crate) fn files_below(dir: &Path) -> Vec<String> {
    fn walk(top: &Path, dir: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(top, &path, into);
            } else {
                into.push(path.strip_prefix(top).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// Copies regular files and directories; what is there is kept.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(&file), target).unwrap();
    }
}
