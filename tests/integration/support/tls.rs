//! Certificates for servers on this machine, by an authority that lasts as long as the test.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::scratch::Scratch;

/// The files of a server on `localhost`.
#[derive(Debug)]
pub(crate) struct Tls {
    /// The authority's certificate, as `NIX_SSL_CERT_FILE` takes it.
    pub(crate) authority: PathBuf,
    /// The server's certificate.
    pub(crate) certificate: PathBuf,
    /// The server's key.
    pub(crate) key: PathBuf,
}

impl Tls {
    /// Makes them in a directory.
    pub(crate) fn new(scratch: &Scratch) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        Self {
            authority: scratch.file("authority.pem", authority.pem()),
            certificate: scratch.file("certificate.pem", certificate.pem()),
            key: scratch.file("key.pem", key.serialize_pem()),
        }
    }
}
