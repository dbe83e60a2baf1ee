//! The report of `verify`.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::jobs::verify::{ProblemReport, Request, VerifyReport};
use crate::text::{count, duration, size};
use crate::ui::Palette;

/// How many paths of a kind of problem are named before the rest is counted, unless everything is asked for.
const NAMED: usize = 10;

/// The document of `--json`; its schema is `docs/schema/verify.json`.
pub fn json(request: &Request, outcome: &VerifyReport, warnings: &[String], started_at: SystemTime) -> Value {
    let mut document = super::document("verify", &request.installables, warnings, started_at);
    document["revision"] = json!(outcome.revision);
    document["verified"] = json!(outcome.verified);
    document["deep"] = json!(outcome.deep);
    document["paths"] = json!(outcome.roots);
    document["caches"] = json!(outcome.caches);
    document["totals"] = json!(outcome.totals);
    document["problems"] = json!(outcome.problems);
    document["seconds"] = json!(outcome.elapsed.as_secs_f64());
    document
}

/// The report as text: the answer first, then what was looked at, then what is wrong, what of it where, and what to do.
pub fn human(outcome: &VerifyReport, everything: bool, palette: Palette) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut text, outcome, everything, palette);
    text
}

fn write_report(
    text: &mut String,
    outcome: &VerifyReport,
    everything: bool,
    palette: Palette,
) -> std::fmt::Result {
    writeln!(text, "{}", headline(outcome, palette))?;
    write_totals(text, outcome)?;
    let named = if everything { usize::MAX } else { NAMED };
    let mut rest = &outcome.problems[..];
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|other| is_like(first, other)).count();
        let (group, others) = rest.split_at(same);
        write_group(text, first, group, named, palette)?;
        rest = others;
    }
    let more = (outcome.totals.problems + outcome.totals.unknown).saturating_sub(outcome.problems.len());
    if more > 0 {
        writeln!(text, "\nand {} that are not listed", count(more, "more problem"))?;
    }
    Ok(())
}

fn headline(outcome: &VerifyReport, palette: Palette) -> String {
    let cache = outcome.caches.first().map_or("", |cache| &cache.url);
    let helped = outcome.caches.iter().skip(1).any(|upstream| upstream.serves.paths > 0);
    let with_upstreams = if helped { ", with its upstreams," } else { "" };
    let what = match &outcome.roots[..] {
        [] => "nothing".to_owned(),
        [one] => format!("the closure of {one}"),
        several => format!("the closure of {}", count(several.len(), "path")),
    };
    let seconds = duration(outcome.elapsed);
    match outcome.verified {
        Some(true) => {
            format!("{}: {cache}{with_upstreams} can serve {what} ({seconds})", palette.good("verified"))
        }
        Some(false) => {
            format!(
                "{}: {cache}{with_upstreams} cannot serve {what} ({seconds})",
                palette.bad("not verified")
            )
        }
        None => format!(
            "{}: whether {cache}{with_upstreams} can serve {what} is not known ({seconds})",
            palette.warning("inconclusive")
        ),
    }
}

fn write_totals(text: &mut String, outcome: &VerifyReport) -> std::fmt::Result {
    let totals = &outcome.totals;
    if totals.paths == 0 {
        return Ok(());
    }
    let bytes = |download, unpacked| format!("{} to download, {} unpacked", size(download), size(unpacked));
    let row = |name: &str, paths, bytes: &str| format!("  {name:<14}{:>12}  {bytes}\n", count(paths, "path"));
    let whole = bytes(totals.download_bytes, totals.unpack_bytes);
    // What a path refers to whose narinfo was not found, nobody knows.
    let served: usize = outcome.caches.iter().map(|cache| cache.serves.paths).sum();
    let name = if served < totals.paths { "known of it" } else { "closure" };
    text.push_str(&row(name, totals.paths, &whole));
    for cache in outcome.caches.iter().filter(|_| outcome.caches.len() > 1) {
        let name = if cache.role == "cache" { "cache" } else { "upstream" };
        let served = bytes(cache.serves.download_bytes, cache.serves.unpack_bytes);
        text.push_str(&row(name, cache.serves.paths, &format!("{served}  {}", cache.url)));
    }
    let how = match (outcome.deep, outcome.verified) {
        (true, _) => "downloaded, unpacked and hashed",
        (false, Some(true)) => "by their presence and size; --deep downloads and hashes them",
        (false, _) => "by their presence and size",
    };
    writeln!(text, "  {:<14}{:>12}  {how}", "checked", count(totals.nars, "NAR"))
}

/// Whether one advice is for both.
fn is_like(one: &ProblemReport, other: &ProblemReport) -> bool {
    one.problem == other.problem && one.cache == other.cache
}

fn write_group(
    text: &mut String,
    first: &ProblemReport,
    group: &[ProblemReport],
    named: usize,
    palette: Palette,
) -> std::fmt::Result {
    let kind = if first.unknown { palette.warning(first.problem) } else { palette.bad(first.problem) };
    let has_one_fix = group.iter().all(|problem| problem.fix == first.fix);
    let has_same_words = group.iter().all(|problem| problem.words == first.words);
    let number =
        if first.path.is_none() { String::new() } else { format!(", {}", count(group.len(), "path")) };
    let words = if has_same_words { &first.words } else { "" };
    let separator = if has_same_words { ": " } else { "" };
    writeln!(text, "\n{kind} on {}{number}{separator}{words}", first.cache)?;
    for problem in group.iter().take(named) {
        match &problem.path {
            Some(path) if has_same_words => writeln!(text, "  {path}")?,
            Some(path) => writeln!(text, "  {path}: {}", problem.words)?,
            None => {}
        }
        if let Some(by) = problem.needed_by.as_ref().filter(|_| problem.problem == "missing") {
            writeln!(text, "    needed by {by}")?;
        }
        if !has_one_fix {
            writeln!(text, "    {} {}", palette.hint("->"), problem.fix)?;
        }
    }
    if group.len() > named {
        writeln!(text, "  and {} more (-v names all)", group.len() - named)?;
    }
    if has_one_fix {
        writeln!(text, "  {} {}", palette.hint("->"), first.fix)?;
    }
    Ok(())
}
