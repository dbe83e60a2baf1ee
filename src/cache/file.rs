//! A cache in a directory, written so that several writers and a crash at any moment do no harm.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;

use super::staging::Staging;
use super::{Answer, BinaryCache, CacheUrl, ObjectName, Pieces, WriteError};
use crate::net::{Sent, UploadBody};

/// Where objects are prepared, inside the cache so that a rename puts them in place.
const STAGING: &str = ".cache-helper";

/// How many questions a directory is asked at a time, each on a thread of its own.
const READERS: usize = 16;

/// How much of a large object is read at a time, in bytes.
const PIECE: usize = 256 * 1024;

/// A cache in a directory.
#[derive(Debug)]
pub struct FileCache {
    url: CacheUrl,
    directory: Arc<Directory>,
    readers: Semaphore,
}

/// The directory itself, shared with the threads that touch it.
#[derive(Debug)]
struct Directory {
    root: PathBuf,
    staging: OnceLock<Staging>,
}

impl FileCache {
    /// The cache in `root`, which need not exist yet.
    pub fn new(url: CacheUrl, root: PathBuf) -> Self {
        let directory = Arc::new(Directory { root, staging: OnceLock::new() });
        Self { url, directory, readers: Semaphore::new(READERS) }
    }

    /// Asks the directory something, in turn with others.
    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Directory) -> T + Send + 'static) -> T {
        // Never closed, so that this cannot fail.
        let _permit = self.readers.acquire().await.ok();
        self.blocking(question).await
    }

    /// Runs `work` where blocking is allowed: a directory may be on a network.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Directory) -> T + Send + 'static) -> T {
        let directory = Arc::clone(&self.directory);
        match tokio::task::spawn_blocking(move || work(&directory)).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Directory {
    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn read(&self, name: &ObjectName, limit: usize) -> Answer<Bytes> {
        let mut content = Vec::new();
        let read = fs::File::open(self.path(name))
            .and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut content));
        match read {
            Ok(_) if content.len() > limit => {
                Answer::Broken(format!("{name} is larger than {limit} bytes").into())
            }
            Ok(_) => Answer::Present(content.into()),
            Err(error) => no_file(&error),
        }
    }

    fn open(&self, name: &ObjectName) -> Answer<fs::File> {
        // Not at once: opening something else than a file may wait for ever.
        self.size(name).and_then(|_| match fs::File::open(self.path(name)) {
            Ok(file) => Answer::Present(file),
            Err(error) => no_file(&error),
        })
    }

    fn size(&self, name: &ObjectName) -> Answer<Option<u64>> {
        match fs::metadata(self.path(name)) {
            Ok(metadata) if metadata.is_file() => Answer::Present(Some(metadata.len())),
            Ok(_) => Answer::Broken(format!("{name} is not a file").into()),
            Err(error) => no_file(&error),
        }
    }

    /// The directory of this run, which is made when it is first needed.
    fn staging(&self) -> io::Result<&Path> {
        if self.staging.get().is_none() {
            // Of two that are made at once, one is removed again.
            let _ = self.staging.set(Staging::make(&self.root.join(STAGING))?);
        }
        match self.staging.get() {
            Some(staging) => Ok(staging.path()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// A file that is to become an object.
    fn unfinished(&self) -> io::Result<NamedTempFile> {
        let staging = self.staging()?;
        // Somebody may have tidied up.
        fs::create_dir_all(staging)?;
        tempfile::Builder::new().permissions(readable()).tempfile_in(staging)
    }

    fn write(&self, name: &ObjectName, body: UploadBody) -> Result<(), WriteError> {
        let target = self.path(name);
        let failed = |source| write_error(&target, source);
        let parent = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(failed)?;
        match body {
            UploadBody::Bytes(bytes) => {
                let mut copy = self.unfinished().map_err(failed)?;
                // To the file itself: an error of the wrapper would name the temporary file too.
                copy.as_file_mut().write_all(&bytes).map_err(failed)?;
                finish(copy, &target).map_err(failed)?;
            }
            UploadBody::File { file, path: Some(prepared), .. } => {
                file.sync_data().map_err(failed)?;
                fs::rename(&prepared, &target).map_err(failed)?;
            }
            UploadBody::File { file, path: None, length } => {
                let mut copy = self.unfinished().map_err(failed)?;
                io::copy(&mut Prefix { file: &file, place: 0, length }, copy.as_file_mut())
                    .map_err(failed)?;
                finish(copy, &target).map_err(failed)?;
            }
        }
        // The rename itself must not be lost while a later one, of a narinfo that counts on it, survives.
        fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

impl BinaryCache for FileCache {
    fn url(&self) -> &CacheUrl {
        &self.url
    }

    fn get<'a>(&'a self, name: &'a ObjectName, limit: usize) -> BoxFuture<'a, Answer<Bytes>> {
        let name = name.clone();
        self.ask(move |directory| directory.read(&name, limit)).boxed()
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Pieces<'a>>> {
        let opened = {
            let name = name.clone();
            self.ask(move |directory| directory.open(&name))
        };
        async move {
            opened.await.map(|file| {
                futures_util::stream::unfold(Some(file), |file| async {
                    let file = file?;
                    match self.ask(move |_| next_piece(file)).await {
                        Ok((piece, _)) if piece.is_empty() => None,
                        Ok((piece, file)) => Some((Ok(piece), Some(file))),
                        Err(error) => Some((Err(error.to_string().into()), None)),
                    }
                })
                .boxed()
            })
        }
        .boxed()
    }

    fn size<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Option<u64>>> {
        let name = name.clone();
        self.ask(move |directory| directory.size(&name)).boxed()
    }

    fn put<'a>(
        &'a self,
        name: &'a ObjectName,
        body: UploadBody,
        sent: Sent<'a>,
    ) -> BoxFuture<'a, Result<(), WriteError>> {
        let name = name.clone();
        let length = body.length();
        async move {
            self.blocking(move |directory| directory.write(&name, body)).await?;
            sent(length);
            Ok(())
        }
        .boxed()
    }

    fn staging_directory(&self) -> Result<Option<&Path>, WriteError> {
        let failed = |source| write_error(&self.directory.root.join(STAGING), source);
        self.directory.staging().map(Some).map_err(failed)
    }
}

/// The next piece of a file; an empty one at its end.
fn next_piece(mut file: fs::File) -> io::Result<(Bytes, fs::File)> {
    let mut piece = Vec::with_capacity(PIECE);
    io::Read::by_ref(&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
    Ok((piece.into(), file))
}

/// Puts a file in its place, whole and lasting.
fn finish(file: NamedTempFile, target: &Path) -> io::Result<()> {
    file.as_file().sync_data()?;
    file.persist(target).map(|_| ()).map_err(|error| error.error)
}

/// The first `length` bytes of a file, read without moving its cursor.
struct Prefix<'a> {
    file: &'a fs::File,
    place: u64,
    length: u64,
}

impl io::Read for Prefix<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length - self.place).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}

/// Caches are read by other users: a web server, a daemon.
pub(crate) fn readable() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o644)
}

fn no_file<T>(error: &io::Error) -> Answer<T> {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Answer::Absent,
        ErrorKind::PermissionDenied => Answer::Denied(error.to_string().into()),
        ErrorKind::IsADirectory => {
            Answer::Broken("a directory stands where a file should be".to_owned().into())
        }
        _ => Answer::Unreachable(error.to_string().into()),
    }
}

fn write_error(path: &Path, source: io::Error) -> WriteError {
    WriteError::File { path: path.display().to_string(), source }
}
