//! What a store has registered of one path.

use nix_derivation::{CAHash, NixHash, StorePath};
use nix_narinfo::NixSignature;

/// A store object's registration: what Nix calls its path info.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// The path itself.
    pub path: StorePath,
    /// SHA-256 of the object as a NAR.
    pub nar_hash: NixHash,
    /// Size of the object as a NAR, in bytes; never 0.
    pub nar_size: u64,
    /// What the object refers to, itself included where it does.
    pub references: Vec<StorePath>,
    /// The derivation that made it, where the store knows.
    pub deriver: Option<StorePath>,
    /// Every signature that the store holds for the path.
    pub signatures: Vec<NixSignature>,
    /// The content address, for paths that need no signature.
    pub content_address: Option<CAHash>,
}

impl PathInfo {
    /// The base name that caches and logs know the path by: `<hash>-<name>`.
    pub fn base_name(&self) -> String {
        self.path.to_basename()
    }
}
