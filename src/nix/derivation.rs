//! Reading the outputs of a `.drv` file.

use std::collections::BTreeMap;
use std::path::Path;

use nix_derivation::{Derivation, StoreDir, StorePath};

/// The largest `.drv` file that is read, in bytes. The largest known are a few MiB.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Output names and where they will be; nothing where that is known only after building (content-addressed outputs).
pub(super) type OutputPaths = BTreeMap<String, Option<StorePath>>;

/// Why a `.drv` file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DerivationError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a derivation.
    #[error("{path} is not a derivation: {reason}")]
    NotADerivation {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads the outputs of the derivation `path`, whose file is `file`.
pub(super) fn outputs(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
) -> Result<OutputPaths, DerivationError> {
    let shown = store_dir.render_path(path);
    let not_one = |reason: String| DerivationError::NotADerivation { path: shown.clone(), reason };
    let unreadable = |source| DerivationError::Unreadable { path: shown.clone(), source };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > LARGEST {
        return Err(not_one(format!("it has {length} bytes")));
    }
    let text = std::fs::read(file).map_err(unreadable)?;
    let name =
        path.name().strip_suffix(".drv").ok_or_else(|| not_one("its name does not end in .drv".into()))?;
    let derivation = Derivation::from_aterm_bytes_in(&text, name, store_dir.clone())
        .map_err(|error| not_one(error.to_string()))?;
    derivation
        .outputs()
        .iter()
        .map(|(output_name, output)| {
            let path =
                output.path_in(store_dir, name, output_name).map_err(|error| not_one(error.to_string()))?;
            Ok((output_name.clone(), path))
        })
        .collect()
}
