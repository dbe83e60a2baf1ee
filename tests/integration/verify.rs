//! Whether a cache can serve a closure: what is sound passes, and whatever is damaged is found and named.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::delay;
use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nginx::Nginx;
use crate::support::nix::{Store, a_nix, base, flip_a_bit, with_every_nix};
use crate::support::outcome::Outcome;
use crate::support::program::Run;
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::scratch::copy_tree;
use crate::support::server::Server;
use crate::support::wild::Damaged;
use crate::support::{Dice, full_run};

/// `verify PATH --cache CACHE --json`.
fn verify(store: &Store, path: &str, cache: impl AsRef<Path>) -> Run {
    Run::new(store).args(["verify", path, "--json", "--cache"]).arg(cache.as_ref())
}

/// The problems of a report: what is wrong with what.
fn problems(report: &Value) -> BTreeSet<(String, String)> {
    let one = |problem: &Value| {
        let path = problem["path"].as_str().map_or("", base);
        let name = path.split_once('-').map_or("", |(_, name)| name);
        assert!(
            !problem["fix"].as_str().unwrap().is_empty() && !problem["words"].as_str().unwrap().is_empty()
        );
        (problem["problem"].as_str().unwrap().to_owned(), name.to_owned())
    };
    report["problems"].as_array().unwrap().iter().map(one).collect()
}

fn set(all: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    all.iter().map(|(problem, path)| ((*problem).to_owned(), (*path).to_owned())).collect()
}

/// A signed diamond in a cache; the store forgets it where that is asked for.
fn pushed(keeps_store: bool) -> Scene {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    if !keeps_store {
        scene.store.throw_away();
    }
    scene
}

#[track_caller]
fn is_verified(outcome: Outcome, paths: u64) -> Value {
    let report = outcome.expect(0).json();
    assert_eq!(
        (&report["verified"], &report["totals"]["paths"]),
        (&true.into(), &paths.into()),
        "{report:#}"
    );
    assert_eq!(report["totals"]["nars"], paths, "{report:#}");
    report
}

#[test]
fn what_was_pushed_is_verified_however_it_is_named() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::diamond(), "top");
        scene.push_to(scene.url()).run().expect(0);
        let (store, url) = (&scene.store, scene.url());
        let server = Server::new(&scene.cache);
        std::os::unix::fs::symlink(&scene.top, store.scratch.join("result")).unwrap();
        let drv = store.instantiate(&project::diamond(), "top");
        let file = store.expression(&project::diamond());
        for deep in [&[][..], &["--deep"]] {
            is_verified(verify(store, "./result", &url).args(deep.iter().copied()).run(), 4);
            is_verified(verify(store, &scene.top, &server.url).args(deep.iter().copied()).run(), 4);
        }
        is_verified(verify(store, "top", &url).arg("--file").arg(&file).run(), 4);
        is_verified(verify(store, &drv, &url).run(), 4);
        is_verified(
            verify(store, "-", &scene.cache)
                .stdin(format!("{}\n\n{}\n", scene.top, scene.path("left")))
                .run(),
            4,
        );
        let plain = Run::new(store).args(["verify", &scene.top, "--cache", &url]).run().expect(0);
        plain.says(&["verified: ", "4 paths", "--deep downloads and hashes them"]);

        store.throw_away();
        // A link to what is gone still tells which path is meant; and expressions are evaluated anew.
        is_verified(verify(store, "./result", &url).arg("--deep").run(), 4);
        let report = is_verified(verify(store, &scene.top, &server.url).run(), 4);
        assert_eq!(report["paths"][0], scene.top);
        let drv = store.instantiate(&project::diamond(), "top");
        is_verified(verify(store, &drv, &url).run(), 4);
        assert_eq!(server.count(|exchange| exchange.method == "PUT"), 0);
    });
}

/// What is done to a copy of the cache, and what must be found.
struct Damage {
    what: &'static str,
    done: fn(&Damaged<'_>, &Scene),
    found: &'static [(&'static str, &'static str)],
    /// Whether only whoever downloads sees it.
    is_deep: bool,
}

const DAMAGES: &[Damage] = &[
    Damage {
        what: "missing at depth",
        done: |cache, scene| cache.remove(&scene.path("base")),
        found: &[("missing", "base")],
        is_deep: false,
    },
    Damage {
        what: "missing on top",
        done: |cache, scene| cache.remove(&scene.top),
        found: &[("missing", "top")],
        is_deep: false,
    },
    Damage {
        what: "another path's narinfo",
        done: |cache, scene| cache.swap_in(&scene.path("left"), &scene.path("right")),
        found: &[("other-path", "left")],
        is_deep: false,
    },
    Damage {
        what: "no narinfo",
        done: |cache, scene| cache.replace(&scene.path("left"), "<html>\u{1b}[2J"),
        found: &[("bad-narinfo", "left")],
        is_deep: false,
    },
    Damage {
        what: "unsigned",
        done: |cache, scene| cache.unsign(&scene.path("left")),
        found: &[("unsigned", "left")],
        is_deep: false,
    },
    Damage {
        what: "a strange key",
        done: |cache, scene| cache.sign_falsely(&scene.path("left"), false),
        found: &[("key-not-trusted", "left")],
        is_deep: false,
    },
    Damage {
        what: "a forged signature",
        done: |cache, scene| cache.sign_falsely(&scene.path("left"), true),
        found: &[("bad-signature", "left")],
        is_deep: false,
    },
    Damage {
        what: "a reference lost",
        done: |cache, scene| cache.tell_unsigned(&scene.path("left"), "References", ""),
        found: &[("bad-signature", "left")],
        is_deep: false,
    },
    Damage {
        what: "no NAR",
        done: |cache, scene| cache.spoil_nar(&scene.path("left"), true),
        found: &[("nar-missing", "left")],
        is_deep: false,
    },
    Damage {
        what: "half a NAR",
        done: |cache, scene| cache.spoil_nar(&scene.path("left"), false),
        found: &[("nar-wrong-size", "left")],
        is_deep: false,
    },
    Damage {
        what: "a URL that leads out",
        done: |cache, scene| cache.tell(&scene.path("left"), "URL", "../../etc/passwd"),
        found: &[("outside-cache", "left")],
        is_deep: false,
    },
    Damage {
        what: "a flipped bit",
        done: |cache, scene| flip_a_bit(&cache.nar(&scene.path("left"))),
        found: &[("nar-damaged", "left")],
        is_deep: true,
    },
    Damage {
        what: "too large a NAR",
        done: |cache, scene| cache.tell(&scene.path("left"), "NarSize", "100"),
        found: &[("nar-damaged", "left")],
        is_deep: true,
    },
    Damage {
        what: "too small a NAR",
        done: |cache, scene| cache.tell(&scene.path("left"), "NarSize", "10000000"),
        found: &[("nar-damaged", "left")],
        is_deep: true,
    },
    Damage {
        what: "another path's NAR",
        done: |cache, scene| {
            // As a cache that says nothing of how it is stored, and lies about what it is.
            let url = cache.nar(&scene.path("right"));
            let url = url.file_name().unwrap().to_str().unwrap().to_owned();
            cache.tell(&scene.path("left"), "URL", &format!("nar/{url}"));
            cache.tell(&scene.path("left"), "FileSize", "0");
        },
        found: &[("nar-damaged", "left")],
        is_deep: true,
    },
];

#[test]
fn every_damage_is_found_and_named() {
    let scene = pushed(false);
    for Damage { what, done, found, is_deep } in DAMAGES {
        eprintln!("--- {what}");
        let copy = scene.store.scratch.join(format!("damaged/{}", what.replace(' ', "-")));
        copy_tree(&scene.cache, &copy);
        done(&Damaged::new(&copy, scene.store.dir_text(), &scene.key), &scene);
        let server = Server::new(&copy);
        for cache in [copy.to_str().unwrap(), &server.url] {
            let shallow = verify(&scene.store, &scene.top, cache).run();
            if *is_deep {
                shallow.expect(0);
            } else {
                let report = shallow.expect(1).json();
                assert_eq!(
                    (&report["verified"], problems(&report)),
                    (&false.into(), set(found)),
                    "{report:#}"
                );
            }
            let outcome = verify(&scene.store, &scene.top, cache).arg("--deep").run().expect(1);
            let report = outcome.json();
            assert_eq!((&report["verified"], problems(&report)), (&false.into(), set(found)), "{report:#}");
            outcome.complains(&["cannot serve the closure"]);
            let text = Run::new(&scene.store)
                .args(["verify", &scene.top, "--deep", "--cache", cache])
                .run()
                .expect(1);
            assert!(text.stdout.starts_with("not verified: "), "{text}");
            text.says(&[found[0].0, found[0].1, "  -> "]);
        }
    }
}

#[test]
fn a_lost_reference_that_is_signed_is_found_where_the_store_knows_better() {
    let scene = pushed(true);
    let cache = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key);
    cache.cut_reference(&scene.path("left"), &mut Dice::new());
    let report = verify(&scene.store, &scene.top, scene.url()).run().expect(1).json();
    assert_eq!(problems(&report), set(&[("contradiction", "left")]), "{report:#}");
    assert!(report["problems"][0]["words"].as_str().unwrap().contains("lacks the reference"), "{report:#}");
}

#[test]
fn signatures_count_as_for_nix() {
    let mut scene = Scene::signed(a_nix(), &project::addressed(), "top");
    scene.push_to(scene.url()).run().expect(0);
    scene.store.set("trusted-public-keys", "");
    // The content-addressed ones need none.
    let report = verify(&scene.store, &scene.top, scene.url()).run().expect(1).json();
    assert_eq!(problems(&report), set(&[("key-not-trusted", "top")]), "{report:#}");
    let run = |words: &[&str]| verify(&scene.store, &scene.top, scene.url()).args(words.to_vec()).run();
    run(&["--option", "trusted-public-keys", &scene.key.public]).expect(0);
    run(&["--option", "extra-trusted-public-keys", &scene.key.public]).expect(0);
    run(&["--option", "require-sigs", "false"]).expect(0);
    verify(&scene.store, &scene.top, format!("{}?trusted=true", scene.url())).run().expect(0);
    // What a trusted cache says is believed, not what it has.
    let cache = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key);
    flip_a_bit(&cache.nar(&scene.top));
    run(&["--option", "require-sigs", "false", "--deep"]).expect(1);
}

#[test]
fn what_the_advice_says_mends_it() {
    let scene = pushed(true);
    let cache = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key);
    let check = || verify(&scene.store, &scene.top, scene.url()).arg("--deep").run();
    for name in ["base", "left", "top"] {
        let path = scene.path(name);
        flip_a_bit(&cache.nar(&path));
        let report = check().expect(1).json();
        let fix = report["problems"][0]["fix"].as_str().unwrap();
        let (narinfo, nar) = (cache.narinfo(&path), cache.nar(&path));
        for file in [&narinfo, &nar] {
            assert!(fix.contains(file.file_name().unwrap().to_str().unwrap()), "{fix}");
            fs::remove_file(file).unwrap();
        }
        let missing = check().expect(1).json();
        let fix = missing["problems"][0]["fix"].as_str().unwrap();
        let command = fix.split('`').nth(1).unwrap().strip_prefix("cache-helper ").unwrap();
        Run::new(&scene.store).args(command.split(' ')).run().expect(0);
        check().expect(0);
    }
    cache.unsign(&scene.path("left"));
    let report = check().expect(1).json();
    let fix = report["problems"][0]["fix"].as_str().unwrap();
    let command = fix.split('`').nth(1).unwrap().replace("FILE", scene.key.file.to_str().unwrap());
    scene.store.run("nix", &command.split(' ').skip(1).collect::<Vec<_>>());
    check().expect(0);
}

#[test]
fn an_upstream_may_serve_what_the_cache_lacks_if_nix_takes_it_from_there() {
    let scene = pushed(false);
    let upstream = scene.store.scratch.join("upstream");
    copy_tree(&scene.cache, &upstream);
    let own = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key);
    for name in ["base", "left"] {
        fs::remove_file(own.nar(&scene.path(name))).unwrap();
        own.remove(&scene.path(name));
    }
    own.unsign(&scene.path("right"));
    let server = Server::new(&upstream);
    let run =
        || verify(&scene.store, &scene.top, scene.url()).args(["--upstream", &server.url, "--deep"]).run();
    let report = is_verified(run(), 4);
    let paths = |number: usize| report["caches"][number]["serves"]["paths"].as_u64().unwrap();
    assert_eq!((paths(0), paths(1)), (1, 3), "{report:#}");
    // As configured, or left out.
    let file = format!("[target.\"{}\"]\nupstreams = [\"{}\"]\n", scene.url(), server.url);
    scene.store.scratch.file("home/.config/cache-helper/cache-helper.toml", file);
    is_verified(verify(&scene.store, &scene.top, &scene.cache).run(), 4);
    let alone = verify(&scene.store, &scene.top, scene.url()).arg("--no-upstream").run().expect(1).json();
    assert_eq!(problems(&alone), set(&[("missing", "base"), ("missing", "left"), ("unsigned", "right")]));

    // Upstreams are held to the same.
    let theirs = Damaged::new(&upstream, scene.store.dir_text(), &scene.key);
    flip_a_bit(&theirs.nar(&scene.path("base")));
    let report = run().expect(1).json();
    assert_eq!(problems(&report), set(&[("nar-damaged", "base")]), "{report:#}");
    assert_eq!(report["problems"][0]["cache"], server.url);
    theirs.unsign(&scene.path("base"));
    let report = run().expect(1).json();
    assert_eq!(problems(&report), set(&[("missing", "base")]), "{report:#}");
    // One that does not answer leaves open what only it could have.
    server.rule(Rule::all(Answer::status(500)));
    let report = run().expect(4).json();
    assert_eq!(report["verified"], Value::Null);
    assert_eq!(problems(&report).len(), 2, "{report:#}");
    fs::remove_file(upstream.join("nix-cache-info")).unwrap();
    server.heal();
    let outcome = run().expect(1);
    assert!(outcome.json()["warnings"][0].as_str().unwrap().contains("serves nothing"), "{outcome}");
}

#[test]
fn what_cannot_be_asked_is_neither_yes_nor_no() {
    let scene = pushed(false);
    let server = Server::new(&scene.cache);
    let run = |deep: bool| {
        let run = verify(&scene.store, &scene.top, &server.url).args(["--timeout", "2"]);
        if deep { run.arg("--deep").run() } else { run.run() }
    };
    let cases: [(Rule, &str); 7] = [
        (Rule::all(Answer::status(500)), "unreachable"),
        (Rule::all(Answer::status(403)), "denied"),
        (Rule::on("GET", Kind::Narinfo, Answer::status(503)), "unreachable"),
        (Rule::on("GET", Kind::Narinfo, Answer::status(401)), "denied"),
        (Rule::on("GET", Kind::Narinfo, Answer::Hang), "unreachable"),
        (Rule::all(Answer::status(407)).path("/nar/"), "denied"),
        (Rule::all(Answer::status(500)).path("/nar/"), "unreachable"),
    ];
    for (rule, problem) in cases {
        eprintln!("--- {rule:?}");
        server.heal();
        server.rule(rule);
        for deep in [false, true] {
            let outcome = run(deep).expect(4).complains(&["is not known"]);
            let report = outcome.json();
            assert_eq!(report["verified"], Value::Null);
            assert!(problems(&report).iter().all(|(found, _)| found == problem), "{report:#}");
            assert_eq!(report["totals"]["problems"], 0, "{report:#}");
        }
    }
    // Where something is known to be wrong, the answer is no, whatever else is not known.
    server.heal();
    server.rule(Rule::on("GET", Kind::Narinfo, Answer::status(404)).path(&base(&scene.path("left"))[..32]));
    server.rule(Rule::on("GET", Kind::Narinfo, Answer::status(401)).path(&base(&scene.path("right"))[..32]));
    let report = run(false).expect(1).json();
    assert_eq!(problems(&report), set(&[("missing", "left"), ("denied", "right")]));
    // A bucket says 403 for what is not there.
    server.heal();
    server.rule(Rule::on("GET", Kind::Narinfo, Answer::status(403)).path(&base(&scene.path("left"))[..32]));
    let report = run(false).expect(1).json();
    assert_eq!(problems(&report), set(&[("missing", "left")]));
    assert!(report["warnings"][0].as_str().unwrap().contains("403"), "{report:#}");
    // Some servers know no HEAD.
    server.heal();
    server.rule(Rule::method("HEAD", Answer::status(405)));
    run(false).expect(0);
    drop(server);
    let dead = verify(&scene.store, &scene.top, "http://127.0.0.1:1").run().expect(4).json();
    assert_eq!(problems(&dead), set(&[("unreachable", "")]));
}

#[test]
fn what_is_no_cache_for_this_store_is_said_at_once() {
    let scene = pushed(false);
    let (store, top) = (&scene.store, &scene.top);
    let found = |cache: &Path| problems(&verify(store, top, cache).run().expect(1).json());
    assert_eq!(found(Path::new("./nowhere")), set(&[("not-a-cache", "")]));
    let server = Server::new(&store.scratch.dir("empty"));
    assert_eq!(found(Path::new(&server.url)), set(&[("not-a-cache", "")]));
    fs::write(scene.cache.join("nix-cache-info"), "StoreDir: /gnu/store\n").unwrap();
    assert_eq!(found(&scene.cache), set(&[("other-store", "")]));
    // Nix takes a directory without the file.
    fs::remove_file(scene.cache.join("nix-cache-info")).unwrap();
    verify(store, top, &scene.cache).run().expect(0);
}

/// How many damaged caches Nix is asked about.
const ROUNDS: usize = 12;

/// How many in a full run.
const ALL_ROUNDS: usize = 150;

#[test]
fn what_is_verified_is_what_nix_can_fetch() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::diamond(), "top");
        scene.push_to(scene.url()).run().expect(0);
        let names = ["base", "left", "right", "top"];
        let mut dice = Dice::part(u64::from(nix.version.1));
        for round in 0..if full_run() { ALL_ROUNDS } else { ROUNDS } {
            let copy = scene.store.scratch.join(format!("round{round}"));
            copy_tree(&scene.cache, &copy);
            let cache = Damaged::new(&copy, scene.store.dir_text(), &scene.key);
            let mut done = Vec::new();
            for _ in 0..dice.within(0..3) {
                let path = scene.path(names[dice.within(0..4)]);
                let kind = dice.within(0..9);
                // What was taken away cannot be damaged any more.
                if !cache.narinfo(&path).exists() || !cache.nar(&path).exists() {
                    continue;
                }
                match kind {
                    0 => cache.remove(&path),
                    1 => cache.unsign(&path),
                    2 => cache.sign_falsely(&path, false),
                    3 => cache.sign_falsely(&path, true),
                    4 => cache.spoil_nar(&path, true),
                    5 => cache.spoil_nar(&path, false),
                    6 => flip_a_bit(&cache.nar(&path)),
                    7 => cache.tell(&path, "NarSize", "77"),
                    _ => cache.cut_reference(&path, &mut dice),
                }
                done.push((kind, path));
            }
            let url = format!("file://{}", copy.display());
            scene.store.throw_away();
            let outcome = verify(&scene.store, &scene.top, &url).arg("--deep").run();
            let fetched = scene.store.try_fetch(&url, Some(&scene.key), &[&scene.top]);
            let words = String::from_utf8_lossy(&fetched.stderr);
            assert_eq!(outcome.status.success(), fetched.status.success(), "{done:?}\n{outcome}\n{words}");
        }
    });
}

#[test]
fn whoever_does_not_want_to_wait_need_not() {
    let scene = pushed(false);
    let server = Server::new(&scene.cache);
    server.rule(Rule::on("GET", Kind::Nar, Answer::HangMidBody));
    let running = verify(&scene.store, &scene.top, &server.url).arg("--deep").spawn();
    server.wait_until(|log| log.iter().any(|exchange| exchange.kind() == Kind::Nar));
    running.signal(rustix::process::Signal::INT);
    let outcome = running.wait().expect(130);
    assert!(outcome.elapsed < Duration::from_secs(10), "{outcome}");
}

#[test]
fn wrong_usage_is_told_with_what_to_do() {
    let store = Store::new(a_nix());
    let run = |words: &[&str]| Run::new(&store).arg("verify").args(words.to_vec()).run();
    let path = format!("{}/{}-x", store.dir_text(), "a".repeat(32));
    run(&[&path]).expect(2).says(&["--cache"]);
    run(&[&path, "--cache", "somewhere"]).expect(2).complains(&["is no cache", "./somewhere"]);
    run(&[&path, "--cache", "https://me:sesame@host"]).expect(2).complains(&["user name or password"]);
    run(&[&path, "--cache", "./c", "--upstream", "s3://b"]).expect(2).complains(&["not supported"]);
    run(&[&path, "--cache", "./c", "--upstream", "./d", "--no-upstream"])
        .expect(2)
        .says(&["cannot be used with"]);
    run(&["", "--cache", "./c"]).expect(2).complains(&["it is empty"]);
    run(&[&format!("{path}^dev"), "--cache", "./c"]).expect(2).complains(&["only a derivation has outputs"]);
    run(&[&format!("{path}.drv"), "--cache", "./c"]).expect(3).complains(&[".drv"]);
    Run::new(&store).args(["verify", "-", "--cache", "./c"]).run().expect(2).complains(&["standard input"]);
    let help = run(&["--help"]).expect(0);
    help.says(&["--deep", "--no-upstream", "Examples:", "inconclusive", "130"]);
}

#[test]
fn circles_and_thousands_of_paths_far_away_come_to_an_end() {
    let store = Store::new(a_nix());
    let cache = store.scratch.dir("cache");
    fs::write(cache.join("nix-cache-info"), format!("StoreDir: {}\n", store.dir_text())).unwrap();
    let count = 2000;
    let name = |number: usize| format!("{number:0>32}-p{number}");
    let nar = cache.join("nar");
    fs::create_dir(&nar).unwrap();
    for number in 0..count {
        // To the next few, to the first, and at the end in a circle.
        let references: Vec<String> =
            (1..40).map(|step| name((number * 7 + step) % count)).chain([name(0)]).collect();
        let hash = format!("{number:0>52}");
        fs::write(nar.join(format!("{hash}.nar")), "x").unwrap();
        let text = format!(
            "StorePath: {}/{}\nURL: nar/{hash}.nar\nCompression: none\nFileHash: sha256:{hash}\nFileSize: 1\n\
             NarHash: sha256:{hash}\nNarSize: 1\nReferences: {}\n",
            store.dir_text(),
            name(number),
            references.join(" ")
        );
        fs::write(cache.join(format!("{}.narinfo", &name(number)[..32])), text).unwrap();
    }
    let nginx = Nginx::new(&cache, "");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = nginx.url.trim_start_matches("http://").parse().unwrap();
    drop(runtime.spawn(delay::serve(listener, to, Duration::from_millis(20))));
    let top = format!("{}/{}", store.dir_text(), name(0));
    let began = Instant::now();
    let run = verify(&store, &top, url).args(["--option", "require-sigs", "false"]);
    is_verified(run.run(), count as u64);
    // One by one it would take 80 seconds.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn whoever_owns_nothing_here_can_verify() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::diamond(), "top");
        scene.push_to(scene.url()).run().expect(0);
        let run = || verify(&scene.store, &scene.top, scene.url()).arg("--deep").unprivileged(&scene.store);
        is_verified(run().run(), 4);
        let cache = Damaged::new(&scene.cache, scene.store.dir_text(), &scene.key);
        let hidden: PathBuf = cache.narinfo(&scene.path("left"));
        fs::set_permissions(&hidden, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        let report = run().run().expect(4).json();
        assert_eq!(problems(&report), set(&[("denied", "left")]), "{report:#}");
    });
}
