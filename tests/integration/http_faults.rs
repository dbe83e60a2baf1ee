//! HTTP servers that refuse, fail, hang, lie or talk too much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nginx::Nginx;
use crate::support::nix::{a_nix, base};
use crate::support::outcome::{Outcome, count, names};
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::{Server, order_violations};

/// A push that must end within this time whatever the server does.
fn push_against(scene: &Scene, server: &Server, args: &[&str]) -> Outcome {
    let push = scene.push_to(&server.url).args(args.iter().copied());
    push.limit(Duration::from_secs(30)).run()
}

#[test]
fn a_server_that_refuses_is_named_with_its_own_words() {
    for status in [401, 403, 405] {
        let scene = Scene::signed(a_nix(), &project::wide(24, 10), "top");
        let server = Server::new(&scene.cache);
        let words = format!("no entry for you, number {status}");
        server.rule(Rule::method("PUT", Answer::status(status).with_body(words.clone())));
        let outcome = push_against(&scene, &server, &[]).expect(3);
        outcome.complains(&[&status.to_string(), &words, &server.url]);
        // For humans: once, and with what to do about it.
        let outcome = scene.push().to(&server.url).run().expect(3);
        assert_eq!(outcome.output().matches(&words).count(), 1, "{outcome}");
        let hint = if status == 405 { "dav_methods" } else { "netrc" };
        let outcome = outcome.complains(&[hint]);
        assert!(!outcome.output().contains("failed"), "it is the target's failure, not a path's\n{outcome}");
        let asked = server.count(|exchange| exchange.method == "PUT");
        assert!(asked < 2 * 24, "a refusal is found out once, not per path: {asked} requests");
        assert_eq!(scene.is_closed().entries.len(), 0);
    }
}

#[test]
fn a_server_that_cannot_be_read_is_not_written_either() {
    for (status, code) in [(401, 3), (403, 3), (500, 3)] {
        let scene = Scene::signed(a_nix(), &project::wide(24, 10), "top");
        let server = Server::new(&scene.cache);
        server.rule(Rule::all(Answer::status(status)));
        let outcome = push_against(&scene, &server, &[]).expect(code);
        outcome.complains(&[&status.to_string(), &server.url]);
        assert_eq!(server.count(|exchange| exchange.method == "PUT"), 0, "{status}");
    }
}

#[test]
fn a_server_without_such_a_place_is_named() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    server.rule(Rule::method("PUT", Answer::status(404)));
    let outcome = push_against(&scene, &server, &[]);
    assert!(matches!(outcome.status.code(), Some(1 | 3)), "{outcome}");
    outcome.complains(&["404", &server.url]);
    assert_eq!(scene.is_closed().entries.len(), 0);
}

#[test]
fn a_nar_that_is_too_large_for_the_server_stops_only_what_refers_to_it() {
    let scene = Scene::diamond();
    // The order of PUTs is not known beforehand: the NAR that is refused is found from the report.
    let server = Server::new(&scene.cache);
    server.rule(Rule::on("PUT", Kind::Nar, Answer::status(413).with_body("Request Entity Too Large")).nth(2));
    let outcome = push_against(&scene, &server, &[]).expect(1);
    let target = outcome.target();
    let failed = names(&target, "failed");
    assert_eq!(failed.len(), 1, "{target:#}");
    assert!(target["failed"][0]["error"].as_str().unwrap().contains("413"), "{target:#}");
    let full = scene.closure.iter().find(|path| failed.contains(base(path))).unwrap();
    let mut blocked = crate::support::nix::bases(&scene.store.referrers_closure(full));
    blocked.remove(base(full));
    assert_eq!(names(&target, "blocked"), blocked);
    let left = &(&scene.names() - &failed) - &blocked;
    assert_eq!(scene.is_closed().paths(), left);
}

#[test]
fn nginx_that_takes_no_put_or_no_large_body_is_understood() {
    let scene = Scene::signed(a_nix(), &project::big(2_000_000), "big");
    let nginx = Nginx::new(&scene.cache, "client_max_body_size 1m;");
    let outcome = scene.push_to(&nginx.url).run().expect(1);
    let target = outcome.target();
    assert_eq!(names(&target, "failed"), scene.names_of(["big"]));
    assert!(target["failed"][0]["error"].as_str().unwrap().contains("413"), "{target:#}");
    drop(outcome.complains(&["client_max_body_size"]));
    assert_eq!(scene.is_closed().paths(), scene.names_of(["base"]));

    let other = Scene::diamond();
    let readonly = Nginx::new(&other.cache, "dav_methods off;");
    other.push().to(&readonly.url).run().expect(3).complains(&["405", &readonly.url]);
}

#[test]
fn a_server_that_always_fails_is_given_up() {
    for status in [500, 502, 503] {
        let scene = Scene::diamond();
        let server = Server::new(&scene.cache);
        server.rule(Rule::method("PUT", Answer::status(status).with_body("we are <b>sorry</b>")));
        let outcome = push_against(&scene, &server, &[]);
        assert!(matches!(outcome.status.code(), Some(1 | 3)), "{outcome}");
        assert_eq!(count(&outcome.target(), "unfinished"), 4, "{outcome}");
        let outcome = outcome.says(&[&status.to_string()]);
        assert!(server.count(|exchange| exchange.method == "PUT") > 1, "it is tried again\n{outcome}");
        assert_eq!(scene.is_closed().entries.len(), 0);
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    let url = server.url.clone();
    drop(server);
    let outcome = scene.push().to(&url).limit(Duration::from_secs(30)).run().expect(3);
    outcome.complains(&[&url]);
    let outcome =
        scene.push().to("http://nowhere.invalid/cache").limit(Duration::from_secs(30)).run().expect(3);
    outcome.complains(&["nowhere.invalid"]);
}

#[test]
fn a_server_that_hangs_is_given_up_after_the_timeout() {
    let hangs = [
        Rule::all(Answer::Hang),
        Rule::on("GET", Kind::Narinfo, Answer::Hang),
        Rule::on("GET", Kind::Narinfo, Answer::HangMidBody),
        Rule::on("GET", Kind::Info, Answer::Drip),
        Rule::on("GET", Kind::Narinfo, Answer::Drip),
        Rule::on("PUT", Kind::Nar, Answer::Hang),
        Rule::on("PUT", Kind::Narinfo, Answer::Hang),
    ];
    for rule in hangs {
        let scene = Scene::diamond();
        let server = Server::new(&scene.cache);
        let what = format!("{rule:?}");
        server.rule(rule);
        let started = Instant::now();
        let outcome = push_against(&scene, &server, &["--timeout", "1"]);
        assert!(matches!(outcome.status.code(), Some(1 | 3)), "{what}: {outcome}");
        let stderr = outcome.stderr();
        assert!(stderr.contains("error:") || stderr.contains("failed:"), "{what}: {outcome}");
        assert!(
            stderr.contains("no progress for 1 s") || stderr.contains("did not end within 4 s"),
            "{what}: {outcome}"
        );
        assert!(started.elapsed() > Duration::from_secs(1), "{what}");
        scene.is_closed();
    }
}

#[test]
fn a_slow_server_that_makes_progress_is_waited_for() {
    // Each answer takes less than the timeout, all together take longer.
    let scene = Scene::signed(a_nix(), &project::chain(4, 10), "p3");
    let server = Server::new(&scene.cache);
    server.rule(Rule::method("PUT", Answer::Slow(Duration::from_millis(600))));
    push_against(&scene, &server, &["--timeout", "1"]).expect(0);
    scene.is_complete();
}

#[test]
fn what_fails_once_is_tried_again() {
    type Fault = fn() -> Rule;
    let faults: [(&str, Fault); 12] = [
        ("503 to a NAR", || Rule::on("PUT", Kind::Nar, Answer::status(503))),
        ("500 to a narinfo", || Rule::on("PUT", Kind::Narinfo, Answer::status(500))),
        ("502 to the cache information", || Rule::on("PUT", Kind::Info, Answer::status(502))),
        ("503 when asked for a narinfo", || Rule::on("GET", Kind::Narinfo, Answer::status(503))),
        ("408 to a NAR", || Rule::on("PUT", Kind::Nar, Answer::status(408))),
        ("a reset early in a NAR", || Rule::on("PUT", Kind::Nar, Answer::CutRequest(1))),
        ("a reset late in a NAR", || Rule::on("PUT", Kind::Nar, Answer::CutRequest(150_000))),
        ("a reset in a narinfo", || Rule::on("PUT", Kind::Narinfo, Answer::CutRequest(1))),
        ("a reset when asked for a narinfo", || Rule::on("GET", Kind::Narinfo, Answer::CutRequest(0))),
        ("done, but 500 to a NAR", || Rule::on("PUT", Kind::Nar, Answer::DoneBut(500))),
        ("done, but 503 to a narinfo", || Rule::on("PUT", Kind::Narinfo, Answer::DoneBut(503))),
        ("500 when asked what it is", || Rule::on("GET", Kind::Info, Answer::status(500))),
    ];
    let mut scene = Scene::signed(a_nix(), &project::chain(3, 200_000), "p2");
    for (n, (what, rule)) in faults.into_iter().enumerate() {
        scene.cache = scene.store.scratch.join(format!("cache{n}"));
        let server = Server::new(&scene.cache);
        server.rule(rule().nth(1));
        let outcome = push_against(&scene, &server, &[]);
        assert_eq!(outcome.status.code(), Some(0), "{what}: {outcome}");
        scene.is_complete();
        assert_eq!(order_violations(&server), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn a_narinfo_that_is_cut_short_on_the_way_is_asked_for_again() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let server = Server::new(&scene.cache);
    server.rule(Rule::on("GET", Kind::Narinfo, Answer::CutResponse(40)).first(2));
    let target = push_against(&scene, &server, &[]).expect(0).target();
    assert_eq!((count(&target, "present"), count(&target, "pushed")), (4, 0));
    assert_eq!(server.count(|exchange| exchange.method == "PUT"), 0);
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    for status in [429, 503] {
        let scene = Scene::diamond();
        let server = Server::new(&scene.cache);
        let busy = Answer::status(status).header("retry-after", "2");
        server.rule(Rule::on("PUT", Kind::Nar, busy).nth(1));
        push_against(&scene, &server, &[]).expect(0);
        scene.is_complete();
        let log = server.log();
        let refused = log.iter().find(|exchange| exchange.status == Some(status)).unwrap();
        let again = log.iter().find(|exchange| {
            exchange.path == refused.path && exchange.at > refused.at && exchange.method == "PUT"
        });
        let waited = again.unwrap().at - refused.at;
        assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    }
}

#[test]
fn a_login_page_is_no_narinfo() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    let page = Answer::body("<!doctype html><html><title>Sign in</title></html>")
        .header("content-type", "text/html");
    server.rule(Rule::method("GET", page));
    let outcome = push_against(&scene, &server, &[]);
    // It is no cache, or one whose answers cannot be verified; never a success.
    assert!(matches!(outcome.status.code(), Some(1..=4)), "{outcome}");
    drop(outcome.says(&["error:"]));
}

#[test]
fn a_narinfo_of_another_path_does_not_count_as_present() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let server = Server::new(&scene.cache);
    let hash = |name: &str| crate::support::cache::hash_part(&scene.path(name)).to_owned();
    let other = std::fs::read_to_string(scene.cache.join(format!("{}.narinfo", hash("right")))).unwrap();
    server.rule(Rule::on("GET", Kind::Narinfo, Answer::body(other)).path(&hash("left")));
    let outcome = push_against(&scene, &server, &[]);
    let target = outcome.target();
    assert_eq!(count(&target, "present"), 3, "{outcome}");
    // Written again, it still reads wrong: that cannot be verified.
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert_eq!(target["verified"], false);
}

#[test]
fn an_answer_without_end_is_cut_off() {
    for kind in [Kind::Narinfo, Kind::Info] {
        let scene = Scene::diamond();
        let server = Server::new(&scene.cache);
        server.rule(Rule::on("GET", kind, Answer::Endless));
        let push = scene.push_to(&server.url).args(["--timeout", "2"]).watch_memory();
        let outcome = push.limit(Duration::from_secs(30)).run();
        assert!(matches!(outcome.status.code(), Some(1..=4)), "{outcome}");
        let taken = server.endless_bytes();
        assert!(taken < 100_000_000, "{taken} bytes were taken");
        assert!(outcome.peak_memory < 200_000_000, "{}", outcome.peak_memory);
    }
}

/// Changes the references of a path's narinfo in the cache, to what another build of it might have.
fn refer(scene: &Scene, path: &str, references: &str) {
    let file = scene.cache.join(format!("{}.narinfo", crate::support::cache::hash_part(path)));
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.starts_with("References:")).unwrap();
    let changed = text.replace(line, &format!("References: {references}"));
    let hash = text.lines().find(|line| line.starts_with("NarHash:")).unwrap();
    let changed = changed.replace(hash, &format!("NarHash: sha256:{}", "0".repeat(52)));
    std::fs::write(file, changed).unwrap();
}

#[test]
fn large_narinfos_are_not_kept_in_memory() {
    let scene = Scene::signed(a_nix(), &project::wide(150, 10), "top");
    scene.push_to(scene.url()).run().expect(0);
    // Just below a megabyte each.
    let references: Vec<String> = (0..20_000).map(|n| format!("{n:032}-someone-else")).collect();
    for path in &scene.closure {
        refer(&scene, path, &references.join(" "));
    }
    let outcome = scene.push_to(scene.url()).watch_memory().run().expect(1);
    assert!(outcome.peak_memory < 180_000_000, "{}", outcome.peak_memory);
    drop(outcome.says(&["outside of the closure"]));
}

#[test]
fn a_cache_that_refers_to_new_paths_without_end_is_left_after_some_thousand() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    refer(&scene, &scene.path("base"), &format!("{}-x", "0".repeat(32)));
    let server = Server::new(&scene.cache);
    let (cache, store_dir) = (scene.cache.clone(), scene.store.dir_text());
    let next = std::sync::atomic::AtomicUsize::new(1);
    let answer = move |path: &str| {
        let file = cache.join(path.trim_start_matches('/'));
        let hash = path.trim_start_matches('/').trim_end_matches(".narinfo").to_owned();
        if file.exists() || hash.len() != 32 {
            return;
        }
        let first = next.fetch_add(3, std::sync::atomic::Ordering::SeqCst);
        let references: Vec<String> = (first..first + 3).map(|n| format!("{n:032}-x")).collect();
        let text = format!(
            "StorePath: {store_dir}/{hash}-x\nURL: nar/{hash}.nar\nCompression: none\nFileHash: sha256:{hash:0>52}\n\
             FileSize: 1\nNarHash: sha256:{hash:0>52}\nNarSize: 1\nReferences: {}\n",
            references.join(" ")
        );
        std::fs::write(file, text).unwrap();
    };
    server.rule(Rule::on("GET", Kind::Narinfo, Answer::Before(Arc::new(answer))));
    let outcome = push_against(&scene, &server, &[]).expect(1);
    drop(outcome.says(&["outside of the closure"]));
    assert!(server.log().len() < 20_000);
}

#[test]
fn an_answer_that_unpacks_without_end_is_cut_off() {
    let bomb = std::process::Command::new("sh")
        .args(["-c", "head -c 400000000 /dev/zero | gzip -9"])
        .output()
        .unwrap();
    assert!((1000..1_000_000).contains(&bomb.stdout.len()));
    for kind in [Kind::Narinfo, Kind::Info] {
        let scene = Scene::diamond();
        let server = Server::new(&scene.cache);
        let answer = Answer::body(bomb.stdout.clone()).header("content-encoding", "gzip");
        server.rule(Rule::on("GET", kind, answer));
        let outcome = scene.push_to(&server.url).watch_memory().limit(Duration::from_secs(30)).run();
        assert!(matches!(outcome.status.code(), Some(1..=4)), "{outcome}");
        assert!(outcome.peak_memory < 150_000_000, "{}", outcome.peak_memory);
    }
}

#[test]
fn an_error_page_without_end_is_cut_off() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    let long = "x".repeat(5_000_000);
    server.rule(Rule::method("PUT", Answer::status(403).with_body(long)));
    let outcome = push_against(&scene, &server, &[]).expect(3);
    assert!(outcome.output().len() < 50_000, "{} bytes are printed", outcome.output().len());
}

#[test]
fn control_characters_from_a_server_are_made_visible() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    let nasty = "before\u{1b}[2J\u{1b}]0;title\u{7}\0\r\u{8}\u{9b}31m\u{202e}after\nerror: not ours";
    server.rule(Rule::method("PUT", Answer::status(403).with_body(nasty)));
    for json in [&[][..], &["--json"]] {
        let outcome = scene.push().to(&server.url).args(json.iter().copied()).run().expect(3);
        let outcome = outcome.says(&["before", "after"]);
        let visible = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
        assert!(outcome.output().chars().all(visible), "{:?}", outcome.output());
        assert!(!outcome.stderr().lines().any(|line| line.starts_with("error: not ours")), "{outcome}");
    }
}

#[test]
fn a_put_that_is_redirected_is_followed_or_refused_and_never_taken_for_done() {
    for status in [302, 307, 308] {
        let scene = Scene::diamond();
        let elsewhere = Server::new(&scene.store.scratch.join("elsewhere"));
        let server = Server::new(&scene.cache);
        let redirect = |path: &str| format!("{}{path}", elsewhere.url);
        let answer = Answer::Reply { status, headers: vec![("location", redirect("/x"))], body: Vec::new() };
        server.rule(Rule::method("PUT", answer));
        let outcome = push_against(&scene, &server, &[]);
        assert!(matches!(outcome.status.code(), Some(1 | 3)), "{status}: {outcome}");
        assert_eq!(scene.is_closed().entries.len(), 0);
    }
}

#[test]
fn a_redirect_that_goes_in_circles_ends() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    server.rule(Rule::method("GET", Answer::redirect("/again.narinfo")));
    let outcome = push_against(&scene, &server, &["--timeout", "2"]);
    assert!(matches!(outcome.status.code(), Some(1..=4)), "{outcome}");
}

#[test]
fn reads_that_are_redirected_are_followed() {
    // As a cache in front of another does, or a bucket behind a gate.
    let scene = Scene::diamond();
    let behind = Server::new(&scene.cache);
    let server = Server::new(&scene.cache);
    let target = scene.push_to(&behind.url).run().expect(0).target();
    assert_eq!(count(&target, "pushed"), 4);
    for path in scene.names() {
        let file = format!("/{}.narinfo", &path[..32]);
        let to = format!("{}{file}", behind.url);
        server.rule(Rule::on("GET", Kind::Narinfo, Answer::redirect(to)).path(&file));
    }
    let target = push_against(&scene, &server, &[]).expect(0).target();
    assert_eq!(count(&target, "present"), 4);
}

#[test]
fn a_cache_that_is_deleted_during_the_push_is_not_called_verified() {
    let scene = Arc::new(Scene::diamond());
    let server = Server::new(&scene.cache);
    let hook = Arc::clone(&scene);
    let delete = Answer::After(Arc::new(move |_| {
        let hash = crate::support::cache::hash_part(&hook.path("base")).to_owned();
        std::fs::remove_file(hook.cache.join(format!("{hash}.narinfo"))).unwrap();
    }));
    server.rule(Rule::on("PUT", Kind::Narinfo, delete).nth(4));
    let target = push_against(&scene, &server, &[]).expect(1).target();
    assert_eq!(target["verified"], false);
}
