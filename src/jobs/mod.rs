//! One file a job: the only place where the local Nix, the plan, the caches and the push meet.
//!
//! A job takes plain settings, emits events, and gives a value that says what became of it. How that value is shown,
//! and which exit status it makes, is decided elsewhere.

mod local_nix;
pub mod push_closure;

pub use local_nix::{LocalNix, LocalNixError, StoreEnvironment};
