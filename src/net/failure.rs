//! Requests without an answer: why, in words that hold no secret.

use std::time::Duration;

use crate::text::Printable;

/// Why there is no answer. A status from the server is an answer, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The client could not be set up.
    #[error("cannot set up HTTP: {0}")]
    Setup(String),
    /// No connection, or it broke, after all attempts.
    #[error("{reason} (after {attempts} attempts)")]
    Connection {
        /// What went wrong last.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// TLS failed: a certificate that is not trusted, or a server that does not speak it.
    #[error("TLS: {0}")]
    Tls(String),
    /// Nothing moved for the stall limit, in every attempt.
    #[error("no progress for {} s", .limit.as_secs())]
    Stalled {
        /// The limit.
        limit: Duration,
    },
    /// An answer came in drops, and did not end within several times the stall limit.
    #[error("the answer did not end within {} s", .limit.as_secs())]
    TooSlow {
        /// How long it was given.
        limit: Duration,
    },
    /// The body is larger than it may be.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

/// The error after so many attempts.
pub(super) fn with_attempts(error: HttpError, attempts: u32) -> HttpError {
    match error {
        HttpError::Connection { reason, .. } => HttpError::Connection { reason, attempts },
        other => other,
    }
}

pub(super) fn connection_error(error: &reqwest::Error) -> HttpError {
    if is_tls(error) {
        return HttpError::Tls(words(error));
    }
    HttpError::Connection { reason: words(error), attempts: 1 }
}

/// Whether TLS is what failed, which trying again does not change.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>()
            || wrapped.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
        {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost words of an error: reqwest's outer ones repeat the URL, which may hold secrets.
pub(super) fn words(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    let mut outermost = true;
    while let Some(inner) = source.source() {
        source = inner;
        outermost = false;
    }
    let reason = if outermost {
        let kind = if error.is_redirect() {
            "too many redirects"
        } else if error.is_timeout() {
            "no connection in time"
        } else {
            "the request failed"
        };
        kind.to_owned()
    } else {
        source.to_string()
    };
    Printable(&reason).to_string()
}
