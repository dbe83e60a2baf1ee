//! Reading one `.drv` file, with `nix-derivation`. (The many of a graph are `derivation_files`' business.)

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use nix_derivation::{StoreDir, StorePath};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::graph::{BuildGraphError, Contents};
use crate::text::Printable;

/// The largest `.drv` file that is read, in bytes. The largest known are a few MiB.
const LARGEST: usize = 256 * 1024 * 1024;

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
    /// Together they are no graph.
    #[error(transparent)]
    Graph(#[from] BuildGraphError),
}

impl DerivationError {
    /// The file that cannot be used, where it is one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Unreadable { path, .. } | Self::NotADerivation { path, .. } => Some(path),
            Self::Graph(_) => None,
        }
    }
}

/// Reads the outputs of the derivation `path`, whose file is `file`.
pub(super) fn outputs(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
) -> Result<OutputPaths, DerivationError> {
    let derivation = read(file, path, store_dir)?;
    derivation
        .outputs()
        .iter()
        .map(|(name, output)| {
            let known = output.path_in(store_dir, derivation.name(), name);
            Ok((name.clone(), known.map_err(|error| not_a_derivation(path, store_dir, &error.to_string()))?))
        })
        .collect()
}

/// Reads what the derivation `path` says besides its outputs and inputs. Its file is `file`.
pub(super) fn contents(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
) -> Result<Contents, DerivationError> {
    let text = text(file, path, store_dir)?;
    let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
    Contents::parse(&text, name, store_dir).map_err(|error| not_a_derivation(path, store_dir, &error))
}

/// The text of the derivation `path`, whose file is `file`.
pub(super) fn text(file: &Path, path: &StorePath, store_dir: &StoreDir) -> Result<Vec<u8>, DerivationError> {
    let mut text = Vec::new();
    read_text(CWD, file, path, store_dir, &mut text)?;
    Ok(text)
}

/// Reads the whole of the derivation `path`, whose file is `file`.
fn read(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
) -> Result<nix_derivation::Derivation, DerivationError> {
    let text = text(file, path, store_dir)?;
    let not_one = |reason: &str| not_a_derivation(path, store_dir, reason);
    let name = path.name().strip_suffix(".drv").ok_or_else(|| not_one("its name does not end in .drv"))?;
    nix_derivation::Derivation::from_aterm_bytes_in(&text, name, store_dir.clone())
        .map_err(|error| not_one(&error.to_string()))
}

/// Reads the file of the derivation `path` into `text`, in place of what is there. `file` is its name in `directory`.
///
/// Four system calls, because a graph has many thousand files. Without `NONBLOCK` a pipe in a file's place would hold up everything.
pub(super) fn read_text(
    directory: impl AsFd,
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
    text: &mut Vec<u8>,
) -> Result<(), DerivationError> {
    let unreadable = |source: Errno| DerivationError::Unreadable {
        path: store_dir.render_path(path),
        source: source.into(),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, file, flags, Mode::empty()).map_err(unreadable)?;
    let stat = rustix::fs::fstat(&file).map_err(unreadable)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(not_a_derivation(path, store_dir, "it is not a file"));
    }
    let length = usize::try_from(stat.st_size).ok().filter(|length| *length <= LARGEST);
    let length = length.ok_or_else(|| {
        not_a_derivation(
            path,
            store_dir,
            &format!("it has {} bytes, and {LARGEST} is the limit", stat.st_size),
        )
    })?;
    text.clear();
    text.resize(length, 0);
    let mut filled = 0;
    while filled < length {
        match rustix::io::read(&file, &mut text[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    text.truncate(filled);
    Ok(())
}

pub(super) fn not_a_derivation(path: &StorePath, store_dir: &StoreDir, reason: &str) -> DerivationError {
    DerivationError::NotADerivation {
        path: store_dir.render_path(path),
        reason: Printable(reason).to_string(),
    }
}
