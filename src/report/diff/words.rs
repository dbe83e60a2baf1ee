//! Two texts on one line, word by word.

use similar::ChangeTag;

use super::pieces::{Pieces, common_ends};
use super::visible::{beginning, ending, marked, plain, public};
use crate::jobs::diff::Patience;
use crate::ui::Palette;

/// How many words that are the same stand around a change.
const AROUND: usize = 3;

/// How many words and characters a change shows before the rest is left out.
const WORDS: usize = 60;
const CHARACTERS: usize = 2000;

/// How many changed places are shown before the rest is counted.
const PLACES: usize = 20;

/// From how many bytes on a word is looked into, and how many characters that are the same stand around a change in it.
const LONG_WORD: usize = 200;
const NEAR: usize = 20;

/// What is said of two that are written alike.
pub(super) const SECRET: &str = "differs in what is hidden because it may be a secret";
const ALIKE: &str = "differs in characters that are written alike";

/// One line: `[-before-]` and `{+now+}` among a few words that are the same.
pub(super) fn word_by_word(old: &str, new: &str, patience: &Patience, palette: Palette) -> String {
    let (before, now) = (public(old), public(new));
    if before == now {
        return format!("{} ({SECRET})", shortened(new));
    }
    if let Some(ends) = line_ends(&before, &now) {
        return ends;
    }
    line_of(Pieces::of_texts(&before, &now, patience), palette)
}

/// The same of lists: items that are one in one and two in the other differ.
pub(super) fn item_by_item(old: &[String], new: &[String], patience: &Patience, palette: Palette) -> String {
    let shown = |list: &[String]| list.iter().map(|item| public(item)).collect::<Vec<_>>();
    let (before, now) = (shown(old), shown(new));
    let line = line_of(Pieces::of_lists(&before, &now, patience), palette);
    if before == now { format!("{line} ({SECRET})") } else { line }
}

/// A text in short, as it is shown where there is no other to compare it with.
pub(super) fn shortened(text: &str) -> String {
    let text = public(text);
    // Either may be the one that is reached first.
    let by_words = text.split_inclusive(char::is_whitespace).take(WORDS).map(str::len).sum();
    let by_characters = text.char_indices().nth(CHARACTERS).map_or(text.len(), |(place, _)| place);
    let end = by_characters.min(by_words);
    if end == text.len() {
        marked(&text)
    } else {
        format!("{}… ({} bytes)", marked(&text[..end]), text.len())
    }
}

/// How the ends of lines differ, where nothing else does. Line by line, that would be said of each.
fn line_ends(old: &str, new: &str) -> Option<String> {
    if !(old.contains("\r\n") || new.contains("\r\n"))
        || old.replace("\r\n", "\n") != new.replace("\r\n", "\n")
    {
        return None;
    }
    let ends = |text: &str| {
        let with_return = text.matches("\r\n").count();
        match text.matches('\n').count() - with_return {
            _ if with_return == 0 => "LF",
            0 => "CRLF",
            _ => "CRLF and LF",
        }
    };
    let (before, now) = (ends(old), ends(new));
    (before != now).then(|| format!("line ends {before} -> {now}"))
}

fn line_of(mut pieces: Pieces, palette: Palette) -> String {
    let left_out = pieces.cut(PLACES);
    let last = pieces.0.len().saturating_sub(1);
    let mut line = String::new();
    let mut rest = pieces.0.iter().enumerate().peekable();
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

/// A place that has changed. Of long words, what both have at their ends is left out but for a little.
fn changed(old: &str, new: &str, palette: Palette) -> String {
    let (head, tail) = if old.len().max(new.len()) > LONG_WORD { common_ends(old, new) } else { (0, 0) };
    let mut text = String::new();
    let start = &old[..head];
    match start.char_indices().rev().nth(NEAR) {
        Some((place, c)) => text.push_str(&format!("…{}", plain(&start[place + c.len_utf8()..]))),
        None => text.push_str(&plain(start)),
    }
    let (before, now) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let (shown_before, shown_now) = (shortened(before), shortened(now));
    if !before.is_empty() {
        text.push_str(&palette.bad(format!("[-{shown_before}-]")));
    }
    if !now.is_empty() {
        text.push_str(&palette.good(format!("{{+{shown_now}+}}")));
    }
    if shown_before == shown_now {
        text.push_str(&format!(" ({ALIKE})"));
    }
    let end = &old[old.len() - tail..];
    match end.char_indices().nth(NEAR) {
        Some((place, _)) => text.push_str(&format!("{}…", plain(&end[..place]))),
        None => text.push_str(&plain(end)),
    }
    text
}

/// The words of what is the same that stand next to a change.
fn around(piece: &str, is_first: bool, is_last: bool) -> String {
    let words: Vec<&str> = piece.split_whitespace().collect();
    let (before, after) = (if is_first { 0 } else { AROUND }, if is_last { 0 } else { AROUND });
    if words.len() <= before + after + 1 {
        return match (is_first, is_last) {
            (true, _) => ending(piece),
            (false, true) => beginning(piece),
            (false, false) if piece.len() <= LONG_WORD => plain(piece),
            (false, false) => {
                let middle =
                    piece.char_indices().nth(piece.chars().count() / 2).map_or(0, |(place, _)| place);
                let (one, other) = piece.split_at(middle);
                format!("{}{}", beginning(one), ending(other)).replace("……", "…")
            }
        };
    }
    // What stands between words may be anything; here it is a space, except where it touches the change.
    let edge = |text: &str| if text.is_empty() { "" } else { " " };
    let (begins, ends) = (piece.len() - piece.trim_start().len(), piece.trim_end().len());
    let mut text = String::new();
    if !is_first {
        text.push_str(&format!("{}{} ", edge(&piece[..begins]), beginning(&words[..before].join(" "))));
    }
    text.push('…');
    if !is_last {
        text.push_str(&format!(
            " {}{}",
            ending(&words[words.len() - after..].join(" ")),
            edge(&piece[ends..])
        ));
    }
    text
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

    fn items(old: &[&str], new: &[&str]) -> String {
        let list = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        item_by_item(&list(old), &list(new), &Patience::default(), Printer::new(ColorMode::Never).out())
    }

    #[test]
    fn arguments_are_compared_one_by_one() {
        assert_eq!(items(&["-c", "a b"], &["-c", "a", "b"]), "-c [-'a b'-]{+a b+}");
        assert_eq!(items(&["-e"], &["-e", "it's", ""]), "-e{+ 'it'\\''s' ''+}");
        assert_eq!(items(&["x", "-e"], &["-e"]), "[-x-] -e");
        assert_eq!(
            items(&["-c", "make all -j4 it"], &["-c", "make all -j8 it"]),
            "-c 'make all [--j4-]{+-j8+} it'"
        );
        assert_eq!(items(&["https://me:one@h"], &["https://me:two@h"]), format!("https://…@h ({SECRET})"));
    }

    #[test]
    fn what_one_does_not_see_is_shown_where_it_differs() {
        for (old, new, expected) in [
            ("a b\r\nc d\r\n", "a b\nc d\n", "line ends CRLF -> LF"),
            ("a b\nc\n", "a b\r\nc\n", "line ends LF -> CRLF and LF"),
            ("all:\n\tmake", "all:\n make", "all:⏎[-⇥-]{+·+}make"),
            ("a\tb", "a b", "a[-⇥-]{+·+}b"),
            ("a b", "a  b", "a {+·+}b"),
            ("a b", "a b\n", "a b{+⏎+}"),
            ("a  \nb", "a\nb", "a[-··-]⏎b"),
            ("a⇥b", "a\tb", "[-a⇥b-]{+a⇥b+} (differs in characters that are written alike)"),
            ("https://h/?id=aaa", "https://h/?id=bbb", "[-https://h/?id=aaa-]{+https://h/?id=bbb+}"),
            ("x https://me:one@h y", "x https://me:two@h y", &format!("x https://…@h y ({SECRET})")),
            ("https://me:one@h y", "https://me:two@h z", "https://…@h [-y-]{+z+}"),
            ("\u{1b}[31m", "\u{202e}", "[-\\u{1b}[31m-]{+\\u{202e}+}"),
        ] {
            assert_eq!(words(old, new), expected);
        }
    }

    #[test]
    fn of_long_texts_each_changed_place_is_found() {
        // Lines in an order that is none, and one line of as many words.
        let number = |place: usize| place * 7919 % 104_729;
        for end in ['\n', ' '] {
            let text = |words: [&str; 2]| {
                let one = |place: usize| match place {
                    1000 => format!("{}{end}", words[0]),
                    149_000 => format!("{}{end}", words[1]),
                    place => format!("word {}{end}", number(place)),
                };
                (0..150_000).map(one).collect::<String>()
            };
            let (old, new) = (text(["one", "two"]), text(["1", "2"]));
            assert!(old.len() > 1_500_000);
            let began = std::time::Instant::now();
            let line = words(&old, &new);
            assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
            assert!(line.contains("[-one-]{+1+}") && line.contains("[-two-]{+2+}"), "{line}");
            assert!(line.len() < 300, "{line}");
        }
    }

    #[test]
    fn a_text_is_shortened_by_its_words_or_its_characters() {
        let some = |word: &str, number: usize| vec![word; number].join(" ");
        assert_eq!(shortened(&some("longwordnumber", 50)), some("longwordnumber", 50));
        assert_eq!(shortened(&some("a", 100)), format!("{} … (199 bytes)", some("a", WORDS)));
        assert_eq!(shortened(&"é".repeat(3000)), format!("{}… (6000 bytes)", "é".repeat(CHARACTERS)));
        // What is the same is of no length either.
        let long = "x".repeat(100_000);
        assert!(words(&format!("{long} a b {long}"), &format!("{long} c b {long}")).len() < 3000);
    }
}
