//! Binary caches: one small trait, one file a kind.
//!
//! A cache is a set of named objects: `nix-cache-info`, `<hash>.narinfo`, `nar/…`. [`BinaryCache`] reads and writes
//! them; what the objects mean is [`narinfo`]'s and [`CacheInfo`]'s business, and asking for many is [`presence`]'s.
//! What a cache answers is a value ([`Answer`]), never an error path: "not there", "you may not" and "nobody answered"
//! lead to different conclusions, and an unknown never turns into a miss.
//!
//! The layout is Nix's (`src/libstore/binary-cache-store.cc` in NixOS/nix).

mod answer;
pub mod cache_info;
mod file;
mod http;
pub mod local;
pub mod measured;
pub mod narinfo;
pub mod narinfo_syntax;
pub mod presence;
pub mod signing;
mod staging;
pub mod unpack;
mod url;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use self::answer::{Answer, Words};
pub use self::cache_info::{CacheInfo, CacheInfoError};
pub use self::file::FileCache;
pub use self::http::HttpCache;
pub use self::signing::{KeyError, SigningKey};
pub use self::url::{CacheUrl, CacheUrlError, Location};
use crate::net::{HttpError, HttpSettings, Sent, UploadBody};

/// The name of an object inside a cache: a relative path that cannot leave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks a name: non-empty components of printable ASCII, none of them `.` or `..`.
    ///
    /// Gives nothing for a name that could lead out of the cache, or that means something to a URL.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let is_safe = |component: &str| {
            !matches!(component, "" | "." | "..")
                && component.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._+=@,~".contains(&byte))
        };
        (name.len() <= 512 && name.split('/').all(is_safe)).then_some(Self(name))
    }

    /// `nix-cache-info`, which says whose store the cache is for.
    pub fn cache_info() -> Self {
        Self("nix-cache-info".to_owned())
    }

    /// A NAR, named after the SHA-256 of the object as it is stored; `extension` is `.nar`, `.nar.zst` or `.nar.xz`.
    pub(crate) fn nar(file_digest: &[u8; 32], extension: &'static str) -> Self {
        Self(format!("nar/{}{extension}", nix_derivation::nixbase32::encode(file_digest)))
    }

    /// The name as a relative path with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An object as it comes, piece by piece. After an error, which may be gone when it is read anew, nothing more comes.
pub type Pieces<'a> = BoxStream<'a, Result<Bytes, Words>>;

/// A binary cache, as a place for objects.
pub trait BinaryCache: fmt::Debug + Send + Sync {
    /// Where it is.
    fn url(&self) -> &CacheUrl;

    /// A small object, whole. One larger than `limit` bytes is broken.
    fn get<'a>(&'a self, name: &'a ObjectName, limit: usize) -> BoxFuture<'a, Answer<Bytes>>;

    /// An object of any size, piece by piece.
    fn read<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Pieces<'a>>>;

    /// Whether an object is there, and its size in bytes where the cache says it.
    fn size<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Option<u64>>>;

    /// Writes an object: afterwards it is there whole, or (on an error) as it was before.
    ///
    /// `sent` is told of every chunk that was taken.
    fn put<'a>(
        &'a self,
        name: &'a ObjectName,
        body: UploadBody,
        sent: Sent<'a>,
    ) -> BoxFuture<'a, Result<(), WriteError>>;

    /// A directory in which a file that is to be written can be prepared so that [`BinaryCache::put`] only renames it.
    ///
    /// # Errors
    ///
    /// When the directory is missing and cannot be made.
    fn staging_directory(&self) -> Result<Option<&Path>, WriteError> {
        Ok(None)
    }
}

/// Opens a cache of whatever kind `url` is. Nothing is asked or written yet.
///
/// # Errors
///
/// When HTTP cannot be set up.
pub fn open(url: &CacheUrl, http: &Arc<HttpSettings>) -> Result<Arc<dyn BinaryCache>, HttpError> {
    Ok(match url.location() {
        Location::Directory(root) => Arc::new(FileCache::new(url.clone(), root.clone())),
        Location::Http(base) => Arc::new(HttpCache::new(url.clone(), base.clone(), Arc::clone(http))?),
    })
}

/// Why an object was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The server does not let us: 401, 403 or 407.
    #[error("the cache does not allow writing: {words}")]
    Denied {
        /// What the server said.
        words: String,
    },
    /// The server does not do this: 404, 405, 409, 501, a redirect.
    #[error("the server takes no uploads here: {words}")]
    NotWritable {
        /// What the server said.
        words: String,
    },
    /// This object is too large for the server: 413.
    #[error("too large for the server: {words}")]
    TooLarge {
        /// What the server said.
        words: String,
    },
    /// Any other refusal.
    #[error("the server refused: {words}")]
    Rejected {
        /// What the server said.
        words: String,
    },
    /// There was no answer, or only ones that promised better times, in every attempt.
    #[error("{reason}")]
    Unavailable {
        /// What happened instead.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What a failed write says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It concerns this object alone.
    Object,
    /// The cache may be down: if others fail the same way, it is.
    PerhapsCache,
    /// Every further write would fail the same way.
    Cache,
}

impl WriteError {
    /// What the failure says about further writes.
    pub fn reach(&self) -> Reach {
        use std::io::ErrorKind;
        match self {
            Self::Denied { .. } | Self::NotWritable { .. } => Reach::Cache,
            Self::Unavailable { .. } => Reach::PerhapsCache,
            Self::TooLarge { .. } | Self::Rejected { .. } => Reach::Object,
            Self::File { source, .. } => match source.kind() {
                ErrorKind::PermissionDenied
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::NotADirectory => Reach::Cache,
                _ => Reach::Object,
            },
        }
    }
}

#[cfg(test)]
mod conformance;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_stay_inside_the_cache() {
        for good in ["nix-cache-info", "abc.narinfo", "nar/1x.nar.zst", "a/b/c"] {
            assert!(ObjectName::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "nar/../../x",
            "a//b",
            "a/./b",
            "a?b",
            "a#b",
            "a%2e",
            "a\nb",
            "a\\b",
            "é",
        ] {
            assert!(ObjectName::new(bad).is_none(), "{bad:?}");
        }
    }
}
