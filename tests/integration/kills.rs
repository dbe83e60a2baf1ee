//! The program can be killed at any moment: the cache stays closed, and the next run does only what is left.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::faults::{Answer, Hook, Kind, Rule};
use crate::support::nginx::Nginx;
use crate::support::nix::{Store, a_nix, with_every_nix};
use crate::support::outcome::{Outcome, count};
use crate::support::program::{Handle, PROGRAM, Run, Running};
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::scratch::files_below;
use crate::support::server::{Server, order_violations};
use crate::support::watch::Watch;
use crate::support::{Dice, full_run};

/// How many points of its life the program is killed at.
fn points() -> usize {
    if full_run() { 50 } else { 6 }
}

/// Eight paths of 200 kB, each on the one before, so that there is always an order to break.
fn scene() -> Scene {
    Scene::signed(a_nix(), &project::chain(8, 200_000), "p7")
}

/// What must hold after a kill, and after the run that follows it. Gives the number of paths that the kill left to do.
#[track_caller]
fn recovers(scene: &Scene, target: &str) -> usize {
    let left = scene.is_closed();
    assert!(left.paths().is_subset(&scene.names()));
    let target = scene.push_to(target).run().expect(0).target();
    let there = left.entries.len() as u64;
    assert_eq!((count(&target, "present"), count(&target, "pushed")), (there, 8 - there));
    assert_eq!(target["verified"], true);
    let after = scene.is_complete();
    for (path, entry) in &left.entries {
        assert_eq!(after.entries[path].text, entry.text, "it was there, and was written again");
    }
    assert_eq!(after.unused_nars, Vec::<String>::new(), "a NAR was uploaded twice under two names");
    // A leftover of the killed run may still be there, but under no name that a reader asks for.
    for file in &after.strange {
        assert!(!file.ends_with(".narinfo") && !file.contains(".nar"), "left behind: {file}");
    }
    8 - left.entries.len()
}

/// Kills the program at moments spread over the changes that it makes to a directory, which it writes by way of `open`.
fn killed_by_changes<T>(points: usize, open: impl Fn(&Scene) -> (String, T)) {
    let mut scene = scene();
    let mut dice = Dice::new();
    let mut watch = Watch::new(&scene.cache);
    let (url, server) = open(&scene);
    scene.push_to(url).run().expect(0);
    drop(server);
    watch.catch_up();
    let changes = watch.changes.len();
    assert!(changes >= 8 * 2, "{:#?}", watch.changes);

    let mut left = Vec::new();
    for point in 0..points {
        scene.cache = scene.store.scratch.join(format!("killed-{point}"));
        let mut watch = Watch::new(&scene.cache);
        let (url, server) = open(&scene);
        let running = scene.push_to(url).spawn();
        let moment = dice.within(point * changes / points..(point + 1) * changes / points);
        watch.wait_for(moment, || running.has_ended());
        let pause = Duration::from_micros(dice.within(0..1500) as u64);
        let struck = Instant::now();
        while struck.elapsed() < pause {
            std::hint::spin_loop();
        }
        running.signal(Signal::KILL);
        let outcome = running.wait();
        drop(server);
        assert_eq!(
            watch.violations(),
            Vec::<String>::new(),
            "killed at change {moment} of {changes}: {outcome}"
        );
        let (url, _server) = open(&scene);
        left.push(recovers(&scene, &url));
    }
    eprintln!("left to do after each kill: {left:?}");
    assert!(left.iter().collect::<BTreeSet<_>>().len() > 2, "all kills fell at one moment: {left:?}");
}

#[test]
fn killed_anywhere_while_it_writes_to_a_directory_it_leaves_a_closed_cache() {
    killed_by_changes(points(), |scene| (scene.url(), ()));
}

#[test]
fn killed_anywhere_while_it_writes_to_nginx_it_leaves_a_closed_cache() {
    killed_by_changes(points(), |scene| {
        let nginx = Nginx::new(&scene.cache, "");
        (nginx.url.clone(), nginx)
    });
}

/// A hook that kills a program which is started after the hook is made.
fn killer() -> (Arc<OnceLock<Handle>>, Hook) {
    let handle = Arc::new(OnceLock::<Handle>::new());
    let held = Arc::clone(&handle);
    (handle, Arc::new(move |_| held.wait().signal(Signal::KILL)))
}

fn run_with(handle: &OnceLock<Handle>, running: Running) -> Outcome {
    handle.set(running.handle()).unwrap();
    running.wait()
}

#[test]
fn killed_at_any_request_it_leaves_a_closed_cache() {
    let mut scene = scene();
    let mut dice = Dice::new();
    let server = Server::new(&scene.cache);
    scene.push_to(&server.url).run().expect(0);
    let requests = server.log().len();
    assert!(requests >= 8 * 3, "{requests}");

    let mut left = Vec::new();
    for point in 0..points() {
        scene.cache = scene.store.scratch.join(format!("killed-{point}"));
        let server = Server::new(&scene.cache);
        let (handle, hook) = killer();
        let moment = dice.within(point * requests / points()..(point + 1) * requests / points());
        let answer = match dice.within(0..3) {
            0 => Answer::Before(hook),
            1 => Answer::During(dice.within(1..200_000), hook),
            _ => Answer::After(hook),
        };
        let how = format!("killed {answer:?} request {moment} of {requests}");
        server.rule(Rule::all(answer).nth(moment + 1));
        let outcome = run_with(&handle, scene.push_to(&server.url).spawn());
        // The number of requests need not be the same each time, so the last points may come too late.
        eprintln!("{how}: {}", outcome.status);
        assert_eq!(order_violations(&server), Vec::<String>::new(), "{how}");
        drop(server);
        let stored: BTreeSet<String> = files_below(&scene.cache.join("nar")).into_iter().collect();

        let again = Server::new(&scene.cache);
        left.push(recovers(&scene, &again.url));
        let resent = |file: &String| {
            again.count(|exchange| exchange.puts(Kind::Nar) && exchange.path.ends_with(file.as_str())) > 0
        };
        let resent: Vec<&String> = stored.iter().filter(|file| resent(file)).collect();
        assert!(resent.is_empty(), "{how}: NARs that were there are sent again: {resent:?}");
    }
    eprintln!("left to do after each kill: {left:?}");
    assert!(left.iter().collect::<BTreeSet<_>>().len() > 2, "all kills fell at one moment: {left:?}");
}

#[test]
fn killed_in_the_middle_of_an_upload_it_leaves_nothing_of_it() {
    let scene = scene();
    let server = Server::new(&scene.cache);
    let (handle, hook) = killer();
    server.rule(Rule::on("PUT", Kind::Nar, Answer::During(100_000, hook)).nth(3));
    run_with(&handle, scene.push_to(&server.url).spawn()).expect_killed();
    drop(server);
    assert!(scene.is_closed().entries.len() < 8);
    let again = Server::new(&scene.cache);
    recovers(&scene, &again.url);
}

#[test]
fn what_a_killed_run_was_packing_is_removed_by_the_next() {
    let scene = Scene::signed(a_nix(), &project::big(40_000_000), "big");
    let half_packed = || {
        let files = files_below(&scene.cache.join(".cache-helper"));
        files.iter().any(|file| file.contains("nar-"))
    };
    let limits = ["--memory", "16MiB", "--compression", "xz", "--level", "0"];
    let running = scene.push_to(scene.url()).args(limits).spawn();
    while !half_packed() {
        assert!(!running.has_ended(), "it was too fast to be killed");
        std::thread::yield_now();
    }
    running.signal(Signal::KILL);
    running.wait().expect_killed();
    assert!(half_packed(), "nothing is left behind");
    scene.push_to(scene.url()).run().expect(0);
    assert_eq!(scene.is_complete().strange, Vec::<String>::new());
}

#[test]
fn interrupted_it_says_what_was_done_and_leaves_a_closed_cache() {
    for signal in [Signal::INT, Signal::TERM] {
        // One is packed and another waits, so that most are still to be begun when the signal comes.
        let scene = Scene::signed(a_nix(), &project::chain(8, 1_000_000), "p7");
        let server = Server::new(&scene.cache);
        let handle = Arc::new(OnceLock::<Handle>::new());
        let held = Arc::clone(&handle);
        let interrupt: Hook = Arc::new(move |_| held.wait().signal(signal));
        server.rule(Rule::on("PUT", Kind::Nar, Answer::Before(interrupt)).nth(3));
        let push = scene.push_to(&server.url).args(["--jobs", "1", "--memory", "10MiB"]);
        let outcome = run_with(&handle, push.spawn()).expect(130);
        let pushed = scene.is_closed().entries.len();
        assert!((1..8).contains(&pushed), "{pushed} paths\n{outcome}");
        assert_eq!(count(&outcome.target(), "pushed"), pushed as u64);
        assert_eq!(order_violations(&server), Vec::<String>::new());
        drop(outcome.says(&["interrupted"]));
        drop(server);
        let again = Server::new(&scene.cache);
        recovers(&scene, &again.url);
    }
}

/// Interrupts a push at its first upload of a NAR, and says how long it took to end.
fn interrupted(scene: &Scene, rule: impl FnOnce(Hook) -> Rule, args: &[&str]) -> (Duration, Outcome) {
    let server = Server::new(&scene.cache);
    let handle = Arc::new(OnceLock::<Handle>::new());
    let struck = Arc::new(OnceLock::new());
    let (held, when) = (Arc::clone(&handle), Arc::clone(&struck));
    let interrupt: Hook = Arc::new(move |_| {
        // Once: a second signal would end it at once.
        if when.set(Instant::now()).is_ok() {
            held.wait().signal(Signal::INT);
        }
    });
    server.rule(rule(interrupt));
    let push = scene.push_to(&server.url).args(args.iter().copied());
    let outcome = run_with(&handle, push.spawn()).expect(130);
    let target = outcome.target();
    let left = count(&target, "unfinished") + count(&target, "pushed");
    assert_eq!(left, scene.closure.len() as u64, "nothing has failed: {target:#}");
    assert_eq!(order_violations(&server), Vec::<String>::new());
    scene.is_closed();
    (struck.get().unwrap().elapsed(), outcome)
}

#[test]
fn interrupted_it_does_not_wait_until_it_may_try_again() {
    let scene = scene();
    let busy = |hook: Hook| {
        let later = Answer::status(503).header("retry-after", "50");
        Rule::on("PUT", Kind::Nar, Answer::Then(hook, Box::new(later)))
    };
    let (elapsed, outcome) = interrupted(&scene, busy, &[]);
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}\n{outcome}");
}

#[test]
fn interrupted_it_abandons_what_it_is_packing() {
    let scene = Scene::signed(a_nix(), &project::big(30_000_000), "big");
    // At this level it takes minutes.
    let hard = ["--compression", "xz", "--level", "9", "--memory", "2GiB", "--jobs", "2"];
    let (elapsed, outcome) =
        interrupted(&scene, |hook| Rule::on("PUT", Kind::Nar, Answer::Before(hook)), &hard);
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}\n{outcome}");
    assert_eq!(count(&outcome.target(), "unfinished"), 1, "{outcome}");
}

#[test]
fn interrupted_it_waits_ten_seconds_for_a_server_that_hangs() {
    let scene = scene();
    let hang = |hook: Hook| Rule::on("PUT", Kind::Nar, Answer::Then(hook, Box::new(Answer::Hang)));
    let (elapsed, outcome) = interrupted(&scene, hang, &[]);
    assert!((Duration::from_secs(9)..Duration::from_secs(20)).contains(&elapsed), "{elapsed:?}\n{outcome}");
}

#[test]
fn interrupted_it_does_not_wait_for_the_rest_of_its_input() {
    let scene = Scene::diamond();
    let pipe = scene.store.scratch.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for both, so that nobody waits for the other side and the end never comes.
    let writer = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let line = format!("exec {PROGRAM} push-closure - --to {} < {}", scene.url(), pipe.display());
    let run = Run::of("/bin/sh").args(["-c", &line]).envs(scene.store.env()).cwd(scene.store.scratch.path());
    let running = run.limit(Duration::from_secs(20)).spawn();
    while !running.handles(Signal::INT) && !running.has_ended() {
        std::thread::yield_now();
    }
    running.signal(Signal::INT);
    drop(running.wait().expect(130).says(&["interrupted"]));
    drop(writer);
}

#[test]
fn interrupted_twice_it_quits_at_once() {
    let scene = scene();
    let server = Server::new(&scene.cache);
    server.rule(Rule::on("PUT", Kind::Nar, Answer::Hang));
    let running = scene.push_to(&server.url).spawn();
    server.wait_until(|log| log.iter().any(|exchange| exchange.puts(Kind::Nar)));
    let started = Instant::now();
    running.signal(Signal::INT);
    // The second must not arrive together with the first, which would make them one.
    while started.elapsed() < Duration::from_millis(300) && !running.has_ended() {
        std::thread::sleep(Duration::from_millis(10));
    }
    running.signal(Signal::INT);
    running.wait().expect(130);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn interrupted_while_nix_builds_it_leaves_nothing_running() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let file = store.scratch.join("builder");
        // The builder waits for a child of its own, as make does for a compiler.
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let expression = format!(
            "derivation {{ name = \"slow\"; system = \"{}-linux\"; builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\"; \
             args = [ \"-c\" \"{script}\" ]; }}",
            std::env::consts::ARCH
        );
        let push = Run::push(&store).args(["--impure", "--build", "--expr", &expression, "--to", "./cache"]);
        let running = push.spawn();
        while !file.exists() && !running.has_ended() {
            std::thread::sleep(Duration::from_millis(10));
        }
        running.signal(Signal::TERM);
        let outcome = running.wait().expect(130);
        // Nothing is being sent that could get anywhere.
        assert!(!outcome.stderr().contains("sent"), "{outcome}");
        let child = std::fs::read_to_string(&file).unwrap();
        let is_running = || std::fs::read_to_string(format!("/proc/{}/comm", child.trim())).is_ok();
        // Nix kills it before it ends itself, and somebody must still wait for it.
        let ended = Instant::now();
        while is_running() {
            assert!(ended.elapsed() < Duration::from_secs(5), "the builder's child lives on\n{outcome}");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}
