//! All that was found, and what follows from it.

use super::problem::Problem;

/// How many findings are kept one by one; the rest are counted. A hostile cache could fill the memory with them.
const KEPT: usize = 10_000;

/// Something that is wrong with a path, or was not to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The path, with its store directory; nothing for a cache as a whole.
    pub path: Option<String>,
    /// Which cache: 0 is the one that is verified, and the upstreams follow.
    pub cache: usize,
    /// What it is.
    pub problem: Problem,
    /// A path that needs it; nothing for what was named.
    pub needed_by: Option<String>,
    /// The name of the path's NAR, where it is known.
    pub nar: Option<String>,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The findings, in the order in which they were made.
    pub kept: Vec<Finding>,
    /// How many things are wrong, kept or not.
    pub wrong: usize,
    /// How many things are not known, kept or not.
    pub unknown: usize,
}

impl Findings {
    /// Notes a finding.
    pub fn add(&mut self, finding: Finding) {
        let number = if finding.problem.is_unknown() { &mut self.unknown } else { &mut self.wrong };
        *number += 1;
        // The first of what is wrong is worth more than the last of what is not known.
        if self.kept.len() < KEPT || (!finding.problem.is_unknown() && self.wrong == 1) {
            self.kept.push(finding);
        }
    }

    /// Whether the closure can be served: no as soon as something is wrong, and nobody knows as long as something is not known.
    pub fn verified(&self) -> Option<bool> {
        match (self.wrong, self.unknown) {
            (0, 0) => Some(true),
            (0, _) => None,
            _ => Some(false),
        }
    }

    /// How many are not kept.
    pub fn more(&self) -> usize {
        (self.wrong + self.unknown).saturating_sub(self.kept.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_is_certain_and_a_yes_needs_everything() {
        let finding = |problem| Finding { path: None, cache: 0, problem, needed_by: None, nar: None };
        let mut findings = Findings::default();
        assert_eq!(findings.verified(), Some(true));
        for _ in 0..KEPT + 5 {
            findings.add(finding(Problem::Unreachable("down".to_owned())));
        }
        assert_eq!((findings.verified(), findings.more()), (None, 5));
        findings.add(finding(Problem::Missing { has_upstreams: false }));
        assert_eq!((findings.verified(), findings.more()), (Some(false), 5));
        assert_eq!(
            findings.kept.last().map(|finding| &finding.problem),
            Some(&Problem::Missing { has_upstreams: false })
        );
    }
}
