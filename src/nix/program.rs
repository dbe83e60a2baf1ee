//! Finding and running `nix`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::child::Running;
use super::command_line;
use crate::text::{Printable, duration, printable_lines};

/// The oldest Nix that this program works with.
const OLDEST: Version = Version { major: 2, minor: 8 };

/// How long a question may take that is answered from settings and files. Evaluation and building may take any time.
const PATIENCE: Duration = Duration::from_mins(5);

/// How much of Nix's standard error is kept for an error message, in bytes.
const STDERR_KEPT: usize = 64 * 1024;

/// Why Nix did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NixError {
    /// There is no `nix` on PATH.
    #[error("`nix` is not on PATH")]
    Missing,
    /// It is too old.
    #[error("{program} is version {version}; cache-helper needs {OLDEST} or newer", program = .program.display())]
    TooOld {
        /// The program.
        program: PathBuf,
        /// What it says it is.
        version: Version,
    },
    /// What calls itself `nix` does not say a version that can be read.
    #[error("{program} does not say its version: {}", Printable(.output), program = .program.display())]
    NotNix {
        /// The program.
        program: PathBuf,
        /// What it printed.
        output: String,
    },
    /// It cannot be started.
    #[error("cannot run {program}: {source}", program = .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It failed.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// The command, as it could be typed.
        command: String,
        /// Its last words.
        message: String,
    },
    /// It does not come to an end.
    #[error("`{command}` did not end within {}", duration(*.limit))]
    TimedOut {
        /// The command.
        command: String,
        /// How long it was given.
        limit: Duration,
    },
    /// It printed something unexpected.
    #[error("`{command}` printed something that cache-helper cannot read: {reason}")]
    Unexpected {
        /// The command.
        command: String,
        /// What is wrong.
        reason: String,
    },
}

/// A Nix version, as far as behaviour depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// Whose Nix it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Implementation {
    /// <https://github.com/NixOS/nix>
    Nix,
    /// <https://lix.systems>
    Lix,
    /// <https://docs.determinate.systems/determinate-nix>
    Determinate,
}

/// The installed Nix.
#[derive(Clone, Debug)]
pub struct Nix {
    program: PathBuf,
    implementation: Implementation,
    version: Version,
    full_version: String,
}

impl Nix {
    /// Finds `nix` on PATH and asks for its version.
    ///
    /// # Errors
    ///
    /// When there is none, it is not Nix, or it is older than 2.8.
    pub async fn find() -> Result<Self, NixError> {
        let program = which::which("nix").map_err(|_| NixError::Missing)?;
        let start = |source| NixError::Start { program: program.clone(), source };
        let mut command = Command::new(&program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let asked = Running::start(&mut command).map_err(start)?.output();
        let output = within(PATIENCE, "nix --version", asked).await?.map_err(start)?;
        if !output.status.success() {
            let command = format!("{} --version", program.display());
            return Err(NixError::Failed { command, message: last_words(&output.stderr, output.status) });
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some((implementation, version)) = parse_version(&text) else {
            return Err(NixError::NotNix { program, output: text });
        };
        if version < OLDEST {
            return Err(NixError::TooOld { program, version });
        }
        let full_version = text.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
        let full_version = Printable(full_version).to_string();
        Ok(Self { program, implementation, version, full_version })
    }

    /// Whose Nix it is.
    pub fn implementation(&self) -> Implementation {
        self.implementation
    }

    /// Its version; for Lix and Determinate Nix, that of the Nix which they say they are like.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// As [`Nix::run`], for what is answered from settings and files: it has five minutes.
    ///
    /// # Errors
    ///
    /// When it cannot be started, fails, or does not end.
    pub async fn ask(&self, arguments: &[&str]) -> Result<String, NixError> {
        let shown = command_line::shown("nix", arguments);
        within(PATIENCE, &shown, self.run(arguments)).await?
    }

    /// Its version as it says it, such as `2.34.8`.
    pub fn full_version(&self) -> &str {
        &self.full_version
    }

    /// Runs a subcommand of `nix` and gives its standard output.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or fails.
    pub async fn run<I, S>(&self, arguments: I) -> Result<String, NixError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut words: Vec<OsString> =
            ["--extra-experimental-features", "nix-command flakes"].map(OsString::from).to_vec();
        let own: Vec<OsString> = arguments.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let shown = shown_words("nix", &own);
        words.extend(own);
        self.output(&self.program, &words, shown, Stdio::piped()).await
    }

    /// Runs one of the older programs (`nix-store`) of the same installation and gives its standard output.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or fails.
    pub async fn run_legacy(&self, name: &str, arguments: &[String]) -> Result<String, NixError> {
        let beside = self.program.with_file_name(name);
        let program = if beside.is_file() { beside } else { PathBuf::from(name) };
        let words: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let shown = shown_words(name, &words);
        self.output(&program, &words, shown, Stdio::piped()).await
    }

    /// Like [`Nix::run`], with Nix's own messages going where ours go: for builds, which people want to watch.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or fails.
    pub async fn run_visibly(&self, name: &str, arguments: &[String]) -> Result<String, NixError> {
        let mut words: Vec<OsString> = Vec::new();
        let program = if name == "nix" {
            words.extend(["--extra-experimental-features", "nix-command flakes"].map(OsString::from));
            self.program.clone()
        } else {
            self.program.with_file_name(name)
        };
        words.extend(arguments.iter().map(OsString::from));
        let shown = shown_words(name, &words);
        self.output(&program, &words, shown, Stdio::inherit()).await
    }

    async fn output(
        &self,
        program: &PathBuf,
        words: &[OsString],
        shown: String,
        stderr: Stdio,
    ) -> Result<String, NixError> {
        tracing::debug!(command = %shown, "running");
        let start = |source| NixError::Start { program: program.clone(), source };
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        // Every future that asks Nix something would hold what this one holds.
        let ended = Box::pin(Running::start(&mut command).map_err(start)?.output());
        let output = ended.await.map_err(start)?;
        if output.status.success() {
            return String::from_utf8(output.stdout)
                .map_err(|_| NixError::Unexpected { command: shown, reason: "it is not UTF-8".to_owned() });
        }
        Err(NixError::Failed { command: shown, message: last_words(&output.stderr, output.status) })
    }
}

/// The outcome of work that must end within a time; given up, it ends the process that it waits for.
async fn within<T>(limit: Duration, command: &str, work: impl Future<Output = T>) -> Result<T, NixError> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| NixError::TimedOut { command: command.to_owned(), limit })
}

/// Reads `nix (Nix) 2.34.8`, `nix (Lix, like Nix) 2.93.0` or `nix (Determinate Nix 3.8.6) 2.30.2`.
fn parse_version(text: &str) -> Option<(Implementation, Version)> {
    let line = text.lines().next()?;
    let implementation = if line.contains("Lix") {
        Implementation::Lix
    } else if line.contains("Determinate") {
        Implementation::Determinate
    } else if line.contains("Nix") {
        Implementation::Nix
    } else {
        return None;
    };
    let mut numbers = line.rsplit(' ').next()?.split('.').map(|number| {
        let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        number[..digits].parse().ok()
    });
    Some((implementation, Version { major: numbers.next()??, minor: numbers.next()?? }))
}

fn shown_words(program: &str, words: &[OsString]) -> String {
    command_line::shown(program, words.iter().map(|word| word.to_string_lossy()))
}

/// The part of Nix's messages that says what is wrong: from the first `error:` on, without the noise before it.
///
/// Where that is a long trace of what was evaluated, it ends with the error itself, which is kept before the trace is.
fn last_words(stderr: &[u8], status: std::process::ExitStatus) -> String {
    const LINES: usize = 12;
    const LINES_OF_TRACE: usize = 3;
    let kept = &stderr[stderr.len().saturating_sub(STDERR_KEPT)..];
    let text = printable_lines(&String::from_utf8_lossy(kept));
    // Nix warns of what it tries again in the same words.
    let first = text.lines().position(|line| line.starts_with("error:")).unwrap_or_default();
    let lines = text.lines().skip(first).map(str::trim);
    let without_label = |line: &str| line.trim_start_matches("error:").trim().to_owned();
    let mut innermost = 0;
    let mut message: Vec<String> = Vec::new();
    for line in lines {
        let words = without_label(line);
        if words.is_empty() {
            continue;
        }
        if line.starts_with("error:") {
            innermost = message.len();
        }
        message.push(words);
    }
    if innermost >= LINES {
        message.splice(LINES_OF_TRACE..innermost, ["…".to_owned()]);
    }
    message.truncate(LINES);
    if message.is_empty() { status.to_string() } else { message.join("\n  ") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn version(text: &str) -> Option<(Implementation, u32, u32)> {
        parse_version(text).map(|(implementation, version)| (implementation, version.major, version.minor))
    }

    #[test]
    fn every_nix_says_its_version_its_own_way() {
        assert_eq!(version("nix (Nix) 2.8.0\n"), Some((Implementation::Nix, 2, 8)));
        assert_eq!(version("nix (Nix) 2.35pre20260801_abc"), Some((Implementation::Nix, 2, 35)));
        assert_eq!(version("nix (Lix, like Nix) 2.93.0"), Some((Implementation::Lix, 2, 93)));
        assert_eq!(version("nix (Determinate Nix 3.8.6) 2.30.2"), Some((Implementation::Determinate, 2, 30)));
        assert_eq!(version("hello"), None);
        assert_eq!(version(""), None);
        assert_eq!(version("nix (Nix) x.y"), None);
    }

    #[test]
    fn of_a_long_trace_the_error_at_its_end_is_kept() {
        let trace = "       … while evaluating x\n".repeat(40);
        let failed = std::process::ExitStatus::from_raw(256);
        let said = |text: &str| last_words(text.as_bytes(), failed);
        let long = said(&format!("warning: x\nerror:\n{trace}\n       error: cannot fetch\n       it\n"));
        assert_eq!(
            long.lines().map(str::trim).collect::<Vec<_>>(),
            [
                "… while evaluating x",
                "… while evaluating x",
                "… while evaluating x",
                "…",
                "cannot fetch",
                "it"
            ]
        );
        assert_eq!(said("error: a\n"), "a");
        assert_eq!(said(&format!("error: a\n{trace}")).lines().count(), 12);
        assert_eq!(said(""), failed.to_string());
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_given_up_and_ended() {
        let sleep = Running::start(Command::new("sleep").arg("1000")).expect("sleep");
        let id = sleep.id().expect("it runs");
        let error =
            within(Duration::from_millis(50), "sleep 1000", sleep.output()).await.expect_err("too long");
        assert_eq!(error.to_string(), "`sleep 1000` did not end within 0.1 s");
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
