//! `push-closure`: what is missing of a closure goes into a cache, and is proven to be there.

mod consent;
mod logins;
mod outcome;
mod scope;
mod sources;
mod target;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use nix_derivation::StorePath;
use tokio::sync::watch;

use self::logins::Logins;
use self::scope::Roots;
use self::sources::Sources;
use self::target::TargetPush;
use super::local_nix::{LocalNix, LocalNixError, StoreEnvironment};
use super::unless;
use crate::cache::CacheUrl;
use crate::event::Reporter;
use crate::graph::{Closure, PathIndex};
use crate::net::HttpSettings;
use crate::nix::{EvaluationArguments, ResolveError, Source, StoreError};
use crate::plan::{Filter, Tally};
use crate::push::{Limits, Method};
use crate::text;

pub use self::consent::Readers;
pub use self::outcome::{
    BlockedPath, DevShellReport, FailedPath, PlannedPath, PushClosureReport, Pushed, SourcePath, TargetError,
    TargetReport,
};
pub use self::scope::{Scope, ScopeError};

/// Where to push.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A cache.
    Cache(CacheUrl),
    /// The embedded cache below this directory.
    Local(PathBuf),
}

/// One target and how to write to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub destination: Destination,
    /// Caches that the target's users have anyway.
    pub upstreams: Vec<CacheUrl>,
    /// A key to sign with.
    pub sign_key_file: Option<PathBuf>,
    /// How NARs are compressed, and how hard.
    pub compression: (Method, i32),
}

/// What to push, where, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was named.
    pub installables: Vec<String>,
    /// What is meant by that.
    pub scope: Scope,
    /// What was said for evaluation.
    pub arguments: EvaluationArguments,
    /// Whether what is not valid may be built or fetched first.
    pub build: bool,
    /// Where relative names are taken from.
    pub directory: PathBuf,
    /// The targets.
    pub targets: Vec<Target>,
    /// What may move.
    pub filter: Filter,
    /// Whether to stop after planning.
    pub dry_run: bool,
    /// Whether to leave out reading back.
    pub skip_verification: bool,
    /// Whether paths without any signature may be pushed.
    pub allow_unsigned: bool,
    /// How much may be used at once.
    pub limits: Limits,
    /// The user's home directory, where git looks for logins.
    pub home: Option<PathBuf>,
    /// Where large NARs are kept on their way.
    pub temporary: PathBuf,
    /// How to speak HTTP.
    pub http: HttpSettings,
    /// Where the store is.
    pub store: StoreEnvironment,
}

/// Why nothing could be pushed anywhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushClosureError {
    /// There is no local Nix to work with.
    #[error(transparent)]
    Nix(#[from] LocalNixError),
    /// What was named leads to no valid paths.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A flag does not fit what was named.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The store does not give the closure.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody interrupted it.
    #[error("interrupted before anything was pushed")]
    Interrupted,
}

/// Pushes. A target that fails does not keep the others from being tried.
///
/// # Errors
///
/// When it is not even known what to push.
pub async fn run(
    request: &Request,
    reporter: &Reporter,
    interrupted: &watch::Receiver<bool>,
) -> Result<PushClosureReport, PushClosureError> {
    let started = Instant::now();
    let prepared = async {
        let local = LocalNix::open(&request.arguments, &request.store).await?;
        let nix = local.store.nix();
        let (program, version) = (nix.program().display(), nix.version());
        tracing::info!("Nix {version} at {program}, with the store {}", local.store.dir());
        let http = local.with_logins(request.http.clone(), reporter);
        let logins = Logins::read(&http.netrc, request.home.as_deref());
        let roots = scope::roots(request, &local, &logins, reporter).await?;
        let closure = load_closure(&local, &roots).await?;
        Ok::<_, PushClosureError>((local, http, roots, closure))
    };
    let (local, http, roots, closure) =
        unless(interrupted, prepared).await.ok_or(PushClosureError::Interrupted)??;
    let mut sources = Sources::new(&roots.sources, &local.store);
    let shells = shell_members(&roots, &closure);
    let mut targets = Vec::new();
    for target in &request.targets {
        let mut push = TargetPush {
            request,
            local: &local,
            closure: &closure,
            sources: &mut sources,
            shells: &shells,
            http: &http,
            reporter,
            report: TargetReport {
                url: match &target.destination {
                    Destination::Cache(url) => url.to_string(),
                    Destination::Local(directory) => directory.display().to_string(),
                },
                closure: Tally { paths: closure.len(), nar_bytes: closure.nar_bytes() },
                ..TargetReport::default()
            },
        };
        let began = Instant::now();
        if let Err(error) = push.run(target, interrupted).await {
            push.report.error = Some(error);
        }
        push.report.elapsed = began.elapsed();
        targets.push(push.report);
    }
    let store = &local.store;
    let dev_shells = roots.dev_shells.iter().map(|(_, shell)| DevShellReport::new(shell, store)).collect();
    Ok(PushClosureReport { revision: roots.revision, dev_shells, targets, elapsed: started.elapsed() })
}

/// The dev shells by name, each with its parts as members of the closure.
fn shell_members(roots: &Roots, closure: &Closure) -> Vec<(String, Vec<PathIndex>)> {
    let place: HashMap<&StorePath, PathIndex> =
        closure.roots().iter().map(|index| (&closure.info(*index).path, *index)).collect();
    let shells = roots.dev_shells.iter().map(|(_, shell)| {
        let parts = shell.environment.iter().chain(&shell.inputs).chain(&shell.bash);
        (shell.installable.clone(), parts.filter_map(|path| place.get(path).copied()).collect())
    });
    shells.collect()
}

async fn load_closure(local: &LocalNix, roots: &Roots) -> Result<Closure, StoreError> {
    let (closure, source) = local.store.closure(&roots.paths).await?;
    if source == Source::PathInfo {
        tracing::info!("the store database cannot be read; the closure comes from nix path-info");
    }
    let paths = text::count(closure.len(), "path");
    tracing::info!("the closure has {paths} ({})", text::size(closure.nar_bytes()));
    Ok(closure)
}
