//! The command line: one short file a command, which reads arguments, calls the job and shows what became of it.

mod audit;
mod diff;
mod graph;
mod nix_arguments;
mod push_closure;
mod verify;
mod why;

use std::fmt::Write as _;
use std::io::BufRead as _;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::sync::{oneshot, watch};

use crate::config::Environment;
use crate::error::{CommandError, ExitStatus};
use crate::event::Reporter;
use crate::net::HttpSettings;
use crate::nix::EvaluationArguments;
use crate::ui::{ColorMode, Printer, ProgressMode, Watch};

pub use audit::Audit;
pub use diff::Diff;
pub use graph::Graph;
pub use push_closure::PushClosure;
pub use verify::Verify;
pub use why::Why;

/// Heading of `--help` for what every command prints.
const OUTPUT: &str = "Output";

/// Keeps a team's Nix binary cache hot.
#[derive(Debug, Parser)]
#[command(name = "cache-helper", version, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to show progress on standard error.
    #[arg(long, global = true, help_heading = OUTPUT, value_enum, default_value = "auto", value_name = "HOW")]
    pub progress: ProgressMode,
    /// When to use colours.
    #[arg(long, global = true, help_heading = OUTPUT, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: ColorMode,
    /// Show more: what is done (-v), every step (-vv), every request (-vvv).
    #[arg(short, long, global = true, help_heading = OUTPUT, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Show no progress, only warnings and the report.
    #[arg(short, long, global = true, help_heading = OUTPUT, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say which derivations miss the caches, and why.
    Audit(Audit),
    /// Say why two derivations differ, and how many rebuilds that causes.
    Diff(Diff),
    /// Show what something is built from, without building it.
    Graph(Graph),
    /// Push what a cache is missing of a closure, and prove that Nix can fetch it.
    PushClosure(PushClosure),
    /// Prove that a cache can serve a closure.
    Verify(Verify),
    /// Say why something is needed, and whether the caches have it.
    Why(Why),
}

impl Command {
    /// What was named to work on, where that may be a list on standard input.
    fn named(&mut self) -> Option<&mut Vec<String>> {
        match self {
            Self::Audit(arguments) => Some(&mut arguments.installables),
            Self::Diff(_) | Self::Why(_) => None,
            Self::Graph(arguments) => Some(&mut arguments.installables),
            Self::PushClosure(arguments) => Some(&mut arguments.installables),
            Self::Verify(arguments) => Some(&mut arguments.installables),
        }
    }
}

/// What every command is given.
struct Context {
    printer: Printer,
    environment: Environment,
    progress: ProgressMode,
    verbose: bool,
    interrupted: watch::Receiver<bool>,
}

impl Context {
    /// Runs a job while what it tells is shown; gives what came of it, and what it warned of.
    async fn watched<T>(&self, job: impl AsyncFnOnce(&Reporter) -> T) -> (T, Vec<String>) {
        let watch = Watch::start(&self.printer, self.progress);
        let result = job(&watch.reporter()).await;
        (result, watch.warnings())
    }
}

/// Runs the program: everything but the exit status of the process.
pub fn main() -> ExitStatus {
    let help = exit_status_help();
    let parsed = Arguments::command()
        .mut_subcommand("audit", |command| command.after_help(format!("{}{help}", audit::EXAMPLES)))
        .mut_subcommand("diff", |command| command.after_help(format!("{}{help}", diff::EXAMPLES)))
        .mut_subcommand("graph", |command| command.after_help(format!("{}{help}", graph::EXAMPLES)))
        .mut_subcommand("push-closure", |command| {
            command.after_help(format!("{}{help}", push_closure::EXAMPLES))
        })
        .mut_subcommand("verify", |command| command.after_help(format!("{}{help}", verify::EXAMPLES)))
        .mut_subcommand("why", |command| command.after_help(format!("{}{help}", why::EXAMPLES)))
        .after_help(help.clone())
        .try_get_matches()
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            // Prints to standard output for --help and --version, to standard error otherwise; a reader who has gone
            // away is no error.
            let _gone = error.print();
            return if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Success };
        }
    };
    let printer = Printer::new(arguments.color);
    start_log(&printer, arguments.verbose);
    match run(arguments, &printer) {
        Ok(status) => status,
        Err(error) => {
            printer.error(&error);
            error.status
        }
    }
}

fn run(mut arguments: Arguments, printer: &Printer) -> Result<ExitStatus, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        CommandError::new(ExitStatus::Impossible, format!("cannot start threads: {error}"))
    })?;
    let context = Context {
        printer: printer.clone(),
        environment: Environment::read()?,
        progress: if arguments.quiet { ProgressMode::None } else { arguments.progress },
        verbose: arguments.verbose > 0,
        interrupted: runtime.block_on(async { watch_signals(printer.clone()) }),
    };
    let result = runtime.block_on(async {
        if let Some(named) = arguments.command.named() {
            read_list(named, &context.interrupted).await?;
        }
        match arguments.command {
            Command::Audit(arguments) => audit::run(arguments, &context).await,
            Command::Diff(arguments) => diff::run(arguments, &context).await,
            Command::Graph(arguments) => graph::run(arguments, &context).await,
            Command::PushClosure(arguments) => push_closure::run(arguments, &context).await,
            Command::Verify(arguments) => verify::run(arguments, &context).await,
            Command::Why(arguments) => why::run(arguments, &context).await,
        }
    });
    // Work that was cut short may sit in a thread that reads or compresses; nobody waits for it any more.
    runtime.shutdown_background();
    result
}

/// Replaces each `-` by the lines of standard input.
///
/// Who types the list may also interrupt it: it is read on a thread that nobody waits for then.
async fn read_list(named: &mut Vec<String>, interrupted: &watch::Receiver<bool>) -> Result<(), CommandError> {
    if !named.iter().any(|name| name == "-") {
        return Ok(());
    }
    let (sender, lines) = oneshot::channel();
    std::thread::spawn(move || sender.send(std::io::stdin().lock().lines().collect::<Result<Vec<_>, _>>()));
    let mut interrupted = interrupted.clone();
    let lines = tokio::select! {
        Ok(_) = interrupted.wait_for(|interrupted| *interrupted) => {
            return Err(CommandError::new(ExitStatus::Interrupted, "interrupted while reading standard input"));
        }
        lines = lines => lines.unwrap_or_else(|_| Ok(Vec::new())),
    };
    let lines = lines.map_err(|error| CommandError::usage(format!("cannot read standard input: {error}")))?;
    let lines = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).map(str::to_owned);
    let (mut all, mut lines) = (Vec::new(), Some(lines));
    for name in std::mem::take(named) {
        if name == "-" {
            // A second `-` finds nothing more to read.
            all.extend(lines.take().into_iter().flatten());
        } else {
            all.push(name);
        }
    }
    if all.is_empty() {
        return Err(CommandError::usage("standard input names nothing")
            .hinted("write one installable a line, such as a store path"));
    }
    *named = all;
    Ok(())
}

/// The installables that were named; `.` where there are none and nothing else says what to evaluate.
fn installables(named: &[String], evaluation: &EvaluationArguments) -> Vec<String> {
    let mut all = named.to_vec();
    if all.is_empty() && !evaluation.has_source {
        all.push(".".to_owned());
    }
    all
}

/// How to speak HTTP: with the user's certificates, and giving up when nothing moves for so many seconds.
fn http_settings(environment: &Environment, timeout: u64) -> HttpSettings {
    HttpSettings {
        stall_timeout: Duration::from_secs(timeout),
        connect_timeout: Duration::from_secs(timeout.min(15)),
        roots: environment.tls_roots(),
        ..HttpSettings::default()
    }
}

/// Turns true at the first signal to stop; the second ends the process at once.
fn watch_signals(printer: Printer) -> watch::Receiver<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(false);
    let streams = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupts), Ok(mut terminations)) = streams else { return receiver };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            if sender.send_replace(true) {
                std::process::exit(ExitStatus::Interrupted.code().into());
            }
            printer.line("stopping: what is under way has a few seconds to end; once more to quit at once");
        }
    });
    receiver
}

fn start_log(printer: &Printer, verbose: u8) {
    let level = match verbose {
        // What libraries say of themselves helps nobody who pushes; each request is a line of ours.
        0 => "error,cache_helper=warn",
        1 => "error,cache_helper=info",
        2 => "error,cache_helper=debug",
        _ => "error,cache_helper=trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(printer.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
}

fn exit_status_help() -> String {
    let mut help = String::from("Exit status:\n");
    for (status, meaning) in ExitStatus::TABLE {
        // Writing to a string cannot fail.
        let _ = writeln!(help, "  {:>3}  {meaning}", status.code());
    }
    help.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
