//! What somebody names as a dev shell, as evaluation finds it.

use nix_derivation::StorePath;
use serde::Deserialize;

use super::{first_line, is_no_attribute, split_reference};
use crate::nix::installable::InstallableError;
use crate::nix::program::NixError;
use crate::nix::resolver::{MAKE_NOTHING, ResolveError, Resolver, command};

/// The end of the name of an environment that `nix develop` has made.
const ENVIRONMENT: &str = "-env";

/// A dev shell that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shell {
    /// An attribute of a flake, a file or an expression.
    Attribute {
        /// How it was named.
        installable: String,
        /// The attribute in full, as an installable.
        attribute: String,
        /// Its derivation.
        derivation: StorePath,
        /// Its `inputDerivation`, as an installable, and the derivation that it is.
        inputs: Option<(String, StorePath)>,
    },
    /// A derivation.
    Derivation {
        /// How it was named.
        installable: String,
        /// The derivation.
        derivation: StorePath,
    },
    /// An environment that `nix develop` has made already.
    Environment {
        /// How it was named.
        installable: String,
        /// Its path.
        path: StorePath,
    },
}

impl Shell {
    /// How it was named.
    pub fn installable(&self) -> &str {
        match self {
            Self::Attribute { installable, .. }
            | Self::Derivation { installable, .. }
            | Self::Environment { installable, .. } => installable,
        }
    }

    /// The derivation that makes it a shell.
    pub fn derivation(&self) -> Option<&StorePath> {
        match self {
            Self::Attribute { derivation, .. } | Self::Derivation { derivation, .. } => Some(derivation),
            Self::Environment { .. } => None,
        }
    }

    /// The environment at a path, if it can be one: `nix develop` goes by the name.
    pub fn environment(installable: String, path: StorePath) -> Option<Self> {
        path.name().ends_with(ENVIRONMENT).then_some(Self::Environment { installable, path })
    }
}

/// What is asked of a shell. (Its `inputDerivation` need not be there.)
pub(super) const PARTS: &str = "shell: if shell ? drvPath then { derivation = shell.drvPath; \
    inputs = shell.inputDerivation.drvPath or null; } else null";

/// The answer.
#[derive(Debug, Deserialize)]
pub(super) struct Parts {
    derivation: String,
    inputs: Option<String>,
}

impl Resolver<'_> {
    /// The dev shell that `nix develop INSTALLABLE` would enter.
    ///
    /// # Errors
    ///
    /// When there is no such shell, or Nix cannot evaluate it.
    pub async fn shell(&self, installable: &str, system: &str) -> Result<Shell, ResolveError> {
        if self.arguments.has_source {
            return self.shell_of_source(installable).await;
        }
        for attribute in candidates(installable, system) {
            match self.evaluate::<Option<Parts>>(&attribute, PARTS).await {
                Ok(Some(parts)) => return self.attribute(installable.to_owned(), attribute, &parts),
                Ok(None) => {
                    let reason = "a dev shell is a derivation, and this is none";
                    return Err(InstallableError { text: attribute, reason }.into());
                }
                Err(error) if is_no_attribute(&error, &attribute) => {}
                Err(error) => return Err(error),
            }
        }
        // Nix itself says best what it has looked for.
        let named = [installable.to_owned()];
        let words = command(&["print-dev-env"], &self.arguments.options, &MAKE_NOTHING, &named);
        match self.nix().run(&words).await {
            Err(NixError::Failed { message, .. }) => {
                Err(NixError::Failed { command: self.develop_command(installable), message }.into())
            }
            Err(error) => Err(error.into()),
            Ok(_) => {
                let reason = "it finds a dev shell where cache-helper finds none".to_owned();
                Err(NixError::Unexpected { command: self.develop_command(installable), reason }.into())
            }
        }
    }

    /// The shell that is an attribute of `--file` or `--expr`. (`nix eval` would not call a function there, as `nix develop` does.)
    async fn shell_of_source(&self, installable: &str) -> Result<Shell, ResolveError> {
        let derivations = self.derivations(&[installable.to_owned()]).await?;
        let [derivation] = derivations.as_slice() else {
            let reason = "a dev shell is one derivation, and these are several";
            return Err(InstallableError { text: installable.to_owned(), reason }.into());
        };
        // `.` is the whole.
        let inputs = match installable {
            "." => "inputDerivation".to_owned(),
            attribute => format!("{attribute}.inputDerivation"),
        };
        let found = match self.derivations(std::slice::from_ref(&inputs)).await {
            Err(error) if has_no_inputs(&error) => None,
            result => result?.into_iter().next(),
        };
        Ok(Shell::Attribute {
            installable: installable.to_owned(),
            attribute: installable.to_owned(),
            derivation: derivation.clone(),
            inputs: found.map(|derivation| (inputs, derivation)),
        })
    }

    /// A shell by what evaluation says of its attribute.
    pub(super) fn attribute(
        &self,
        installable: String,
        attribute: String,
        parts: &Parts,
    ) -> Result<Shell, ResolveError> {
        let inputs = parts.inputs.as_deref().map(|inputs| self.printed_path(inputs)).transpose()?;
        let inputs = inputs.map(|inputs| (format!("{attribute}.inputDerivation"), inputs));
        let derivation = self.printed_path(&parts.derivation)?;
        Ok(Shell::Attribute { installable, attribute, derivation, inputs })
    }
}

/// Whether Nix failed because an attribute of a file or an expression has no `inputDerivation`.
fn has_no_inputs(error: &ResolveError) -> bool {
    first_line(error).is_some_and(|line| {
        line.starts_with("attribute 'inputDerivation' in selection path '") && line.ends_with("' not found")
    })
}

/// The attributes that `nix develop` looks for, in its order (`getDefaultFlakeAttrPaths` and
/// `getDefaultFlakeAttrPathPrefixes` in its source); one that is written in full comes first.
fn candidates(installable: &str, system: &str) -> Vec<String> {
    let (flake, attribute) = split_reference(installable);
    let attributes = if attribute.is_empty() {
        vec![
            format!("devShells.{system}.default"),
            format!("devShell.{system}"),
            format!("packages.{system}.default"),
            format!("defaultPackage.{system}"),
        ]
    } else if let Some(whole) = attribute.strip_prefix('.') {
        // Since Nix 2.19: nothing goes before it.
        vec![whole.to_owned()]
    } else {
        let prefixes = ["devShells", "packages", "legacyPackages"].map(|kind| format!("{kind}.{system}."));
        let is_full = prefixes.iter().any(|prefix| attribute.starts_with(prefix));
        let mut attributes: Vec<String> =
            prefixes.iter().map(|prefix| format!("{prefix}{attribute}")).collect();
        attributes.insert(if is_full { 0 } else { attributes.len() }, attribute.to_owned());
        attributes
    };
    attributes.iter().map(|attribute| format!("{flake}#{attribute}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_looked_for_where_nix_develop_looks() {
        assert_eq!(
            candidates(".", "s"),
            [".#devShells.s.default", ".#devShell.s", ".#packages.s.default", ".#defaultPackage.s"]
        );
        assert_eq!(
            candidates("a#b", "s"),
            ["a#devShells.s.b", "a#packages.s.b", "a#legacyPackages.s.b", "a#b"]
        );
        assert_eq!(candidates("#.b", "s"), [".#b"]);
        assert_eq!(candidates("a#devShells.s.b", "s")[0], "a#devShells.s.b");
        assert_eq!(candidates("a#devShells.s.b", "s").len(), 4);
    }
}
