//! The local store: where it is, what is valid, and what a closure consists of.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix_derivation::{StoreDir, StorePath};

use super::database::{Database, DatabaseError};
use super::derivation::DerivationError;
use super::derivation_files::{DerivationFiles, LoadedGraph};
use super::path_info::{self, Entry};
use super::program::{Nix, NixError, Version};
use super::settings::Settings;
use crate::graph::{BuildGraph, Closure, ClosureError, Contents, PathInfo};
use crate::text::Printable;

/// How many paths are given to one command: some hundred bytes each, and 2 MiB is what every Linux takes.
const ARGUMENTS: usize = 2000;

/// From which version on Nix says whether its store trusts us, and by which command.
const STORE_INFO: [(Version, [&str; 2]); 2] = [
    (Version { major: 2, minor: 19 }, ["store", "info"]),
    (Version { major: 2, minor: 15 }, ["store", "ping"]),
];

/// Where registrations were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The store database.
    Database,
    /// `nix path-info`, because the database could not be read.
    PathInfo,
}

/// Why the store did not say what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store is on another machine.
    #[error("the store '{}' is not on this machine, so its files cannot be read", Printable(.0))]
    NotLocal(String),
    /// A path is not registered.
    #[error("{path} is not valid in the store")]
    NotValid {
        /// The path.
        path: String,
    },
    /// What is registered is no closure.
    #[error(transparent)]
    Closure(#[from] ClosureError),
    /// The database is damaged.
    #[error("{0}")]
    Damaged(String),
    /// Neither the database nor Nix can be asked.
    #[error("{database}; and `nix path-info` cannot help: {nix}")]
    Unreadable {
        /// What the database said.
        database: String,
        /// What Nix said.
        #[source]
        nix: NixError,
    },
}

/// The local store.
#[derive(Clone, Debug)]
pub struct Store {
    nix: Nix,
    dir: StoreDir,
    real_dir: PathBuf,
    state_dir: PathBuf,
    /// `--store URL` for Nix, where the user named a store.
    selector: Vec<String>,
}

impl Store {
    /// Finds the store that `settings` name.
    ///
    /// `state_dir` is `NIX_STATE_DIR`, and `data_home` the user's `XDG_DATA_HOME`, below which Nix keeps a store of its own
    /// for users without `/nix`. `named` is the store that was given on the command line.
    ///
    /// # Errors
    ///
    /// When it is a store on another machine.
    pub fn locate(
        nix: Nix,
        settings: &Settings,
        named: Option<&str>,
        state_dir: Option<PathBuf>,
        data_home: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let dir = settings.store_dir.clone();
        let plain = PathBuf::from(dir.as_str());
        // Nix is built with `/nix/var/nix` for `/nix/store`, and others with their own pair of the same shape.
        let beside = plain.parent().unwrap_or(Path::new("/")).join("var/nix");
        let default_state = state_dir.unwrap_or(beside);
        let in_root = |root: &Path| (root.join("nix/store"), root.join("nix/var/nix"));
        let (kind, parameters) = settings.store.split_once('?').unwrap_or((&settings.store, ""));
        let parameter = |name: &str| {
            url::form_urlencoded::parse(parameters.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| PathBuf::from(value.into_owned()))
        };
        let (real_dir, state_dir) = match kind {
            "" | "auto" => {
                let own = data_home.map(|home| home.join("nix/root"));
                match own {
                    Some(root) if !default_state.exists() && root.exists() => in_root(&root),
                    _ => (plain, default_state),
                }
            }
            // Newer versions write `local`, `daemon` and `/DIRECTORY` as URLs.
            kind if matches!(kind, "local" | "daemon")
                || ["/", "local://", "unix://"].iter().any(|start| kind.starts_with(start)) =>
            {
                let directory = kind.strip_prefix("local://").unwrap_or(kind);
                let directory = Some(PathBuf::from(directory)).filter(|directory| directory.is_absolute());
                let (real, state) = match directory.or_else(|| parameter("root")) {
                    Some(root) => in_root(&root),
                    None => (plain, default_state),
                };
                (parameter("real").unwrap_or(real), parameter("state").unwrap_or(state))
            }
            // As Nix takes it: from the working directory, which is ours too.
            kind if kind.contains('/') && !kind.contains(':') => {
                let not_local = |_| StoreError::NotLocal(settings.store.clone());
                in_root(&std::path::absolute(kind).map_err(not_local)?.components().collect::<PathBuf>())
            }
            _ => return Err(StoreError::NotLocal(settings.store.clone())),
        };
        let selector = named.map_or_else(Vec::new, |store| vec!["--store".to_owned(), store.to_owned()]);
        Ok(Self { nix, dir, real_dir, state_dir, selector })
    }

    /// The directory that paths are named by.
    pub fn dir(&self) -> &StoreDir {
        &self.dir
    }

    /// The directory in which the files of all paths really are.
    pub fn real_dir(&self) -> &Path {
        &self.real_dir
    }

    /// Where a path's files really are.
    pub fn real_path(&self, path: &StorePath) -> PathBuf {
        self.real_dir.join(path.to_basename())
    }

    /// The Nix that the store belongs to.
    pub fn nix(&self) -> &Nix {
        &self.nix
    }

    /// Reads a path as a person gives it: a store path, or something below one.
    pub fn parse(&self, text: &str) -> Option<StorePath> {
        let below = |dir: &str| text.strip_prefix(dir)?.strip_prefix('/');
        let rest = below(self.dir.as_str()).or_else(|| below(self.real_dir.to_str()?))?;
        let base_name = rest.split('/').next()?;
        StorePath::from_basename(base_name.as_bytes()).ok()
    }

    /// Everything that `roots` need at run time, themselves included.
    ///
    /// # Errors
    ///
    /// When a root is not valid, or neither the database nor Nix can be asked.
    pub async fn closure(&self, roots: &[StorePath]) -> Result<(Closure, Source), StoreError> {
        let (infos, source) = match self.in_database(roots, Database::closure).await {
            Ok(infos) => (infos, Source::Database),
            Err(DatabaseError::Sqlite(error)) => {
                tracing::debug!(%error, "the database cannot be read; asking nix path-info");
                (self.ask_nix(roots, error).await?, Source::PathInfo)
            }
            Err(DatabaseError::NotValid { path }) => return Err(StoreError::NotValid { path }),
            Err(error @ DatabaseError::Damaged { .. }) => return Err(StoreError::Damaged(error.to_string())),
        };
        Ok((Closure::new(infos, roots)?, source))
    }

    /// Which of `paths` are not valid.
    ///
    /// # Errors
    ///
    /// When neither the database nor Nix can be asked.
    pub async fn invalid(&self, paths: &[StorePath]) -> Result<Vec<StorePath>, StoreError> {
        match self.in_database(paths, Database::valid).await {
            Ok(valid) => {
                Ok(paths.iter().zip(valid).filter(|(_, valid)| !valid).map(|(p, _)| p.clone()).collect())
            }
            Err(database) => {
                let mut invalid = Vec::new();
                for some in paths.chunks(ARGUMENTS) {
                    let words = ["--check-validity", "--print-invalid"].map(str::to_owned);
                    let paths = some.iter().map(|path| self.dir.render_path(path));
                    let words: Vec<String> =
                        words.into_iter().chain(self.selector.iter().cloned()).chain(paths).collect();
                    let text = self
                        .nix
                        .run_legacy("nix-store", &words)
                        .await
                        .map_err(|nix| StoreError::Unreadable { database: database.to_string(), nix })?;
                    let named: HashSet<&str> = text.lines().map(str::trim).collect();
                    let is_named = |path: &&StorePath| named.contains(self.dir.render_path(path).as_str());
                    invalid.extend(some.iter().filter(is_named).cloned());
                }
                Ok(invalid)
            }
        }
    }

    /// The derivation that makes a path, where the store has one.
    ///
    /// # Errors
    ///
    /// When neither the database nor Nix can be asked.
    pub async fn maker(&self, path: &StorePath) -> Result<Option<StorePath>, StoreError> {
        let asked =
            self.in_database(std::slice::from_ref(path), |database, paths| database.makers(&paths[0]));
        let database = match asked.await {
            Ok(makers) => return Ok(makers.into_iter().next()),
            Err(error) => error.to_string(),
        };
        let words =
            [&["--query".to_owned(), "--deriver".to_owned(), self.dir.render_path(path)], &*self.selector];
        match self.nix.run_legacy("nix-store", &words.concat()).await {
            // `unknown-deriver` is no path, and a deriver need not be valid.
            Ok(text) => {
                let deriver = self.dir.parse_path(text.trim().as_bytes()).ok();
                Ok(deriver.filter(|deriver| self.real_path(deriver).exists()))
            }
            Err(nix) => Err(StoreError::Unreadable { database, nix }),
        }
    }

    /// Whether the store takes us for a trusted user; nothing where Nix does not say (before 2.15).
    pub async fn trusts_us(&self) -> Option<bool> {
        let mut words: Vec<String> = STORE_INFO
            .iter()
            .find(|(from, _)| self.nix.version() >= *from)
            .map(|(_, words)| words.iter().map(ToString::to_string).collect())?;
        words.push("--json".to_owned());
        words.extend(self.selector.iter().cloned());
        let text = self.nix.run(&words).await.ok()?;
        let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
        let trusted = answer.get("trusted")?;
        trusted.as_bool().or_else(|| trusted.as_i64().map(|trusted| trusted != 0))
    }

    /// Its `.drv` files, which can be read without Nix.
    pub fn derivation_files(&self) -> DerivationFiles {
        DerivationFiles::new(self.dir.clone(), self.real_dir.clone())
    }

    /// The derivations `roots` and everything that they need, read from their files. What cannot be read is noted, and stands
    /// in the graph as unread.
    ///
    /// # Errors
    ///
    /// When derivations are no graph: they need themselves, or outputs that others do not have.
    pub async fn load_graph(&self, roots: &[StorePath]) -> Result<LoadedGraph, DerivationError> {
        self.derivation_files().load(roots).await
    }

    /// What a derivation says besides its outputs and inputs, read from its file. Blocks.
    ///
    /// # Errors
    ///
    /// When the file is missing or is not what it should be.
    pub fn contents(&self, derivation: &StorePath) -> Result<Contents, DerivationError> {
        self.derivation_files().contents(derivation)
    }

    /// As [`Store::load_graph`], where everything must be readable.
    ///
    /// # Errors
    ///
    /// When a `.drv` file is missing or is not what it should be.
    pub async fn build_graph(&self, roots: &[StorePath]) -> Result<BuildGraph, DerivationError> {
        let loaded = self.load_graph(roots).await?;
        match loaded.damaged.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(loaded.graph),
        }
    }

    async fn in_database<T: Send + 'static>(
        &self,
        paths: &[StorePath],
        question: impl FnOnce(&Database, &[StorePath]) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (state_dir, dir, paths) = (self.state_dir.clone(), self.dir.clone(), paths.to_vec());
        let work = move || question(&Database::open(&state_dir, &dir)?, &paths);
        match tokio::task::spawn_blocking(work).await {
            Ok(answer) => answer,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn ask_nix(
        &self,
        roots: &[StorePath],
        database: rusqlite::Error,
    ) -> Result<Vec<PathInfo>, StoreError> {
        let mut words: Vec<String> = ["path-info", "--recursive", "--json"].map(str::to_owned).to_vec();
        words.extend(path_info::json_format(&self.nix).iter().map(ToString::to_string));
        words.extend(self.selector.iter().cloned());
        words.extend(roots.iter().map(|root| self.dir.render_path(root)));
        let command = format!("nix {}", words[..3].join(" "));
        let unreadable = |nix| StoreError::Unreadable {
            database: format!("cannot read the store database: {database}"),
            nix,
        };
        let text = self.nix.run(&words).await.map_err(unreadable)?;
        let entries = path_info::parse(&text, &self.dir)
            .map_err(|reason| unreadable(NixError::Unexpected { command, reason }))?;
        entries
            .into_iter()
            .map(|entry| match entry {
                Entry::Valid(info) => Ok(*info),
                Entry::Invalid(path) => Err(StoreError::NotValid { path: self.dir.render_path(&path) }),
            })
            .collect()
    }
}
