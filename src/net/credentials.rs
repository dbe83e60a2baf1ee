//! Logins as they travel.

use bytes::Bytes;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};

use super::netrc::Login;

/// How a login is shown to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Name and password (RFC 7617), as Nix does it.
    Basic,
    /// The password alone, as a token (RFC 6750).
    Bearer,
}

/// A login as it travels.
pub(super) struct Credentials {
    header: HeaderValue,
    encoded: SecretString,
    password: SecretString,
}

impl Credentials {
    /// The header for a login; nothing where its characters cannot stand in one.
    pub(super) fn new(login: &Login, scheme: Scheme) -> Option<Self> {
        use base64::Engine as _;
        let pair = format!("{}:{}", login.name, login.password.expose_secret());
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        let mut header = HeaderValue::from_str(&match scheme {
            Scheme::Basic => format!("Basic {encoded}"),
            Scheme::Bearer => format!("Bearer {}", login.password.expose_secret()),
        })
        .ok()?;
        header.set_sensitive(true);
        Some(Self { header, encoded: encoded.into(), password: login.password.clone() })
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// A server's words without the login.
    pub(super) fn removed_from(&self, body: Bytes) -> Bytes {
        [&self.encoded, &self.password].into_iter().fold(body, |body, secret| {
            let secret = secret.expose_secret();
            let is_there =
                !secret.is_empty() && body.windows(secret.len()).any(|part| part == secret.as_bytes());
            if is_there { String::from_utf8_lossy(&body).replace(secret, "[redacted]").into() } else { body }
        })
    }
}

/// Whether a server refuses a login because it wants a token, and nothing else.
pub(super) fn asks_for_token(response: &Response) -> bool {
    let challenges: Vec<String> = response
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_ascii_lowercase)
        .collect();
    let offers = |scheme: &str| {
        let begins = |challenge: &str| challenge.trim_start().starts_with(scheme);
        challenges.iter().any(|value| value.split(',').any(begins))
    };
    response.status() == StatusCode::UNAUTHORIZED && offers("bearer") && !offers("basic")
}
