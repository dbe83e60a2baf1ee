//! Nix's effective settings, as far as they matter here.

use std::path::PathBuf;

use nix_derivation::StoreDir;
use nix_narinfo::TrustedPublicKey;
use serde_json::Value;

use super::arguments::EvaluationArguments;
use super::command_line;
use super::program::{Nix, NixError, Version};

/// From this version on the command is called `nix config show`.
const CONFIG_SHOW: Version = Version { major: 2, minor: 20 };

/// What Nix believes from a cache.
#[derive(Clone, Debug, Default)]
pub struct TrustSettings {
    /// Keys whose signatures Nix takes.
    pub public_keys: Vec<TrustedPublicKey>,
    /// Whether a signature is needed at all.
    pub require_signatures: bool,
    /// Files with secret keys, of which Nix trusts the public ones too.
    pub secret_key_files: Vec<PathBuf>,
}

/// How Nix decides between fetching and building.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubstitutionSettings {
    /// `substituters`: the caches that Nix asks, as they are written.
    pub substituters: Vec<String>,
    /// `substitute`: whether it asks at all.
    pub substitute: bool,
    /// `fallback`: whether it builds what it fails to fetch.
    pub fallback: bool,
    /// `always-allow-substitutes`: whether it fetches even what does not want it. From Nix 2.19 on.
    pub always_allow: bool,
}

/// Nix's settings here and now, as the client sees them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory that store paths are named by.
    pub store_dir: StoreDir,
    /// The `store` setting: `auto`, `daemon`, a path, a URL.
    pub store: String,
    /// The `netrc-file` setting.
    pub netrc_file: Option<PathBuf>,
    /// What Nix believes.
    pub trust: TrustSettings,
    /// What Nix fetches.
    pub substitution: SubstitutionSettings,
    /// The system that it builds for.
    pub system: String,
}

impl Settings {
    /// Asks Nix.
    ///
    /// # Errors
    ///
    /// When Nix fails, or says something unexpected.
    pub async fn read(nix: &Nix, arguments: &EvaluationArguments) -> Result<Self, NixError> {
        let mut words: Vec<&str> =
            if nix.version() >= CONFIG_SHOW { vec!["config", "show"] } else { vec!["show-config"] };
        words.push("--json");
        if let Some(store) = arguments.store() {
            words.extend(["--store", store]);
        }
        words.extend(arguments.settings().flat_map(|(name, value)| ["--option", name, value]));
        let shown = command_line::shown("nix", &words);
        // The store directory is not among the settings; `dummy://` lets Nix say it without opening a store.
        let store_dir = nix.ask(&["eval", "--store", "dummy://", "--raw", "--expr", "builtins.storeDir"]);
        let (settings, store_dir) = tokio::try_join!(nix.ask(&words), store_dir)?;
        let unexpected = |reason: String| NixError::Unexpected { command: shown.clone(), reason };
        let settings: Value =
            serde_json::from_str(&settings).map_err(|error| unexpected(error.to_string()))?;
        let value = |name: &str| settings.get(name).and_then(|setting| setting.get("value"));
        let text = |name: &str| value(name).and_then(Value::as_str).map(str::to_owned);
        let flag = |name: &str, default| value(name).and_then(Value::as_bool).unwrap_or(default);
        let list = |name: &str| value(name).and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            store_dir: StoreDir::new(store_dir.trim()).map_err(|error| unexpected(error.to_string()))?,
            store: text("store").unwrap_or_else(|| "auto".to_owned()),
            netrc_file: text("netrc-file").map(PathBuf::from),
            trust: TrustSettings {
                // A key that cannot be read is no key; Nix says so itself whenever it runs.
                public_keys: list("trusted-public-keys")
                    .filter_map(Value::as_str)
                    .filter_map(|key| TrustedPublicKey::parse(key).ok())
                    .collect(),
                require_signatures: flag("require-sigs", true),
                secret_key_files: list("secret-key-files")
                    .filter_map(Value::as_str)
                    .map(PathBuf::from)
                    .collect(),
            },
            substitution: SubstitutionSettings {
                substituters: list("substituters").filter_map(Value::as_str).map(str::to_owned).collect(),
                substitute: flag("substitute", true),
                fallback: flag("fallback", false),
                always_allow: flag("always-allow-substitutes", false),
            },
            system: text("system").unwrap_or_default(),
        })
    }
}
