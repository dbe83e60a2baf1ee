//! `verify`: whether a cache, with its upstreams, can serve a closure.

mod asking;
mod caches;
mod nars;
mod outcome;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nix_derivation::StorePath;
use tokio::sync::watch;

use self::asking::Asked;
use self::caches::{Proof, ProvingCache};
use super::local_nix::{LocalNix, StoreEnvironment};
use super::unless;
use crate::cache::measured::Health;
use crate::cache::{CacheUrl, narinfo};
use crate::event::Reporter;
use crate::graph::Closure;
use crate::net::{HttpError, HttpSettings};
use crate::nix::{EvaluationArguments, Resolver, first_revision};
use crate::proof::{Finding, Findings, Place};
use crate::text::count;

pub use self::outcome::{CacheReport, ProblemReport, Served, Totals, VerifyError, VerifyReport};

/// How many roots are named in an advice.
const NAMED: usize = 3;

/// What to verify, where, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was named.
    pub installables: Vec<String>,
    /// What was said for evaluation.
    pub arguments: EvaluationArguments,
    /// Where relative names are taken from.
    pub directory: PathBuf,
    /// The cache.
    pub cache: CacheUrl,
    /// Caches that its users have anyway.
    pub upstreams: Vec<CacheUrl>,
    /// Whether to download every NAR and check its hashes.
    pub deep: bool,
    /// How to speak HTTP.
    pub http: HttpSettings,
    /// Where the store is.
    pub store: StoreEnvironment,
}

/// Verifies. Nothing is built, fetched into the store, or written but by evaluation.
///
/// # Errors
///
/// When it is not known what to verify. A cache that does not answer is no error: the outcome is then not known.
pub async fn run(
    request: &Request,
    reporter: &Reporter,
    interrupted: &watch::Receiver<bool>,
) -> Result<VerifyReport, VerifyError> {
    let verify = Box::pin(verify(request, reporter));
    unless(interrupted, verify).await.ok_or(VerifyError::Interrupted)?
}

async fn verify(request: &Request, reporter: &Reporter) -> Result<VerifyReport, VerifyError> {
    let started = Instant::now();
    let local = LocalNix::open(&request.arguments, &request.store).await?;
    let request = &Request { arguments: request.arguments.read_only(), ..request.clone() };
    let mut http = HttpSettings::clone(&local.with_logins(request.http.clone(), reporter));
    http.retry = http.retry.for_a_report();
    let http = Arc::new(http);
    let caches = [&request.cache]
        .into_iter()
        .chain(&request.upstreams)
        .map(|url| ProvingCache::open(url, &local.settings, &http))
        .collect::<Result<Vec<_>, HttpError>>()?;
    // The cache says what it is while Nix says which paths are meant.
    let standing = async { Ok(caches[0].standing(&local.settings).await) };
    let ((roots, revision), standing) = tokio::try_join!(roots(request, &local, reporter), standing)?;
    let closure = registered(&local, &roots).await;
    let registered = closure
        .iter()
        .flat_map(|closure| closure.indices().map(|index| closure.info(index)))
        .map(|info| (&info.path, info))
        .collect::<HashMap<_, _>>();
    let proof = Proof { caches: &caches, settings: &local.settings, registered: &registered };
    let asked = match standing {
        None => asking::ask(&proof, &roots, request.deep, reporter).await,
        Some(problem) => useless(problem.clone(), caches.len()),
    };
    warn(&caches, reporter);
    let is_valid = closure.is_some();
    let shown: Vec<String> = roots.iter().map(|root| local.store.dir().render_path(root)).collect();
    Ok(report(asked, &caches, shown, is_valid, request.deep, revision, started))
}

/// The paths that were named, and the revision of the flake that they come from.
async fn roots(
    request: &Request,
    local: &LocalNix,
    reporter: &Reporter,
) -> Result<(Vec<StorePath>, Option<String>), VerifyError> {
    let installables =
        local.installables(&request.installables, &request.directory, &request.arguments, reporter)?;
    let resolver = Resolver { store: &local.store, arguments: &request.arguments, build: false };
    let paths = resolver.paths(&installables).await?;
    let revision = first_revision(&local.store, &request.arguments, &installables).await;
    Ok((paths, revision))
}

/// What the local store knows of a closure; nothing where it does not have all of it, or does not say.
async fn registered(local: &LocalNix, roots: &[StorePath]) -> Option<Closure> {
    match local.store.closure(roots).await {
        Ok((closure, _)) => Some(closure),
        Err(error) => {
            tracing::debug!(%error, "the closure is not compared with the local store");
            None
        }
    }
}

/// What is found of a closure where the cache as a whole is of no use.
fn useless(problem: crate::proof::Problem, caches: usize) -> Asked {
    let mut findings = Findings::default();
    findings.add(Finding { path: None, cache: 0, problem, needed_by: None, nar: None });
    Asked { findings, totals: Totals::default(), served: vec![Served::default(); caches] }
}

/// Tells what the findings do not show.
fn warn(caches: &[ProvingCache], reporter: &Reporter) {
    for cache in caches {
        if cache.forbidden() > 0 {
            reporter.warn(format!(
                "{} answers 403 to {}: as it may be read otherwise, that is taken to mean that they are not there",
                cache.url,
                count(cache.forbidden(), "request"),
            ));
        }
    }
    for upstream in caches.iter().skip(1) {
        if let Some(problem) = upstream.known_standing().filter(|problem| !problem.is_unknown()) {
            reporter.warn(format!("the upstream {} serves nothing: {}", upstream.url, problem.words()));
        }
    }
}

fn report(
    asked: Asked,
    caches: &[ProvingCache],
    roots: Vec<String>,
    is_valid: bool,
    deep: bool,
    revision: Option<String>,
    started: Instant,
) -> VerifyReport {
    let Asked { mut findings, mut totals, served } = asked;
    let verified = findings.verified();
    totals.problems = findings.wrong;
    totals.unknown = findings.unknown;
    for served in &served {
        totals.download_bytes = totals.download_bytes.saturating_add(served.download_bytes);
        totals.unpack_bytes = totals.unpack_bytes.saturating_add(served.unpack_bytes);
    }
    let named = match roots.len() {
        0..=NAMED => roots.join(" "),
        _ => "PATH…".to_owned(),
    };
    // Answers come in any order; a report does not change with it.
    findings.kept.sort_by(|one, other| {
        let key = |finding: &Finding| {
            (finding.problem.is_unknown(), finding.path.is_some(), finding.problem.name())
        };
        key(one).cmp(&key(other)).then_with(|| one.path.cmp(&other.path))
    });
    let problems =
        findings.kept.into_iter().map(|finding| problem(finding, caches, &named, is_valid)).collect();
    let caches = caches.iter().zip(served).enumerate().map(|(number, (cache, serves))| {
        let Health { requests, median } = cache.cache.health();
        CacheReport {
            url: cache.url.clone(),
            role: if number == 0 { "cache" } else { "upstream" },
            serves,
            requests,
            median_seconds: median.map(|median| median.as_secs_f64()),
        }
    });
    VerifyReport {
        revision,
        verified,
        roots,
        deep,
        caches: caches.collect(),
        totals,
        problems,
        elapsed: started.elapsed(),
    }
}

fn problem(finding: Finding, caches: &[ProvingCache], roots: &str, is_valid: bool) -> ProblemReport {
    let Finding { path, cache, problem, needed_by, nar } = finding;
    let url = &caches[cache].url;
    let base_name = path.as_deref().and_then(|path| path.rsplit('/').next());
    let parsed = base_name.and_then(|name| StorePath::from_basename(name.as_bytes()).ok());
    let narinfo = parsed.map(|path| narinfo::object_name(&path).as_str().to_owned());
    let place = Place {
        cache: url,
        is_upstream: cache > 0,
        path: path.as_deref().unwrap_or(roots),
        roots,
        is_valid,
        narinfo: narinfo.as_deref().unwrap_or("the narinfo"),
        nar: nar.as_deref(),
    };
    ProblemReport {
        problem: problem.name(),
        unknown: problem.is_unknown(),
        words: problem.words(),
        fix: problem.fix(&place),
        cache: url.clone(),
        path,
        needed_by,
    }
}
