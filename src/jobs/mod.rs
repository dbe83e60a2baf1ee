//! One file a job: the only place where the local Nix, the plan, the caches and the push meet.
//!
//! A job takes plain settings, emits events, and gives a value that says what became of it. How that value is shown,
//! and which exit status it makes, is decided elsewhere.

pub mod audit;
pub mod diff;
pub mod graph;
mod local_nix;
pub mod push_closure;
pub mod verify;
pub mod why;

use std::path::Path;

use nix_derivation::StorePath;

use tokio::sync::watch;

use crate::nix::{DerivationFiles, EvaluationArguments};

pub use local_nix::{LocalNix, LocalNixError, StoreEnvironment};

/// The `.drv` file at a path, which can be read without Nix, whatever made it and wherever it is. Nothing where it is something else, or
/// where only Nix knows what is meant: of an attribute of --file, or a store that was named.
pub(crate) fn derivation_file(
    file: &Path,
    arguments: &EvaluationArguments,
) -> Option<(DerivationFiles, StorePath)> {
    if arguments.has_source || arguments.store().is_some() {
        return None;
    }
    DerivationFiles::around(file)
}

/// The outcome of `work`; nothing when it was interrupted.
pub(crate) async fn unless<T>(
    interrupted: &watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut interrupted = interrupted.clone();
    tokio::select! {
        biased;
        Ok(_) = interrupted.wait_for(|interrupted| *interrupted) => None,
        outcome = work => Some(outcome),
    }
}
