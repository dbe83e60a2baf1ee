//! What a flake is locked to: `flake.lock` as `nix flake metadata --json` gives it.
//!
//! Format: "Lock files" in the Nix manual, `nix flake`. What each kind of reference consists of: "Types" there.

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
    pub(super) fn member(self, name: &str) -> Option<&'a Value> {
        self.value.get("locked")?.get(name)
    }

    /// A member of what it is locked to that is text.
    pub(super) fn locked(self, name: &str) -> Option<&'a str> {
        self.member(name)?.as_str()
    }

    /// The kind of reference: `github`, `path`, …
    pub(super) fn kind(self) -> &'a str {
        self.locked("type").unwrap_or("unknown")
    }
}

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
}
