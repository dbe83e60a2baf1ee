//! The report of `audit`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::audit::{Outlook, Reason, Role, Status};
use crate::jobs::audit::{AuditReport, CacheStatus, DerivationReport, Request};
use crate::text::{count, duration, size, some};
use crate::ui::Palette;

/// How many roots are told before the rest is counted, unless everything is asked for.
const ROOTS: usize = 10;

/// A hit rate to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The least hit rate, from 0 to 1.
    pub least: f64,
    /// Whether it is reached; nothing where that depends on what could not be asked.
    pub passed: Option<bool>,
}

impl Gate {
    /// The least hit rate in percent, as it was written.
    pub fn percent(self) -> f64 {
        // 57 % is not a number that a computer has.
        (self.least * 1e8).round() / 1e6
    }
}

/// The document of `--json`; its schema is `docs/schema/audit.json`.
pub fn json(
    request: &Request,
    outcome: &AuditReport,
    gate: Option<Gate>,
    warnings: &[String],
    started_at: SystemTime,
) -> Value {
    let mut document = super::document("audit", &request.installables, warnings, started_at);
    document["revision"] = json!(outcome.revision);
    document["nix"] = json!(outcome.nix);
    document["view"] = json!(outcome.view);
    document["caches"] = json!(outcome.caches);
    document["targets"] = json!(outcome.targets);
    document["totals"] = json!(outcome.totals);
    document["derivations"] = json!(outcome.derivations);
    document["gate"] =
        json!({ "minHitRate": gate.map(|gate| gate.least), "passed": gate.and_then(|gate| gate.passed) });
    document["seconds"] = json!(outcome.elapsed.as_secs_f64());
    document
}

/// The report as text: the answer first, then what to do, then, with `everything`, each derivation.
pub fn human(outcome: &AuditReport, gate: Option<Gate>, everything: bool, palette: Palette) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut text, outcome, gate, everything, palette);
    text
}

fn write_report(
    text: &mut String,
    outcome: &AuditReport,
    gate: Option<Gate>,
    everything: bool,
    palette: Palette,
) -> std::fmt::Result {
    writeln!(text, "{}", headline(outcome, gate, palette))?;
    write_totals(text, outcome)?;
    write_nix(text, outcome, palette)?;
    writeln!(text)?;
    write_caches(text, outcome, palette)?;
    write_roots(text, outcome, everything, palette)?;
    write_hits(text, outcome, palette)?;
    write_inconclusive(text, outcome, everything, palette)?;
    if everything {
        write_everything(text, outcome, palette)?;
    } else if outcome.derivations.len() > outcome.totals.root_misses {
        writeln!(text, "\nEvery derivation with its reason: -v. As data: --json.")?;
    }
    Ok(())
}

fn headline(outcome: &AuditReport, gate: Option<Gate>, palette: Palette) -> String {
    let totals = &outcome.totals;
    let counted = totals.hits + totals.misses + totals.inconclusive;
    if totals.needed == 0 && counted == 0 {
        let nothing = "nothing is needed: all that was named is valid in the store already";
        return format!(
            "{} (--assume-empty-store shows what somebody without it needs)",
            palette.good(nothing)
        );
    }
    let Some(rate) = totals.hit_rate else {
        let words = if totals.inconclusive > 0 {
            palette.warning(format!(
                "hit rate unknown: {} inconclusive",
                count(totals.inconclusive, "derivation")
            ))
        } else {
            palette.good(
                "hit rate: nothing counts for it, all that is needed is built here by design or downloaded",
            )
        };
        return words;
    };
    // Rounded down, so that 100 % means all.
    let percent = format!("hit rate {:.1} %", (rate * 1000.0).floor() / 10.0);
    let percent = match gate.map(|gate| gate.passed) {
        Some(Some(false)) => palette.bad(percent),
        Some(None) => palette.warning(percent),
        Some(Some(true)) => palette.good(percent),
        None if totals.misses == 0 => palette.good(percent),
        None => palette.strong(percent),
    };
    let mut line = format!(
        "{percent}: {} of {} on the caches",
        totals.hits,
        count(totals.hits + totals.misses, "derivation")
    );
    if totals.inconclusive > 0 {
        line.push_str(&format!("; of {} more nobody knows", totals.inconclusive));
    }
    if let Some(gate) = gate {
        line.push_str(&format!(" (asked for: {} %)", gate.percent()));
    }
    line
}

fn write_totals(text: &mut String, outcome: &AuditReport) -> std::fmt::Result {
    let totals = &outcome.totals;
    let fetched =
        format!("  {} to download, {} unpacked", size(totals.download_bytes), size(totals.unpack_bytes));
    let downloads = match totals.fixed_output_misses {
        0 => "  not in the rate".to_owned(),
        missing => format!("  {missing} of them not on the caches; not in the rate"),
    };
    let split = format!("  {}, and {} that follow", count(totals.root_misses, "root"), totals.cascades);
    let rows = [
        ("hits", totals.hits, if totals.hits > 0 { fetched } else { String::new() }),
        ("misses", totals.misses, if totals.misses > 0 { split } else { String::new() }),
        ("inconclusive", totals.inconclusive, String::new()),
        (
            "local by design",
            totals.local_by_design,
            "  built by Nix even when a cache has them; not in the rate".to_owned(),
        ),
        ("downloads", totals.fixed_output, downloads),
    ];
    for (name, number, note) in rows {
        if number > 0 {
            writeln!(text, "  {name:<16}{number:>6}{note}")?;
        }
    }
    Ok(())
}

/// What Nix would do, which is another question than what the caches hold.
fn write_nix(text: &mut String, outcome: &AuditReport, palette: Palette) -> std::fmt::Result {
    let number = |wanted: Outlook| {
        outcome.derivations.iter().filter(|derivation| derivation.nix == Some(wanted)).count()
    };
    let parts: Vec<String> = OUTLOOKS
        .iter()
        .map(|(outlook, words)| (number(*outlook), words))
        .filter(|(number, _)| *number > 0)
        .map(|(number, words)| format!("{words} {number}"))
        .collect();
    let unknown = match number(Outlook::Unknown) {
        0 => String::new(),
        number => format!("{} {number} cannot be foretold", if parts.is_empty() { "" } else { ";" }),
    };
    if parts.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    let name = match outcome.nix.implementation {
        crate::nix::Implementation::Lix => "Lix",
        _ => "Nix",
    };
    let from = if outcome.view.assume_empty_store { ", from an empty store," } else { "" };
    let would = if parts.is_empty() { ":" } else { " would " };
    writeln!(text, "  {name} {}{from}{would}{}{unknown}", outcome.nix.version, parts.join(", "))?;
    if outcome.stops {
        let words = "and stop at a lookup that fails, unless `fallback` is on";
        writeln!(text, "  {}", palette.bad(words))?;
    }
    Ok(())
}

/// What Nix would do, in the words of a sentence that begins with "would".
const OUTLOOKS: [(Outlook, &str); 4] = [
    (Outlook::Fetch, "fetch"),
    (Outlook::Build, "build"),
    (Outlook::BuildThenFetch, "make the inputs and then fetch"),
    (Outlook::Fail, "fail to make"),
];

fn write_caches(text: &mut String, outcome: &AuditReport, palette: Palette) -> std::fmt::Result {
    writeln!(text, "{}", palette.strong("caches, as Nix asks them"))?;
    for cache in &outcome.caches {
        let median = cache.median_seconds.map(|seconds| format!(", {:.1} ms each", seconds * 1000.0));
        let asked = format!("{}{}", count(cache.requests, "question"), median.unwrap_or_default());
        let status = match cache.status {
            CacheStatus::Ok => palette.good("ok"),
            CacheStatus::NotACache => palette.bad("no binary cache"),
            CacheStatus::OtherStore => palette.bad("for another store directory"),
            CacheStatus::Denied => palette.bad("access denied"),
            CacheStatus::Unreachable => palette.bad("unreachable"),
            CacheStatus::Unsupported => palette.warning("not asked"),
        };
        let words = cache.words.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
        writeln!(text, "  {}  (priority {}) {status}, {asked}{words}", cache.url, cache.priority)?;
    }
    Ok(())
}

fn write_roots(
    text: &mut String,
    outcome: &AuditReport,
    everything: bool,
    palette: Palette,
) -> std::fmt::Result {
    let mut roots: Vec<&DerivationReport> =
        outcome.derivations.iter().filter(|derivation| derivation.role == Role::Root).collect();
    if roots.is_empty() {
        return Ok(());
    }
    roots.sort_by_key(|root| std::cmp::Reverse(root.blocks));
    // What one step mends stands together: a key to trust concerns all that it has signed.
    let mut groups: Vec<Vec<&DerivationReport>> = Vec::new();
    for root in roots {
        let is_same = |group: &Vec<&DerivationReport>| {
            (&group[0].sentence, &group[0].fix) == (&root.sentence, &root.fix)
        };
        match groups.iter_mut().find(|group| is_same(group)) {
            Some(group) => group.push(root),
            None => groups.push(vec![root]),
        }
    }
    writeln!(text, "\n{}", palette.strong("root misses: mend these, and what they block follows"))?;
    let shown = if everything { groups.len() } else { ROOTS };
    for group in groups.iter().take(shown) {
        match group.as_slice() {
            [root] => write_root(text, outcome, root, palette)?,
            group => write_group(text, group, palette)?,
        }
    }
    if groups.len() > shown {
        let more: usize = groups[shown..].iter().map(Vec::len).sum();
        writeln!(text, "  and {more} more (-v shows them)")?;
    }
    Ok(())
}

fn write_root(
    text: &mut String,
    outcome: &AuditReport,
    root: &DerivationReport,
    palette: Palette,
) -> std::fmt::Result {
    writeln!(text, "  {}{}", palette.bad(&root.name), blocks(root.blocks))?;
    writeln!(text, "    {} ({})", root.sentence, id(root))?;
    writeln!(text, "    {}", root.drv)?;
    write_chain(text, root)?;
    write_blocked(text, outcome, root)?;
    write_fix(text, root, palette)
}

fn write_group(text: &mut String, group: &[&DerivationReport], palette: Palette) -> std::fmt::Result {
    let most = group.iter().map(|root| root.blocks).max().unwrap_or_default();
    let names: Vec<&str> = group.iter().map(|root| root.name.as_str()).collect();
    writeln!(text, "  {}{}", palette.bad(some(&names)), blocks(most))?;
    writeln!(text, "    of each: {} ({})", group[0].sentence, id(group[0]))?;
    write_fix(text, group[0], palette)
}

fn blocks(number: usize) -> String {
    if number > 0 { format!("  blocks {number}") } else { String::new() }
}

fn write_fix(text: &mut String, root: &DerivationReport, palette: Palette) -> std::fmt::Result {
    root.fix.as_ref().map_or(Ok(()), |fix| writeln!(text, "    {} {fix}", palette.hint("->")))
}

fn id(derivation: &DerivationReport) -> &'static str {
    derivation.reason.map_or("", |reason: Reason| reason.text().id)
}

fn write_chain(text: &mut String, root: &DerivationReport) -> std::fmt::Result {
    if root.evidence.chain.len() < 2 {
        return Ok(());
    }
    writeln!(text, "    it refers to: {}", root.evidence.chain.join(" -> "))
}

fn write_blocked(text: &mut String, outcome: &AuditReport, root: &DerivationReport) -> std::fmt::Result {
    let blocked: Vec<&str> = outcome
        .derivations
        .iter()
        .filter(|derivation| derivation.caused_by.contains(&root.drv))
        .map(|derivation| derivation.name.as_str())
        .collect();
    if blocked.is_empty() {
        return Ok(());
    }
    writeln!(text, "    blocks {}", some(&blocked))
}

/// Which hits there are, by the cache that serves them.
fn write_hits(text: &mut String, outcome: &AuditReport, palette: Palette) -> std::fmt::Result {
    let mut by_cache: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let is_hit = |derivation: &&DerivationReport| derivation.is_counted && derivation.verdict == Status::Hit;
    for hit in outcome.derivations.iter().filter(is_hit) {
        let wanted = hit.outputs.iter().filter(|output| output.wanted);
        let cache = wanted.flat_map(|output| &output.answers).find(|answer| answer.answer == "present");
        if let Some(cache) = cache {
            by_cache.entry(&cache.cache).or_default().push(&hit.name);
        }
    }
    if by_cache.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n{}", palette.strong("hits, by the cache that has them first"))?;
    for (cache, names) in by_cache {
        writeln!(text, "  {cache}: {}", some(&names))?;
    }
    Ok(())
}

fn write_inconclusive(
    text: &mut String,
    outcome: &AuditReport,
    everything: bool,
    palette: Palette,
) -> std::fmt::Result {
    let unknown =
        || outcome.derivations.iter().filter(|derivation| derivation.verdict == Status::Inconclusive);
    if unknown().next().is_none() || everything {
        return Ok(());
    }
    writeln!(text, "\n{}", palette.strong("inconclusive: nobody knows"))?;
    let mut by_words: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for derivation in unknown() {
        let key = (derivation.sentence.as_str(), derivation.fix.as_deref().unwrap_or_default());
        by_words.entry(key).or_default().push(&derivation.name);
    }
    let number = by_words.len();
    for ((sentence, fix), names) in by_words.into_iter().take(ROOTS) {
        writeln!(text, "  {}", some(&names))?;
        writeln!(text, "    {sentence}")?;
        writeln!(text, "    {} {fix}", palette.hint("->"))?;
    }
    if number > ROOTS {
        writeln!(text, "  and {} more kinds (-v shows them)", number - ROOTS)?;
    }
    Ok(())
}

fn write_everything(text: &mut String, outcome: &AuditReport, palette: Palette) -> std::fmt::Result {
    writeln!(text, "\n{}", palette.strong("every derivation, inputs first"))?;
    for derivation in &outcome.derivations {
        let verdict = match derivation.verdict {
            Status::Hit => palette.good("hit"),
            Status::Miss => palette.bad("miss"),
            Status::Inconclusive => palette.warning("inconclusive"),
        };
        let role = match derivation.role {
            Role::Root => ", root",
            Role::Cascade => ", follows",
            Role::None => "",
        };
        let nix = derivation.nix.map_or("nothing to do", |outlook| match outlook {
            Outlook::Fetch => "fetch",
            Outlook::Build => "build",
            Outlook::BuildThenFetch => "build its inputs, then fetch",
            Outlook::Fail => "fail",
            Outlook::Unknown => "unknown",
        });
        writeln!(text, "  {}  {verdict}{role}; Nix: {nix}", derivation.name)?;
        if !derivation.sentence.is_empty() {
            writeln!(text, "    {} ({})", derivation.sentence, id(derivation))?;
        }
        for also in &derivation.also {
            writeln!(text, "    also: {}", also.reason.text().id)?;
        }
        for output in derivation.outputs.iter().filter(|output| output.wanted) {
            let answers: Vec<String> = output
                .answers
                .iter()
                .map(|answer| {
                    let status = answer.status.map(|status| format!(" ({status})")).unwrap_or_default();
                    format!("{} {}{status}", answer.cache, answer.answer)
                })
                .collect();
            let path = output.path.as_deref().unwrap_or("known only after building");
            writeln!(text, "    {}: {path}  {}", output.name, answers.join(", "))?;
        }
        for cause in &derivation.caused_by {
            writeln!(text, "    because of {cause}")?;
        }
        if derivation.role == Role::None {
            write_fix(text, derivation, palette)?;
        }
    }
    writeln!(text, "\naudited in {}", duration(outcome.elapsed))
}
