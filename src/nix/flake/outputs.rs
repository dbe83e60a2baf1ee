//! What a flake offers for one system, as installables.

use std::collections::BTreeMap;

use nix_derivation::StorePath;
use serde::de::DeserializeOwned;

use super::shell::{PARTS, Parts, Shell};
use super::{is_no_attribute, split_reference};
use crate::nix::command_line;
use crate::nix::installable::{Installable, Outputs};
use crate::nix::program::NixError;
use crate::nix::resolver::{ResolveError, Resolver, command};

/// Everything that a flake offers for one system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlakeOutputs {
    /// Packages, checks, the formatter, and what apps run.
    pub builds: Vec<Installable>,
    /// Dev shells.
    pub dev_shells: Vec<Shell>,
    /// What is left out, and why, as sentences without a full stop.
    pub gaps: Vec<String>,
}

impl FlakeOutputs {
    /// Whether it offers nothing.
    pub fn is_empty(&self) -> bool {
        self.builds.is_empty() && self.dev_shells.is_empty() && self.gaps.is_empty()
    }
}

/// What an app runs: the derivations that the program's path comes from. (`builtins.getContext` is in Nix since 2.3.)
const PROGRAMS: &str = "apps: builtins.concatMap \
    (name: builtins.attrNames (builtins.getContext apps.${name}.program)) (builtins.attrNames apps)";

impl Resolver<'_> {
    /// What a flake offers for `system`. Names are evaluated, what apps run, and the derivations of dev shells.
    ///
    /// # Errors
    ///
    /// When Nix cannot evaluate it.
    pub async fn flake_outputs(&self, flake: &str, system: &str) -> Result<FlakeOutputs, ResolveError> {
        let flake = split_reference(flake).0;
        let mut outputs = FlakeOutputs::default();
        for kind in ["packages", "checks"] {
            let attribute = format!("{flake}#{kind}.{system}");
            let names: Vec<String> = self.evaluate_if_there(&attribute, "builtins.attrNames").await?;
            for name in names {
                let attribute = format!("{attribute}.{}", quoted(&name));
                outputs.builds.push(Installable::Expression(attribute, None));
            }
        }
        let formatter = format!("{flake}#formatter.{system}");
        if self.evaluate_if_there::<Vec<String>>(&formatter, "formatter: [ formatter.name ]").await?
            != [""; 0]
        {
            outputs.builds.push(Installable::Expression(formatter, None));
        }
        let paths: Vec<String> = self.evaluate_if_there(&format!("{flake}#apps.{system}"), PROGRAMS).await?;
        outputs.builds.extend(paths.iter().filter_map(|path| self.store.parse(path).map(made_by)));
        let attribute = format!("{flake}#devShells.{system}");
        let each = format!("builtins.mapAttrs (_: {PARTS})");
        let shells: BTreeMap<String, Option<Parts>> = self.evaluate_if_there(&attribute, &each).await?;
        for (name, parts) in shells {
            let attribute = format!("{attribute}.{}", quoted(&name));
            match parts {
                Some(parts) => {
                    outputs.dev_shells.push(self.attribute(attribute.clone(), attribute, &parts)?);
                }
                None => outputs
                    .gaps
                    .push(format!("{} is left out: it is no derivation", command_line::word(&attribute))),
            }
        }
        Ok(outputs)
    }

    /// What a function makes of an attribute; the default where there is no such attribute.
    async fn evaluate_if_there<T>(&self, attribute: &str, function: &str) -> Result<T, ResolveError>
    where
        T: DeserializeOwned + Default,
    {
        match self.evaluate(attribute, function).await {
            Err(error) if is_no_attribute(&error, attribute) => Ok(T::default()),
            result => result,
        }
    }

    /// What a function makes of an attribute.
    pub(super) async fn evaluate<T>(&self, attribute: &str, function: &str) -> Result<T, ResolveError>
    where
        T: DeserializeOwned,
    {
        let subcommand = ["eval", "--json", "--apply", function];
        let words = command(&subcommand, &self.arguments.options, &[], &[attribute.to_owned()]);
        let text = self.nix().run(&words).await?;
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
