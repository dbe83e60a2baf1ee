//! A build graph as JSON: what `cache-helper graph --format json` writes and `cache-helper diff` reads back.
//!
//! The schema is `docs/schema/graph.json`.

mod reading;

use std::collections::HashMap;

use nix_derivation::{StoreDir, StorePath};
use serde::{Deserialize, Serialize};

use super::build_graph::{BuildGraph, BuildGraphError, DerivationView};
use super::contents::Contents;
use super::derivation::DerivationKind;

pub use reading::contents_of;

/// One derivation of a saved graph; paths are in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedDerivation {
    /// The `.drv` path.
    pub drv: String,
    /// The name, without the suffix.
    pub name: String,
    /// How the outputs are addressed.
    pub kind: DerivationKind,
    /// The outputs, by name.
    pub outputs: Vec<SavedOutput>,
    /// What is needed of other derivations.
    pub inputs: Vec<SavedInput>,
    /// The sources.
    pub sources: Vec<String>,
    /// The attribute `allowSubstitutes`.
    pub allows_substitutes: bool,
    /// What it says besides; nothing where its file could not be read.
    #[serde(flatten)]
    pub contents: Option<Contents>,
}

/// An output of a saved derivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOutput {
    /// Its name.
    pub name: String,
    /// Its path, where that is known before building.
    pub path: Option<String>,
}

/// An input of a saved derivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedInput {
    /// The `.drv` path.
    pub drv: String,
    /// The outputs that are needed.
    pub outputs: Vec<String>,
    /// What is needed of derivations that are outputs: the way from here, such as `out^dev`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dynamic: Vec<String>,
}

/// Where in a document a derivation stands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: usize,
}

/// A graph that was read back. Of what derivations say besides, `C` is kept: that itself, or where it stands.
#[derive(Debug)]
pub struct SavedGraph<C = Contents> {
    /// The directory that its paths are named by.
    pub store_dir: StoreDir,
    /// The revision of the flake that was named, where there is one.
    pub revision: Option<String>,
    /// What was named when it was saved.
    pub roots: Vec<StorePath>,
    /// The graph.
    pub graph: BuildGraph,
    /// What each derivation says besides; nothing of those whose file could not be read.
    pub contents: HashMap<StorePath, C>,
}

/// Why a document is no graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedGraphError {
    /// It is not JSON, or not of this form.
    #[error("it is no saved graph: {0}")]
    Form(#[from] serde_json::Error),
    /// It is of another schema.
    #[error("its schema is {0:?}, and not {SCHEMA:?}")]
    Schema(String),
    /// Something in it should be a path, and is not.
    #[error("{0:?} is no path of its store, or of another kind than should be here")]
    Path(String),
    /// What should be the name of an output, or a way to one, is none.
    #[error("what it says of {drv} cannot be used: {name:?} is no name of an output")]
    Name {
        /// The `.drv` path.
        drv: String,
        /// The name or the way.
        name: String,
    },
    /// A derivation says only a part of what it should, or something else.
    #[error("what it says of {drv} cannot be used: {source}")]
    Contents {
        /// The `.drv` path.
        drv: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It has a derivation twice.
    #[error("it lists {0} twice")]
    Twice(String),
    /// Nothing was named when it was saved, so that there is nothing to begin at.
    #[error("its \"roots\" are empty, so that it does not say what was named")]
    NoRoots,
    /// What was named is not in it.
    #[error("its root {0} is not among its derivations")]
    MissingRoot(String),
    /// Its derivations are no graph.
    #[error(transparent)]
    Graph(#[from] BuildGraphError),
}

/// The schema that a saved graph names.
pub const SCHEMA: &str = "cache-helper/graph/1";

impl SavedDerivation {
    /// A derivation of a graph with what it says besides.
    pub fn new(
        derivation: DerivationView<'_>,
        graph: &BuildGraph,
        contents: Option<Contents>,
        store_dir: &StoreDir,
    ) -> Self {
        let shown = |path: &StorePath| store_dir.render_path(path);
        let index = derivation.index();
        let inputs = graph.inputs(index).map(|input| {
            let view = graph.derivation(input.derivation);
            let outputs = input.outputs.iter().map(|output| view.output(*output).name().to_owned());
            let dynamic = input.ways().map(str::to_owned).collect();
            SavedInput { drv: shown(&view.path()), outputs: outputs.collect(), dynamic }
        });
        Self {
            drv: shown(&derivation.path()),
            name: derivation.name().to_owned(),
            kind: derivation.kind(),
            outputs: derivation
                .outputs()
                .map(|output| SavedOutput {
                    name: output.name().to_owned(),
                    path: output.path().as_ref().map(shown),
                })
                .collect(),
            inputs: inputs.collect(),
            sources: derivation.sources().map(|source| shown(&source)).collect(),
            allows_substitutes: derivation.allows_substitutes(),
            contents,
        }
    }
}

#[cfg(test)]
mod tests;
