//! How long derivations take to build, as somebody has written it down.

use std::collections::HashMap;
use std::path::Path;

use nix_derivation::StoreDir;

use super::outcome::GraphError;
use crate::graph::{BuildGraph, DerivationIndex};

/// Seconds by what derivations are called: by `.drv` path, its base name, or name.
#[derive(Debug)]
pub(super) struct Seconds(HashMap<String, f64>);

impl Seconds {
    /// Reads a file: one JSON object of numbers.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is something else.
    pub(super) async fn read(file: &Path) -> Result<Self, GraphError> {
        let wrong = |reason: String| GraphError::Seconds { file: file.to_owned(), reason };
        let text = tokio::fs::read(file).await.map_err(|error| wrong(error.to_string()))?;
        let all: HashMap<String, f64> =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        match all.iter().find(|(_, seconds)| **seconds < 0.0) {
            Some((name, seconds)) => Err(wrong(format!("{name:?} cannot take {seconds} s"))),
            None => Ok(Self(all)),
        }
    }

    /// Of each derivation of a graph how long it takes, where that is known. What says most exactly which one is meant counts.
    pub(super) fn of(&self, graph: &BuildGraph, dir: &StoreDir) -> Vec<Option<f64>> {
        let of = |index: DerivationIndex| {
            let view = graph.derivation(index);
            let path = view.path();
            let known = self.0.get(&dir.render_path(&path)).or_else(|| self.0.get(&path.to_basename()));
            known.or_else(|| self.0.get(view.name())).copied()
        };
        graph.indices().map(of).collect()
    }
}
