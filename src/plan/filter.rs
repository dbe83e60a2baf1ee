//! Which paths a push may move, by name.

use regex::RegexSet;

/// A pattern that is not a regular expression.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is not a regular expression: {reason}")]
pub struct FilterError {
    /// The pattern as it was given.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Include and exclude patterns over base names (`<hash>-<name>`), unanchored as in `grep`.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: RegexSet,
    exclude: RegexSet,
}

impl Filter {
    /// Compiles the patterns. Without an include pattern everything is included; an exclude pattern wins.
    ///
    /// # Errors
    ///
    /// When a pattern is not a regular expression, or one so large that it would take megabytes.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, FilterError> {
        let compile = |patterns: &[String]| {
            for pattern in patterns {
                regex::Regex::new(pattern).map_err(|error| FilterError {
                    pattern: pattern.clone(),
                    reason: error.to_string().lines().last().unwrap_or_default().replace("error: ", ""),
                })?;
            }
            RegexSet::new(patterns)
                .map_err(|error| FilterError { pattern: patterns.join("|"), reason: error.to_string() })
        };
        Ok(Self { include: compile(include)?, exclude: compile(exclude)? })
    }

    /// Whether a path of this base name may move.
    pub fn keeps(&self, base_name: &str) -> bool {
        (self.include.is_empty() || self.include.is_match(base_name)) && !self.exclude.is_match(base_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclude_wins_over_include() {
        let filter = Filter::new(&["-hello".into()], &["-doc$".into()]).expect("patterns");
        assert!(filter.keeps("abc-hello-2"));
        assert!(!filter.keeps("abc-hello-doc"));
        assert!(!filter.keeps("abc-other"));
        assert!(Filter::default().keeps("anything"));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = Filter::new(&[], &["a".into(), "b(".into()]).expect_err("unclosed");
        assert_eq!(error.pattern, "b(");
        assert!(error.to_string().contains("unclosed group"), "{error}");
    }
}
