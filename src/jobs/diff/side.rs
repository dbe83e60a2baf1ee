//! One of the two that are compared: what was named, and the graph that it leads to.

use std::path::PathBuf;

use nix_derivation::{StoreDir, StorePath};
use tokio::sync::OnceCell;

use super::saved::{SavedContents, SavedFile, is_called_so};
use super::{DiffError, Request, revision};
use crate::event::{Event, Reporter};
use crate::graph::diff::Says;
use crate::graph::{BuildGraph, Contents, DerivationIndex};
use crate::jobs::graph::Damaged;
use crate::jobs::{LocalNix, derivation_file};
use crate::nix::{DerivationFiles, LoadedGraph, Resolver, first_revision};

/// What somebody named, as far as it is understood without Nix.
#[derive(Debug)]
pub(super) enum Named {
    /// A file that `graph --format json` has written.
    Saved(SavedFile),
    /// A `.drv` file, wherever it is.
    File {
        /// The file and those beside it.
        files: DerivationFiles,
        /// The derivation.
        root: StorePath,
        /// Where they are.
        directory: PathBuf,
    },
    /// Something that Nix resolves.
    Installable(String),
}

impl Named {
    /// Understands `text`. A plain revision of the repository stands for the flake there, with the attribute of `other`.
    pub(super) async fn understand(
        text: &str,
        other: &str,
        request: &Request,
        reporter: &Reporter,
    ) -> Result<Self, DiffError> {
        let path = request.directory.join(text);
        if let Some((files, root)) = derivation_file(&path, &request.arguments) {
            let directory = path.parent().map(PathBuf::from).unwrap_or_default();
            return Ok(Self::File { files, root, directory });
        }
        // With --file or --expr any word is an attribute, even where a file is called like it.
        let is_json = is_called_so(text);
        let is_file = !request.arguments.has_source || is_json || text.contains('/');
        if is_file && let Some(file) = SavedFile::open(path.clone(), is_json, reporter).await? {
            return Ok(Self::Saved(file));
        }
        match revision::flake_at(text, other, request).await? {
            Some(flake) => Ok(Self::Installable(flake)),
            None if is_json
                && !request.arguments.has_source
                && !text.contains(['#', ':'])
                && !path.is_dir() =>
            {
                Err(DiffError::NoFile { file: path })
            }
            None => Ok(Self::Installable(text.to_owned())),
        }
    }

    /// Whether Nix has to evaluate it.
    pub(super) fn is_evaluated(&self) -> bool {
        matches!(self, Self::Installable(_))
    }

    /// The graph. Nix is opened for the first that needs it: files are compared without.
    pub(super) async fn load(
        self,
        request: &Request,
        local: &OnceCell<LocalNix>,
        reporter: &Reporter,
    ) -> Result<LoadedSide, DiffError> {
        match self {
            Self::Installable(text) => {
                let open = || LocalNix::open(&request.arguments, &request.store);
                load_installable(&text, request, local.get_or_try_init(open).await?, reporter).await
            }
            Self::File { files, root, directory } => {
                reporter.emit(Event::Step { what: "reading derivations".to_owned() });
                let loaded = files.load(std::slice::from_ref(&root)).await?;
                Ok(LoadedSide::of_files(loaded, &[root], files, directory))
            }
            Self::Saved(file) => {
                reporter.emit(Event::Step { what: format!("reading {}", file.path.display()) });
                let (saved, file) = file.outline().await?;
                Ok(LoadedSide {
                    // Each is there, or the graph would not have been taken.
                    roots: saved.roots.iter().filter_map(|root| saved.graph.find(root)).collect(),
                    graph: saved.graph,
                    store_dir: saved.store_dir,
                    revision: saved.revision,
                    damaged: Vec::new(),
                    source: Source::Saved(SavedContents { file, places: saved.contents }),
                })
            }
        }
    }
}

async fn load_installable(
    text: &str,
    request: &Request,
    local: &LocalNix,
    reporter: &Reporter,
) -> Result<LoadedSide, DiffError> {
    let named = [text.to_owned()];
    let installables = local.installables(&named, &request.directory, &request.arguments, reporter)?;
    let resolver = Resolver { store: &local.store, arguments: &request.arguments, build: false };
    let roots = resolver.build_roots(&installables).await?;
    reporter.emit(Event::Step { what: format!("reading the derivations of {text}") });
    let files = local.store.derivation_files();
    let revision = first_revision(&local.store, &request.arguments, &installables);
    let (loaded, revision) = tokio::join!(files.load(&roots), revision);
    let loaded = loaded?;
    let directory = local.store.real_dir().to_owned();
    Ok(LoadedSide { revision, ..LoadedSide::of_files(loaded, &roots, files, directory) })
}

/// One of the two, loaded.
#[derive(Debug)]
pub(super) struct LoadedSide {
    pub(super) graph: BuildGraph,
    pub(super) roots: Vec<DerivationIndex>,
    pub(super) store_dir: StoreDir,
    /// The revision of the flake that was named, where there is one.
    pub(super) revision: Option<String>,
    /// What could not be read.
    pub(super) damaged: Vec<Damaged>,
    source: Source,
}

/// Where stands what derivations say.
#[derive(Debug)]
enum Source {
    /// In files, which are in this directory, with the sources beside them.
    Files(DerivationFiles, PathBuf),
    Saved(SavedContents),
}

impl LoadedSide {
    fn of_files(
        loaded: LoadedGraph,
        roots: &[StorePath],
        files: DerivationFiles,
        directory: PathBuf,
    ) -> Self {
        Self {
            roots: roots.iter().filter_map(|root| loaded.graph.find(root)).collect(),
            graph: loaded.graph,
            store_dir: files.dir().clone(),
            revision: None,
            damaged: loaded.damaged.iter().map(Damaged::from).collect(),
            source: Source::Files(files, directory),
        }
    }

    /// Where a path's files are; not known of a saved graph.
    pub(super) fn real_path(&self, path: &StorePath) -> Option<PathBuf> {
        match &self.source {
            Source::Files(_, directory) => Some(directory.join(path.to_basename())),
            Source::Saved(_) => None,
        }
    }

    /// What a derivation says. Blocks.
    pub(super) fn says(&self, index: DerivationIndex) -> Result<Said, String> {
        let path = self.graph.derivation(index).path();
        match &self.source {
            Source::Files(files, _) => files.text(&path).map(Said::Text).map_err(|error| error.to_string()),
            Source::Saved(saved) => {
                let drv = self.store_dir.render_path(&path);
                match saved.places.get(&path) {
                    Some(place) => saved.file.contents(&drv, *place).map(Said::Contents),
                    None => Err(format!("{drv} could not be read when the graph was saved")),
                }
            }
        }
    }
}

/// What a derivation says.
pub(super) enum Said {
    Text(Vec<u8>),
    Contents(Contents),
}

impl Said {
    pub(super) fn borrowed(&self) -> Says<'_> {
        match self {
            Self::Text(text) => Says::Text(text),
            Self::Contents(contents) => Says::Contents(contents),
        }
    }
}
