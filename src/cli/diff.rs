//! `cache-helper diff`.

use std::time::SystemTime;

use clap::Args;

use super::Context;
use super::nix_arguments::NixArguments;
use crate::error::{CommandError, ExitStatus};
use crate::event::Reporter;
use crate::jobs::diff::{self as job, Request};
use crate::report;

/// Shown at the end of `diff --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cache-helper diff HEAD~1 .#default
  cache-helper diff '.?rev=…#default' .#default
  cache-helper diff /nix/store/…-hello.drv /nix/store/…-hello.drv
  cache-helper diff graph-of-last-week.json .#default

";

/// Say why two derivations differ, and how many rebuilds that causes.
#[derive(Debug, Args)]
pub struct Diff {
    /// What was before: anything `nix build` takes, a .drv file, a store path, a revision of this repository (HEAD~1), or a
    /// file that `graph --format json` has written.
    #[arg(value_name = "OLD")]
    pub old: String,
    /// What is now.
    #[arg(value_name = "NEW")]
    pub new: String,
    /// Print the report as JSON (schema cache-helper/diff/1).
    #[arg(help_heading = super::OUTPUT, long)]
    pub json: bool,
    /// Options for Nix.
    #[command(flatten)]
    pub nix: NixArguments,
}

/// Runs the command.
pub(super) async fn run(arguments: Diff, context: &Context) -> Result<ExitStatus, CommandError> {
    let started_at = SystemTime::now();
    let environment = &context.environment;
    let request = Request {
        old: arguments.old,
        new: arguments.new,
        arguments: arguments.nix.to_evaluation_arguments(),
        directory: environment.directory.clone(),
        store: environment.store.clone(),
    };
    let job = async |reporter: &Reporter| job::run(&request, reporter, &context.interrupted).await;
    let (result, warnings) = context.watched(job).await;
    let outcome = result?;
    if arguments.json {
        let document = report::diff::json(&request, &outcome, &warnings, started_at);
        context.printer.document(&document)?;
    } else {
        context.printer.report(&report::diff::human(&outcome, context.printer.out()))?;
    }
    let is_only_unread = !outcome.unread.is_empty()
        && outcome.differences.is_empty()
        && outcome.removed.is_empty()
        && outcome.added.is_empty();
    Ok(if outcome.is_same() {
        ExitStatus::Success
    } else if is_only_unread {
        ExitStatus::Inconclusive
    } else {
        ExitStatus::No
    })
}
