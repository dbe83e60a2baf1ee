//! What a cache answered.

use std::fmt;

/// A cache's answer about one object.
///
/// Only [`Answer::Present`] and [`Answer::Absent`] decide anything; the other three are reasons why nothing is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// It is there.
    Present(T),
    /// It is not there (404, 410, no such file).
    Absent,
    /// The cache does not say (401, 403, 407, permission denied).
    Denied(Words),
    /// Something is there that is not what it should be.
    Broken(Words),
    /// Nobody answered.
    Unreachable(Words),
}

/// What came instead of an answer, fit to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// The HTTP status, where a server gave one.
    pub status: Option<u16>,
    /// The cache's own words, or the system's.
    pub text: String,
}

impl Words {
    /// The words that came with an HTTP status.
    pub fn with_status(status: u16, text: String) -> Self {
        Self { status: Some(status), text }
    }
}

impl From<String> for Words {
    fn from(text: String) -> Self {
        Self { status: None, text }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl<T> Answer<T> {
    /// The same answer about something made of the value.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Answer<U> {
        self.and_then(|value| Answer::Present(convert(value)))
    }

    /// The same answer, unless what is there turns out otherwise.
    pub fn and_then<U>(self, convert: impl FnOnce(T) -> Answer<U>) -> Answer<U> {
        match self {
            Self::Present(value) => convert(value),
            Self::Absent => Answer::Absent,
            Self::Denied(words) => Answer::Denied(words),
            Self::Broken(words) => Answer::Broken(words),
            Self::Unreachable(words) => Answer::Unreachable(words),
        }
    }

    /// What is there.
    pub fn present(self) -> Option<T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Denied(_) | Self::Broken(_) | Self::Unreachable(_) => None,
        }
    }
}
