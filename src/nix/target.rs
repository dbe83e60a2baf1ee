//! From what a person names to derivations and the outputs that are wanted of them, valid or not.

use nix_derivation::StorePath;

use super::installable::{Installable, Outputs};
use super::resolver::{ResolveError, Resolver};

/// A derivation that somebody named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildTarget {
    /// The `.drv` path.
    pub derivation: StorePath,
    /// Names of the outputs that are wanted.
    pub outputs: Vec<String>,
}

impl Resolver<'_> {
    /// The derivations behind `installables`, with the outputs that `nix build` would make. Nothing is built.
    ///
    /// # Errors
    ///
    /// When something cannot be evaluated, or a store path is named whose derivation the store does not have.
    pub async fn targets(&self, installables: &[Installable]) -> Result<Vec<BuildTarget>, ResolveError> {
        let (mut targets, plain) = self.named(installables).await?;
        if let Some(plain) = plain {
            self.add_defaults(&plain, &mut targets).await?;
        }
        Ok(targets.0)
    }

    /// The derivations behind `installables` alone: Nix 2.8 cannot say which outputs are meant of anything that it evaluates
    /// while it takes content-addressed derivations.
    ///
    /// # Errors
    ///
    /// As of [`Self::targets`].
    pub async fn build_roots(&self, installables: &[Installable]) -> Result<Vec<StorePath>, ResolveError> {
        let (mut targets, plain) = self.named(installables).await?;
        if let Some(plain) = plain {
            for derivation in self.derivations(&plain).await? {
                targets.add(derivation, []);
            }
        }
        Ok(targets.0.into_iter().map(|target| target.derivation).collect())
    }

    /// What names its outputs, and the expressions that do not, where those are to be evaluated.
    async fn named(
        &self,
        installables: &[Installable],
    ) -> Result<(Targets, Option<Vec<String>>), ResolveError> {
        let mut targets = Targets::default();
        let mut plain = Vec::new();
        for installable in installables {
            match installable {
                Installable::Path(path) => self.add_path(path, &mut targets).await?,
                Installable::Derivation(path, outputs) => self.add_outputs_of(path, outputs, &mut targets)?,
                Installable::Expression(text, Some(outputs)) => {
                    for derivation in self.derivations(std::slice::from_ref(text)).await? {
                        self.add_outputs_of(&derivation, outputs, &mut targets)?;
                    }
                }
                Installable::Expression(text, None) => plain.push(text.clone()),
            }
        }
        let is_evaluated = !plain.is_empty() || installables.is_empty();
        Ok((targets, is_evaluated.then_some(plain)))
    }

    async fn add_path(&self, path: &StorePath, targets: &mut Targets) -> Result<(), ResolveError> {
        let no_derivation = || ResolveError::NoDerivation { path: self.store.dir().render_path(path) };
        let derivation = self.store.maker(path).await?.ok_or_else(no_derivation)?;
        let known = self.outputs_of(&derivation)?;
        let output = known.into_iter().find(|(_, output)| output.as_ref() == Some(path));
        targets.add(derivation, [output.ok_or_else(no_derivation)?.0]);
        Ok(())
    }

    fn add_outputs_of(
        &self,
        derivation: &StorePath,
        wanted: &Outputs,
        targets: &mut Targets,
    ) -> Result<(), ResolveError> {
        let known = self.outputs_of(derivation)?;
        match wanted {
            Outputs::All => targets.add(derivation.clone(), known.into_keys()),
            Outputs::Named(names) => {
                if let Some(unknown) = names.iter().find(|name| !known.contains_key(*name)) {
                    return Err(ResolveError::UnknownOutput {
                        derivation: self.store.dir().render_path(derivation),
                        output: unknown.clone(),
                        known: known.into_keys().collect(),
                    });
                }
                targets.add(derivation.clone(), names.iter().cloned());
            }
        }
        Ok(())
    }

    /// Adds what `nix build` takes of expressions that name no outputs.
    async fn add_defaults(&self, expressions: &[String], targets: &mut Targets) -> Result<(), ResolveError> {
        let known = self.evaluated(expressions).await?;
        // Where a path is not known before building, `nix path-info` has none to tell: all outputs then.
        if known.iter().any(|(_, outputs)| outputs.values().any(Option::is_none)) {
            for (derivation, outputs) in known {
                targets.add(derivation, outputs.into_keys());
            }
            return Ok(());
        }
        // The derivation alone does not say which of its outputs are meant.
        let paths = self.default_paths(expressions).await?;
        for (derivation, outputs) in known {
            let wanted = outputs
                .into_iter()
                .filter(|(_, path)| path.as_ref().is_some_and(|path| paths.contains(path)))
                .map(|(name, _)| name);
            targets.add(derivation, wanted);
        }
        Ok(())
    }
}

/// Targets in the order in which they were named, each derivation once.
#[derive(Default)]
struct Targets(Vec<BuildTarget>);

impl Targets {
    fn add(&mut self, derivation: StorePath, outputs: impl IntoIterator<Item = String>) {
        let known = self.0.iter().position(|target| target.derivation == derivation);
        let position = known.unwrap_or_else(|| {
            self.0.push(BuildTarget { derivation, outputs: Vec::new() });
            self.0.len() - 1
        });
        let target = &mut self.0[position];
        for output in outputs {
            if !target.outputs.contains(&output) {
                target.outputs.push(output);
            }
        }
    }
}
