//! What is wrong in the store is refused by name, stops only what refers to it, and never reaches a cache.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nix::{a_nix, base, flip_a_bit, with_every_nix};
use crate::support::outcome::{count, names};
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::{Server, order_violations};

#[test]
fn a_path_with_one_flipped_bit_is_refused_by_name_and_the_rest_is_pushed() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::diamond(), "top");
        flip_a_bit(&Path::new(&scene.path("left")).join("text"));
        let server = Server::new(&scene.store.scratch.join("other"));
        let outcome = scene.push_to(scene.url()).to(&server.url).run().expect(1);
        for target in outcome.json()["targets"].as_array().unwrap() {
            assert_eq!(names(target, "failed"), scene.names_of(["left"]));
            assert_eq!(names(target, "blocked"), scene.names_of(["top"]));
            let by = target["blocked"][0]["by"].as_str().unwrap();
            assert_eq!(base(by), base(&scene.path("left")));
            let error = target["failed"][0]["error"].as_str().unwrap();
            assert!(error.contains("hash"), "{error}");
            assert_eq!(count(target, "pushed"), 2);
        }
        assert_eq!(scene.is_closed().paths(), scene.names_of(["base", "right"]));
        assert_eq!(order_violations(&server), Vec::<String>::new());

        // A human reads the same, and it is not pushed the next time either.
        let outcome = scene.push().to(scene.url()).run().expect(1);
        drop(outcome.says(&[base(&scene.path("left")), base(&scene.path("top")), "blocked", "hash"]));
        assert_eq!(scene.is_closed().paths(), scene.names_of(["base", "right"]));
    });
}

#[test]
fn a_flipped_bit_in_a_file_of_many_megabytes_is_found_before_the_narinfo_is_written() {
    let scene = Scene::signed(a_nix(), &project::big(8_000_000), "big");
    flip_a_bit(&Path::new(&scene.path("big")).join("noise"));
    let server = Server::new(&scene.cache);
    let target = scene.push_to(&server.url).run().expect(1).target();
    assert_eq!(names(&target, "failed"), scene.names_of(["big"]));
    let cache = scene.is_closed();
    assert_eq!(cache.paths(), scene.names_of(["base"]));
    assert_eq!(cache.unused_nars, Vec::<String>::new(), "the damaged NAR was uploaded");
}

#[test]
fn a_damaged_path_above_a_damaged_path_counts_once() {
    // Both are packed at the same time, and the lower one is done long before the other.
    let scene = Scene::signed(a_nix(), &project::big(8_000_000), "big");
    flip_a_bit(&Path::new(&scene.path("base")).join("text"));
    flip_a_bit(&Path::new(&scene.path("big")).join("noise"));
    let target = scene.push_to(scene.url()).args(["--jobs", "2"]).run().expect(1).target();
    assert_eq!(names(&target, "failed"), scene.names_of(["base"]));
    assert_eq!(names(&target, "blocked"), scene.names_of(["big"]));
    assert_eq!(count(&target, "unfinished"), 0);
}

#[test]
fn a_failed_path_changes_the_exit_status_unless_it_is_to_be_a_warning() {
    let scene = Scene::diamond();
    flip_a_bit(&Path::new(&scene.path("left")).join("text"));
    let push = || scene.push_to(scene.url());
    push().args(["--push-failure", "fail"]).run().expect(1);
    let target = push().args(["--push-failure=warn"]).run().expect(0).target();
    assert_eq!(names(&target, "failed"), scene.names_of(["left"]));
    assert_eq!(names(&target, "blocked"), scene.names_of(["top"]));
}

#[test]
fn a_long_chain_above_a_damaged_path_is_blocked_and_nothing_else() {
    let scene = Scene::signed(a_nix(), &project::chain(8, 10), "p7");
    flip_a_bit(&Path::new(&scene.path("p3")).join("text"));
    let target = scene.push_to(scene.url()).run().expect(1).target();
    assert_eq!(names(&target, "failed"), scene.names_of(["p3"]));
    assert_eq!(names(&target, "blocked"), scene.names_of(["p4", "p5", "p6", "p7"]));
    for blocked in target["blocked"].as_array().unwrap() {
        assert_eq!(
            base(blocked["by"].as_str().unwrap()),
            base(&scene.path("p3")),
            "the root of it: {blocked}"
        );
    }
    assert_eq!(scene.is_closed().paths(), scene.names_of(["p0", "p1", "p2"]));
}

#[test]
fn a_path_that_the_database_has_and_the_disk_has_not_is_named() {
    let scene = Scene::diamond();
    scene.store.lose(&scene.path("right"));
    let outcome = scene.push_to(scene.url()).run().expect(1);
    let target = outcome.target();
    assert_eq!(names(&target, "failed"), scene.names_of(["right"]));
    assert_eq!(names(&target, "blocked"), scene.names_of(["top"]));
    assert_eq!(scene.is_closed().paths(), scene.names_of(["base", "left"]));
}

#[test]
fn a_path_that_vanishes_after_the_plan_was_made_is_named() {
    let scene = Arc::new(Scene::diamond());
    let server = Server::new(&scene.cache);
    let (hook, right) = (Arc::clone(&scene), scene.path("right"));
    let lose = Answer::Before(Arc::new(move |_| hook.store.lose(&right)));
    server.rule(Rule::on("GET", Kind::Narinfo, lose).nth(1));
    let outcome = scene.push_to(&server.url).run().expect(1);
    let target = outcome.target();
    assert_eq!(names(&target, "failed"), scene.names_of(["right"]));
    assert_eq!(names(&target, "blocked"), scene.names_of(["top"]));
    assert_eq!(scene.is_closed().paths(), scene.names_of(["base", "left"]));
}

#[test]
fn paths_that_vanish_while_they_are_pushed_leave_the_cache_closed() {
    // Large enough that not all can be read before the first is sent.
    let scene = Arc::new(Scene::signed(a_nix(), &project::wide(8, 4_000_000), "top"));
    let server = Server::new(&scene.cache);
    let hook = Arc::clone(&scene);
    let lose = move |_: &str| {
        for n in 0..8 {
            hook.store.lose(&hook.path(&format!("leaf{n}")));
        }
    };
    server.rule(Rule::on("PUT", Kind::Nar, Answer::During(1000, Arc::new(lose))).nth(1));
    // One at a time, so that nobody goes on while the hook is at work.
    let limits = ["--jobs", "1", "--memory", "16MiB", "--compression", "none"];
    let target = scene.push_to(&server.url).args(limits).run().expect(1).target();
    let failed = names(&target, "failed");
    assert!(!failed.is_empty() && failed.iter().all(|path| path.contains("-leaf")), "{target:#}");
    assert_eq!(names(&target, "blocked"), scene.names_of(["top"]));
    let left: BTreeSet<String> = &(&scene.names() - &failed) - &scene.names_of(["top"]);
    assert_eq!(scene.is_closed().paths(), left);
    assert_eq!(order_violations(&server), Vec::<String>::new());
}
