//! What a flake offers for one system, as installables.

use std::collections::BTreeMap;

use nix_derivation::StorePath;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::shell::{PARTS, Parts, Shell};
use super::{is_no_attribute, split_reference};
use crate::nix::command_line;
use crate::nix::installable::{Installable, Outputs};
use crate::nix::program::NixError;
use crate::nix::resolver::{ResolveError, Resolver, command};
use crate::text::Printable;

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

/// What apps run: what their programs' paths come from. (`builtins.getContext` is in Nix since 2.3.)
const PROGRAMS: &str = "apps: builtins.concatMap (name: \
    let context = builtins.getContext apps.${name}.program; in \
    map (path: { inherit path; outputs = context.${path}.outputs or [ ]; all = context.${path}.allOutputs or false; }) \
    (builtins.attrNames context)) (builtins.attrNames apps)";

/// A part of what an app runs.
#[derive(Debug, Deserialize)]
struct Program {
    path: String,
    outputs: Vec<String>,
    all: bool,
}

impl Resolver<'_> {
    /// What a flake offers for `system`. Names are evaluated, what apps run, and the derivations of dev shells.
    ///
    /// # Errors
    ///
    /// When Nix cannot evaluate it.
    pub async fn flake_outputs(&self, flake: &str, system: &str) -> Result<FlakeOutputs, ResolveError> {
        let flake = split_reference(flake).0;
        let mut outputs = FlakeOutputs::default();
        let left_out = |what: &str, name: &str, why: &str| {
            let flake = command_line::word(flake);
            format!("{what} '{}' of the flake {flake} is left out: {why}", Printable(name))
        };
        for (kind, what) in [("packages", "the package"), ("checks", "the check")] {
            let attribute = format!("{flake}#{kind}.{system}");
            let names: Vec<String> = self.evaluate_if_there(&attribute, "builtins.attrNames").await?;
            for name in names {
                match written(&name) {
                    Some(name) => {
                        outputs.builds.push(Installable::Expression(format!("{attribute}.{name}"), None));
                    }
                    None => outputs.gaps.push(left_out(what, &name, UNWRITABLE)),
                }
            }
        }
        let formatter = format!("{flake}#formatter.{system}");
        if self.evaluate_if_there::<Vec<String>>(&formatter, "formatter: [ formatter.name ]").await?
            != [""; 0]
        {
            outputs.builds.push(Installable::Expression(formatter, None));
        }
        let programs: Vec<Program> =
            self.evaluate_if_there(&format!("{flake}#apps.{system}"), PROGRAMS).await?;
        outputs.builds.extend(programs.into_iter().filter_map(|program| {
            let path = self.store.parse(&program.path)?;
            Some(made_by(path, program))
        }));
        let attribute = format!("{flake}#devShells.{system}");
        let each = format!("builtins.mapAttrs (_: {PARTS})");
        let shells: BTreeMap<String, Option<Parts>> = self.evaluate_if_there(&attribute, &each).await?;
        for (name, parts) in shells {
            match (written(&name), parts) {
                (Some(name), Some(parts)) => {
                    let attribute = format!("{attribute}.{name}");
                    outputs.dev_shells.push(self.attribute(attribute.clone(), attribute, &parts)?);
                }
                (Some(_), None) => {
                    outputs.gaps.push(left_out("the dev shell", &name, "it is no derivation"));
                }
                (None, _) => outputs.gaps.push(left_out("the dev shell", &name, UNWRITABLE)),
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

/// A derivation stands for those of its outputs that are run, and a source for itself.
fn made_by(path: StorePath, program: Program) -> Installable {
    match program {
        Program { all: true, .. } => Installable::Derivation(path, Outputs::All),
        Program { outputs, .. } if outputs.is_empty() => Installable::Path(path),
        Program { outputs, .. } => Installable::Derivation(path, Outputs::Named(outputs)),
    }
}

const UNWRITABLE: &str = "Nix has no way to write such a name on a command line";

/// What stands for itself in a quoted name, in every version of Nix.
const IN_NAME: AsciiSet = NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'+');

/// A name as it stands in the attribute path of a flake reference. Quotes have no escape there, and an empty name is no name.
fn written(name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match name {
        "" => None,
        name if name.contains('"') => None,
        name if name.chars().all(is_plain) => Some(name.to_owned()),
        name => Some(format!("\"{}\"", utf8_percent_encode(name, &IN_NAME))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_a_dot_would_split_them_and_encoded_where_a_url_would() {
        let cases = [
            ("cache-helper_2", Some("cache-helper_2")),
            ("python3.11", Some("\"python3.11\"")),
            ("a^b%c#d e", Some("\"a%5Eb%25c%23d%20e\"")),
            ("ä\n\u{1b}", Some("\"%C3%A4%0A%1B\"")),
            ("a\"b", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(written(name).as_deref(), expected, "{name:?}");
        }
    }
}
