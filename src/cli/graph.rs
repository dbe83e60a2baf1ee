//! `cache-helper graph`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{ArgAction, Args, ValueEnum};

use super::nix_arguments::NixArguments;
use super::{Context, installables};
use crate::error::{CommandError, ExitStatus};
use crate::event::Reporter;
use crate::jobs::graph::{self as job, Answer, GraphReport, Question, Request};
use crate::jobs::unless;
use crate::report;
use crate::ui::Printer;

/// Heading of `--help`.
const QUESTIONS: &str = "Questions";

/// How many ways are told in full to people.
const PATHS: usize = 5;

/// How many are told in full in JSON, which is read by programs.
const PATHS_IN_JSON: usize = 1000;

/// How many are told in full at most: their number may have any number of digits.
const MOST_PATHS: usize = 10_000;

/// Shown at the end of `graph --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cache-helper graph .#default
  cache-helper graph --path default openssl .#default
  cache-helper graph --critical-path --seconds seconds.json .#default
  cache-helper graph --blocked-by openssl .#default
  cache-helper graph --json .#default > before.json
  cache-helper graph --format dot .#default | dot -Tsvg > graph.svg

";

/// Show what something is built from, without building it.
#[derive(Debug, Args)]
pub struct Graph {
    /// What to show: anything `nix build` takes, store paths, links such as ./result, .drv files, or `-` for a list on
    /// standard input. Without any: `.`
    #[arg(value_name = "INSTALLABLE")]
    pub installables: Vec<String>,
    /// Say by which ways FROM needs TO. Each is a .drv path, an output's path, a name with or without its version, or an
    /// installable.
    #[arg(help_heading = QUESTIONS, long, num_args = 2, action = ArgAction::Set, value_names = ["FROM", "TO"])]
    pub path: Vec<String>,
    /// How many ways are told in full, the shortest first: a number, or `all`, which stands for 10000 at most. Their number is told
    /// in any case. Without it: 5, and 1000 as JSON.
    #[arg(help_heading = QUESTIONS, long, value_name = "N", requires = "path", value_parser = most_paths)]
    pub paths: Option<usize>,
    /// Say which derivations have to be built one after the other, however many machines there are.
    #[arg(help_heading = QUESTIONS, long, conflicts_with = "path")]
    pub critical_path: bool,
    /// Take from this file how many seconds each derivation takes: a JSON object by .drv path, its base name, or name.
    #[arg(help_heading = QUESTIONS, long, value_name = "FILE", requires = "critical_path")]
    pub seconds: Option<PathBuf>,
    /// Say what cannot be built as long as this derivation is missing; may be given several times.
    #[arg(help_heading = QUESTIONS, long, value_name = "DRV", conflicts_with_all = ["path", "critical_path"])]
    pub blocked_by: Vec<String>,
    /// How to print it.
    #[arg(help_heading = super::OUTPUT, long, value_enum, default_value = "human", value_name = "FORMAT")]
    pub format: Format,
    /// As --format json.
    #[arg(help_heading = super::OUTPUT, long, conflicts_with = "format")]
    pub json: bool,
    /// Options for Nix.
    #[command(flatten)]
    pub nix: NixArguments,
}

/// How many ways are wanted.
fn most_paths(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(MOST_PATHS);
    }
    let number = text.parse().ok().filter(|number| *number <= MOST_PATHS);
    number.ok_or_else(|| format!("write a number from 0 to {MOST_PATHS}, or `all`"))
}

/// How to print a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A summary for people.
    Human,
    /// Everything (schema cache-helper/graph/1), which `cache-helper diff` reads; of a question its answer (graph-path/1).
    Json,
    /// A drawing for Graphviz.
    Dot,
}

/// Runs the command.
pub(super) async fn run(arguments: Graph, context: &Context) -> Result<ExitStatus, CommandError> {
    let started_at = SystemTime::now();
    let environment = &context.environment;
    let evaluation = arguments.nix.to_evaluation_arguments();
    let format = if arguments.json { Format::Json } else { arguments.format };
    let question = match <[String; 2]>::try_from(arguments.path) {
        Ok([from, to]) => {
            let usual = if format == Format::Json { PATHS_IN_JSON } else { PATHS };
            Question::Paths { from, to, most: arguments.paths.unwrap_or(usual) }
        }
        Err(_) if arguments.critical_path => Question::CriticalPath { seconds: arguments.seconds },
        Err(_) if !arguments.blocked_by.is_empty() => Question::BlockedBy { missing: arguments.blocked_by },
        Err(_) => Question::Everything,
    };
    let request = Request {
        installables: installables(&arguments.installables, &evaluation),
        arguments: evaluation,
        directory: environment.directory.clone(),
        store: environment.store.clone(),
        question,
    };
    let job = async |reporter: &Reporter| job::run(&request, reporter, &context.interrupted).await;
    let (result, warnings) = context.watched(job).await;
    let report = result?;
    let status = conclude(&report, context);
    let printer = context.printer.clone();
    // On a thread of its own, so that a reader who does not read holds up no interruption.
    let written = tokio::task::spawn_blocking(move || {
        show(&printer, format, &report, |out| match report.answer {
            Answer::Everything => report::graph::write_graph(&request, &report, &warnings, started_at, out),
            Answer::BlockedBy { .. } => {
                report::graph::write_blocked(&request, &report, &warnings, started_at, out)
            }
            _ => report::graph::write_answer(&request, &report, &warnings, started_at, out),
        })
    });
    match unless(&context.interrupted, written).await {
        None => Err(CommandError::new(ExitStatus::Interrupted, "interrupted before the graph was written")),
        Some(Ok(Ok(()))) => Ok(status),
        Some(Ok(Err(error))) => Err(error.into()),
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn show(
    printer: &Printer,
    format: Format,
    report: &GraphReport,
    json: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    match format {
        Format::Human => printer.report(&report::graph::human(report, printer.out())),
        Format::Json => printer.stream_document(json),
        Format::Dot => printer.stream(|out| report::graph::write_drawing(report, out)),
    }
}

/// Says that there is no way, where one was asked for.
fn conclude(report: &GraphReport, context: &Context) -> ExitStatus {
    let Answer::Paths { from, to, .. } = &report.answer else { return ExitStatus::Success };
    if report.is_yes() {
        return ExitStatus::Success;
    }
    let message = format!("{} does not need {}", report.drv(*from), report.drv(*to));
    let mut error = CommandError::new(ExitStatus::No, message);
    if report.graph.paths(*to, *from, 0).number > 0 {
        error = error.hinted("it is the other way round: --path TO FROM");
    } else if !report.damaged.is_empty() {
        error = error.hinted("as far as is known: some .drv files could not be read, and may be on a way");
    }
    context.printer.error(&error);
    error.status
}
