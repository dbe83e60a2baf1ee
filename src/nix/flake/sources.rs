//! The sources of a flake and of its inputs, as paths in the store.

use std::fmt;

use nix_derivation::{NixHash, StorePath};
use serde_json::Value;

use super::Flake;
use super::lock::Node;
use super::public::{HasLogin, is_public};
use crate::nix::program::NixError;
use crate::nix::resolver::{ResolveError, Resolver, command, shown};
use crate::text::Printable;

/// How deep inputs of inputs may go.
const DEPTH: usize = 64;

/// What a source is, as far as it matters who may have it; first what everybody may have, last what is most our own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// An input that everybody can fetch from where it is locked to.
    PublicInput,
    /// An input that not everybody can fetch: a directory, or a repository without a public URL.
    PrivateInput {
        /// Its name, and before it those of the inputs that it is an input of, joined by `/`; fit to print.
        name: String,
        /// What it is, in words.
        what: String,
    },
    /// A derivation, which tells what was built, and how.
    Derivation,
    /// What the flake itself consists of.
    Flake,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flake => formatter.write_str("the flake's own source"),
            Self::PublicInput => formatter.write_str("a public input"),
            Self::PrivateInput { name, what } => write!(formatter, "the input {name}, {what}"),
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
    /// The hash of its NAR that the lock has. That of the flake itself is not in it.
    pub nar_hash: Option<NixHash>,
}

/// The sources of a flake's inputs and of theirs, valid or not.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Each once for each kind that it has.
    pub sources: Vec<FlakeSource>,
    /// Where its input `nixpkgs` is.
    pub(super) nixpkgs: Option<StorePath>,
}

impl Inputs {
    /// Where the flake's input `nixpkgs` is.
    pub fn nixpkgs(&self) -> Option<&StorePath> {
        self.nixpkgs.as_ref()
    }
}

impl Flake {
    /// The flake's own source.
    pub fn own_source(&self) -> Option<FlakeSource> {
        let path = self.source.clone()?;
        Some(FlakeSource { path, kind: SourceKind::Flake, nar_hash: None })
    }

    /// The sources of its inputs. Nothing is fetched.
    ///
    /// # Errors
    ///
    /// When Nix does not say where they are.
    pub async fn inputs(
        &self,
        resolver: &Resolver<'_>,
        has_login: HasLogin<'_>,
    ) -> Result<Inputs, ResolveError> {
        let words = self.archive(resolver, &["--json", "--dry-run"]);
        let text = resolver.nix().run(&words).await?;
        let unexpected =
            |reason: String| NixError::Unexpected { command: "nix flake archive --json".to_owned(), reason };
        let tree: Value = serde_json::from_str(&text).map_err(|error| unexpected(error.to_string()))?;
        let mut walk = InputWalk { flake: self, resolver, has_login, found: Inputs::default() };
        if let Some(root) = self.lock.root() {
            walk.add_inputs(&tree, &mut vec![root], "").map_err(unexpected)?;
        }
        Ok(walk.found)
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
        command(&subcommand, &options, &[], std::slice::from_ref(&self.reference))
    }

    /// Whether some input, or one of theirs, cannot be fetched by everybody.
    pub fn has_private_inputs(&self, has_login: HasLogin<'_>) -> bool {
        self.lock.inputs().any(|node| !is_public(node, has_login))
    }
}

/// The way along Nix's tree of inputs and the lock at once: the one has the paths, the other the kinds.
struct InputWalk<'a> {
    flake: &'a Flake,
    resolver: &'a Resolver<'a>,
    has_login: HasLogin<'a>,
    found: Inputs,
}

impl<'a> InputWalk<'a> {
    fn add_inputs(&mut self, tree: &Value, above: &mut Vec<Node<'a>>, prefix: &str) -> Result<(), String> {
        if above.len() > DEPTH {
            return Err(format!("inputs of inputs go deeper than {DEPTH}"));
        }
        let Some(inputs) = tree.get("inputs").and_then(Value::as_object) else { return Ok(()) };
        for (name, input) in inputs {
            let name_from_root = format!("{prefix}{}", Printable(name));
            let node = above.last().and_then(|of| self.flake.lock.input(*of, name));
            let node = node.ok_or_else(|| format!("the lock has no input {name_from_root}"))?;
            // A directory inside of the flake that names it has no path of its own.
            if let Some(path) = input.get("path").and_then(Value::as_str) {
                let path =
                    self.resolver.store.parse(path).ok_or_else(|| format!("{path:?} is no store path"))?;
                if name_from_root == "nixpkgs" {
                    self.found.nixpkgs = Some(path.clone());
                }
                self.add(path, node, &name_from_root);
            }
            if above.iter().any(|other| other.is(node)) {
                continue;
            }
            above.push(node);
            self.add_inputs(input, above, &format!("{name_from_root}/"))?;
            above.pop();
        }
        Ok(())
    }

    fn add(&mut self, path: StorePath, node: Node<'_>, name: &str) {
        let kind = if is_public(node, self.has_login) {
            SourceKind::PublicInput
        } else {
            SourceKind::PrivateInput { name: name.to_owned(), what: described(node.kind()) }
        };
        let nar_hash = node.locked("narHash").and_then(|hash| NixHash::parse(hash).ok());
        let source = FlakeSource { path, kind, nar_hash };
        if !self.found.sources.contains(&source) {
            self.found.sources.push(source);
        }
    }
}

/// A kind of input that not everybody can fetch, in words.
fn described(kind: &str) -> String {
    match kind {
        "path" => "a directory on this machine".to_owned(),
        "git" => "a git repository without a public URL".to_owned(),
        "hg" => "a Mercurial repository without a public URL".to_owned(),
        "tarball" | "file" => format!("a {kind} without a public URL"),
        "github" => "a repository at a GitHub without a public name".to_owned(),
        "gitlab" => "a repository at a GitLab without a public name".to_owned(),
        "sourcehut" => "a repository at a SourceHut without a public name".to_owned(),
        other => format!("of the kind {}, without a public URL", Printable(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_our_own_a_source_is_the_later_its_kind_comes() {
        let private = SourceKind::PrivateInput { name: "a".to_owned(), what: described("path") };
        assert!(SourceKind::PublicInput < private && private < SourceKind::Flake);
        assert_eq!(private.to_string(), "the input a, a directory on this machine");
        assert_eq!(described("x\u{1b}"), "of the kind x\\u{1b}, without a public URL");
    }
}
