//! What a flake offers for one system, as installables.

use nix_derivation::StorePath;

use super::{is_no_attribute, split_reference};
use crate::nix::installable::{Installable, Outputs};
use crate::nix::program::NixError;
use crate::nix::resolver::{ResolveError, Resolver, command};

/// Everything that a flake offers for one system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlakeOutputs {
    /// Packages, checks, the formatter, and what apps run.
    pub builds: Vec<Installable>,
    /// Dev shells.
    pub dev_shells: Vec<String>,
}

/// What an app runs: the derivations that the program's path comes from. (`builtins.getContext` is in Nix since 2.3.)
const PROGRAMS: &str = "apps: builtins.concatMap \
    (name: builtins.attrNames (builtins.getContext apps.${name}.program)) (builtins.attrNames apps)";

impl Resolver<'_> {
    /// What a flake offers for `system`. Only names are evaluated, and what apps run.
    ///
    /// # Errors
    ///
    /// When Nix cannot evaluate it.
    pub async fn flake_outputs(&self, flake: &str, system: &str) -> Result<FlakeOutputs, ResolveError> {
        let flake = split_reference(flake).0;
        let mut outputs = FlakeOutputs::default();
        for kind in ["packages", "checks"] {
            let attribute = format!("{flake}#{kind}.{system}");
            for name in self.names(&attribute, "builtins.attrNames").await? {
                let attribute = format!("{attribute}.{}", quoted(&name));
                outputs.builds.push(Installable::Expression(attribute, None));
            }
        }
        let formatter = format!("{flake}#formatter.{system}");
        if !self.names(&formatter, "formatter: [ formatter.name ]").await?.is_empty() {
            outputs.builds.push(Installable::Expression(formatter, None));
        }
        for path in self.names(&format!("{flake}#apps.{system}"), PROGRAMS).await? {
            outputs.builds.extend(self.store.parse(&path).map(made_by));
        }
        let shells = format!("{flake}#devShells.{system}");
        let names = self.names(&shells, "builtins.attrNames").await?;
        outputs.dev_shells = names.iter().map(|name| format!("{shells}.{}", quoted(name))).collect();
        Ok(outputs)
    }

    /// A list of strings that a function makes of an attribute; empty where there is no such attribute.
    async fn names(&self, attribute: &str, function: &str) -> Result<Vec<String>, ResolveError> {
        let subcommand = ["eval", "--json", "--apply", function];
        let words = command(&subcommand, &self.arguments.options, &[attribute.to_owned()]);
        let text = match self.nix().run(&words).await.map_err(ResolveError::from) {
            Err(error) if is_no_attribute(&error) => return Ok(Vec::new()),
            result => result?,
        };
        Ok(serde_json::from_str(&text).map_err(|error| NixError::Unexpected {
            command: "nix eval --json".to_owned(),
            reason: error.to_string(),
        })?)
    }
}

/// A derivation stands for all its outputs, and a source for itself.
fn made_by(path: StorePath) -> Installable {
    if path.is_derivation() { Installable::Derivation(path, Outputs::All) } else { Installable::Path(path) }
}

/// A name as it stands in an attribute path.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.chars().all(is_plain) { name.to_owned() } else { format!("\"{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_a_dot_would_split_them() {
        assert_eq!(quoted("cache-helper_2"), "cache-helper_2");
        assert_eq!(quoted("python3.11"), "\"python3.11\"");
    }
}
