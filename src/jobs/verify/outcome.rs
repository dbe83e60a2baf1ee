//! What became of a proof.

use std::time::Duration;

use serde::Serialize;

use crate::jobs::LocalNixError;
use crate::net::HttpError;
use crate::nix::ResolveError;

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no Nix to say whom to trust.
    #[error(transparent)]
    Nix(#[from] LocalNixError),
    /// It is not known which paths are meant.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// HTTP cannot be set up.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Somebody wanted to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Paths of the closure, as far as it could be followed.
    pub paths: usize,
    /// NARs that were looked for, or downloaded.
    pub nars: usize,
    /// Bytes to download, compressed.
    pub download_bytes: u64,
    /// Bytes when they are unpacked.
    pub unpack_bytes: u64,
    /// How many things are wrong.
    pub problems: usize,
    /// How many things are not known.
    pub unknown: usize,
}

/// What a cache serves of the closure, whatever else is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// Paths whose narinfos it serves.
    pub paths: usize,
    /// Bytes to download, compressed, as far as it is said.
    pub download_bytes: u64,
    /// Bytes when they are unpacked.
    pub unpack_bytes: u64,
}

/// A cache and how it did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheReport {
    /// Its URL.
    pub url: String,
    /// `cache`, or `upstream`.
    pub role: &'static str,
    /// What it serves.
    pub serves: Served,
    /// How often it was asked.
    pub requests: usize,
    /// How long the middle answer took.
    pub median_seconds: Option<f64>,
}

/// Something that is wrong, or not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemReport {
    /// Its id.
    pub problem: &'static str,
    /// Whether nothing is known to be wrong, only not known to be right.
    pub unknown: bool,
    /// The path; nothing for the cache as a whole.
    pub path: Option<String>,
    /// Which cache.
    pub cache: String,
    /// What was found.
    pub words: String,
    /// A path that needs it.
    pub needed_by: Option<String>,
    /// What to do.
    pub fix: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyReport {
    /// The revision of the flake that was named.
    pub revision: Option<String>,
    /// Whether the cache can serve the closure; nothing where that is not known.
    pub verified: Option<bool>,
    /// The paths that were named, or stand for what was.
    pub roots: Vec<String>,
    /// Whether NARs were downloaded.
    pub deep: bool,
    /// The cache, and its upstreams.
    pub caches: Vec<CacheReport>,
    /// What was looked at.
    pub totals: Totals,
    /// What is wrong, and then what is not known.
    pub problems: Vec<ProblemReport>,
    /// How long it took.
    pub elapsed: Duration,
}
