//! The report of `diff`.

mod pieces;
mod visible;
mod words;

use std::fmt::Write as _;
use std::time::SystemTime;

use self::visible::{marked_line, public};
use self::words::{SECRET, item_by_item, shortened, word_by_word};
use crate::jobs::diff::{
    ChangeReport, DiffReport, DifferenceReport, FileChange, FileStatus, Node, Patience, Request,
};
use crate::text::{Printable, count};
use crate::ui::Palette;
use serde_json::{Value, json};

/// How many differences are shown in full before the rest is named.
const SHOWN: usize = 20;

/// How many files, inputs or paths are named before the rest is counted.
const NAMED: usize = 10;

/// The document of `--json`; its schema is `docs/schema/diff.json`.
pub fn json(request: &Request, outcome: &DiffReport, warnings: &[String], started_at: SystemTime) -> Value {
    let named = [request.old.clone(), request.new.clone()];
    let mut document = super::document("diff", &named, warnings, started_at);
    let members = json!(outcome);
    for (name, value) in members.as_object().into_iter().flatten() {
        document[name] = value.clone();
    }
    document
}

/// The report as text.
pub fn human(outcome: &DiffReport, palette: Palette) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut text, outcome, &Look { palette, patience: Patience::default() });
    text
}

/// How things are told.
struct Look {
    palette: Palette,
    patience: Patience,
}

fn write_all(text: &mut String, outcome: &DiffReport, look: &Look) -> std::fmt::Result {
    if outcome.is_same() {
        let what = if outcome.old.drvs == outcome.new.drvs {
            "the same derivation"
        } else {
            "other derivations that make the same"
        };
        return writeln!(text, "{}: {what}", look.palette.good("no difference"));
    }
    let found = outcome.differences.len();
    let by_itself = if found == 1 { "differs by itself" } else { "differ by themselves" };
    let headline = format!("{} {by_itself}", count(found, "derivation"));
    writeln!(
        text,
        "{}; of {} {} rebuilt",
        look.palette.strong(headline),
        count(outcome.new.derivations, "derivation"),
        if outcome.rebuilds == 1 { "1 is".to_owned() } else { format!("{} are", outcome.rebuilds) },
    )?;
    if found == 0 && outcome.rebuilds > 0 && outcome.added.is_empty() && outcome.unread.is_empty() {
        writeln!(text, "why is not known")?;
    }
    for (title, nodes) in [("only in the old", &outcome.removed), ("only in the new", &outcome.added)] {
        for node in nodes.iter().take(NAMED) {
            writeln!(text, "{title}: {} ({})", node.name, node.drv)?;
        }
        write_more(text, nodes.len(), NAMED)?;
    }
    for difference in outcome.differences.iter().take(SHOWN) {
        write_difference(text, difference, found == 1, look)?;
    }
    if found > SHOWN {
        writeln!(text, "\nand {} more (--json has all of them):", found - SHOWN)?;
        for difference in outcome.differences.iter().skip(SHOWN).take(NAMED) {
            writeln!(text, "  {}", title(difference))?;
        }
        write_more(text, found - SHOWN, NAMED)?;
    }
    for pair in outcome.unread.iter().take(NAMED) {
        writeln!(text, "\n{}: {}: {}", look.palette.warning("not compared"), pair.new.name, pair.error)?;
    }
    write_more(text, outcome.unread.len(), NAMED)
}

fn title(difference: &DifferenceReport) -> String {
    let (old, new) = (&difference.old.name, &difference.new.name);
    if old == new { new.clone() } else { format!("{old} -> {new}") }
}

fn write_difference(
    text: &mut String,
    difference: &DifferenceReport,
    is_alone: bool,
    look: &Look,
) -> std::fmt::Result {
    let rebuilds = match difference.rebuilds {
        0 => "is not part of the new build".to_owned(),
        1 if is_alone => "itself is rebuilt, and nothing else".to_owned(),
        1 => "only itself is rebuilt because of this".to_owned(),
        number => format!("rebuilds {number} derivations, itself included"),
    };
    writeln!(text, "\n{}  {rebuilds}", look.palette.strong(title(difference)))?;
    writeln!(text, "  - {}\n  + {}", difference.old.drv, difference.new.drv)?;
    // Of the name, the title has told it.
    let told = |change: &&ChangeReport| !is_told_by_title(difference, change);
    for change in difference.changes.iter().filter(told) {
        write_change(text, change, look)?;
    }
    write_inputs(text, difference, look)
}

/// Whether a change is that of the name.
fn is_told_by_title(difference: &DifferenceReport, change: &ChangeReport) -> bool {
    let (before, now) = match change {
        ChangeReport::Variable { name, old: Some(old), new: Some(new) } if name == "name" => (old, new),
        ChangeReport::Name { old, new } => (old, new),
        _ => return false,
    };
    (before, now) == (&difference.old.name, &difference.new.name)
}

/// Inputs that went and that came, by name.
fn write_inputs(text: &mut String, difference: &DifferenceReport, look: &Look) -> std::fmt::Result {
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    for change in &difference.changes {
        match change {
            ChangeReport::InputRemoved { input, outputs } => removed.push(wanted(input, outputs)),
            ChangeReport::InputAdded { input, outputs } => added.push(wanted(input, outputs)),
            _ => {}
        }
    }
    for (sign, mut inputs) in [(look.palette.bad("-"), removed), (look.palette.good("+"), added)] {
        inputs.sort();
        for input in inputs.iter().take(NAMED) {
            writeln!(text, "  {sign} input {input}")?;
        }
        if inputs.len() > NAMED {
            writeln!(text, "  {sign} and {} more", inputs.len() - NAMED)?;
        }
    }
    Ok(())
}

fn write_change(text: &mut String, change: &ChangeReport, look: &Look) -> std::fmt::Result {
    match change {
        ChangeReport::System { old, new } => write_words(text, "system", Some(old), Some(new), look),
        ChangeReport::Name { old, new } => write_words(text, "name", Some(old), Some(new), look),
        ChangeReport::Kind { old, new } => {
            write_words(text, "kind", Some(old.name()), Some(new.name()), look)
        }
        ChangeReport::Content { old, new } => write_words(text, "content", Some(old), Some(new), look),
        ChangeReport::Builder { old, new } => write_words(text, "builder", Some(old), Some(new), look),
        ChangeReport::Arguments { old, new } => {
            writeln!(text, "  arguments: {}", item_by_item(old, new, &look.patience, look.palette))
        }
        ChangeReport::Variable { name, old, new } => {
            write_words(text, name, old.as_deref(), new.as_deref(), look)
        }
        ChangeReport::Outputs { old, new } => {
            write_words(text, "outputs", Some(&old.join(" ")), Some(&new.join(" ")), look)
        }
        ChangeReport::Source { name, old, new, files } => {
            write_source(text, name, (old.as_deref(), new.as_deref()), files.as_deref(), look)
        }
        // All together, at the end.
        ChangeReport::InputAdded { .. } | ChangeReport::InputRemoved { .. } => Ok(()),
        ChangeReport::InputOutputs { input, old, new } => {
            let title = format!("outputs of {}", input.name);
            write_words(text, &title, Some(&old.join(" ")), Some(&new.join(" ")), look)
        }
    }
}

fn wanted(input: &Node, outputs: &[String]) -> String {
    match outputs {
        [only] if only == "out" => input.name.clone(),
        // Of outputs, a file may say what it likes.
        outputs => format!("{} ({})", input.name, Printable(&outputs.join(", "))),
    }
}

fn write_source(
    text: &mut String,
    name: &str,
    (old, new): (Option<&str>, Option<&str>),
    files: Option<&[FileChange]>,
    look: &Look,
) -> std::fmt::Result {
    let (Some(old), Some(new)) = (old, new) else {
        let sign = if new.is_some() { look.palette.good("+") } else { look.palette.bad("-") };
        return writeln!(text, "  {sign} source {name} ({})", old.or(new).unwrap_or_default());
    };
    writeln!(text, "  source {name}")?;
    // Its text is one line, of which one would see nothing.
    if [old, new].iter().all(|path| path.strip_suffix(".drv").is_some()) {
        return writeln!(text, "    cache-helper diff {old} {new}");
    }
    match files {
        // A single file.
        Some([only]) if only.file.is_empty() => {
            if let Some(what) = what_else(only).strip_prefix(": ") {
                writeln!(text, "    {what}")?;
            }
            write_lines(text, only, look)?;
        }
        Some(files) => {
            for change in files.iter().take(NAMED) {
                let status = match change.status {
                    FileStatus::Added => look.palette.good("added"),
                    FileStatus::Removed => look.palette.bad("removed"),
                    FileStatus::Changed => look.palette.warning("changed"),
                };
                writeln!(text, "    {status} {}{}", Printable(&change.file), what_else(change))?;
                write_lines(text, change, look)?;
            }
            write_more(text, files.len(), NAMED)?;
        }
        None => {
            writeln!(text, "    - {old}\n    + {new}")?;
            return writeln!(text, "    not both are in the store, so that their files are not known");
        }
    }
    // Without it, it would read what links lead to.
    writeln!(text, "    diff -r --no-dereference {old} {new}")
}

/// What has changed of a file besides what is in it.
fn what_else(change: &FileChange) -> String {
    let leads = |target: &str| Printable(target).to_string();
    let link = change.link.as_ref().and_then(|link| match (&link.old, &link.new) {
        (Some(old), Some(new)) => Some(format!("{} -> {}", leads(old), leads(new))),
        (None, Some(new)) => Some(format!("now a link to {}", leads(new))),
        (Some(old), None) => Some(format!("no longer a link to {}", leads(old))),
        (None, None) => None,
    });
    let executable = change.executable.map(|now| if now { "now executable" } else { "no longer executable" });
    link.or(executable.map(ToOwned::to_owned)).map_or_else(String::new, |what| format!(": {what}"))
}

fn write_lines(text: &mut String, change: &FileChange, look: &Look) -> std::fmt::Result {
    let lines: Vec<String> = change.lines.iter().map(|line| marked_line(&public(line))).collect();
    for line in lines.iter().take(NAMED) {
        match line.chars().next() {
            Some('-') => writeln!(text, "      {}", look.palette.bad(line))?,
            Some('+') => writeln!(text, "      {}", look.palette.good(line))?,
            _ => writeln!(text, "      {line}")?,
        }
    }
    if lines.len() > NAMED {
        writeln!(text, "      …")?;
    }
    // What went and what came are written alike, and are not.
    let written = || change.lines.iter().zip(&lines);
    let is_hiding = written().any(|(old, before)| {
        written().any(|(new, now)| {
            before.strip_prefix('-').is_some_and(|before| now.strip_prefix('+') == Some(before))
                && old[1..] != new[1..]
        })
    });
    if is_hiding { writeln!(text, "      ({SECRET})") } else { Ok(()) }
}

/// A text before and now, word by word, with what is the same shortened.
fn write_words(
    text: &mut String,
    name: &str,
    old: Option<&str>,
    new: Option<&str>,
    look: &Look,
) -> std::fmt::Result {
    let name = Printable(name);
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(new)) => {
            return writeln!(text, "  {} {name} = {}", look.palette.good("+"), shortened(new));
        }
        (Some(old), None) => {
            return writeln!(text, "  {} {name} = {}", look.palette.bad("-"), shortened(old));
        }
        (None, None) => return Ok(()),
    };
    writeln!(text, "  {name}: {}", word_by_word(old, new, &look.patience, look.palette))
}

fn write_more(text: &mut String, all: usize, shown: usize) -> std::fmt::Result {
    if all > shown { writeln!(text, "    and {} more", all - shown) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::{ColorMode, Printer};

    #[test]
    fn many_long_texts_that_have_nothing_in_common_are_told_soon() {
        // Words in no order, of a size that each takes seconds in full.
        let text = |seed: u64| {
            let mut state = seed;
            let words = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'a' + u8::try_from((state >> 33) % 26).expect("a letter"))
            });
            words.take(95_000).flat_map(|word| [word, ' ']).collect::<String>()
        };
        let node = |name: &str| Node { drv: format!("/nix/store/x-{name}.drv"), name: name.to_owned() };
        let change = |number: u64| ChangeReport::Variable {
            name: format!("v{number}"),
            old: Some(text(2 * number)),
            new: Some(text(2 * number + 1)),
        };
        let difference = DifferenceReport {
            old: node("a"),
            new: node("a"),
            changes: (0..20).map(change).collect(),
            rebuilds: 1,
        };
        let outcome = DiffReport { differences: vec![difference], rebuilds: 1, ..DiffReport::default() };
        let began = std::time::Instant::now();
        let told = human(&outcome, Printer::new(ColorMode::Never).out());
        // The time for comparing, and as much as a slow machine takes for the rest.
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(
            told.lines().filter(|line| line.contains("[-") && line.contains("{+")).count(),
            20,
            "{told}"
        );
    }

    #[test]
    fn rebuilds_that_nothing_explains_are_said_to_be_unexplained() {
        let said = |outcome: &DiffReport| human(outcome, Printer::new(ColorMode::Never).out());
        let mut outcome = DiffReport { rebuilds: 3, ..DiffReport::default() };
        assert!(said(&outcome).ends_with("3 are rebuilt\nwhy is not known\n"));
        outcome.added = vec![Node { drv: "/nix/store/x-a.drv".to_owned(), name: "a".to_owned() }];
        assert!(!said(&outcome).contains("why"));
    }

    fn node(name: &str) -> Node {
        Node { drv: format!("/nix/store/x-{name}.drv"), name: name.to_owned() }
    }

    fn difference(old: &str, new: &str, changes: Vec<ChangeReport>) -> DifferenceReport {
        DifferenceReport { old: node(old), new: node(new), changes, rebuilds: 1 }
    }

    #[test]
    fn many_inputs_are_sorted_and_counted_and_their_outputs_are_harmless() {
        let removed = |name: usize| ChangeReport::InputRemoved {
            input: node(&format!("n{name:02}")),
            outputs: vec!["\u{1b}[2J".to_owned()],
        };
        let changes = (0..40).rev().map(removed).collect();
        let outcome =
            DiffReport { differences: vec![difference("a", "a", changes)], ..DiffReport::default() };
        let said = human(&outcome, Printer::new(ColorMode::Never).out());
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("  - input")).collect();
        assert_eq!((lines.len(), lines[0]), (NAMED, "  - input n00 (\\u{1b}[2J)"), "{said}");
        assert!(said.contains("n09") && said.ends_with("  - and 30 more\n"), "{said}");
    }

    #[test]
    fn nothing_is_told_twice_and_each_difference_is_told_as_one_of_several() {
        let name = |old: &str, new: &str| ChangeReport::Variable {
            name: "name".to_owned(),
            old: Some(old.to_owned()),
            new: Some(new.to_owned()),
        };
        let one = difference("z-1", "z-2", vec![name("z-1", "z-2")]);
        let said = |differences: Vec<DifferenceReport>| {
            human(&DiffReport { differences, ..DiffReport::default() }, Printer::new(ColorMode::Never).out())
        };
        let alone = said(vec![one.clone()]);
        assert!(alone.contains("z-1 -> z-2  itself is rebuilt, and nothing else"), "{alone}");
        assert!(!alone.contains("name:"), "{alone}");
        // That is another name than the title's.
        let other = said(vec![difference("z-1", "z-2", vec![name("z", "y")])]);
        assert!(other.contains("name: [-z-]{+y+}"), "{other}");
        let many = said(vec![one; SHOWN + 1]);
        assert!(
            many.contains("only itself is rebuilt because of this") && many.contains("and 1 more (--json"),
            "{many}"
        );
    }
}
