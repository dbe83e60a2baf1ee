//! What can be asked of a build graph.
//!
//! Every answer goes through the flat arrays in their order, in which inputs come first: what is true of a derivation because of
//! its inputs is known when its turn comes. Nothing calls itself, so that a chain of any length needs no stack, and each question
//! takes time in proportion to the graph.

mod critical_path;
mod paths;
mod reach;
mod shape;

pub use critical_path::{CriticalPath, Step};
pub use paths::Paths;
pub use shape::{Shape, Sizes};

#[cfg(test)]
mod tests;
