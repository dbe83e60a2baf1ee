//! The `.drv` files of a store: the build graph below some of them, and what each says besides.
//!
//! They say all that a graph is made of, so no Nix is needed to read them. Of the many in a graph only what the graph is made
//! of is read, by its own scanner.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use nix_derivation::{StoreDir, StorePath};
use rustix::fs::{CWD, Mode, OFlags};

use super::derivation::{self, DerivationError, not_a_derivation, read_text};
use crate::graph::{BuildGraph, BuildGraphBuilder, Contents, store_dir_of};

/// How many files a thread reads at a time: enough that threads seldom wait for each other, and few enough that the first ones
/// give work to all.
const BATCH: usize = 32;

/// More threads than this only wait for the disk.
const MOST_THREADS: usize = 16;

/// What was loaded of a build graph.
#[derive(Debug)]
pub struct LoadedGraph {
    /// The graph.
    pub graph: BuildGraph,
    /// What could not be read, by path. In the graph it stands as unread.
    pub damaged: Vec<DerivationError>,
    /// How many bytes the files have that could be read.
    pub bytes: u64,
}

/// The directory of a store, as far as its `.drv` files are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivationFiles {
    /// The directory that paths are named by.
    dir: StoreDir,
    /// Where the files really are.
    real_dir: PathBuf,
}

impl DerivationFiles {
    /// The store whose paths are named by `dir`, and whose files are in `real_dir`.
    pub fn new(dir: StoreDir, real_dir: PathBuf) -> Self {
        Self { dir, real_dir }
    }

    /// The store that a `.drv` file and all others beside it are of, wherever they are: what its paths are named by is what stands in
    /// the file. One that cannot be used, or names no path, is taken to be in its right place.
    ///
    /// Nothing where the file is called otherwise than a derivation, or is not there.
    pub fn around(file: &Path) -> Option<(Self, StorePath)> {
        let path = StorePath::from_basename(file.file_name()?.to_str()?.as_bytes()).ok()?;
        let is_file = file.symlink_metadata().is_ok_and(|file| file.is_file());
        if !is_file || !path.is_derivation() {
            return None;
        }
        let real_dir = file.parent()?;
        let dir = StoreDir::new(real_dir.to_str()?).ok()?;
        let mut text = Vec::new();
        let named = read_text(CWD, file, &path, &dir, &mut text).ok().and_then(|()| store_dir_of(&text));
        Some((Self::new(named.unwrap_or(dir), real_dir.to_owned()), path))
    }

    /// The directory that paths are named by.
    pub fn dir(&self) -> &StoreDir {
        &self.dir
    }

    /// The derivations `roots` and everything that they need. What cannot be read is noted, and stands in the graph as unread.
    ///
    /// # Errors
    ///
    /// When derivations are no graph: they need themselves, or outputs that others do not have.
    pub async fn load(&self, roots: &[StorePath]) -> Result<LoadedGraph, DerivationError> {
        let (files, roots) = (self.clone(), roots.to_vec());
        match tokio::task::spawn_blocking(move || load(&files, &roots)).await {
            Ok(loaded) => loaded,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// What a derivation says besides its outputs and inputs, read from its file. Blocks.
    ///
    /// # Errors
    ///
    /// When the file is missing or is not what it should be.
    pub fn contents(&self, derivation: &StorePath) -> Result<Contents, DerivationError> {
        derivation::contents(&self.real_dir.join(derivation.to_basename()), derivation, &self.dir)
    }

    /// The text of a derivation's file. Blocks.
    ///
    /// # Errors
    ///
    /// When the file is missing or cannot be read.
    pub fn text(&self, derivation: &StorePath) -> Result<Vec<u8>, DerivationError> {
        derivation::text(&self.real_dir.join(derivation.to_basename()), derivation, &self.dir)
    }
}

/// Reads the derivations `roots` and everything that they need, on all cores.
fn load(files: &DerivationFiles, roots: &[StorePath]) -> Result<LoadedGraph, DerivationError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&files.real_dir, flags, Mode::empty()).map_err(|source| {
        DerivationError::Unreadable { path: files.real_dir.display().to_string(), source: source.into() }
    })?;
    let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get).min(MOST_THREADS);
    let loading = Loading::new(threads, roots);
    let read_all = || {
        let (mut builder, mut text) = (BuildGraphBuilder::default(), Vec::new());
        loading.work(|path, found| {
            let file = path.to_basename();
            read_text(&directory, Path::new(&file), path, &files.dir, &mut text)?;
            builder
                .add_text(path, &text, &files.dir, |input| found.push(input))
                .map_err(|error| not_a_derivation(path, &files.dir, &error.to_string()))?;
            Ok(text.len() as u64)
        });
        builder
    };
    let builders = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(read_all)).collect();
        let mut builders = vec![read_all()];
        for other in others {
            builders.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        builders
    });
    let mut builders = builders.into_iter();
    let mut all = builders.next().unwrap_or_default();
    for other in builders {
        all.absorb(&other);
    }
    let Shared { mut damaged, bytes, .. } =
        loading.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    damaged.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (path, _) in &damaged {
        all.add_unread(path);
    }
    let damaged = damaged.into_iter().map(|(_, error)| error).collect();
    Ok(LoadedGraph { graph: all.finish()?, damaged, bytes })
}

/// The work that is shared by the threads that load a graph.
struct Loading {
    threads: usize,
    shared: Mutex<Shared>,
    /// There may be something to read again, or nothing ever.
    news: Condvar,
}

#[derive(Default)]
struct Shared {
    /// Not yet read.
    open: Vec<StorePath>,
    /// Read, being read or to be read.
    seen: HashSet<StorePath, RandomState>,
    /// How many threads are reading, and may find more.
    reading: usize,
    damaged: Vec<(StorePath, DerivationError)>,
    /// How many bytes were read.
    bytes: u64,
}

impl Shared {
    /// Notes what has to be read, unless that is known already.
    fn add(&mut self, paths: impl Iterator<Item = StorePath>) {
        for path in paths {
            if !self.seen.contains(&path) {
                self.seen.insert(path.clone());
                self.open.push(path);
            }
        }
    }
}

/// What a thread reads, and what comes of it. While there is one, others wait for what it finds; so it is given back by being
/// dropped, also by a panic.
struct Turn<'a> {
    loading: &'a Loading,
    paths: Vec<StorePath>,
    found: Vec<StorePath>,
    damaged: Vec<(StorePath, DerivationError)>,
    bytes: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut shared = self.loading.lock();
        shared.add(self.found.drain(..));
        shared.damaged.append(&mut self.damaged);
        shared.bytes += self.bytes;
        shared.reading -= 1;
        self.loading.news.notify_all();
    }
}

impl Loading {
    fn new(threads: usize, roots: &[StorePath]) -> Self {
        let mut shared = Shared::default();
        shared.add(roots.iter().cloned());
        Self { threads, shared: Mutex::new(shared), news: Condvar::new() }
    }

    /// Has everything read until there is nothing left. What is read says how many bytes it has, and adds what else has to be read.
    fn work(&self, mut read: impl FnMut(&StorePath, &mut Vec<StorePath>) -> Result<u64, DerivationError>) {
        while let Some(mut turn) = self.turn() {
            for path in std::mem::take(&mut turn.paths) {
                match read(&path, &mut turn.found) {
                    Ok(bytes) => turn.bytes += bytes,
                    Err(error) => turn.damaged.push((path, error)),
                }
            }
        }
    }

    /// Waits for something to be read; nothing when there never will be.
    fn turn(&self) -> Option<Turn<'_>> {
        let mut shared = self.lock();
        while shared.open.is_empty() {
            if shared.reading == 0 {
                return None;
            }
            shared = self.news.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        // While there is little, no thread takes more than its share.
        let share = shared.open.len().div_ceil(self.threads).min(BATCH);
        let rest = shared.open.len() - share;
        let paths = shared.open.split_off(rest);
        shared.reading += 1;
        Some(Turn { loading: self, paths, found: Vec::new(), damaged: Vec::new(), bytes: 0 })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::graph::tests::store_path;

    #[test]
    fn a_thread_that_panics_leaves_none_waiting() {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let loading = Loading::new(3, &[store_path(0)]);
            let read = || {
                loading.work(|path, found| {
                    // What the first finds is read by all; one of it is more than a thread can bear.
                    found.extend((1..100).map(store_path));
                    assert_ne!(*path, store_path(50), "a bug");
                    Ok(1)
                });
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                std::thread::scope(|scope| {
                    let others: Vec<_> = (1..3).map(|_| scope.spawn(read)).collect();
                    read();
                    for other in others {
                        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    }
                });
            }));
            let shared = loading.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
            sender.send((outcome.is_err(), shared.reading, shared.open.len())).expect("somebody waits");
        });
        let ended = receiver.recv_timeout(Duration::from_mins(1)).expect("no thread waits for ever");
        assert_eq!(ended, (true, 0, 0));
    }
}
