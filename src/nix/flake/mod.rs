//! What Nix says of a flake, beyond what is evaluated of it.

use super::installable::Installable;
use super::program::{EvaluationArguments, Nix};

/// The revision of the flake that the first expression names; with `-dirty` at its end where there are changes besides.
///
/// Nothing where no flake is named, where it has no revision (a plain directory), or where Nix does not say.
pub async fn revision(
    nix: &Nix,
    arguments: &EvaluationArguments,
    installables: &[Installable],
) -> Option<String> {
    if arguments.has_source {
        return None;
    }
    let expression = installables.iter().find_map(|installable| match installable {
        Installable::Expression(text, _) => Some(text),
        Installable::Path(_) | Installable::Derivation(..) => None,
    })?;
    let flake = expression.split('#').next().filter(|flake| !flake.is_empty()).unwrap_or(".");
    let mut words = vec!["flake", "metadata", "--json", "--no-write-lock-file"];
    words.extend(arguments.options.iter().map(String::as_str));
    words.extend(["--", flake]);
    let text = match nix.ask(&words).await {
        Ok(text) => text,
        Err(error) => {
            tracing::debug!(%error, "the revision of the flake is not known");
            return None;
        }
    };
    let metadata: serde_json::Value = serde_json::from_str(&text).ok()?;
    // `dirtyRevision` since Nix 2.16.
    let revision = ["revision", "dirtyRevision"].iter().find_map(|name| metadata.get(name)?.as_str())?;
    Some(crate::text::Printable(revision).to_string())
}
