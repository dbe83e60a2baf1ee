//! Graphs of store objects and of derivations: what refers to what, in which order, and who depends on it.
//!
//! Pure values: where the facts come from (the store database, `.drv` files, `nix path-info`, a cache) is other modules'
//! business. `docs/build-graph.md` explains how build graphs are represented and what they can be asked.

mod aterm;
mod build_graph;
mod builder;
mod closure;
mod contents;
mod derivation;
pub mod diff;
mod edges;
mod lists;
mod names;
mod path_info;
mod path_table;
mod questions;
mod saved;

pub use aterm::ScanError;
pub use build_graph::{BuildGraph, BuildGraphError, DerivationIndex, DerivationView, OutputView, Wanted};
pub use builder::{BuildGraphBuilder, DerivationTextError, store_dir_of};
pub use closure::{Closure, ClosureError, PathIndex};
pub use contents::Contents;
pub use derivation::{Derivation, DerivationKind, Input, Output, without_version};
pub use path_info::PathInfo;
pub use questions::{CriticalPath, Paths, Shape, Sizes, Step};
pub use saved::{
    Place, SCHEMA as SAVED_SCHEMA, SavedDerivation, SavedGraph, SavedGraphError, SavedInput, SavedOutput,
    contents_of,
};

/// The page's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/build-graph.md")]
struct Page;

#[cfg(test)]
pub(crate) use build_graph::tests as build_graph_tests;
#[cfg(test)]
pub(crate) use closure::tests;
