//! Words for people: text from outside made safe to print, sizes, counts and durations.
//!
//! Everything that a cache, a log or a file says goes through [`Printable`] before it reaches a terminal, because a
//! store path's neighbour in a narinfo may well be an escape sequence.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// The longest piece of foreign text that is shown in one place, in characters.
const LONGEST: usize = 400;

/// How many names of many stand on a line.
const NAMES: usize = 6;

/// Foreign text, shown on one line with control characters made visible, its length bounded, and no secrets in its URLs
/// ([`without_secrets`]).
///
/// Line breaks become ` ⏎ `, other control characters and the bidirectional overrides (which can make a line read as
/// something else than what it is) become `\u{…}`.
///
/// ```
/// use cache_helper::text::Printable;
/// assert_eq!(Printable("a\u{1b}[31mb").to_string(), "a\\u{1b}[31mb");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = without_secrets(self.0.trim());
        for (shown, character) in text.chars().enumerate() {
            if shown == LONGEST {
                return formatter.write_str("…");
            }
            match character {
                '\n' => formatter.write_str(" ⏎ ")?,
                '\r' => {}
                '\t' => formatter.write_char(' ')?,
                character if is_hidden(character) => {
                    write!(formatter, "\\u{{{:x}}}", u32::from(character))?;
                }
                character => formatter.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Whether a character steers a terminal or reorders a line instead of being seen.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether a text can be shown as it is: nothing in it steers a terminal or reorders a line.
pub fn is_plain(text: &str) -> bool {
    !text.contains(is_hidden)
}

/// A JSON document with the characters that [`Printable`] makes visible escaped: JSON lets all but the oldest stand as they are.
///
/// ```
/// use cache_helper::text::escaped_json;
/// assert_eq!(escaped_json("\"\u{9b}31m\""), "\"\\u009b31m\"");
/// ```
pub fn escaped_json(document: &str) -> Cow<'_, str> {
    // Line breaks stand between members; in a string they are escaped.
    let is_steering = |character: char| character != '\n' && is_hidden(character);
    // Nearly all is plain, and quickly passed over.
    if document.bytes().all(|byte| byte < 0x7f) || !document.contains(is_steering) {
        return Cow::Borrowed(document);
    }
    let mut escaped = String::with_capacity(document.len() + 64);
    for character in document.chars() {
        if is_steering(character) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// What Nix itself writes into the query of a flake reference; nothing of it is a secret ("Types" in the Nix manual, `nix flake`).
const NIX_PARAMETERS: [&str; 11] = [
    "allRefs",
    "dir",
    "host",
    "lastModified",
    "lfs",
    "narHash",
    "ref",
    "rev",
    "revCount",
    "shallow",
    "submodules",
];

/// Whether a parameter in the query of a flake reference is Nix's own. What servers call a token has any name.
pub fn is_nix_parameter(name: &str) -> bool {
    NIX_PARAMETERS.contains(&name)
}

/// Text with what may be secret in every URL in it replaced: user information, and what a query says other than to Nix
/// ([`is_nix_parameter`]).
///
/// Works on what does not parse as well, because that is what errors show: what looks like a user name or password before an
/// `@` is replaced also where the `/` in it or a wrong port would make something else of it.
///
/// ```
/// use cache_helper::text::without_secrets;
/// assert_eq!(without_secrets("see https://me:secret@host:99999/x"), "see https://…@host:99999/x");
/// assert_eq!(without_secrets("'https://host/x?dir=a&token=secret'"), "'https://host/x?dir=a&token=…'");
/// ```
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    if !(text.contains("://") && text.contains(['@', '?'])) {
        return Cow::Borrowed(text);
    }
    // Not the other way round: a password may have a question mark.
    Cow::Owned(without_queries(&without_user_info(text)))
}

/// Text with the user information in every URL in it replaced, and nothing else.
pub(crate) fn without_user_info(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    // How far it was copied, and where the word ends that is being read: a text may be full of what looks like URLs.
    let (mut copied, mut end) = (0, 0);
    while let Some(place) = text[copied..].find("://") {
        let start = copied + place + 3;
        if start > end {
            end = start + end_of_url(&text[start..]);
        }
        shown.push_str(&text[copied..start]);
        let hidden = user_info(&text[start..end.max(start)]);
        if hidden > 0 {
            shown.push('…');
        }
        copied = start + hidden;
    }
    shown + &text[copied..]
}

fn without_queries(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find("://") {
        let (before, url) = rest.split_at(place + 3);
        let (url, after) = url.split_at(end_of_url(url));
        shown.push_str(before);
        shown.push_str(&without_query_values(url));
        rest = after;
    }
    shown + rest
}

/// Where a URL ends that stands in a text.
fn end_of_url(url: &str) -> usize {
    url.find(|c: char| c.is_whitespace() || "'\"`<>".contains(c)).unwrap_or(url.len())
}

/// A URL or flake reference without what its query says other than to Nix.
pub fn without_query_values(url: &str) -> Cow<'_, str> {
    let Some((before, after)) = url.split_once('?') else { return Cow::Borrowed(url) };
    let (query, fragment) = after.split_at(after.find('#').unwrap_or(after.len()));
    let shown: Vec<String> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if !is_nix_parameter(name) => format!("{name}=…"),
            None if !(parameter.is_empty() || is_nix_parameter(parameter)) => "…".to_owned(),
            _ => parameter.to_owned(),
        })
        .collect();
    Cow::Owned(format!("{before}?{}{fragment}", shown.join("&")))
}

/// How many bytes of what follows `://` are user information.
fn user_info(url: &str) -> usize {
    let authority = &url[..url.find(['/', '?', '#']).unwrap_or(url.len())];
    if let Some(at) = authority.rfind('@') {
        return at;
    }
    // A password with a `/` in it: there is no port, and an `@` later on.
    let has_port = |port: &str| port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some((_, port)) if !has_port(port) && !authority.ends_with(']') => url.rfind('@').unwrap_or(0),
        _ => 0,
    }
}

/// Foreign text with its lines kept, each made safe as by [`Printable`] and without terminal colours.
///
/// For the output of a child process, where the lines are the message.
pub fn printable_lines(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in without_secrets(&without_colours(text)).lines() {
        if !clean.is_empty() {
            clean.push('\n');
        }
        for character in line.trim_end().chars() {
            match character {
                '\t' => clean.push(' '),
                character if is_hidden(character) => {
                    // Writing to a string cannot fail.
                    let _ = write!(clean, "\\u{{{:x}}}", u32::from(character));
                }
                character => clean.push(character),
            }
        }
    }
    clean
}

/// Removes the colour sequences (`ESC [ … m`) that Nix puts around values, and nothing else.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("\u{1b}[") {
        let (before, sequence) = rest.split_at(start);
        plain.push_str(before);
        let body = &sequence[2..];
        let digits = body.find(|c: char| !(c.is_ascii_digit() || c == ';')).unwrap_or(body.len());
        if body[digits..].starts_with('m') {
            rest = &body[digits + 1..];
        } else {
            plain.push('\u{1b}');
            rest = &sequence[1..];
        }
    }
    plain.push_str(rest);
    plain
}

/// A size in bytes as a person reads it: `0 B`, `1.6 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A number with its noun: `1 path`, `3 paths`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The first few of several names, and how many more there are: `a, b and 3 more`.
pub fn some(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A duration as a person reads it: `0.3 s`, `12 s`, `3 min 5 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 60 {
        format!("{} min {} s", seconds / 60, seconds % 60)
    } else if seconds >= 10 {
        format!("{seconds} s")
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_overrides_become_visible() {
        assert_eq!(
            Printable("x\u{1b}]0;t\u{7}\u{202e}y\0").to_string(),
            "x\\u{1b}]0;t\\u{7}\\u{202e}y\\u{0}"
        );
        assert_eq!(Printable(" a\r\nb\tc ").to_string(), "a ⏎ b c");
    }

    #[test]
    fn user_information_is_not_shown_however_odd_the_url() {
        for url in [
            "https://me:sesame@host",
            "https://me:sesame@host:99999/x",
            "https://me:se/same?x@host/y",
            "git+ssh://sesame@host/x",
            "ssh://me:se@same@host",
            "'https://me:sesame@host' and http://u:sesame@[::1]:80/",
            "https://me:ses\u{1b}ame@host",
        ] {
            let shown = Printable(url).to_string();
            for secret in ["sesame", "se/same", "se@same", "same?", "ses"] {
                assert!(!shown.contains(secret), "{url}: {shown}");
            }
            assert!(shown.contains("://…@"), "{shown}");
            assert!(!printable_lines(url).contains("sesame"));
        }
        for harmless in [
            "https://host:80/x@1",
            "https://[::1]/a@b",
            "x@y",
            "me@host: a://",
            "nixpkgs#a@b",
            "https://host/@",
        ] {
            assert_eq!(without_secrets(harmless), harmless);
        }
    }

    #[test]
    fn of_a_query_only_what_is_said_to_nix_is_shown() {
        let cases = [
            ("https://h/x?token=sesame", "https://h/x?token=…"),
            ("git+https://h/x?ref=a&token=sesame&dir=b#c", "git+https://h/x?ref=a&token=…&dir=b#c"),
            ("'http://h/x?sesame' and http://h/?a=b", "'http://h/x?…' and http://h/?a=…"),
            ("https://h/x?next=https://me:sesame@h/y?z=sesame", "https://h/x?next=…"),
            ("https://me:sesame@h/x?token=sesame", "https://…@h/x?token=…"),
            (
                "https://h/x?narHash=sha256-a%3D&lastModified=1",
                "https://h/x?narHash=sha256-a%3D&lastModified=1",
            ),
            ("what? a://b", "what? a://b"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_secrets(text), expected);
        }
        assert_eq!(without_query_values("github:a/b?token=sesame&dir=c"), "github:a/b?token=…&dir=c");
        // However often the beginning of a URL stands there.
        assert!(without_secrets(&"://?@".repeat(100_000)).starts_with("://?"));
    }

    #[test]
    fn long_text_is_cut() {
        let shown = Printable(&"x".repeat(100_000)).to_string();
        assert_eq!(shown.chars().count(), LONGEST + 1);
        assert!(shown.ends_with('…'));
    }

    #[test]
    fn only_colours_are_removed_from_lines() {
        assert_eq!(
            printable_lines("\u{1b}[31;1merror:\u{1b}[0m no\nsuch\u{1b}[2J"),
            "error: no\nsuch\\u{1b}[2J"
        );
    }

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(1_717_986_918), "1.6 GiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
        assert_eq!(count(1, "path"), "1 path");
        assert_eq!(count(0, "path"), "0 paths");
        assert_eq!(some(&["a", "b"]), "a, b");
        assert_eq!(some(&["a"; 8]), "a, a, a, a, a, a and 2 more");
        assert_eq!(duration(Duration::from_millis(340)), "0.3 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 5 s");
    }
}
