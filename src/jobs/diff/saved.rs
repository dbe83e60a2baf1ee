//! A saved graph as a side: of the file only the graph is kept in memory, and what a derivation says is read when it is asked for.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix_derivation::StorePath;

use super::DiffError;
use crate::event::{Event, Reporter};
use crate::graph::{Contents, Place, SavedGraph, contents_of};

/// How much is read to see what a file is.
const BEGINNING: usize = 1 << 16;

/// A file that is taken for a saved graph, at its beginning. What can be read only once has been copied.
#[derive(Debug)]
pub(super) struct SavedFile {
    pub(super) path: PathBuf,
    file: File,
}

impl SavedFile {
    /// The file, if it is one that holds a saved graph: any that begins with a brace, and any that is called so (`is_called_so`). What is
    /// no regular file, such as the pipe of `<(…)`, can be nothing else.
    ///
    /// # Errors
    ///
    /// When it is one, and cannot be read.
    pub(super) async fn open(
        path: PathBuf,
        is_called_so: bool,
        reporter: &Reporter,
    ) -> Result<Option<Self>, DiffError> {
        let reporter = reporter.clone();
        blocking(move || open(path, is_called_so, &reporter)).await
    }

    /// The graph in it, and the file for what derivations say.
    ///
    /// # Errors
    ///
    /// When it is no saved graph.
    pub(super) async fn outline(self) -> Result<(SavedGraph<Place>, Self), DiffError> {
        blocking(move || match SavedGraph::outline(&self.file) {
            Ok(graph) => Ok((graph, self)),
            Err(source) => Err(DiffError::Saved { file: self.path, source: Box::new(source) }),
        })
        .await
    }

    /// What a derivation says that stands at a place. Blocks.
    pub(super) fn contents(&self, drv: &str, place: Place) -> Result<Contents, String> {
        let mut text = vec![0; place.length];
        let read = self.file.read_exact_at(&mut text, place.start).ok();
        read.and_then(|()| contents_of(drv, &text))
            .ok_or_else(|| format!("{} was changed while it was compared", self.path.display()))
    }
}

/// What a derivation says, by where that stands.
#[derive(Debug)]
pub(super) struct SavedContents {
    pub(super) file: SavedFile,
    pub(super) places: std::collections::HashMap<StorePath, Place>,
}

/// Does what blocks on a thread of its own, so that an interruption is obeyed meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn open(path: PathBuf, is_called_so: bool, reporter: &Reporter) -> Result<Option<SavedFile>, DiffError> {
    let is_regular = match path.metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(None),
        Ok(metadata) => metadata.is_file(),
        Err(error) if error.kind() == ErrorKind::NotFound || !is_called_so => return Ok(None),
        Err(source) => return Err(DiffError::Unreadable { file: path, source }),
    };
    let unreadable = |source| DiffError::Unreadable { file: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        // What it is then, Nix may know.
        Err(_) if is_regular && !is_called_so => return Ok(None),
        Err(source) => return Err(unreadable(source)),
    };
    if !is_regular {
        reporter.emit(Event::Step { what: format!("reading {}", path.display()) });
        let file = copied(&mut file).map_err(unreadable)?;
        return Ok(Some(SavedFile { path, file }));
    }
    let mut beginning = Vec::new();
    (&file).take(BEGINNING as u64).read_to_end(&mut beginning).map_err(unreadable)?;
    let first = beginning.iter().find(|byte| !byte.is_ascii_whitespace());
    if !is_called_so && first != Some(&b'{') {
        return Ok(None);
    }
    file.rewind().map_err(unreadable)?;
    Ok(Some(SavedFile { path, file }))
}

/// A copy of what can be read only once, in a file without a name, which is gone with this process.
fn copied(file: &mut File) -> std::io::Result<File> {
    let mut copy = tempfile::tempfile()?;
    std::io::copy(file, &mut copy)?;
    copy.flush()?;
    copy.rewind()?;
    Ok(copy)
}

/// Whether a file's name says that it holds a saved graph.
pub(super) fn is_called_so(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|extension| extension == "json")
}
