//! What became of a push, as values: the report renders them, and `--json` is them.

use std::time::Duration;

use nix_derivation::StorePath;
use serde::Serialize;

use super::consent::Readers;
use crate::cache::local::LocalCacheError;
use crate::cache::{KeyError, WriteError};
use crate::net::HttpError;
use crate::nix::{DevShell, Store};
use crate::plan::Tally;
use crate::push::Failure;
use crate::text;

/// How many sources an error names.
const SOURCES_NAMED: usize = 3;

/// Why a target did not get everything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It does not let us in.
    #[error("the target {url} does not let us in: {reason}")]
    Denied {
        /// The target.
        url: String,
        /// What it said.
        reason: String,
    },
    /// It does not answer, or is no cache.
    #[error("cannot use the target {url}: {reason}")]
    Unusable {
        /// The target.
        url: String,
        /// Why.
        reason: String,
    },
    /// It is for another store.
    #[error("the target {url} is for the store directory {theirs}, and this store's is {ours}")]
    OtherStore {
        /// The target.
        url: String,
        /// Its store directory.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// An upstream does not answer, so that nobody knows what has to move.
    #[error("cannot ask the upstream {url} what it holds: {reason}")]
    Upstream {
        /// The upstream.
        url: String,
        /// Why.
        reason: String,
    },
    /// Paths would end up without any signature.
    #[error(
        "{} would be in {url} without any signature, where Nix does not trust {}: {}{}",
        text::count(*.count, "path"), if *.count == 1 { "it" } else { "them" }, .examples.join(", "),
        if *.count > .examples.len() { ", …" } else { "" }
    )]
    Unsigned {
        /// The target.
        url: String,
        /// How many.
        count: usize,
        /// Some of them.
        examples: Vec<String>,
    },
    /// Sources would be there for everybody to read, as far as is known.
    #[error(
        "{}, and {} would have to be withheld from it: {}{}",
        .readers.words(url), if .sources.len() == 1 { "a source" } else { "sources" },
        .sources.iter().take(SOURCES_NAMED).map(|source| format!("{}, {}", source.path, source.what)).collect::<Vec<_>>().join("; "),
        if .sources.len() > SOURCES_NAMED { "; …" } else { "" }
    )]
    Sources {
        /// The target.
        url: String,
        /// What they are.
        sources: Vec<SourcePath>,
        /// Who can read it.
        readers: Readers,
    },
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The embedded cache cannot be used.
    #[error(transparent)]
    Local(#[from] LocalCacheError),
    /// HTTP cannot be set up.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It cannot be written.
    #[error("{}{source}", at(.url, .source))]
    Write {
        /// The target.
        url: String,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// It took some paths, and then no more.
    #[error("the push was stopped: {}{failure}", of(.url, .failure))]
    Stopped {
        /// The target.
        url: String,
        /// What the first path met that found out.
        #[source]
        failure: Box<Failure>,
    },
    /// Somebody interrupted the push.
    #[error("interrupted")]
    Interrupted,
}

/// The target's URL before a failure to write, unless the failure names the file already.
fn at(url: &str, error: &WriteError) -> String {
    if matches!(error, WriteError::File { .. }) { String::new() } else { format!("cannot write to {url}: ") }
}

fn of(url: &str, failure: &Failure) -> String {
    match failure {
        Failure::Write(error) => at(url, error),
        Failure::Pack(_) | Failure::Narinfo(_) => String::new(),
    }
}

/// Paths that were pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pushed {
    /// Number of paths.
    pub paths: usize,
    /// Their NARs' size in bytes, uncompressed.
    pub nar_bytes: u64,
    /// What was stored for them, in bytes, compressed.
    pub file_bytes: u64,
}

/// A path that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedPath {
    /// The store path.
    pub path: String,
    /// Why, in the server's own words where it had any.
    pub error: String,
}

/// A path that was withheld.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockedPath {
    /// The store path.
    pub path: String,
    /// The path that failed or was excluded.
    pub by: String,
}

/// A source, which is pushed only with `--include-sources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourcePath {
    /// The store path.
    pub path: String,
    /// What it is, in words.
    pub what: String,
    /// Whether it was withheld, because nobody said that it may be pushed.
    pub is_withheld: bool,
}

/// A dev shell and its parts; paths are in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DevShellReport {
    /// How it was named.
    pub installable: String,
    /// The version of the Nix whose environment it is: each version makes its own.
    pub nix: String,
    /// That environment: the outputs of the derivation which `nix develop` builds.
    pub environment: Vec<String>,
    /// The outputs of the shell's `inputDerivation`.
    pub inputs: Vec<String>,
    /// The bash that `nix develop` starts.
    pub bash: Vec<String>,
}

impl DevShellReport {
    pub(super) fn new(shell: &DevShell, store: &Store) -> Self {
        let shown = |paths: &[StorePath]| paths.iter().map(|path| store.dir().render_path(path)).collect();
        Self {
            installable: shell.installable.clone(),
            nix: store.nix().full_version().to_owned(),
            environment: shown(&shell.environment),
            inputs: shown(&shell.inputs),
            bash: shown(&shell.bash),
        }
    }
}

/// What a dry run would do with one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedPath {
    /// The store path.
    pub path: String,
    /// `present`, `upstream`, `excluded`, `blocked` or `push`.
    pub class: &'static str,
    /// Its NAR's size in bytes, uncompressed.
    pub nar_bytes: u64,
}

/// What became of one target.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReport {
    /// The target.
    pub url: String,
    /// The whole closure.
    pub closure: Tally,
    /// What the target served before.
    pub present: Tally,
    /// What a declared upstream serves.
    pub upstream: Tally,
    /// What a filter left out.
    pub excluded: Tally,
    /// Sources that the target does not have, and that no filter leaves out.
    pub sources: Vec<SourcePath>,
    /// Dev shells, as they were named, of which the target lacks a part; of a dry run, would lack.
    pub incomplete_dev_shells: Vec<String>,
    /// What had to move.
    pub push: Tally,
    /// Every path with what would be done with it, references first; only of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Vec<PlannedPath>>,
    /// What did move.
    pub pushed: Pushed,
    /// What failed.
    pub failed: Vec<FailedPath>,
    /// The first failure, which says what to do.
    #[serde(skip)]
    pub failure: Option<Failure>,
    /// What was withheld.
    pub blocked: Vec<BlockedPath>,
    /// What was not attempted or not finished.
    pub unfinished: Tally,
    /// Whether the closure was read back; nothing when it was not tried, or a filter left something out.
    pub verified: Option<bool>,
    /// Whether all that no filter left out was read back.
    #[serde(skip)]
    pub is_rest_verified: bool,
    /// What reading back found.
    pub problems: Vec<String>,
    /// Whether something could not be asked when reading back.
    #[serde(skip)]
    pub inconclusive: bool,
    /// The `trusted-public-keys` line for what was signed here.
    pub public_key: Option<String>,
    /// Whether the key was made in this run.
    #[serde(skip)]
    pub is_new_key: bool,
    /// How long this target took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// Why the target did not get everything.
    #[serde(serialize_with = "as_text")]
    pub error: Option<TargetError>,
}

fn as_seconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn as_text<S: serde::Serializer>(error: &Option<TargetError>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(ToString::to_string).serialize(serializer)
}

/// What became of a push.
#[derive(Debug)]
pub struct PushClosureReport {
    /// The revision of the flake that was named, where it is known.
    pub revision: Option<String>,
    /// The dev shells that were named.
    pub dev_shells: Vec<DevShellReport>,
    /// Each target, in the order in which they were named.
    pub targets: Vec<TargetReport>,
    /// How long it took.
    pub elapsed: Duration,
}
