//! Flakes: what Nix says of one, what is locked for it, and what it offers, beyond what is evaluated of an installable.

mod dev_shell;
mod lock;
mod outputs;
mod public;
mod sources;

use nix_derivation::StorePath;
use serde_json::Value;

use self::lock::Lock;
use super::arguments::EvaluationArguments;
use super::installable::Installable;
use super::program::NixError;
use super::store::Store;
use crate::text::Printable;

pub use dev_shell::DevShell;
pub use outputs::FlakeOutputs;
pub use sources::{FlakeSource, SourceKind};

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
        let unexpected = |reason: String| NixError::Unexpected {
            command: format!("nix flake metadata {reference}"),
            reason,
        };
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
pub async fn revision(
    store: &Store,
    arguments: &EvaluationArguments,
    installables: &[Installable],
) -> Option<String> {
    let reference = flakes_of(installables, arguments).into_iter().next()?;
    match Flake::read(store, arguments, &reference).await {
        Ok(flake) => flake.revision,
        Err(error) => {
            tracing::debug!(%error, "the revision of the flake is not known");
            None
        }
    }
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

/// Whether Nix failed because a flake has no such attribute.
fn is_no_attribute(error: &super::ResolveError) -> bool {
    // Nix says it in no other way. The words are the same from 2.8 to 2.34.
    matches!(error, super::ResolveError::Nix(NixError::Failed { message, .. })
        if message.contains("does not provide attribute"))
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
}
