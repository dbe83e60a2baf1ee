//! What is to be pushed: the closure, less what the target serves, less what upstreams serve, less what is excluded.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::cache::{assert_closed, hash_part};
use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nix::{a_nix, base, flip_a_bit, with_every_nix};
use crate::support::outcome::{count, names};
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::scratch::files_below;
use crate::support::server::Server;

#[test]
fn a_dry_run_tells_and_writes_nothing() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::diamond(), "top");
        let server = Server::new(&scene.store.scratch.join("served"));
        let outcome = scene.push_to(scene.url()).to(&server.url).arg("--dry-run").run().expect(0);
        let report = outcome.json();
        assert_eq!(report["dryRun"], true);
        for target in report["targets"].as_array().unwrap() {
            assert_eq!((count(target, "closure"), count(target, "push")), (4, 4));
            assert_eq!(target["push"]["narBytes"], target["closure"]["narBytes"]);
            assert_eq!(target["pushed"], serde_json::json!({"paths": 0, "narBytes": 0, "fileBytes": 0}));
            assert!(target["verified"].is_null());
        }
        assert!(!scene.cache.exists(), "{:?}", files_below(&scene.cache));
        assert_eq!(server.count(|exchange| !matches!(exchange.method.as_str(), "GET" | "HEAD")), 0);
        // For humans it names every path.
        let outcome = scene.push().to(scene.url()).arg("--dry-run").run().expect(0);
        for path in scene.names() {
            assert!(outcome.stdout.contains(&path), "{path}\n{outcome}");
        }
        assert!(!scene.cache.exists());
    });
}

#[test]
fn a_dry_run_to_the_local_cache_makes_no_key() {
    let scene = Scene::unsigned(a_nix(), &project::diamond(), "top");
    let home = scene.store.scratch.dir("xdg");
    scene.push_to("local").arg("--dry-run").env("XDG_CACHE_HOME", home.clone()).run().expect(0);
    assert!(files_below(&home).iter().all(|file| !file.contains("cache-helper")), "{:?}", files_below(&home));
}

/// An upstream directory with the closures of some paths of a scene.
fn upstream(scene: &Scene, names: &[&str]) -> std::path::PathBuf {
    let dir = scene.store.scratch.join("upstream");
    for name in names {
        let to = format!("file://{}?compression=none", dir.display());
        scene.store.run("nix", &["copy", "--to", &to, &scene.path(name)]);
    }
    dir
}

#[test]
fn what_an_upstream_serves_is_not_pushed() {
    with_every_nix(|nix| {
        let mut scene = Scene::signed(nix, &project::diamond(), "top");
        let dir = upstream(&scene, &["left"]);
        let server = Server::new(&dir);
        for (n, url) in [format!("file://{}", dir.display()), server.url.clone()].iter().enumerate() {
            scene.cache = scene.store.scratch.join(format!("cache{n}"));
            let target = scene.push_to(scene.url()).args(["--upstream", url]).run().expect(0).target();
            assert_eq!((count(&target, "upstream"), count(&target, "pushed")), (2, 2));
            assert_eq!(target["verified"], true);
            let cache = assert_closed(&scene.cache, &scene.store.dir_text(), &[&dir]);
            assert_eq!(cache.paths(), scene.names_of(["right", "top"]));
        }
        assert_eq!(server.count(|exchange| exchange.path.contains("/nar/")), 0, "by narinfo only");
        assert_eq!(server.count(|exchange| exchange.method == "PUT"), 0);
        let target = scene.push_to(scene.url()).arg("--no-upstream").run().expect(0).target();
        assert_eq!(count(&target, "upstream"), 0);
        scene.is_complete();
    });
}

#[test]
fn what_an_upstream_lacks_below_what_it_has_is_pushed() {
    let scene = Scene::diamond();
    let dir = upstream(&scene, &["left"]);
    fs::remove_file(dir.join(format!("{}.narinfo", hash_part(&scene.path("base"))))).unwrap();
    let target = scene.push_to(scene.url()).arg("--upstream").arg(&dir).run().expect(0).target();
    assert_eq!((count(&target, "upstream"), count(&target, "pushed")), (1, 3));
    let cache = assert_closed(&scene.cache, &scene.store.dir_text(), &[&dir]);
    assert_eq!(cache.paths(), scene.names_of(["base", "right", "top"]));
}

#[test]
fn an_upstream_that_lies_or_stammers_is_not_believed() {
    let scene = Scene::diamond();
    let dir = upstream(&scene, &["top"]);
    let other = fs::read_to_string(dir.join(format!("{}.narinfo", hash_part(&scene.path("right"))))).unwrap();
    let own = fs::read_to_string(dir.join(format!("{}.narinfo", hash_part(&scene.path("left"))))).unwrap();
    let renamed =
        own.replace(base(&scene.path("left")), &format!("{}-other", hash_part(&scene.path("left"))));
    let lies: [(&str, Vec<u8>); 7] = [
        ("another path", other.into_bytes()),
        ("another name", renamed.into_bytes()),
        ("HTML", b"<!doctype html><title>Sign in</title>".to_vec()),
        ("nothing", Vec::new()),
        ("half", own.as_bytes()[..own.len() / 3].to_vec()),
        ("NUL", b"StorePath: \0\0\0\n".to_vec()),
        ("not text", vec![0xff; 300]),
    ];
    for (n, (what, body)) in lies.into_iter().enumerate() {
        let server = Server::new(&dir);
        let left = hash_part(&scene.path("left")).to_owned();
        server.rule(Rule::on("GET", Kind::Narinfo, Answer::body(body)).path(&left));
        let cache = scene.store.scratch.join(format!("cache{n}"));
        let outcome = scene.push_to(&cache).args(["--upstream", &server.url]).run().expect(0);
        let target = outcome.target();
        assert_eq!((count(&target, "upstream"), count(&target, "pushed")), (3, 1), "{what}: {outcome}");
        let warning = outcome.json()["warnings"][0].as_str().unwrap_or_default().to_owned();
        assert!(warning.contains("does not say whether it has 1 path"), "{what}: {outcome}");
        let read = crate::support::cache::read(&cache, &scene.store.dir_text(), &[&dir]);
        assert_eq!((read.problems, read.entries.len()), (Vec::new(), 1), "{what}");
    }
}

#[test]
fn a_path_that_nix_would_not_trust_in_an_upstream_is_pushed() {
    let mut scene = Scene::diamond();
    let dir = upstream(&scene, &["top"]);
    let other = scene.store.key("other-1");
    scene.store.set("trusted-public-keys", other.public);
    let outcome = scene.push_to(scene.url()).arg("--upstream").arg(&dir).run().expect(0);
    let target = outcome.target();
    assert_eq!((count(&target, "upstream"), count(&target, "pushed")), (0, 4));
    assert_eq!(outcome.json()["warnings"].as_array().unwrap().len(), 1, "{outcome}");
    scene.is_complete();
}

#[test]
fn a_filter_may_begin_with_a_dash() {
    let scene = Scene::diamond();
    let target = scene.push_to(scene.url()).args(["--include", "-base$"]).run().expect(0).target();
    assert_eq!((count(&target, "excluded"), count(&target, "pushed")), (3, 1));
    scene.push_to(scene.url()).args(["--exclude", "-top$"]).run().expect(0);
    assert_eq!(scene.is_closed().paths(), scene.names_of(["base", "left", "right"]));
}

#[test]
fn an_upstream_for_another_store_directory_serves_nothing() {
    let scene = Scene::diamond();
    let dir = upstream(&scene, &["top"]);
    fs::write(dir.join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    let outcome = scene.push_to(scene.url()).arg("--upstream").arg(&dir).run();
    // Either it is refused, or nothing of it is counted; but its paths are never taken for served.
    match outcome.status.code() {
        Some(2 | 4) => drop(outcome.complains(&["/nix/store"])),
        _ => assert_eq!(count(&outcome.expect(0).target(), "upstream"), 0),
    }
}

#[test]
fn an_upstream_that_cannot_be_asked_leaves_the_plan_unknown() {
    let faults = [
        ("500", Some(Answer::status(500))),
        ("503", Some(Answer::status(503))),
        ("401", Some(Answer::status(401))),
        ("hangs", Some(Answer::Hang)),
        ("gone", None),
    ];
    for (what, fault) in faults {
        let scene = Scene::diamond();
        let mut server = Some(Server::new(&scene.store.scratch.join("upstream")));
        let url = server.as_ref().unwrap().url.clone();
        match fault {
            Some(answer) => drop(server.as_ref().unwrap().rule(Rule::all(answer))),
            None => server = None,
        }
        let target = Server::new(&scene.cache);
        let push = scene.push_to(&target.url).args(["--upstream", &url, "--timeout", "1"]);
        let outcome = push.limit(Duration::from_secs(30)).run().expect(4);
        outcome.complains(&[&url, "leave this upstream out"]);
        assert_eq!(target.count(|exchange| exchange.method == "PUT"), 0, "{what}");
        drop(server);
    }
}

#[test]
fn a_path_that_an_upstream_does_not_have_is_no_error() {
    let scene = Scene::diamond();
    for status in [404, 410] {
        let server = Server::new(&upstream(&scene, &["base"]));
        server.rule(Rule::on("GET", Kind::Narinfo, Answer::status(status)));
        let cache = scene.store.scratch.join(format!("cache{status}"));
        let target = scene.push_to(&cache).args(["--upstream", &server.url]).run().expect(0).target();
        assert_eq!((count(&target, "upstream"), count(&target, "pushed")), (0, 4));
    }
}

#[test]
fn what_is_excluded_blocks_its_referrers_unless_a_cache_has_it() {
    let scene = Scene::diamond();
    let exclude = ["--exclude=-base$"];
    let target = scene.push_to(scene.url()).args(exclude).run().expect(1).target();
    assert_eq!((count(&target, "excluded"), count(&target, "pushed")), (1, 0));
    assert_eq!(names(&target, "blocked"), scene.names_of(["left", "right", "top"]));
    for blocked in target["blocked"].as_array().unwrap() {
        assert_eq!(base(blocked["by"].as_str().unwrap()), base(&scene.path("base")), "{blocked}");
    }
    assert_eq!(names(&target, "failed"), [].into());
    let outcome = scene.push().to(scene.url()).args(exclude).arg("--dry-run").run().expect(1);
    drop(outcome.complains(&["3 paths would not be pushed", "--upstream"]));
    assert!(files_below(&scene.cache).iter().all(|file| file == "nix-cache-info"));

    // An upstream has it.
    let dir = upstream(&scene, &["base"]);
    let push = scene.push_to(scene.url()).args(exclude).arg("--upstream").arg(&dir);
    assert_eq!(count(&push.run().expect(0).target(), "pushed"), 3);
    // The target has it.
    let target = upstream(&scene, &["base"]);
    let pushed = scene.push_to(target).args(exclude).run().expect(0).target();
    assert_eq!((count(&pushed, "pushed"), count(&pushed, "present")), (3, 1));
}

#[test]
fn what_is_excluded_below_what_the_target_has_blocks_what_is_above() {
    let scene = Scene::signed(a_nix(), &project::chain(3, 10), "p2");
    scene.store.run("nix", &["copy", "--to", &scene.url(), &scene.path("p1")]);
    fs::remove_file(scene.cache.join(format!("{}.narinfo", hash_part(&scene.path("p0"))))).unwrap();
    let target = scene.push_to(scene.url()).args(["--exclude=-p0$"]).run().expect(1).target();
    assert_eq!(["present", "excluded", "pushed"].map(|class| count(&target, class)), [1, 1, 0]);
    assert_eq!(names(&target, "blocked"), scene.names_of(["p2"]));
    assert_eq!(base(target["blocked"][0]["by"].as_str().unwrap()), base(&scene.path("p0")));
    // Where the hole may be filled, it is.
    let target = scene.push_to(scene.url()).run().expect(0).target();
    assert_eq!((count(&target, "pushed"), target["verified"].as_bool()), (2, Some(true)));
}

#[test]
fn what_a_filter_leaves_out_is_not_called_fetchable() {
    let scene = Scene::diamond();
    let exclude = ["--exclude=-top$"];
    for pushed in [3, 0] {
        let target = scene.push_to(scene.url()).args(exclude).run().expect(0).target();
        assert_eq!(count(&target, "pushed"), pushed);
        assert_eq!(target["verified"], Value::Null, "{target:#}");
        if pushed == 0 {
            let outcome =
                scene.push().to(scene.url()).args(exclude).run().expect(0).says(&["nothing to push"]);
            let outcome = outcome.says(&["all but the 1 path that is excluded"]);
            assert!(!outcome.output().contains("whole closure"), "{outcome}");
        }
    }
    // With everything in place a filter changes nothing.
    scene.push_to(scene.url()).run().expect(0);
    let outcome = scene.push().to(scene.url()).args(exclude).run().expect(0);
    drop(outcome.says(&["has the whole closure"]));
    // What is there and does not read well is said all the same.
    fs::remove_file(scene.cache.join(format!("{}.narinfo", hash_part(&scene.path("base"))))).unwrap();
    let target = scene.push_to(scene.url()).args(["--exclude=-base$"]).run().expect(1).target();
    assert_eq!(target["verified"], false, "{target:#}");
}

#[test]
fn only_what_is_included_is_pushed() {
    let scene = Scene::diamond();
    let include = ["--include=-base$", "--include=-left"];
    let target = scene.push_to(scene.url()).args(include).run().expect(0).target();
    assert_eq!((count(&target, "excluded"), count(&target, "pushed")), (2, 2));
    assert_eq!(scene.is_closed().paths(), scene.names_of(["base", "left"]));
    let both = ["--include=-(left|right)$", "--exclude=^[a-z0-9]{32}-right$"];
    let mut other = Scene::diamond();
    other.cache = scene.cache.clone();
    let target = scene.push_to(scene.store.scratch.join("both")).args(both).run().expect(1).target();
    assert_eq!(names(&target, "blocked"), scene.names_of(["left"]));
}

#[test]
fn a_filter_that_is_no_regular_expression_is_named() {
    let scene = Scene::diamond();
    for option in ["--include", "--exclude"] {
        let outcome = scene.push_to(scene.url()).args([option, "a(b"]).run().expect(2);
        drop(outcome.says(&["a(b"]));
    }
    assert!(!scene.cache.exists());
}

#[test]
fn the_classes_of_a_plan_add_up() {
    let scene = Scene::signed(a_nix(), &project::chain(8, 10), "p7");
    let dir = upstream(&scene, &["p1"]);
    scene.store.run("nix", &["copy", "--to", &scene.url(), &scene.path("p0")]);
    flip_a_bit(&Path::new(&scene.path("p5")).join("text"));
    let push = scene.push_to(scene.url()).arg("--upstream").arg(&dir).args(["--exclude=-p7$"]);
    let target = push.run().expect(1).target();
    let listed = |list: &str| target[list].as_array().map_or(0, Vec::len) as u64;
    let classes = ["present", "upstream", "excluded", "pushed"].map(|class| count(&target, class));
    assert_eq!(classes, [1, 1, 1, 3], "{target:#}");
    assert_eq!((listed("failed"), listed("blocked")), (1, 1), "{target:#}");
    let sum = classes.iter().sum::<u64>() + listed("failed") + listed("blocked");
    assert_eq!(sum, count(&target, "closure"));
    let bytes =
        |class: &str| target[class]["narBytes"].as_u64().unwrap_or_else(|| panic!("{class}: {target:#}"));
    assert!(bytes("present") + bytes("upstream") + bytes("excluded") + bytes("pushed") < bytes("closure"));
    assert!(matches!(target["verified"], Value::Bool(false) | Value::Null), "{target:#}");
}
