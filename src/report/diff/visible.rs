//! Texts on one line, with nothing in them that a terminal would take for a command.
//!
//! What a derivation says is in the store, where everybody on the machine reads it, so that the queries of its URLs are shown:
//! they tell revisions and versions. Passwords in URLs are not shown even so, because reports are passed on.

use crate::text::{is_hidden, without_user_info};

/// How much of what is the same is shown at once, in characters: a word may be of any length.
const LONGEST: usize = 400;

/// A text without what may be a secret.
pub(super) fn public(text: &str) -> String {
    if text.contains("://") && text.contains('@') { without_user_info(text) } else { text.to_owned() }
}

/// What is the same on both sides, as one reads it.
pub(super) fn plain(text: &str) -> String {
    let (begins, ends) = (text.len() - text.trim_start().len(), text.trim_end().len());
    if begins >= ends {
        return text.chars().map(|c| if c == '\n' { '⏎' } else { ' ' }).collect();
    }
    // A space next to a change belongs to it.
    let blank = |space: &str| match space {
        "" => "",
        space if space.contains('\n') => "⏎",
        _ => " ",
    };
    let mut shown = blank(&text[..begins]).to_owned();
    for character in text[begins..ends].chars() {
        match character {
            '\r' => {}
            '\t' => shown.push(' '),
            other => push(&mut shown, other),
        }
    }
    shown + blank(&text[ends..])
}

/// What differs, with what one does not see: ends of lines, tabs, and blanks before an end.
pub(super) fn marked(text: &str) -> String {
    if text.trim_matches(' ').is_empty() {
        return "·".repeat(text.len());
    }
    text.split_inclusive('\n')
        .map(|line| if line.ends_with('\n') { ended(line) } else { all(line) })
        .collect()
}

/// The same of a line of its own.
pub(super) fn marked_line(line: &str) -> String {
    ended(line)
}

fn ended(line: &str) -> String {
    let kept = line.trim_end_matches(['\r', '\n']).trim_end_matches(' ');
    let rest: String = line[kept.len()..].replace(' ', "·");
    all(kept) + &all(&rest)
}

fn all(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\r' => shown.push('␍'),
            '\t' => shown.push('⇥'),
            other => push(&mut shown, other),
        }
    }
    shown
}

fn push(shown: &mut String, character: char) {
    match character {
        '\n' => shown.push('⏎'),
        character if is_hidden(character) => {
            shown.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
        }
        character => shown.push(character),
    }
}

/// The beginning of what is the same, as much as is worth showing.
pub(super) fn beginning(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", plain(&text[..end])),
        None => plain(text),
    }
}

/// The end of what is the same.
pub(super) fn ending(text: &str) -> String {
    match text.char_indices().rev().nth(LONGEST - 1) {
        Some((start, _)) if start > 0 => format!("…{}", plain(&text[start..])),
        _ => plain(text),
    }
}
