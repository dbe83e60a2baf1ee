//! From what a person names to valid store paths.

use std::path::PathBuf;

use nix_derivation::StorePath;

use super::arguments::EvaluationArguments;
use super::command_line;
use super::derivation::{self, DerivationError, OutputPaths};
use super::installable::{Installable, InstallableError, Outputs};
use super::path_info::{self, Entry};
use super::program::{Nix, NixError, Version};
use super::store::{Store, StoreError};

/// From this version on Nix itself understands `^` everywhere.
const CARET: Version = Version { major: 2, minor: 14 };

/// Why there are no store paths for what was named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// It makes no sense.
    #[error(transparent)]
    Installable(#[from] InstallableError),
    /// Outputs are not valid, and nobody asked to build them.
    #[error("{}", not_valid_words(.paths))]
    NotValid {
        /// The paths, and the derivation that makes each where it is known.
        paths: Vec<(String, Option<String>)>,
        /// The command that would make them valid.
        command: String,
    },
    /// Where outputs are is not known before they are built, and nobody asked to.
    #[error("where the outputs of {derivation} are is known only when they are built")]
    NotBuilt {
        /// The derivation.
        derivation: String,
        /// The command that would build them.
        command: String,
    },
    /// A derivation has no such output.
    #[error("{derivation} has no output {output:?}; it has {}", .known.join(", "))]
    UnknownOutput {
        /// The derivation.
        derivation: String,
        /// What was asked for.
        output: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A path is in the store without the derivation that makes it.
    #[error("the store has no derivation that makes {path}")]
    NoDerivation {
        /// The path.
        path: String,
    },
    /// A dev shell's environment is not valid, and nobody asked to build it.
    #[error("the environment that Nix {version} makes for the dev shell {installable} is not valid")]
    NoEnvironment {
        /// How the shell was named.
        installable: String,
        /// The version of Nix.
        version: String,
        /// The command that would make it.
        command: String,
    },
    /// There is no room for something of ours.
    #[error("cannot use the temporary directory {}: {source}", .directory.display())]
    Temporary {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A `.drv` file cannot be used.
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nix did not answer.
    #[error(transparent)]
    Nix(#[from] NixError),
}

fn not_valid_words(paths: &[(String, Option<String>)]) -> String {
    let mut words = String::new();
    for (path, derivation) in paths.iter().take(5) {
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(path);
        if let Some(derivation) = derivation {
            words.push_str(&format!(" (an output of {derivation})"));
        }
    }
    if paths.len() > 5 {
        words.push_str(&format!("; and {} more", paths.len() - 5));
    }
    words.push_str(if paths.len() == 1 { " is not valid" } else { " are not valid" });
    words
}

/// With these Nix neither builds nor fetches what it is asked for. (What evaluation imports from a derivation is another thing.)
pub(super) const MAKE_NOTHING: [&str; 8] =
    ["--max-jobs", "0", "--option", "builders", "", "--option", "substitute", "false"];

/// `nix SUBCOMMAND… OPTIONS… FLAGS… -- INSTALLABLES…`. What is said twice Nix takes as it is said last, so that flags win over
/// what the user said.
pub(super) fn command(
    subcommand: &[&str],
    options: &[String],
    flags: &[&str],
    installables: &[String],
) -> Vec<String> {
    let mut words: Vec<String> = subcommand.iter().map(|word| (*word).to_owned()).collect();
    words.extend(options.iter().cloned());
    words.extend(flags.iter().map(|flag| (*flag).to_owned()));
    words.push("--".to_owned());
    words.extend(installables.iter().cloned());
    words
}

/// A `nix` command as a person would type it.
pub(super) fn shown(words: &[String]) -> String {
    command_line::shown("nix", words.iter().filter(|word| *word != "--"))
}

/// Turns installables into valid store paths.
#[derive(Debug)]
pub struct Resolver<'a> {
    /// The store, with its Nix.
    pub store: &'a Store,
    /// What the user said for evaluation.
    pub arguments: &'a EvaluationArguments,
    /// Whether what is not valid may be built or fetched.
    pub build: bool,
}

impl Resolver<'_> {
    /// The paths that `installables` stand for, each valid.
    ///
    /// # Errors
    ///
    /// When something cannot be evaluated, or is not valid and may not be built.
    pub async fn resolve(&self, installables: &[Installable]) -> Result<Vec<StorePath>, ResolveError> {
        self.valid(&self.find(installables).await?).await
    }

    /// The paths that `installables` stand for, valid or not. Nothing is built or fetched but what evaluation itself needs.
    ///
    /// # Errors
    ///
    /// When something cannot be evaluated, or its paths are known only when it is built.
    pub async fn paths(&self, installables: &[Installable]) -> Result<Vec<StorePath>, ResolveError> {
        Ok(self.find(installables).await?.paths())
    }

    async fn find(&self, installables: &[Installable]) -> Result<Found, ResolveError> {
        let mut found = Found::default();
        let mut plain = Vec::new();
        for installable in installables {
            match installable {
                Installable::Path(path) => {
                    found.add(path.clone(), None);
                    found.to_realise.push(self.store.dir().render_path(path));
                }
                Installable::Derivation(path, outputs) => self.add_outputs(path, outputs, &mut found).await?,
                Installable::Expression(text, Some(outputs)) => {
                    for derivation in self.derivations(std::slice::from_ref(text)).await? {
                        self.add_outputs(&derivation, outputs, &mut found).await?;
                    }
                    if self.nix().version() >= CARET {
                        // `nix build` rather than what was just noted: it knows the flake's settings.
                        found.to_realise.pop();
                        found.to_build.push(format!("{text}^{outputs}"));
                    }
                }
                Installable::Expression(text, None) => plain.push(text.clone()),
            }
        }
        if !plain.is_empty() || installables.is_empty() {
            self.add_evaluated(&plain, &mut found).await?;
        }
        Ok(found)
    }

    /// The outputs of a derivation that an expression stands for, where it is known where they are.
    pub(super) async fn outputs_of_expression(
        &self,
        expression: &str,
        derivation: &StorePath,
        outputs: &[StorePath],
    ) -> Result<Vec<StorePath>, ResolveError> {
        let mut found = Found { to_build: vec![expression.to_owned()], ..Found::default() };
        for output in outputs {
            found.add(output.clone(), Some(derivation.clone()));
        }
        self.valid(&found).await
    }

    /// What was found, made valid if need be.
    async fn valid(&self, found: &Found) -> Result<Vec<StorePath>, ResolveError> {
        let invalid = self.store.invalid(&found.paths()).await?;
        if invalid.is_empty() {
            return Ok(found.paths());
        }
        if self.build {
            self.make_valid(found).await?;
            let still_invalid = self.store.invalid(&found.paths()).await?;
            if still_invalid.is_empty() {
                return Ok(found.paths());
            }
        }
        let command = self.build_command(found, &invalid);
        Err(self.not_valid(&invalid, |path| found.derivation_of(path), command))
    }

    /// The error for paths that are not valid, each made by a derivation where that is known, and all by a command.
    pub(crate) fn not_valid<'f>(
        &self,
        paths: &[StorePath],
        maker: impl Fn(&StorePath) -> Option<&'f StorePath>,
        command: String,
    ) -> ResolveError {
        let shown = |path: &StorePath| self.store.dir().render_path(path);
        let paths = paths.iter().map(|path| (shown(path), maker(path).map(shown))).collect();
        ResolveError::NotValid { paths, command }
    }

    pub(super) fn nix(&self) -> &Nix {
        self.store.nix()
    }

    /// Builds or fetches, with Nix's own messages for the user to see.
    async fn make_valid(&self, found: &Found) -> Result<(), NixError> {
        if !found.to_realise.is_empty() {
            let arguments = [vec!["--realise".to_owned()], found.to_realise.clone()].concat();
            self.nix().run_visibly("nix-store", &self.with_store(arguments)).await?;
        }
        if !found.to_build.is_empty() || found.builds_default {
            let words = self.command(&["build", "--no-link"], &found.to_build);
            self.nix().run_visibly("nix", &words).await?;
        }
        Ok(())
    }

    fn with_store(&self, mut arguments: Vec<String>) -> Vec<String> {
        if let Some(store) = self.arguments.store() {
            arguments.extend(["--store".to_owned(), store.to_owned()]);
        }
        arguments
    }

    fn command(&self, subcommand: &[&str], installables: &[String]) -> Vec<String> {
        command(subcommand, &self.arguments.options, &[], installables)
    }

    /// The derivations behind expressions. Evaluates, and neither builds them nor asks any cache for them.
    pub(super) async fn derivations(&self, expressions: &[String]) -> Result<Vec<StorePath>, ResolveError> {
        let words = self.command(&["path-info", "--derivation"], expressions);
        let text = self.nix().run(&words).await?;
        text.lines().map(|line| self.printed_path(line.trim())).collect()
    }

    pub(super) fn printed_path(&self, text: &str) -> Result<StorePath, ResolveError> {
        let parsed = self.store.dir().parse_path(text.as_bytes());
        Ok(parsed.map_err(|error| NixError::Unexpected {
            command: "nix path-info".to_owned(),
            reason: format!("{text:?}: {error}"),
        })?)
    }

    async fn add_outputs(
        &self,
        derivation: &StorePath,
        wanted: &Outputs,
        found: &mut Found,
    ) -> Result<(), ResolveError> {
        let shown = self.store.dir().render_path(derivation);
        let known = self.outputs_of(derivation)?;
        let names: Vec<String> = match wanted {
            Outputs::All => known.keys().cloned().collect(),
            Outputs::Named(names) => names.clone(),
        };
        for name in &names {
            if !known.contains_key(name) {
                return Err(ResolveError::UnknownOutput {
                    derivation: shown,
                    output: name.clone(),
                    known: known.keys().cloned().collect(),
                });
            }
        }
        found.to_realise.push(match wanted {
            Outputs::All => shown,
            Outputs::Named(names) => format!("{shown}!{}", names.join(",")),
        });
        for path in self.output_paths(derivation, &known, &names).await? {
            found.add(path, Some(derivation.clone()));
        }
        Ok(())
    }

    /// Where outputs are. Those that are content-addressed are known only to a store in which they were built.
    async fn output_paths(
        &self,
        derivation: &StorePath,
        known: &OutputPaths,
        names: &[String],
    ) -> Result<Vec<StorePath>, ResolveError> {
        let fixed: Option<Vec<StorePath>> =
            names.iter().map(|name| known.get(name).cloned().flatten()).collect();
        if let Some(paths) = fixed {
            return Ok(paths);
        }
        let shown = self.store.dir().render_path(derivation);
        if self.build {
            let target = format!("{shown}!{}", names.join(","));
            let words = self.with_store(vec!["--realise".to_owned(), target]);
            let text = self.nix().run_legacy("nix-store", &words).await?;
            return text.lines().map(|line| self.printed_path(line.trim())).collect();
        }
        if self.nix().version() < CARET {
            let command = format!("nix-store --realise {shown}");
            return Err(ResolveError::NotBuilt { derivation: shown, command });
        }
        // A `.drv` is no attribute of `--file`.
        let options = self.arguments.without_source();
        self.path_infos(&options, &[format!("{shown}^{}", names.join(","))], &[]).await
    }

    /// Adds what plain expressions stand for: the outputs that `nix build` would take.
    async fn add_evaluated(&self, expressions: &[String], found: &mut Found) -> Result<(), ResolveError> {
        let derivations = self.evaluated(expressions).await?;
        for path in self.default_paths(expressions).await? {
            let has = |outputs: &OutputPaths| outputs.values().any(|output| output.as_ref() == Some(&path));
            let maker = derivations.iter().find(|(_, outputs)| has(outputs));
            let maker = maker.map(|(derivation, _)| derivation.clone());
            found.add(path, maker);
        }
        found.to_build.extend(expressions.iter().cloned());
        found.builds_default = expressions.is_empty();
        Ok(())
    }

    /// The derivations behind expressions, with their outputs.
    ///
    /// Comes before [`Self::default_paths`], with the user's own settings, so that what evaluation itself needs is fetched as
    /// usual.
    pub(super) async fn evaluated(
        &self,
        expressions: &[String],
    ) -> Result<Vec<(StorePath, OutputPaths)>, ResolveError> {
        let derivations = self.derivations(expressions).await?;
        derivations
            .into_iter()
            .map(|derivation| Ok((derivation.clone(), self.outputs_of(&derivation)?)))
            .collect()
    }

    /// The outputs of a derivation, and where they are as far as that is known.
    pub(super) fn outputs_of(&self, derivation: &StorePath) -> Result<OutputPaths, ResolveError> {
        Ok(derivation::outputs(&self.store.real_path(derivation), derivation, self.store.dir())?)
    }

    /// The paths that `nix build` would take of expressions that name no outputs, without asking caches for them
    /// (`nix path-info` would).
    pub(super) async fn default_paths(&self, expressions: &[String]) -> Result<Vec<StorePath>, ResolveError> {
        self.path_infos(&self.arguments.options, expressions, &["--option", "substitute", "false"]).await
    }

    /// The paths that `nix path-info` names for installables, valid or not.
    async fn path_infos(
        &self,
        options: &[String],
        installables: &[String],
        flags: &[&str],
    ) -> Result<Vec<StorePath>, ResolveError> {
        let mut subcommand = vec!["path-info", "--json"];
        subcommand.extend(path_info::json_format(self.nix()));
        let text = self.nix().run(&command(&subcommand, options, flags, installables)).await?;
        let entries = path_info::parse(&text, self.store.dir())
            .map_err(|reason| NixError::Unexpected { command: "nix path-info --json".to_owned(), reason })?;
        Ok(entries
            .into_iter()
            .map(|entry| match entry {
                Entry::Valid(info) => info.path,
                Entry::Invalid(path) => path,
            })
            .collect())
    }

    /// The command that a person would type to make everything valid.
    fn build_command(&self, found: &Found, invalid: &[StorePath]) -> String {
        if !found.to_build.is_empty() || found.builds_default {
            return shown(&self.command(&["build", "--no-link"], &found.to_build));
        }
        let mut targets: Vec<String> = invalid
            .iter()
            .map(|path| self.store.dir().render_path(found.derivation_of(path).unwrap_or(path)))
            .collect();
        targets.dedup();
        format!("nix-store --realise {}", targets.join(" "))
    }
}

/// Paths found so far, in order and once each, with the derivation that makes them where it is known.
#[derive(Debug, Default)]
struct Found {
    paths: Vec<(StorePath, Option<StorePath>)>,
    /// Arguments for `nix-store --realise`.
    to_realise: Vec<String>,
    /// Arguments for `nix build`.
    to_build: Vec<String>,
    /// Whether `nix build` is to be run without arguments, for the whole of `--file` or `--expr`.
    builds_default: bool,
}

impl Found {
    fn add(&mut self, path: StorePath, derivation: Option<StorePath>) {
        if self.paths.iter().all(|(known, _)| *known != path) {
            self.paths.push((path, derivation));
        }
    }

    fn paths(&self) -> Vec<StorePath> {
        self.paths.iter().map(|(path, _)| path.clone()).collect()
    }

    fn derivation_of(&self, path: &StorePath) -> Option<&StorePath> {
        self.paths.iter().find(|(known, _)| known == path).and_then(|(_, derivation)| derivation.as_ref())
    }
}
