//! `nix-cache-info`: whose store a cache is for, and when Nix should ask it.

use nix_derivation::StoreDir;

use super::{Answer, BinaryCache, ObjectName};
use crate::text::Printable;

/// A `nix-cache-info` file that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CacheInfoError {
    /// It has no `StoreDir` line, so that it is some other file.
    #[error("nix-cache-info has no StoreDir line; is this the URL of a binary cache?")]
    NoStoreDir,
}

/// The content of `nix-cache-info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// The store directory that the paths in the cache are for, as the file says it.
    pub store_dir: String,
    /// Nix asks caches with a lower number first.
    pub priority: Option<i64>,
    /// Whether Nix may ask it for many paths at once.
    pub want_mass_query: bool,
}

impl CacheInfo {
    /// How large the file may be, in bytes.
    pub const LIMIT: usize = 64 * 1024;

    /// Reads the file. Unknown lines are passed over, as Nix does.
    ///
    /// # Errors
    ///
    /// When there is no `StoreDir` line.
    pub fn parse(text: &[u8]) -> Result<Self, CacheInfoError> {
        let text = String::from_utf8_lossy(text);
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim())
        };
        Ok(Self {
            store_dir: Printable(field("StoreDir").ok_or(CacheInfoError::NoStoreDir)?).to_string(),
            priority: field("Priority").and_then(|value| value.parse().ok()),
            want_mass_query: field("WantMassQuery") == Some("1"),
        })
    }

    /// The file for a new cache.
    ///
    /// `priority` 41 is asked right after cache.nixos.org (40), which has most paths of most closures; a cache on the
    /// same disk is better asked before.
    pub fn text(store_dir: &StoreDir, priority: u32) -> String {
        format!("StoreDir: {store_dir}\nWantMassQuery: 1\nPriority: {priority}\n")
    }
}

/// Asks a cache for its `nix-cache-info`.
pub async fn read(cache: &dyn BinaryCache) -> Answer<CacheInfo> {
    let answer = cache.get(&ObjectName::cache_info(), CacheInfo::LIMIT).await;
    answer.and_then(|text| match CacheInfo::parse(&text) {
        Ok(info) => Answer::Present(info),
        Err(error) => Answer::Broken(error.to_string().into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = CacheInfo::text(&StoreDir::default(), 41);
        let info = CacheInfo::parse(text.as_bytes()).expect("our own file");
        assert_eq!(
            info,
            CacheInfo { store_dir: "/nix/store".into(), priority: Some(41), want_mass_query: true }
        );
    }

    #[test]
    fn a_web_page_is_no_cache() {
        assert_eq!(CacheInfo::parse(b"<html>hello</html>"), Err(CacheInfoError::NoStoreDir));
        assert_eq!(CacheInfo::parse(&[0xff, 0]), Err(CacheInfoError::NoStoreDir));
    }
}
