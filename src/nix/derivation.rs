//! Reading `.drv` files: the whole of one, or the build graph below some.
//!
//! One is read by `nix-derivation`; of the many in a graph only what the graph is made of, by its own scanner.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix_derivation::{StoreDir, StorePath};

use crate::graph::{BuildGraph, BuildGraphBuilder, BuildGraphError, Contents};
use crate::text::Printable;

/// The largest `.drv` file that is read, in bytes. The largest known are a few MiB.
const LARGEST: u64 = 256 * 1024 * 1024;

/// How many files a thread reads at a time: enough that threads seldom wait for each other, and few enough that the first ones
/// give work to all.
const BATCH: usize = 32;

/// More threads than this only wait for the disk.
const MOST_THREADS: usize = 16;

/// Output names and where they will be; nothing where that is known only after building (content-addressed outputs).
pub(super) type OutputPaths = BTreeMap<String, Option<StorePath>>;

/// Why a `.drv` file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DerivationError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a derivation.
    #[error("{path} is not a derivation: {reason}")]
    NotADerivation {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Together they are no graph.
    #[error(transparent)]
    Graph(#[from] BuildGraphError),
}

/// Reads the outputs of the derivation `path`, whose file is `file`.
pub(super) fn outputs(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
) -> Result<OutputPaths, DerivationError> {
    let derivation = read(file, path, store_dir)?;
    derivation
        .outputs()
        .iter()
        .map(|(name, output)| {
            let known = output.path_in(store_dir, derivation.name(), name);
            Ok((name.clone(), known.map_err(|error| not_a_derivation(path, store_dir, &error.to_string()))?))
        })
        .collect()
}

/// Reads what the derivation `path` says besides its outputs and inputs. Its file is `file`.
pub(super) fn contents(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
) -> Result<Contents, DerivationError> {
    let text = text(file, path, store_dir)?;
    let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
    Contents::parse(&text, name, store_dir).map_err(|error| not_a_derivation(path, store_dir, &error))
}

/// The text of the derivation `path`, whose file is `file`.
pub(super) fn text(file: &Path, path: &StorePath, store_dir: &StoreDir) -> Result<Vec<u8>, DerivationError> {
    let mut text = Vec::new();
    read_text(file, path, store_dir, &mut text)?;
    Ok(text)
}

/// Reads the whole of the derivation `path`, whose file is `file`.
fn read(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
) -> Result<nix_derivation::Derivation, DerivationError> {
    let text = text(file, path, store_dir)?;
    let not_one = |reason: &str| not_a_derivation(path, store_dir, reason);
    let name = path.name().strip_suffix(".drv").ok_or_else(|| not_one("its name does not end in .drv"))?;
    nix_derivation::Derivation::from_aterm_bytes_in(&text, name, store_dir.clone())
        .map_err(|error| not_one(&error.to_string()))
}

/// What was loaded of a build graph.
#[derive(Debug)]
pub struct LoadedGraph {
    /// The graph.
    pub graph: BuildGraph,
    /// What could not be read, by path. In the graph it stands as unread.
    pub damaged: Vec<DerivationError>,
}

/// Reads the derivations `roots` and everything that they need, from the files in `real_dir`, on all cores. Blocks.
pub(super) fn build_graph(
    roots: &[StorePath],
    real_dir: &Path,
    store_dir: &StoreDir,
) -> Result<LoadedGraph, DerivationError> {
    let loading = Loading {
        real_dir,
        store_dir,
        shared: Mutex::new(Shared {
            open: roots.to_vec(),
            seen: roots.iter().cloned().collect(),
            ..Shared::default()
        }),
        news: Condvar::new(),
    };
    let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get).min(MOST_THREADS);
    let builders = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| loading.work())).collect();
        let mut builders = vec![loading.work()];
        for other in others {
            builders.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        builders
    });
    let mut builders = builders.into_iter();
    let mut all = builders.next().unwrap_or_default();
    for other in builders {
        all.absorb(&other)?;
    }
    let mut damaged = loading.shared.into_inner().unwrap_or_else(PoisonError::into_inner).damaged;
    damaged.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (path, _) in &damaged {
        all.add_unread(path)?;
    }
    Ok(LoadedGraph { graph: all.finish()?, damaged: damaged.into_iter().map(|(_, error)| error).collect() })
}

/// The work that is shared by the threads that load a graph.
struct Loading<'a> {
    real_dir: &'a Path,
    store_dir: &'a StoreDir,
    shared: Mutex<Shared>,
    /// There may be something to read again, or nothing ever.
    news: Condvar,
}

#[derive(Default)]
struct Shared {
    /// Not yet read.
    open: Vec<StorePath>,
    /// Read, being read or to be read.
    seen: HashSet<StorePath>,
    /// How many threads are reading, and may find more.
    reading: usize,
    damaged: Vec<(StorePath, DerivationError)>,
}

impl Loading<'_> {
    /// Reads until there is nothing left, and gives what was read.
    fn work(&self) -> BuildGraphBuilder {
        let mut builder = BuildGraphBuilder::default();
        let (mut text, mut found, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        let mut shared = self.lock();
        loop {
            if shared.open.is_empty() {
                if shared.reading == 0 {
                    self.news.notify_all();
                    return builder;
                }
                shared = self.news.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let rest = shared.open.len().saturating_sub(BATCH);
            let batch = shared.open.split_off(rest);
            shared.reading += 1;
            drop(shared);
            for path in batch {
                let added =
                    read_text(&self.real_dir.join(path.to_basename()), &path, self.store_dir, &mut text)
                        .and_then(|()| {
                            let new = |input| found.push(input);
                            builder
                                .add_text(&path, &text, self.store_dir, new)
                                .map_err(|error| not_a_derivation(&path, self.store_dir, &error.to_string()))
                        });
                if let Err(error) = added {
                    damaged.push((path, error));
                }
            }
            shared = self.lock();
            for input in found.drain(..) {
                if !shared.seen.contains(&input) {
                    shared.seen.insert(input.clone());
                    shared.open.push(input);
                }
            }
            shared.damaged.append(&mut damaged);
            shared.reading -= 1;
            self.news.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the file of the derivation `path` into `text`, in place of what is there.
fn read_text(
    file: &Path,
    path: &StorePath,
    store_dir: &StoreDir,
    text: &mut Vec<u8>,
) -> Result<(), DerivationError> {
    let unreadable = |source| DerivationError::Unreadable { path: store_dir.render_path(path), source };
    let mut file = File::open(file).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length > LARGEST {
        return Err(not_a_derivation(path, store_dir, &format!("it has {length} bytes")));
    }
    text.clear();
    file.read_to_end(text).map_err(unreadable)?;
    Ok(())
}

fn not_a_derivation(path: &StorePath, store_dir: &StoreDir, reason: &str) -> DerivationError {
    DerivationError::NotADerivation {
        path: store_dir.render_path(path),
        reason: Printable(reason).to_string(),
    }
}
