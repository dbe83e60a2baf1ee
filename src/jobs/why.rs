//! `why`: why a derivation or a source is needed, and whether the caches have what it makes.

use std::path::PathBuf;

use nix_derivation::StorePath;
use tokio::sync::watch;

use super::audit::{self, AuditError, CacheReport, DerivationReport};
use super::graph::{self, Found, GraphError, GraphReport, Question};
use super::local_nix::StoreEnvironment;
use super::unless;
use crate::audit::Scope;
use crate::cache::CacheUrl;
use crate::event::Reporter;
use crate::graph::{DerivationIndex, Paths};
use crate::net::HttpSettings;
use crate::nix::EvaluationArguments;

/// How many ways from a root are shown.
const WAYS: usize = 8;

/// What to explain.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was named: a `.drv` path, what one makes, a name, or an installable.
    pub what: String,
    /// Of what it is a part; without any, of `.`, or of nothing but itself where it is no part of that.
    pub of: Vec<String>,
    /// What was said for evaluation.
    pub arguments: EvaluationArguments,
    /// Where relative names are taken from.
    pub directory: PathBuf,
    /// The caches, as if they were Nix's substituters; without any, those that Nix has.
    pub caches: Vec<CacheUrl>,
    /// How to speak HTTP.
    pub http: HttpSettings,
    /// Where the store is.
    pub store: StoreEnvironment,
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WhyError {
    /// There is no graph, or it is not in there.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The caches could not be asked.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// A way by which something is needed: what needs, and at the end what is needed.
pub type Way = Vec<Step>;

/// A derivation on a way.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// Its `.drv` path.
    pub drv: String,
    /// Its name.
    pub name: String,
    /// The outputs that the one before needs of it; none of the first.
    pub outputs: Vec<String>,
}

/// A derivation that needs a source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Needing {
    /// Its `.drv` path.
    pub drv: String,
    /// Its name.
    pub name: String,
}

/// What is explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A derivation, by its `.drv` path.
    Derivation(String),
    /// A source, and the derivations that need it.
    Source(String, Vec<Needing>),
}

/// What was found.
#[derive(Debug)]
pub struct WhyReport {
    /// The revision of the flake that it is a part of.
    pub revision: Option<String>,
    /// What is explained.
    pub subject: Subject,
    /// Its name.
    pub name: String,
    /// How many ways lead there from what it is a part of; `u64::MAX` stands for that many or more.
    pub number: u64,
    /// The shortest of them. To a source they end with a derivation that needs it.
    pub ways: Vec<Way>,
    /// The caches that were asked; none where Nix has none.
    pub caches: Vec<CacheReport>,
    /// What they have of it, for somebody whose store is empty; nothing where no cache was asked.
    pub derivation: Option<DerivationReport>,
}

/// Explains.
///
/// # Errors
///
/// When it is not known what to explain, or of what it is a part. A cache that does not answer is no error.
pub async fn run(
    request: &Request,
    reporter: &Reporter,
    interrupted: &watch::Receiver<bool>,
) -> Result<WhyReport, WhyError> {
    let found = unless(interrupted, Box::pin(part_of(request, reporter))).await;
    let (graph, found) = found.ok_or(GraphError::Interrupted)??;
    let what = match found {
        Found::Derivation(what) => what,
        Found::Source(source, needing) => return Ok(of_source(&graph, &source, &needing)),
    };
    let ways = graph.roots.iter().map(|root| graph.graph.paths(*root, what, WAYS));
    let ways: Vec<Paths> = ways.filter(|ways| ways.number > 0).collect();
    let path = graph.graph.derivation(what).path();
    let audit_request = audit_request(request, &graph, &path);
    let audit = Box::pin(audit::run(&audit_request, reporter, interrupted)).await;
    let (caches, derivation) = match audit {
        Ok(report) => {
            let own = graph.drv(what);
            (report.caches, report.derivations.into_iter().find(|derivation| derivation.drv == own))
        }
        Err(AuditError::NoCaches) => {
            reporter.warn("Nix has no substituters here, so that no cache was asked (--cache names one)");
            (Vec::new(), None)
        }
        Err(error) => return Err(error.into()),
    };
    let number = ways.iter().fold(0, |all: u64, ways| all.saturating_add(ways.number));
    let mut shortest: Vec<&Vec<DerivationIndex>> = ways.iter().flat_map(|ways| &ways.shortest).collect();
    // Each root has its own, the shortest first. Stable, so that among equals the roots keep their order.
    shortest.sort_by_key(|way| way.len());
    Ok(WhyReport {
        revision: graph.revision.clone(),
        subject: Subject::Derivation(graph.drv(what)),
        name: graph.graph.derivation(what).name().to_owned(),
        number,
        ways: shortest.into_iter().map(|way| steps(&graph, way)).collect(),
        caches,
        derivation,
    })
}

/// The report of a source. No cache is asked: whoever has the derivation has its sources, and Nix fetches none of them to build it.
fn of_source(graph: &GraphReport, source: &StorePath, needing: &[DerivationIndex]) -> WhyReport {
    let paths = graph.graph.paths_to_any(&graph.roots, needing, WAYS);
    let name = |index: &DerivationIndex| graph.graph.derivation(*index).name().to_owned();
    let needing = needing.iter().map(|index| Needing { drv: graph.drv(*index), name: name(index) });
    WhyReport {
        revision: graph.revision.clone(),
        subject: Subject::Source(graph.files.dir().render_path(source), needing.collect()),
        name: source.name().to_owned(),
        number: paths.number,
        ways: paths.shortest.iter().map(|way| steps(graph, way)).collect(),
        caches: Vec::new(),
        derivation: None,
    }
}

/// The graph that it is a part of, and what it is there.
async fn part_of(request: &Request, reporter: &Reporter) -> Result<(GraphReport, Found), GraphError> {
    let graph = |installables: &[String]| graph::Request {
        installables: installables.to_vec(),
        arguments: request.arguments.clone(),
        directory: request.directory.clone(),
        store: request.store.clone(),
        question: Question::Everything,
    };
    if !request.of.is_empty() {
        return graph::find(&graph(&request.of), &request.what, reporter).await;
    }
    let alone = graph(std::slice::from_ref(&request.what));
    // Whoever stands in a flake means a part of that, if it is one.
    if request.arguments.has_source || !request.directory.join("flake.nix").exists() {
        return graph::find(&alone, &request.what, reporter).await;
    }
    match graph::find(&graph(&[".".to_owned()]), &request.what, reporter).await {
        Err(error @ (GraphError::NotThere { .. } | GraphError::Unknown { .. })) => {
            match graph::find(&alone, &request.what, reporter).await {
                Err(GraphError::Resolve(_)) => Err(error),
                result => result,
            }
        }
        result => result,
    }
}

fn audit_request(request: &Request, graph: &GraphReport, path: &StorePath) -> audit::Request {
    audit::Request {
        installables: vec![graph.files.dir().render_path(path)],
        // What is a `.drv` path is no attribute of a file.
        arguments: request.arguments.for_paths(),
        directory: request.directory.clone(),
        caches: request.caches.clone(),
        scope: Scope::Needed,
        // Whether it is valid here says nothing of the caches.
        assume_empty_store: true,
        nars: true,
        http: request.http.clone(),
        store: request.store.clone(),
    }
}

fn steps(graph: &GraphReport, way: &[DerivationIndex]) -> Way {
    let step = |place: usize| Step {
        drv: graph.drv(way[place]),
        name: graph.graph.derivation(way[place]).name().to_owned(),
        outputs: match place.checked_sub(1) {
            Some(before) => graph.wanted(way[place], way[before]).iter().map(ToString::to_string).collect(),
            None => Vec::new(),
        },
    };
    (0..way.len()).map(step).collect()
}
