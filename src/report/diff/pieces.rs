//! What is the same in two texts, what went and what came.

use similar::{ChangeTag, DiffTag, TextDiffConfig};

use crate::jobs::diff::Patience;

/// From how many bytes on texts are gone through line by line first, or in one line word by word with the blanks after each. The
/// more there is, the more is alike by chance, and in the way of what is alike for a reason.
const LONG: usize = 200_000;

/// How far ahead is looked for where two long texts are alike again, and how many words or lines on end have to be.
const AHEAD: usize = 100;
const ON_END: usize = 3;

/// What is the same, what went and what came, in order.
#[derive(Debug, Default)]
pub(super) struct Pieces(pub(super) Vec<(ChangeTag, String)>);

impl Pieces {
    fn add(&mut self, tag: ChangeTag, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some((last, piece)) if *last == tag => piece.push_str(text),
            _ => self.0.push((tag, text.to_owned())),
        }
    }

    fn replace(&mut self, before: &str, now: &str) {
        self.add(ChangeTag::Delete, before);
        self.add(ChangeTag::Insert, now);
    }

    /// Of two texts, word by word; of long ones, of the lines that differ.
    pub(super) fn of_texts(old: &str, new: &str, patience: &Patience) -> Self {
        let mut pieces = Self::default();
        pieces.add_texts(old, new, patience);
        pieces
    }

    fn add_texts(&mut self, old: &str, new: &str, patience: &Patience) {
        let (head, tail) = common_words(old, new);
        let (before, now) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
        self.add(ChangeTag::Equal, &old[..head]);
        if before.len().max(now.len()) > LONG {
            self.add_lines(before, now, patience);
        } else {
            self.add_words(before, now, patience);
        }
        self.add(ChangeTag::Equal, &old[old.len() - tail..]);
    }

    /// Goes through both at once. Where they differ they mostly go on alike soon after, so that this takes time in proportion to
    /// their length; only from where they do not on, they are compared with patience.
    fn add_lines(&mut self, old: &str, new: &str, patience: &Patience) {
        let are_lines = old.contains('\n') && new.contains('\n');
        let split = |c: char| if are_lines { c == '\n' } else { c.is_whitespace() };
        let (before, now): (Vec<&str>, Vec<&str>) =
            (old.split_inclusive(split).collect(), new.split_inclusive(split).collect());
        let (mut before, mut now) = (&*before, &*now);
        while !(before.is_empty() && now.is_empty()) {
            let same = before.iter().zip(now).take_while(|(old, new)| old == new).count();
            self.add(ChangeTag::Equal, &before[..same].concat());
            (before, now) = (&before[same..], &now[same..]);
            let Some((gone, come)) = where_alike(before, now) else { break };
            self.add_words(&before[..gone].concat(), &now[..come].concat(), patience);
            (before, now) = (&before[gone..], &now[come..]);
        }
        let (old, new) = (before.concat(), now.concat());
        let found = patience.compare(&old, &new, |how, _, _| how.diff_slices(before, now));
        for op in found.ops() {
            let gone = before[op.old_range()].concat();
            if op.tag() == DiffTag::Equal {
                self.add(ChangeTag::Equal, &gone);
            } else {
                self.add_words(&gone, &now[op.new_range()].concat(), patience);
            }
        }
    }

    fn add_words(&mut self, old: &str, new: &str, patience: &Patience) {
        if old.is_empty() || new.is_empty() || old.len().max(new.len()) > LONG {
            return self.replace(old, new);
        }
        for change in patience.compare(old, new, TextDiffConfig::diff_words).iter_all_changes() {
            self.add(change.tag(), change.value());
        }
    }

    /// Of two lists, item by item; of items that are in each other's place, word by word.
    pub(super) fn of_lists(old: &[String], new: &[String], patience: &Patience) -> Self {
        let [old, new] = [old, new].map(|list| list.iter().map(|item| quoted(item)).collect::<Vec<_>>());
        // How long they are decides for how long they are compared.
        let (all_old, all_new) = (old.concat(), new.concat());
        let found = patience
            .compare(&all_old, &all_new, |how, _, _| how.diff_slices(&borrowed(&old), &borrowed(&new)));
        let mut pieces = Self::default();
        for op in found.ops() {
            let (before, now) = (&old[op.old_range()], &new[op.new_range()]);
            let blank = if pieces.0.is_empty() { "" } else { " " };
            match op.tag() {
                DiffTag::Equal => pieces.add(ChangeTag::Equal, &format!("{blank}{}", before.join(" "))),
                DiffTag::Replace if before.len() == now.len() => {
                    for (place, (before, now)) in before.iter().zip(now).enumerate() {
                        pieces.add(ChangeTag::Equal, if place == 0 { blank } else { " " });
                        pieces.add_texts(before, now, patience);
                    }
                }
                DiffTag::Replace => {
                    pieces.add(ChangeTag::Equal, blank);
                    pieces.replace(&before.join(" "), &now.join(" "));
                }
                // What is not there takes its blank with it.
                DiffTag::Delete | DiffTag::Insert => {
                    let (before, now) = (before.join(" "), now.join(" "));
                    let with_blank =
                        |text: String| if text.is_empty() { text } else { format!("{blank}{text}") };
                    pieces.replace(&with_blank(before), &with_blank(now));
                }
            }
        }
        pieces
    }

    /// Keeps the first few changed places. How many more there are.
    pub(super) fn cut(&mut self, most: usize) -> usize {
        let (mut places, mut is_inside, mut end) = (0, false, self.0.len());
        for (position, (tag, _)) in self.0.iter().enumerate() {
            let is_changed = *tag != ChangeTag::Equal;
            if is_changed && !is_inside {
                places += 1;
                if places == most + 1 {
                    end = position;
                }
            }
            is_inside = is_changed;
        }
        self.0.truncate(end);
        places.saturating_sub(most)
    }
}

/// After how many of each two lists are alike again, the fewest.
fn where_alike(old: &[&str], new: &[&str]) -> Option<(usize, usize)> {
    let are_alike = |gone: usize, come: usize| {
        let rest = old.get(gone..).zip(new.get(come..));
        rest.is_some_and(|(old, new)| match (old.get(..ON_END), new.get(..ON_END)) {
            (Some(old), Some(new)) => old == new,
            _ => old == new,
        })
    };
    (0..=2 * AHEAD).find_map(|both| {
        let mut ways = (both.saturating_sub(AHEAD)..=both.min(AHEAD)).map(|gone| (gone, both - gone));
        ways.find(|(gone, come)| are_alike(*gone, *come))
    })
}

fn borrowed(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// An item of a list, told from the others: one that holds blanks, or nothing, is quoted as in a shell.
fn quoted(item: &str) -> String {
    if item.is_empty() || item.contains(|c: char| c.is_whitespace() || c == '\'') {
        format!("'{}'", item.replace('\'', "'\\''"))
    } else {
        item.to_owned()
    }
}

/// How many bytes two texts have in common at the beginning and then at the end, in whole characters.
pub(super) fn common_ends(old: &str, new: &str) -> (usize, usize) {
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
