//! A cache in a directory, written so that several writers and a crash at any moment do no harm.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Answer, BinaryCache, CacheUrl, ObjectName, WriteError};
use crate::net::{Sent, UploadBody};

/// Where objects are prepared, inside the cache so that a rename puts them in place.
const STAGING: &str = ".cache-helper";

/// What lies in the staging directory for so long belongs to nobody any more.
const ABANDONED: Duration = Duration::from_hours(24);

/// A cache in a directory.
#[derive(Debug)]
pub struct FileCache {
    url: CacheUrl,
    directory: Arc<Directory>,
}

/// The directory itself, shared with the threads that touch it.
#[derive(Debug)]
struct Directory {
    root: PathBuf,
    staging: PathBuf,
}

impl FileCache {
    /// The cache in `root`, which need not exist yet.
    pub fn new(url: CacheUrl, root: PathBuf) -> Self {
        let staging = root.join(STAGING);
        Self { url, directory: Arc::new(Directory { root, staging }) }
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
            Ok(_) if content.len() > limit => Answer::Broken(format!("{name} is larger than {limit} bytes")),
            Ok(_) => Answer::Present(content.into()),
            Err(error) => no_file(&error),
        }
    }

    fn size(&self, name: &ObjectName) -> Answer<Option<u64>> {
        match fs::metadata(self.path(name)) {
            Ok(metadata) if metadata.is_file() => Answer::Present(Some(metadata.len())),
            Ok(_) => Answer::Broken(format!("{name} is not a file")),
            Err(error) => no_file(&error),
        }
    }

    /// Makes the staging directory, and removes what killed runs left there.
    fn prepare(&self) -> Result<(), WriteError> {
        let failed = |source| write_error(&self.staging, source);
        fs::create_dir_all(&self.staging).map_err(failed)?;
        for entry in fs::read_dir(&self.staging).map_err(failed)?.flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if age.is_some_and(|age| age > ABANDONED) {
                // Another writer may have been faster.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn write(&self, name: &ObjectName, body: UploadBody) -> Result<(), WriteError> {
        let target = self.path(name);
        let failed = |source| write_error(&target, source);
        let parent = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(failed)?;
        match body {
            UploadBody::Bytes(bytes) => {
                fs::create_dir_all(&self.staging).map_err(failed)?;
                let mut file = tempfile::Builder::new()
                    .permissions(readable())
                    .tempfile_in(&self.staging)
                    .map_err(failed)?;
                file.write_all(&bytes).map_err(failed)?;
                file.as_file().sync_data().map_err(failed)?;
                file.persist(&target).map_err(|error| failed(error.error))?;
            }
            UploadBody::File { path, .. } => {
                let file = fs::File::open(&path).map_err(WriteError::Source)?;
                file.sync_data().map_err(failed)?;
                match fs::rename(&path, &target) {
                    Ok(()) => {}
                    // Prepared elsewhere: copy it in first.
                    Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                        let content = fs::read(&path).map_err(WriteError::Source)?;
                        return self.write(name, UploadBody::Bytes(content.into()));
                    }
                    Err(error) => return Err(failed(error)),
                }
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
        self.blocking(move |directory| directory.read(&name, limit)).boxed()
    }

    fn size<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Option<u64>>> {
        let name = name.clone();
        self.blocking(move |directory| directory.size(&name)).boxed()
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
        self.directory.prepare()?;
        Ok(Some(&self.directory.staging))
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
        ErrorKind::PermissionDenied => Answer::Denied(error.to_string()),
        ErrorKind::IsADirectory => Answer::Broken("a directory stands where a file should be".to_owned()),
        _ => Answer::Unreachable(error.to_string()),
    }
}

fn write_error(path: &Path, source: io::Error) -> WriteError {
    WriteError::File { path: path.display().to_string(), source }
}
