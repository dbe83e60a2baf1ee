//! Two pushers on one target at the same time.

use std::sync::Arc;

use crate::support::faults::{Answer, Rule};
use crate::support::nix::a_nix;
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::{Server, order_violations};
use crate::support::watch::Watch;

fn scene() -> Scene {
    Scene::signed(a_nix(), &project::wide(12, 200_000), "top")
}

#[test]
fn two_pushers_fill_one_directory() {
    for _ in 0..3 {
        let scene = scene();
        let mut watch = Watch::new(&scene.cache);
        let (one, two) = (scene.push_to(scene.url()).spawn(), scene.push_to(scene.url()).spawn());
        for outcome in [one.wait(), two.wait()] {
            assert_eq!(outcome.expect(0).target()["verified"], true);
        }
        let cache = scene.is_complete();
        assert!(
            cache.strange.is_empty() && cache.unused_nars.is_empty(),
            "{:?} {:?}",
            cache.strange,
            cache.unused_nars
        );
        assert_eq!(watch.violations(), Vec::<String>::new());
    }
}

#[test]
fn two_pushers_fill_one_http_cache() {
    let scene = scene();
    let server = Server::new(&scene.cache);
    // Nobody writes before both have asked what is there, so that both want to push everything.
    let witness = server.witness();
    let top = format!("/{}.narinfo", crate::support::cache::hash_part(&scene.top));
    let both_asked = move |_: &str| {
        witness
            .wait_until(|log| log.iter().filter(|one| one.method == "GET" && one.path == top).count() >= 2);
    };
    server.rule(Rule::method("PUT", Answer::Before(Arc::new(both_asked))));
    let (one, two) = (scene.push_to(&server.url).spawn(), scene.push_to(&server.url).spawn());
    for outcome in [one.wait(), two.wait()] {
        assert_eq!(outcome.expect(0).target()["verified"], true);
    }
    scene.is_complete();
    assert_eq!(order_violations(&server), Vec::<String>::new());
}

#[test]
fn two_pushers_make_one_local_key() {
    let scene = Scene::unsigned(a_nix(), &project::diamond(), "top");
    let home = scene.store.scratch.dir("xdg");
    let push = || scene.push_to("local").env("XDG_CACHE_HOME", home.clone()).spawn();
    let (one, two) = (push(), push());
    for outcome in [one.wait(), two.wait()] {
        outcome.expect(0);
    }
    let dir = home.join("cache-helper/binary-cache");
    let cache = crate::support::cache::assert_closed(&dir, &scene.store.dir_text(), &[]);
    assert_eq!(cache.paths(), scene.names());
    let fingerprint = |text: &str| text.lines().filter(|line| line.starts_with("Sig: ")).count();
    assert!(cache.entries.values().all(|entry| fingerprint(&entry.text) == 1));
    // All by one key: the one that is there afterwards.
    let report = scene.push_to("local").env("XDG_CACHE_HOME", home).run().expect(0).target();
    let public = report["publicKey"].as_str().unwrap();
    assert!(cache.entries.values().all(|entry| entry.is_signed_by(&scene.store.dir_text(), public)));
}
