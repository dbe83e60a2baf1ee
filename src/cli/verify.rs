//! `cache-helper verify`.

use std::time::SystemTime;

use clap::Args;

use super::audit::caches;
use super::nix_arguments::NixArguments;
use super::{Context, http_settings, installables};
use crate::error::{CommandError, ExitStatus};
use crate::event::Reporter;
use crate::jobs::verify::{self as job, Request, VerifyReport};
use crate::report;

/// Heading of `--help`.
const CACHES: &str = "Caches";

/// Shown at the end of `verify --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cache-helper verify --cache https://cache.example.org ./result
  cache-helper verify --cache https://cache.example.org --upstream https://cache.nixos.org .#default
  cache-helper verify --cache file:///srv/cache --deep /nix/store/…-hello

";

/// Prove that a cache can serve a closure.
///
/// Every narinfo below what is named is read from the cache: that it is one, names its path, is signed by a key that Nix
/// trusts, and what it refers to. Every NAR is looked for, or with --deep downloaded and hashed. What is named need not be in
/// the local store.
#[derive(Debug, Args)]
pub struct Verify {
    /// What to verify: store paths, links such as ./result, anything `nix build` takes, .drv files, or `-` for a list on
    /// standard input. Without any: `.`
    #[arg(value_name = "PATH")]
    pub installables: Vec<String>,
    /// The cache: `file:///DIRECTORY`, a path, `http(s)://HOST/…`, or `local`.
    #[arg(help_heading = CACHES, long, value_name = "CACHE", required = true)]
    pub cache: String,
    /// A cache that users of this one have anyway: what it serves in a form that Nix takes need not be in CACHE.
    #[arg(help_heading = CACHES, long, value_name = "CACHE", conflicts_with = "no_upstream")]
    pub upstream: Vec<String>,
    /// Leave the configured upstreams out.
    #[arg(help_heading = CACHES, long)]
    pub no_upstream: bool,
    /// Download every NAR, unpack it, and check its sizes and hashes. Nothing is kept.
    #[arg(long)]
    pub deep: bool,
    /// Give a request up when nothing moves for so many seconds.
    #[arg(help_heading = CACHES, long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print the report as JSON (schema cache-helper/verify/1).
    #[arg(help_heading = super::OUTPUT, long)]
    pub json: bool,
    /// Options for Nix.
    #[command(flatten)]
    pub nix: NixArguments,
}

/// Runs the command.
pub(super) async fn run(arguments: Verify, context: &Context) -> Result<ExitStatus, CommandError> {
    let started_at = SystemTime::now();
    let request = request(&arguments, context)?;
    let job = async |reporter: &Reporter| job::run(&request, reporter, &context.interrupted).await;
    let (result, warnings) = context.watched(job).await;
    let outcome = result?;
    let written = if arguments.json {
        context.printer.document(&report::verify::json(&request, &outcome, &warnings, started_at))
    } else {
        let palette = context.printer.out();
        context.printer.report(&report::verify::human(&outcome, context.verbose, palette))
    };
    // The answer is told in any case.
    let status = conclude(&request, &outcome, context);
    written?;
    Ok(status)
}

/// Says it where the answer is no or not known, and decides the exit status.
fn conclude(request: &Request, outcome: &VerifyReport, context: &Context) -> ExitStatus {
    let cache = &request.cache;
    let error = match outcome.verified {
        Some(true) => return ExitStatus::Success,
        Some(false) => CommandError::new(ExitStatus::No, format!("{cache} cannot serve the closure"))
            .hinted("the report says what is wrong, and what to do about it"),
        None => CommandError::new(
            ExitStatus::Inconclusive,
            format!("whether {cache} can serve the closure is not known"),
        )
        .hinted("the report says what could not be asked or checked; nothing else is wrong"),
    };
    context.printer.error(&error);
    error.status
}

fn request(arguments: &Verify, context: &Context) -> Result<Request, CommandError> {
    let environment = &context.environment;
    let evaluation = arguments.nix.to_evaluation_arguments();
    let named = std::slice::from_ref(&arguments.cache);
    let mut cache = caches(named, environment)?;
    let configured = environment.user_file()?.target(&arguments.cache, &environment.directory).upstreams;
    let upstreams = match (arguments.no_upstream, arguments.upstream.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => configured,
        (false, false) => arguments.upstream.clone(),
    };
    Ok(Request {
        installables: installables(&arguments.installables, &evaluation),
        arguments: evaluation,
        directory: environment.directory.clone(),
        // One was named.
        cache: cache.remove(0),
        upstreams: caches(&upstreams, environment)?,
        deep: arguments.deep,
        http: http_settings(environment, arguments.timeout),
        store: environment.store.clone(),
    })
}
