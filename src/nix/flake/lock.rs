//! What a flake is locked to: `flake.lock` as `nix flake metadata --json` gives it.
//!
//! Format: "Lock files" in the Nix manual, `nix flake`. What each kind of reference consists of: "Types" there.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

/// How many `follows` lead from one input to another before it is a circle.
const FOLLOWS: usize = 64;

/// The locked inputs of a flake, and theirs.
#[derive(Debug)]
pub(super) struct Lock {
    nodes: Map<String, Value>,
    root: String,
}

/// One locked input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    key: &'a str,
    value: &'a Value,
}

impl Lock {
    /// Takes the `locks` of Nix's metadata.
    pub(super) fn new(mut locks: Value) -> Result<Self, String> {
        let root = locks.get("root").and_then(Value::as_str).ok_or("the lock has no root")?.to_owned();
        match locks.get_mut("nodes").map(Value::take) {
            Some(Value::Object(nodes)) if nodes.contains_key(&root) => Ok(Self { nodes, root }),
            _ => Err("the lock has no nodes".to_owned()),
        }
    }

    /// The flake itself.
    pub(super) fn root(&self) -> Option<Node<'_>> {
        self.node(&self.root)
    }

    /// Every input, at whatever depth.
    pub(super) fn inputs(&self) -> impl Iterator<Item = Node<'_>> {
        let nodes = self.nodes.iter().filter(|(key, _)| **key != self.root);
        nodes.map(|(key, value)| Node { key, value })
    }

    fn node(&self, key: &str) -> Option<Node<'_>> {
        self.nodes.get_key_value(key).map(|(key, value)| Node { key, value })
    }

    /// An input of a node. What follows another input leads there.
    pub(super) fn input(&self, of: Node<'_>, name: &str) -> Option<Node<'_>> {
        self.follow(of, name, FOLLOWS)
    }

    fn follow(&self, of: Node<'_>, name: &str, left: usize) -> Option<Node<'_>> {
        let left = left.checked_sub(1)?;
        match of.value.get("inputs")?.get(name)? {
            Value::String(key) => self.node(key),
            // A path from the root.
            Value::Array(names) => {
                let mut node = self.root()?;
                for name in names {
                    node = self.follow(node, name.as_str()?, left)?;
                }
                (!names.is_empty()).then_some(node)
            }
            _ => None,
        }
    }
}

impl<'a> Node<'a> {
    /// Whether two are the same input.
    pub(super) fn is(self, other: Node<'_>) -> bool {
        self.key == other.key
    }

    /// A member of what it is locked to.
    pub(super) fn locked(self, name: &str) -> Option<&'a str> {
        self.value.get("locked")?.get(name)?.as_str()
    }

    /// The kind of reference: `github`, `path`, …
    pub(super) fn kind(self) -> &'a str {
        self.locked("type").unwrap_or("unknown")
    }

    /// A reference to it where it lies in the store, with what else is locked of it, as Nix takes it on the command line.
    pub(super) fn at(self, path: &str) -> String {
        let mut reference = format!("path:{}", utf8_percent_encode(path, &IN_PATH));
        for name in ["rev", "lastModified", "narHash", "dir"] {
            let value = match self.value.get("locked").and_then(|locked| locked.get(name)) {
                Some(Value::String(value)) => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
                Some(Value::Number(value)) => value.to_string(),
                _ => continue,
            };
            let joint = if reference.contains('?') { '&' } else { '?' };
            reference.push_str(&format!("{joint}{name}={value}"));
        }
        reference
    }
}

/// What cannot stand in a URL's path as it is (RFC 3986, section 3.3). No more than that is encoded: versions of Nix before
/// 2.19 do not decode a path.
const IN_PATH: AsciiSet = NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::nix::flake) fn lock(nodes: &Value) -> Lock {
        Lock::new(json!({ "root": "root", "nodes": nodes })).expect("a lock")
    }

    pub(in crate::nix::flake) fn locked(attributes: &Value) -> Lock {
        lock(&json!({ "root": { "inputs": { "x": "x" } }, "x": { "locked": attributes } }))
    }

    #[test]
    fn inputs_that_follow_others_lead_there() {
        let lock = lock(&json!({
            "root": { "inputs": { "a": "a", "nixpkgs": ["a", "nixpkgs"], "circle": ["circle"], "none": [] } },
            "a": { "inputs": { "nixpkgs": "nixpkgs_2" } },
            "nixpkgs_2": { "locked": { "type": "github" } },
        }));
        let root = lock.root().expect("a root");
        let nixpkgs = lock.input(root, "nixpkgs").expect("it follows");
        assert_eq!((nixpkgs.key, nixpkgs.kind()), ("nixpkgs_2", "github"));
        for name in ["circle", "none", "missing"] {
            assert!(lock.input(root, name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_lock_that_is_none_is_an_error() {
        for locks in [json!(null), json!({}), json!({ "root": "root", "nodes": {} }), json!({ "root": 1 })] {
            assert!(Lock::new(locks).is_err());
        }
    }

    #[test]
    fn a_reference_to_what_lies_in_the_store_tells_nothing_of_where_it_came_from() {
        let at = |attributes: &Value, path: &str| {
            let lock = locked(attributes);
            lock.root().and_then(|root| lock.input(root, "x")).expect("an input").at(path)
        };
        let tarball = json!({
            "type": "tarball", "url": "http://me:sesame@h/x?token=sesame", "lastModified": 7, "narHash": "sha256-+/=",
            "rev": "b18a", "dir": "nix pkgs",
        });
        assert_eq!(
            at(&tarball, "/a b/store/c-source"),
            "path:/a%20b/store/c-source?rev=b18a&lastModified=7&narHash=sha256%2D%2B%2F%3D&dir=nix%20pkgs"
        );
        assert_eq!(at(&json!({}), "/c"), "path:/c");
    }
}
