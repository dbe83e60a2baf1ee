//! What is going on, in words and numbers: events come in, lines go out. Nothing here draws.

use crate::event::{Event, Progress};
use crate::plan::Tally;
use crate::text::{count, size};

/// The plan in one line, before anything moves.
pub(super) fn plan_line(event: &Event) -> String {
    let Event::Planned { target, closure, present, upstream, excluded, blocked, push } = event else {
        return String::new();
    };
    let amount = |tally: &Tally| format!("{} ({})", count(tally.paths, "path"), size(tally.nar_bytes));
    let mut line = format!("{target}: of {}", amount(closure));
    for (tally, what) in [
        (present, "already there"),
        (upstream, "in upstreams"),
        (excluded, "excluded"),
        (blocked, "blocked by what is excluded"),
    ] {
        if tally.paths > 0 {
            line.push_str(&format!(", {} {what}", amount(tally)));
        }
    }
    line.push_str(&format!(", {} to push", amount(push)));
    line
}

/// What is going on, as far as it is shown.
#[derive(Debug, Default)]
pub(super) struct Status {
    what: String,
    pub(super) lookups: (usize, usize),
    pub(super) paths: (usize, usize),
    nar_bytes: u64,
    /// NARs that were downloaded, those that are to be, and how large those are.
    nars: (usize, usize, u64),
    /// Paths being packed or sent, the oldest first.
    pub(super) current: Vec<String>,
    failed: usize,
}

impl Status {
    /// Takes an event in.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Step { what } => self.what = what,
            Event::LookupStarted { cache, paths } => {
                self.what = format!("asking {cache}");
                self.lookups = (0, paths);
            }
            Event::LookupGrew { paths, .. } => self.lookups.1 += paths,
            Event::LookupAnswered { .. } => self.lookups.0 += 1,
            Event::LookupFinished { .. } => self.lookups = (0, 0),
            Event::NarWanted { file_bytes } => {
                self.nars.1 += 1;
                self.nars.2 = self.nars.2.saturating_add(file_bytes);
            }
            Event::NarEnded { path } => {
                self.nars.0 += 1;
                self.current.retain(|current| *current != path);
            }
            Event::Planned { target, push, .. } => {
                self.what = format!("pushing to {target}");
                self.paths = (0, push.paths);
                self.nar_bytes = push.nar_bytes;
            }
            Event::PathStarted { path, .. } | Event::NarStarted { path } => self.current.push(path),
            Event::PathPushed { path, .. } => {
                self.paths.0 += 1;
                self.current.retain(|current| *current != path);
            }
            Event::PathFailed { path, .. } => {
                self.failed += 1;
                self.current.retain(|current| *current != path);
            }
            Event::PathBlocked { path, .. } => self.current.retain(|current| *current != path),
            Event::VerifyStarted { target } => {
                self.what = format!("reading back from {target}");
                self.paths = (0, 0);
                self.current.clear();
            }
            Event::Warning { .. } => {}
        }
    }

    /// One line of plain text.
    pub(super) fn line(&self, progress: &Progress) -> String {
        let details = self.details(progress);
        if details.is_empty() { self.what.clone() } else { format!("{}: {details}", self.what) }
    }

    /// How far it is, as short as beside a bar on 80 columns.
    pub(super) fn short(&self, progress: &Progress) -> String {
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let (done, all) = self.paths;
        format!(
            "{done}/{all} paths, {} read, {} sent{failed}",
            size(progress.packed()),
            size(progress.sent())
        )
    }

    /// How long the bar is, and how much of it is full: NAR bytes that have to move, and those that have arrived.
    ///
    /// Reading is much faster than a network; a bar of what was read would stand at its end while the largest NAR has yet to
    /// be sent.
    pub(super) fn bar(&self, progress: &Progress) -> (u64, u64) {
        (self.nar_bytes, progress.delivered().min(self.nar_bytes))
    }

    /// How far it is, without what it is.
    fn details(&self, progress: &Progress) -> String {
        let mut details = if self.lookups.1 > 0 {
            format!("{} of {} answers", self.lookups.0, self.lookups.1)
        } else if self.paths.1 > 0 {
            format!(
                "{} of {}, {} of {} read, {} sent",
                self.paths.0,
                count(self.paths.1, "path"),
                size(progress.packed()),
                size(self.nar_bytes),
                size(progress.sent()),
            )
        } else {
            String::new()
        };
        if self.nars.1 > 0 {
            let separator = if details.is_empty() { "" } else { "; " };
            details.push_str(&format!(
                "{separator}{} of {}, {} of {} downloaded",
                self.nars.0,
                count(self.nars.1, "NAR"),
                size(progress.received()),
                size(self.nars.2),
            ));
        }
        if self.failed > 0 {
            let separator = if details.is_empty() { "" } else { ", " };
            details.push_str(&format!("{separator}{} failed", self.failed));
        }
        details
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_stream_is_told_in_lines() {
        let progress = Progress::default();
        let mut status = Status::default();
        let mut lines = Vec::new();
        let push = Tally { paths: 3, nar_bytes: 3 << 20 };
        let none = Tally::default();
        let events = [
            Event::LookupStarted { cache: "file:///c".into(), paths: 4 },
            Event::LookupAnswered { cache: "file:///c".into() },
            Event::LookupGrew { cache: "file:///c".into(), paths: 2 },
            Event::LookupFinished { cache: "file:///c".into(), held: 1 },
            Event::Planned {
                target: "file:///c".into(),
                closure: push,
                present: none,
                upstream: none,
                excluded: none,
                blocked: none,
                push,
            },
            Event::PathStarted { path: "a".into(), nar_bytes: 1 << 20 },
            Event::PathPushed { path: "a".into(), nar_bytes: 1 << 20, file_bytes: 10 },
            Event::PathFailed { path: "b".into(), error: "gone".into() },
            Event::VerifyStarted { target: "file:///c".into() },
        ];
        for event in events {
            if matches!(event, Event::PathStarted { .. }) {
                progress.add_packed(1 << 20);
                progress.add_sent(10);
            }
            status.take(event);
            lines.push(status.line(&progress));
        }
        insta::assert_snapshot!(lines.join("\n"), @r"
        asking file:///c: 0 of 4 answers
        asking file:///c: 1 of 4 answers
        asking file:///c: 1 of 6 answers
        asking file:///c
        pushing to file:///c: 0 of 3 paths, 0 B of 3.0 MiB read, 0 B sent
        pushing to file:///c: 0 of 3 paths, 1.0 MiB of 3.0 MiB read, 10 B sent
        pushing to file:///c: 1 of 3 paths, 1.0 MiB of 3.0 MiB read, 10 B sent
        pushing to file:///c: 1 of 3 paths, 1.0 MiB of 3.0 MiB read, 10 B sent, 1 failed
        reading back from file:///c: 1 failed
        ");
    }

    #[test]
    fn downloads_are_told_beside_the_answers() {
        let progress = Progress::default();
        let mut status = Status::default();
        let path = || "a".to_owned();
        for event in [
            Event::LookupStarted { cache: "file:///c".into(), paths: 2 },
            Event::LookupAnswered { cache: "file:///c".into() },
            Event::NarWanted { file_bytes: 1 << 20 },
            Event::NarStarted { path: path() },
        ] {
            status.take(event);
        }
        progress.add_received(1 << 19);
        let line = "asking file:///c: 1 of 2 answers; 0 of 1 NAR, 512.0 KiB of 1.0 MiB downloaded";
        assert_eq!((status.line(&progress).as_str(), &*status.current), (line, &[path()][..]));
        status.take(Event::NarEnded { path: path() });
        assert!(status.current.is_empty() && status.line(&progress).contains("1 of 1 NAR"));
    }

    #[test]
    fn beside_a_bar_there_is_room_for_the_largest_numbers() {
        let progress = Progress::default();
        progress.add_packed((1 << 40) - (1 << 20));
        progress.add_sent((1 << 40) - (1 << 20));
        let status = Status { paths: (1234, 5678), failed: 12, ..Status::default() };
        let shown = status.short(&progress);
        assert_eq!(shown, "1234/5678 paths, 1024.0 GiB read, 1024.0 GiB sent, 12 failed");
        // A spinner, the bar with its brackets, and two spaces go before.
        assert!(1 + 1 + 16 + 1 + shown.len() <= 80, "{}", shown.len());
    }

    #[test]
    fn the_bar_is_about_what_has_arrived() {
        let progress = Progress::default();
        let status = Status { nar_bytes: 1000, ..Status::default() };
        progress.add_packed(1000);
        assert_eq!(status.bar(&progress), (1000, 0));
        progress.add_delivered(400);
        assert_eq!(status.bar(&progress), (1000, 400));
        progress.add_delivered(900);
        assert_eq!(status.bar(&progress), (1000, 1000));
    }
}
