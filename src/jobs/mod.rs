//! One file a job: the only place where the local Nix, the plan, the caches and the push meet.
//!
//! A job takes plain settings, emits events, and gives a value that says what became of it. How that value is shown,
//! and which exit status it makes, is decided elsewhere.

pub mod audit;
pub mod diff;
pub mod graph;
mod local_nix;
pub mod push_closure;
pub mod why;

use tokio::sync::watch;

pub use local_nix::{LocalNix, LocalNixError, StoreEnvironment};

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
