//! What `nix develop` needs of a shell: its inputs, and the environment that Nix makes of it.
//!
//! Nix does not build the derivation of a shell. It rewrites it to one whose builder writes the environment to a file (its
//! name ends in `-env`), and builds that. The script of the builder is part of Nix, so that each version of Nix makes an
//! environment of its own. (Nix's source: `src/nix/develop.cc`.)

use std::fs;
use std::path::Path;

use nix_derivation::StorePath;

use super::shell::Shell;
use crate::nix::command_line;
use crate::nix::installable::Installable;
use crate::nix::program::NixError;
use crate::nix::resolver::{MAKE_NOTHING, ResolveError, Resolver, command, shown};

/// A dev shell whose parts are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevShell {
    /// How it was named.
    pub installable: String,
    /// The derivation of the environment, where the store knows it.
    pub environment_derivation: Option<StorePath>,
    /// What that makes.
    pub environment: Vec<StorePath>,
    /// The outputs of the shell's `inputDerivation`, which refers to all that the shell is made of. Empty where it has none,
    /// because it was not made by nixpkgs' `mkDerivation`.
    pub inputs: Vec<StorePath>,
    /// The bash that `nix develop` starts. Empty where that is not known.
    pub bash: Vec<StorePath>,
    /// What is missing of all this, and why, as sentences without a full stop.
    pub gaps: Vec<String>,
}

impl Resolver<'_> {
    /// The parts of a dev shell, each valid, but for the bash.
    ///
    /// # Errors
    ///
    /// When a part is not valid and may not be built, or Nix fails.
    pub async fn dev_shell(&self, shell: &Shell, temporary: &Path) -> Result<DevShell, ResolveError> {
        let mut parts = match shell {
            Shell::Environment { path, .. } => {
                let environment = self.resolve(&[Installable::Path(path.clone())]).await?;
                let environment_derivation = self.store.maker(path).await?;
                DevShell::new(shell, environment_derivation, environment)
            }
            Shell::Attribute { derivation, .. } | Shell::Derivation { derivation, .. } => {
                self.environment(shell, derivation, temporary).await?
            }
        };
        parts.inputs = self.shell_inputs(shell).await?;
        if parts.inputs.is_empty() {
            let shown = parts.shown();
            let missing = match shell {
                Shell::Attribute { .. } => format!("the dev shell {shown} has no inputDerivation"),
                Shell::Derivation { .. } | Shell::Environment { .. } => {
                    format!("of the dev shell {shown} no inputDerivation is known")
                }
            };
            parts.gaps.push(format!("{missing}: of its inputs there is what its environment refers to"));
        }
        Ok(parts)
    }

    /// The environment, as the installed Nix makes it: its derivation, and where it is.
    async fn environment(
        &self,
        shell: &Shell,
        derivation: &StorePath,
        temporary: &Path,
    ) -> Result<DevShell, ResolveError> {
        let unusable = |source| ResolveError::Temporary { directory: temporary.to_owned(), source };
        let directory = tempfile::TempDir::new_in(temporary).map_err(unusable)?;
        // Only a profile tells which path it is.
        let profile = directory.path().join("environment");
        self.make_environment(shell, derivation, &profile).await?;
        let path = fs::read_link(&profile)
            .and_then(|generation| fs::read_link(directory.path().join(generation)))
            .map_err(unusable)?;
        let path = path.to_str().and_then(|path| self.store.parse(path)).ok_or_else(|| {
            let reason = format!("its profile leads to {}", path.display());
            NixError::Unexpected { command: "nix print-dev-env".to_owned(), reason }
        })?;
        // Nix makes all outputs valid, and reads the first that is not empty.
        let maker = self.store.maker(&path).await?;
        let outputs = maker.as_ref().map(|maker| self.outputs_of(maker)).transpose()?;
        let outputs: Option<Vec<StorePath>> = outputs.and_then(|outputs| outputs.into_values().collect());
        let mut parts = DevShell::new(shell, maker, outputs.unwrap_or_else(|| vec![path]));
        // Where the outputs of a derivation are is not known beforehand if it is content-addressed, or needs something that is.
        if self.outputs_of(derivation)?.values().any(Option::is_none) {
            parts.gaps.push(format!(
                "the dev shell {} is content-addressed, or needs what is: a cache gets that, but not which derivation it is \
                 made by (realisations), so that `nix develop` may build it again",
                parts.shown()
            ));
        }
        Ok(parts)
    }

    /// Lets Nix make the environment, with its path as a profile. What may not be built must be there.
    async fn make_environment(
        &self,
        shell: &Shell,
        derivation: &StorePath,
        profile: &Path,
    ) -> Result<(), ResolveError> {
        let profile = profile.display().to_string();
        let subcommand = ["print-dev-env", "--profile", &profile];
        let by_derivation = [self.store.dir().render_path(derivation)];
        let result = match shell {
            // By its name where there is one: Nix then knows the flake's own settings, such as a cache that has what it needs.
            Shell::Attribute { attribute, .. } if self.build => {
                let named = [attribute.clone()];
                let words = command(&subcommand, &self.arguments.options, &[], &named);
                self.nix().run_visibly("nix", &words).await
            }
            _ => {
                // No attribute of `--file`. Nothing is evaluated, so that no settings of a flake win over these flags, and
                // what Nix says is about this derivation.
                let options = self.arguments.without_source();
                let flags = if self.build { &[][..] } else { &MAKE_NOTHING };
                let words = command(&subcommand, &options, flags, &by_derivation);
                if self.build {
                    self.nix().run_visibly("nix", &words).await
                } else {
                    self.nix().run(&words).await
                }
            }
        };
        // A person would not use a profile in a directory that is gone by then.
        let develop = self.develop_command(shell.installable());
        match result {
            Ok(_) => Ok(()),
            Err(NixError::Failed { message, .. }) if !self.build && may_build_nothing(&message) => {
                tracing::debug!(message, "the environment cannot be had without building");
                let installable = command_line::word(shell.installable());
                let version = self.nix().full_version().to_owned();
                Err(ResolveError::NoEnvironment { installable, version, command: develop })
            }
            Err(NixError::Failed { message, .. }) => {
                Err(NixError::Failed { command: develop, message }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The command that enters a dev shell and leaves it at once, as a person would type it.
    pub(super) fn develop_command(&self, installable: &str) -> String {
        let named = [installable.to_owned()];
        format!("{} --command true", shown(&command(&["develop"], &self.arguments.options, &[], &named)))
    }

    /// The outputs of a shell's `inputDerivation`.
    async fn shell_inputs(&self, shell: &Shell) -> Result<Vec<StorePath>, ResolveError> {
        let Shell::Attribute { inputs: Some((attribute, derivation)), .. } = shell else {
            return Ok(Vec::new());
        };
        let outputs: Option<Vec<StorePath>> = self.outputs_of(derivation)?.into_values().collect();
        match outputs {
            Some(outputs) => self.outputs_of_expression(attribute, derivation, &outputs).await,
            None => self.resolve(&[Installable::Expression(attribute.clone(), None)]).await,
        }
    }
}

impl DevShell {
    fn new(shell: &Shell, environment_derivation: Option<StorePath>, environment: Vec<StorePath>) -> Self {
        let installable = shell.installable().to_owned();
        let (inputs, bash, gaps) = Default::default();
        Self { installable, environment_derivation, environment, inputs, bash, gaps }
    }

    /// How it was named, fit to print.
    pub fn shown(&self) -> String {
        command_line::word(&self.installable)
    }
}

/// Whether Nix failed because it may build nothing. Nix's words up to 2.2x, and those of newer ones; both at the beginning,
/// because what it quotes may say anything.
fn may_build_nothing(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.starts_with("unable to start any build;")
        || (message.starts_with("cannot build '") && message.contains("max-jobs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nix_itself_says_at_the_beginning_is_taken_for_its_refusal() {
        for message in [
            "unable to start any build; either increase '--max-jobs' or enable remote builds.\n  https://nixos.org/",
            "Cannot build '/nix/store/x-env.drv'.\n  Reason: local builds are disabled (max-jobs = 0)",
        ] {
            assert!(may_build_nothing(message), "{message}");
        }
        for message in [
            "'nix develop' only works on derivations that use 'bash' as their builder",
            "while evaluating x\n  unable to start any build; either increase '--max-jobs'",
            "Cannot build '/nix/store/x.drv'.\n  Reason: required system or feature not available",
            "set max-jobs",
        ] {
            assert!(!may_build_nothing(message), "{message}");
        }
    }
}
