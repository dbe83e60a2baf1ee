//! The scanner, held against `nix-derivation`.

use std::collections::BTreeMap;

use nix_derivation::{StoreDir, StorePath};
use proptest::prelude::*;

use super::*;
use crate::graph::{BuildGraphBuilder, Contents, Derivation, Input, Output};

/// What is between two spans of a text.
fn at<'a>(text: &'a [u8], span: &Span) -> &'a str {
    std::str::from_utf8(&text[span.start as usize..span.end as usize]).expect("plain")
}

fn scan(text: &str) -> Result<Scan, ScanError> {
    let mut scan = Scan::default();
    scan.read(text.as_bytes()).map(|()| scan)
}

const PLAIN: &str = r#"Derive([("out","/s/a-x","","")],[("/s/b-y.drv",["dev","out"])],["/s/c-z"],"system","builder",["a","\"b\\"],[("allowSubstitutes",""),("name","x\ny")])"#;

#[test]
fn everything_is_found_where_it_stands() {
    let found = scan(PLAIN).expect("a derivation");
    let text = PLAIN.as_bytes();
    assert_eq!(at(text, &found.outputs[0].name), "out");
    assert_eq!(at(text, &found.outputs[0].path), "/s/a-x");
    assert_eq!(at(text, &found.inputs[0].path), "/s/b-y.drv");
    assert_eq!(found.wanted.iter().map(|name| at(text, name)).collect::<Vec<_>>(), ["dev", "out"]);
    assert_eq!(at(text, &found.sources[0]), "/s/c-z");
    assert!(text[found.own as usize..].starts_with(b"\"system\""));
    assert_eq!((found.kind, found.allows_substitutes), (Some(DerivationKind::InputAddressed), false));
}

#[test]
fn a_text_that_is_cut_or_damaged_anywhere_is_an_error_or_another_derivation_and_never_a_panic() {
    for end in 0..PLAIN.len() {
        assert!(scan(&PLAIN[..end]).is_err(), "cut at {end}");
    }
    let mut text = PLAIN.as_bytes().to_vec();
    let mut found = Scan::default();
    for position in 0..text.len() {
        for byte in [0, b'"', b'\\', b'[', b']', b'(', b')', b',', 255] {
            let before = std::mem::replace(&mut text[position], byte);
            drop(found.read(&text));
            text[position] = before;
        }
    }
    assert!(scan(&format!("{PLAIN} ")).is_err());
}

#[test]
fn outputs_of_outputs_are_found() {
    let node = r#"(["out"],[("doc",["a","b"]),("out",(["x"],[("lib",["y"])]))])"#;
    let text = format!(
        r#"DrvWithVersion("xp-dyn-drv",[("out","","r:sha256","")],[("/s/b-y.drv",{node}),("/s/d-y.drv",["dev"])],[],"","",[],[])"#
    );
    let found = scan(&text).expect("a derivation");
    let names: Vec<_> = found.wanted.iter().map(|name| at(text.as_bytes(), name)).collect();
    assert_eq!(names, ["out", "dev"]);
    let ways: Vec<_> = found.dynamic.iter().map(|(input, way)| (*input, way.as_str())).collect();
    assert_eq!(ways, [(0, "doc^a"), (0, "doc^b"), (0, "out^x"), (0, "out^lib^y")]);
    assert_eq!(found.kind, Some(DerivationKind::Floating));
    // Only in that version.
    assert!(scan(&text.replace("DrvWithVersion(\"xp-dyn-drv\",", "Derive(")).is_err());
    let unknown = scan(&text.replace("xp-dyn-drv", "xp-2")).expect_err("a version from the future");
    assert_eq!(unknown, ScanError::Version("xp-2".into()));
    // Found by fuzzing: what would be two ways, or no way that can be told.
    for (bad, words) in [
        (r#"([],[("a",["x"]),("a",["y"])])"#, "\"a\" twice"),
        (r#"([],[("a",["x","x"])])"#, "\"a^x\" twice"),
        (r#"([],[("a^b",["x"])])"#, "the name of an output"),
        ("([],[(\"a\",[\"\u{1b}\"])])", "the name of an output"),
    ] {
        let error = scan(&text.replace(node, bad)).expect_err(bad).to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(scan(&text.replace(node, r#"([],[("a",(["b"],[("b",["x"])])),("b",["b"])])"#)).is_ok());
    let deep = format!("{}[]{}", r#"([],[("o","#.repeat(DEPTH + 1), ")])".repeat(DEPTH + 1));
    assert_eq!(scan(&text.replace(node, &deep)).expect_err("too deep"), ScanError::TooDeep);
}

#[test]
fn the_kind_is_that_of_the_least_certain_output() {
    let kind = |outputs: &str| {
        scan(&format!(r#"Derive([{outputs}],[],[],"","",[],[])"#)).expect("a derivation").kind
    };
    for (output, expected) in [
        (r#"("out","/s/x","","")"#, DerivationKind::InputAddressed),
        (r#"("out","","","")"#, DerivationKind::Deferred),
        (r#"("out","/s/x","r:sha256","00")"#, DerivationKind::FixedOutput),
        (r#"("out","","r:sha256","")"#, DerivationKind::Floating),
        (r#"("out","","r:sha256","impure")"#, DerivationKind::Impure),
        // Found by fuzzing: what Nix passes over when there is no algorithm.
        (r#"("out","/s/x","","00")"#, DerivationKind::InputAddressed),
        (r#"("out","","","impure")"#, DerivationKind::Deferred),
        (r#"("dev","/s/x","",""),("out","","r:sha256","")"#, DerivationKind::Floating),
    ] {
        assert_eq!(kind(output), Some(expected), "{output}");
    }
    assert_eq!(kind(""), None);
}

/// As `guix build -d` of GNU Guix 1.5.0 wrote it.
const GUIX: &str = r##"Derive([("out","/gnu/store/wmz8h88556a7f8k3akkkadzd6f1hgspn-glm-1.0.1-checkout","r:sha256","1a71b2ccd469cee82e737c986c416d60bbc6f8a882b51024b6237e36f6ce2021")],[],[],"x86_64-linux","builtin:git-download",[],[("commit","1.0.1"),("impureEnvVars","http_proxy https_proxy LC_ALL LC_MESSAGES LANG COLUMNS"),("out","/gnu/store/wmz8h88556a7f8k3akkkadzd6f1hgspn-glm-1.0.1-checkout"),("preferLocalBuild","1"),("recursive?","#f"),("url","\"https://github.com/g-truc/glm\"")])"##;

#[test]
fn what_guix_writes_is_read_too() {
    let found = scan(GUIX).expect("a derivation");
    assert_eq!(found.kind, Some(DerivationKind::FixedOutput));
    let store_dir = crate::graph::store_dir_of(GUIX.as_bytes()).expect("it has paths");
    assert_eq!(store_dir.as_str(), "/gnu/store");
    assert_eq!(crate::graph::store_dir_of(b"Derive([],[],[],\"\",\"\",[],[])"), None);
    let path = StorePath::from_parts([7; 20], "glm-1.0.1-checkout.drv").expect("a path");
    let mut builder = BuildGraphBuilder::default();
    builder.add_text(&path, GUIX.as_bytes(), &store_dir, drop).expect("a derivation");
    assert_eq!(builder.finish().expect("a graph").len(), 1);
}

#[test]
fn escapes_are_read_as_nix_reads_them() {
    assert_eq!(unescaped(br#"a\nb\tc\rd\"e\\f\xg"#), b"a\nb\tc\rd\"e\\fxg");
    assert_eq!(unescaped(b"plain"), b"plain");
    assert_eq!(unescaped(b"cut\\"), b"cut");
}

#[test]
fn structured_attributes_say_whether_it_may_be_fetched() {
    let with = |json: &str| {
        let json = json.replace('"', "\\\"");
        let text = PLAIN.replace(r#"("allowSubstitutes","")"#, &format!("(\"__json\",\"{json}\")"));
        scan(&text).expect("a derivation").allows_substitutes
    };
    assert!(!with(r#"{"allowSubstitutes":false}"#));
    assert!(with(r#"{"allowSubstitutes":true}"#));
    assert!(with(r#"{"name":"allowSubstitutes"}"#));
    assert!(with("{}"));
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["out", "dev", "lib", "a-b.c+d_e?f=1"]).prop_map(str::to_owned)
}

fn paths(end: &'static str) -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), "[a-z][a-zA-Z0-9+._?=-]{0,20}").prop_map(move |(digest, name)| {
        StorePath::from_parts(digest, &format!("{name}{end}")).expect("a path")
    })
}

/// A string as Nix writes it.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in text {
        match byte {
            b'\n' => quoted.extend(b"\\n"),
            b'\r' => quoted.extend(b"\\r"),
            b'\t' => quoted.extend(b"\\t"),
            b'"' | b'\\' => quoted.extend([b'\\', *byte]),
            _ => quoted.push(*byte),
        }
    }
    quoted.push(b'"');
    quoted
}

fn listed(items: impl IntoIterator<Item = Vec<u8>>, [open, close]: [u8; 2]) -> Vec<u8> {
    let mut list = vec![open];
    for (number, item) in items.into_iter().enumerate() {
        if number > 0 {
            list.push(b',');
        }
        list.extend(item);
    }
    list.push(close);
    list
}

/// The text of a derivation as Nix writes it.
pub(crate) fn text(derivation: &Derivation, contents: &Contents, store_dir: &StoreDir) -> Vec<u8> {
    let list = |items: Vec<Vec<u8>>| listed(items, *b"[]");
    let tuple = |items: Vec<Vec<u8>>| listed(items, *b"()");
    let path = |path: &StorePath| quoted(store_dir.render_path(path).as_bytes());
    let word = |text: &str| quoted(text.as_bytes());
    let output = |output: &Output| {
        let path = output.path.as_ref().map_or_else(|| word(""), path);
        tuple(vec![word(&output.name), path, word(""), word("")])
    };
    let input = |input: &Input| {
        let names = input.outputs.iter().map(|name| word(name)).collect();
        tuple(vec![path(&input.derivation), list(names)])
    };
    let mut text = b"Derive".to_vec();
    text.extend(tuple(vec![
        list(derivation.outputs.iter().map(output).collect()),
        list(derivation.inputs.iter().map(input).collect()),
        list(derivation.sources.iter().map(path).collect()),
        word(&contents.system),
        word(&contents.builder),
        list(contents.args.iter().map(|argument| word(argument)).collect()),
        list(contents.env.iter().map(|(name, value)| tuple(vec![word(name), word(value)])).collect()),
    ]));
    text
}

proptest! {
    /// `nix-derivation` reads the whole, and the scanner finds the same.
    #[test]
    fn it_agrees_with_the_reference(
        outputs in prop::collection::btree_map(names(), prop::option::of(paths("")), 1..4),
        inputs in prop::collection::btree_map(paths(".drv"), prop::collection::btree_set(names(), 1..3), 0..6),
        sources in prop::collection::btree_set(paths(""), 0..4),
        arguments in prop::collection::vec(".{0,9}", 0..3),
        environment in prop::collection::btree_map("[a-zA-Z_]{1,8}", "(?s).{0,20}", 0..5),
        allows in prop::option::of("1?"),
    ) {
        let store_dir = StoreDir::new("/some/store").expect("a directory");
        let mut environment: BTreeMap<String, String> = environment;
        if let Some(allows) = &allows {
            environment.insert("allowSubstitutes".into(), allows.clone());
        }
        let derivation = Derivation {
            path: StorePath::from_parts([7; 20], "x.drv").expect("a path"),
            kind: DerivationKind::InputAddressed,
            outputs: outputs.into_iter().map(|(name, path)| Output { name, path }).collect(),
            inputs: inputs.iter().map(|(path, names)| Input {
                derivation: path.clone(), outputs: names.iter().cloned().collect(), dynamic: Vec::new(),
            }).collect(),
            sources: sources.into_iter().collect(),
            allows_substitutes: true,
        };
        let contents = Contents {
            system: "system".into(), builder: "/bin/sh".into(), args: arguments, env: environment, ..Contents::default()
        };
        let text = text(&derivation, &contents, &store_dir);
        prop_assert_eq!(Contents::parse(&text, "x", &store_dir), Ok(contents));
        let reference = nix_derivation::Derivation::from_aterm_bytes_in(&text, "x", store_dir.clone())
            .expect("the reference reads it");
        let mut found = Scan::default();
        found.read(&text).expect("a derivation");
        prop_assert_eq!(found.allows_substitutes, allows.is_none_or(|allows| allows == "1"));
        prop_assert_eq!(&text[found.own as usize..][..8], b"\"system\"");
        let read: Vec<&str> = found.outputs.iter().map(|output| at(&text, &output.name)).collect();
        prop_assert_eq!(read, reference.outputs().keys().collect::<Vec<_>>());
        for (output, known) in found.outputs.iter().zip(reference.outputs()) {
            let path = known.1.path_in(&store_dir, "x", known.0).expect("a path");
            let path = path.map(|path| store_dir.render_path(&path)).unwrap_or_default();
            prop_assert_eq!(at(&text, &output.path), path);
        }
        prop_assert_eq!(found.inputs.len(), reference.input_derivations().len());
        for (input, (path, known)) in found.inputs.iter().zip(reference.input_derivations()) {
            let wanted = &found.wanted[input.wanted.start as usize..input.wanted.end as usize];
            prop_assert_eq!(at(&text, &input.path), store_dir.render_path(path));
            let wanted: Vec<&str> = wanted.iter().map(|name| at(&text, name)).collect();
            prop_assert_eq!(wanted, known.outputs().iter().collect::<Vec<_>>());
        }
        let read: Vec<&str> = found.sources.iter().map(|source| at(&text, source)).collect();
        let known: Vec<String> = reference.input_sources().iter().map(|path| store_dir.render_path(path)).collect();
        prop_assert_eq!(read, known);
        // And the builder tells of each input once.
        let mut told = Vec::new();
        let mut builder = BuildGraphBuilder::default();
        for _ in 0..2 {
            builder.add_text(&derivation.path, &text, &store_dir, |path| told.push(path)).expect("a derivation");
        }
        prop_assert_eq!(told, inputs.keys().cloned().collect::<Vec<_>>());
    }
}
