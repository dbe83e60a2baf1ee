//! A fresh clone of this repository, with the stand-in under `tests/nixpkgs` where its lock file says nixpkgs is.
//!
//! The stand-in is put into the store, and its hash into the lock: as far as Nix can tell it has fetched nixpkgs already. So
//! `flake.nix` is used as it is, and everything that Nix does with a locked input happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::nix::{Nix, Store};
use super::program::Run;

/// The clone, and a store to use it with.
#[derive(Debug)]
pub(crate) struct Checkout {
    /// The store.
    pub(crate) store: Store,
    /// The clone's directory.
    pub(crate) dir: PathBuf,
    /// Where the stand-in is in the store.
    pub(crate) nixpkgs: String,
}

impl Checkout {
    /// Clones the repository as it is now, what is not committed included.
    pub(crate) fn new(nix: &Nix) -> Self {
        Self::changed(nix, |_| {})
    }

    /// The same, with something changed before it is committed and locked.
    pub(crate) fn changed(nix: &Nix, change: impl FnOnce(&Path)) -> Self {
        let store = Store::new(nix);
        let dir = store.scratch.dir("project");
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let listed = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
        let listed = git(repository).args(listed).output().expect("git, which these tests need");
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        for file in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
            // Removed, and not yet committed.
            if !repository.join(file).exists() {
                continue;
            }
            fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
            fs::copy(repository.join(file), dir.join(file)).unwrap();
        }
        change(&dir);
        let nixpkgs = lock(&store, &dir);
        let checkout = Self { store, dir, nixpkgs };
        checkout.commit();
        checkout
    }

    fn commit(&self) {
        for words in [&["init", "--quiet"][..], &["add", "--all"], &["commit", "--quiet", "--message=x"]] {
            let output = git(&self.dir).args(words).output().unwrap();
            assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// What has changed since the clone was made.
    pub(crate) fn changes(&self) -> String {
        let output = git(&self.dir).args(["status", "--short"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `nix` in the clone, whatever it answers.
    pub(crate) fn try_nix(&self, args: &[&str]) -> Output {
        self.store.command("nix").args(args).current_dir(&self.dir).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs `nix` in the clone, which must succeed, and gives its standard output.
    #[track_caller]
    pub(crate) fn nix(&self, args: &[&str]) -> String {
        let output = self.try_nix(args);
        assert!(output.status.success(), "nix {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `push-closure --to CACHE` in the clone.
    pub(crate) fn push(&self, cache: &Path) -> Run {
        Run::push(&self.store).cwd(&self.dir).args(["--json", "--allow-unsigned"]).to(cache)
    }

    /// How many derivations were built. Nix writes a log for each.
    pub(crate) fn builds(&self) -> usize {
        super::scratch::files_below(&self.store.scratch.join("nix/log")).len()
    }
}

/// Puts the stand-in where the lock says that nixpkgs is, and gives its path in the store.
fn lock(store: &Store, dir: &Path) -> String {
    let stand_in = dir.join("tests/nixpkgs");
    let stand_in = stand_in.to_str().unwrap();
    let added = store.run("nix", &["store", "add-path", "--name", "source", stand_in]);
    let hash = store.run("nix", &["hash", "path", stand_in]);
    let file = dir.join("flake.lock");
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| match line.split_once("\"narHash\": \"") {
        Some((before, _)) => format!("{before}\"narHash\": \"{}\",\n", hash.trim()),
        None => format!("{line}\n"),
    });
    let locked: String = lines.collect();
    assert_ne!(locked, text, "flake.lock has no narHash");
    fs::write(file, locked).unwrap();
    added.trim().to_owned()
}

fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    // Nothing of the user's own settings.
    command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for (name, value) in [("NAME", "somebody"), ("EMAIL", "somebody@example.org")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    command.stdin(Stdio::null());
    command
}
