//! `audit` as its users see it: every reason made for real, the gate, the views, and wrong input.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nix::{Nix, Store, a_nix, base, with_every_nix};
use crate::support::outcome::Outcome;
use crate::support::program::Run;
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::Server;
use crate::support::wild::Damaged;

/// A project that was built, signed and pushed as a whole, and of which a store has the derivations alone.
struct Pushed {
    scene: Scene,
    drv: String,
}

impl Pushed {
    fn new(nix: &Nix, expression: &str, attr: &str) -> Self {
        let scene = Scene::signed(nix, expression, attr);
        scene.push_to(scene.url()).run().expect(0);
        scene.store.throw_away();
        let drv = scene.store.instantiate(expression, attr);
        Self { scene, drv }
    }

    fn diamond() -> Self {
        Self::new(a_nix(), &project::diamond(), "top")
    }

    fn cache(&self) -> Damaged<'_> {
        Damaged::new(&self.scene.cache, self.scene.store.dir_text(), &self.scene.key)
    }

    /// `audit DRV --json --cache CACHE`.
    fn audit_at(&self, url: &str) -> Run {
        audit(&self.scene.store, &self.drv).args(["--cache", url])
    }

    fn audit(&self) -> Run {
        self.audit_at(&self.scene.url())
    }

    /// Makes Nix do it, and gives the names of what it built.
    fn realise(&self, url: &str) -> (bool, BTreeSet<String>) {
        let output = self.scene.store.try_run(
            "nix-store",
            &["--realise", &self.drv, "--option", "substituters", url, "--option", "download-attempts", "1"],
        );
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let built = text.lines().filter_map(|line| line.strip_prefix("building '"));
        (output.status.success(), built.map(|line| name(line.split('\'').next().unwrap())).collect())
    }
}

fn audit(store: &Store, what: &str) -> Run {
    Run::new(store).args(["audit", "--json", what])
}

/// The name of a `.drv` path.
fn name(drv: &str) -> String {
    base(drv).split_once('-').unwrap().1.trim_end_matches(".drv").to_owned()
}

/// What a report says of a derivation.
#[track_caller]
fn of(report: &Value, name: &str) -> Value {
    let all = report["derivations"].as_array().unwrap();
    let found = all.iter().find(|derivation| derivation["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {report:#}")).clone()
}

fn names_where(report: &Value, fits: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let all = report["derivations"].as_array().unwrap().iter().filter(|derivation| fits(derivation));
    all.map(|derivation| derivation["name"].as_str().unwrap().to_owned()).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn a_cache_that_has_everything_hits_everything() {
    with_every_nix(|nix| {
        let pushed = Pushed::new(nix, &project::diamond(), "top");
        let report = pushed.audit().run().expect(0).json();
        assert_eq!(report["totals"]["hitRate"], 1.0);
        assert_eq!(report["totals"]["hits"], 4);
        assert_eq!(names_where(&report, |one| one["nix"] == "fetch"), set(["base", "left", "right", "top"]));
        assert!(
            report["nix"]["version"]
                .as_str()
                .unwrap()
                .starts_with(&format!("{}.{}.", nix.version.0, nix.version.1))
        );
        assert_eq!(report["caches"][0]["status"], "ok");
        assert_eq!(report["targets"][0], format!("{}^out", pushed.drv));
        assert_eq!(report["gate"]["passed"], Value::Null);
        assert_eq!(pushed.realise(&pushed.scene.url()), (true, BTreeSet::new()));
    });
}

#[test]
fn one_changed_input_is_the_root_and_the_rest_is_named() {
    with_every_nix(|nix| {
        let pushed = Pushed::new(nix, &project::diamond(), "top");
        let changed = project::diamond().replace("echo left", "echo something else");
        let drv = pushed.scene.store.instantiate(&changed, "top");
        let run = || Run::new(&pushed.scene.store).args(["audit", &drv, "--cache", &pushed.scene.url()]);
        let report = run().arg("--json").run().expect(0).json();
        let left = of(&report, "left");
        assert_eq!((&left["verdict"], &left["nix"]), (&"miss".into(), &"build".into()));
        assert_eq!((&left["reason"], &left["blocks"]), (&"not-on-any-cache".into(), &1.into()));
        assert_eq!(of(&report, "top")["causedBy"][0], left["drv"]);
        assert_eq!(names_where(&report, |one| one["verdict"] == "hit"), set(["base", "right"]));
        let text = run().run().expect(0);
        drop(text.says(&["hit rate 50.0 %", "1 root, and 1 that follow", "left", "blocks top", "->"]));
    });
}

#[test]
fn what_is_wrong_on_a_cache_is_the_reason_and_nix_builds_it() {
    type Harm = fn(&Damaged<'_>, &str);
    let cases: [(&str, Harm); 7] = [
        ("not-on-any-cache", |cache, path| cache.remove(path)),
        ("unsigned", |cache, path| cache.unsign(path)),
        ("key-not-trusted", |cache, path| cache.sign_falsely(path, false)),
        ("bad-signature", |cache, path| cache.sign_falsely(path, true)),
        ("bad-narinfo", |cache, path| cache.replace(path, "<html>not here</html>")),
        ("nar-missing", |cache, path| cache.spoil_nar(path, true)),
        ("nar-wrong-size", |cache, path| cache.spoil_nar(path, false)),
    ];
    with_every_nix(|nix| {
        for (reason, harm) in cases {
            let pushed = Pushed::new(nix, &project::diamond(), "top");
            harm(&pushed.cache(), &pushed.scene.path("top"));
            let report = pushed.audit().arg("--nars").run().expect(0).json();
            let top = of(&report, "top");
            assert_eq!((&top["verdict"], &top["reason"]), (&"miss".into(), &reason.into()), "{top:#}");
            assert!(!top["fix"].as_str().unwrap().contains(['{', '}']), "{top:#}");
            assert_eq!(report["totals"]["rootMisses"], 1);
            let (succeeded, built) = pushed.realise(&pushed.scene.url());
            if top["nix"] == "fail" {
                assert!(!succeeded);
            } else {
                assert_eq!((&top["nix"], built), (&"build".into(), set(["top"])), "{reason}");
            }
        }
    });
}

#[test]
fn without_nars_a_hit_says_nothing_of_them() {
    let pushed = Pushed::diamond();
    pushed.cache().spoil_nar(&pushed.scene.path("top"), true);
    let report = pushed.audit().run().expect(0).json();
    assert_eq!(of(&report, "top")["verdict"], "hit");
    assert_eq!(report["view"]["narsChecked"], false);
}

#[test]
fn an_incomplete_closure_names_the_shortest_way_to_what_is_missing() {
    with_every_nix(|nix| {
        let pushed = Pushed::new(nix, &project::diamond(), "top");
        pushed.cache().remove(&pushed.scene.path("base"));
        let report = pushed.audit().run().expect(0).json();
        let top = of(&report, "top");
        assert_eq!(top["reason"], "incomplete-closure");
        let chain: Vec<&str> =
            top["evidence"]["chain"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        assert_eq!((chain.len(), chain[0]), (3, base(&pushed.scene.path("top"))));
        assert_eq!(chain[2], base(&pushed.scene.path("base")));
        let root = of(&report, "base");
        assert_eq!((&root["reason"], &root["blocks"]), (&"not-on-any-cache".into(), &3.into()));
        // The version decides what Nix makes of it.
        let above = if nix.version < (2, 30) { "build-then-fetch" } else { "build" };
        assert_eq!(names_where(&report, |one| one["nix"] == above), {
            let mut all = set(["left", "right", "top"]);
            all.extend((above == "build").then(|| "base".to_owned()));
            all
        });
        let (_, built) = pushed.realise(&pushed.scene.url());
        let predicted = names_where(&report, |one| one["nix"] == "build");
        assert_eq!(built, predicted);
    });
}

#[test]
fn some_outputs_without_the_others_are_not_enough() {
    let pushed = Pushed::new(a_nix(), &project::multi(), "user");
    let expression = project::multi();
    // `user` refers to `dev`, which refers to `out`; `doc` was never pushed.
    let multi = pushed.scene.store.instantiate(&expression, "multi");
    let report =
        audit(&pushed.scene.store, &multi).args(["--cache", &pushed.scene.url()]).run().expect(0).json();
    let multi = of(&report, "multi");
    assert_eq!((&multi["verdict"], &multi["reason"]), (&"miss".into(), &"partial-outputs".into()));
    assert_eq!(multi["evidence"]["absent"][0], "doc");
    assert_eq!(multi["evidence"]["present"].as_array().unwrap().len(), 2);
    let drv = multi["drv"].as_str().unwrap();
    let wanted = format!("{drv}^dev,out");
    let report =
        audit(&pushed.scene.store, &wanted).args(["--cache", &pushed.scene.url()]).run().expect(0).json();
    assert_eq!(of(&report, "multi")["verdict"], "hit");
}

#[test]
fn what_is_local_by_design_and_what_is_downloaded_do_not_count() {
    with_every_nix(|nix| {
        let expression = project::diamond()
            .replace(
                "base = d { name = \"base\";",
                "base = d { name = \"base\"; outputHashMode = \"recursive\"; outputHashAlgo = \"sha256\"; \
                 outputHash = \"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\";",
            )
            .replace("left = d { name = \"left\";", "left = d { name = \"left\"; allowSubstitutes = false;");
        let store = Store::new(nix);
        let drv = store.instantiate(&expression, "top");
        let empty = store.scratch.dir("empty");
        fs::write(empty.join("nix-cache-info"), format!("StoreDir: {}\n", store.dir_text())).unwrap();
        let report = audit(&store, &drv).args(["--cache", empty.to_str().unwrap()]).run().expect(0).json();
        assert_eq!(of(&report, "base")["reason"], "fixed-output");
        assert_eq!(of(&report, "left")["reason"], "local-by-design");
        let totals = &report["totals"];
        assert_eq!((&totals["fixedOutput"], &totals["localByDesign"]), (&1.into(), &1.into()));
        assert_eq!((&totals["misses"], &totals["rootMisses"]), (&2.into(), &1.into()));
        assert_eq!(totals["needed"], 4);
    });
}

#[test]
fn what_may_not_be_read_is_a_miss_and_what_nobody_answers_is_inconclusive() {
    let pushed = Pushed::diamond();
    let file = format!("/{}.narinfo", base(&pushed.scene.path("top")).split('-').next().unwrap());
    for (status, verdict, code, reason, answer) in [
        (401, "miss", 1, "auth", "denied"),
        (407, "miss", 1, "auth", "denied"),
        // It lets us read other things, and so means that it has none.
        (403, "miss", 1, "not-on-any-cache", "absent"),
        (500, "inconclusive", 4, "cache-unreachable", "unreachable"),
    ] {
        let server = Server::new(&pushed.scene.cache);
        server.rule(Rule::on("GET", Kind::Narinfo, Answer::status(status)).path(&file));
        let outcome = pushed.audit_at(&server.url).args(["--min-hit-rate", "100"]).run().expect(code);
        let top = of(&outcome.json(), "top");
        assert_eq!(top["verdict"], verdict);
        assert_eq!(top["reason"], reason);
        let said = &top["outputs"][0]["answers"][0];
        assert_eq!((&said["answer"], &said["status"]), (&answer.into(), &status.into()));
        let words = outcome.json()["caches"][0]["words"].to_string();
        assert_eq!(words.contains("403 for 1 path, which counts as absent"), status == 403, "{words}");
        // Three of four are there, whatever the fourth may be.
        pushed.audit_at(&server.url).args(["--min-hit-rate", "75"]).run().expect(0);
    }
}

#[test]
fn a_cache_that_lets_nobody_in_is_a_miss_for_everything() {
    let pushed = Pushed::diamond();
    for status in [401, 403] {
        let server = Server::new(&pushed.scene.cache);
        server.rule(Rule::all(Answer::status(status)));
        let report = pushed.audit_at(&server.url).run().expect(0).json();
        assert_eq!(report["caches"][0]["status"], "denied");
        assert_eq!((&report["totals"]["hits"], &report["totals"]["inconclusive"]), (&0.into(), &0.into()));
        let top = of(&report, "top");
        assert_eq!((&top["reason"], &top["nix"]), (&"auth".into(), &"build".into()));
        assert_eq!(top["outputs"][0]["answers"][0]["status"], status);
        assert!(top["fix"].as_str().unwrap().contains("netrc"), "{top}");
    }
}

#[test]
fn what_only_the_build_of_something_unknown_needs_is_no_certain_miss() {
    let pushed = Pushed::diamond();
    let cache = pushed.cache();
    for name in ["base", "left", "right"] {
        cache.remove(&pushed.scene.path(name));
    }
    let file = format!("/{}.narinfo", base(&pushed.scene.path("top")).split('-').next().unwrap());
    let server = Server::new(&pushed.scene.cache);
    server.rule(Rule::on("GET", Kind::Narinfo, Answer::status(503)).path(&file));
    let outcome = pushed.audit_at(&server.url).args(["--min-hit-rate", "90"]).run().expect(4);
    let totals = outcome.json()["totals"].clone();
    assert_eq!((&totals["misses"], &totals["inconclusive"]), (&0.into(), &4.into()), "{totals:#}");
    assert_eq!(totals["rootMisses"], 0);
}

#[test]
fn a_cache_that_is_down_is_found_out_once_and_is_no_miss() {
    let pushed = Pushed::diamond();
    let dead = {
        let server = Server::new(&pushed.scene.store.scratch.join("dead"));
        server.url.clone()
    };
    let outcome = pushed.audit_at(&dead).run().expect(0);
    let report = outcome.json();
    assert_eq!(
        (&report["caches"][0]["status"], &report["caches"][0]["requests"]),
        (&"unreachable".into(), &1.into())
    );
    assert_eq!(report["totals"]["misses"], 0);
    assert_eq!(of(&report, "top")["reason"], "cache-unreachable");
    assert_eq!(report["totals"]["hitRate"], Value::Null);
    // Beside one that has everything, it does not matter.
    let report = pushed.audit_at(&dead).args(["--cache", &pushed.scene.url()]).run().expect(0).json();
    assert_eq!(report["totals"]["hitRate"], 1.0);
}

#[test]
fn what_is_no_cache_or_one_for_another_store_is_said_and_left_aside() {
    let pushed = Pushed::diamond();
    let nothing = Server::new(&pushed.scene.store.scratch.join("nothing"));
    let other = pushed.scene.store.scratch.dir("other");
    fs::write(other.join("nix-cache-info"), "StoreDir: /gnu/store\n").unwrap();
    let report =
        pushed.audit_at(&nothing.url).args(["--cache", other.to_str().unwrap()]).run().expect(0).json();
    let statuses: Vec<&Value> =
        report["caches"].as_array().unwrap().iter().map(|cache| &cache["status"]).collect();
    assert_eq!(statuses, ["not-a-cache", "other-store"]);
    assert_eq!((&report["totals"]["misses"], &report["totals"]["inconclusive"]), (&4.into(), &0.into()));
    assert_eq!(nothing.count(|exchange| exchange.kind() == Kind::Narinfo), 0, "it was asked all the same");
}

#[test]
fn caches_are_asked_in_the_order_of_their_priorities() {
    let pushed = Pushed::diamond();
    let url = pushed.scene.url();
    let other = pushed.scene.store.scratch.dir("other");
    let info = |priority| format!("StoreDir: {}\nPriority: {priority}\n", pushed.scene.store.dir_text());
    let order = |arguments: &[&str]| -> Vec<String> {
        let report = audit(&pushed.scene.store, &pushed.drv).args(arguments.to_vec()).run().expect(0).json();
        report["caches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cache| cache["url"].as_str().unwrap().to_owned())
            .collect()
    };
    let other_url = format!("file://{}", other.display());
    // The embedded way of writing a cache gives it 30.
    for (priority, first) in [(20, &other_url), (40, &url)] {
        fs::write(other.join("nix-cache-info"), info(priority)).unwrap();
        assert_eq!(&order(&["--cache", &url, "--cache", &other_url])[0], first);
    }
    assert_eq!(order(&["--cache", &url, "--cache", &format!("{other_url}?priority=1")])[0], other_url);
}

#[test]
fn without_a_cache_it_asks_those_that_nix_has() {
    with_every_nix(|nix| {
        let mut pushed = Pushed::new(nix, &project::diamond(), "top");
        let outcome = audit(&pushed.scene.store, &pushed.drv).run().expect(2);
        drop(outcome.complains(&["no substituters", "--cache"]));
        let url = pushed.scene.url();
        let report = audit(&pushed.scene.store, &pushed.drv).args(["--option", "substituters", &url]).run();
        assert_eq!(report.expect(0).json()["totals"]["hits"], 4);
        pushed.scene.store.set("substituters", format!("{url} s3://bucket?region=x"));
        let report = audit(&pushed.scene.store, &pushed.drv).run().expect(0).json();
        let statuses: BTreeSet<&str> = report["caches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cache| cache["status"].as_str().unwrap())
            .collect();
        assert_eq!(statuses, BTreeSet::from(["ok", "unsupported"]));
        assert_eq!(report["totals"]["hits"], 4);
    });
}

#[test]
fn what_is_valid_is_not_needed_unless_the_store_is_taken_for_empty() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let run = |what: &str| audit(&scene.store, what).args(["--cache", &scene.url()]);
    for what in [scene.top.clone(), format!("{}/text", scene.top)] {
        let report = run(&what).run().expect(0).json();
        assert_eq!((&report["totals"]["needed"], &report["totals"]["hitRate"]), (&0.into(), &Value::Null));
        let top = of(&report, "top");
        assert_eq!(
            (&top["valid"], &top["needed"], &top["verdict"]),
            (&true.into(), &false.into(), &"hit".into())
        );
        assert_eq!(top["nix"], Value::Null);
    }
    let report = run(&scene.top).arg("--assume-empty-store").run().expect(0).json();
    assert_eq!((&report["totals"]["needed"], &report["totals"]["hitRate"]), (&4.into(), &1.0.into()));
    let runtime = run(&scene.top).args(["--scope", "runtime"]).run().expect(0).json();
    assert_eq!((&runtime["totals"]["hits"], &runtime["totals"]["needed"]), (&4.into(), &0.into()));
    let text = Run::new(&scene.store).args(["audit", &scene.top, "--cache", &scene.url()]).run().expect(0);
    drop(text.says(&["nothing is needed", "--assume-empty-store"]));
}

#[test]
fn the_whole_build_graph_can_be_asked_for() {
    let pushed = Pushed::new(a_nix(), &project::multi(), "user");
    let report = pushed.audit().args(["--scope", "build"]).run().expect(0).json();
    assert_eq!(report["totals"]["hits"], 3);
    assert_eq!(names_where(&report, |_| true), set(["base", "multi", "user"]));
}

#[test]
fn links_and_expressions_lead_to_their_derivations() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let link = scene.store.scratch.join("result");
    std::os::unix::fs::symlink(&scene.top, &link).unwrap();
    let run = |arguments: &[&str]| {
        let run = Run::new(&scene.store).args(["audit", "--json", "--cache", &scene.url()]);
        run.args(arguments.to_vec()).run().expect(0).json()["targets"][0].as_str().unwrap().to_owned()
    };
    let drv = scene.store.instantiate(&project::diamond(), "top");
    let expected = format!("{drv}^out");
    assert_eq!(run(&["./result"]), expected);
    assert_eq!(run(&[&drv]), expected);
    assert_eq!(run(&["-f", "project", "top"]), expected);
    assert_eq!(run(&["-f", "project", "top^*"]), expected);
}

#[test]
fn wrong_input_gets_one_line_and_what_to_do() {
    let pushed = Pushed::diamond();
    let store = &pushed.scene.store;
    let url = pushed.scene.url();
    let run =
        |arguments: &[&str]| Run::new(store).args(["audit", "--cache", &url]).args(arguments.to_vec()).run();
    let complains = |outcome: Outcome, code: i32, words: &[&str]| drop(outcome.expect(code).complains(words));
    complains(run(&[&format!("{}^nope", pushed.drv)]), 2, &["nope", "out"]);
    complains(run(&["-f", "project", "nothing"]), 3, &["nothing"]);
    let alone = format!("{}/{}-alone", store.dir_text(), "0".repeat(32));
    complains(run(&[&alone]), 3, &["no derivation", &alone]);
    complains(run(&[&format!("{}/{}-gone.drv", store.dir_text(), "0".repeat(32))]), 3, &["gone.drv"]);
    let drv = &pushed.drv;
    run(&[drv, "--min-hit-rate", "many"]).expect(2);
    run(&[drv, "--scope", "some"]).expect(2);
    // A derivation that is cut short in the store.
    let base_drv = store.instantiate(&project::diamond(), "base");
    let text = fs::read(&base_drv).unwrap();
    crate::support::scratch::make_writable(&store.dir());
    fs::remove_file(&base_drv).unwrap();
    fs::write(&base_drv, &text[..text.len() / 2]).unwrap();
    complains(run(&[drv]), 3, &["base.drv", "not a derivation"]);
}

#[test]
fn what_a_cache_says_cannot_write_to_the_terminal() {
    let pushed = Pushed::diamond();
    let hostile = "StorePath: \u{1b}]0;owned\u{7}\u{1b}[2J\n";
    pushed.cache().replace(&pushed.scene.path("top"), hostile);
    let outcome = Run::new(&pushed.scene.store)
        .args(["audit", "-v", &pushed.drv, "--cache", &pushed.scene.url()])
        .run()
        .expect(0);
    // `check_manners` has looked for escape codes; the words are there all the same.
    drop(outcome.says(&["bad-narinfo", "\\u{1b}"]));
}
