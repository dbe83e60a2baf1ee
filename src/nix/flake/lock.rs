//! What a flake is locked to: `flake.lock` as `nix flake metadata --json` gives it.
//!
//! Format: "Lock files" in the Nix manual, `nix flake`. What each kind of reference consists of: "Types" there.

use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use url::{Host, Url};

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

    fn locked(self, name: &str) -> Option<&'a str> {
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

    /// Whether everybody can fetch it from where it is locked to, as far as its URL tells: a server with a public name, and
    /// no login.
    pub(super) fn is_public(self) -> bool {
        match self.kind() {
            "github" | "gitlab" | "sourcehut" => self.locked("host").is_none_or(is_public_name),
            "git" | "hg" | "tarball" | "file" => {
                self.locked("url").and_then(|url| Url::parse(url).ok()).is_some_and(|url| is_public_url(&url))
            }
            _ => false,
        }
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

fn is_public_url(url: &Url) -> bool {
    let is_open = matches!(url.scheme(), "https" | "http" | "git");
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    is_open
        && is_anonymous
        && match url.host() {
            Some(Host::Domain(name)) => is_public_name(name),
            Some(Host::Ipv4(address)) => is_public_address(address.into()),
            Some(Host::Ipv6(address)) => is_public_address(address.into()),
            None => false,
        }
}

/// Whether a name can be one of the public Internet. (What is reserved: RFC 6761, RFC 6762, RFC 8375, and ICANN's `.internal`.)
fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    // Of other schemes than HTTP the URL's host is not parsed.
    if let Ok(address) = name.trim_matches(['[', ']']).parse() {
        return is_public_address(address);
    }
    let reserved =
        ["localhost", "local", "internal", "home.arpa", "lan", "corp", "home", "intranet", "test", "invalid"];
    let is_reserved =
        |end: &str| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    name.contains('.') && !reserved.iter().any(|end| is_reserved(end))
}

fn is_public_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast()
                // 100.64.0.0/10, between a provider and its customers.
                || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64))
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public_address(v4.into()),
            None => {
                !(v6.is_loopback()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local()
                    || v6.is_unspecified())
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lock(nodes: &Value) -> Lock {
        Lock::new(json!({ "root": "root", "nodes": nodes })).expect("a lock")
    }

    fn locked(attributes: &Value) -> Lock {
        lock(&json!({ "root": { "inputs": { "x": "x" } }, "x": { "locked": attributes } }))
    }

    fn reference(attributes: &Value) -> Option<String> {
        let lock = locked(attributes);
        lock.input(lock.root()?, "x")?.reference()
    }

    fn is_public(attributes: &Value) -> bool {
        let lock = locked(attributes);
        lock.root().and_then(|root| lock.input(root, "x")).expect("an input").is_public()
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

    #[test]
    fn only_what_everybody_can_fetch_is_public() {
        let git = |url: &str| is_public(&json!({ "type": "git", "url": url }));
        for url in ["https://example.org/r", "http://8.8.8.8/r", "git://example.org/r"] {
            assert!(git(url), "{url}");
        }
        let private = [
            "ssh://git@github.com/a/b",
            "file:///home/me/r",
            "https://me:secret@example.org/r",
            "https://token@example.org/r",
            "https://git.corp/r",
            "https://git.example.internal/r",
            "https://host/r",
            "https://localhost/r",
            "git://localhost/r",
            "git://127.0.0.1/r",
            "http://10.1.2.3/r",
            "http://100.64.1.1/r",
            "https://[::1]/r",
            "https://[fd00::1]/r",
            "https://[::ffff:192.168.0.1]/r",
            "not a url",
        ];
        for url in private {
            assert!(!git(url), "{url}");
        }
        assert!(is_public(&json!({ "type": "github", "owner": "NixOS", "repo": "nixpkgs" })));
        assert!(!is_public(&json!({ "type": "github", "owner": "a", "repo": "b", "host": "git.corp" })));
        assert!(!is_public(&json!({ "type": "path", "path": "/a" })));
        assert!(!is_public(&json!({ "type": "something new" })));
    }
}
