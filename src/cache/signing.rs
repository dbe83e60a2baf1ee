//! Signing narinfos with a Nix secret key.
//!
//! Key files are Nix's: `NAME:BASE64`, where the 64 bytes are an Ed25519 seed and its public key
//! (`nix-store --generate-binary-cache-key`, `nix key generate-secret`; `src/libstore/crypto.cc` in NixOS/nix).

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use nix_narinfo::{NixSignature, TrustedPublicKey};
use secrecy::{ExposeSecret as _, SecretString};

/// A secret key that cannot be used. Says nothing of its content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the signing key {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not a Nix secret key.
    #[error(
        "{path} is not a Nix secret key (NAME:BASE64 of 64 bytes, as `nix key generate-secret` writes it)"
    )]
    NotAKey {
        /// The file.
        path: String,
    },
    /// The two halves of the key do not belong together.
    #[error("{path} is damaged: the public half of the key does not belong to the secret half")]
    Mismatch {
        /// The file.
        path: String,
    },
}

/// A named Ed25519 key pair. Its memory is wiped when it is dropped, and it prints only its name.
pub struct SigningKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not a key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| KeyError::Unreadable { path: shown.clone(), source })?;
        Self::parse(&text.into(), &shown)
    }

    /// Reads the text of a key file; `path` is for the error.
    ///
    /// # Errors
    ///
    /// When the text is not a key.
    pub fn parse(text: &SecretString, path: &str) -> Result<Self, KeyError> {
        let not_a_key = || KeyError::NotAKey { path: path.to_owned() };
        let (name, encoded) = text.expose_secret().trim().split_once(':').ok_or_else(not_a_key)?;
        let bytes: [u8; 64] =
            STANDARD.decode(encoded).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(not_a_key)?;
        let is_name = |byte: u8| byte.is_ascii_graphic();
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(not_a_key());
        }
        let key = ed25519_dalek::SigningKey::from_keypair_bytes(&bytes)
            .map_err(|_| KeyError::Mismatch { path: path.to_owned() })?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// Makes a new key, named after its own public half so that no two keys share a name.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn generate() -> std::io::Result<Self> {
        use std::io::Read as _;
        let mut seed = [0u8; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        let [a, b, c, d, ..] = *key.verifying_key().as_bytes();
        let mark = u32::from_be_bytes([a, b, c, d]);
        Ok(Self { name: format!("cache-helper-{mark:08x}-1"), key })
    }

    /// The text of the key file.
    pub fn to_secret_text(&self) -> SecretString {
        format!("{}:{}\n", self.name, STANDARD.encode(self.key.to_keypair_bytes())).into()
    }

    /// The line for `trusted-public-keys`: `NAME:BASE64`.
    pub fn public_key(&self) -> String {
        format!("{}:{}", self.name, STANDARD.encode(self.key.verifying_key().as_bytes()))
    }

    /// The public half, for checking signatures.
    pub fn trusted(&self) -> TrustedPublicKey {
        TrustedPublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signs a narinfo's fingerprint.
    pub fn sign(&self, fingerprint: &str) -> NixSignature {
        let signature = self.key.sign(fingerprint.as_bytes());
        NixSignature { key_name: self.name.clone(), encoded: STANDARD.encode(signature.to_bytes()) }
    }
}

/// Whether a key file lets others than its owner read it.
pub fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_read_back_and_signs() {
        let key = SigningKey::generate().expect("randomness");
        let again = SigningKey::parse(&key.to_secret_text(), "k").expect("our own text");
        assert_eq!(again.public_key(), key.public_key());
        let signature = again.sign("1;x");
        assert_eq!(signature.verify(b"1;x", &[key.trusted()]), Ok(true));
        assert_eq!(signature.verify(b"1;y", &[key.trusted()]), Ok(false));
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        let key = SigningKey::generate().expect("randomness");
        let text = key.to_secret_text();
        let encoded = text.expose_secret().trim().split_once(':').expect("a name").1.to_owned();
        let mut bytes = STANDARD.decode(&encoded).expect("base64");
        bytes[63] ^= 1;
        let damaged = format!("a:{}", STANDARD.encode(bytes));
        for bad in
            ["", "a", "a:", ":x", &format!("a:{}", &encoded[..40]), &format!("a\nb:{encoded}"), &damaged]
        {
            let error = SigningKey::parse(&bad.to_owned().into(), "k").expect_err("no key").to_string();
            assert!(!error.contains(&encoded[..20]), "{error}");
        }
        assert!(!format!("{key:?}").contains(&encoded[..20]));
    }
}
