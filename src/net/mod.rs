//! HTTP as this program needs it: bounded, patient, and silent about secrets.
//!
//! [`HttpClient`] sends one logical request: it limits what it reads and how long it waits, retries what is worth
//! retrying ([`Retry`]), and attaches credentials from [`Netrc`] only where they may travel. It knows nothing of caches.

mod client;
mod credentials;
mod download;
mod failure;
mod lanes;
mod netrc;
mod pace;
mod reach;
mod retry;
mod roots;
mod upload;

pub use client::{HttpClient, HttpSettings, Reply, Sent, words_of_server};
pub use download::Download;
pub use failure::HttpError;
pub use netrc::{Login, Netrc};
pub use reach::Reach;
pub use retry::Retry;
pub use roots::TlsRoots;
pub use upload::UploadBody;

use url::{Host, Url};

/// Whether credentials may travel to this URL: over TLS, or to this machine only.
pub fn may_carry_credentials(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A URL as it may be shown: without user information, query values or fragment.
///
/// Presigned URLs carry their whole credential in the query, so values are replaced rather than guessed at.
pub fn redacted(url: &Url) -> String {
    let mut shown = url.clone();
    // Setting user information fails only for URLs that cannot have any, which then have none to hide.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_fragment(None);
    if let Some(query) = url.query() {
        let keys: Vec<&str> =
            query.split('&').map(|pair| pair.split('=').next().unwrap_or_default()).collect();
        shown.set_query(Some(&keys.iter().map(|key| format!("{key}=…")).collect::<Vec<_>>().join("&")));
        return shown.to_string().replace("%E2%80%A6", "…");
    }
    shown.to_string()
}

#[cfg(test)]
mod tests;
