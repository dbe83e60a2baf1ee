//! How often and how long a request is tried again.

use std::time::{Duration, SystemTime};

/// How often a request is sent at most by a job that only tells.
const ATTEMPTS_OF_A_REPORT: u32 = 3;

/// A bounded schedule: exponential backoff with full jitter, limited in number and in total waiting.
///
/// Full jitter (a uniformly random wait below the exponential bound) spreads many runners that were refused at the same
/// moment: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often a request is sent at most, the first time included.
    pub attempts: u32,
    /// The bound of the first wait; it doubles with each attempt.
    pub first_wait: Duration,
    /// The longest single wait, also where a server asks for more.
    pub longest_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, first_wait: Duration::from_millis(250), longest_wait: Duration::from_mins(1) }
    }
}

impl Retry {
    /// The same schedule for a job that only tells: what does not answer after a few attempts is told as that, not waited for.
    #[must_use]
    pub fn for_a_report(self) -> Self {
        Self { attempts: self.attempts.min(ATTEMPTS_OF_A_REPORT), ..self }
    }

    /// How long to wait after the `attempt`-th failure (from 1); nothing when it was the last attempt.
    ///
    /// What the server asked for is obeyed up to [`Retry::longest_wait`].
    pub fn wait(&self, attempt: u32, asked_for: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let bound =
            self.first_wait.saturating_mul(2u32.saturating_pow(attempt - 1)).min(Duration::from_secs(15));
        let jittered = bound.mul_f64(fastrand::f64());
        Some(asked_for.map_or(jittered, |asked| asked.max(jittered)).min(self.longest_wait))
    }
}

/// Whether a status says that the same request may succeed later.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=524)
}

/// Whether a status says that the server has too much to do, for now and for everybody.
pub(super) fn is_overload(status: u16) -> bool {
    matches!(status, 429 | 503)
}

/// Reads a `Retry-After` header: seconds, or an HTTP date (RFC 9110 §10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_and_end() {
        let retry = Retry::default();
        for attempt in 1..retry.attempts {
            assert!(retry.wait(attempt, None).expect("another attempt") <= Duration::from_secs(15));
        }
        assert_eq!(retry.wait(retry.attempts, None), None);
    }

    #[test]
    fn the_servers_wish_is_obeyed_within_reason() {
        let retry = Retry::default();
        assert!(retry.wait(1, Some(Duration::from_secs(7))) >= Some(Duration::from_secs(7)));
        assert_eq!(retry.wait(1, Some(Duration::from_hours(24))), Some(retry.longest_wait));
    }

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_767);
        assert_eq!(retry_after("12", now), Some(Duration::from_secs(12)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sat, 06 Nov 1993 08:49:37 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn a_full_disk_is_not_worth_a_retry() {
        assert!(is_transient(503) && is_transient(429));
        assert!(!is_transient(507) && !is_transient(404) && !is_transient(413));
    }
}
