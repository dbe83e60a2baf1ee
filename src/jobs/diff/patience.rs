//! How long texts are compared.

use std::cell::Cell;
use std::time::{Duration, Instant};

use similar::{TextDiff, TextDiffConfig};

/// For how long all long texts of a report are compared, and one of them at most.
const ALL: Duration = Duration::from_secs(1);
const EACH: Duration = Duration::from_millis(200);

/// Texts up to this length, in bytes, are compared in a few milliseconds whatever they are.
const SHORT: usize = 4096;

/// What is left of the time for comparing long texts. Two that have little in common take as many steps as both have words,
/// squared: 200 kB take seconds, and a derivation may have many such. What is not compared in time counts as changed as a
/// whole, which is as much as anybody reads of it.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Cell<Duration>,
    each: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { left: Cell::new(ALL), each: EACH }
    }
}

impl Patience {
    /// As much as any test needs: what is told must not depend on how fast the machine is.
    #[cfg(test)]
    pub(crate) fn ample() -> Self {
        let hour = Duration::from_hours(1);
        Self { left: Cell::new(hour), each: hour }
    }

    /// Compares two texts as `compare` does.
    pub(crate) fn compare<'a>(
        &self,
        old: &'a str,
        new: &'a str,
        compare: impl FnOnce(&TextDiffConfig, &'a str, &'a str) -> TextDiff<'a, 'a, str>,
    ) -> TextDiff<'a, 'a, str> {
        let mut how = TextDiff::configure();
        if old.len().max(new.len()) <= SHORT {
            return compare(&how, old, new);
        }
        let began = Instant::now();
        how.timeout(self.left.get().min(self.each));
        let found = compare(&how, old, new);
        self.left.set(self.left.get().saturating_sub(began.elapsed()));
        found
    }
}

#[cfg(test)]
mod tests {
    use similar::ChangeTag;

    use super::*;

    /// Numbers in no order, line by line.
    fn text(seed: usize, lines: usize) -> String {
        let numbers = (0..lines).map(|number| (number * 7919 + seed * 104_729) % 97 % (7 + seed));
        numbers.map(|number| number.to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn when_time_is_over_long_texts_count_as_changed_and_short_ones_are_still_compared() {
        let over = Patience { left: Cell::new(Duration::ZERO), each: EACH };
        let ample = Patience::ample();
        let lines = |lines, patience: &Patience| {
            let (old, new) = (text(1, lines), text(2, lines));
            let found = patience.compare(&old, &new, TextDiffConfig::diff_lines);
            found.iter_all_changes().filter(|change| change.tag() == ChangeTag::Equal).count()
        };
        assert!(lines(500, &over) > 100);
        assert!(lines(4000, &ample) > 100);
        assert!(ample.left.get() < ample.each);
        assert!(lines(4000, &over) < 10);
    }
}
