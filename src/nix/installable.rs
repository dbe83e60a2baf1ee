//! What a person names, as far as it is understood without asking Nix.

use std::path::{Path, PathBuf};

use nix_derivation::StorePath;

use super::arguments::EvaluationArguments;
use super::store::Store;
use crate::text::Printable;

/// Which outputs of a derivation are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// All of them (`^*`).
    All,
    /// These (`^out,dev`).
    Named(Vec<String>),
}

impl std::fmt::Display for Outputs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => formatter.write_str("*"),
            Self::Named(names) => formatter.write_str(&names.join(",")),
        }
    }
}

/// Something to push, as far as it is understood without asking Nix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installable {
    /// A store path, or a link to one.
    Path(StorePath),
    /// A derivation and the outputs that are meant.
    Derivation(StorePath, Outputs),
    /// Something to evaluate, without its `^…`.
    Expression(String, Option<Outputs>),
}

/// An installable that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{}' is no installable: {reason}", Printable(.text))]
pub struct InstallableError {
    /// What was given.
    pub text: String,
    /// What is wrong.
    pub reason: &'static str,
}

impl Installable {
    /// Understands `text` as far as that goes without evaluation.
    ///
    /// With `--file` or `--expr` every word is an attribute path, unless it is a path in the store.
    ///
    /// # Errors
    ///
    /// When the text is empty, or asks for outputs of something that is not a derivation.
    pub fn parse(
        text: &str,
        store: &Store,
        directory: &Path,
        arguments: &EvaluationArguments,
    ) -> Result<Self, InstallableError> {
        let wrong = |reason| InstallableError { text: text.to_owned(), reason };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.ends_with('^') {
            return Err(wrong("no output is named after the `^` (`^out,dev` for some, `^*` for all)"));
        }
        let (name, outputs) = split_outputs(text);
        let may_be_link = !arguments.has_source && !name.contains(['#', '?', ':']);
        let in_store = store
            .parse(name)
            .or_else(|| may_be_link.then(|| follow_link(&directory.join(name), store)).flatten());
        match in_store {
            Some(path) if path.is_derivation() => Ok(Self::Derivation(path, outputs.unwrap_or(Outputs::All))),
            Some(_) if outputs.is_some() => Err(wrong("only a derivation has outputs to choose from")),
            Some(path) => Ok(Self::Path(path)),
            None if name.starts_with(&format!("{}/", store.dir())) && name.contains(".drv!") => {
                Err(wrong("outputs are named after a `^`, as in …-NAME.drv^dev"))
            }
            None if name.starts_with(&format!("{}/", store.dir())) => Err(wrong("it is not a store path")),
            None if may_be_link && leads_nowhere(&directory.join(name)) => {
                Err(wrong("it is a link, and what it leads to is not there"))
            }
            None => Ok(Self::Expression(name.to_owned(), outputs)),
        }
    }
}

/// Splits `NAME^out,dev` or `NAME^*`; what follows another `^` is part of the name.
fn split_outputs(text: &str) -> (&str, Option<Outputs>) {
    let Some((name, wanted)) = text.rsplit_once('^') else { return (text, None) };
    if wanted == "*" {
        return (name, Some(Outputs::All));
    }
    let is_output = |output: &str| {
        !output.is_empty() && output.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b))
    };
    if wanted.split(',').all(is_output) {
        let outputs = wanted.split(',').map(str::to_owned).collect();
        (name, Some(Outputs::Named(outputs)))
    } else {
        (text, None)
    }
}

/// Follows symbolic links until one leads into the store, whose links are not followed.
fn follow_link(start: &Path, store: &Store) -> Option<StorePath> {
    let mut path: PathBuf = start.to_owned();
    for _ in 0..40 {
        if let Some(found) = path.to_str().and_then(|text| store.parse(text)) {
            return Some(found);
        }
        let target = std::fs::read_link(&path).ok()?;
        path = path.parent()?.join(target);
    }
    None
}

fn leads_nowhere(path: &Path) -> bool {
    path.is_symlink() && !path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_split_from_the_name() {
        let named = |names: &[&str]| Some(Outputs::Named(names.iter().map(ToString::to_string).collect()));
        assert_eq!(split_outputs("x"), ("x", None));
        assert_eq!(split_outputs("x^*"), ("x", Some(Outputs::All)));
        assert_eq!(split_outputs(".#a^out,dev"), (".#a", named(&["out", "dev"])));
        assert_eq!(split_outputs("x^"), ("x^", None));
        assert_eq!(split_outputs("x^a b"), ("x^a b", None));
    }
}
