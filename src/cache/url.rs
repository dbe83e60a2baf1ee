//! How a cache is written on a command line: as Nix writes store URLs.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use crate::net::redacted;
use crate::text::Printable;

/// A text that names no cache that this program can use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheUrlError {
    /// It is neither a URL nor a path.
    #[error("'{}' is no cache: expected file:///DIRECTORY, a path with a `/`, http(s)://HOST/… or `local`", Printable(.0))]
    NotACache(String),
    /// It is a URL of a kind that is not supported.
    #[error("caches of the kind {}: are not supported by this version", Printable(.0))]
    UnknownScheme(String),
    /// It contains a user name or password.
    #[error("the URL of {} contains a user name or password, which would show in process lists and logs", Printable(.0))]
    Credentials(String),
}

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory.
    Directory(PathBuf),
    /// An HTTP server; the URL ends with `/` and has no query.
    Http(Url),
}

/// A cache's location and what Nix's URL parameters say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUrl {
    location: Location,
    trusted: bool,
    priority: Option<i64>,
}

impl CacheUrl {
    /// Reads `file:///dir`, a path that contains a `/` (or is `.` or `..`), or `http(s)://host/prefix`.
    ///
    /// Of Nix's parameters, `trusted` and `priority` are understood; the others steer Nix alone and are left aside.
    /// Relative paths are taken from `directory`.
    ///
    /// # Errors
    ///
    /// When the text is none of these, or carries credentials.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, CacheUrlError> {
        if !text.contains("://") {
            if !(text.contains('/') || matches!(text, "." | "..")) {
                return Err(match text.split_once(':') {
                    Some((scheme @ ("cachix" | "s3" | "ssh"), _)) => {
                        CacheUrlError::UnknownScheme(scheme.to_owned())
                    }
                    _ => CacheUrlError::NotACache(text.to_owned()),
                });
            }
            // By its components, which leaves `/./` out.
            return Ok(Self::directory(directory.join(text).components().collect()));
        }
        let mut url = Url::parse(text).map_err(|_| CacheUrlError::NotACache(text.to_owned()))?;
        let trusted =
            url.query_pairs().any(|(key, value)| key == "trusted" && matches!(&*value, "true" | "yes" | "1"));
        let mut priority = url.query_pairs().filter(|(key, _)| key == "priority");
        let priority = priority.next().and_then(|(_, value)| value.parse().ok());
        url.set_query(None);
        url.set_fragment(None);
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| CacheUrlError::NotACache(text.to_owned()))?;
                Ok(Self { location: Location::Directory(path), trusted, priority })
            }
            "http" | "https" => {
                if !url.username().is_empty() || url.password().is_some() {
                    return Err(CacheUrlError::Credentials(url.host_str().unwrap_or_default().to_owned()));
                }
                if !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                Ok(Self { location: Location::Http(url), trusted, priority })
            }
            scheme => Err(CacheUrlError::UnknownScheme(scheme.to_owned())),
        }
    }

    /// The cache in a directory.
    pub fn directory(path: PathBuf) -> Self {
        Self { location: Location::Directory(path), trusted: false, priority: None }
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether Nix is told to trust it without signatures (`?trusted=true`).
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }
}

impl CacheUrl {
    /// The priority that the URL gives the cache (`?priority=`), which goes before the cache's own.
    pub fn priority(&self) -> Option<i64> {
        self.priority
    }
}

impl fmt::Display for CacheUrl {
    /// The URL as Nix takes it, without parameters, fit to print.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Directory(path) => match Url::from_file_path(path) {
                Ok(url) => formatter.write_str(url.as_str()),
                Err(()) => write!(formatter, "file://{}", Printable(&path.to_string_lossy())),
            },
            Location::Http(url) => formatter.write_str(redacted(url).trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, CacheUrlError> {
        CacheUrl::parse(text, Path::new("/here")).map(|url| url.to_string())
    }

    #[test]
    fn caches_are_written_as_nix_writes_them() {
        assert_eq!(shown("file:///a/b").as_deref(), Ok("file:///a/b"));
        assert_eq!(shown("file:///a%20b?compression=zstd").as_deref(), Ok("file:///a%20b"));
        assert_eq!(shown("./cache").as_deref(), Ok("file:///here/cache"));
        assert_eq!(shown("/abs").as_deref(), Ok("file:///abs"));
        assert_eq!(shown("https://h/p").as_deref(), Ok("https://h/p"));
        assert_eq!(shown("http://h:80/p/?priority=3").as_deref(), Ok("http://h/p"));
        assert!(CacheUrl::parse("https://h?trusted=true", Path::new("/")).expect("a URL").is_trusted());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(shown("cachix"), Err(CacheUrlError::NotACache("cachix".into())));
        assert_eq!(shown("cachix:team"), Err(CacheUrlError::UnknownScheme("cachix".into())));
        assert_eq!(shown("s3://bucket"), Err(CacheUrlError::UnknownScheme("s3".into())));
        for text in ["https://me:sesame@h/", "https://me:sesame@h:99999/x", "ftp://me:sesame@h/"] {
            let error = shown(text).expect_err("credentials");
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
    }
}
