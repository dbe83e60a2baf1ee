//! `cache-helper audit`.

use std::time::SystemTime;

use clap::{Args, ValueEnum};

use super::nix_arguments::NixArguments;
use super::{Context, http_settings, installables};
use crate::audit;
use crate::cache::{CacheUrl, local};
use crate::config::Environment;
use crate::error::{CommandError, ExitStatus};
use crate::event::Reporter;
use crate::jobs::audit::{self as job, Request};
use crate::report;
use crate::report::audit::Gate;

/// Heading of `--help`.
const CACHES: &str = "Caches";

/// Shown at the end of `audit --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cache-helper audit .#default
  cache-helper audit --assume-empty-store --cache https://cache.example.org .#default
  cache-helper audit --min-hit-rate 90 --json .#default

";

/// Say which derivations miss the caches, and why.
#[derive(Debug, Args)]
pub struct Audit {
    /// What to audit: anything `nix build` takes, store paths, links such as ./result, .drv files, or `-` for a list on
    /// standard input. Without any: `.`
    #[arg(value_name = "INSTALLABLE")]
    pub installables: Vec<String>,
    /// Ask this cache, as if it were Nix's substituter; may be given several times. Without it: Nix's own substituters.
    #[arg(help_heading = CACHES, long, value_name = "CACHE")]
    pub cache: Vec<String>,
    /// Look for NARs too, not only for narinfos.
    #[arg(help_heading = CACHES, long)]
    pub nars: bool,
    /// Which derivations count.
    #[arg(long, value_enum, default_value = "needed", value_name = "WHICH")]
    pub scope: Scope,
    /// Take nothing in the store for granted, as a colleague or a runner who has none of it.
    #[arg(long)]
    pub assume_empty_store: bool,
    /// Exit with 1 if fewer of the derivations that count are on the caches.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub min_hit_rate: Option<f64>,
    /// Give a request up when nothing moves for so many seconds.
    #[arg(help_heading = CACHES, long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print the report as JSON (schema cache-helper/audit/1).
    #[arg(help_heading = super::OUTPUT, long)]
    pub json: bool,
    /// Options for Nix.
    #[command(flatten)]
    pub nix: NixArguments,
}

/// Which derivations count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Those that have to be fetched or built.
    Needed,
    /// Those that make a path in the runtime closure.
    Runtime,
    /// All that the targets are built from.
    Build,
}

/// The caches that were named.
pub(super) fn caches(named: &[String], environment: &Environment) -> Result<Vec<CacheUrl>, CommandError> {
    let caches = named.iter().map(|cache| match cache.as_str() {
        "local" => Ok(CacheUrl::directory(local::binary_cache(&environment.local_cache()?))),
        cache => Ok(CacheUrl::parse(cache, &environment.directory)?),
    });
    caches.collect()
}

/// Runs the command.
pub(super) async fn run(arguments: Audit, context: &Context) -> Result<ExitStatus, CommandError> {
    let started_at = SystemTime::now();
    let environment = &context.environment;
    let evaluation = arguments.nix.to_evaluation_arguments();
    let request = Request {
        installables: installables(&arguments.installables, &evaluation),
        arguments: evaluation,
        directory: environment.directory.clone(),
        caches: caches(&arguments.cache, environment)?,
        scope: match arguments.scope {
            Scope::Needed => audit::Scope::Needed,
            Scope::Runtime => audit::Scope::Runtime,
            Scope::Build => audit::Scope::Build,
        },
        assume_empty_store: arguments.assume_empty_store,
        nars: arguments.nars,
        http: http_settings(environment, arguments.timeout),
        store: environment.store.clone(),
    };
    let job = async |reporter: &Reporter| job::run(&request, reporter, &context.interrupted).await;
    let (result, warnings) = context.watched(job).await;
    let outcome = result?;
    let gate = arguments.min_hit_rate.map(|least| Gate { least, passed: outcome.totals.reaches(least) });
    let written = if arguments.json {
        context.printer.document(&report::audit::json(&request, &outcome, gate, &warnings, started_at))
    } else {
        let palette = context.printer.out();
        context.printer.report(&report::audit::human(&outcome, gate, context.verbose, palette))
    };
    // How the gate fell is told in any case.
    let status = conclude(gate, context);
    written?;
    Ok(status)
}

/// Says how the gate fell, and decides the exit status. Without a gate an audit succeeds whatever it finds.
fn conclude(gate: Option<Gate>, context: &Context) -> ExitStatus {
    let Some(gate) = gate else { return ExitStatus::Success };
    let least = gate.percent();
    let error = match gate.passed {
        Some(true) => return ExitStatus::Success,
        Some(false) => CommandError::new(ExitStatus::No, format!("the hit rate does not reach {least} %"))
            .hinted("mend the root misses that the report names, or lower --min-hit-rate"),
        None => CommandError::new(
            ExitStatus::Inconclusive,
            format!("whether the hit rate reaches {least} % depends on what could not be asked"),
        )
        .hinted("try again when the caches named in the report answer"),
    };
    context.printer.error(&error);
    error.status
}

/// Reads `90`, `99.5` or `90%` as a part of one.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("expected a number from 0 to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_read_as_people_write_them() {
        assert_eq!(parse_percent("90"), Ok(0.9));
        assert_eq!(parse_percent("99.5 %"), Ok(0.995));
        assert_eq!(parse_percent("0"), Ok(0.0));
        for bad in ["101", "-1", "nan", "inf", "", "many"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
