//! One of the two that are compared: what was named, and the graph that it leads to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix_derivation::{StoreDir, StorePath};
use tokio::process::Command;

use super::{DiffError, Request};
use crate::event::{Event, Reporter};
use crate::graph::diff::Says;
use crate::graph::{BuildGraph, Contents, DerivationIndex, SavedGraph};
use crate::jobs::LocalNix;
use crate::nix::{Resolver, Store};
use crate::text::Printable;

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
        let (revision, attribute) = match text.split_once('#') {
            Some((revision, attribute)) => (revision, Some(attribute)),
            None => (text, None),
        };
        let may_be_revision = !request.arguments.has_source
            && !revision.starts_with(['-', '.', '/'])
            && !revision.contains(':')
            && !request.directory.join(revision).exists()
            // With an attribute it could be a flake of the registry, unless it cannot be anything else.
            && (attribute.is_none() || is_plainly_a_revision(revision));
        let commit = format!("{revision}^{{commit}}");
        let ask = ["rev-parse", "--verify", "--quiet", "--end-of-options", &commit];
        if may_be_revision && let Some(commit) = git(request, &ask).await {
            let attribute = attribute.or_else(|| other.split_once('#').map(|(_, attribute)| attribute));
            return Ok(Self::Installable(at_revision(&commit, attribute, request).await?));
        }
        Ok(Self::Installable(text.to_owned()))
    }

    /// The graph.
    pub(super) async fn load(
        self,
        request: &Request,
        local: Option<&LocalNix>,
        reporter: &Reporter,
    ) -> Result<LoadedSide, DiffError> {
        match (self, local) {
            (Self::Installable(text), Some(local)) => load_installable(&text, request, local, reporter).await,
            (Self::Installable(text), None) => {
                Err(DiffError::Git(format!("{text} needs Nix, which was not asked for")))
            }
            (Self::Saved(file), _) => {
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
    let targets = resolver.targets(&installables).await?;
    reporter.emit(Event::Step { what: format!("reading the derivations of {text}") });
    let roots: Vec<StorePath> = targets.into_iter().map(|target| target.derivation).collect();
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

/// Whether a text can be a revision, and no name of a flake.
fn is_plainly_a_revision(text: &str) -> bool {
    let is_hash = text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash || text.starts_with("HEAD") || text.contains(['~', '^', '@'])
}

/// The flake at a commit of the repository that is worked in.
async fn at_revision(commit: &str, attribute: Option<&str>, request: &Request) -> Result<String, DiffError> {
    let fail = |what: &str| DiffError::Git(format!("git does not say {what}"));
    let top = git(request, &["rev-parse", "--show-toplevel"])
        .await
        .ok_or_else(|| fail("where the repository begins"))?;
    // The directory of the flake that `.` would be: the nearest above that has one.
    let mut inside = git(request, &["rev-parse", "--show-prefix"]).await.unwrap_or_default();
    while !Path::new(&top).join(&inside).join("flake.nix").exists() {
        let Some(above) = Path::new(&inside).parent() else { break };
        inside = above.display().to_string();
    }
    let inside = inside.trim_end_matches('/');
    let directory = if inside.is_empty() { String::new() } else { format!("&dir={inside}") };
    let attribute = attribute.map(|attribute| format!("#{attribute}")).unwrap_or_default();
    Ok(format!("git+file://{top}?rev={commit}{directory}{attribute}"))
}

/// What `git` prints, where it does; nothing where there is no repository, or no such thing.
async fn git(request: &Request, words: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(words)
        .current_dir(&request.directory)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()
        .filter(|output| output.status.success())?;
    Some(Printable(String::from_utf8(output.stdout).ok()?.trim()).to_string())
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
