//! What an audit found, as a value: the JSON document is made of it, and the text too.

use std::time::Duration;

use serde::Serialize;

use crate::audit::{Evidence, Outlook, Reason, Role, Status, Totals};
use crate::nix::Implementation;

/// Why an audit came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There is no local Nix to work with.
    #[error(transparent)]
    Nix(#[from] crate::jobs::LocalNixError),
    /// What was named leads to no derivation.
    #[error(transparent)]
    Resolve(#[from] crate::nix::ResolveError),
    /// The build graph cannot be loaded.
    #[error(transparent)]
    Derivation(#[from] crate::nix::DerivationError),
    /// The store does not say what is valid.
    #[error(transparent)]
    Store(#[from] crate::nix::StoreError),
    /// HTTP cannot be set up.
    #[error(transparent)]
    Http(#[from] crate::net::HttpError),
    /// There is no cache to ask.
    #[error("Nix has no substituters here, so there is no cache to ask")]
    NoCaches,
    /// Somebody interrupted it.
    #[error("interrupted before all caches had answered")]
    Interrupted,
}

/// What an audit found.
#[derive(Debug)]
pub struct AuditReport {
    /// The revision of the flake that was named, where there is one.
    pub revision: Option<String>,
    /// The Nix whose view was taken.
    pub nix: NixReport,
    /// How it was looked at.
    pub view: ViewReport,
    /// The caches, in the order in which Nix asks them.
    pub caches: Vec<CacheReport>,
    /// The targets: `.drv` paths with the wanted outputs.
    pub targets: Vec<String>,
    /// The sums.
    pub totals: Totals,
    /// Every derivation in scope, those that Nix would touch besides, and the targets; inputs before what needs them.
    pub derivations: Vec<DerivationReport>,
    /// Whether Nix would stop at a lookup that fails.
    pub stops: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// The Nix whose view was taken.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NixReport {
    /// Whose it is.
    pub implementation: Implementation,
    /// Its version.
    pub version: String,
    /// The directory that store paths are named by.
    pub store_dir: String,
    /// The system that it builds for.
    pub system: String,
    /// Whether its store trusts us; nothing where Nix does not say.
    pub trusted_user: Option<bool>,
    /// Whether it builds what it fails to fetch.
    pub fallback: bool,
    /// Whether it asks caches at all.
    pub substitute: bool,
}

/// How it was looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ViewReport {
    /// The store whose valid paths counted.
    pub store: String,
    /// Whether nothing counted as valid.
    pub assume_empty_store: bool,
    /// Whether NARs were looked for.
    pub nars_checked: bool,
    /// Which derivations counted: `needed`, `runtime` or `build`.
    pub scope: &'static str,
}

/// What a cache is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheStatus {
    /// It was asked.
    Ok,
    /// It is no binary cache.
    NotACache,
    /// It is for another store directory.
    OtherStore,
    /// It does not let us ask.
    Denied,
    /// It did not answer.
    Unreachable,
    /// This program does not speak to its kind.
    Unsupported,
}

/// A cache and how it did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheReport {
    /// Where it is.
    pub url: String,
    /// Nix asks lower ones first.
    pub priority: i64,
    /// What it is good for.
    pub status: CacheStatus,
    /// What is to be said about that.
    pub words: Option<String>,
    /// How many questions it was asked.
    pub requests: usize,
    /// How long the middle one of them took.
    pub median_seconds: Option<f64>,
}

/// An output and what each cache said of it.
#[derive(Clone, Debug, Serialize)]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// Its path; nothing where that shows only after building.
    pub path: Option<String>,
    /// Whether it is wanted.
    pub wanted: bool,
    /// What each cache said; empty where nobody asked.
    pub answers: Vec<AnswerReport>,
}

/// What a cache said of a path.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerReport {
    /// The cache.
    pub cache: String,
    /// `present`, `absent`, `denied`, `broken` or `unreachable`.
    pub answer: &'static str,
    /// The HTTP status, where there was one that says more.
    pub status: Option<u16>,
}

/// A further reason.
#[derive(Clone, Debug, Serialize)]
pub struct AlsoReport {
    /// Its id.
    pub reason: Reason,
    /// Whether it is only likely.
    pub likely: bool,
}

/// What is said of one derivation.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DerivationReport {
    /// The `.drv` path.
    pub drv: String,
    /// Its name.
    pub name: String,
    /// How its outputs are addressed.
    pub kind: &'static str,
    /// Whether it has to be fetched or built.
    pub needed: bool,
    /// Whether all wanted outputs are valid.
    pub valid: bool,
    /// The verdict.
    pub verdict: Status,
    /// The prediction; nothing where Nix would not touch it.
    pub nix: Option<Outlook>,
    /// Its outputs.
    pub outputs: Vec<OutputReport>,
    /// Why it is not simply fetched; nothing for what is.
    pub reason: Option<Reason>,
    /// What else holds.
    pub also: Vec<AlsoReport>,
    /// What the reason rests on.
    pub evidence: Evidence,
    /// What to do.
    pub fix: Option<String>,
    /// The roots that this miss goes back to.
    pub caused_by: Vec<String>,
    /// How many misses go back to this one.
    pub blocks: usize,
    /// Whether it counts for the hit rate.
    #[serde(skip)]
    pub is_counted: bool,
    /// What the miss is to others.
    #[serde(skip)]
    pub role: Role,
    /// The reason in words.
    #[serde(skip)]
    pub sentence: String,
}
