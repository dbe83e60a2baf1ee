//! The report of `why`.

mod tree;

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};

use self::tree::write_tree;
use crate::audit::Status;
use crate::jobs::audit::{DerivationReport, OutputReport};
use crate::jobs::why::{Request, WhyReport};
use crate::text::{Printable, count};
use crate::ui::Palette;

/// The document of `--json`; its schema is `docs/schema/why.json`.
pub fn json(request: &Request, outcome: &WhyReport, warnings: &[String], started_at: SystemTime) -> Value {
    let named = [std::slice::from_ref(&request.what), &request.of].concat();
    let mut document = super::document("why", &named, warnings, started_at);
    document["revision"] = json!(outcome.revision);
    document["drv"] = json!(outcome.drv);
    document["name"] = json!(outcome.name);
    document["ways"] = json!({ "number": outcome.number, "shortest": outcome.ways });
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
    writeln!(text, "{}  {}", palette.strong(Printable(&outcome.name)), outcome.drv)?;
    if let Some(derivation) = &outcome.derivation {
        write_derivation(text, derivation, palette)?;
    }
    write_ways(text, outcome, is_whole, palette)
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
    if outcome.ways.iter().all(|way| way.len() < 2) {
        return Ok(());
    }
    let shown = outcome.ways.len();
    let ways = match outcome.number {
        1 => "in one way".to_owned(),
        u64::MAX => format!("in more ways than can be counted; the shortest {shown}"),
        number if number == shown as u64 => format!("in {}", count(shown, "way")),
        number => format!("in {number} ways; the shortest {shown}"),
    };
    writeln!(text, "needed {ways}")?;
    if write_tree(text, &outcome.ways, is_whole, palette)? {
        writeln!(text, "every step: -v")?;
    }
    Ok(())
}
