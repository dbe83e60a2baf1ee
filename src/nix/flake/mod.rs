//! Flakes: what Nix says of one, what is locked for it, and what it offers, beyond what is evaluated of an installable.

mod bash;
mod dev_shell;
mod lock;
mod outputs;
mod public;
mod shell;
mod sources;

use nix_derivation::StorePath;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use self::lock::{Lock, Node};
use super::arguments::EvaluationArguments;
use super::command_line;
use super::installable::Installable;
use super::program::NixError;
use super::resolver::ResolveError;
use super::store::Store;
use crate::text::Printable;

pub use bash::Bash;
pub use dev_shell::DevShell;
pub use outputs::FlakeOutputs;
pub use public::HasLogin;
pub use shell::Shell;
pub use sources::{FlakeSource, Inputs, SourceKind};

/// A flake as Nix sees it: where it is in the store, and what it is locked to.
#[derive(Debug)]
pub struct Flake {
    /// How it was named, without what follows the `#`.
    pub reference: String,
    /// Its revision, with `-dirty` at its end where there are changes besides; nothing for a plain directory.
    pub revision: Option<String>,
    /// Its own source in the store.
    source: Option<StorePath>,
    lock: Lock,
}

impl Flake {
    /// Asks Nix for the metadata of a flake. Its inputs are not fetched.
    ///
    /// # Errors
    ///
    /// When Nix fails, or says something unexpected.
    pub async fn read(
        store: &Store,
        arguments: &EvaluationArguments,
        reference: &str,
    ) -> Result<Self, NixError> {
        let mut words = vec!["flake", "metadata", "--json", "--no-write-lock-file"];
        let options = arguments.without_source();
        words.extend(options.iter().map(String::as_str));
        words.extend(["--", reference]);
        let text = store.nix().ask(&words).await?;
        let command = command_line::shown("nix", ["flake", "metadata", reference]);
        let unexpected = |reason: String| NixError::Unexpected { command: command.clone(), reason };
        let mut metadata: Value =
            serde_json::from_str(&text).map_err(|error| unexpected(error.to_string()))?;
        // `dirtyRevision` since Nix 2.16.
        let revision = ["revision", "dirtyRevision"].iter().find_map(|name| metadata.get(name)?.as_str());
        let revision = revision.map(|revision| Printable(revision).to_string());
        let source = metadata.get("path").and_then(Value::as_str).and_then(|path| store.parse(path));
        let lock = metadata.get_mut("locks").map(Value::take).unwrap_or_default();
        let lock = Lock::new(lock).map_err(unexpected)?;
        Ok(Self { reference: reference.to_owned(), revision, source, lock })
    }

    /// Whether it is the one that an installable names.
    pub fn is_of(&self, installable: &str) -> bool {
        split_reference(installable).0 == self.reference
    }

    /// How it was named, fit to print.
    pub fn shown(&self) -> String {
        command_line::word(&self.reference)
    }

    /// What its input `nixpkgs` is locked to.
    fn nixpkgs(&self) -> Option<Node<'_>> {
        self.lock.input(self.lock.root()?, "nixpkgs")
    }
}

/// The flakes that installables name, each once, in the order in which they are named.
///
/// Attributes of `--file` or `--expr` are in none.
pub fn flakes_of(installables: &[Installable], arguments: &EvaluationArguments) -> Vec<String> {
    let mut flakes = Vec::new();
    if arguments.has_source {
        return flakes;
    }
    let expressions = installables.iter().filter_map(|installable| match installable {
        Installable::Expression(text, _) => Some(split_reference(text).0),
        Installable::Path(_) | Installable::Derivation(..) => None,
    });
    for flake in expressions.chain(installables.is_empty().then_some(".")) {
        if flakes.iter().all(|known| known != flake) {
            flakes.push(flake.to_owned());
        }
    }
    flakes
}

/// The revision of the flake that is named first; nothing where there is none, or where Nix does not say.
pub fn revision(flakes: &[Result<Flake, NixError>]) -> Option<String> {
    match flakes.first()? {
        Ok(flake) => flake.revision.clone(),
        Err(error) => {
            tracing::debug!(%error, "the revision of the flake is not known");
            None
        }
    }
}

/// As [`revision`], of the flake that `installables` name first, which is the only one that is asked about.
///
/// Ask after the evaluation, not beside it: of two that make a store's database at the same time, old versions of Nix fail.
pub async fn first_revision(
    store: &Store,
    arguments: &EvaluationArguments,
    installables: &[Installable],
) -> Option<String> {
    let named = flakes_of(installables, arguments);
    revision(&[Flake::read(store, arguments, named.first()?).await])
}

/// Splits `FLAKE#ATTRIBUTE`; without an attribute it is empty, and without a flake it is `.`.
fn split_reference(text: &str) -> (&str, &str) {
    let (flake, attribute) = text.split_once('#').unwrap_or((text, ""));
    (if flake.is_empty() { "." } else { flake }, attribute)
}

/// Whether an expression names a flake as a whole, and not an attribute of it.
pub fn is_whole_flake(text: &str) -> bool {
    split_reference(text).1.is_empty()
}

/// The first line of what Nix said when it failed. What it quotes of what it evaluates or builds comes after that, or in another
/// form, and may be anything.
fn first_line(error: &ResolveError) -> Option<&str> {
    match error {
        ResolveError::Nix(NixError::Failed { message, .. }) => message.lines().next(),
        _ => None,
    }
}

/// Whether Nix failed because a flake has no such attribute: `flake '…' does not provide attribute 'a', 'b' or 'c'`, in these
/// words from 2.8 to 2.34. Nix says it in no other way.
fn is_no_attribute(error: &ResolveError, installable: &str) -> bool {
    let attribute = percent_decode_str(split_reference(installable).1).decode_utf8_lossy();
    let rest = first_line(error).and_then(|line| line.strip_prefix("flake '"));
    let missing = rest.and_then(|rest| rest.split_once("' does not provide attribute '"));
    missing.is_some_and(|(_, names)| format!("'{names}").contains(&format!("'{attribute}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flake_and_its_attribute_are_told_apart() {
        assert_eq!(split_reference(".#dev"), (".", "dev"));
        assert_eq!(split_reference("#dev"), (".", "dev"));
        assert_eq!(split_reference("github:a/b?dir=x"), ("github:a/b?dir=x", ""));
        assert_eq!(split_reference("nixpkgs#a.\"b#c\""), ("nixpkgs", "a.\"b#c\""));
    }

    #[test]
    fn only_nix_itself_says_that_an_attribute_is_missing() {
        let is_missing = |message: &str| {
            let failed = NixError::Failed { command: "nix".to_owned(), message: message.to_owned() };
            is_no_attribute(&failed.into(), ".#devShells.s.\"a%20b\"")
        };
        for message in [
            "flake 'path:/x' does not provide attribute 'packages.s.devShells.s.\"a b\"' or 'devShells.s.\"a b\"'",
            "flake 'path:/x' does not provide attribute 'devShells.s.\"a b\"'\n  Did you mean c?",
        ] {
            assert!(is_missing(message), "{message}");
        }
        for message in [
            "flake 'path:/x' does not provide attribute 'other'",
            "the flake does not provide attribute 'devShells.s.\"a b\"'",
            "while evaluating\n  flake 'path:/x' does not provide attribute 'devShells.s.\"a b\"'",
        ] {
            assert!(!is_missing(message), "{message}");
        }
    }
}
