//! The local Nix: the program, its settings, its store and what is registered there.
//!
//! Nothing here links Nix's libraries. The program is run for what only it can say (evaluation, settings); the store
//! database and `.drv` files, whose formats are stable, are read directly.

mod arguments;
mod child;
mod command_line;
mod database;
mod derivation;
mod derivation_files;
mod flake;
mod installable;
mod path_info;
mod program;
mod resolver;
mod settings;
mod store;
mod target;

pub use arguments::EvaluationArguments;
pub use derivation::DerivationError;
pub use derivation_files::{DerivationFiles, LoadedGraph};
pub use flake::{
    Bash, DevShell, Flake, FlakeOutputs, FlakeSource, HasLogin, Inputs, Shell, SourceKind, first_revision,
    flakes_of, is_whole_flake, revision,
};
pub use installable::{Installable, InstallableError, Outputs};
pub use program::{Implementation, Nix, NixError, Version};
pub use resolver::{ResolveError, Resolver};
pub use settings::{Settings, SubstitutionSettings, TrustSettings};
pub use store::{Source, Store, StoreError};
pub use target::BuildTarget;
