//! Where a compressed NAR waits until it is sent: in memory up to a limit, in a file beyond it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempPath;

use super::pack::PackSettings;

/// What was kept.
#[derive(Debug)]
pub(super) enum Content {
    /// In memory.
    Memory(Bytes),
    /// Removed when dropped, unless somebody has moved it into a cache.
    Named(Arc<fs::File>, TempPath),
    /// Gone when closed.
    Unnamed(Arc<fs::File>),
}

/// A failed write to the spool, told apart from other I/O errors by its type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SpoolFailure(#[source] pub(super) io::Error);

/// Keeps what is written: in memory up to a limit, in a file beyond it.
#[derive(Debug)]
pub(super) struct Spool {
    memory: Vec<u8>,
    file: Option<(fs::File, Option<TempPath>)>,
    limit: usize,
    directory: PathBuf,
    named: bool,
}

impl Spool {
    pub(super) fn new(settings: &PackSettings) -> Self {
        Self {
            memory: Vec::new(),
            file: None,
            limit: settings.in_memory,
            directory: settings.staging.clone(),
            named: settings.named,
        }
    }

    fn keep(&mut self, buffer: &[u8]) -> io::Result<()> {
        if let Some((file, _)) = &mut self.file {
            return file.write_all(buffer);
        }
        if self.memory.len() + buffer.len() <= self.limit {
            self.memory.extend_from_slice(buffer);
            return Ok(());
        }
        let (mut file, path) = if self.named {
            // It is going to be renamed into a cache, so it gets the mode of a cache's files at once.
            let mode = fs::Permissions::from_mode(0o644);
            let named =
                tempfile::Builder::new().prefix("nar-").permissions(mode).tempfile_in(&self.directory)?;
            let (file, path) = named.into_parts();
            (file, Some(path))
        } else {
            (tempfile::tempfile_in(&self.directory)?, None)
        };
        file.write_all(&std::mem::take(&mut self.memory))?;
        file.write_all(buffer)?;
        self.file = Some((file, path));
        Ok(())
    }

    pub(super) fn into_content(self) -> Content {
        match self.file {
            Some((file, Some(path))) => Content::Named(Arc::new(file), path),
            Some((file, None)) => Content::Unnamed(Arc::new(file)),
            None => Content::Memory(self.memory.into()),
        }
    }
}

impl Write for Spool {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.keep(buffer) {
            Ok(()) => Ok(buffer.len()),
            Err(error) => Err(io::Error::other(SpoolFailure(error))),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
