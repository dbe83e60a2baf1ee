//! Watches a cache directory as it is written, event by event, so that tests judge the order of writes and strike at chosen moments.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::LIMIT;
use super::cache::{Entry, hash_part};
use super::scratch::files_below;

/// One change below the watched directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Change {
    /// What happened.
    pub(crate) kind: Kind,
    /// The file, relative to the directory.
    pub(crate) file: String,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// It came into being: created, linked, or moved here.
    Appeared,
    /// It was written to.
    Written,
    /// It went away.
    Gone,
}

/// A directory under watch, with its `nar` below.
#[derive(Debug)]
pub(crate) struct Watch {
    dir: PathBuf,
    inotify: OwnedFd,
    names: Vec<(i32, &'static str)>,
    before: BTreeSet<String>,
    /// All changes so far.
    pub(crate) changes: Vec<Change>,
}

impl Watch {
    /// Watches a directory; it and its `nar` are made first, because events before a watch are lost.
    pub(crate) fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("nar")).unwrap();
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        let what = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::MODIFY | WatchFlags::DELETE;
        let top = inotify::add_watch(&inotify, dir, what).unwrap();
        let nar = inotify::add_watch(&inotify, dir.join("nar"), what).unwrap();
        let before = files_below(dir).into_iter().collect();
        Self {
            dir: dir.to_owned(),
            before,
            inotify,
            names: vec![(top, ""), (nar, "nar/")],
            changes: Vec::new(),
        }
    }

    /// Takes in what has happened since, without waiting.
    pub(crate) fn catch_up(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 16384];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let flags = event.events();
            assert!(!flags.contains(ReadFlags::QUEUE_OVERFLOW), "too many events for the queue");
            let Some(name) = event.file_name() else { continue };
            let prefix = self.names.iter().find(|(wd, _)| *wd == event.wd()).unwrap().1;
            let kind = if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                Kind::Appeared
            } else if flags.contains(ReadFlags::MODIFY) {
                Kind::Written
            } else {
                Kind::Gone
            };
            self.changes.push(Change { kind, file: format!("{prefix}{}", name.to_string_lossy()) });
        }
    }

    /// Waits until there have been so many changes; gives up, with `false`, when `ended` says that no more will come.
    pub(crate) fn wait_for(&mut self, count: usize, ended: impl Fn() -> bool) -> bool {
        let start = std::time::Instant::now();
        loop {
            let over = ended();
            self.catch_up();
            if self.changes.len() >= count {
                return true;
            }
            if over {
                return false;
            }
            assert!(start.elapsed() < LIMIT, "only {} changes", self.changes.len());
            let short = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&short)).ok();
        }
    }

    /// What is wrong with the order of writes so far: every final file must appear whole, a narinfo after its NAR and its references.
    pub(crate) fn violations(&mut self) -> Vec<String> {
        self.catch_up();
        let mut problems = Vec::new();
        let mut there = self.before.clone();
        for change in &self.changes {
            let file = &change.file;
            let is_narinfo = file.len() == 40 && file.ends_with(".narinfo");
            let is_final = is_narinfo
                || file == "nix-cache-info"
                || (file.starts_with("nar/") && file.as_bytes().get(56) == Some(&b'.'));
            match change.kind {
                Kind::Appeared => {
                    if is_narinfo {
                        problems.extend(self.missing_for(file, &there));
                    }
                    there.insert(file.clone());
                }
                Kind::Written if is_final => {
                    problems.push(format!("{file} is written to where readers see it"));
                }
                Kind::Gone if is_final => problems.push(format!("{file} is taken away")),
                Kind::Written | Kind::Gone => {}
            }
        }
        problems
    }

    /// What a narinfo needs and did not have when it appeared.
    fn missing_for(&self, file: &str, there: &BTreeSet<String>) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join(file)).unwrap();
        let fields = text.lines().filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut entry = Entry { path: String::new(), fields, text: String::new() };
        entry.path = entry.get("StorePath").unwrap().rsplit('/').next().unwrap().to_owned();
        let nar = entry.get("URL").unwrap().to_owned();
        let references = entry.references().into_iter().map(|path| format!("{}.narinfo", hash_part(&path)));
        let missing = [nar].into_iter().chain(references).filter(|needed| !there.contains(needed));
        missing.map(|needed| format!("{file} appears before {needed}")).collect()
    }
}
