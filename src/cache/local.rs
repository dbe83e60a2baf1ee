//! The embedded cache: a directory that this program owns, with a key of its own.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::{CacheUrl, KeyError, SigningKey};

/// Why the embedded cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalCacheError {
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The embedded cache.
#[derive(Debug)]
pub struct LocalCache {
    /// Where it is.
    pub url: CacheUrl,
    /// What signs everything that goes into it.
    pub key: SigningKey,
    /// Whether the key was made just now.
    pub is_new_key: bool,
}

/// Where the embedded cache below `directory` (usually `$XDG_CACHE_HOME/cache-helper`) is.
pub fn binary_cache(directory: &Path) -> PathBuf {
    directory.join("binary-cache")
}

impl LocalCache {
    /// Opens the cache below `directory` (usually `$XDG_CACHE_HOME/cache-helper`), making its key at first use.
    ///
    /// With `may_write` false a key that is not there is made for this run alone, and nothing is written.
    ///
    /// The secret key lies beside the cache and not in it, because the cache may be served to others.
    ///
    /// # Errors
    ///
    /// When the key cannot be read or made.
    pub fn open(directory: &Path, may_write: bool) -> Result<Self, LocalCacheError> {
        let url = CacheUrl::directory(binary_cache(directory));
        let path = directory.join("binary-cache.secret-key");
        let (key, is_new_key) = match SigningKey::read(&path) {
            Ok(key) => (key, false),
            Err(KeyError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {
                make_key(directory, &path, may_write)?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { url, key, is_new_key })
    }
}

/// Makes a key file, unless another run is faster, whose key is then taken.
fn make_key(directory: &Path, path: &Path, may_write: bool) -> Result<(SigningKey, bool), LocalCacheError> {
    let failed = |source| LocalCacheError::Write { path: path.display().to_string(), source };
    let key = SigningKey::generate().map_err(failed)?;
    if !may_write {
        return Ok((key, true));
    }
    fs::create_dir_all(directory).map_err(failed)?;
    let unfinished: PathBuf = directory.join(format!(".binary-cache.secret-key.{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(key.to_secret_text().expose_secret().as_bytes())?;
            file.sync_all()
        })
        // A link fails where the name is taken, so that two first runs agree on one key.
        .and_then(|()| fs::hard_link(&unfinished, path));
    let removed = fs::remove_file(&unfinished);
    match written {
        Ok(()) => {
            removed.map_err(failed)?;
            Ok((key, true))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok((SigningKey::read(path)?, false)),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        LocalCache::open(directory.path(), false).expect("a look");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0, "a look leaves nothing");
        let first = LocalCache::open(directory.path(), true).expect("a new cache");
        let again = LocalCache::open(directory.path(), true).expect("the same cache");
        assert!(first.is_new_key && !again.is_new_key);
        assert_eq!(first.key.public_key(), again.key.public_key());
        let mode = fs::metadata(directory.path().join("binary-cache.secret-key"))
            .expect("a key")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }
}
