//! Which servers may be contacted: any that the user named, or public ones only where somebody else named them.
//!
//! A flake that one merely looks at can name caches. If those were asked like the user's own, it could have this machine
//! send requests into its network (a router, a cloud's metadata service), and send the user's logins along. So what stands
//! in such a place is contacted over TLS at public addresses, without login and without proxy, and so is whatever it
//! redirects to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt};
use url::{Host, Url};

use super::redacted;

/// Which servers may be contacted.
#[derive(Clone, Copy, Debug, Default)]
pub enum Reach {
    /// Any.
    #[default]
    Anywhere,
    /// Those that serve `https` at a public address.
    Public,
    /// Those at the addresses that a test takes for public.
    #[cfg(test)]
    Test(fn(IpAddr) -> bool),
}

impl Reach {
    /// Why a URL may not be contacted; nothing where it may be.
    ///
    /// A host name is not looked up here: which addresses it has is checked when it is connected to ([`PublicResolver`]).
    pub(super) fn objection(self, url: &Url) -> Option<String> {
        if matches!(self, Self::Anywhere) {
            return None;
        }
        if matches!(self, Self::Public) && url.scheme() != "https" {
            return Some(format!("{}: is no https", url.scheme()));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) => return None,
            None => return Some("it names no host".to_owned()),
        };
        (!self.takes_for_public(address)).then(|| not_public(address))
    }

    fn takes_for_public(self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Public => is_public(address),
            #[cfg(test)]
            Self::Test(is_public) => is_public(address),
        }
    }
}

fn not_public(address: IpAddr) -> String {
    format!("{address} is no public address")
}

/// Looks names up as the system does, and gives the public addresses among those that it finds.
///
/// What is checked is what is connected to, so that a name cannot have other addresses a moment later.
#[derive(Debug)]
pub(super) struct PublicResolver(pub(super) Reach);

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (public, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
                found.partition(|address| reach.takes_for_public(address.ip()));
            match (public.is_empty(), other.first()) {
                (true, Some(address)) => Err(not_public(address.ip()).into()),
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address is one of the public network: IANA's special-purpose registries
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, `…ipv6-special-registry`) have all others.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b)) // behind a carrier's translation, RFC 6598
        || (a == 192 && b == 0 && c == 0) // protocol assignments, RFC 6890
        || (a == 192 && b == 88 && c == 99) // relays to IPv6, RFC 7526
        || (a == 198 && (b == 18 || b == 19)) // benchmarks, RFC 2544
        || a >= 224; // multicast, reserved, broadcast
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // An IPv4 address in another dress is as public as that is.
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Translation (RFC 6052) and 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Only this eighth of the space is given out (RFC 4291 §2.4), without documentation and protocol assignments.
        [0x2001, second, ..] if second < 0x200 => false,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// Follows up to five redirects, never to another scheme: from `https` that would give up TLS, and from `http` this
/// client has no certificates to trust.
pub(super) fn follow(attempt: Attempt<'_>, reach: Reach) -> Action {
    let from = attempt.previous().last().map(Url::scheme).unwrap_or_default().to_owned();
    if attempt.previous().len() > 5 {
        attempt.error("more than five redirects")
    } else if let Some(objection) = reach.objection(attempt.url()) {
        let to = redacted(attempt.url());
        attempt.error(format!("redirects to {to}, where it is not followed: {objection}"))
    } else if attempt.url().scheme() == from {
        attempt.follow()
    } else {
        let to = redacted(attempt.url());
        attempt.error(format!("redirects to {to}; use that URL if it is the cache's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in [
            "1.1.1.1",
            "93.184.216.34",
            "100.128.0.1",
            "2606:4700::1111",
            "2002:0101:0101::1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:0001::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(special.parse().expect("an address")), "{special}");
        }
    }

    #[test]
    fn what_others_name_is_contacted_over_tls_at_public_addresses() {
        let objection = |url: &str| Reach::Public.objection(&Url::parse(url).expect("a URL"));
        assert_eq!(objection("https://cache.example.org/x"), None);
        assert_eq!(objection("https://1.1.1.1/"), None);
        for url in [
            "http://cache.example.org/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            "s3://bucket",
        ] {
            assert!(objection(url).is_some(), "{url}");
            assert_eq!(Reach::Anywhere.objection(&Url::parse(url).expect("a URL")), None);
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_has_no_public_address() {
        let name = "localhost".parse().expect("a name");
        let error = PublicResolver(Reach::Public).resolve(name).await.err().expect("an objection");
        assert!(error.to_string().contains("no public address"), "{error}");
    }
}
