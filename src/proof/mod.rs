//! What proves that a cache can serve a closure, and what speaks against it: which paths have to be asked for ([`Walk`]), what
//! can be wrong with one, in words and with what to do ([`Problem`]), and what follows from it all ([`Findings`]).
//!
//! Nothing here asks anybody.

mod findings;
mod problem;
mod walk;

pub use findings::{Finding, Findings};
pub use problem::{Place, Problem};
pub use walk::{PathId, Walk};
