//! The report of `why`.

mod tree;

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};

use self::tree::write_tree;
use crate::audit::Status;
use crate::jobs::audit::{DerivationReport, OutputReport};
use crate::jobs::why::{Needing, Request, Step, Subject, WhyReport};
use crate::text::{Printable, count};
use crate::ui::Palette;

/// How many of the derivations that need a source are named.
const NEEDING: usize = 10;

/// The document of `--json`; its schema is `docs/schema/why.json`.
pub fn json(request: &Request, outcome: &WhyReport, warnings: &[String], started_at: SystemTime) -> Value {
    let named = [std::slice::from_ref(&request.what), &request.of].concat();
    let mut document = super::document("why", &named, warnings, started_at);
    document["revision"] = json!(outcome.revision);
    let (drv, source, needing) = match &outcome.subject {
        Subject::Derivation(drv) => (Some(drv), None, [].as_slice()),
        Subject::Source(path, needing) => (None, Some(path), needing.as_slice()),
    };
    document["drv"] = json!(drv);
    document["source"] = json!(source);
    document["neededBy"] = json!(needing);
    document["name"] = json!(outcome.name);
    let number = (outcome.number < u64::MAX).then_some(outcome.number);
    document["ways"] = json!({ "number": number, "shortest": outcome.ways });
    document["caches"] = json!(outcome.caches);
    document["derivation"] = json!(outcome.derivation);
    document
}

/// The report as text; whole, or with long ways folded.
pub fn human(outcome: &WhyReport, is_whole: bool, palette: Palette) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut text, outcome, is_whole, palette);
    text
}

fn write_all(text: &mut String, outcome: &WhyReport, is_whole: bool, palette: Palette) -> std::fmt::Result {
    let (Subject::Derivation(path) | Subject::Source(path, _)) = &outcome.subject;
    writeln!(text, "{}  {path}", palette.strong(Printable(&outcome.name)))?;
    match (&outcome.subject, &outcome.derivation) {
        (Subject::Source(_, needing), _) => write_needing(text, needing)?,
        (_, Some(derivation)) => write_derivation(text, derivation, palette)?,
        (_, None) => {
            let verdict = palette.warning("inconclusive");
            writeln!(
                text,
                "  {verdict}: no cache was asked, for Nix has no substituters here and --cache names none"
            )?;
        }
    }
    write_ways(text, outcome, is_whole, palette)
}

/// Which derivations need a source.
fn write_needing(text: &mut String, needing: &[Needing]) -> std::fmt::Result {
    writeln!(text, "  a source of {}", count(needing.len(), "derivation"))?;
    for derivation in needing.iter().take(NEEDING) {
        writeln!(text, "    {}  {}", Printable(&derivation.name), derivation.drv)?;
    }
    if needing.len() > NEEDING {
        writeln!(text, "    and {} more (--json has all of them)", needing.len() - NEEDING)?;
    }
    Ok(())
}

fn write_derivation(text: &mut String, derivation: &DerivationReport, palette: Palette) -> std::fmt::Result {
    for output in &derivation.outputs {
        write_output(text, output, palette)?;
    }
    match derivation.verdict {
        Status::Hit => writeln!(text, "  {}: Nix can fetch it", palette.good("hit"))?,
        Status::Miss => writeln!(text, "  {}: {}", palette.bad("miss"), derivation.sentence)?,
        Status::Inconclusive => {
            writeln!(text, "  {}: {}", palette.warning("inconclusive"), derivation.sentence)?;
        }
    }
    match &derivation.fix {
        Some(fix) => writeln!(text, "  -> {fix}"),
        None => Ok(()),
    }
}

fn write_output(text: &mut String, output: &OutputReport, palette: Palette) -> std::fmt::Result {
    let path = output.path.as_deref().unwrap_or("its path shows only after building");
    writeln!(text, "  {}  {path}", Printable(&output.name))?;
    for answer in &output.answers {
        let status = answer.status.map(|status| format!(" ({status})")).unwrap_or_default();
        let said = if answer.answer == "present" {
            palette.good(answer.answer)
        } else {
            palette.warning(answer.answer)
        };
        writeln!(text, "    {said}{status} on {}", answer.cache)?;
    }
    Ok(())
}

/// The ways as one tree.
fn write_ways(text: &mut String, outcome: &WhyReport, is_whole: bool, palette: Palette) -> std::fmt::Result {
    let mut ways = outcome.ways.clone();
    if let Subject::Source(path, _) = &outcome.subject {
        let source = Step { drv: path.clone(), name: outcome.name.clone(), outputs: Vec::new() };
        for way in &mut ways {
            way.push(source.clone());
        }
    }
    if ways.iter().all(|way| way.len() < 2) {
        return Ok(());
    }
    let shown = outcome.ways.len();
    let number = match outcome.number {
        1 => "in one way".to_owned(),
        u64::MAX => format!("in more ways than can be counted; the shortest {shown}"),
        number if number == shown as u64 => format!("in {}", count(shown, "way")),
        number => format!("in {number} ways; the shortest {shown}"),
    };
    writeln!(text, "needed {number}")?;
    if write_tree(text, &ways, is_whole, palette)? {
        writeln!(text, "every step: -v")?;
    }
    Ok(())
}
