//! Graphs of store objects and of derivations: what refers to what, in which order, and who depends on it.
//!
//! Pure values: where the facts come from (the store database, `nix path-info`, a cache) is other modules' business.

mod build_graph;
mod closure;
mod edges;
mod path_info;

pub use build_graph::{
    BuildGraph, BuildGraphError, Derivation, DerivationIndex, DerivationKind, Input, Output, Wanted,
};
pub use closure::{Closure, ClosureError, PathIndex};
pub use path_info::PathInfo;

#[cfg(test)]
pub(crate) use build_graph::tests as build_graph_tests;
#[cfg(test)]
pub(crate) use closure::tests;
