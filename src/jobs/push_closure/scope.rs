//! What a push is about: where its closure begins, and what of it leaves this machine only when that is meant.

use nix_derivation::StorePath;

use super::logins::Logins;
use super::{PushClosureError, Request};
use crate::event::{Event, Reporter};
use crate::jobs::LocalNix;
use crate::nix::{
    Bash, DevShell, Flake, FlakeSource, Inputs, Installable, NixError, Outputs, ResolveError, Resolver,
    Shell, SourceKind, flakes_of, is_whole_flake, revision,
};
use crate::text::Printable;

/// What is meant by what was named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Dev shells, as `nix develop` takes them, and not packages.
    pub dev_shell: bool,
    /// Everything that the flakes offer for this system, dev shells among it.
    pub flake_outputs: bool,
    /// Besides, the sources of the flakes' inputs, and of theirs.
    pub flake_inputs: bool,
    /// Besides, the flakes' own sources; and inputs that are not public, and derivations, may be pushed.
    pub include_sources: bool,
}

/// Where a closure begins.
#[derive(Debug, Default)]
pub(super) struct Roots {
    pub(super) paths: Vec<StorePath>,
    /// The revision of the first flake.
    pub(super) revision: Option<String>,
    /// The dev shells that were named, and their parts.
    pub(super) dev_shells: Vec<(Shell, DevShell)>,
    /// What is known of sources, in the closure or not.
    pub(super) sources: Vec<FlakeSource>,
}

/// A flag that does not fit what was named.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScopeError {
    /// No flake is named.
    #[error("{flags} need{} a flake, and {named} names none", if .flags.contains(" and ") { "" } else { "s" })]
    NoFlake {
        /// The flags.
        flags: String,
        /// What is named.
        named: String,
    },
    /// An attribute is named where a flake should be.
    #[error("--flake-outputs takes a flake, and not an attribute of one: '{}'", Printable(.0))]
    NotAFlake(String),
    /// Outputs are chosen of what has none.
    #[error("{what} has no outputs to choose from: '{}'", Printable(.named))]
    NoOutputs {
        /// What it is.
        what: &'static str,
        /// What is named.
        named: String,
    },
    /// A path is named where a dev shell should be.
    #[error(
        "{path} is no dev shell: neither a derivation nor an environment that `nix develop` has made (…-env)"
    )]
    NotAShell {
        /// The path.
        path: String,
    },
    /// Flakes offer nothing that could be pushed.
    #[error("{flakes} offers nothing for {system}: no packages, checks, apps, dev shells or formatter")]
    NothingOffered {
        /// The flakes.
        flakes: String,
        /// For which system.
        system: String,
    },
}

/// Finds the roots for what was named, each valid.
pub(super) async fn roots(
    request: &Request,
    local: &LocalNix,
    logins: &Logins,
    reporter: &Reporter,
) -> Result<Roots, PushClosureError> {
    let arguments = &request.arguments;
    let installables = local.installables(&request.installables, &request.directory, arguments, reporter)?;
    let resolver = Resolver { store: &local.store, arguments, build: request.build };
    let finding = Finding { request, local, logins, resolver: &resolver, reporter };
    let references = finding.references(&installables)?;
    let named = finding.expand(&installables).await?;
    let mut roots = Roots::default();
    // Nothing at all stands for the default package, but only where nothing was named.
    if !named.builds.is_empty() || (installables.is_empty() && named.shells.is_empty()) {
        roots.paths = resolver.resolve(&named.builds).await?;
    }
    for shell in &named.shells {
        finding.add_shell(shell, &mut roots).await?;
    }
    // Not before: where there is no lock file yet, or an old one, evaluation writes one, and then the flake is another.
    let flakes = finding.read(&references).await?;
    roots.revision = revision(&flakes);
    let flakes: Vec<Flake> = flakes.into_iter().filter_map(Result::ok).collect();
    for flake in &flakes {
        finding.add_flake(flake, &mut roots).await?;
    }
    finding.warn_of_unknown_bash(&flakes, &roots);
    finding.warn_of_empty(&named.empty, &roots)?;
    Ok(roots)
}

/// What was named, taken apart.
#[derive(Debug, Default)]
struct Named {
    /// What is to be resolved as `nix build` would.
    builds: Vec<Installable>,
    /// What is to be resolved as `nix develop` would.
    shells: Vec<Shell>,
    /// Flakes that offer nothing.
    empty: Vec<String>,
}

/// The search for the roots of one request.
struct Finding<'a> {
    request: &'a Request,
    local: &'a LocalNix,
    logins: &'a Logins,
    resolver: &'a Resolver<'a>,
    reporter: &'a Reporter,
}

impl Finding<'_> {
    fn system(&self) -> &str {
        self.request.arguments.system().unwrap_or(&self.local.settings.system)
    }

    /// The flakes that were named.
    fn references(&self, installables: &[Installable]) -> Result<Vec<String>, ScopeError> {
        let scope = self.request.scope;
        let references = flakes_of(installables, &self.request.arguments);
        if references.is_empty() && (scope.flake_inputs || scope.flake_outputs) {
            let flags = [("--flake-inputs", scope.flake_inputs), ("--flake-outputs", scope.flake_outputs)];
            let flags: Vec<&str> =
                flags.iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| *flag).collect();
            let named: Vec<String> =
                self.request.installables.iter().map(|text| Printable(text).to_string()).collect();
            let named = if named.is_empty() { "a file or an expression".to_owned() } else { named.join(" ") };
            return Err(ScopeError::NoFlake { flags: flags.join(" and "), named });
        }
        Ok(references)
    }

    async fn expand(&self, installables: &[Installable]) -> Result<Named, PushClosureError> {
        let scope = self.request.scope;
        let mut named = Named::default();
        if installables.is_empty() && scope.dev_shell {
            named.shells.push(self.resolver.shell(".", self.system()).await?);
        }
        for installable in installables {
            match installable {
                Installable::Expression(text, _) if scope.flake_outputs && !is_whole_flake(text) => {
                    return Err(ScopeError::NotAFlake(text.clone()).into());
                }
                Installable::Expression(text, Some(outputs)) if scope.flake_outputs || scope.dev_shell => {
                    let what = if scope.flake_outputs { "a flake" } else { "a dev shell" };
                    return Err(ScopeError::NoOutputs { what, named: format!("{text}^{outputs}") }.into());
                }
                Installable::Expression(flake, None) if scope.flake_outputs => {
                    let outputs = self.resolver.flake_outputs(flake, self.system()).await?;
                    if outputs.is_empty() {
                        named.empty.push(flake.clone());
                    }
                    for gap in outputs.gaps {
                        self.reporter.warn(gap);
                    }
                    named.builds.extend(outputs.builds);
                    named.shells.extend(outputs.dev_shells);
                }
                Installable::Expression(text, None) if scope.dev_shell => {
                    named.shells.push(self.resolver.shell(text, self.system()).await?);
                }
                Installable::Derivation(path, outputs) if scope.dev_shell => {
                    named.shells.push(self.shell_of_derivation(path, outputs)?);
                }
                Installable::Path(path) if scope.dev_shell => {
                    let shown = self.shown(path);
                    let shell = Shell::environment(shown.clone(), path.clone());
                    named.shells.push(shell.ok_or(ScopeError::NotAShell { path: shown })?);
                }
                other => named.builds.push(other.clone()),
            }
        }
        Ok(named)
    }

    fn shell_of_derivation(&self, path: &StorePath, outputs: &Outputs) -> Result<Shell, ScopeError> {
        let installable = self.shown(path);
        match outputs {
            Outputs::All => Ok(Shell::Derivation { installable, derivation: path.clone() }),
            Outputs::Named(_) => {
                let named = format!("{installable}^{outputs}");
                Err(ScopeError::NoOutputs { what: "a dev shell", named })
            }
        }
    }

    fn shown(&self, path: &StorePath) -> String {
        self.local.store.dir().render_path(path)
    }

    /// What Nix says of flakes. Where nothing else depends on that, the work goes on without.
    async fn read(&self, references: &[String]) -> Result<Vec<Result<Flake, NixError>>, ResolveError> {
        let mut flakes = Vec::new();
        for reference in references {
            let read = Flake::read(&self.local.store, &self.request.arguments, reference).await;
            if let Err(error) = &read
                && self.request.scope == Scope::default()
            {
                self.reporter.warn(format!(
                    "what the flake {} consists of is not known, so that nothing keeps its source from being pushed: {error}",
                    Printable(reference)
                ));
                flakes.push(read);
            } else {
                flakes.push(Ok(read?));
            }
        }
        Ok(flakes)
    }

    async fn add_shell(&self, shell: &Shell, roots: &mut Roots) -> Result<(), ResolveError> {
        // Flakes often offer one shell under two names.
        let known = roots.dev_shells.iter().find(|(known, _)| {
            shell.derivation().is_some_and(|derivation| known.derivation() == Some(derivation))
        });
        let parts = if let Some((_, known)) = known {
            DevShell { installable: shell.installable().to_owned(), gaps: Vec::new(), ..known.clone() }
        } else {
            let shown = Printable(shell.installable());
            self.reporter.emit(Event::Step { what: format!("looking for what the dev shell {shown} needs") });
            self.resolver.dev_shell(shell, &self.request.temporary).await?
        };
        for gap in &parts.gaps {
            self.reporter.warn(gap.as_str());
        }
        roots.add(parts.environment.iter().chain(&parts.inputs));
        if self.request.scope.include_sources {
            if parts.environment_derivation.is_none() {
                self.reporter.warn(format!(
                    "the derivation of the environment of the dev shell {} is not known to the store, and is left out",
                    parts.shown()
                ));
            }
            roots.add(&parts.environment_derivation);
        }
        roots.dev_shells.push((shell.clone(), parts));
        Ok(())
    }

    /// Adds what belongs to a flake as a whole: the bash of its dev shells, its inputs, its source.
    async fn add_flake(&self, flake: &Flake, roots: &mut Roots) -> Result<(), ResolveError> {
        let scope = self.request.scope;
        let has_login = |host: &str| self.logins.has(host);
        let has_shells = roots.dev_shells.iter().any(|(shell, _)| flake.is_of(shell.installable()));
        let inputs = if has_shells || scope.flake_inputs || flake.has_private_inputs(&has_login) {
            flake.inputs(self.resolver, &has_login).await?
        } else {
            Inputs::default()
        };
        if has_shells {
            self.add_bash(flake, &inputs, roots).await?;
        }
        let own = self.own_source(flake).await?;
        let mut wanted: Vec<StorePath> = Vec::new();
        if scope.flake_inputs {
            wanted.extend(self.wanted_inputs(&inputs.sources).await?);
        }
        if scope.include_sources {
            wanted.extend(own.iter().map(|source| source.path.clone()));
        }
        self.make_valid(flake, &wanted).await?;
        roots.add(&wanted);
        roots.sources.extend(own.into_iter().chain(inputs.sources));
        Ok(())
    }

    /// A flake's own source, with the hash of its NAR where the store has it.
    async fn own_source(&self, flake: &Flake) -> Result<Option<FlakeSource>, ResolveError> {
        let Some(own) = flake.own_source() else {
            self.reporter.warn(format!(
                "Nix does not say where the source of the flake {} is, so that nothing keeps it from being pushed",
                flake.shown()
            ));
            return Ok(None);
        };
        let path = std::slice::from_ref(&own.path);
        let nar_hash = if self.local.store.invalid(path).await?.is_empty() {
            let (closure, _) = self.local.store.closure(path).await?;
            closure.roots().first().map(|root| closure.info(*root).nar_hash.clone())
        } else {
            None
        };
        Ok(Some(FlakeSource { nar_hash, ..own }))
    }

    /// The inputs that are to be pushed as such. One that would be withheld need not be fetched for that.
    async fn wanted_inputs(&self, inputs: &[FlakeSource]) -> Result<Vec<StorePath>, ResolveError> {
        let paths: Vec<StorePath> = inputs.iter().map(|source| source.path.clone()).collect();
        let invalid = self.local.store.invalid(&paths).await?;
        let (left_out, wanted): (Vec<&FlakeSource>, Vec<&FlakeSource>) = inputs.iter().partition(|source| {
            let is_free = source.kind == SourceKind::PublicInput || self.request.scope.include_sources;
            !is_free && invalid.contains(&source.path)
        });
        for source in left_out {
            let kind = &source.kind;
            self.reporter
                .warn(format!("{kind}, is not in the store, and is pushed only with --include-sources"));
        }
        Ok(wanted.into_iter().map(|source| source.path.clone()).collect())
    }

    async fn add_bash(&self, flake: &Flake, inputs: &Inputs, roots: &mut Roots) -> Result<(), ResolveError> {
        self.make_valid(flake, inputs.nixpkgs().map_or(&[][..], std::slice::from_ref)).await?;
        let bash = self.resolver.bash(flake, inputs, self.system()).await?;
        if let Some(gap) = bash.gap {
            self.reporter.warn(gap);
        }
        roots.add(&bash.paths);
        for (shell, parts) in &mut roots.dev_shells {
            if flake.is_of(shell.installable()) {
                parts.bash.clone_from(&bash.paths);
            }
        }
        Ok(())
    }

    /// Dev shells that are in no flake have a bash all the same.
    fn warn_of_unknown_bash(&self, flakes: &[Flake], roots: &Roots) {
        for (shell, parts) in &roots.dev_shells {
            if !flakes.iter().any(|flake| flake.is_of(shell.installable())) {
                let what = format!("the dev shell {} is in no flake", parts.shown());
                if let Some(gap) = Bash::of_registry(&what).gap {
                    self.reporter.warn(gap);
                }
            }
        }
    }

    fn warn_of_empty(&self, flakes: &[String], roots: &Roots) -> Result<(), ScopeError> {
        let shown = |flake: &String| format!("the flake {}", Printable(flake));
        let (system, flakes): (_, Vec<String>) =
            (self.system().to_owned(), flakes.iter().map(shown).collect());
        if !flakes.is_empty() && roots.paths.is_empty() {
            return Err(ScopeError::NothingOffered { flakes: flakes.join(", "), system });
        }
        for flake in flakes {
            self.reporter
                .warn(ScopeError::NothingOffered { flakes: flake, system: system.clone() }.to_string());
        }
        Ok(())
    }

    async fn make_valid(&self, flake: &Flake, sources: &[StorePath]) -> Result<(), ResolveError> {
        if self.local.store.invalid(sources).await?.is_empty() {
            return Ok(());
        }
        if self.request.build {
            flake.fetch_inputs(self.resolver).await?;
        }
        let invalid = self.local.store.invalid(sources).await?;
        if invalid.is_empty() {
            return Ok(());
        }
        Err(self.resolver.not_valid(&invalid, |_| None, flake.fetch_command(self.resolver)))
    }
}

impl Roots {
    fn add<'a>(&mut self, paths: impl IntoIterator<Item = &'a StorePath>) {
        for path in paths {
            if !self.paths.contains(path) {
                self.paths.push(path.clone());
            }
        }
    }
}
