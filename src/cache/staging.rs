//! Where a run prepares the objects of a cache in a directory: one directory a run, below the cache so that a rename puts
//! an object in its place, and locked for as long as the run lives.
//!
//! The kernel lets go of the lock however the run ends. So what lies in a directory whose lock can be had belongs to nobody,
//! and the next run removes it, at once and without a guess at its age.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What has lain so long where there are no locks (as on some network file systems) belongs to nobody either.
const ABANDONED: Duration = Duration::from_hours(24);

/// How often a new directory may be taken away by somebody who was cleaning up in the same moment.
const ATTEMPTS: u32 = 100;

/// The directory of this run. It is removed, with what is in it, when dropped.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Staging {
    /// Makes a directory for this run below `parent`, which is made too, and removes those of runs that were killed.
    pub(super) fn make(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        remove_abandoned(parent)?;
        for _ in 0..ATTEMPTS {
            let made = tempfile::Builder::new().prefix("run-").tempdir_in(parent)?.keep();
            // Until it is locked it looks abandoned: another run may be removing it, and may have done so.
            let lock = match File::open(&made) {
                Ok(lock) => lock,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match lock.lock() {
                Ok(()) if !is_at(&lock, &made) => {}
                // Where there are no locks nobody can tell that it is abandoned either.
                Ok(()) | Err(_) => return Ok(Self { path: made, _lock: lock }),
            }
        }
        Err(io::Error::other("its staging directory is removed again and again"))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether an open directory is still the one of this name.
fn is_at(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Removes what nobody holds. Another run may be faster.
fn remove_abandoned(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let Ok(lock) = File::open(&path) else { continue };
            match lock.try_lock() {
                Ok(()) => drop(fs::remove_dir_all(&path)),
                Err(TryLockError::Error(_)) if is_old(&entry) => drop(fs::remove_dir_all(&path)),
                Err(TryLockError::Error(_) | TryLockError::WouldBlock) => {}
            }
        } else if is_old(&entry) {
            drop(fs::remove_file(&path));
        }
    }
    Ok(())
}

fn is_old(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age > ABANDONED)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn entries(parent: &Path) -> usize {
        fs::read_dir(parent).expect("a directory").count()
    }

    #[test]
    fn what_a_dead_run_left_is_removed_and_what_a_living_one_has_is_not() {
        let parent = tempfile::tempdir().expect("a directory");
        let living = Staging::make(parent.path()).expect("a directory");
        fs::write(living.path().join("nar"), "on its way").expect("a file");
        let dead = parent.path().join("run-dead");
        fs::create_dir(&dead).expect("a directory");
        fs::write(dead.join("nar"), "half").expect("a file");
        let next = Staging::make(parent.path()).expect("another");
        assert!(!dead.exists());
        assert!(living.path().join("nar").exists() && next.path() != living.path());
        drop((living, next));
        assert_eq!(entries(parent.path()), 0);
    }

    #[test]
    fn many_runs_that_begin_together_do_not_take_each_others_directory() {
        let parent = tempfile::tempdir().expect("a directory");
        let (begin, end) = (Barrier::new(8), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        begin.wait();
                        let staging = Staging::make(parent.path()).expect("a directory");
                        end.wait();
                        fs::write(staging.path().join("nar"), "mine").expect("it is still there");
                        begin.wait();
                        drop(staging);
                        end.wait();
                    }
                });
            }
        });
        assert_eq!(entries(parent.path()), 0);
    }
}
