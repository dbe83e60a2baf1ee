//! Sources and derivations leave this machine only when that is meant: with `--include-sources`.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::cache::assert_closed;
use crate::support::checkout::Checkout;
use crate::support::flakes;
use crate::support::nix::{Nix, Store, a_nix, base, with_every_nix};
use crate::support::outcome::{count, names};
use crate::support::program::Run;
use crate::support::server::Server;

/// A flake whose packages refer to its source, to a derivation, to an input that is a directory, and to none of these.
struct Project {
    store: Store,
    dir: PathBuf,
    cache: PathBuf,
}

impl Project {
    fn new(nix: &Nix) -> Self {
        let store = Store::new(nix);
        let (dir, cache) = (store.scratch.dir("flake"), store.scratch.join("cache"));
        store.scratch.file("data/secret", "for our eyes only");
        let data = store.scratch.join("data");
        let system = format!("{}-linux", std::env::consts::ARCH);
        let text = format!(
            r#"{{
  inputs.data = {{ url = "path:{data}"; flake = false; }};
  outputs = {{ self, data }}: let
    text = name: words: derivation {{ inherit name words; system = "{system}"; builder = "/bin/sh"; args = [ "-c" "echo $words > $out" ]; }};
    plain = text "plain" "hello";
  in {{
    packages.{system} = {{
      inherit plain;
      default = text "top" "${{text "own" "${{self}}"}}";
      recipe = text "recipe" (builtins.unsafeDiscardOutputDependency plain.drvPath);
      input = text "input" "${{data}}";
    }};
  }};
}}
"#,
            data = data.display()
        );
        fs::write(dir.join("flake.nix"), text).unwrap();
        Self { store, dir, cache }
    }

    fn push(&self, package: &str) -> Run {
        let common = ["--json", "--allow-unsigned", "--build", package];
        Run::push(&self.store).cwd(&self.dir).args(common)
    }

    fn pushed(&self) -> Vec<String> {
        let cache = assert_closed(&self.cache, &self.store.dir_text(), &[]);
        cache.paths().iter().map(|path| path[33..].to_owned()).collect()
    }
}

fn sources(target: &Value) -> Vec<(String, bool)> {
    let sources = target["sources"].as_array().unwrap().iter();
    sources
        .map(|source| (source["what"].as_str().unwrap().to_owned(), source["isWithheld"] == true))
        .collect()
}

/// Each package, what it refers to that is a source, and the paths that go with that.
const CASES: [(&str, &str, &[&str]); 3] = [
    (".", "the flake's own source", &["own", "source", "top"]),
    (".#recipe", "a derivation", &["plain.drv", "recipe"]),
    (".#input", "the input data, a directory on this machine", &["input", "source"]),
];

#[test]
fn in_a_directory_they_are_left_out_and_what_needs_them_is_withheld() {
    with_every_nix(|nix| {
        for (package, what, paths) in CASES {
            let project = Project::new(nix);
            let outcome = project.push(package).to(&project.cache).run().expect(1);
            let outcome = outcome.complains(&["--include-sources"]);
            let target = outcome.target();
            assert_eq!(sources(&target), [(what.to_owned(), true)], "{outcome}");
            assert_eq!((count(&target, "excluded"), names(&target, "blocked").len()), (1, paths.len() - 1));
            let outcome = project.push(package).arg("--include-sources").to(&project.cache).run().expect(0);
            let target = outcome.target();
            assert!(sources(&target).contains(&(what.to_owned(), false)), "{outcome}");
            assert_eq!(target["verified"], true);
            let pushed = project.pushed();
            assert!(paths.iter().all(|path| pushed.iter().any(|pushed| pushed == path)), "{pushed:?}");
        }
    });
}

#[test]
fn what_refers_to_none_is_pushed_as_ever() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        let target = project.push(".#plain").to(&project.cache).run().expect(0).target();
        assert_eq!((sources(&target), project.pushed()), (Vec::new(), vec!["plain".to_owned()]));
    });
}

#[test]
fn where_everybody_can_read_the_push_is_refused_before_anything_moves() {
    with_every_nix(|nix| {
        for (package, what, _) in CASES {
            let project = Project::new(nix);
            let server = Server::new(&project.cache);
            for dry_run in [&["--dry-run"][..], &[]] {
                let push = project.push(package).args(dry_run.to_vec()).to(&server.url);
                let outcome = push.run().expect(2).complains(&["without a login", what, "--include-sources"]);
                let target = outcome.target();
                assert_eq!(sources(&target), [(what.to_owned(), true)], "{outcome}");
                assert_eq!(server.count(|exchange| exchange.method == "PUT"), 0);
            }
            let push = project.push(package).arg("--include-sources").to(&server.url);
            assert_eq!(push.run().expect(0).target()["verified"], true);
        }
    });
}

#[test]
fn where_a_login_is_wanted_they_are_left_out_as_in_a_directory() {
    let project = Project::new(a_nix());
    let server = Server::new(&project.cache);
    // "me:sesame"
    server.require_login("Basic bWU6c2VzYW1l");
    let netrc = project.store.scratch.file("netrc", "machine 127.0.0.1 login me password sesame\n");
    let push = || project.push(".").to(&server.url).args(["--option", "netrc-file"]).arg(&netrc);
    let target = push().run().expect(1).complains(&["--include-sources"]).target();
    assert_eq!(names(&target, "blocked").len(), 2);
    assert_eq!(push().arg("--include-sources").run().expect(0).target()["verified"], true);
}

#[test]
fn inputs_that_everybody_can_fetch_go_anywhere_and_others_do_not() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        let outcome = project.push(".#plain").arg("--flake-inputs").to(&project.cache).run().expect(0);
        let target = outcome.target();
        // Without it there is no saying that everything can be fetched.
        assert_eq!((&target["verified"], count(&target, "excluded")), (&Value::Null, 1));
        assert_eq!(project.pushed(), ["plain"]);
        let server = Server::new(&project.cache);
        let push = project.push(".#plain").arg("--flake-inputs").to(&server.url);
        push.run().expect(2).complains(&["the input data"]);

        // What stands in for nixpkgs is locked to where nixpkgs is.
        let checkout = Checkout::new(nix);
        let cache = checkout.store.scratch.join("cache");
        let server = Server::new(&cache);
        let push = checkout.push(server.url.as_ref()).args(["--build", "--flake-inputs"]);
        let outcome = push.run().expect(0);
        let target = outcome.target();
        assert_eq!((sources(&target), &target["verified"]), (Vec::new(), &Value::Bool(true)), "{outcome}");
        let cached = assert_closed(&cache, &checkout.store.dir_text(), &[]);
        assert!(cached.paths().contains(base(&checkout.nixpkgs)));
    });
}

#[test]
fn with_the_sources_of_a_dev_shell_goes_the_derivation_that_nix_makes_of_it() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        let cache = checkout.store.scratch.join("cache");
        let push = checkout.push(&cache).args(["--build", "--dev-shell", "--include-sources", ".#ci"]);
        let outcome = push.run().expect(0);
        let environment = outcome.json()["devShells"][0]["environment"][0].as_str().unwrap().to_owned();
        let cached = assert_closed(&cache, &checkout.store.dir_text(), &[]);
        let names: Vec<String> = cached.paths().iter().map(|path| path[33..].to_owned()).collect();
        assert!(names.iter().any(|name| name == "ci-env.drv"), "{names:?}");
        // The flake itself.
        let own = checkout.nix(&["flake", "metadata", "--json"]);
        let own: Value = serde_json::from_str(&own).unwrap();
        assert!(cached.paths().contains(base(own["path"].as_str().unwrap())), "{outcome}");
        // Somebody else realises the environment from the derivation, and evaluates nothing.
        let derivation = cached.paths().into_iter().find(|path| path.ends_with("-ci-env.drv")).unwrap();
        checkout.store.throw_away();
        let url = format!("file://{}", cache.display());
        let derivation = format!("{}/{derivation}", checkout.store.dir_text());
        checkout.store.fetch(&format!("{url}?trusted=1"), None, &[&derivation]);
        checkout.store.fetch(&format!("{url}?trusted=1"), None, &[&environment]);
        assert_eq!(checkout.builds(), 0);
    });
}

/// A flake with one input that Nix has already, locked to this URL.
fn locked_to(nix: &Nix, url: &str) -> flakes::Project {
    let inputs = format!("data = {{ url = \"{url}\"; flake = false; }};");
    let plain = "packages.${system}.default = d { name = \"plain\"; args = [ \"-c\" \"echo > $out\" ]; };";
    let project = flakes::Project::new(nix, &inputs, plain);
    let data = project.store.scratch.file("data/file", "data");
    let locked = serde_json::json!({ "type": "tarball", "url": url });
    project.lock(&[("data", data.parent().unwrap(), locked)]);
    project
}

#[test]
fn what_is_fetched_with_a_login_or_a_token_is_not_public() {
    with_every_nix(|nix| {
        let host = "forge.example.org";
        let push = |project: &flakes::Project| {
            let outcome = project.push(&["--build", "--flake-inputs"]).run().expect(0);
            sources(&outcome.target())
        };
        let withheld = [("the input data, a tarball without a public URL".to_owned(), true)];
        let project = locked_to(nix, &format!("https://{host}/x.tar.gz"));
        assert_eq!(push(&project), []);
        let netrc = format!("machine {host} login me password sesame\n");
        // As git has it, and as Nix.
        let project = locked_to(nix, &format!("https://{host}/x.tar.gz"));
        project.store.scratch.file("home/.netrc", &netrc);
        assert_eq!(push(&project), withheld);
        let mut project = locked_to(nix, &format!("https://{host}/x.tar.gz"));
        let netrc = project.store.scratch.file("netrc", &netrc);
        project.store.set("netrc-file", netrc.to_str().unwrap());
        assert_eq!(push(&project), withheld);
        let project = locked_to(nix, &format!("https://{host}/x.tar.gz?token=hush"));
        assert_eq!(push(&project), withheld);
    });
}
