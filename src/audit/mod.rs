//! Which derivations miss the caches, why, and what Nix would do about it.
//!
//! Two things are said of every derivation and never mixed. The *verdict* is what the caches hold: a hit when every wanted
//! output, and every reference below it, is on a cache in a form that Nix would take (or is valid already). The
//! *prediction* is what the installed Nix would do now, which depends on its version and settings.
//!
//! All of it is pure. [`Walk`] says which paths it wants to know next and takes what the caches answered, going down from
//! the targets as Nix would; what it has learnt ([`Facts`]) then gives [`Verdicts`] ([`judge`]), a [`Prediction`]
//! ([`predict`]), and a [`Finding`] for each derivation ([`explain`]), whose words stand in one table ([`Reason`]).

mod answer;
mod chance;
mod facts;
mod fetching;
mod guesses;
mod holding;
mod need;
mod prediction;
mod reason;
mod rules;
mod simulation;
mod verdict;
mod walk;
mod way;

pub use answer::{CacheAnswer, Nar, Offer, Trust};
pub use facts::{CacheState, Facts, PathId, Scope, View};
pub use prediction::{NixSettings, Outlook, Prediction, predict};
pub use reason::{Evidence, Finding, Reason, explain};
pub use rules::{Flavour, IncompleteClosure, LookupError, PartialOutputs, Rules};
pub use verdict::{DerivationVerdict, Role, Status, Totals, Verdicts, judge};
pub use walk::Walk;

#[cfg(test)]
mod tests;
