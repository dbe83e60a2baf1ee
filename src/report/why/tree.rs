//! The ways by which something is needed, as one tree: what several begin with stands there once.
//!
//! A way may have as many steps as the graph is deep, fifty thousand for instance. So nothing here calls itself, and only a fork
//! makes what follows stand further to the right.

use std::collections::HashMap;
use std::fmt::Write;

use crate::jobs::why::{Step, Way};
use crate::text::Printable;
use crate::ui::Palette;

/// How many steps without a fork are written one by one.
const LONGEST: usize = 12;

/// Of more than that, how many at the beginning and at the end are.
const ENDS: usize = 3;

/// A step, and what comes next on the ways that have come here.
struct Node<'a> {
    step: &'a Step,
    next: Vec<usize>,
}

/// Ways that begin alike, joined as far as they do.
struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    /// What the ways begin with.
    roots: Vec<usize>,
}

/// What is still to be written: a branch, what stands to the left of it, and what leads to it.
struct Branch {
    first: usize,
    indent: String,
    line: &'static str,
}

impl<'a> Tree<'a> {
    /// Joins ways. Branches stand in the order in which they come in the ways.
    fn of(ways: &'a [Way]) -> Self {
        let mut tree = Self { nodes: Vec::new(), roots: Vec::new() };
        let mut known: HashMap<(Option<usize>, &str), usize> = HashMap::new();
        for way in ways {
            let mut before = None;
            for step in way {
                let new = tree.nodes.len();
                let node = *known.entry((before, &step.drv)).or_insert(new);
                if node == new {
                    tree.nodes.push(Node { step, next: Vec::new() });
                    match before {
                        Some(before) => tree.nodes[before].next.push(new),
                        None => tree.roots.push(new),
                    }
                }
                before = Some(node);
            }
        }
        tree
    }

    /// A node and what follows it, up to where the ways part or end.
    fn stretch(&self, first: usize) -> Vec<usize> {
        let mut stretch = vec![first];
        let mut last = first;
        while let [only] = self.nodes[last].next.as_slice() {
            last = *only;
            stretch.push(last);
        }
        stretch
    }

    /// A step by its name, with the outputs that are needed of it unless it is `out` alone.
    fn label(&self, node: usize, palette: Palette) -> String {
        let Node { step, next } = &self.nodes[node];
        let name = Printable(&step.name).to_string();
        let name = if next.is_empty() { palette.strong(name) } else { name };
        match step.outputs.as_slice() {
            [] => name,
            [only] if only == "out" => name,
            several => format!("{name} ({})", Printable(&several.join(", "))),
        }
    }
}

/// Writes the tree, with all of it or with long stretches folded, and says whether any was.
pub(super) fn write_tree(
    text: &mut String,
    ways: &[Way],
    is_whole: bool,
    palette: Palette,
) -> Result<bool, std::fmt::Error> {
    let tree = Tree::of(ways);
    let root = |first: &usize| Branch { first: *first, indent: "  ".to_owned(), line: "" };
    let mut open: Vec<Branch> = tree.roots.iter().rev().map(root).collect();
    let mut is_folded = false;
    while let Some(Branch { first, indent, line }) = open.pop() {
        let stretch = tree.stretch(first);
        let deeper = match line {
            "" => indent.clone(),
            "├─ " => format!("{indent}│  "),
            _ => format!("{indent}   "),
        };
        writeln!(text, "{indent}{line}{}", tree.label(first, palette))?;
        let others = &stretch[1..];
        let folded = if is_whole || others.len() <= LONGEST { 0 } else { others.len() - 2 * ENDS };
        let (begin, end) = others.split_at(if folded == 0 { others.len() } else { ENDS });
        for node in begin {
            writeln!(text, "{deeper}→ {}", tree.label(*node, palette))?;
        }
        if folded > 0 {
            is_folded = true;
            writeln!(text, "{deeper}… {folded} steps …")?;
            for node in &end[folded..] {
                writeln!(text, "{deeper}→ {}", tree.label(*node, palette))?;
            }
        }
        let next = &tree.nodes[stretch[stretch.len() - 1]].next;
        for (number, first) in next.iter().enumerate().rev() {
            let line = if number + 1 == next.len() { "└─ " } else { "├─ " };
            open.push(Branch { first: *first, indent: deeper.clone(), line });
        }
    }
    Ok(is_folded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::{ColorMode, Printer};

    fn way(names: &str) -> Way {
        let step = |name: &str| Step { drv: name.to_owned(), name: name.to_owned(), outputs: Vec::new() };
        names.split(' ').map(step).collect()
    }

    fn tree(ways: &[Way], is_whole: bool) -> (String, bool) {
        let mut text = String::new();
        let palette = Printer::new(ColorMode::Never).out();
        let is_folded = write_tree(&mut text, ways, is_whole, palette).expect("a text");
        (text, is_folded)
    }

    #[test]
    fn the_first_way_stands_first_and_what_ways_share_once() {
        // As they come, not by what their paths happen to be.
        let ways = [way("top z end"), way("top a b end"), way("top z y x end"), way("other end")];
        let expected = "  top\n  ├─ z\n  │  ├─ end\n  │  └─ y\n  │     → x\n  │     → end\n  └─ a\n     → b\n     → end\n  other\n  → end\n";
        assert_eq!(tree(&ways, false), (expected.to_owned(), false));
    }

    #[test]
    fn what_never_parts_is_folded_and_never_indented() {
        let names: Vec<String> = (0..50_000).map(|number| format!("n{number}")).collect();
        let ways = [way(&names.join(" "))];
        let expected =
            "  n0\n  → n1\n  → n2\n  → n3\n  … 49993 steps …\n  → n49997\n  → n49998\n  → n49999\n";
        assert_eq!(tree(&ways, false), (expected.to_owned(), true));
        let (whole, is_folded) = tree(&ways, true);
        assert_eq!((whole.lines().count(), is_folded), (50_000, false));
        assert!(whole.ends_with("\n  → n49998\n  → n49999\n"));
    }
}
