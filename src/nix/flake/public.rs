//! What everybody can fetch from where it is locked to, as far as can be told: by a URL with a public name and nothing that may
//! be a password, from a server that nobody here logs in to.

use std::net::IpAddr;

use url::{Host, Url};

use super::lock::Node;
use crate::text::is_nix_parameter;

/// Whether the user has a login for a host, which may be why something can be fetched from there.
pub type HasLogin<'a> = &'a dyn Fn(&str) -> bool;

/// Whether everybody can fetch an input. Of the large forges a login tells nothing: who has one has it for a higher limit, too.
pub(super) fn is_public(node: Node<'_>, has_login: HasLogin<'_>) -> bool {
    match node.kind() {
        "github" | "gitlab" | "sourcehut" => node.locked("host").is_none_or(is_public_name),
        "git" | "hg" | "tarball" | "file" => {
            let url = node.locked("url").and_then(|url| Url::parse(url).ok());
            url.is_some_and(|url| is_public_url(&url) && !url.host_str().is_some_and(has_login))
        }
        _ => false,
    }
}

fn is_public_url(url: &Url) -> bool {
    let is_open = matches!(url.scheme(), "https" | "http" | "git");
    let says_nothing = url.query_pairs().all(|(name, _)| is_nix_parameter(&name));
    let is_anonymous = url.username().is_empty() && url.password().is_none() && says_nothing;
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
    use serde_json::{Value, json};

    use super::super::lock::tests::locked;

    fn is_public(attributes: &Value) -> bool {
        let lock = locked(attributes);
        let input = lock.root().and_then(|root| lock.input(root, "x")).expect("an input");
        super::is_public(input, &|host| host == "login.example.org")
    }

    #[test]
    fn only_what_everybody_can_fetch_is_public() {
        let git = |url: &str| is_public(&json!({ "type": "git", "url": url }));
        let public = [
            "https://example.org/r",
            "http://8.8.8.8/r",
            "git://example.org/r",
            "https://example.org/r?ref=main&dir=a",
        ];
        for url in public {
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
            "https://login.example.org/r",
            "https://example.org/r?token=secret",
            "https://example.org/r?secret",
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
