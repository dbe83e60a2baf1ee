//! `cache-helper push-closure`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, ValueEnum};

use super::nix_arguments::NixArguments;
use super::{Context, http_settings, installables};
use crate::cache::CacheUrl;
use crate::config::{TO_VARIABLE, UserFile};
use crate::error::{CommandError, ExitStatus, failure_hint};
use crate::event::Reporter;
use crate::jobs::push_closure::{self as job, Destination, PushClosureReport, Request, Scope, Target};
use crate::net::HttpSettings;
use crate::plan::Filter;
use crate::push::{Limits, Method};
use crate::report;
use crate::text::count;
use crate::ui::Printer;

/// Headings of `--help`.
const WHAT: &str = "What to push";
const TARGETS: &str = "Targets";
const SIGNING: &str = "Signing";
const PACKING: &str = "Packing and sending";

/// Shown at the end of `push-closure --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cache-helper push-closure --to https://cache.example.org ./result
  cache-helper push-closure --to file:///srv/cache --build .#default
  cache-helper push-closure --to ./cache --dry-run /nix/store/…-hello
  cache-helper push-closure --to https://cache.example.org --build --dev-shell --flake-inputs .#dev

";

/// Push what a cache is missing of a closure, and prove that Nix can fetch it.
#[derive(Debug, Args)]
pub struct PushClosure {
    /// What to push: anything `nix build` takes, store paths, links such as ./result, .drv files, or `-` for a list on
    /// standard input. Without any: `.`
    #[arg(value_name = "INSTALLABLE")]
    pub installables: Vec<String>,
    /// Where to push: `file:///DIRECTORY`, a path, `http(s)://HOST/…`, or `local` for a cache of your own.
    #[arg(help_heading = TARGETS, long, value_name = "CACHE")]
    pub to: Vec<String>,
    /// A cache that the target's users have anyway: what it serves is not pushed.
    #[arg(help_heading = TARGETS, long, value_name = "CACHE", conflicts_with = "no_upstream")]
    pub upstream: Vec<String>,
    /// Push also what the configured upstreams serve.
    #[arg(help_heading = TARGETS, long)]
    pub no_upstream: bool,
    /// Push dev shells: installables are then what `nix develop` takes. With what the shell is made of, the environment that
    /// this version of Nix makes of it, and the bash that it starts.
    #[arg(help_heading = WHAT, long)]
    pub dev_shell: bool,
    /// Push everything that the flakes offer for this system: packages, checks, apps, the formatter and dev shells.
    #[arg(help_heading = WHAT, long)]
    pub flake_outputs: bool,
    /// Push also the sources of the flakes' inputs, and of theirs.
    #[arg(help_heading = WHAT, long)]
    pub flake_inputs: bool,
    /// Push also the flakes' own sources, inputs without a public URL, and a dev shell's derivation. Without it, a push of
    /// these, or of what evaluation has copied of them, to a cache that everybody can read is refused, and elsewhere they are
    /// left out.
    #[arg(help_heading = WHAT, long)]
    pub include_sources: bool,
    /// Build or fetch first what is not valid.
    #[arg(help_heading = WHAT, long)]
    pub build: bool,
    /// Show what would be pushed, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Push only paths whose base name matches.
    #[arg(help_heading = WHAT, long, value_name = "REGEX", allow_hyphen_values = true)]
    pub include: Vec<String>,
    /// Do not push paths whose base name matches; what refers to them is withheld too.
    #[arg(help_heading = WHAT, long, value_name = "REGEX", allow_hyphen_values = true)]
    pub exclude: Vec<String>,
    /// How to compress NARs.
    #[arg(help_heading = PACKING, long, value_enum, default_value = "zstd", value_name = "METHOD")]
    pub compression: Compression,
    /// How hard to compress: -7 to 22 for zstd (default 3), 0 to 9 for xz (default 6).
    #[arg(help_heading = PACKING, long, value_name = "N", allow_negative_numbers = true)]
    pub level: Option<i32>,
    /// How many paths to pack at a time. Without it: one a core.
    #[arg(help_heading = PACKING, long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// How much memory encoders and packed NARs may take. Where it is too little for --jobs, fewer paths are packed at a time.
    #[arg(help_heading = PACKING, long, value_name = "SIZE", default_value = "128MiB", value_parser = parse_size)]
    pub memory: usize,
    /// Sign with this key (of `nix-store --generate-binary-cache-key`).
    #[arg(help_heading = SIGNING, long, value_name = "FILE")]
    pub sign_key_file: Option<PathBuf>,
    /// Push paths even when nothing vouches for them.
    #[arg(help_heading = SIGNING, long)]
    pub allow_unsigned: bool,
    /// Whether a failed push fails the command.
    #[arg(long, value_enum, default_value = "fail", value_name = "HOW")]
    pub push_failure: PushFailure,
    /// Do not read back what was pushed.
    #[arg(long)]
    pub no_verify: bool,
    /// Give a request up when nothing moves for so many seconds.
    #[arg(help_heading = PACKING, long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print the report as JSON (schema cache-helper/push-closure/1).
    #[arg(help_heading = super::OUTPUT, long)]
    pub json: bool,
    /// Options for Nix.
    #[command(flatten)]
    pub nix: NixArguments,
}

/// How NARs are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Zstandard.
    Zstd,
    /// XZ.
    Xz,
    /// Not at all.
    None,
}

/// What a failed push means for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PushFailure {
    /// The command fails.
    Fail,
    /// It is told, and the command succeeds.
    Warn,
}

/// What the report begins with when nobody said where to push.
const DEFAULT_TARGET: &str =
    "No target was named, so this goes to the local cache of this machine (--to names another).";

/// Runs the command.
pub(super) async fn run(arguments: PushClosure, context: &Context) -> Result<ExitStatus, CommandError> {
    let started_at = SystemTime::now();
    let (request, is_default_target) = request(&arguments, context)?;
    let job = async |reporter: &Reporter| job::run(&request, reporter, &context.interrupted).await;
    let (result, mut warnings) = context.watched(job).await;
    let outcome = result?;
    let written = if arguments.json {
        warnings.extend(is_default_target.then(|| DEFAULT_TARGET.to_owned()));
        let document = report::push_closure::json(&request, &outcome, &warnings, started_at);
        context.printer.document(&document)
    } else {
        let said = if is_default_target { format!("{DEFAULT_TARGET}\n") } else { String::new() };
        let report = report::push_closure::human(&request, &outcome, context.printer.out());
        context.printer.report(&format!("{said}{report}"))
    };
    // What failed is told in any case.
    let status = conclude(&outcome, &arguments, &context.printer);
    written?;
    Ok(status)
}

/// Says what went wrong with each target, and decides the exit status.
fn conclude(outcome: &PushClosureReport, arguments: &PushClosure, printer: &Printer) -> ExitStatus {
    let mut worst = ExitStatus::Success;
    for target in &outcome.targets {
        let is_complete = target.failed.is_empty() && target.blocked.is_empty();
        let status = match &target.error {
            Some(error) => {
                let error = CommandError::from(error);
                printer.error(&error);
                error.status
            }
            None if !is_complete => {
                let missing = count(target.failed.len() + target.blocked.len(), "path");
                let what = if arguments.dry_run { "would not be pushed" } else { "not pushed" };
                let error = CommandError::new(ExitStatus::No, format!("{missing} {what} to {}", target.url));
                let error = if target.failed.is_empty() {
                    let is_withheld = |path: &str| {
                        target.sources.iter().any(|source| source.is_withheld && source.path == path)
                    };
                    error.hinted(if target.blocked.iter().any(|blocked| is_withheld(&blocked.by)) {
                        "they need a source, which only --include-sources pushes"
                    } else {
                        "they need what is excluded: let that be pushed too, or name the cache that has it \
                         with --upstream"
                    })
                } else {
                    let cause = target.failure.as_ref().and_then(failure_hint);
                    error.maybe_hinted(cause.map(str::to_owned)).hinted(
                        "mend the causes named in the report; the same command then pushes only the rest",
                    )
                };
                printer.error(&error);
                error.status
            }
            None if target.verified == Some(false) => {
                let status = if target.inconclusive { ExitStatus::Inconclusive } else { ExitStatus::No };
                let error = CommandError::new(status, format!("{} cannot be read back as a whole", target.url))
                    .hinted("see the report for what is missing; a server that is behind its writes may need a moment");
                printer.error(&error);
                status
            }
            None => ExitStatus::Success,
        };
        worst = worst.or_worse(status);
    }
    let is_about_pushing =
        matches!(worst, ExitStatus::No | ExitStatus::Impossible | ExitStatus::Inconclusive);
    if arguments.push_failure == PushFailure::Warn && is_about_pushing {
        printer.warning("the push did not succeed; the exit status is 0 because of --push-failure=warn");
        return ExitStatus::Success;
    }
    worst
}

/// The request, and whether its target was chosen because none was named.
fn request(arguments: &PushClosure, context: &Context) -> Result<(Request, bool), CommandError> {
    let environment = &context.environment;
    let evaluation = arguments.nix.to_evaluation_arguments();
    let installables = installables(&arguments.installables, &evaluation);
    let limits = limits(arguments, &context.printer)?;
    let (targets, is_default_target) = targets(arguments, context)?;
    let request = Request {
        installables,
        scope: Scope {
            dev_shell: arguments.dev_shell,
            flake_outputs: arguments.flake_outputs,
            flake_inputs: arguments.flake_inputs,
            include_sources: arguments.include_sources,
        },
        arguments: evaluation,
        build: arguments.build,
        directory: environment.directory.clone(),
        targets,
        filter: Filter::new(&arguments.include, &arguments.exclude)?,
        dry_run: arguments.dry_run,
        skip_verification: arguments.no_verify,
        allow_unsigned: arguments.allow_unsigned,
        limits,
        home: environment.home.clone(),
        temporary: environment.temporary.clone(),
        http: HttpSettings {
            interrupted: context.interrupted.clone(),
            ..http_settings(environment, arguments.timeout)
        },
        store: environment.store.clone(),
    };
    Ok((request, is_default_target))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, NonZeroUsize::get)
}

fn targets(arguments: &PushClosure, context: &Context) -> Result<(Vec<Target>, bool), CommandError> {
    let environment = &context.environment;
    let file = environment.user_file()?;
    let mut names = [&arguments.to, &environment.to, &file.to]
        .into_iter()
        .find(|names| !names.is_empty())
        .cloned()
        .unwrap_or_default();
    let is_default = names.is_empty();
    if is_default {
        if environment.is_ci {
            return Err(CommandError::usage(
                "no target is named, and on CI a cache of this machine helps nobody",
            )
            .hinted(format!(
                "name one: --to https://cache.example.org, or {TO_VARIABLE}; or --to local to mean it"
            )));
        }
        names.push("local".to_owned());
    }
    let targets: Result<_, _> = names.iter().map(|name| target(name, arguments, context, &file)).collect();
    Ok((targets?, is_default))
}

fn target(
    name: &str,
    arguments: &PushClosure,
    context: &Context,
    file: &UserFile,
) -> Result<Target, CommandError> {
    let environment = &context.environment;
    let configured = file.target(name, &environment.directory);
    let destination = if name == "local" {
        Destination::Local(environment.local_cache()?)
    } else {
        Destination::Cache(CacheUrl::parse(name, &environment.directory)?)
    };
    let upstreams = match (arguments.no_upstream, arguments.upstream.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => configured.upstreams,
        (false, false) => arguments.upstream.clone(),
    };
    Ok(Target {
        destination,
        upstreams: upstreams
            .iter()
            .map(|upstream| CacheUrl::parse(upstream, &environment.directory))
            .collect::<Result<_, _>>()?,
        sign_key_file: arguments.sign_key_file.clone().or(configured.sign_key_file),
        compression: compression(arguments)?,
    })
}

/// What may be used at once. Fewer jobs than were asked for are worth a word; fewer than there are cores are not.
fn limits(arguments: &PushClosure, printer: &Printer) -> Result<Limits, CommandError> {
    let wanted = arguments.jobs.map_or_else(cores, NonZeroUsize::get);
    let limits = Limits::new(wanted, arguments.memory, compression(arguments)?).map_err(|error| {
        let least = error.needed.div_ceil(1 << 20);
        CommandError::usage(format!("--memory: {error}"))
            .hinted(format!("give --memory {least}MiB or more, or compress less hard (--level)"))
    })?;
    if arguments.jobs.is_some() && limits.jobs() < wanted {
        let at_a_time = count(limits.jobs(), "path");
        printer.warning(&format!("{at_a_time} at a time, and not {wanted}: more do not fit into --memory"));
    }
    Ok(limits)
}

fn compression(arguments: &PushClosure) -> Result<(Method, i32), CommandError> {
    let method = match arguments.compression {
        Compression::Zstd => Method::Zstd,
        Compression::Xz => Method::Xz,
        Compression::None => Method::None,
    };
    let level = arguments.level.unwrap_or(method.default_level());
    let levels = method.levels();
    if !levels.contains(&level) {
        return Err(CommandError::usage(format!(
            "--level {level} is out of range: --compression {} has {} to {}",
            arguments
                .compression
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().to_owned()),
            levels.start(),
            levels.end()
        ))
        .hinted("leave --level out, which is the usual one of the method"));
    }
    Ok((method, level))
}

/// Reads `128MiB`, `1G`, `500000`.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err(format!("unknown unit {unit:?}; known: KiB, MiB, GiB")),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| "expected a size such as 128MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("128MiB"), Ok(128 << 20));
        assert_eq!(parse_size("1g"), Ok(1 << 30));
        assert_eq!(parse_size("10 KB"), Ok(10 << 10));
        assert_eq!(parse_size("77"), Ok(77));
        assert!(parse_size("MiB").is_err());
        assert!(parse_size("5 apples").is_err());
        assert!(parse_size("99999999999999999999").is_err());
    }
}
