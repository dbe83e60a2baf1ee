//! The house rules that a compiler does not check: the bands, and files that one sits down to read.

use std::fs;
use std::path::{Path, PathBuf};

/// The three bands, lowest first. Imports may point to the same band or a lower one.
const BANDS: [&[&str]; 3] = [
    &["audit", "event", "graph", "plan", "proof", "text"],
    &["cache", "jobs", "net", "nix", "push"],
    &["cli", "config", "error", "report", "ui"],
];

/// What the pure band may not name: I/O, async, clocks, the environment.
const IMPURE: [&str; 8] = [
    "tokio::",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "async fn",
    "SystemTime::now",
    "Instant::now",
];

/// What only the shell may name.
const SHELL_ONLY: [&str; 6] = ["std::env", "env::var", "println!", "eprintln!", "clap::", "indicatif::"];

/// What a report may not do: it shows values, and reads nothing.
const NOT_IN_REPORTS: [&str; 5] = ["std::thread", "std::fs", "std::net", "std::process", "async fn"];

/// The longest file, in lines.
const LONGEST: usize = 500;

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = open.pop() {
        for entry in
            fs::read_dir(&directory).expect("the sources").map(|entry| entry.expect("an entry").path())
        {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&entry).expect("a source file");
                found.push((entry, text));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The top-level module that a file belongs to; nothing for the two crate roots.
fn module(file: &Path) -> Option<String> {
    let relative = file.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    let first = relative.components().next()?.as_os_str().to_str()?;
    let name = first.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

fn band(module: &str) -> usize {
    BANDS
        .iter()
        .position(|band| band.contains(&module))
        .unwrap_or_else(|| panic!("{module} stands in no band: give it one here and in lib.rs"))
}

/// The code of a file without its tests and comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn imports_point_from_the_shell_to_the_effects_to_the_pure() {
    for (file, text) in sources() {
        let Some(own) = module(&file) else { continue };
        for line in code(&text) {
            for (start, _) in line.match_indices("crate::") {
                let rest = &line[start + "crate::".len()..];
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                let imported = &rest[..end];
                // `crate::{a, b}` would hide what is imported.
                assert!(!imported.is_empty(), "{}: {line}: name one module a line", file.display());
                assert!(
                    band(imported) <= band(&own),
                    "{}: {own} may not use {imported}: {line}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn the_pure_band_does_no_io_and_only_the_shell_knows_the_terminal() {
    for (file, text) in sources() {
        let Some(own) = module(&file) else { continue };
        for line in code(&text) {
            if band(&own) == 0 {
                for word in IMPURE {
                    assert!(!line.contains(word), "{}: {word} in the pure band: {line}", file.display());
                }
            }
            if band(&own) < 2 {
                for word in SHELL_ONLY {
                    assert!(!line.contains(word), "{}: {word} outside the shell: {line}", file.display());
                }
            }
            if own == "report" {
                for word in NOT_IN_REPORTS {
                    assert!(!line.contains(word), "{}: {word} in a report: {line}", file.display());
                }
            }
            if own != "ui" {
                assert!(
                    !line.contains("indicatif"),
                    "{}: only ui.rs knows indicatif: {line}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn no_file_is_longer_than_one_sits_down_to_read() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines: split it", file.display());
    }
}
