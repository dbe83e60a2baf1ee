//! Reading `.drv` files: the outputs of one, or the build graph below some.
//!
//! Format: "Derivations" in the Nix manual's store chapter, unchanged since Nix 1; `nix-derivation` reads it.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::path::Path;

use nix_derivation::{StoreDir, StorePath};

use crate::graph::{BuildGraph, BuildGraphError, Derivation, DerivationKind, Input, Output};
use crate::text::Printable;

/// The largest `.drv` file that is read, in bytes. The largest known are a few MiB.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Below so many files it costs more to start threads than to read them.
const WORTH_THREADS: usize = 32;

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

/// Reads the outputs of the derivation `path`, whose file is `file`.
pub(super) fn outputs(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
) -> Result<OutputPaths, DerivationError> {
    let derivation = read(file, path, store_dir)?;
    Ok(derivation.outputs.into_iter().map(|output| (output.name, output.path)).collect())
}

/// Reads the derivations `roots` and everything that they need, from the files in `real_dir`. Blocks.
pub(super) fn build_graph(
    roots: &[StorePath],
    real_dir: &Path,
    store_dir: &StoreDir,
) -> Result<BuildGraph, DerivationError> {
    let mut seen: HashSet<StorePath> = roots.iter().cloned().collect();
    let mut level: Vec<StorePath> = seen.iter().cloned().collect();
    let mut derivations = Vec::new();
    while !level.is_empty() {
        let first = derivations.len();
        derivations.extend(read_all(&level, real_dir, store_dir)?);
        level = derivations[first..]
            .iter()
            .flat_map(|derivation| &derivation.inputs)
            .map(|input| &input.derivation)
            .filter(|input| seen.insert((*input).clone()))
            .cloned()
            .collect();
    }
    Ok(BuildGraph::new(derivations)?)
}

/// Reads many files, on as many threads as is worth it.
fn read_all(
    paths: &[StorePath],
    real_dir: &Path,
    store_dir: &StoreDir,
) -> Result<Vec<Derivation>, DerivationError> {
    let read_some = |paths: &[StorePath]| -> Result<Vec<Derivation>, DerivationError> {
        paths.iter().map(|path| read(&real_dir.join(path.to_basename()), path, store_dir)).collect()
    };
    if paths.len() < WORTH_THREADS {
        return read_some(paths);
    }
    let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    std::thread::scope(|scope| {
        let readers: Vec<_> = paths
            .chunks(paths.len().div_ceil(threads))
            .map(|paths| scope.spawn(move || read_some(paths)))
            .collect();
        let mut derivations = Vec::with_capacity(paths.len());
        for reader in readers {
            derivations.extend(reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(derivations)
    })
}

/// Reads the derivation `path`, whose file is `file`.
fn read(file: &Path, path: &StorePath, store_dir: &StoreDir) -> Result<Derivation, DerivationError> {
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
    let derivation = nix_derivation::Derivation::from_aterm_bytes_in(&text, name, store_dir.clone())
        .map_err(|error| not_one(Printable(&error.to_string()).to_string()))?;
    let outputs = derivation
        .outputs()
        .iter()
        .map(|(output_name, output)| {
            let path =
                output.path_in(store_dir, name, output_name).map_err(|error| not_one(error.to_string()))?;
            Ok(Output { name: output_name.clone(), path })
        })
        .collect::<Result<_, DerivationError>>()?;
    Ok(Derivation {
        path: path.clone(),
        kind: kind_of(&derivation),
        outputs,
        inputs: derivation
            .input_derivations()
            .iter()
            .map(|(path, input)| Input {
                derivation: path.clone(),
                outputs: input.outputs().iter().cloned().collect(),
            })
            .collect(),
        sources: derivation.input_sources().iter().cloned().collect(),
        allows_substitutes: allows_substitutes(&derivation),
    })
}

fn kind_of(derivation: &nix_derivation::Derivation) -> DerivationKind {
    use nix_derivation::Output::{Deferred, Fixed, Floating, Impure};
    let has = |is_kind: fn(&nix_derivation::Output) -> bool| derivation.outputs().values().any(is_kind);
    if has(|output| matches!(output, Impure { .. })) {
        DerivationKind::Impure
    } else if has(|output| matches!(output, Floating { .. })) {
        DerivationKind::Floating
    } else if has(|output| matches!(output, Deferred)) {
        DerivationKind::Deferred
    } else if has(|output| matches!(output, Fixed { .. })) {
        DerivationKind::FixedOutput
    } else {
        DerivationKind::InputAddressed
    }
}

/// The attribute `allowSubstitutes` as Nix reads it (`DerivationOptions` in `src/libstore/derivation-options.cc`): in the
/// environment anything but `1` is false, in structured attributes it is a boolean.
fn allows_substitutes(derivation: &nix_derivation::Derivation) -> bool {
    const ATTRIBUTE: &str = "allowSubstitutes";
    match derivation.structured_attrs() {
        Some(attributes) => attributes.get(ATTRIBUTE).and_then(serde_json::Value::as_bool).unwrap_or(true),
        None => derivation.environment().get(ATTRIBUTE).is_none_or(|value| value == b"1"),
    }
}
