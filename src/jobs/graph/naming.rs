//! From what a person calls a derivation of a graph to its place in there.

use nix_derivation::StorePath;

use super::super::local_nix::LocalNix;
use super::outcome::GraphError;
use super::{Request, shown};
use crate::event::Reporter;
use crate::graph::{BuildGraph, DerivationIndex, without_version};
use crate::nix::{DerivationFiles, Installable, Resolver};

/// How many names are told that might have been meant.
const NEAR: usize = 5;

/// What derivations of a graph can be called by.
pub(super) struct Names<'a> {
    pub(super) graph: &'a BuildGraph,
    pub(super) files: &'a DerivationFiles,
    pub(super) roots: &'a [DerivationIndex],
    /// The local Nix, once it was asked.
    pub(super) local: Option<LocalNix>,
    pub(super) request: &'a Request,
    pub(super) reporter: &'a Reporter,
}

/// What somebody meant.
#[derive(Debug)]
pub(in super::super) enum Found {
    /// A derivation.
    Derivation(DerivationIndex),
    /// A source, and the derivations that need it.
    Source(StorePath, Vec<DerivationIndex>),
}

impl Names<'_> {
    /// The one derivation or source that is called so. A source by its path, what is below that, or its name.
    pub(super) async fn find_any(&mut self, text: &str) -> Result<Found, GraphError> {
        match self.find(text).await {
            Err(GraphError::Source { path, needed_by }) => {
                let Some(source) = self.store_path(&path) else {
                    return Err(GraphError::Source { path, needed_by });
                };
                let needing = self.graph.needing_source(&source);
                Ok(Found::Source(source, needing))
            }
            found => found.map(Found::Derivation),
        }
    }

    /// The error that a source is, where only a derivation will do; nothing where it is none.
    fn source(&self, path: &StorePath) -> Option<GraphError> {
        let needing = self.graph.needing_source(path);
        let name = |index: &DerivationIndex| self.graph.derivation(*index).name().to_owned();
        let needed_by: Vec<String> = needing.iter().map(name).collect();
        let is_source = !needed_by.is_empty();
        is_source.then(|| GraphError::Source { path: self.files.dir().render_path(path), needed_by })
    }

    /// The sources of that name.
    fn sources_called(&self, name: &str) -> Vec<StorePath> {
        let sources = self.graph.indices().flat_map(|index| self.graph.derivation(index).sources());
        let mut all: Vec<StorePath> = sources.filter(|source| source.name() == name).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The one derivation that is called so: by its `.drv` path or one of its outputs' paths, by either's base name, by its name, by
    /// its name without the version, or by an installable.
    pub(super) async fn find(&mut self, text: &str) -> Result<DerivationIndex, GraphError> {
        if let Some(path) = self.store_path(text) {
            return self.path(&path).await;
        }
        let name = text.strip_suffix(".drv").unwrap_or(text);
        let called = |fits: &dyn Fn(&str) -> bool| -> Vec<DerivationIndex> {
            self.graph.indices().filter(|index| fits(self.graph.derivation(*index).name())).collect()
        };
        let mut found = called(&|known| known == name || known == text);
        if found.is_empty() {
            found = called(&|known| without_version(known) == name);
            // Beside a package there is the download of its source, which is called nearly the same.
            let is_built = |index: &DerivationIndex| self.graph.unit_weight(*index) > 0.0;
            if found.iter().any(is_built) {
                found.retain(is_built);
            }
            // And what the whole graph is about is meant before all others.
            let is_root = |index: &DerivationIndex| self.roots.contains(index);
            if found.iter().filter(|index| is_root(index)).count() == 1 {
                found.retain(is_root);
            }
        }
        let ambiguous = |candidates| Err(GraphError::Ambiguous { text: text.to_owned(), candidates });
        match found.as_slice() {
            [one] => return Ok(*one),
            [] => {}
            several => {
                let candidates = several.iter().map(|index| shown(self.graph, *index, self.files.dir()));
                return ambiguous(candidates.collect());
            }
        }
        match self.sources_called(text).as_slice() {
            [] if self.is_installable(text) => self.installable(text).await,
            [one] if let Some(source) = self.source(one) => Err(source),
            [] | [_] => Err(GraphError::Unknown { text: text.to_owned(), near: self.near(name) }),
            several => ambiguous(several.iter().map(|path| self.files.dir().render_path(path)).collect()),
        }
    }

    /// The path that a text is, in full or as a base name, whatever is named below it or of it.
    fn store_path(&self, text: &str) -> Option<StorePath> {
        let below = text.strip_prefix(self.files.dir().as_str()).and_then(|rest| rest.strip_prefix('/'));
        let base_name = below.unwrap_or(text).split(['/', '^']).next()?;
        StorePath::from_basename(base_name.as_bytes()).ok()
    }

    /// The derivation that is a path, or makes it.
    async fn path(&mut self, path: &StorePath) -> Result<DerivationIndex, GraphError> {
        let found = self.graph.find(path).or_else(|| self.graph.maker(path).map(|(maker, _)| maker));
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some(source) = self.source(path) {
            return Err(source);
        }
        // Of what is known only after building, the store may know what made it.
        let maker = match self.local().await {
            Ok(local) => local.store.maker(path).await.ok().flatten(),
            Err(_) => None,
        };
        let found = maker.and_then(|maker| self.graph.find(&maker));
        found.ok_or_else(|| {
            let name = path.name().trim_end_matches(".drv");
            GraphError::NotThere { path: self.files.dir().render_path(path), near: self.near(name) }
        })
    }

    /// The local Nix, which is found when somebody first asks for it.
    async fn local(&mut self) -> Result<&LocalNix, GraphError> {
        let local = match self.local.take() {
            Some(local) => local,
            None => LocalNix::open(&self.request.arguments, &self.request.store).await?,
        };
        Ok(self.local.insert(local))
    }

    /// Whether it is worth asking Nix: with `--file` or `--expr` any word may be an attribute, and otherwise it takes a `.#name`, a
    /// `flake:name`, a path, or a link such as `result`.
    fn is_installable(&self, text: &str) -> bool {
        self.request.arguments.has_source
            || text.contains(['#', ':', '/'])
            || self.request.directory.join(text).is_symlink()
    }

    async fn installable(&mut self, text: &str) -> Result<DerivationIndex, GraphError> {
        let request = self.request;
        let reporter = self.reporter;
        let local = self.local().await?;
        let named = [text.to_owned()];
        let installables = local.installables(&named, &request.directory, &request.arguments, reporter)?;
        let paths: Vec<StorePath> = match installables.as_slice() {
            [Installable::Path(path) | Installable::Derivation(path, _)] => vec![path.clone()],
            others => {
                let resolver = Resolver { store: &local.store, arguments: &request.arguments, build: false };
                resolver.targets(others).await?.into_iter().map(|target| target.derivation).collect()
            }
        };
        match paths.as_slice() {
            [path] => self.path(path).await,
            several => {
                let candidates = several.iter().map(|path| self.files.dir().render_path(path)).collect();
                Err(GraphError::Ambiguous { text: text.to_owned(), candidates })
            }
        }
    }

    /// Derivations whose name has something to do with one.
    fn near(&self, name: &str) -> Vec<String> {
        let name = without_version(name).to_lowercase();
        let mut near: Vec<String> = Vec::new();
        for index in self.graph.indices().rev() {
            let known = self.graph.derivation(index).name();
            let is_near = near.len() < NEAR && !name.is_empty() && known.to_lowercase().contains(&name);
            // Many have the name of another.
            if is_near && !near.iter().any(|other| other == known) {
                near.push(known.to_owned());
            }
        }
        near
    }
}
