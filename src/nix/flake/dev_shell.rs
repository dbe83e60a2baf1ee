//! What `nix develop` needs: the shell's inputs, the environment that Nix makes of them, and the bash that it starts.
//!
//! Nix does not build the derivation of a shell. It rewrites it to one whose builder writes the environment to a file (its
//! name ends in `-env`), builds that, and takes `bashInteractive` from the flake's own nixpkgs. The script of the
//! builder is part of Nix, so that each version of Nix makes an environment of its own. (Nix's source: `src/nix/develop.cc`.)

use std::fs;
use std::path::Path;

use nix_derivation::StorePath;

use super::{Flake, is_no_attribute, split_reference};
use crate::nix::installable::Installable;
use crate::nix::program::NixError;
use crate::nix::resolver::{ResolveError, Resolver, command, shown};

/// A file that is not there is an empty registry to every version of Nix.
const NO_REGISTRY: &str = "/nonexistent/registry.json";

/// A dev shell whose parts are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevShell {
    /// How it was named.
    pub installable: String,
    /// The derivation of the environment.
    pub environment_derivation: Option<StorePath>,
    /// Its outputs.
    pub environment: Vec<StorePath>,
    /// The outputs of the shell's `inputDerivation`, which refers to all that the shell is made of. Empty where it has none,
    /// because it was not made by nixpkgs' `mkDerivation`.
    pub inputs: Vec<StorePath>,
    /// The bash that `nix develop` starts. Empty where the flake has no nixpkgs, or that has none.
    pub bash: Vec<StorePath>,
    /// What is missing of all this, and why, as sentences without a full stop.
    pub gaps: Vec<String>,
}

impl Resolver<'_> {
    /// The parts of the dev shell that `nix develop INSTALLABLE` would enter, each valid.
    ///
    /// `flake` is the one that the installable names, unless it is an attribute of `--file` or `--expr`.
    ///
    /// # Errors
    ///
    /// When there is no such shell, or a part is not valid and may not be built.
    pub async fn dev_shell(
        &self,
        installable: &str,
        flake: Option<&Flake>,
        system: &str,
        temporary: &Path,
    ) -> Result<DevShell, ResolveError> {
        // With the user's own settings first, so that what evaluation itself needs is fetched as usual.
        let attribute = self.shell_attribute(installable, system).await?;
        let (environment_derivation, environment) = self.environment(installable, temporary).await?;
        let mut gaps = Vec::new();
        let inputs = match attribute {
            Some(attribute) => self.input_derivation(&attribute).await?,
            None => Vec::new(),
        };
        if inputs.is_empty() {
            gaps.push(format!(
                "the dev shell {installable} has no inputDerivation: of its inputs there is what its environment refers to"
            ));
        }
        let bash = match flake {
            Some(flake) => self.bash(flake, &mut gaps).await?,
            None => Vec::new(),
        };
        let installable = installable.to_owned();
        Ok(DevShell { installable, environment_derivation, environment, inputs, bash, gaps })
    }

    /// The attribute that `nix develop` takes for a shell, named in full.
    async fn shell_attribute(&self, installable: &str, system: &str) -> Result<Option<String>, ResolveError> {
        for candidate in candidates(installable, system, self.arguments.has_source) {
            match self.derivations(std::slice::from_ref(&candidate)).await {
                Ok(_) => return Ok(Some(candidate)),
                Err(error) if is_no_attribute(&error) => {}
                Err(error) => return Err(error),
            }
        }
        // Nix itself says best what it has looked for.
        Ok(None)
    }

    /// The environment, as the installed Nix makes it: its derivation, and where it is.
    async fn environment(
        &self,
        installable: &str,
        temporary: &Path,
    ) -> Result<(Option<StorePath>, Vec<StorePath>), ResolveError> {
        let unusable = |source| ResolveError::Temporary { directory: temporary.to_owned(), source };
        let directory = tempfile::TempDir::new_in(temporary).map_err(unusable)?;
        // Only a profile tells which path it is.
        let profile = directory.path().join("environment");
        let profile_text = profile.display().to_string();
        let mut subcommand = vec!["print-dev-env", "--profile", &profile_text];
        let installables = [installable.to_owned()];
        if self.build {
            let words = command(&subcommand, &self.arguments.options, &installables);
            self.nix().run_visibly("nix", &words).await?;
        } else {
            subcommand.extend([
                "--max-jobs",
                "0",
                "--option",
                "builders",
                "",
                "--option",
                "substitute",
                "false",
            ]);
            let words = command(&subcommand, &self.arguments.options, &installables);
            self.nix().run(&words).await.map_err(|error| match error {
                // What Nix says when it may build nothing. Anything else is for the user to read.
                NixError::Failed { message, .. } if message.contains("max-jobs") => {
                    tracing::debug!(message, "the environment cannot be had without building");
                    let words = command(&["develop"], &self.arguments.options, &installables);
                    let command = format!("{} --command true", shown(&words));
                    let version = self.nix().full_version().to_owned();
                    ResolveError::NoEnvironment { installable: installable.to_owned(), version, command }
                }
                error => error.into(),
            })?;
        }
        let path = fs::read_link(&profile)
            .and_then(|generation| fs::read_link(directory.path().join(generation)))
            .map_err(unusable)?;
        let path = path.to_str().and_then(|path| self.store.parse(path)).ok_or_else(|| {
            let reason = format!("its profile leads to {}", path.display());
            NixError::Unexpected { command: "nix print-dev-env".to_owned(), reason }
        })?;
        // Nix makes all outputs valid, and reads the first that is not empty.
        let derivation = self.store.maker(&path).await?;
        let outputs = derivation.as_ref().map(|derivation| self.outputs_of(derivation)).transpose()?;
        let outputs: Option<Vec<StorePath>> = outputs.and_then(|outputs| outputs.into_values().collect());
        Ok((derivation, outputs.unwrap_or_else(|| vec![path])))
    }

    async fn input_derivation(&self, attribute: &str) -> Result<Vec<StorePath>, ResolveError> {
        // `.` is the whole of `--file` or `--expr`.
        let inputs = match attribute {
            "." => "inputDerivation".to_owned(),
            attribute => format!("{attribute}.inputDerivation"),
        };
        match self.resolve(&[Installable::Expression(inputs, None)]).await {
            Err(error) if is_no_attribute(&error) || is_no_member(&error) => Ok(Vec::new()),
            result => result,
        }
    }

    async fn bash(&self, flake: &Flake, gaps: &mut Vec<String>) -> Result<Vec<StorePath>, ResolveError> {
        let Some(nixpkgs) = flake.nixpkgs() else { return Ok(Vec::new()) };
        // As in `nix develop`: what is overridden is the flake's inputs, and not those of its nixpkgs.
        let mut arguments = self.arguments.without_overridden_inputs();
        let nixpkgs = if arguments.options == self.arguments.options {
            // Locked by its hash also where a reference on the command line cannot be. The registry is of no use then, and old
            // versions would download it.
            let words = ["--inputs-from", &flake.reference, "--option", "flake-registry", NO_REGISTRY];
            arguments.options.extend(words.map(str::to_owned));
            "nixpkgs".to_owned()
        } else {
            nixpkgs
        };
        let resolver = Resolver { store: self.store, arguments: &arguments, build: self.build };
        let bash = Installable::Expression(format!("{nixpkgs}#bashInteractive"), None);
        match resolver.resolve(&[bash]).await {
            // Nix says so too, and goes on with the bash that is on PATH.
            Err(error @ ResolveError::Nix(NixError::Failed { .. })) => {
                gaps.push(format!("the bash that `nix develop` starts is left out: {error}"));
                Ok(Vec::new())
            }
            result => result,
        }
    }
}

/// Whether Nix failed because an attribute of a file or an expression is not there.
fn is_no_member(error: &ResolveError) -> bool {
    matches!(error, ResolveError::Nix(NixError::Failed { message, .. })
        if message.contains("'inputDerivation'") && message.contains("not found"))
}

/// The attributes that `nix develop` looks for, in its order (`getDefaultFlakeAttrPaths` and
/// `getDefaultFlakeAttrPathPrefixes` in its source).
fn candidates(installable: &str, system: &str, has_source: bool) -> Vec<String> {
    if has_source {
        return vec![installable.to_owned()];
    }
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
        vec![
            format!("devShells.{system}.{attribute}"),
            format!("packages.{system}.{attribute}"),
            format!("legacyPackages.{system}.{attribute}"),
            attribute.to_owned(),
        ]
    };
    attributes.iter().map(|attribute| format!("{flake}#{attribute}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_looked_for_where_nix_develop_looks() {
        assert_eq!(candidates("x", "s", true), ["x"]);
        assert_eq!(
            candidates(".", "s", false),
            [".#devShells.s.default", ".#devShell.s", ".#packages.s.default", ".#defaultPackage.s"]
        );
        assert_eq!(
            candidates("a#b", "s", false),
            ["a#devShells.s.b", "a#packages.s.b", "a#legacyPackages.s.b", "a#b"]
        );
        assert_eq!(candidates("#.b", "s", false), [".#b"]);
    }
}
