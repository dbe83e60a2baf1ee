//! Downloading every NAR of a closure: in every compression, within bounds, and over connections that break.

use std::fs;
use std::time::Duration;

use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nix::{a_nix, flip_a_bit, with_every_nix};
use crate::support::program::Run;
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::Server;
use crate::support::wild::Damaged;

fn deep(scene: &Scene, cache: &str) -> Run {
    Run::new(&scene.store).args(["verify", &scene.top, "--json", "--deep", "--cache", cache])
}

#[test]
fn what_nix_has_packed_itself_is_unpacked() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::zoo(), "zoo");
        let paths = u64::try_from(scene.closure.len()).unwrap();
        for method in ["xz", "bzip2", "gzip", "zstd", "br", "none"] {
            eprintln!("--- {method}");
            let dir = scene.store.scratch.join(method);
            let url = format!("file://{}", dir.display());
            scene.store.run("nix", &["copy", "--to", &format!("{url}?compression={method}"), &scene.top]);
            let report = deep(&scene, &url).run().expect(0).json();
            assert_eq!((&report["totals"]["nars"], &report["verified"]), (&paths.into(), &true.into()));
            let damaged = Damaged::new(&dir, scene.store.dir_text(), &scene.key);
            flip_a_bit(&damaged.nar(&scene.path("noise")));
            let report = deep(&scene, &url).run().expect(1).json();
            assert_eq!(report["problems"].as_array().unwrap().len(), 1, "{report:#}");
            assert_eq!(report["problems"][0]["problem"], "nar-damaged", "{report:#}");
        }
    });
}

#[test]
fn an_unknown_compression_is_not_checked_and_not_called_sound() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let cache = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key);
    cache.tell(&scene.path("left"), "Compression", "lzip");
    let report = deep(&scene, &scene.url()).run().expect(4).json();
    assert_eq!(report["verified"], serde_json::Value::Null);
    assert_eq!(report["problems"][0]["problem"], "not-checked", "{report:#}");
    assert!(report["problems"][0]["words"].as_str().unwrap().contains("lzip"), "{report:#}");
}

#[test]
fn a_large_nar_takes_no_more_memory_than_a_small_one() {
    let scene = Scene::signed(a_nix(), &project::big(200 << 20), "big");
    scene.push_to(scene.url()).run().expect(0);
    scene.store.throw_away();
    let server = Server::new(&scene.cache);
    for cache in [scene.url(), server.url.clone()] {
        let outcome = deep(&scene, &cache).watch_memory().limit(Duration::from_mins(3)).run().expect(0);
        assert!(outcome.peak_memory < 100 << 20, "{} bytes", outcome.peak_memory);
        assert!(outcome.json()["totals"]["unpackBytes"].as_u64().unwrap() > 200 << 20);
    }
}

#[test]
fn what_unpacks_without_end_is_left() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let cache = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key);
    let left = scene.path("left");
    // 4 GiB of nothing, which the narinfo does not speak of.
    let mut packer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 4 << 30), &mut packer).unwrap();
    let bomb = packer.finish().unwrap();
    cache.tell(&left, "FileSize", &bomb.len().to_string());
    fs::write(cache.nar(&left), bomb).unwrap();
    let outcome = deep(&scene, &scene.url()).watch_memory().run().expect(1);
    let report = outcome.json();
    assert!(report["problems"][0]["words"].as_str().unwrap().contains("unpacks to more than"), "{report:#}");
    assert!(outcome.peak_memory < 100 << 20, "{} bytes", outcome.peak_memory);
    assert!(outcome.elapsed < Duration::from_secs(20), "{outcome}");
}

#[test]
fn a_download_that_breaks_is_begun_again_and_one_that_never_ends_is_given_up() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let server = Server::new(&scene.cache);
    let run = || deep(&scene, &server.url).args(["--timeout", "1"]).run();
    let nar = |answer| Rule::on("GET", Kind::Nar, answer);
    server.rule(nar(Answer::CutResponse(40)).first(2));
    let report = run().expect(0).json();
    assert_eq!(report["totals"]["nars"], 4);
    for (answer, status, problem) in [
        (Answer::CutResponse(40), 4, "unreachable"),
        (Answer::HangMidBody, 4, "unreachable"),
        (Answer::Drip, 4, "unreachable"),
        (Answer::Endless, 1, "nar-wrong-size"),
    ] {
        eprintln!("--- {answer:?}");
        server.heal();
        server.rule(nar(answer).path(nar_name(&scene, "left").as_str()));
        let report = run().expect(status).json();
        let problems = report["problems"].as_array().unwrap();
        assert_eq!(problems.len(), 1, "{report:#}");
        assert_eq!(problems[0]["problem"], problem, "{report:#}");
        assert!(problems[0]["path"].as_str().unwrap().ends_with("-left"), "{report:#}");
    }
    assert!(server.endless_bytes() < 32 << 20, "{} bytes", server.endless_bytes());
}

#[test]
fn a_cache_that_begins_every_nar_and_ends_none_is_found_out_once() {
    let scene = Scene::signed(a_nix(), &project::wide(60, 10), "top");
    scene.push_to(scene.url()).run().expect(0);
    let server = Server::new(&scene.cache);
    server.rule(Rule::on("GET", Kind::Nar, Answer::HangMidBody));
    let report = deep(&scene, &server.url).args(["--timeout", "1"]).run().expect(4).json();
    assert_eq!((&report["totals"]["unknown"], &report["totals"]["problems"]), (&61.into(), &0.into()));
    // Those that were under way with the first three, each begun three times, and not all 61.
    let asked = server.count(|exchange| exchange.kind() == Kind::Nar);
    assert!(asked <= 3 * (32 + 3), "{asked} downloads were begun");
}

/// The name of a path's NAR in the cache.
fn nar_name(scene: &Scene, path: &str) -> String {
    let cache = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key);
    cache.nar(&scene.path(path)).file_name().unwrap().to_str().unwrap().to_owned()
}
