//! What a push is about: where its closure begins, and what of it leaves this machine only when that is meant.

use std::collections::HashMap;

use nix_derivation::StorePath;

use super::Request;
use crate::event::{Event, Reporter};
use crate::graph::{Closure, PathIndex};
use crate::jobs::LocalNix;
use crate::nix::{
    DevShell, Flake, FlakeSource, Installable, InstallableError, ResolveError, Resolver, SourceKind,
    flakes_of, is_whole_flake,
};

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
    pub(super) dev_shells: Vec<DevShell>,
    /// What is known of sources, in the closure or not.
    sources: Vec<FlakeSource>,
}

/// Finds the roots for what was named, each valid.
pub(super) async fn roots(
    request: &Request,
    local: &LocalNix,
    reporter: &Reporter,
) -> Result<Roots, ResolveError> {
    let arguments = &request.arguments;
    let installables = local.installables(&request.installables, &request.directory, arguments, reporter)?;
    let resolver = Resolver { store: &local.store, arguments, build: request.build };
    let finding = Finding { request, local, resolver: &resolver, reporter };
    let (builds, shells) = finding.expand(&installables).await?;
    // Nothing at all would stand for the default package.
    let paths =
        if builds.is_empty() && !shells.is_empty() { Vec::new() } else { resolver.resolve(&builds).await? };
    // Not before: where there is no lock file yet, evaluation writes one, and then the flake is another.
    let flakes = finding.flakes(&installables).await?;
    let mut roots = Roots { paths, ..Roots::default() };
    roots.revision = flakes.first().and_then(|flake| flake.revision.clone());
    for shell in &shells {
        finding.add_shell(shell, &flakes, &mut roots).await?;
    }
    for flake in &flakes {
        finding.add_sources(flake, &mut roots).await?;
    }
    Ok(roots)
}

/// The search for the roots of one request.
struct Finding<'a> {
    request: &'a Request,
    local: &'a LocalNix,
    resolver: &'a Resolver<'a>,
    reporter: &'a Reporter,
}

impl Finding<'_> {
    fn system(&self) -> &str {
        self.request.arguments.system().unwrap_or(&self.local.settings.system)
    }

    /// What is to be resolved as `nix build` would, and what as `nix develop` would.
    async fn expand(
        &self,
        installables: &[Installable],
    ) -> Result<(Vec<Installable>, Vec<String>), ResolveError> {
        let scope = self.request.scope;
        let (mut builds, mut shells) = (Vec::new(), Vec::new());
        if installables.is_empty() && scope.dev_shell {
            shells.push(".".to_owned());
        }
        for installable in installables {
            match installable {
                Installable::Expression(text, _) if scope.flake_outputs && !is_whole_flake(text) => {
                    let text = text.clone();
                    let reason = "with --flake-outputs a flake is named, and not an attribute of one";
                    return Err(InstallableError { text, reason }.into());
                }
                Installable::Expression(flake, _) if scope.flake_outputs => {
                    let outputs = self.resolver.flake_outputs(flake, self.system()).await?;
                    builds.extend(outputs.builds);
                    shells.extend(outputs.dev_shells);
                }
                Installable::Expression(text, Some(_)) if scope.dev_shell => {
                    let text = text.clone();
                    let reason = "a dev shell has no outputs to choose from";
                    return Err(InstallableError { text, reason }.into());
                }
                Installable::Expression(text, None) if scope.dev_shell => shells.push(text.clone()),
                other => builds.push(other.clone()),
            }
        }
        Ok((builds, shells))
    }

    /// The flakes that were named. Where nothing depends on what they are, one that Nix says nothing of is passed over.
    async fn flakes(&self, installables: &[Installable]) -> Result<Vec<Flake>, ResolveError> {
        let (scope, arguments) = (self.request.scope, &self.request.arguments);
        let references = flakes_of(installables, arguments);
        if references.is_empty() && (scope.flake_inputs || scope.flake_outputs) {
            let text = self.request.installables.join(" ");
            let reason = "--flake-inputs and --flake-outputs need a flake, and none is named";
            return Err(InstallableError { text, reason }.into());
        }
        let mut flakes = Vec::new();
        for reference in &references {
            match Flake::read(&self.local.store, arguments, reference).await {
                Ok(flake) => flakes.push(flake),
                Err(error) if scope == Scope::default() => {
                    tracing::debug!(%error, "nothing is known of the flake");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(flakes)
    }

    async fn add_shell(&self, shell: &str, flakes: &[Flake], roots: &mut Roots) -> Result<(), ResolveError> {
        self.reporter.emit(Event::Step { what: format!("looking for what the dev shell {shell} needs") });
        let flake = flakes.iter().find(|flake| flake.is_of(shell));
        let shell = self.resolver.dev_shell(shell, flake, self.system(), &self.request.temporary).await?;
        for gap in &shell.gaps {
            self.reporter.warn(gap.as_str());
        }
        roots.add(shell.environment.iter().chain(&shell.inputs).chain(&shell.bash));
        if self.request.scope.include_sources {
            roots.add(&shell.environment_derivation);
        }
        roots.dev_shells.push(shell);
        Ok(())
    }

    async fn add_sources(&self, flake: &Flake, roots: &mut Roots) -> Result<(), ResolveError> {
        let scope = self.request.scope;
        let inputs = if scope.flake_inputs || flake.has_private_inputs() {
            flake.input_sources(self.resolver).await?
        } else {
            Vec::new()
        };
        let own = flake.own_source();
        let mut wanted: Vec<StorePath> = Vec::new();
        if scope.flake_inputs {
            wanted.extend(inputs.iter().map(|source| source.path.clone()));
        }
        if scope.include_sources {
            wanted.extend(own.iter().map(|source| source.path.clone()));
        }
        self.make_valid(flake, &wanted).await?;
        roots.add(&wanted);
        roots.sources.extend(own.into_iter().chain(inputs));
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
        Err(ResolveError::NotValid {
            paths: invalid.iter().map(|path| (self.local.store.dir().render_path(path), None)).collect(),
            command: flake.fetch_command(self.resolver),
        })
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

    /// Which members of a closure are sources that not everybody may have.
    pub(super) fn sources_in(&self, closure: &Closure) -> Sources {
        let known: HashMap<&StorePath, &SourceKind> =
            self.sources.iter().map(|source| (&source.path, &source.kind)).collect();
        let kind = |index: PathIndex| {
            let path = &closure.info(index).path;
            if path.is_derivation() {
                return Some(SourceKind::Derivation);
            }
            known.get(path).filter(|kind| ***kind != SourceKind::PublicInput).map(|kind| (*kind).clone())
        };
        Sources(closure.indices().filter_map(|index| Some((index, kind(index)?))).collect())
    }
}

/// Members of a closure that are pushed only with `--include-sources`, with what they are.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<PathIndex, SourceKind>);

impl Sources {
    /// What a member is, if it is one of these.
    pub(super) fn kind(&self, index: PathIndex) -> Option<&SourceKind> {
        self.0.get(&index)
    }
}
