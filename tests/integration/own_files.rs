//! What evaluation copies of a flake's own files, and of inputs that not everybody can fetch, is a source wherever it stands.

use serde_json::{Value, json};

use crate::support::cache::assert_closed;
use crate::support::faults::{Answer, Kind, Rule};
use crate::support::flakes::{Project, stand_in, system};
use crate::support::nix::{Nix, a_nix, base, with_every_nix};
use crate::support::outcome::{Outcome, count, names};
use crate::support::scratch::copy_tree;
use crate::support::server::Server;

/// Packages that refer to copies of their flake's files, each made in another way.
const COPIES: &str = r#"
    packages.${system} = let
      text = name: words: d { inherit name words; args = [ "-c" "echo $words > $out" ]; };
      copy = name: path: filter: builtins.path { inherit name path filter; };
    in {
      whole = text "top" "${./.}";
      renamed = text "top" "${copy "renamed" ./. (_: _: true)}";
      cleaned = text "top" "${copy "cleaned" ./. (path: _: baseNameOf path != "README")}";
      directory = text "top" "${./src}";
      below = text "top" "${copy "below" ./src (path: _: baseNameOf path != "lib.rs")}";
      file = text "top" "${./src/main.rs}";
      made = text "top" "${builtins.toFile "main.rs" (builtins.readFile ./src/main.rs)}";
      none = text "top" "nothing";
    };
    devShells.${system} = {
      default = pkgs.mkShell { name = "shell"; src = ./src; };
      free = pkgs.mkShell { name = "free"; };
    };
"#;

fn project(nix: &Nix) -> Project {
    let project = Project::with_nixpkgs(nix, COPIES);
    for (name, content) in
        [("src/main.rs", "fn main() {}"), ("src/lib.rs", "pub fn x() {}"), ("README", "read")]
    {
        project.file(name, content);
    }
    project
}

/// What the sources of the only target are, and whether they are withheld.
fn sources(outcome: &Outcome) -> Vec<(String, bool)> {
    let target = outcome.target();
    let sources = target["sources"].as_array().unwrap().iter();
    sources
        .map(|source| (source["what"].as_str().unwrap().to_owned(), source["isWithheld"] == true))
        .collect()
}

fn pushed(project: &Project) -> Vec<String> {
    let cached = assert_closed(&project.cache, &project.store.dir_text(), &[]);
    cached.paths().iter().map(|path| path[33..].to_owned()).collect()
}

#[test]
fn copies_of_our_files_are_sources_whole_or_not_and_under_any_name() {
    with_every_nix(|nix| {
        let copies = [
            (".#whole", "the flake's own source"),
            (".#renamed", "a copy of the flake's own source"),
            (".#cleaned", "a copy of files of the flake's own source"),
            (".#directory", "a copy of files of the flake's own source"),
            (".#below", "a copy of files of the flake's own source"),
        ];
        for (package, what) in copies {
            let project = project(nix);
            let outcome =
                project.push(&["--build", package]).run().expect(1).complains(&["--include-sources"]);
            let [(said, true)] = &sources(&outcome)[..] else { panic!("{outcome}") };
            assert!(said.ends_with(what), "{package}: {said}");
            assert_eq!(names(&outcome.target(), "blocked").len(), 1);
            assert_eq!(count(&outcome.target(), "pushed"), 0);
            let outcome = project.push(&["--build", "--include-sources", package]).run().expect(0);
            assert_eq!(outcome.target()["verified"], true);
            assert!(!sources(&outcome)[0].1, "{outcome}");
        }
        // A file is part of what refers to it.
        for package in [".#file", ".#made", ".#none"] {
            let project = project(nix);
            let outcome = project.push(&["--build", package]).run().expect(0);
            assert_eq!((sources(&outcome), &outcome.target()["verified"]), (Vec::new(), &true.into()));
        }
    });
}

#[test]
fn what_a_dev_shell_is_made_of_is_withheld_and_the_report_says_that_the_shell_is_not_whole() {
    with_every_nix(|nix| {
        let project = project(nix);
        let outcome = project.push(&["--dev-shell", "--build", "."]).run().expect(1);
        assert_eq!(sources(&outcome), [("a copy of files of the flake's own source".to_owned(), true)]);
        assert_eq!(outcome.target()["incompleteDevShells"], json!(["."]), "{outcome}");
        assert!(!pushed(&project).iter().any(|name| name.contains("shell") || name == "src"), "{outcome}");
        let human = |args: &[&str]| {
            project.push_to(&project.cache, &[&["--dev-shell", "--build"], args].concat()).run()
        };
        let outcome = human(&["."]).expect(1).says(&["dev shell .: file://", "lacks a part of it"]);
        assert!(!outcome.output().contains("its environment is that of Nix"), "{outcome}");
        let outcome = human(&["--dry-run", "."]).expect(1).says(&["would lack a part of it"]);
        assert!(!outcome.output().contains("its environment is that of Nix"), "{outcome}");
        // The other one is, and its environment is there.
        let outcome =
            human(&[".", ".#free"]).expect(1).says(&["dev shell .#free: its environment is that of Nix"]);
        assert!(!outcome.output().contains(".#free: file://"), "{outcome}");
        let outcome = project.push(&["--dev-shell", "--include-sources", "."]).run().expect(0);
        assert_eq!(outcome.target()["incompleteDevShells"], json!([]), "{outcome}");
    });
}

#[test]
fn a_target_that_everybody_can_read_is_refused_and_told_apart_from_one_of_which_that_is_not_known() {
    let project = project(a_nix());
    let server = Server::new(&project.cache);
    let push = |args: &[&str]| project.push_to(&server.url, &[&["--json", "--build"], args].concat()).run();
    // Nothing is there yet that could be read.
    let outcome = push(&[".#whole"]).expect(2);
    outcome.complains(&[
        "whether http://",
        "is not known (it says that nix-cache-info is not there)",
        "the flake's own source",
    ]);
    push(&[".#none"]).expect(0);
    let outcome = push(&[".#whole"]).expect(2);
    let words = [
        "can be read without a login, and a source would have to be withheld from it",
        "the flake's own source",
    ];
    let outcome = outcome.complains(&words);
    assert_eq!(count(&outcome.target(), "pushed"), 0);
    let puts = server.count(|exchange| exchange.method == "PUT");

    // "me:sesame"
    let login = "Basic bWU6c2VzYW1l";
    let netrc = project.store.scratch.file("netrc", "machine 127.0.0.1 login me password sesame\n");
    let with_login = |what: &str| push(&["--option", "netrc-file", netrc.to_str().unwrap(), ".#none", what]);
    let page = Answer::redirect(format!("{}/login", server.url));
    let strange = [
        (Rule::all(Answer::status(404)), "is not known (it says that nix-cache-info is not there)"),
        (Rule::all(Answer::status(503)), "is not known (HTTP 503"),
        (Rule::all(page), "is not known ("),
        // Each of these shows what everybody can read.
        (Rule::on("GET", Kind::Info, Answer::status(401)), "can be read without a login, and"),
        (Rule::on("GET", Kind::Narinfo, Answer::status(401)), "can be read without a login, and"),
    ];
    for (rule, words) in strange {
        server.rule(Rule::method("GET", Answer::body("<html>log in</html>")).path("/login"));
        server.without_login(login, rule);
        let outcome = with_login(".#whole").expect(2);
        outcome.complains(&[words]);
    }
    // One that wants a login for everything is only not given the source.
    server.require_login(login);
    let outcome = with_login(".#whole").expect(1).complains(&["--include-sources"]);
    assert_eq!(count(&outcome.target(), "present"), 1);
    assert_eq!(server.count(|exchange| exchange.method == "PUT"), puts);
}

#[test]
fn what_is_excluded_is_no_longer_withheld_and_the_hints_fit() {
    with_every_nix(|nix| {
        let project = project(nix);
        project.push(&["--build", ".#none"]).run().expect(0);
        let server = Server::new(&project.cache);
        let push = |args: &[&str]| {
            project.push_to(&server.url, &[&["--json", "--build", ".#renamed"], args].concat()).run()
        };
        push(&[]).expect(2).complains(&[
            "can be read without a login",
            "--exclude leaves them out, and what refers to them",
        ]);
        for args in
            [&["--exclude", "-renamed$"][..], &["--include-sources", "--exclude", "-renamed$|-source$"]]
        {
            let outcome = push(args).expect(1).complains(&["they need what is excluded"]);
            assert_eq!(sources(&outcome), [], "{outcome}");
            assert!(!outcome.stderr().contains("--include-sources"), "{outcome}");
        }
    });
}

#[test]
fn files_of_an_input_that_not_everybody_can_fetch_are_sources_and_those_of_a_public_one_are_not() {
    with_every_nix(|nix| {
        let copy = |input: &str| {
            format!(
                "packages.${{system}}.default = d {{ name = \"top\"; args = [ \"-c\" \"echo $words > $out\" ]; words = \"${{builtins.path \
                 {{ name = \"copy\"; path = \"${{inputs.{input}}}/shared\"; }}}}\"; }};"
            )
        };
        let inputs = "public = { url = \"https://example.org/x.tar.gz\"; flake = false; }; \
             private = { url = \"https://me:pw@example.org/x.tar.gz\"; flake = false; };";
        let make = |input: &str, ours: &[&str]| {
            let project = Project::new(nix, inputs, &copy(input));
            let scratch = &project.store.scratch;
            let dirs = ["public", "private"].map(|name| scratch.dir(name));
            for name in ["public", "private", "flake"] {
                scratch.file(&format!("{name}/{name}"), name);
            }
            for place in ours {
                scratch.file(&format!("{place}/shared/file"), "the same");
            }
            let locked = |login: &str| json!({ "type": "tarball", "url": format!("https://{login}example.org/x.tar.gz") });
            project.lock(&[("public", &dirs[0], locked("")), ("private", &dirs[1], locked("me:pw@"))]);
            project
        };
        let is_copy = |what: &str| [(format!("a copy of files of {what}"), true)];
        let project = make("private", &["private"]);
        let outcome = project.push(&["--build"]).run().expect(1);
        assert_eq!(
            sources(&outcome),
            is_copy("the input private, a tarball without a public URL"),
            "{outcome}"
        );
        let outcome = make("public", &["public"]).push(&["--build"]).run().expect(0);
        assert_eq!(sources(&outcome), [], "{outcome}");
        // Ours more than theirs.
        let outcome = make("private", &["private", "flake/vendored"]).push(&["--build"]).run().expect(1);
        assert_eq!(sources(&outcome), is_copy("the flake's own source"), "{outcome}");
        // What everybody can fetch tells nothing, wherever we have it too.
        let outcome =
            make("private", &["private", "flake/vendored", "public"]).push(&["--build"]).run().expect(0);
        assert_eq!(sources(&outcome), [], "{outcome}");
    });
}

#[test]
fn a_path_that_is_several_things_is_the_most_private_of_them_whatever_is_named_first() {
    with_every_nix(|nix| {
        let url = "https://example.org/x.tar.gz";
        let packages = "packages.${system}.default = d { name = \"top\"; args = [ \"-c\" \"echo $words > $out\" ]; words = \"${inputs.other}\"; };";
        let project = Project::new(nix, &format!("other.url = \"{url}\";"), packages);
        let other = project.store.scratch.dir("other");
        copy_tree(&stand_in(), &other);
        // As an input it is public; as a flake that is named it is somebody's own.
        project.lock(&[("other", &other, json!({ "type": "tarball", "url": url }))]);
        project.push(&["--build", "."]).run().expect(0);
        let named = format!("path:{}#legacyPackages.{}.bash", other.display(), system());
        let clean = project.store.scratch.join("clean");
        for order in [[".", &named], [&named, "."]] {
            let args = ["--json", "--build", "--flake-inputs", order[0], order[1]];
            let outcome = project.push_to(&clean, &args).run().expect(1);
            assert_eq!(
                sources(&outcome),
                [("the flake's own source".to_owned(), true)],
                "{order:?}: {outcome}"
            );
        }
    });
}

#[test]
fn an_input_that_would_be_withheld_need_not_be_fetched() {
    with_every_nix(|nix| {
        let inputs = "gone = { url = \"https://me:pw@nowhere.invalid/x.tar.gz\"; flake = false; };";
        let packages =
            "packages.${system}.default = d { name = \"top\"; args = [ \"-c\" \"echo > $out\" ]; };";
        let project = Project::new(nix, inputs, packages);
        let gone = project.store.scratch.file("gone/file", "x").parent().unwrap().to_owned();
        let locked = json!({ "type": "tarball", "url": "https://me:pw@nowhere.invalid/x.tar.gz" });
        let paths = project.lock(&[("gone", &gone, locked)]);
        project.store.run("nix-store", &["--delete", &paths[0]]);
        let outcome = project.push(&["--build", "--flake-inputs"]).run().expect(0);
        let outcome = outcome.says(&["the input gone, a tarball without a public URL, is not in the store"]);
        assert_eq!(pushed(&project), ["top"], "{outcome}");
        // Asked for, it is.
        let outcome = project.push(&["--flake-inputs", "--include-sources"]).run().expect(3);
        outcome.complains(&[base(&paths[0]), "nix flake archive"]);
    });
}

#[test]
fn where_nix_says_nothing_of_a_flake_it_is_said_that_nothing_keeps_its_source_back() {
    with_every_nix(|nix| {
        let project = project(nix);
        let path = project.instead_of_nix(
            "case \" $* \" in *' flake metadata '*) echo 'error: no metadata today' >&2; exit 1 ;; esac\nnix \"$@\"",
        );
        let outcome = project.push(&["--build", ".#none"]).env("PATH", &path).run().expect(0);
        let report: Value = outcome.json();
        let warnings = report["warnings"].as_array().unwrap();
        let words = "nothing keeps its source from being pushed";
        assert!(warnings.iter().any(|warning| warning.as_str().unwrap().contains(words)), "{outcome}");
        assert_eq!(report["revision"], Value::Null);
    });
}

#[test]
fn names_from_a_flake_reach_the_terminal_without_what_steers_it() {
    with_every_nix(|nix| {
        let project = Project::new(nix, "", "");
        let data = project.store.scratch.file("data/file", "x").parent().unwrap().display().to_string();
        let inputs = format!("\"in\u{1b}[31m\nput\" = {{ url = \"path:{data}\"; flake = false; }};");
        project.write(
            &inputs,
            "packages.${system}.default = d { name = \"top\"; args = [ \"-c\" \"echo > $out\" ]; };",
        );
        let outcome = project.push_to(&project.cache, &["--build", "--flake-inputs"]).run().expect(0);
        outcome.says(&["withheld", "the input in\\u{1b}[31m ⏎ put, a directory on this machine\n"]);
        // So do those that the user gives.
        let shell = format!(
            "{{ \"a\\nb\" = (import {}/packages.nix {{ lib = import {0}/lib.nix; system = \"{}\"; }}).mkShell {{ }}; }}",
            stand_in().display(),
            system()
        );
        let shell = project.store.scratch.file("shell.nix", shell);
        let args = ["--build", "--dev-shell", "--file", shell.to_str().unwrap(), "\"a\nb\""];
        let outcome = project.push_to(&project.cache, &args).run().expect(0);
        outcome.says(&[
            "dev shell \"a ⏎ b\": its environment",
            "warning: the dev shell \"a ⏎ b\" is in no flake",
        ]);
    });
}
