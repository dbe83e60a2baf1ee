//! Which narinfos Nix takes: each oddity is put before every Nix, and `audit` must have said what Nix then does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::support::nix::{Nix, Store, with_every_nix};
use crate::support::program::Run;
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::wild::Damaged;

/// A way to change a narinfo's text.
type Change = fn(&str) -> Vec<u8>;

/// The text with a line before the one that begins with `name`.
fn before(text: &str, name: &str, line: &[u8]) -> Vec<u8> {
    let place = text.find(&format!("\n{name}:")).unwrap() + 1;
    [&text.as_bytes()[..place], line, b"\n", &text.as_bytes()[place..]].concat()
}

/// The text with another value in the line that begins with `name`.
fn with(text: &str, name: &str, value: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| {
        if line.starts_with(&format!("{name}: ")) {
            format!("{name}: {value}\n")
        } else {
            format!("{line}\n")
        }
    });
    lines.collect::<String>().into_bytes()
}

/// The text with a line at its end.
fn and(text: &str, line: &str) -> Vec<u8> {
    format!("{text}{line}\n").into_bytes()
}

/// The value of the line that begins with `name`.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap()
}

const CHANGES: [(&str, Change); 46] = [
    ("nothing", |text| text.into()),
    ("no line end at the end", |text| text.trim_end().into()),
    ("cut in a word", |text| text[..text.len() - 30].into()),
    ("nothing at all", |_| Vec::new()),
    ("a page", |_| b"<html>\n<body>: no</body>\n".into()),
    ("CRLF", |text| text.replace('\n', "\r\n").into()),
    ("an empty line at the end", |text| and(text, "")),
    // It hides the field behind it, which is not always needed.
    ("an empty line before the URL", |text| before(text, "URL", b"")),
    ("an empty line before the size", |text| before(text, "FileSize", b"")),
    ("an empty line before the signature", |text| before(text, "Sig", b"")),
    ("a line without colon at the end", |text| and(text, "Hello")),
    ("a line without colon before the URL", |text| before(text, "URL", b"Hello")),
    ("an unknown field", |text| and(text, "Hello: world")),
    ("an unknown field that is not UTF-8", |text| before(text, "URL", b"Hello: w\xf6rld")),
    ("an unknown field of 1 MiB", |text| and(text, &format!("Hello: {}", "x".repeat(1 << 20)))),
    ("an unknown field without value", |text| before(text, "URL", b"Hello:")),
    ("an unknown field that ends with the text", |text| and(text, "Hello:")),
    ("a field without name", |text| and(text, ": x")),
    ("blanks around a name", |text| text.replace("NarSize:", " NarSize :").into()),
    ("no blank behind the colons", |text| text.replace(": ", ":").into()),
    ("a tab behind the colons", |text| text.replace(": ", ":\t").into()),
    ("two blanks before the size", |text| text.replace("NarSize: ", "NarSize:  ").into()),
    ("a blank behind the size", |text| with(text, "NarSize", &format!("{} ", value(text, "NarSize")))),
    ("a plus before the size", |text| with(text, "NarSize", &format!("+{}", value(text, "NarSize")))),
    ("no size", |text| with(text, "NarSize", "0")),
    ("a huge size", |text| with(text, "NarSize", "99999999999999999999")),
    ("a stored size of 0", |text| with(text, "FileSize", "0")),
    ("an empty stored size", |text| with(text, "FileSize", "")),
    ("a stored hash of another kind", |text| with(text, "FileHash", "md5:00000000000000000000000000000000")),
    ("a stored hash of no kind", |text| with(text, "FileHash", "sha3:0000")),
    ("a stored hash too short", |text| with(text, "FileHash", "sha256:0000")),
    ("a stored hash without kind", |text| with(text, "FileHash", "0000")),
    ("a deriver with its directory", |text| {
        and(text, "Deriver: /nix/store/00000000000000000000000000000000-x.drv")
    }),
    ("a deriver without name", |text| and(text, "Deriver: ")),
    ("a deriver nobody knows", |text| and(text, "Deriver: unknown-deriver")),
    ("a reference that is none", |text| with(text, "References", "hello")),
    ("blanks as references", |text| with(text, "References", "   ")),
    ("two kinds of references", |text| and(text, "References: ")),
    ("the path twice", |text| and(text, &format!("StorePath: {}", value(text, "StorePath")))),
    ("the path with slashes", |text| {
        with(text, "StorePath", &format!("/{}/", value(text, "StorePath").replace('/', "//")))
    }),
    ("the URL twice, the last one wrong", |text| and(text, "URL: nar/nothing.nar")),
    ("the hash in base 64", |text| with(text, "FileHash", &format!("sha256-{}=", "A".repeat(43)))),
    ("a signature that is none", |text| and(text, "Sig: hello")),
    ("an empty signature", |text| and(text, "Sig: ")),
    ("a signature of somebody, without padding", |text| and(text, "Sig: somebody-1:AAAA/A")),
    ("an empty content address", |text| and(text, "CA: ")),
];

/// More of them: what stands at the end, where the last of several counts.
const PAIRS: [(&str, &str); 9] = [
    ("two empty content addresses", "CA: \nCA: "),
    ("a content address that is none", "CA: hello"),
    ("a content address of no kind", "CA: fixed:sha3:00"),
    ("a signature without name", "Sig: :AAAA"),
    ("a blank before a trusted name", "Sig:  store-1:AAAA"),
    ("a compression that nobody knows", "Compression: hello"),
    ("a blank before the URL", "URL:  nar/x"),
    ("a URL that is not ASCII", "URL: nar/\u{e9}"),
    ("a signature in no base 64", "Sig: somebody-1:%%%%"),
];

/// What Nix does about the only derivation there is.
fn done(store: &Store, drv: &str, url: &str) -> (&'static str, String) {
    let arguments = ["--realise", drv, "--option", "substituters", url, "--option", "download-attempts", "1"];
    let output = store.try_run("nix-store", &arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let did = match (output.status.success(), text.contains("building '")) {
        (false, _) => "fail",
        (true, true) => "build",
        (true, false) => "fetch",
    };
    (did, text)
}

fn agrees(nix: &Nix) {
    let scene = Scene::signed(nix, &project::diamond(), "base");
    scene.push_to(scene.url()).run().expect(0);
    let path = scene.path("base");
    let file = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key).narinfo(&path);
    // Without what the table adds.
    let text = fs::read_to_string(&file).unwrap();
    let is_kept = |line: &&str| !line.starts_with("Deriver") && !line.starts_with("CA");
    let text = text.lines().filter(is_kept).collect::<Vec<_>>().join("\n") + "\n";
    let pairs = PAIRS.iter().map(|(name, lines)| (*name, and(&text, lines)));
    let all = CHANGES.iter().map(|(name, change)| (*name, change(&text))).chain(pairs);
    let (mut seen, mut wrong) = (BTreeMap::<&str, BTreeSet<&str>>::new(), Vec::new());
    for (name, changed) in all {
        fs::write(&file, &changed).unwrap();
        scene.store.throw_away();
        let drv = scene.store.instantiate(&project::diamond(), "base");
        let report = Run::new(&scene.store)
            .args(["audit", "--json", "--nars", &drv, "--cache", &scene.url()])
            .run()
            .expect(0)
            .json();
        let (did, words) = done(&scene.store, &drv, &scene.url());
        let audited = &report["derivations"][0];
        // Whether something is at a strange URL is left open; what 2.34 does with a compression that it does not know
        // differs from run to run (it may abort).
        let is_open =
            (name.contains("URL") || name.contains("compression")) && audited["verdict"] == "inconclusive";
        if audited["nix"] != did && !is_open {
            wrong.push(format!("{name}: Nix did {did}\n{words}\n{audited:#}"));
        }
        seen.entry(did).or_default().insert(name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // That the table says something at all.
    assert!(seen["fetch"].len() > 10 && seen["fail"].len() > 10 && seen["build"].len() > 1, "{seen:#?}");
    let is_strict = nix.version >= (2, 34);
    assert_eq!(seen["fail"].contains("a signature that is none"), is_strict, "{seen:#?}");
}

#[test]
fn nix_takes_the_narinfos_that_audit_takes() {
    with_every_nix(agrees);
}
