//! Two texts on one line, word by word.

use similar::{ChangeTag, TextDiffConfig};

use crate::jobs::diff::Patience;
use crate::text::Printable;
use crate::ui::Palette;

/// How many words that are the same stand around a change.
const AROUND: usize = 3;

/// The longest text that is compared word by word, in bytes, when what both have at their ends is taken off.
const LONGEST: usize = 200_000;

/// How many words a change shows before the rest is left out.
const WORDS: usize = 60;

/// How many changed places are shown before the rest is counted.
const PLACES: usize = 20;

/// From how many bytes on a word is looked into, and how many characters that are the same stand around a change in it.
const LONG_WORD: usize = 200;
const NEAR: usize = 20;

/// One line: `[-before-]` and `{+now+}` among a few words that are the same.
pub(super) fn word_by_word(old: &str, new: &str, patience: &Patience, palette: Palette) -> String {
    let mut pieces = pieces(old, new, patience);
    let left_out = cut(&mut pieces);
    let last = pieces.len().saturating_sub(1);
    let mut line = String::new();
    let mut rest = pieces.iter().enumerate().peekable();
    while let Some((place, (tag, piece))) = rest.next() {
        match tag {
            ChangeTag::Equal => line.push_str(&around(piece, place == 0, place == last)),
            ChangeTag::Delete => {
                let now = rest.next_if(|(_, (tag, _))| *tag == ChangeTag::Insert);
                line.push_str(&changed(piece, now.map_or("", |(_, (_, now))| now), palette));
            }
            ChangeTag::Insert => line.push_str(&changed("", piece, palette)),
        }
    }
    if left_out > 0 {
        let more = if left_out == 1 { "1 more place".to_owned() } else { format!("{left_out} more places") };
        let gap = if line.ends_with('…') { "" } else { " …" };
        line.push_str(&format!("{gap} and {more}"));
    }
    line
}

/// Words of a list, told from each other: one that holds blanks, or nothing, is quoted as in a shell.
pub(super) fn listed(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c == '\'') {
            format!("'{}'", word.replace('\'', "'\\''"))
        } else {
            word.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// A text in short, as it is shown where there is no other to compare it with.
pub(super) fn shortened(text: &str) -> String {
    let words: Vec<&str> = text.split_inclusive(char::is_whitespace).take(WORDS + 1).collect();
    if words.len() <= WORDS && text.len() <= 2000 {
        return visible(text);
    }
    let kept: String = words[..words.len().min(WORDS)].concat().chars().take(2000).collect();
    format!("{}… ({} bytes)", visible(&kept), text.len())
}

/// What is the same, what went and what came, in order.
fn pieces(old: &str, new: &str, patience: &Patience) -> Vec<(ChangeTag, String)> {
    let (head, tail) = common_words(old, new);
    let (before, now) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut pieces: Vec<(ChangeTag, String)> = Vec::new();
    let mut add = |tag: ChangeTag, text: &str| match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some((last, piece)) if *last == tag => piece.push_str(text),
        _ => pieces.push((tag, text.to_owned())),
    };
    add(ChangeTag::Equal, &old[..head]);
    if before.len() > LONGEST || now.len() > LONGEST {
        add(ChangeTag::Delete, before);
        add(ChangeTag::Insert, now);
    } else {
        let found = patience.compare(before, now, TextDiffConfig::diff_words);
        for change in found.iter_all_changes() {
            add(change.tag(), change.value());
        }
    }
    add(ChangeTag::Equal, &old[old.len() - tail..]);
    pieces
}

/// Keeps the first few changed places. How many more there are.
fn cut(pieces: &mut Vec<(ChangeTag, String)>) -> usize {
    let (mut places, mut is_inside, mut end) = (0, false, pieces.len());
    for (position, (tag, _)) in pieces.iter().enumerate() {
        let is_changed = *tag != ChangeTag::Equal;
        if is_changed && !is_inside {
            places += 1;
            if places == PLACES + 1 {
                end = position;
            }
        }
        is_inside = is_changed;
    }
    pieces.truncate(end);
    places.saturating_sub(PLACES)
}

/// A place that has changed. Of long words, what both have at their ends is left out but for a little.
fn changed(old: &str, new: &str, palette: Palette) -> String {
    let (head, tail) = if old.len().max(new.len()) > LONG_WORD { common_ends(old, new) } else { (0, 0) };
    let mut text = String::new();
    let start = &old[..head];
    match start.char_indices().rev().nth(NEAR) {
        Some((place, c)) => text.push_str(&format!("…{}", visible(&start[place + c.len_utf8()..]))),
        None => text.push_str(&visible(start)),
    }
    let (before, now) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    if !before.is_empty() {
        text.push_str(&palette.bad(format!("[-{}-]", shortened(before))));
    }
    if !now.is_empty() {
        text.push_str(&palette.good(format!("{{+{}+}}", shortened(now))));
    }
    let end = &old[old.len() - tail..];
    match end.char_indices().nth(NEAR) {
        Some((place, _)) => text.push_str(&format!("{}…", visible(&end[..place]))),
        None => text.push_str(&visible(end)),
    }
    text
}

/// How many bytes two texts have in common at the beginning and then at the end, in whole characters.
fn common_ends(old: &str, new: &str) -> (usize, usize) {
    let same = |(one, other): &(u8, u8)| one == other;
    let mut head = old.bytes().zip(new.bytes()).take_while(same).count();
    while !old.is_char_boundary(head) {
        head -= 1;
    }
    let rest = old[head..].bytes().rev().zip(new[head..].bytes().rev());
    let mut tail = rest.take_while(same).count();
    while !old.is_char_boundary(old.len() - tail) {
        tail -= 1;
    }
    (head, tail)
}

/// The same in whole words.
fn common_words(old: &str, new: &str) -> (usize, usize) {
    let (mut head, mut tail) = common_ends(old, new);
    let is_blank = |c: char| c.is_whitespace();
    let ends = |text: &str| text.is_empty() || text.ends_with(is_blank);
    let begins = |text: &str| text.is_empty() || text.starts_with(is_blank);
    if !(ends(&old[..head]) || begins(&old[head..]) && begins(&new[head..])) {
        head =
            old[..head].char_indices().rev().find(|(_, c)| is_blank(*c)).map_or(0, |(p, c)| p + c.len_utf8());
    }
    let end = old.len() - tail;
    if !(begins(&old[end..]) || ends(&old[head..end]) && ends(&new[head..new.len() - tail])) {
        tail = old[end..].find(is_blank).map_or(0, |place| tail - place);
    }
    (head, tail)
}

/// The words of what is the same that stand next to a change.
fn around(piece: &str, is_first: bool, is_last: bool) -> String {
    let words: Vec<&str> = piece.split_whitespace().collect();
    let (before, after) = (if is_first { 0 } else { AROUND }, if is_last { 0 } else { AROUND });
    if words.len() <= before + after + 1 {
        return visible(piece);
    }
    // What stands between words may be anything; here it is a space, except where it touches the change.
    let edge = |text: &str| if text.is_empty() { "" } else { " " };
    let (begins, ends) = (piece.len() - piece.trim_start().len(), piece.trim_end().len());
    let joined = |words: &[&str]| visible(&words.join(" "));
    let mut text = String::new();
    if !is_first {
        text.push_str(&format!("{}{} ", edge(&piece[..begins]), joined(&words[..before])));
    }
    text.push('…');
    if !is_last {
        text.push_str(&format!(" {}{}", joined(&words[words.len() - after..]), edge(&piece[ends..])));
    }
    text
}

/// On one line, and with nothing in it that a terminal would take for a command.
fn visible(text: &str) -> String {
    let text = text.replace('\n', "⏎");
    let (begins, ends) = (text.len() - text.trim_start().len(), text.trim_end().len());
    if begins >= ends {
        return text.chars().map(|_| ' ').collect();
    }
    // A space next to a change belongs to it.
    let blank = |space: &str| if space.is_empty() { "" } else { " " };
    format!("{}{}{}", blank(&text[..begins]), Printable(&text[begins..ends]), blank(&text[ends..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::{ColorMode, Printer};

    fn words(old: &str, new: &str) -> String {
        word_by_word(old, new, &Patience::ample(), Printer::new(ColorMode::Never).out())
    }

    #[test]
    fn a_few_words_stand_around_a_change() {
        assert_eq!(words("a b c d e f", "a b c d e x"), "… c d e [-f-]{+x+}");
        assert_eq!(words("-O2 -g", "-O3 -g"), "[--O2-]{+-O3+} -g");
        assert_eq!(words("a", "a b"), "a{+ b+}");
        assert_eq!(words("", "a"), "{+a+}");
        assert_eq!(words("\u{fc}x y", "\u{fd}x y"), "[-\u{fc}x-]{+\u{fd}x+} y");
    }

    #[test]
    fn many_changed_places_are_counted() {
        let text = |word: &str| (0..5000).map(|n| format!("{n} {word}{n} ")).collect::<Vec<_>>().concat();
        let line = words(&text("a"), &text("b"));
        assert!(line.ends_with(" … and 4980 more places"), "{line}");
        assert!(line.len() < 1000, "{line}");
    }

    #[test]
    fn a_change_in_a_long_text_is_found() {
        let text = |word: &str| format!("{} {word} {}", "before ".repeat(100_000), "after ".repeat(100_000));
        assert_eq!(words(&text("x"), &text("y")), "… before before before [-x-]{+y+} after after after …");
    }

    #[test]
    fn a_change_in_a_long_word_is_found() {
        for length in [300, 190_000, 2_000_000] {
            let text = |word: &str| format!("{}{word}{}", "0".repeat(length), "1".repeat(length));
            let line = words(&text("x"), &text("y"));
            assert_eq!(line, format!("…{}[-x-]{{+y+}}{}…", "0".repeat(NEAR), "1".repeat(NEAR)));
            let line = words(&text(""), &text("y"));
            assert_eq!(line, format!("…{}{{+y+}}{}…", "0".repeat(NEAR), "1".repeat(NEAR)));
        }
    }

    #[test]
    fn what_has_nothing_in_common_is_told_by_its_beginning_and_length() {
        let line = words(&"a b ".repeat(100_000), &"c d ".repeat(100_000));
        assert!(line.contains("(400000 bytes)") || line.contains("(399999 bytes)"), "{line}");
        assert!(line.len() < 1000, "{line}");
    }

    #[test]
    fn arguments_that_are_split_otherwise_differ() {
        let list = |words: &[&str]| listed(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(list(&["-e", "a b", "", "it's"]), "-e 'a b' '' 'it'\\''s'");
        assert_eq!(words(&list(&["a b"]), &list(&["a", "b"])), "[-'a-]{+a+} [-b'-]{+b+}");
    }
}
