//! `diff`: why two derivations differ, and what is rebuilt because of it.

mod outcome;
mod patience;
mod revision;
mod saved;
mod side;
mod trees;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use tokio::sync::{OnceCell, watch};

use self::outcome::Describe;
use self::side::{LoadedSide, Named};
use super::graph::warn_of_damaged;
use super::local_nix::{LocalNixError, StoreEnvironment};
use super::unless;
use crate::event::{Event, Reporter};
use crate::graph::SavedGraphError;
use crate::graph::diff::{Compared, Comparison, Differences, Pair, Side};
use crate::nix::{DerivationError, EvaluationArguments, ResolveError};

pub(crate) use self::patience::Patience;

pub use self::outcome::{
    ChangeReport, DiffReport, DifferenceReport, FileChange, FileStatus, LinkChange, Node, SideReport,
    UnreadPair,
};

/// How many pairs are read at a time: enough to keep all cores busy, few enough to be kept in memory.
const BATCH: usize = 1024;

/// How many pairs are read sooner than a thread is started.
const FEW: usize = 8;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was before: an installable, a `.drv` path, a revision of this repository, or a saved graph.
    pub old: String,
    /// What is now.
    pub new: String,
    /// What was said for evaluation.
    pub arguments: EvaluationArguments,
    /// Where relative names are taken from.
    pub directory: PathBuf,
    /// Where the store is.
    pub store: StoreEnvironment,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// There is no local Nix to work with.
    #[error(transparent)]
    Nix(#[from] LocalNixError),
    /// What was named leads to no derivations.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A `.drv` file cannot be used.
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// A saved graph cannot be read.
    #[error("cannot read {}: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that was named is not there.
    #[error("there is no such file: {}", .file.display())]
    NoFile {
        /// The file.
        file: PathBuf,
    },
    /// A file is no saved graph.
    #[error("{}: {source}", .file.display())]
    Saved {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<SavedGraphError>,
    },
    /// The two have paths of different stores.
    #[error("{old} has paths of the store {old_dir}, and {new} of {new_dir}: they cannot be compared")]
    OtherStore {
        /// What was before.
        old: String,
        /// Its store directory.
        old_dir: String,
        /// What is now.
        new: String,
        /// Its store directory.
        new_dir: String,
    },
    /// There is no `git` to find a revision.
    #[error("cannot run git to find the revision {revision}: {source}")]
    NoGit {
        /// The revision.
        revision: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What can only be a revision is none.
    #[error("git does not find the revision {revision} from {}: {reason}", .directory.display())]
    Revision {
        /// What was named.
        revision: String,
        /// Where it was looked for.
        directory: PathBuf,
        /// What git says.
        reason: String,
    },
    /// There is a revision, and git does not say where its repository is.
    #[error("git does not say where the repository of {revision} begins: {reason}")]
    Repository {
        /// The revision.
        revision: String,
        /// What git says.
        reason: String,
    },
    /// Somebody interrupted it.
    #[error("interrupted")]
    Interrupted,
}

/// Compares.
///
/// # Errors
///
/// When one of the two cannot be loaded.
pub async fn run(
    request: &Request,
    reporter: &Reporter,
    interrupted: &watch::Receiver<bool>,
) -> Result<DiffReport, DiffError> {
    unless(interrupted, compare(request, reporter)).await.ok_or(DiffError::Interrupted)?
}

async fn compare(request: &Request, reporter: &Reporter) -> Result<DiffReport, DiffError> {
    let old = Named::understand(&request.old, &request.new, request, reporter).await?;
    let new = Named::understand(&request.new, &request.old, request, reporter).await?;
    let local = OnceCell::new();
    // Nix takes gigabytes for a large evaluation, and twice that for two at once.
    let one_by_one = old.is_evaluated() && new.is_evaluated();
    // Boxed, because each may evaluate, which takes its room.
    let old = Box::pin(old.load(request, &local, reporter));
    let new = Box::pin(new.load(request, &local, reporter));
    let (old, new) = if one_by_one { (old.await?, new.await?) } else { tokio::try_join!(old, new)? };
    warn_of(&old, &new, reporter);
    if old.store_dir != new.store_dir {
        return Err(DiffError::OtherStore {
            old: request.old.clone(),
            old_dir: old.store_dir.to_string(),
            new: request.new.clone(),
            new_dir: new.store_dir.to_string(),
        });
    }
    reporter.emit(Event::Step { what: "comparing derivations".to_owned() });
    let work = move || {
        let (differences, errors) = differences(&old, &new);
        let describe = Describe { old: &old, new: &new, patience: Patience::default() };
        describe.report(&differences, &errors)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(report) => Ok(DiffReport {
            old: named_side(&request.old, report.old),
            new: named_side(&request.new, report.new),
            ..report
        }),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Tells which files could not be read, those that both need once.
fn warn_of(old: &LoadedSide, new: &LoadedSide, reporter: &Reporter) {
    let mut told = HashSet::new();
    let all = old.damaged.iter().chain(&new.damaged);
    warn_of_damaged(all.filter(|damaged| told.insert(&damaged.drv)), reporter);
}

fn named_side(installable: &str, side: SideReport) -> SideReport {
    SideReport { installable: installable.to_owned(), ..side }
}

/// Goes through both graphs. Blocks.
fn differences(old: &LoadedSide, new: &LoadedSide) -> (Differences, Vec<(Pair, String)>) {
    tracing::info!("comparing {} derivations with {}", old.graph.len(), new.graph.len());
    let mut comparison = Comparison::new(
        Side { graph: &old.graph, roots: &old.roots },
        Side { graph: &new.graph, roots: &new.roots },
        &new.store_dir,
    );
    let mut errors = Vec::new();
    loop {
        let wanted = comparison.wanted(BATCH);
        if wanted.is_empty() {
            return (comparison.finish(), errors);
        }
        for (pair, compared) in wanted.iter().zip(compare_all(&comparison, &wanted, old, new)) {
            match compared {
                Ok(compared) => comparison.take(*pair, Some(compared)),
                Err(error) => {
                    comparison.take(*pair, None);
                    errors.push((*pair, error));
                }
            }
        }
    }
}

/// Reads and compares pairs on as many threads as there are cores.
fn compare_all(
    comparison: &Comparison<'_>,
    pairs: &[Pair],
    old: &LoadedSide,
    new: &LoadedSide,
) -> Vec<Result<Compared, String>> {
    let compare = |pair: &Pair| {
        let (old, new) = (old.says(pair.old)?, new.says(pair.new)?);
        comparison.compare(*pair, &old.borrowed(), &new.borrowed())
    };
    on_threads(pairs, compare)
}

/// Does the same to all, in order, on as many threads as are worth starting.
fn on_threads<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let work = &work;
    // A chain of derivations comes one by one.
    if all.len() <= FEW {
        return all.iter().map(work).collect();
    }
    let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    let share = all.len().div_ceil(threads).max(FEW);
    std::thread::scope(|scope| {
        let workers: Vec<_> = all
            .chunks(share)
            .map(|some| scope.spawn(move || some.iter().map(work).collect::<Vec<_>>()))
            .collect();
        let mut done = Vec::with_capacity(all.len());
        for worker in workers {
            done.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_is_started_for_a_few() {
        let own = std::thread::current().id();
        let seen = |length: usize| {
            let all: Vec<usize> = (0..length).collect();
            let done = on_threads(&all, |number| (*number, std::thread::current().id()));
            assert_eq!(done.iter().map(|(number, _)| *number).collect::<Vec<_>>(), all);
            done.iter().all(|(_, id)| *id == own)
        };
        assert!(seen(0) && seen(1) && seen(FEW));
        assert!(!seen(FEW + 1));
    }
}
