//! What a run of the program did, and what can be demanded of it.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use super::nix::base;
use super::schema;

/// What a run did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The command line, for messages.
    pub(crate) line: String,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error, line by line, with the time since the start.
    pub(crate) stderr_lines: Vec<(Duration, String)>,
    /// How long it ran.
    pub(crate) elapsed: Duration,
    /// The peak of its resident memory in bytes, where that was watched.
    pub(crate) peak_memory: u64,
}

impl Outcome {
    /// Standard error as one text.
    pub(crate) fn stderr(&self) -> String {
        self.stderr_lines.iter().map(|(_, line)| line.as_str()).collect()
    }

    /// Both outputs.
    pub(crate) fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr())
    }

    /// Fails unless it ended with this status.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Fails unless it was killed.
    #[track_caller]
    pub(crate) fn expect_killed(self) -> Self {
        assert_eq!(self.status.signal(), Some(9), "{self}");
        self
    }

    /// Fails unless both outputs together have all these words.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        let output = self.output();
        for word in words {
            assert!(output.contains(word), "does not say {word:?}\n{self}");
        }
        self
    }

    /// Fails unless it is one `error:` line with all these words, and a `hint:` line that says what to do.
    #[track_caller]
    pub(crate) fn complains(self, words: &[&str]) -> Self {
        let stderr = self.stderr();
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "not one clear error line\n{self}");
        for word in words {
            assert!(stderr.contains(word), "does not say {word:?}\n{self}");
        }
        assert!(stderr.lines().any(|line| line.starts_with("hint:")), "does not say what to do\n{self}");
        self
    }

    /// The one JSON document on standard output, checked against its schema.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let document = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not one JSON document: {error}\n{self}"));
        schema::check(&document);
        document
    }

    /// The only target in the JSON document.
    #[track_caller]
    pub(crate) fn target(&self) -> Value {
        let mut document = self.json();
        let targets = document["targets"].as_array_mut().unwrap();
        assert_eq!(targets.len(), 1, "{self}");
        targets.remove(0)
    }

    /// What holds for every run, whatever it is about.
    pub(super) fn check_manners(&self, colour: bool) {
        let output = self.output();
        for word in ["panicked at", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!output.contains(word), "the program has a bug\n{self}");
        }
        assert!(colour || !output.contains('\u{1b}'), "escape codes, but not on a terminal\n{self}");
        assert!(!output.contains('\0'), "a NUL is printed\n{self}");
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "{}\n{} after {:?}", self.line, self.status, self.elapsed)?;
        write!(out, "--- standard output:\n{}--- standard error:\n{}", self.stdout, self.stderr())
    }
}

/// The base names in a list of a target, such as `failed` or `blocked`.
#[track_caller]
pub(crate) fn names(target: &Value, list: &str) -> BTreeSet<String> {
    let all = target[list].as_array().unwrap_or_else(|| panic!("no {list} in {target:#}"));
    all.iter().map(|item| base(item["path"].as_str().unwrap()).to_owned()).collect()
}

/// How many paths a class of a target has.
#[track_caller]
pub(crate) fn count(target: &Value, class: &str) -> u64 {
    target[class]["paths"].as_u64().unwrap_or_else(|| panic!("no {class} in {target:#}"))
}
