//! The sources of a flake and of its inputs, as paths in the store.

use std::fmt;

use nix_derivation::StorePath;
use serde_json::Value;

use super::Flake;
use super::lock::Node;
use super::public::is_public;
use crate::nix::program::NixError;
use crate::nix::resolver::{ResolveError, Resolver, command, shown};

/// How deep inputs of inputs may go.
const DEPTH: usize = 64;

/// What a source is, as far as it matters who may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// What the flake itself consists of.
    Flake,
    /// An input that everybody can fetch from where it is locked to.
    PublicInput,
    /// An input that not everybody can fetch: a directory, or a repository without a public URL.
    PrivateInput {
        /// Its name, and before it those of the inputs that it is an input of, joined by `/`.
        name: String,
        /// The kind of its reference: `path`, `git`, …
        kind: String,
    },
    /// A derivation, which tells what was built, and how.
    Derivation,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flake => formatter.write_str("the flake's own source"),
            Self::PublicInput => formatter.write_str("a public input"),
            Self::PrivateInput { name, kind } => {
                write!(formatter, "the input {name}, of the kind {kind} without a public URL")
            }
            Self::Derivation => formatter.write_str("a derivation"),
        }
    }
}

/// A source in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlakeSource {
    /// Its path.
    pub path: StorePath,
    /// What it is.
    pub kind: SourceKind,
}

impl Flake {
    /// The flake's own source.
    pub fn own_source(&self) -> Option<FlakeSource> {
        self.source.clone().map(|path| FlakeSource { path, kind: SourceKind::Flake })
    }

    /// The sources of its inputs and of theirs, valid or not. Nothing is fetched.
    ///
    /// # Errors
    ///
    /// When Nix does not say where they are.
    pub async fn input_sources(&self, resolver: &Resolver<'_>) -> Result<Vec<FlakeSource>, ResolveError> {
        let words = self.archive(resolver, &["--json", "--dry-run"]);
        let text = resolver.nix().run(&words).await?;
        let unexpected =
            |reason: String| NixError::Unexpected { command: "nix flake archive --json".to_owned(), reason };
        let tree: Value = serde_json::from_str(&text).map_err(|error| unexpected(error.to_string()))?;
        let mut found = Vec::new();
        if let Some(root) = self.lock.root() {
            let mut above = vec![root];
            self.add_inputs(&tree, &mut above, "", resolver, &mut found).map_err(unexpected)?;
        }
        Ok(found)
    }

    /// Fetches what is not valid of its inputs, with Nix's own messages for the user to see.
    ///
    /// # Errors
    ///
    /// When Nix cannot fetch them.
    pub async fn fetch_inputs(&self, resolver: &Resolver<'_>) -> Result<(), ResolveError> {
        resolver.nix().run_visibly("nix", &self.archive(resolver, &[])).await?;
        Ok(())
    }

    /// The command that fetches the inputs, as a person would type it.
    pub fn fetch_command(&self, resolver: &Resolver<'_>) -> String {
        shown(&self.archive(resolver, &[]))
    }

    fn archive(&self, resolver: &Resolver<'_>, flags: &[&str]) -> Vec<String> {
        let mut subcommand = vec!["flake", "archive"];
        subcommand.extend(flags);
        let options = resolver.arguments.without_source();
        command(&subcommand, &options, std::slice::from_ref(&self.reference))
    }

    /// Goes along Nix's tree of inputs and the lock at once: the one has the paths, the other the kinds.
    fn add_inputs<'a>(
        &'a self,
        tree: &Value,
        above: &mut Vec<Node<'a>>,
        prefix: &str,
        resolver: &Resolver<'_>,
        found: &mut Vec<FlakeSource>,
    ) -> Result<(), String> {
        if above.len() > DEPTH {
            return Err(format!("inputs of inputs go deeper than {DEPTH}"));
        }
        let Some(inputs) = tree.get("inputs").and_then(Value::as_object) else { return Ok(()) };
        for (name, input) in inputs {
            let name_from_root = format!("{prefix}{name}");
            let node = above.last().and_then(|of| self.lock.input(*of, name));
            let node = node.ok_or_else(|| format!("the lock has no input {name_from_root}"))?;
            // A directory inside of the flake that names it has no path of its own.
            if let Some(path) = input.get("path").and_then(Value::as_str) {
                let path = resolver.store.parse(path).ok_or_else(|| format!("{path:?} is no store path"))?;
                let kind = if is_public(node) {
                    SourceKind::PublicInput
                } else {
                    SourceKind::PrivateInput { name: name_from_root.clone(), kind: node.kind().to_owned() }
                };
                let source = FlakeSource { path, kind };
                if !found.contains(&source) {
                    found.push(source);
                }
            }
            if above.iter().any(|other| other.is(node)) {
                continue;
            }
            above.push(node);
            self.add_inputs(input, above, &format!("{name_from_root}/"), resolver, found)?;
            above.pop();
        }
        Ok(())
    }

    /// Whether some input, or one of theirs, cannot be fetched by everybody.
    pub fn has_private_inputs(&self) -> bool {
        self.lock.inputs().any(|node| !is_public(node))
    }

    /// Where `nix develop` takes bash from: the flake's input `nixpkgs`, as it is locked.
    pub fn nixpkgs(&self) -> Option<String> {
        let node = self.lock.input(self.lock.root()?, "nixpkgs")?;
        if node.is_flake() { node.reference() } else { None }
    }
}
