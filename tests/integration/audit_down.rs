//! A cache that goes down during an audit is found out once, and the report says so.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nix::a_nix;
use crate::support::program::Run;
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::Server;

/// How often a request is sent.
const ATTEMPTS: usize = 3;

/// How many unanswered questions in a row are enough.
const QUESTIONS: usize = 3;

/// A closure that was pushed to a directory and is no more in the store.
struct Pushed {
    scene: Scene,
    drv: String,
}

impl Pushed {
    fn new(expression: &str, attr: &str) -> Self {
        let scene = Scene::signed(a_nix(), expression, attr);
        scene.push_to(scene.url()).run().expect(0);
        scene.store.throw_away();
        let drv = scene.store.instantiate(expression, attr);
        Self { scene, drv }
    }

    fn cache(&self) -> &PathBuf {
        &self.scene.cache
    }

    /// The report of an audit against a server, which must have taken the cache for dead.
    #[track_caller]
    fn audit(&self, server: &Server) -> Value {
        let run = Run::new(&self.scene.store).args(["audit", "--json", "--nars", &self.drv]);
        let report = run.args(["--cache", &server.url]).run().expect(0).json();
        let cache = &report["caches"][0];
        assert_eq!(cache["status"], "unreachable", "{report:#}");
        let words = cache["words"].as_str().unwrap();
        assert!(words.contains("stopped answering") && words.contains("503"), "{words}");
        assert_eq!(report["totals"]["misses"], 0, "{report:#}");
        report
    }
}

#[test]
fn a_cache_that_answers_no_narinfo_costs_one_wait_and_not_one_a_depth() {
    let pushed = Pushed::new(&project::chain(8, 10), "p7");
    let server = Server::new(pushed.cache());
    server.rule(Rule::on("GET", Kind::Narinfo, Answer::status(503)));
    let report = pushed.audit(&server);
    assert_eq!(report["totals"]["hits"], 0);
    // All eight are asked for at once, before it is known that they are wanted.
    let asked = server.count(|request| request.kind() == Kind::Narinfo);
    assert!((QUESTIONS * ATTEMPTS..=8 * ATTEMPTS).contains(&asked), "{asked} requests");
}

#[test]
fn a_cache_that_answers_for_no_nar_is_not_asked_for_all_of_them() {
    let pushed = Pushed::new(&project::wide(200, 10), "top");
    let server = Server::new(pushed.cache());
    server.rule(Rule::on("HEAD", Kind::Nar, Answer::status(503)));
    pushed.audit(&server);
    let asked = server.count(|request| request.kind() == Kind::Nar);
    // All of them may be under way before the first is given up; they are not all tried again.
    assert!((QUESTIONS * ATTEMPTS..201 * 2).contains(&asked), "{asked} requests");
}
