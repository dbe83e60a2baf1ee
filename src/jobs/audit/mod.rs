//! `audit`: which derivations miss the caches, why, and what Nix would do about it.

mod asking;
mod caches;
mod outcome;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nix_derivation::StorePath;
use tokio::sync::watch;

use self::caches::{AuditedCache, Named};
use super::local_nix::{LocalNix, StoreEnvironment};
use super::unless;
use crate::audit::{Facts, Flavour, NixSettings, Rules, Scope, Verdicts, View, explain, judge, predict};
use crate::cache::CacheUrl;
use crate::event::{Event, Reporter};
use crate::graph::{BuildGraph, DerivationIndex, OutputView};
use crate::net::HttpSettings;
use crate::nix::{BuildTarget, EvaluationArguments, Implementation, Resolver, first_revision};

pub use self::outcome::{
    AlsoReport, AnswerReport, AuditError, AuditReport, CacheReport, CacheStatus, DerivationReport, NixReport,
    OutputReport, ViewReport,
};

/// What to audit, against what, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was named.
    pub installables: Vec<String>,
    /// What was said for evaluation.
    pub arguments: EvaluationArguments,
    /// Where relative names are taken from.
    pub directory: PathBuf,
    /// The caches, as if they were Nix's substituters; without any, those that Nix has.
    pub caches: Vec<CacheUrl>,
    /// Which derivations count.
    pub scope: Scope,
    /// Whether nothing in the store counts.
    pub assume_empty_store: bool,
    /// Whether to look for NARs too.
    pub nars: bool,
    /// How to speak HTTP.
    pub http: HttpSettings,
    /// Where the store is.
    pub store: StoreEnvironment,
}

/// Audits. Nothing is built, fetched or written but by evaluation, which writes `.drv` files and may build what it imports.
///
/// # Errors
///
/// When it is not known what to audit, or there is no cache to ask. A cache that does not answer is no error: it makes the
/// verdicts inconclusive.
pub async fn run(
    request: &Request,
    reporter: &Reporter,
    interrupted: &watch::Receiver<bool>,
) -> Result<AuditReport, AuditError> {
    let audit = audit(request, reporter);
    unless(interrupted, audit).await.ok_or(AuditError::Interrupted)?
}

async fn audit(request: &Request, reporter: &Reporter) -> Result<AuditReport, AuditError> {
    let started = Instant::now();
    let local = LocalNix::open(&request.arguments, &request.store).await?;
    let request = &Request { arguments: request.arguments.read_only(), ..request.clone() };
    let named: Vec<Named> = if request.caches.is_empty() {
        let substituters = &local.settings.substitution.substituters;
        substituters.iter().map(|text| Named::substituter(text, &request.directory)).collect()
    } else {
        request.caches.iter().cloned().map(Named::Cache).collect()
    };
    if named.is_empty() {
        return Err(AuditError::NoCaches);
    }
    let http = local.with_logins(request.http.clone(), reporter);
    // The caches answer while derivations are read.
    let opened = async { caches::open(&named, &local, &http).await.map_err(AuditError::from) };
    let ((targets, graph, revision), caches) = tokio::try_join!(load(request, &local, reporter), opened)?;
    let caches: Arc<[AuditedCache]> = caches.into();
    let view = view(request, &local, &graph, &targets, &caches);
    let (trusted_user, view) = tokio::join!(local.store.trusts_us(), view);
    let view = view?;
    if trusted_user == Some(false) {
        reporter.warn(
            "Nix's daemon does not trust this user: it goes by its own substituters and keys, which cannot be seen from here",
        );
    }
    let facts =
        asking::ask(&graph, &view, &caches, &Arc::new(local.settings.clone()), request.nars, reporter).await;
    if request.scope == Scope::Runtime {
        warn_of_unknown_closures(&facts, reporter);
    }

    let verdicts = judge(&facts);
    let flavour = match local.store.nix().implementation() {
        Implementation::Lix => Flavour::Lix,
        Implementation::Nix | Implementation::Determinate => Flavour::Nix,
    };
    let version = local.store.nix().version();
    let settings = NixSettings {
        substitute: local.settings.substitution.substitute,
        fallback: local.settings.substitution.fallback,
    };
    let prediction = predict(&facts, Rules::of(flavour, (version.major, version.minor)), settings);
    let urls: Vec<String> = caches.iter().map(|cache| cache.url().to_owned()).collect();
    let is_listed = |index: &DerivationIndex| {
        verdicts.derivations[index.position()].is_in_scope
            || prediction.of(*index).is_some()
            || view.targets.iter().any(|(target, _)| target == index)
    };
    let describe = Description { local: &local, facts: &facts, verdicts: &verdicts, urls: &urls };
    let derivations = graph
        .indices()
        .filter(is_listed)
        .map(|index| DerivationReport { nix: prediction.of(index), ..describe.derivation(index) })
        .collect();
    Ok(AuditReport {
        revision,
        nix: describe.nix(trusted_user),
        view: ViewReport {
            store: local.settings.store.clone(),
            assume_empty_store: request.assume_empty_store,
            nars_checked: request.nars,
            scope: scope_name(request.scope),
        },
        caches: caches.iter().map(AuditedCache::report).collect(),
        targets: targets.iter().map(|target| describe.target(target)).collect(),
        totals: verdicts.totals,
        derivations,
        stops: prediction.stops,
        elapsed: started.elapsed(),
    })
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Needed => "needed",
        Scope::Runtime => "runtime",
        Scope::Build => "build",
    }
}

/// From what was named to the derivations below it.
async fn load(
    request: &Request,
    local: &LocalNix,
    reporter: &Reporter,
) -> Result<(Vec<BuildTarget>, BuildGraph, Option<String>), AuditError> {
    let installables =
        local.installables(&request.installables, &request.directory, &request.arguments, reporter)?;
    let resolver = Resolver { store: &local.store, arguments: &request.arguments, build: false };
    let targets = resolver.targets(&installables).await?;
    reporter.emit(Event::Step { what: "reading derivations".to_owned() });
    let roots: Vec<StorePath> = targets.iter().map(|target| target.derivation.clone()).collect();
    let revision = first_revision(&local.store, &request.arguments, &installables);
    let (graph, revision) = tokio::join!(local.store.build_graph(&roots), revision);
    Ok((targets, graph?, revision))
}

/// What is valid, and what was asked for.
async fn view(
    request: &Request,
    local: &LocalNix,
    graph: &BuildGraph,
    targets: &[BuildTarget],
    caches: &[AuditedCache],
) -> Result<View, AuditError> {
    let outputs = |index| graph.derivation(index).outputs();
    let wanted: Vec<(DerivationIndex, Vec<usize>)> = targets
        .iter()
        .filter_map(|target| {
            let index = graph.find(&target.derivation)?;
            let is_wanted = |name: &str| target.outputs.iter().any(|wanted| wanted == name);
            let positions = outputs(index).enumerate().filter(|(_, output)| is_wanted(output.name()));
            Some((index, positions.map(|(position, _)| position).collect()))
        })
        .collect();
    let all: Vec<StorePath> =
        graph.indices().flat_map(|index| outputs(index).filter_map(OutputView::path)).collect();
    let invalid = local.store.invalid(&all).await?;
    let mut valid: std::collections::HashSet<StorePath> = all.into_iter().collect();
    for path in &invalid {
        valid.remove(path);
    }
    let mut runtime = Vec::new();
    if request.scope == Scope::Runtime {
        let roots: Vec<StorePath> = wanted
            .iter()
            .flat_map(|(index, outputs)| {
                outputs.iter().filter_map(|output| graph.derivation(*index).output(*output).path())
            })
            .filter(|path| valid.contains(path))
            .collect();
        let (closure, _) = local.store.closure(&roots).await?;
        runtime = closure.indices().map(|index| closure.info(index).path.clone()).collect();
    }
    if request.assume_empty_store {
        valid.clear();
    }
    Ok(View {
        targets: wanted,
        valid,
        scope: request.scope,
        runtime,
        always_allows_substitutes: local.settings.substitution.always_allow,
        caches: caches.iter().map(AuditedCache::state).collect(),
    })
}

/// What refers to what is known only of what is valid here or on a cache.
fn warn_of_unknown_closures(facts: &Facts<'_>, reporter: &Reporter) {
    for (index, outputs) in &facts.view.targets {
        let is_known = |output: &usize| {
            facts.outputs(*index)[*output].is_some_and(|id| {
                let answers = facts.answers(id).unwrap_or_default();
                facts.view.runtime.contains(facts.path(id))
                    || answers.iter().any(|answer| answer.offer().is_some())
            })
        };
        if !outputs.iter().all(is_known) {
            reporter.warn(format!(
                "the runtime closure of {} is not known: it is neither valid here nor on a cache",
                facts.graph.derivation(*index).name()
            ));
        }
    }
}

/// Turns what is known into what is told.
struct Description<'a> {
    local: &'a LocalNix,
    facts: &'a Facts<'a>,
    verdicts: &'a Verdicts,
    urls: &'a [String],
}

impl Description<'_> {
    fn shown(&self, path: &StorePath) -> String {
        self.local.store.dir().render_path(path)
    }

    fn target(&self, target: &BuildTarget) -> String {
        format!("{}^{}", self.shown(&target.derivation), target.outputs.join(","))
    }

    fn nix(&self, trusted_user: Option<bool>) -> NixReport {
        let nix = self.local.store.nix();
        NixReport {
            implementation: nix.implementation(),
            version: nix.full_version().to_owned(),
            store_dir: self.local.store.dir().to_string(),
            system: self.local.settings.system.clone(),
            trusted_user,
            fallback: self.local.settings.substitution.fallback,
            substitute: self.local.settings.substitution.substitute,
        }
    }

    fn derivation(&self, index: DerivationIndex) -> DerivationReport {
        let derivation = self.facts.graph.derivation(index);
        let verdict = &self.verdicts.derivations[index.position()];
        let drv = self.shown(&derivation.path());
        let finding = explain(self.facts, self.verdicts, index, self.urls, &drv);
        let outputs = derivation.outputs().enumerate().map(|(position, output)| {
            let id = self.facts.outputs(index)[position];
            let answers = id.and_then(|id| self.facts.answers(id)).unwrap_or_default();
            OutputReport {
                name: output.name().to_owned(),
                path: output.path().map(|path| self.shown(&path)),
                wanted: verdict.outputs.contains(&position),
                answers: self
                    .urls
                    .iter()
                    .zip(answers)
                    .map(|(cache, answer)| AnswerReport {
                        cache: cache.clone(),
                        answer: answer.name(),
                        status: answer.status(),
                    })
                    .collect(),
            }
        });
        let also = finding.iter().flat_map(|finding| &finding.also);
        DerivationReport {
            name: derivation.name().to_owned(),
            kind: derivation.kind().name(),
            needed: verdict.is_needed,
            valid: verdict.is_valid,
            verdict: verdict.status,
            nix: None,
            outputs: outputs.collect(),
            reason: finding.as_ref().map(|finding| finding.reason),
            also: also.map(|reason| AlsoReport { reason: *reason, likely: false }).collect(),
            evidence: finding.as_ref().map(|finding| finding.evidence.clone()).unwrap_or_default(),
            fix: finding.as_ref().map(|finding| finding.fix.clone()),
            caused_by: verdict
                .caused_by
                .iter()
                .map(|cause| self.shown(&self.facts.graph.derivation(*cause).path()))
                .collect(),
            blocks: verdict.blocks,
            is_counted: verdict.is_counted(),
            role: verdict.role,
            sentence: finding.map(|finding| finding.sentence).unwrap_or_default(),
            drv,
        }
    }
}
