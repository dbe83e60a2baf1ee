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
    /// Nobody took the connection.
    #[error("no connection within {} s", .limit.as_secs())]
    NoConnection {
        /// The limit.
        limit: Duration,
    },
    /// The connection came to its end before the server looked at the request (nginx closes one after 1,000 requests).
    #[error("{reason} (after {attempts} attempts)")]
    Refused {
        /// What went wrong last.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// A redirect that is not followed.
    #[error("{0}")]
    Redirect(String),
    /// It is somebody else who named the server, and it is not one that may be contacted on their word.
    #[error("not contacted, because others than the user name it: {0}")]
    OutOfReach(String),
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
        HttpError::Refused { reason, .. } => HttpError::Refused { reason, attempts },
        other => other,
    }
}

pub(super) fn connection_error(error: &reqwest::Error, connect_timeout: Duration) -> HttpError {
    if is_tls(error) {
        return HttpError::Tls(words(error));
    }
    if error.is_redirect() {
        return HttpError::Redirect(words(error));
    }
    if error.is_timeout() {
        return HttpError::NoConnection { limit: connect_timeout };
    }
    let reason = words(error);
    if is_refused(error) {
        HttpError::Refused { reason, attempts: 1 }
    } else {
        HttpError::Connection { reason, attempts: 1 }
    }
}

/// Whether a server is known not to have looked at a request (RFC 9113 §8.7): it closes the connection in an orderly way, or
/// takes no more streams.
fn is_refused(error: &reqwest::Error) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<h2::Error>()).any(|error| {
        let reason = error.reason();
        error.is_remote()
            && ((error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
                || (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)))
    })
}

/// An error and everything behind it.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
}

/// Whether TLS is what failed, which trying again does not change.
fn is_tls(error: &reqwest::Error) -> bool {
    causes(error).any(|error| {
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        error.is::<rustls::Error>()
            || wrapped.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
    })
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
