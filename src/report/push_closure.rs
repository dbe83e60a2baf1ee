//! The report of `push-closure`.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::jobs::push_closure::{DevShellReport, PushClosureReport, Request, SourcePath, TargetReport};
use crate::plan::Tally;
use crate::text::{Printable, count, duration, size};
use crate::ui::Palette;

/// How many paths are named in a list before the rest is counted.
const NAMED: usize = 10;

/// The document of `--json`; its schema is `docs/schema/push-closure.json`.
pub fn json(
    request: &Request,
    outcome: &PushClosureReport,
    warnings: &[String],
    started_at: SystemTime,
) -> Value {
    let mut document = super::document("push-closure", &request.installables, warnings, started_at);
    document["revision"] = json!(outcome.revision);
    document["dryRun"] = json!(request.dry_run);
    document["devShells"] = json!(outcome.dev_shells);
    document["targets"] = json!(outcome.targets);
    document["seconds"] = json!(outcome.elapsed.as_secs_f64());
    document
}

/// The report as text.
pub fn human(request: &Request, outcome: &PushClosureReport, palette: Palette) -> String {
    let mut text = String::new();
    for target in &outcome.targets {
        // Writing to a string cannot fail.
        let _ = write_target(&mut text, target, request, palette);
    }
    for shell in &outcome.dev_shells {
        let _ = write_dev_shell(&mut text, shell, request, outcome, palette);
    }
    text
}

fn write_target(
    text: &mut String,
    target: &TargetReport,
    request: &Request,
    palette: Palette,
) -> std::fmt::Result {
    writeln!(text, "{}", headline(target, request, palette))?;
    if target.push.paths == 0 && target.present.paths == 0 && target.error.is_some() {
        // It ended before anything was to be done.
        return write_sources(text, target, palette);
    }
    let blocked = Tally { paths: target.blocked.len(), nar_bytes: 0 };
    let mut rows = vec![
        ("closure", target.closure),
        ("already there", target.present),
        ("upstream", target.upstream),
        ("excluded", target.excluded),
    ];
    if request.dry_run {
        rows.push(("to push", target.push));
    } else {
        rows.push(("pushed", Tally { paths: target.pushed.paths, nar_bytes: target.pushed.nar_bytes }));
        rows.push(("failed", Tally { paths: target.failed.len(), nar_bytes: 0 }));
        rows.push(("not finished", target.unfinished));
    }
    rows.push(("blocked", blocked));
    for (name, tally) in rows {
        if tally.paths > 0 || name == "closure" {
            let bytes =
                if tally.nar_bytes > 0 { format!("  {}", size(tally.nar_bytes)) } else { String::new() };
            writeln!(text, "  {name:<14}{:>12}{bytes}", count(tally.paths, "path"))?;
        }
    }
    let to_push = target.plan.iter().flatten().filter(|planned| planned.class == "push");
    for planned in to_push {
        writeln!(text, "    {:>10}  {}", size(planned.nar_bytes), planned.path)?;
    }
    write_sources(text, target, palette)?;
    match target.verified {
        Some(true) => writeln!(text, "  read back: Nix can fetch the whole closure from there")?,
        None if target.is_rest_verified => {
            writeln!(text, "  read back: Nix can fetch from there what was not excluded")?;
        }
        None if request.skip_verification && !request.dry_run => writeln!(text, "  not read back")?,
        Some(false) | None => {}
    }
    list(text, &palette.bad("failed"), target.failed.iter().map(|f| format!("{}: {}", f.path, f.error)))?;
    list(
        text,
        &palette.warning("blocked"),
        target.blocked.iter().map(|b| format!("{} by {}", b.path, b.by)),
    )?;
    list(text, &palette.bad("not fetchable"), target.problems.iter().cloned())?;
    write_usage(text, target, request)
}

fn write_sources(text: &mut String, target: &TargetReport, palette: Palette) -> std::fmt::Result {
    let (withheld, free): (Vec<_>, Vec<_>) = target.sources.iter().partition(|source| source.is_withheld);
    let shown = |source: &&SourcePath| format!("{}, {}", source.path, source.what);
    list(text, &palette.warning("withheld"), withheld.iter().map(shown))?;
    list(text, "source", free.iter().map(shown))
}

/// What of a dev shell is where: its environment is of use only where it is.
fn write_dev_shell(
    text: &mut String,
    shell: &DevShellReport,
    request: &Request,
    outcome: &PushClosureReport,
    palette: Palette,
) -> std::fmt::Result {
    let name = format!("dev shell {}", Printable(&shell.installable));
    let lacks = |target: &&TargetReport| target.incomplete_dev_shells.contains(&shell.installable);
    let lacking: Vec<&TargetReport> = outcome.targets.iter().filter(lacks).collect();
    if lacking.len() < outcome.targets.len() {
        writeln!(
            text,
            "{name}: its environment is that of Nix {}; another version makes its own",
            shell.nix
        )?;
        for path in &shell.environment {
            writeln!(text, "  {path}")?;
        }
    }
    let lacks = if request.dry_run { "would lack" } else { "lacks" };
    for target in lacking {
        writeln!(text, "{}: {} {lacks} a part of it", palette.warning(&name), target.url)?;
    }
    Ok(())
}

fn headline(target: &TargetReport, request: &Request, palette: Palette) -> String {
    let url = &target.url;
    let is_complete = target.failed.is_empty() && target.blocked.is_empty() && target.error.is_none();
    if target.error.is_some() && request.dry_run {
        return palette.bad(format!("nothing would be pushed to {url}"));
    }
    if target.error.is_some() && target.pushed.paths == 0 {
        return palette.bad(format!("nothing was pushed to {url}"));
    }
    if request.dry_run {
        let would =
            format!("would push {} ({})", count(target.push.paths, "path"), size(target.push.nar_bytes));
        return format!("{} to {url}", palette.strong(would));
    }
    let moved = format!(
        "pushed {} ({}, stored as {}) to {url} in {}",
        count(target.pushed.paths, "path"),
        size(target.pushed.nar_bytes),
        size(target.pushed.file_bytes),
        duration(target.elapsed),
    );
    match (is_complete, target.verified) {
        (true, _) if target.push.paths == 0 => {
            let with_upstreams = if target.upstream.paths > 0 { "with its upstreams " } else { "" };
            let left_out = match target.excluded.paths {
                0 => "the whole closure".to_owned(),
                1 => "all but the 1 path that is excluded".to_owned(),
                excluded => format!("all but the {excluded} paths that are excluded"),
            };
            let nothing = format!("nothing to push: {url} {with_upstreams}has {left_out}");
            match target.verified {
                Some(false) => palette.bad(format!("nothing to push, but {url} cannot serve the closure")),
                _ => palette.good(nothing),
            }
        }
        (true, Some(true) | None) => palette.good(moved),
        (true, Some(false)) => format!("{}; but it cannot be read back whole", palette.bad(moved)),
        (false, _) => format!("{}; the closure is {}", palette.bad(moved), palette.bad("not complete there")),
    }
}

fn list(text: &mut String, what: &str, items: impl ExactSizeIterator<Item = String>) -> std::fmt::Result {
    let more = items.len().saturating_sub(NAMED);
    for item in items.take(NAMED) {
        writeln!(text, "  {what}: {item}")?;
    }
    if more > 0 {
        writeln!(text, "  {what}: and {more} more")?;
    }
    Ok(())
}

/// What a user of the cache has to tell Nix, once it is new.
fn write_usage(text: &mut String, target: &TargetReport, request: &Request) -> std::fmt::Result {
    if !target.is_new_key || request.dry_run {
        return Ok(());
    }
    writeln!(text, "\nThis cache is new. For Nix to use it, add to nix.conf:")?;
    writeln!(text, "  extra-substituters = {}", target.url)?;
    if let Some(key) = &target.public_key {
        writeln!(text, "  extra-trusted-public-keys = {key}")?;
    }
    Ok(())
}
