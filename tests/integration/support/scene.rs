//! Where most tests begin: a store with a closure that is worth pushing, and an empty place to push it to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::cache::{Cache, assert_closed};
use super::nix::{Key, Nix, Store, a_nix, bases};
use super::program::Run;
use super::project;

/// A store with a built closure.
#[derive(Debug)]
pub(crate) struct Scene {
    /// The store.
    pub(crate) store: Store,
    /// The key that everything in the store is signed with, or would be.
    pub(crate) key: Key,
    /// The top of the closure, as a full path.
    pub(crate) top: String,
    /// All of the closure, as full paths.
    pub(crate) closure: BTreeSet<String>,
    /// A directory to push to. It does not exist yet.
    pub(crate) cache: PathBuf,
    hashes: BTreeMap<String, String>,
}

impl Scene {
    /// Builds an attribute of an expression; nothing is signed.
    pub(crate) fn unsigned(nix: &Nix, expression: &str, attr: &str) -> Self {
        let store = Store::new(nix);
        let top = store.build_one(expression, attr);
        let closure = store.closure(&[&top]);
        let (key, hashes) = (store.key("store-1"), store.content_hashes(&closure));
        let cache = store.scratch.join("cache");
        Self { store, key, top, closure, cache, hashes }
    }

    /// Builds an attribute of an expression, signs its closure in the store, and lets Nix trust that.
    pub(crate) fn signed(nix: &Nix, expression: &str, attr: &str) -> Self {
        let mut scene = Self::unsigned(nix, expression, attr);
        scene.store.sign(&scene.key, &scene.closure);
        scene.store.set("trusted-public-keys", scene.key.public.clone());
        scene
    }

    /// A signed diamond in a store of the first Nix.
    pub(crate) fn diamond() -> Self {
        Self::signed(a_nix(), &project::diamond(), "top")
    }

    /// The cache's directory as a URL.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.cache.display())
    }

    /// `push-closure TOP`, without a target.
    pub(crate) fn push(&self) -> Run {
        Run::push(&self.store).arg(&self.top)
    }

    /// `push-closure TOP --to TARGET --json`.
    pub(crate) fn push_to(&self, target: impl AsRef<std::path::Path>) -> Run {
        self.push().to(target).arg("--json")
    }

    /// The path of the closure with this name, as a full path.
    pub(crate) fn path(&self, name: &str) -> String {
        let end = format!("-{name}");
        self.closure.iter().find(|path| path.ends_with(&end)).unwrap_or_else(|| panic!("no {name}")).clone()
    }

    /// The base names of the closure.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        bases(&self.closure)
    }

    /// The base names of some paths of the closure.
    pub(crate) fn names_of<const N: usize>(&self, names: [&str; N]) -> BTreeSet<String> {
        names.iter().map(|name| super::nix::base(&self.path(name)).to_owned()).collect()
    }

    /// Fails unless the cache is closed and holds exactly the closure.
    #[track_caller]
    pub(crate) fn is_complete(&self) -> Cache {
        let cache = self.is_closed();
        assert_eq!(cache.paths(), self.names());
        cache
    }

    /// Fails unless the cache is closed.
    #[track_caller]
    pub(crate) fn is_closed(&self) -> Cache {
        assert_closed(&self.cache, &self.store.dir_text(), &[])
    }

    /// Throws the store away, lets Nix fetch all back from a cache by signatures of a key, and compares every byte.
    #[track_caller]
    pub(crate) fn comes_back_from(&self, url: &str, key: &Key) {
        self.store.throw_away();
        self.store.fetch(url, Some(key), &[&self.top]);
        assert_eq!(self.store.closure(&[&self.top]), self.closure);
        assert_eq!(self.store.content_hashes(&self.closure), self.hashes);
    }
}
