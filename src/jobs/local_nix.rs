//! What every job needs to know of this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::SigningKey;
use crate::event::{Event, Reporter};
use crate::net::{HttpSettings, Netrc};
use crate::nix::{
    EvaluationArguments, Installable, Nix, NixError, ResolveError, Settings, Store, StoreError,
};

/// What the environment says about where the store is.
#[derive(Clone, Debug, Default)]
pub struct StoreEnvironment {
    /// `NIX_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// `XDG_DATA_HOME`, or what it stands for.
    pub data_home: Option<PathBuf>,
}

/// The local Nix, its settings and its store.
#[derive(Clone, Debug)]
pub struct LocalNix {
    /// Nix's effective settings.
    pub settings: Settings,
    /// The store, with its Nix.
    pub store: Store,
}

/// Why there is no local Nix to work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalNixError {
    /// Nix is missing or failed.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// Its store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LocalNix {
    /// Finds Nix and asks for its settings.
    ///
    /// # Errors
    ///
    /// When there is no Nix, it does not answer, or its store is elsewhere.
    pub async fn open(
        arguments: &EvaluationArguments,
        environment: &StoreEnvironment,
    ) -> Result<Self, LocalNixError> {
        let nix = Nix::find().await?;
        let mut settings = Settings::read(&nix, arguments).await?;
        for file in &settings.trust.secret_key_files {
            // The daemon's are for its eyes only.
            if let Ok(key) = SigningKey::read(file) {
                settings.trust.public_keys.push(key.trusted());
            }
        }
        let store = Store::locate(
            nix,
            &settings,
            arguments.store(),
            environment.state_dir.clone(),
            environment.data_home.as_deref(),
        )?;
        Ok(Self { settings, store })
    }

    /// Understands what was named, and tells when it has to be evaluated.
    ///
    /// # Errors
    ///
    /// When something that was named makes no sense.
    pub fn installables(
        &self,
        named: &[String],
        directory: &Path,
        arguments: &EvaluationArguments,
        reporter: &Reporter,
    ) -> Result<Vec<Installable>, ResolveError> {
        let installables = named
            .iter()
            .map(|text| Installable::parse(text, &self.store, directory, arguments))
            .collect::<Result<Vec<_>, _>>()?;
        if installables.iter().any(|installable| matches!(installable, Installable::Expression(..))) {
            reporter.emit(Event::Step { what: "evaluating".to_owned() });
        }
        Ok(installables)
    }

    /// HTTP settings with the logins of Nix's `netrc-file`.
    ///
    /// A file that is there and cannot be read is worth a warning: it is usually the daemon's.
    pub fn with_logins(&self, mut http: HttpSettings, reporter: &Reporter) -> Arc<HttpSettings> {
        if let Some(file) = &self.settings.netrc_file {
            match read_netrc(file) {
                Ok(netrc) => http.netrc = netrc,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    reporter.warn(format!("the netrc file {} is not used: {error}", file.display()));
                }
            }
        }
        Arc::new(http)
    }
}

fn read_netrc(file: &Path) -> std::io::Result<Netrc> {
    use secrecy::ExposeSecret as _;
    let text = secrecy::SecretString::from(std::fs::read_to_string(file)?);
    Ok(Netrc::parse(text.expose_secret()))
}
