//! Flags, environment and the user's file become plain settings, here and nowhere else.
//!
//! The user's file is `$XDG_CONFIG_HOME/cache-helper/cache-helper.toml`:
//!
//! ```toml
//! to = ["https://cache.example.org"]
//!
//! [target."https://cache.example.org"]
//! upstreams = ["https://cache.nixos.org"]
//! sign-key-file = "/home/me/.config/cache-helper/key"
//! ```
//!
//! Flags win over the environment, and the environment over the file.

use std::collections::BTreeMap;
use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cache::CacheUrl;
use crate::jobs::StoreEnvironment;
use crate::net::TlsRoots;

/// Where the target is taken from when no flag says it.
pub const TO_VARIABLE: &str = "CACHE_HELPER_TO";

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong and where.
        reason: String,
    },
    /// There is no home directory to keep the embedded cache in.
    #[error("neither XDG_CACHE_HOME nor HOME is set, so there is no place for the local cache")]
    NoHome,
    /// The working directory is gone.
    #[error("the working directory cannot be read: {0}")]
    NoDirectory(#[source] std::io::Error),
}

/// What the environment says, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The working directory.
    pub directory: PathBuf,
    /// `CACHE_HELPER_TO`, split at white space.
    pub to: Vec<String>,
    /// Whether this is a CI job (`CI` is set, and not to `false`, `0` or nothing).
    pub is_ci: bool,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// Where user caches go.
    pub cache_home: Option<PathBuf>,
    /// Where user configuration is.
    pub config_home: Option<PathBuf>,
    /// Where the store is.
    pub store: StoreEnvironment,
    /// The file that `NIX_SSL_CERT_FILE`, else `SSL_CERT_FILE`, names, and which of the two does.
    pub certificates: Option<(PathBuf, &'static str)>,
    /// Where temporary files go.
    pub temporary: PathBuf,
}

impl Environment {
    /// Reads the environment of this process.
    ///
    /// # Errors
    ///
    /// When the working directory is gone.
    pub fn read() -> Result<Self, ConfigError> {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let below_home = |name: &str, default: &str| {
            // The XDG specification has relative paths ignored.
            path(name)
                .filter(|path| path.is_absolute())
                .or_else(|| home.as_ref().map(|home| home.join(default)))
        };
        let is_ci = env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
        Ok(Self {
            directory: env::current_dir().map_err(ConfigError::NoDirectory)?,
            to: env::var(TO_VARIABLE)
                .map(|value| value.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            is_ci,
            cache_home: below_home("XDG_CACHE_HOME", ".cache"),
            config_home: below_home("XDG_CONFIG_HOME", ".config"),
            store: StoreEnvironment {
                state_dir: path("NIX_STATE_DIR"),
                data_home: below_home("XDG_DATA_HOME", ".local/share"),
            },
            certificates: ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"]
                .into_iter()
                .find_map(|variable| Some((path(variable)?, variable))),
            temporary: env::temp_dir(),
            home,
        })
    }

    /// The directory of the embedded cache.
    ///
    /// # Errors
    ///
    /// When there is no home directory.
    pub fn local_cache(&self) -> Result<PathBuf, ConfigError> {
        self.cache_home.as_ref().map(|home| home.join("cache-helper")).ok_or(ConfigError::NoHome)
    }

    /// The certificates to trust. They are read when something asks for `https`.
    pub fn tls_roots(&self) -> TlsRoots {
        match &self.certificates {
            None => TlsRoots::System,
            Some((file, variable)) => TlsRoots::File { file: file.clone(), named_by: variable },
        }
    }

    /// The user's file; the default where there is none.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read or understood.
    pub fn user_file(&self) -> Result<UserFile, ConfigError> {
        let Some(home) = &self.config_home else { return Ok(UserFile::default()) };
        let file = home.join("cache-helper/cache-helper.toml");
        match std::fs::read_to_string(&file) {
            Ok(text) => UserFile::parse(&text, &file),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(UserFile::default())
            }
            Err(source) => Err(unreadable(&file, source)),
        }
    }
}

fn unreadable(file: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Unreadable { path: file.display().to_string(), source }
}

/// The user's file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UserFile {
    /// Where to push.
    #[serde(default)]
    pub to: Vec<String>,
    /// What is special about a target, by the name that `to` or `--to` gives it.
    #[serde(default)]
    pub target: BTreeMap<String, TargetFile>,
}

/// What the user's file says of one target.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TargetFile {
    /// Caches that the target's users have anyway.
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// The key to sign with.
    pub sign_key_file: Option<PathBuf>,
}

impl UserFile {
    fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            ConfigError::Invalid {
                path: format!("{}:{line}", file.display()),
                reason: error.message().lines().next().unwrap_or_default().to_owned(),
            }
        })
    }

    /// What the file says of a target, however either of them is written; relative paths are taken from `directory`.
    pub fn target(&self, name: &str, directory: &Path) -> TargetFile {
        let place = |name: &str| CacheUrl::parse(name, directory).ok().map(|url| url.location().clone());
        let wanted = place(name);
        let same = |known: &str| known == name || (wanted.is_some() && place(known) == wanted);
        self.target
            .iter()
            .find(|(known, _)| same(known))
            .map(|(_, target)| target.clone())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_file_is_read() {
        let text = "to = [\"/c\"]\n[target.\"/c\"]\nupstreams = [\"https://u\"]\nsign-key-file = \"/k\"\n";
        let file = UserFile::parse(text, Path::new("f")).expect("a file");
        assert_eq!(file.to, ["/c"]);
        let target = |name: &str| file.target(name, Path::new("/"));
        assert_eq!(target("/c").upstreams, ["https://u"]);
        assert_eq!(target("/d"), TargetFile::default());
    }

    #[test]
    fn a_target_is_found_however_it_is_written() {
        let text = "[target.\"https://Cache.example.org\"]\nsign-key-file = \"/k\"\n\
                    [target.\"/srv/cache\"]\nsign-key-file = \"/l\"\n[target.local]\nsign-key-file = \"/m\"\n";
        let file = UserFile::parse(text, Path::new("f")).expect("a file");
        let key = |name: &str| file.target(name, Path::new("/srv")).sign_key_file;
        for name in [
            "https://cache.example.org",
            "https://cache.example.org/",
            "https://cache.example.org:443?priority=1",
        ] {
            assert_eq!(key(name), Some("/k".into()), "{name}");
        }
        for name in ["/srv/cache", "./cache", "file:///srv/cache", "/srv/./cache/"] {
            assert_eq!(key(name), Some("/l".into()), "{name}");
        }
        assert_eq!(key("local"), Some("/m".into()));
        for name in ["http://cache.example.org", "https://cache.example.org/x", "./local"] {
            assert_eq!(key(name), None, "{name}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let error =
            UserFile::parse("to = []\nform = 1\n", Path::new("f")).expect_err("unknown key").to_string();
        assert!(error.starts_with("f:2: unknown field `form`"), "{error}");
    }
}
