//! One of the two that are compared: what was named, and the graph that it leads to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix_derivation::{StoreDir, StorePath};
use tokio::sync::OnceCell;

use super::{DiffError, Request, revision};
use crate::event::{Event, Reporter};
use crate::graph::diff::Says;
use crate::graph::{BuildGraph, Contents, DerivationIndex, SavedGraph};
use crate::jobs::LocalNix;
use crate::nix::{Resolver, Store};

/// What somebody named, as far as it is understood without Nix.
#[derive(Debug)]
pub(super) enum Named {
    /// A file that `graph --format json` has written.
    Saved(PathBuf),
    /// Something that Nix resolves.
    Installable(String),
}

impl Named {
    /// Understands `text`. A plain revision of the repository stands for the flake there, with the attribute of `other`.
    pub(super) async fn understand(text: &str, other: &str, request: &Request) -> Result<Self, DiffError> {
        let file = request.directory.join(text);
        let is_json = Path::new(text).extension().is_some_and(|extension| extension == "json");
        if is_json && file.is_file() {
            return Ok(Self::Saved(file));
        }
        let flake = revision::flake_at(text, other, request).await?;
        Ok(Self::Installable(flake.unwrap_or_else(|| text.to_owned())))
    }

    /// The graph. Nix is opened for the first that needs it: two saved graphs are compared without.
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
            Self::Saved(file) => {
                let text = tokio::fs::read(&file)
                    .await
                    .map_err(|source| DiffError::Unreadable { file: file.clone(), source })?;
                let saved = SavedGraph::parse(&text).map_err(|source| DiffError::Saved { file, source })?;
                // Each is there, or the graph would not have been taken.
                let roots = saved.roots.iter().filter_map(|root| saved.graph.find(root)).collect();
                Ok(LoadedSide {
                    graph: saved.graph,
                    roots,
                    store_dir: saved.store_dir,
                    source: Source::Saved(saved.contents),
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
    let loaded = local.store.load_graph(&roots).await?;
    for error in &loaded.damaged {
        reporter.warn(error.to_string());
    }
    Ok(LoadedSide {
        roots: roots.iter().filter_map(|root| loaded.graph.find(root)).collect(),
        graph: loaded.graph,
        store_dir: local.store.dir().clone(),
        source: Source::Store(local.store.clone()),
    })
}

/// One of the two, loaded.
#[derive(Debug)]
pub(super) struct LoadedSide {
    pub(super) graph: BuildGraph,
    pub(super) roots: Vec<DerivationIndex>,
    pub(super) store_dir: StoreDir,
    source: Source,
}

/// Where stands what derivations say.
#[derive(Debug)]
enum Source {
    Store(Store),
    Saved(HashMap<StorePath, Contents>),
}

impl LoadedSide {
    /// What a derivation says. Blocks.
    pub(super) fn says(&self, index: DerivationIndex) -> Result<Said<'_>, String> {
        let path = self.graph.derivation(index).path();
        match &self.source {
            Source::Store(store) => {
                store.derivation_files().text(&path).map(Said::Text).map_err(|error| error.to_string())
            }
            Source::Saved(all) => all.get(&path).map(Said::Contents).ok_or_else(|| {
                format!("{} could not be read when the graph was saved", self.store_dir.render_path(&path))
            }),
        }
    }
}

/// What a derivation says, read or kept.
pub(super) enum Said<'a> {
    Text(Vec<u8>),
    Contents(&'a Contents),
}

impl Said<'_> {
    pub(super) fn borrowed(&self) -> Says<'_> {
        match self {
            Self::Text(text) => Says::Text(text),
            Self::Contents(contents) => Says::Contents(contents),
        }
    }
}
