//! What was loaded and found, as a value: the documents are made of it, the drawing, and the text.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::shown;
use crate::graph::{BuildGraph, CriticalPath, DerivationIndex, Paths, Wanted};
use crate::nix::{DerivationError, DerivationFiles};
use crate::text::some;

/// Why there is no graph, or no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// There is no local Nix to work with.
    #[error(transparent)]
    Nix(#[from] crate::jobs::LocalNixError),
    /// What was named leads to no derivation.
    #[error(transparent)]
    Resolve(#[from] crate::nix::ResolveError),
    /// The graph cannot be loaded.
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// Files of two directories were named, which are two stores.
    #[error("{one} and {other} are of different stores: the files that each needs are in its own directory")]
    OtherStore {
        /// One of them.
        one: String,
        /// The other.
        other: String,
    },
    /// A path is not in the graph.
    #[error("{path} is not in this graph")]
    NotThere {
        /// The path.
        path: String,
        /// Names of derivations that might have been meant.
        near: Vec<String>,
    },
    /// What should be a derivation is a source.
    #[error("{path} is a source, and no derivation; it is needed by {}", some(.needed_by))]
    Source {
        /// The path.
        path: String,
        /// Names of the derivations that need it.
        needed_by: Vec<String>,
    },
    /// Nothing in the graph is called so.
    #[error("no derivation of this graph is called {text:?}")]
    Unknown {
        /// What was given.
        text: String,
        /// Names of derivations that might have been meant.
        near: Vec<String>,
    },
    /// More than one derivation is called so.
    #[error("{text:?} may be any of {}: {}", .candidates.len(), some(.candidates))]
    Ambiguous {
        /// What was given.
        text: String,
        /// Their `.drv` paths.
        candidates: Vec<String>,
    },
    /// The file that should say how long builds take does not.
    #[error("{} does not say how long builds take: {reason}", .file.display())]
    Seconds {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Somebody interrupted it.
    #[error("interrupted before the graph was loaded")]
    Interrupted,
}

/// A `.drv` file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// The `.drv` path.
    pub drv: String,
    /// Why.
    pub error: String,
}

impl From<&DerivationError> for Damaged {
    fn from(error: &DerivationError) -> Self {
        Self { drv: error.path().unwrap_or_default().to_owned(), error: error.to_string() }
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The graph itself.
    Everything,
    /// The ways from one derivation to another.
    Paths {
        /// The one that needs.
        from: DerivationIndex,
        /// The one that is needed.
        to: DerivationIndex,
        /// The ways.
        paths: Paths,
    },
    /// The derivations that have to be built one after the other.
    CriticalPath {
        /// The path. Its weight is in seconds where these were given, else a number of derivations.
        path: CriticalPath,
        /// What is built of which the seconds that were given do not tell; nothing where none were given.
        unknown: Option<Vec<DerivationIndex>>,
    },
    /// What some derivations block.
    BlockedBy {
        /// These derivations.
        missing: Vec<DerivationIndex>,
        /// Those of them that need no other of them.
        roots: Vec<DerivationIndex>,
        /// What needs any of them, without them.
        blocked: Vec<DerivationIndex>,
    },
}

/// What was loaded, and the answer.
#[derive(Debug)]
pub struct GraphReport {
    /// The files that it was read from.
    pub files: DerivationFiles,
    /// The graph.
    pub graph: BuildGraph,
    /// What was named.
    pub roots: Vec<DerivationIndex>,
    /// The revision of the flake that was named, where there is one.
    pub revision: Option<String>,
    /// What could not be read, by path.
    pub damaged: Vec<Damaged>,
    /// How many bytes the `.drv` files have.
    pub bytes: u64,
    /// The answer.
    pub answer: Answer,
    /// How long it took.
    pub elapsed: Duration,
}

impl GraphReport {
    /// The `.drv` path of a derivation.
    pub fn drv(&self, index: DerivationIndex) -> String {
        shown(&self.graph, index, self.files.dir())
    }

    /// What a derivation wants of one of its inputs: names of outputs, and of outputs that are derivations the way, such as `out^dev`.
    pub fn wanted(&self, of: DerivationIndex, by: DerivationIndex) -> Vec<&str> {
        let input = self.graph.inputs(by).find(|input| input.derivation == of);
        input.map(|input| self.named(input)).unwrap_or_default()
    }

    /// As [`Self::wanted`], where one goes through the inputs anyway.
    pub fn named<'a>(&'a self, input: Wanted<'a>) -> Vec<&'a str> {
        let view = self.graph.derivation(input.derivation);
        let outputs = input.outputs.iter().map(|output| view.output(*output).name());
        outputs.chain(input.ways()).collect()
    }

    /// Whether there is a way, where one was asked for.
    pub fn is_yes(&self) -> bool {
        !matches!(&self.answer, Answer::Paths { paths, .. } if paths.number == 0)
    }
}
