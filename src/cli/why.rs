//! `cache-helper why`.

use std::time::SystemTime;

use clap::Args;

use super::audit::caches;
use super::nix_arguments::NixArguments;
use super::{Context, http_settings};
use crate::audit::Status;
use crate::error::{CommandError, ExitStatus};
use crate::event::Reporter;
use crate::jobs::why::{self as job, Request, Subject};
use crate::report;

/// Shown at the end of `why --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cache-helper why zlib
  cache-helper why --of .#default /nix/store/…-zlib-1.3.1
  cache-helper why --cache https://cache.example.org .#default

";

/// Say why something is needed, and whether the caches have it.
#[derive(Debug, Args)]
pub struct Why {
    /// A .drv file, a store path, the name of a derivation with or without its version, anything `nix build` takes, or the path or name
    /// of a source.
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// Of what it is a part; may be given several times. Without it: of `.`, if it is a part of that.
    #[arg(long, value_name = "INSTALLABLE")]
    pub of: Vec<String>,
    /// Ask this cache, as if it were Nix's substituter; may be given several times. Without it: Nix's own substituters.
    #[arg(long, value_name = "CACHE")]
    pub cache: Vec<String>,
    /// Give a request up when nothing moves for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print the report as JSON (schema cache-helper/why/1).
    #[arg(help_heading = super::OUTPUT, long)]
    pub json: bool,
    /// Options for Nix.
    #[command(flatten)]
    pub nix: NixArguments,
}

/// Runs the command.
pub(super) async fn run(arguments: Why, context: &Context) -> Result<ExitStatus, CommandError> {
    let started_at = SystemTime::now();
    let environment = &context.environment;
    let request = Request {
        what: arguments.what,
        of: arguments.of,
        arguments: arguments.nix.to_evaluation_arguments(),
        directory: environment.directory.clone(),
        caches: caches(&arguments.cache, environment)?,
        http: http_settings(environment, arguments.timeout),
        store: environment.store.clone(),
    };
    let job = async |reporter: &Reporter| job::run(&request, reporter, &context.interrupted).await;
    let (result, warnings) = context.watched(job).await;
    let outcome = result?;
    if arguments.json {
        let document = report::why::json(&request, &outcome, &warnings, started_at);
        context.printer.document(&document)?;
    } else {
        context.printer.report(&report::why::human(&outcome, context.verbose, context.printer.out()))?;
    }
    if matches!(outcome.subject, Subject::Source(..)) {
        return Ok(ExitStatus::Success);
    }
    Ok(match outcome.derivation.map(|derivation| derivation.verdict) {
        Some(Status::Hit) => ExitStatus::Success,
        Some(Status::Miss) => ExitStatus::No,
        Some(Status::Inconclusive) | None => ExitStatus::Inconclusive,
    })
}
