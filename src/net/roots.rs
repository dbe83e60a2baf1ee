//! The certificates that TLS trusts.

use std::path::{Path, PathBuf};

use url::Url;

use super::failure::{HttpError, words};

/// Where the certificates come from that TLS trusts.
#[derive(Clone, Debug, Default)]
pub enum TlsRoots {
    /// The system's store, and the bundled Mozilla roots for machines without one.
    #[default]
    System,
    /// Exactly the certificates of this PEM file, as `NIX_SSL_CERT_FILE` asks.
    File {
        /// The file.
        file: PathBuf,
        /// Who named it, for errors.
        named_by: &'static str,
    },
}

/// The certificates that a client trusts, read once for all its connections.
pub(super) enum Roots {
    /// The system's store, and these.
    System(Vec<reqwest::Certificate>),
    /// Exactly these.
    Only(Vec<reqwest::Certificate>),
}

impl Roots {
    /// The certificates for servers of the scheme of `url`; none where it needs none.
    pub(super) fn load(url: &Url, roots: &TlsRoots) -> Result<Self, HttpError> {
        match (roots, url.scheme()) {
            (TlsRoots::File { file, named_by }, "https") => Ok(Self::Only(certificates(file, named_by)?)),
            (TlsRoots::System, "https") => {
                let bundled: Result<Vec<_>, _> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
                    .iter()
                    .map(|der| reqwest::Certificate::from_der(der))
                    .collect();
                Ok(Self::System(bundled.map_err(|error| HttpError::Setup(words(&error)))?))
            }
            _ => Ok(Self::Only(Vec::new())),
        }
    }

    pub(super) fn trusted_by(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        match self {
            Self::System(bundled) => builder.tls_certs_merge(bundled.iter().cloned()),
            Self::Only(these) => builder.tls_certs_only(these.iter().cloned()),
        }
    }
}

/// The certificates of a PEM file.
fn certificates(file: &Path, named_by: &str) -> Result<Vec<reqwest::Certificate>, HttpError> {
    let failed = |reason: String| {
        HttpError::Setup(format!("the certificates that {named_by} names, {}: {reason}", file.display()))
    };
    let pem = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(words(&error)))?;
    if found.is_empty() { Err(failed("there is none in it".to_owned())) } else { Ok(found) }
}
