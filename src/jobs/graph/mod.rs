//! `graph`: the build graph below what was named, and what was asked of it.

mod naming;
mod outcome;
mod reading;
mod seconds;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use nix_derivation::{StoreDir, StorePath};
use tokio::sync::watch;

pub(super) use self::naming::Found;
use self::naming::Names;
use self::seconds::Seconds;
use super::local_nix::{LocalNix, StoreEnvironment};
use super::{derivation_file, unless};
use crate::event::{Event, Reporter};
use crate::graph::{BuildGraph, DerivationIndex};
use crate::nix::{
    DerivationError, DerivationFiles, EvaluationArguments, LoadedGraph, Resolver, first_revision,
};

pub use self::outcome::{Answer, Damaged, GraphError, GraphReport};

/// How many files that cannot be read are told of one by one.
const WARNED: usize = 10;

/// What to load, and what to ask of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was named.
    pub installables: Vec<String>,
    /// What was said for evaluation.
    pub arguments: EvaluationArguments,
    /// Where relative names are taken from.
    pub directory: PathBuf,
    /// Where the store is.
    pub store: StoreEnvironment,
    /// What is asked.
    pub question: Question,
}

/// What is asked of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What there is.
    Everything,
    /// By which ways one derivation needs another.
    Paths {
        /// How the one that needs was named.
        from: String,
        /// How the one that is needed was named.
        to: String,
        /// How many ways are told in full.
        most: usize,
    },
    /// Which derivations have to be built one after the other, and how long that takes.
    CriticalPath {
        /// The file that says how many seconds each takes. Without it all that is built counts alike.
        seconds: Option<PathBuf>,
    },
    /// What cannot be built as long as some derivations are missing.
    BlockedBy {
        /// How these were named.
        missing: Vec<String>,
    },
}

/// Loads the graph. Nothing is built or fetched but by evaluation, which writes `.drv` files and may build what it imports. Files that
/// cannot be read are warned of, and the rest is loaded all the same.
///
/// # Errors
///
/// When it is not known what to load, or nothing sensible is left: a root cannot be read, or derivations need themselves.
pub async fn run(
    request: &Request,
    reporter: &Reporter,
    interrupted: &watch::Receiver<bool>,
) -> Result<GraphReport, GraphError> {
    // Boxed, because it may evaluate at three places, each of which takes its room.
    unless(interrupted, Box::pin(load(request, reporter))).await.ok_or(GraphError::Interrupted)?
}

/// As [`run`] where everything is asked for, with the one derivation or source of the graph that is called so.
///
/// # Errors
///
/// When there is no graph, or not one such in it.
pub(super) async fn find(
    request: &Request,
    called: &str,
    reporter: &Reporter,
) -> Result<(GraphReport, Found), GraphError> {
    let request = Request { arguments: request.arguments.read_only(), ..request.clone() };
    let (report, local) = Box::pin(load_all(&request, reporter)).await?;
    let mut names = Names {
        graph: &report.graph,
        files: &report.files,
        roots: &report.roots,
        local,
        request: &request,
        reporter,
    };
    let found = Box::pin(names.find_any(called)).await?;
    Ok((report, found))
}

async fn load(request: &Request, reporter: &Reporter) -> Result<GraphReport, GraphError> {
    let started = Instant::now();
    let request = &Request { arguments: request.arguments.read_only(), ..request.clone() };
    let (mut report, local) = load_all(request, reporter).await?;
    let graph = &report.graph;
    report.answer = match &request.question {
        Question::Everything => Answer::Everything,
        Question::CriticalPath { seconds: None } => Answer::CriticalPath {
            path: graph.critical_path(|index| graph.unit_weight(index)),
            unknown: None,
        },
        Question::CriticalPath { seconds: Some(file) } => {
            let known = Seconds::read(&request.directory.join(file)).await?.of(graph, report.files.dir());
            let path = graph.critical_path(|index| known[index.position()].unwrap_or_default());
            // Of a download nobody expects to know it.
            let is_unknown = |index: &DerivationIndex| {
                known[index.position()].is_none() && graph.unit_weight(*index) > 0.0
            };
            Answer::CriticalPath { path, unknown: Some(graph.indices().filter(is_unknown).collect()) }
        }
        Question::BlockedBy { missing } => {
            let mut names =
                Names { graph, files: &report.files, roots: &report.roots, local, request, reporter };
            let mut found = Vec::with_capacity(missing.len());
            for text in missing {
                found.push(names.find(text).await?);
            }
            found.sort_unstable();
            found.dedup();
            Answer::BlockedBy {
                roots: graph.bottoms(&found),
                blocked: graph.blocked_by(&found),
                missing: found,
            }
        }
        Question::Paths { from, to, most } => {
            let mut names =
                Names { graph, files: &report.files, roots: &report.roots, local, request, reporter };
            let (from, to) = (names.find(from).await?, names.find(to).await?);
            Answer::Paths { from, to, paths: graph.paths(from, to, *most) }
        }
    };
    report.elapsed = started.elapsed();
    Ok(report)
}

/// The graph, of which nothing is asked yet, and the local Nix where that was needed.
async fn load_all(
    request: &Request,
    reporter: &Reporter,
) -> Result<(GraphReport, Option<LocalNix>), GraphError> {
    let started = Instant::now();
    let sources = match from_files(request, reporter).await? {
        Some(sources) => sources,
        None => from_nix(request, reporter).await?,
    };
    let Sources { local, files, roots, loaded, revision } = sources;
    let LoadedGraph { graph, damaged, bytes } = loaded;
    let damaged = warn_of(damaged, &roots, &files, reporter)?;
    let roots = roots.iter().filter_map(|root| graph.find(root)).collect();
    let (answer, elapsed) = (Answer::Everything, started.elapsed());
    Ok((GraphReport { files, graph, roots, revision, damaged, bytes, answer, elapsed }, local))
}

/// A graph, and where it is from.
struct Sources {
    /// The local Nix, where it was asked.
    local: Option<LocalNix>,
    files: DerivationFiles,
    roots: Vec<StorePath>,
    loaded: LoadedGraph,
    revision: Option<String>,
}

/// Loads what was named as files of one directory, without Nix: they say all that is needed, whatever made them and wherever they are.
/// Nothing where something else was named.
async fn from_files(request: &Request, reporter: &Reporter) -> Result<Option<Sources>, GraphError> {
    let mut all: Option<DerivationFiles> = None;
    let mut other = None;
    let (mut roots, mut seen) = (Vec::new(), HashSet::new());
    for text in &request.installables {
        let Some((files, root)) = derivation_file(&request.directory.join(text), &request.arguments) else {
            return Ok(None);
        };
        if *all.get_or_insert_with(|| files.clone()) != files {
            other.get_or_insert(text);
        }
        if seen.insert(root.clone()) {
            roots.push(root);
        }
    }
    let Some(files) = all else { return Ok(None) };
    if let Some(other) = other {
        return Err(GraphError::OtherStore { one: request.installables[0].clone(), other: other.clone() });
    }
    reporter.emit(Event::Step { what: "reading derivations".to_owned() });
    let loaded = files.load(&roots).await?;
    Ok(Some(Sources { local: None, files, roots, loaded, revision: None }))
}

/// Loads what Nix makes of what was named.
async fn from_nix(request: &Request, reporter: &Reporter) -> Result<Sources, GraphError> {
    let local = LocalNix::open(&request.arguments, &request.store).await?;
    let installables =
        local.installables(&request.installables, &request.directory, &request.arguments, reporter)?;
    let resolver = Resolver { store: &local.store, arguments: &request.arguments, build: false };
    let roots = resolver.build_roots(&installables).await?;
    reporter.emit(Event::Step { what: "reading derivations".to_owned() });
    let files = local.store.derivation_files();
    let revision = first_revision(&local.store, &request.arguments, &installables);
    let (loaded, revision) = tokio::join!(files.load(&roots), revision);
    Ok(Sources { local: Some(local), files, roots, loaded: loaded?, revision })
}

/// Tells which files could not be read. Without a root there is no graph.
fn warn_of(
    damaged: Vec<DerivationError>,
    roots: &[StorePath],
    files: &DerivationFiles,
    reporter: &Reporter,
) -> Result<Vec<Damaged>, GraphError> {
    let roots: HashSet<String> = roots.iter().map(|root| files.dir().render_path(root)).collect();
    let mut all = Vec::with_capacity(damaged.len());
    for error in damaged {
        if error.path().is_some_and(|path| roots.contains(path)) {
            return Err(error.into());
        }
        all.push(Damaged::from(&error));
    }
    warn_of_damaged(all.iter(), reporter);
    Ok(all)
}

/// Warns of files that cannot be used: of some one by one, and of how many more there are.
pub(super) fn warn_of_damaged<'a>(mut all: impl Iterator<Item = &'a Damaged>, reporter: &Reporter) {
    for damaged in all.by_ref().take(WARNED) {
        reporter.warn(&damaged.error);
    }
    let more = all.count();
    if more > 0 {
        reporter.warn(format!(
            "{more} more .drv files cannot be used; `cache-helper graph --json` lists them all"
        ));
    }
}

/// A derivation of a graph, as a `.drv` path.
fn shown(graph: &BuildGraph, index: DerivationIndex, dir: &StoreDir) -> String {
    dir.render_path(&graph.derivation(index).path())
}
