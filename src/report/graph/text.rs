//! The report of `graph` for people.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use crate::graph::{CriticalPath, DerivationIndex, DerivationKind, Paths};
use crate::jobs::graph::{Answer, GraphReport};
use crate::text::{count, duration, size, some};
use crate::ui::Palette;

/// How many of the derivations that most others need are named.
const MOST_NEEDED: usize = 10;

/// How many roots are named before the rest is counted.
const ROOTS: usize = 10;

/// How many of the derivations that something blocks are named.
const BLOCKED: usize = 20;

/// The report as text.
pub fn human(report: &GraphReport, palette: Palette) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match &report.answer {
        Answer::Everything => write_summary(&mut text, report, palette),
        Answer::Paths { from, to, paths } => write_paths(&mut text, report, (*from, *to), paths, palette),
        Answer::CriticalPath { path, unknown: None } => write_critical_path(&mut text, report, path, palette),
        Answer::CriticalPath { path, unknown: Some(unknown) } => {
            write_seconds(&mut text, report, path, unknown, palette)
        }
        Answer::BlockedBy { missing, roots, blocked } => {
            write_blocked(&mut text, report, (missing, roots, blocked), palette)
        }
    };
    text
}

fn write_summary(text: &mut String, report: &GraphReport, palette: Palette) -> std::fmt::Result {
    let (sizes, shape) = (report.graph.sizes(), report.graph.shape());
    writeln!(
        text,
        "{}, {} deep, at most {} side by side",
        palette.strong(count(report.graph.len(), "derivation")),
        shape.depth,
        shape.width
    )?;
    for (kind, number) in &sizes.kinds {
        writeln!(text, "  {:<18}{number:>8}{}", kind.name(), note(*kind))?;
    }
    let unwanted = sizes.outputs - sizes.wanted_outputs;
    writeln!(text, "  {:<18}{:>8}  {unwanted} of them not needed by others", "outputs", sizes.outputs)?;
    writeln!(text, "  {:<18}{:>8}", "sources", sizes.sources)?;
    let ways = match sizes.dynamic_inputs {
        0 => String::new(),
        number => format!("  and {number} to outputs of derivations that are outputs"),
    };
    writeln!(text, "  {:<18}{:>8}{ways}", "edges", sizes.edges)?;
    writeln!(text, "  {:<18}{:>8}", ".drv files", size(report.bytes))?;
    writeln!(text, "\n{}", palette.strong("roots"))?;
    for root in report.roots.iter().take(ROOTS) {
        writeln!(text, "  {}", report.drv(*root))?;
    }
    if report.roots.len() > ROOTS {
        writeln!(text, "  and {} more", report.roots.len() - ROOTS)?;
    }
    let enough = report.graph.tops(&report.roots).len();
    let different: HashSet<&DerivationIndex> = report.roots.iter().collect();
    if enough < different.len() {
        writeln!(text, "  of these {enough} would do: the others are needed by them")?;
    }
    let mut most = report.graph.most_needed(MOST_NEEDED);
    most.retain(|index| report.graph.dependents(*index).len() > 1);
    if !most.is_empty() {
        writeln!(text, "\n{}", palette.strong("needed by most others"))?;
        for index in most {
            let dependents = report.graph.dependents(index).len();
            writeln!(text, "  {dependents:>7}  {}", report.graph.derivation(index).name())?;
        }
    }
    write_damaged(text, report, palette)?;
    writeln!(
        text,
        "\nloaded in {}. Who needs what: --path FROM TO. What decides how long a build takes: --critical-path.\n\
         What a miss blocks: --blocked-by DRV. As data: --json. As a drawing: --format dot.",
        duration(report.elapsed)
    )
}

fn note(kind: DerivationKind) -> &'static str {
    match kind {
        DerivationKind::InputAddressed => "",
        DerivationKind::FixedOutput => "  downloads",
        DerivationKind::Deferred | DerivationKind::Floating => "  their paths show only after building",
        DerivationKind::Impure => "  built anew each time",
        DerivationKind::Unread => "  their files cannot be used",
    }
}

fn write_damaged(text: &mut String, report: &GraphReport, palette: Palette) -> std::fmt::Result {
    if report.damaged.is_empty() {
        return Ok(());
    }
    let number = count(report.damaged.len(), ".drv file");
    let needed = if report.damaged.len() == 1 { "it needs" } else { "they need" };
    writeln!(text, "\n{}", palette.bad(format!("{number} cannot be used, and what {needed} is not known")))?;
    for damaged in report.damaged.iter().take(ROOTS) {
        writeln!(text, "  {}", damaged.error)?;
    }
    if report.damaged.len() > ROOTS {
        writeln!(text, "  and {} more (--json lists them)", report.damaged.len() - ROOTS)?;
    }
    Ok(())
}

fn write_paths(
    text: &mut String,
    report: &GraphReport,
    (from, to): (DerivationIndex, DerivationIndex),
    paths: &Paths,
    palette: Palette,
) -> std::fmt::Result {
    let name = |index| report.graph.derivation(index).name();
    let shown = paths.shortest.len();
    let ways = match paths.number {
        1 => "in one way".to_owned(),
        u64::MAX => format!("in more ways than can be counted; the shortest {shown}"),
        number if number == shown as u64 || shown == 0 => format!("in {number} ways"),
        number => format!("in {number} ways; the shortest {shown}"),
    };
    if from == to {
        return writeln!(text, "both are {}", report.drv(from));
    }
    if paths.number == 0 {
        // That is an error, which is told elsewhere.
        return Ok(());
    }
    writeln!(text, "{} needs {} {ways}", palette.strong(name(from)), palette.strong(name(to)))?;
    for way in &paths.shortest {
        writeln!(text, "\n  {}", report.drv(way[0]))?;
        for pair in way.windows(2) {
            let wanted = report.wanted(pair[1], pair[0]).join(",");
            writeln!(text, "    needs {wanted} of {}", report.drv(pair[1]))?;
        }
    }
    if paths.number > shown as u64 {
        writeln!(text, "\nMore of them: --paths N. All that is on any of them, as a drawing: --format dot.")?;
    }
    Ok(())
}

fn write_critical_path(
    text: &mut String,
    report: &GraphReport,
    path: &CriticalPath,
    palette: Palette,
) -> std::fmt::Result {
    let built = report.graph.indices().filter(|index| report.graph.unit_weight(*index) > 0.0).count();
    let steps = path.steps.iter().filter(|step| step.weight > 0.0).count();
    let how = if steps == 1 { "has to be built" } else { "have to be built one after the other" };
    writeln!(text, "{} {how}, of {built} in all", palette.strong(count(steps, "derivation")))?;
    for (number, step) in path.steps.iter().enumerate() {
        writeln!(text, "  {:>6}  {}", number + 1, report.drv(step.derivation))?;
    }
    Ok(())
}

/// The critical path where it is known how long builds take.
fn write_seconds(
    text: &mut String,
    report: &GraphReport,
    path: &CriticalPath,
    unknown: &[DerivationIndex],
    palette: Palette,
) -> std::fmt::Result {
    let longest = format!("{} at least", seconds(path.weight));
    let steps = count(path.steps.len(), "derivation");
    writeln!(text, "{}, for {steps} one after the other", palette.strong(longest))?;
    for step in &path.steps {
        writeln!(text, "  {:>12}  {}", seconds(step.weight), report.drv(step.derivation))?;
    }
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().map(|index| report.graph.derivation(*index).name()).collect();
        let number = count(unknown.len(), "derivation");
        writeln!(
            text,
            "{}: of {number} no seconds are known, and none are counted: {}",
            palette.warning("unknown"),
            some(&names)
        )?;
    }
    Ok(())
}

/// Seconds as a person reads them; of what no clock counts, the number.
fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| format!("{seconds} s"), duration)
}

/// What some derivations block.
fn write_blocked(
    text: &mut String,
    report: &GraphReport,
    (missing, roots, blocked): (&[DerivationIndex], &[DerivationIndex], &[DerivationIndex]),
    palette: Palette,
) -> std::fmt::Result {
    let names = |all: &[DerivationIndex]| -> String {
        some(&all.iter().map(|index| report.graph.derivation(*index).name()).collect::<Vec<_>>())
    };
    let number = count(blocked.len(), "derivation");
    writeln!(text, "{} of {} need {}", palette.strong(number), report.graph.len(), names(missing))?;
    if roots.len() < missing.len() {
        writeln!(
            text,
            "  of the missing only {} {} no other of them",
            names(roots),
            if roots.len() == 1 { "needs" } else { "need" }
        )?;
    }
    for index in blocked.iter().take(BLOCKED) {
        writeln!(text, "  {}", report.drv(*index))?;
    }
    if blocked.len() > BLOCKED {
        writeln!(text, "  and {} more (--json has all of them)", blocked.len() - BLOCKED)?;
    }
    Ok(())
}
