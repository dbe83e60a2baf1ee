//! `.drv` files that are gone, cut, forged or forbidden: each is named, `graph` shows the rest, and `audit` stops.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::nix::{Store, a_nix, base, with_every_nix};
use crate::support::outcome::Outcome;
use crate::support::program::Run;
use crate::support::scratch::make_writable;
use crate::support::{Dice, full_run, project};

/// A store with the derivations of the diamond, whose files can be changed.
struct Diamond {
    store: Store,
    top: String,
    left: String,
    base: String,
}

impl Diamond {
    fn new(nix: &crate::support::nix::Nix) -> Self {
        let store = Store::new(nix);
        let [top, left, base] =
            ["top", "left", "base"].map(|attr| store.instantiate(&project::diamond(), attr));
        make_writable(&store.dir());
        Self { store, top, left, base }
    }

    fn graph(&self) -> Run {
        Run::new(&self.store).args(["graph", &self.top])
    }

    /// `graph` warns of a file with these words, and shows the rest; the audit stops at it.
    #[track_caller]
    fn is_named(&self, drv: &str, words: &str) {
        let outcome = self.graph().arg("--json").run().expect(0);
        let warnings: Vec<String> = outcome
            .stderr()
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .map(str::to_owned)
            .collect();
        assert_eq!(warnings.len(), 1, "{outcome}");
        assert!(
            warnings[0].contains(drv) && warnings[0].contains(words),
            "{} does not say {words}",
            warnings[0]
        );
        let document = outcome.json();
        assert_eq!(
            (document["damaged"].as_array().unwrap().len(), &document["damaged"][0]["drv"]),
            (1, &drv.into())
        );
        let kind = |of: &str| -> Value {
            let all = document["derivations"].as_array().unwrap();
            let found = all.iter().find(|one| one["drv"] == of);
            found.unwrap_or_else(|| panic!("no {of}\n{outcome}"))["kind"].clone()
        };
        assert_eq!((kind(drv), kind(&self.top)), ("unread".into(), "input-addressed".into()));
        assert_eq!(document["summary"]["kinds"]["unread"], 1);
        // Of the diamond, nothing else is missing but what only the damaged one would have named.
        assert_eq!(document["derivations"].as_array().unwrap().len(), 4);
        drop(self.graph().run().expect(0).says(&[
            "1 .drv file cannot be used, and what it needs is not known",
            drv,
            words,
        ]));
        drop(self.audit().run().expect(3).complains(&[drv, words]));
    }

    fn audit(&self) -> Run {
        Run::new(&self.store).args(["audit", &self.top, "--cache", "./nowhere"])
    }

    /// Nothing sensible is left.
    #[track_caller]
    fn is_hopeless(&self, words: &[&str]) {
        for run in [self.graph(), self.graph().arg("--json"), self.audit()] {
            let outcome: Outcome = run.run().expect(3);
            assert!(outcome.stdout.is_empty(), "{outcome}");
            drop(outcome.complains(words));
        }
    }
}

/// Puts something else into a file's place.
fn replace(drv: &str, content: impl AsRef<[u8]>) {
    fs::remove_file(drv).unwrap();
    fs::write(drv, content).unwrap();
}

#[test]
fn a_file_that_is_gone_or_something_else_is_named() {
    with_every_nix(|nix| {
        let diamond = Diamond::new(nix);
        let drv = diamond.base.clone();
        let text = fs::read(&drv).unwrap();
        fs::remove_file(&drv).unwrap();
        diamond.is_named(&drv, "No such file");
        fs::create_dir(&drv).unwrap();
        diamond.is_named(&drv, "it is not a file");
        fs::remove_dir(&drv).unwrap();
        // Whoever opened it as a file would wait for a writer.
        assert!(std::process::Command::new("mkfifo").arg(&drv).status().unwrap().success());
        diamond.is_named(&drv, "it is not a file");
        fs::remove_file(&drv).unwrap();
        std::os::unix::fs::symlink("nowhere", &drv).unwrap();
        diamond.is_named(&drv, "No such file");
        for (content, words) in [
            (&b""[..], "at byte 0: expected a derivation"),
            (b"\0\xff\x1b]0;owned\x07", "at byte 0: expected a derivation"),
            (b"DrvWithVersion(\"xp-from-the-future\",[],[],[],\"\",\"\",[],[])", "xp-from-the-future"),
            (b"DrvWithVersion(\"\x1b[2J\",", "\\u{1b}[2J"),
        ] {
            replace(&drv, content);
            diamond.is_named(&drv, words);
        }
        // Sparse, and larger than any derivation.
        let file = fs::File::create(&drv).unwrap();
        file.set_len(300 << 20).unwrap();
        diamond.is_named(&drv, "314572800 bytes");
        let elsewhere = String::from_utf8(text).unwrap().replace(&diamond.store.dir_text(), "/elsewhere");
        replace(&drv, elsewhere);
        diamond.is_named(&drv, "is no store path of the store");
    });
}

#[test]
fn a_file_that_is_cut_anywhere_is_named() {
    let diamond = Diamond::new(a_nix());
    let drv = diamond.base.clone();
    let text = fs::read(&drv).unwrap();
    let mut dice = Dice::new();
    let cuts: Vec<usize> = if full_run() {
        (0..text.len()).collect()
    } else {
        (0..12).map(|_| dice.within(0..text.len())).chain([0, text.len() - 1]).collect()
    };
    for cut in cuts {
        replace(&drv, &text[..cut]);
        diamond.is_named(&drv, "is not a derivation: at byte ");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    let diamond = Diamond::new(a_nix());
    fs::set_permissions(&diamond.base, fs::Permissions::from_mode(0o000)).unwrap();
    let outcome = diamond.graph().arg("--json").unprivileged(&diamond.store).run().expect(0);
    assert_eq!(outcome.json()["damaged"][0]["drv"], diamond.base.as_str());
    drop(outcome.says(&["warning: cannot read", &diamond.base, "Permission denied"]));
    // A root is all there is.
    fs::set_permissions(&diamond.top, fs::Permissions::from_mode(0o000)).unwrap();
    let outcome = diamond.graph().unprivileged(&diamond.store).run().expect(3);
    drop(outcome.complains(&["cannot read", &diamond.top, "Permission denied"]));
}

#[test]
fn a_root_that_cannot_be_used_ends_it() {
    let diamond = Diamond::new(a_nix());
    let text = fs::read(&diamond.top).unwrap();
    replace(&diamond.top, &text[..text.len() - 1]);
    diamond.is_hopeless(&[&diamond.top, "is not a derivation"]);
    fs::remove_file(&diamond.top).unwrap();
    diamond.is_hopeless(&[&diamond.top, "No such file"]);
}

#[test]
fn a_circle_is_named_with_all_that_is_on_it() {
    with_every_nix(|nix| {
        let diamond = Diamond::new(nix);
        let text = fs::read_to_string(&diamond.base).unwrap();
        let forged =
            |needed: &str| text.replacen("],[],[],", &format!("],[(\"{needed}\",[\"out\"])],[],"), 1);
        assert_ne!(forged(&diamond.left), text);
        replace(&diamond.base, forged(&diamond.left));
        diamond.is_hopeless(&[
            "needs itself, by way of",
            base(&diamond.base),
            base(&diamond.left),
            "--verify",
        ]);
        replace(&diamond.base, forged(&diamond.base));
        diamond.is_hopeless(&[&format!("{} needs itself", base(&diamond.base))]);
        // All the way round.
        replace(&diamond.base, forged(&diamond.top));
        diamond.is_hopeless(&["needs itself, by way of", base(&diamond.top)]);
    });
}

#[test]
fn what_was_forged_in_other_ways_is_named() {
    let diamond = Diamond::new(a_nix());
    let text = fs::read_to_string(&diamond.left).unwrap();
    let entry = format!("(\"{}\",[\"out\"])", diamond.base);
    assert!(text.contains(&entry));
    let forged = |by: &str| text.replacen(&entry, by, 1);
    // Names in it that none can have, or that are there twice: the file is refused.
    for (by, words) in [
        (format!("(\"{}\",[\"o\u{1b}t\"])", diamond.base), "is no name of an output"),
        (format!("{entry},{entry}"), "twice"),
        (format!("(\"{}\",[\"out\",\"out\"])", diamond.base), "twice"),
        ("(\"/etc/passwd\",[\"out\"])".to_owned(), "is no store path of the store"),
    ] {
        replace(&diamond.left, forged(&by));
        diamond.is_named(&diamond.left, words);
    }
    // Another path with the same hash part is another derivation, which is not there.
    let twin = diamond.base.replace("-base.drv", "-twin.drv");
    replace(&diamond.left, forged(&format!("(\"{twin}\",[\"out\"])")));
    let outcome = diamond.graph().arg("--json").run().expect(0);
    assert_eq!(outcome.json()["damaged"][0]["drv"], twin.as_str());
    // An output that the other does not have is the fault of one of the two, and nobody can say of which.
    replace(&diamond.left, forged(&format!("(\"{}\",[\"dev\"])", diamond.base)));
    diamond.is_hopeless(&["needs the output \"dev\"", base(&diamond.left), base(&diamond.base)]);
}

#[test]
fn of_many_damaged_files_some_are_told_and_all_are_listed() {
    let store = Store::new(a_nix());
    let top = store.instantiate(&project::wide(40, 10), "top");
    make_writable(&store.dir());
    let mut lost = Vec::new();
    for entry in fs::read_dir(store.dir()).unwrap() {
        let file = entry.unwrap().path();
        if file.to_str().unwrap() != top && file.extension() == Some(Path::new("drv").as_os_str()) {
            fs::remove_file(&file).unwrap();
            lost.push(file.to_str().unwrap().to_owned());
        }
    }
    lost.sort();
    let outcome = Run::new(&store).args(["graph", "--json", &top]).run().expect(0);
    let document = outcome.json();
    let damaged: Vec<&str> =
        document["damaged"].as_array().unwrap().iter().map(|one| one["drv"].as_str().unwrap()).collect();
    assert_eq!(damaged, lost);
    assert_eq!(document["warnings"].as_array().unwrap().len(), 11);
    drop(outcome.says(&["warning: 30 more .drv files cannot be used"]));
    // Whether something is needed cannot be denied for certain.
    let name = |drv: &str| base(drv)[33..].to_owned();
    let outcome = Run::new(&store).args(["graph", "--path", &name(&lost[0]), "top", &top]).run().expect(1);
    drop(outcome.says(&["does not need", "the other way round"]));
    let outcome =
        Run::new(&store).args(["graph", "--path", &name(&lost[0]), &name(&lost[1]), &top]).run().expect(1);
    drop(outcome.says(&["as far as is known"]));
}
