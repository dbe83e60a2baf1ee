//! The graph in the language of Graphviz. (Its grammar: <https://graphviz.org/doc/info/lang.html>)

use std::fmt;
use std::io::{self, Write};

use crate::graph::{DerivationIndex, DerivationKind};
use crate::jobs::graph::{Answer, GraphReport};

/// Writes the graph, or of it what is on the ways that were asked for.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_drawing(report: &GraphReport, out: &mut dyn Write) -> io::Result<()> {
    let graph = &report.graph;
    let shown = match &report.answer {
        Answer::Everything => graph.indices().collect(),
        Answer::Paths { from, to, .. } => graph.between(*from, *to),
        Answer::BlockedBy { missing, blocked, .. } => {
            let mut all = [missing.as_slice(), blocked].concat();
            // Inputs come first, as everywhere.
            all.sort_unstable();
            all
        }
        Answer::CriticalPath { path, .. } => {
            path.steps.iter().map(|step| step.derivation).collect::<Vec<_>>()
        }
    };
    let mut is_shown = vec![false; graph.len()];
    for index in &shown {
        is_shown[index.position()] = true;
    }
    writeln!(out, "digraph {{")?;
    writeln!(out, "  node [shape=box, style=rounded];")?;
    for index in &shown {
        let view = graph.derivation(*index);
        let look = match view.kind() {
            DerivationKind::InputAddressed => "",
            DerivationKind::FixedOutput => ", shape=folder, style=\"\"",
            DerivationKind::Deferred | DerivationKind::Floating => ", style=\"rounded,dashed\"",
            DerivationKind::Impure => ", style=\"rounded,dashed\", color=blue",
            DerivationKind::Unread => ", style=dotted, color=red",
        };
        writeln!(out, "  {} [label={}{look}];", name(report, *index), Quoted(view.name()))?;
    }
    for index in &shown {
        for input in graph.inputs(*index).filter(|input| is_shown[input.derivation.position()]) {
            let label = match report.named(input).as_slice() {
                [] | ["out"] => String::new(),
                wanted => format!(" [label={}]", Quoted(&wanted.join(","))),
            };
            writeln!(out, "  {} -> {}{label};", name(report, *index), name(report, input.derivation))?;
        }
    }
    writeln!(out, "}}")
}

/// What a derivation is called in the drawing.
fn name(report: &GraphReport, index: DerivationIndex) -> String {
    Quoted(&report.graph.derivation(index).path().to_basename()).to_string()
}

/// A text in quotes, out of which nothing in it leads: neither a quote, nor a backslash, which begins the escapes of labels.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        formatter.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(formatter, "\\{character}")?,
                character if character.is_control() => formatter.write_char('\u{fffd}')?,
                character => formatter.write_char(character)?,
            }
        }
        formatter.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_quotes() {
        assert_eq!(Quoted("a\"];b\\").to_string(), r#""a\"];b\\""#);
        assert_eq!(Quoted("\\N\n<b>").to_string(), "\"\\\\N\u{fffd}<b>\"");
    }
}
