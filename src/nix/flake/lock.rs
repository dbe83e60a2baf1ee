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

    /// Whether it is a flake itself, and not just a source.
    pub(super) fn is_flake(self) -> bool {
        self.value.get("flake") != Some(&Value::Bool(false))
    }

    /// A member of what it is locked to.
    pub(super) fn locked(self, name: &str) -> Option<&'a str> {
        self.value.get("locked")?.get(name)?.as_str()
    }

    /// The kind of reference: `github`, `path`, …
    pub(super) fn kind(self) -> &'a str {
        self.locked("type").unwrap_or("unknown")
    }

    /// What it is locked to, as a flake reference that Nix takes on the command line.
    ///
    /// Nothing for what has no such form: kinds that are not known, and directories inside of the flake that names them.
    pub(super) fn reference(self) -> Option<String> {
        let text = |name| self.locked(name);
        let kind = self.kind();
        let (base, parameters): (String, &[&str]) = match kind {
            "github" | "gitlab" | "sourcehut" => {
                // A group of GitLab's may be in another.
                let owner = text("owner")?.replace('/', "%2F");
                (format!("{kind}:{owner}/{}/{}", text("repo")?, text("rev")?), &["host", "dir", "narHash"])
            }
            "git" => (
                format!("git+{}", text("url")?),
                &["ref", "rev", "dir", "submodules", "shallow", "allRefs", "lfs"],
            ),
            "hg" => (format!("hg+{}", text("url")?), &["ref", "rev", "dir"]),
            "tarball" => (format!("tarball+{}", text("url")?), &["narHash", "dir"]),
            "path" => {
                let path = text("path").filter(|path| path.starts_with('/'))?;
                (
                    format!("path:{}", utf8_percent_encode(path, &IN_PATH)),
                    &["rev", "lastModified", "narHash", "dir"],
                )
            }
            _ => return None,
        };
        let mut reference = base;
        for name in parameters {
            let value = match self.value.get("locked")?.get(name) {
                Some(Value::String(value)) => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
                Some(Value::Number(value)) => value.to_string(),
                Some(Value::Bool(true)) => "1".to_owned(),
                _ => continue,
            };
            let joint = if reference.contains('?') { '&' } else { '?' };
            reference.push_str(&format!("{joint}{name}={value}"));
        }
        Some(reference)
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

    fn reference(attributes: &Value) -> Option<String> {
        let lock = locked(attributes);
        lock.input(lock.root()?, "x")?.reference()
    }

    #[test]
    fn inputs_that_follow_others_lead_there() {
        let lock = lock(&json!({
            "root": { "inputs": { "a": "a", "nixpkgs": ["a", "nixpkgs"], "circle": ["circle"], "none": [] } },
            "a": { "inputs": { "nixpkgs": "nixpkgs_2" } },
            "nixpkgs_2": { "locked": { "type": "github" }, "flake": false },
        }));
        let root = lock.root().expect("a root");
        let nixpkgs = lock.input(root, "nixpkgs").expect("it follows");
        assert_eq!((nixpkgs.key, nixpkgs.kind(), nixpkgs.is_flake()), ("nixpkgs_2", "github", false));
        assert!(lock.input(root, "a").is_some_and(Node::is_flake));
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
    fn references_are_written_as_nix_takes_them() {
        let cases = [
            (
                json!({ "type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": "b18a", "narHash": "sha256-+/=" }),
                "github:NixOS/nixpkgs/b18a?narHash=sha256%2D%2B%2F%3D",
            ),
            (
                json!({ "type": "gitlab", "owner": "a/b", "repo": "c", "rev": "1", "host": "git.example.org", "dir": "nix" }),
                "gitlab:a%2Fb/c/1?host=git%2Eexample%2Eorg&dir=nix",
            ),
            (
                json!({ "type": "git", "url": "https://h/r?x=1", "ref": "refs/heads/main", "rev": "1", "submodules": true }),
                "git+https://h/r?x=1&ref=refs%2Fheads%2Fmain&rev=1&submodules=1",
            ),
            (
                json!({ "type": "path", "path": "/a b", "lastModified": 7, "narHash": "sha256-+/=" }),
                "path:/a%20b?lastModified=7&narHash=sha256%2D%2B%2F%3D",
            ),
            (json!({ "type": "tarball", "url": "https://h/x.tar.gz" }), "tarball+https://h/x.tar.gz"),
        ];
        for (attributes, expected) in cases {
            assert_eq!(reference(&attributes).as_deref(), Some(expected));
        }
        assert_eq!(reference(&json!({ "type": "path", "path": "./sub" })), None);
        assert_eq!(reference(&json!({ "type": "github", "owner": "NixOS" })), None);
        assert_eq!(reference(&json!({})), None);
    }
}
