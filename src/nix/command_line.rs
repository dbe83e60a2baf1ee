//! Commands as they are shown: as they could be typed, and without secrets.

use std::borrow::Cow;

use crate::text::{Printable, without_query_values};

/// What stands for something that is not shown.
const HIDDEN: &str = "…";

/// A command as it could be typed, for messages: words with spaces quoted, and neither user information in URLs, nor what their
/// queries say other than to Nix, nor values of settings that hold secrets. What is run is another thing.
pub(super) fn shown(program: &str, words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut shown = program.to_owned();
    let mut before: [String; 2] = Default::default();
    for word in words {
        let word = word.as_ref();
        shown.push(' ');
        match word.split_once('=') {
            _ if is_secret_value(&before) => shown.push_str(HIDDEN),
            Some((name, _)) if is_secret_flag(name) => shown.push_str(&format!("{name}={HIDDEN}")),
            _ => shown.push_str(&quoted(&self::word(word))),
        }
        let [_, last] = before;
        before = [last, word.to_owned()];
    }
    shown
}

/// What was named, for sentences: on one line and without secrets.
pub(super) fn word(word: &str) -> String {
    Printable(&without_reference_secrets(word)).to_string()
}

/// A word without the secrets of a flake reference that is no URL (`github:OWNER/NAME?…`); those of URLs [`Printable`] hides.
fn without_reference_secrets(word: &str) -> Cow<'_, str> {
    let is_scheme = |scheme: &str| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    match word.split_once(':') {
        Some((scheme, _)) if is_scheme(scheme) && !word.contains("://") => without_query_values(word),
        _ => Cow::Borrowed(word),
    }
}

/// Whether the word after these two is the value of a setting that holds secrets: after `--option NAME` or `--NAME`.
fn is_secret_value([first, second]: &[String; 2]) -> bool {
    is_secret_flag(second) || (first == "--option" && holds_secrets(second))
}

fn is_secret_flag(word: &str) -> bool {
    word.strip_prefix("--").is_some_and(|setting| !setting.contains('=') && holds_secrets(setting))
}

/// Whether a setting's value is a secret: `access-tokens`, also with `extra-` before it, and what else may come to be named
/// like that. `netrc-file` and `secret-key-files` hold the names of files.
fn holds_secrets(setting: &str) -> bool {
    let setting = setting.to_ascii_lowercase();
    let is_file = ["file", "files", "path"].iter().any(|end| setting.ends_with(end));
    !is_file && ["token", "password", "secret", "credential"].iter().any(|part| setting.contains(part))
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "'\"$*?()[]{};&|<>\\".contains(c)) {
        format!("'{}'", word.replace('\'', "'\\''"))
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_they_could_be_typed() {
        assert_eq!(shown("nix", ["build", "a b", "it's", "x^*"]), "nix build 'a b' 'it'\\''s' 'x^*'");
    }

    #[test]
    fn values_of_secret_settings_are_not_shown() {
        let cases = [
            (&["--option", "access-tokens", "github.com=sesame", "x"][..], "--option access-tokens … x"),
            (&["--access-tokens", "github.com=sesame", "x"], "--access-tokens … x"),
            (&["--extra-access-tokens=sesame", "x"], "--extra-access-tokens=… x"),
            (
                &["--option", "netrc-file", "/n", "--secret-key-files", "/k"],
                "--option netrc-file /n --secret-key-files /k",
            ),
            (&["git+https://me:sesame@host/x"], "git+https://…@host/x"),
            (
                &["http://host/n.tar.gz?private_token=sesame&dir=a"],
                "'http://host/n.tar.gz?private_token=…&dir=a'",
            ),
            (&["github:a/b?token=sesame#c"], "'github:a/b?token=…#c'"),
        ];
        for (words, expected) in cases {
            assert_eq!(shown("nix", words), format!("nix {expected}"));
        }
    }
}
