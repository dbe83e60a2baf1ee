//! Secrets are used, and never shown.

use std::sync::{Arc, Mutex};

use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nix::a_nix;
use crate::support::outcome::Outcome;
use crate::support::program::Run;
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::Server;

const PASSWORD: &str = "Zauberwort-4711";
/// `someone:Zauberwort-4711`.
const LOGIN: &str = "Basic c29tZW9uZTpaYXViZXJ3b3J0LTQ3MTE=";

/// A diamond, and a netrc that has the password for a machine.
fn scene(machine: &str) -> Scene {
    let mut scene = Scene::diamond();
    let netrc = format!("machine {machine}\n  login someone\n  password {PASSWORD}\n");
    let netrc = scene.store.scratch.file("netrc", netrc);
    scene.store.set("netrc-file", netrc.to_str().unwrap());
    scene
}

#[track_caller]
fn shows_no(secrets: &[&str], outcome: &Outcome) {
    for secret in secrets {
        let encoded = LOGIN.trim_start_matches("Basic ");
        for text in [*secret, encoded] {
            assert!(!outcome.output().contains(text), "{text} is shown\n{outcome}");
        }
    }
}

/// The command lines of all processes of this machine.
fn command_lines() -> String {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let read = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
    processes.map(|entry| String::from_utf8_lossy(&read(entry)).replace('\0', " ") + "\n").collect()
}

#[test]
fn the_password_of_the_netrc_opens_the_cache_and_is_never_shown() {
    let scene = scene("127.0.0.1");
    let server = Server::new(&scene.cache);
    server.require_login(LOGIN);
    let seen = Arc::new(Mutex::new(String::new()));
    let look = Arc::clone(&seen);
    let hook = Answer::Before(Arc::new(move |_| look.lock().unwrap().push_str(&command_lines())));
    server.rule(Rule::on("PUT", Kind::Nar, hook));
    for level in ["-v", "-vv", "-vvvv"] {
        let push = scene.push_to(&server.url).arg(level).env("RUST_LOG", "trace");
        shows_no(&[PASSWORD], &push.run().expect(0));
    }
    scene.is_complete();
    let lines = seen.lock().unwrap();
    assert!(lines.contains("push-closure"), "nothing was looked at");
    assert!(!lines.contains(PASSWORD) && !lines.contains("c29tZW9uZ"), "in an argument list:\n{lines}");
}

#[test]
fn the_default_entry_of_a_netrc_is_used() {
    let mut scene = Scene::diamond();
    let text = format!(
        "# a comment\nmachine elsewhere.example login a password b\ndefault login someone password {PASSWORD}\n"
    );
    let netrc = scene.store.scratch.file("netrc", text);
    scene.store.set("netrc-file", netrc.to_str().unwrap());
    let server = Server::new(&scene.cache);
    server.require_login(LOGIN);
    scene.push_to(&server.url).run().expect(0);
    scene.is_complete();
}

#[test]
fn a_netrc_file_can_be_named_by_an_option_of_nix() {
    let scene = Scene::diamond();
    let text = format!("machine 127.0.0.1 login someone password {PASSWORD}\n");
    let netrc = scene.store.scratch.file("other-netrc", text);
    let server = Server::new(&scene.cache);
    server.require_login(LOGIN);
    let push = scene.push_to(&server.url).arg("--option").arg("netrc-file").arg(&netrc);
    shows_no(&[PASSWORD], &push.run().expect(0));
    scene.is_complete();
}

#[test]
fn a_proxy_is_not_asked_for_what_is_on_this_machine() {
    let scene = scene("127.0.0.1");
    let server = Server::new(&scene.cache);
    server.require_login(LOGIN);
    let proxy = Server::at("127.0.0.2", &scene.store.scratch.join("proxy"));
    let with_proxy = |run: Run| {
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            .into_iter()
            .fold(run, |run, name| run.env(name, proxy.url.clone()))
    };
    with_proxy(scene.push_to(&server.url)).run().expect(0);
    assert_eq!(proxy.count(|_| true), 0);
    // Other machines are asked through it.
    let outcome = with_proxy(scene.push_to("http://cache.invalid")).run();
    assert!(proxy.count(|_| true) > 0, "{outcome}");
    assert_eq!(proxy.count(|exchange| exchange.headers.contains_key("authorization")), 0);
}

#[test]
fn a_password_that_stands_in_a_narinfo_does_no_harm() {
    // Every narinfo has the word.
    let mut scene = Scene::diamond();
    let netrc = scene.store.scratch.file("netrc", "machine 127.0.0.1 login someone password Compression");
    scene.store.set("netrc-file", netrc.to_str().unwrap());
    let server = Server::new(&scene.cache);
    scene.push_to(&server.url).run().expect(0);
    let target = scene.push_to(&server.url).run().expect(0).target();
    assert_eq!(crate::support::outcome::count(&target, "present"), 4);
}

#[test]
fn a_wrong_password_is_not_shown_either() {
    let scene = scene("127.0.0.1");
    let server = Server::new(&scene.cache);
    server.require_login("Basic another");
    let outcome = scene.push().to(&server.url).args(["-vv"]).run().expect(3);
    shows_no(&[PASSWORD], &outcome);
    outcome.complains(&["401", "the login for this host in netrc was refused"]);
}

#[test]
fn a_server_that_throws_the_password_back_does_not_get_it_shown() {
    let scene = scene("127.0.0.1");
    let server = Server::new(&scene.cache);
    let echo = Answer::status(403).with_body(format!("the password {PASSWORD} and {LOGIN} are wrong"));
    server.rule(Rule::method("PUT", echo));
    let outcome = scene.push().to(&server.url).arg("-vv").run().expect(3);
    shows_no(&[PASSWORD], &outcome);
}

#[test]
fn a_password_in_a_url_is_not_shown() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    let url = server.url.replace("http://", &format!("http://someone:{PASSWORD}@"));
    for args in [&[][..], &["--json"], &["-vv"], &["--dry-run"]] {
        let outcome = scene.push().to(&url).args(args.iter().copied()).env("RUST_LOG", "trace").run();
        shows_no(&[PASSWORD], &outcome);
    }
    server.rule(Rule::all(Answer::status(500)));
    shows_no(&[PASSWORD], &scene.push().to(&url).run());
    drop(server);
    shows_no(&[PASSWORD], &scene.push().to(&url).run());
    let outcome = scene.push().to(scene.url()).args(["--upstream", &url]).run();
    shows_no(&[PASSWORD], &outcome);
}

#[test]
fn a_password_in_what_is_no_url_is_not_shown() {
    let scene = Scene::diamond();
    let odd = format!("https://someone:{PASSWORD}@host:99999/x");
    let ssh = format!("ssh://someone:{PASSWORD}@host.invalid");
    let git = format!("git+https://someone:{PASSWORD}@host.invalid/repo");
    let file = scene.store.expression(&project::diamond()).to_str().unwrap().to_owned();
    let token = format!("host.invalid={PASSWORD}");
    let cases: [&[&str]; 7] = [
        &["--to", &odd, &scene.top],
        &["--to", "./cache", "--upstream", &odd, &scene.top],
        &["--to", "./cache", &scene.top, "--", "--store", &ssh],
        &["--to", "./cache", &git],
        &["--to", "./cache", "--option", "access-tokens", &token, "-f", &file, "nonsense"],
        &["--to", "./cache", "-f", &file, "nonsense", "--", "--access-tokens", &token],
        &["--to", "./cache", "--json", "--option", "access-tokens", &token, "-f", &file, "top", "-vv"],
    ];
    for args in cases {
        let outcome = Run::push(&scene.store).args(args.iter().copied()).run();
        shows_no(&[PASSWORD], &outcome);
        let names_it = ["…", "top"].iter().any(|word| outcome.output().contains(word));
        assert!(names_it, "it does not even say that something is left out\n{outcome}");
    }
    // Not built yet, with the command that builds it.
    let store = crate::support::nix::Store::new(a_nix());
    let file = store.expression(&project::diamond()).to_str().unwrap().to_owned();
    let args = ["--to", "./cache", "--option", "access-tokens", &token, "-f", &file, "top"];
    let outcome = Run::push(&store).args(args).run().expect(3).says(&["access-tokens …"]);
    shows_no(&[PASSWORD], &outcome);
}

#[test]
fn a_secret_in_the_query_of_a_url_is_not_shown() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    server.rule(Rule::method("PUT", Answer::status(403)));
    let url = format!("{}?token={PASSWORD}", server.url);
    shows_no(&[PASSWORD], &scene.push().to(url).arg("-vv").run());
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let scene = scene("127.0.0.1");
    scene.push_to(scene.url()).run().expect(0);
    let other = Server::at("127.0.0.2", &scene.cache);
    let server = Server::new(&scene.cache);
    server.require_login(LOGIN);
    for path in scene.names() {
        let file = format!("/{}.narinfo", &path[..32]);
        server.rule(
            Rule::on("GET", Kind::Narinfo, Answer::redirect(format!("{}{file}", other.url))).path(&file),
        );
    }
    // The login rule comes first; only what is logged in is redirected.
    let outcome = scene.push_to(&server.url).run();
    assert!(outcome.status.code().is_some(), "{outcome}");
    assert!(server.count(|exchange| exchange.headers.contains_key("authorization")) > 0, "no login at all");
    assert_eq!(other.count(|exchange| exchange.headers.contains_key("authorization")), 0);
    shows_no(&[PASSWORD], &outcome);
}

#[test]
fn credentials_of_one_machine_are_not_for_another() {
    let scene = scene("127.0.0.2");
    let server = Server::new(&scene.cache);
    let info = format!("StoreDir: {}\n", scene.store.dir_text());
    let info = scene.store.scratch.file("upstream/nix-cache-info", info);
    let upstream = Server::at("127.0.0.2", info.parent().unwrap());
    scene.push_to(&server.url).args(["--upstream", &upstream.url]).run().expect(0);
    assert_eq!(server.count(|exchange| exchange.headers.contains_key("authorization")), 0);
    assert!(
        upstream.count(|exchange| exchange.headers.get("authorization").map(String::as_str) == Some(LOGIN))
            > 0
    );
}

#[test]
fn a_sign_key_is_never_shown() {
    let scene = Scene::unsigned(a_nix(), &project::diamond(), "top");
    let text = std::fs::read_to_string(&scene.key.file).unwrap();
    let secret = text.trim().split_once(':').unwrap().1.to_owned();
    let server = Server::new(&scene.cache);
    let push = || scene.push_to(&server.url).arg("--sign-key-file").arg(&scene.key.file);
    for level in ["-vv", "-vvvv"] {
        let outcome = push().arg(level).env("RUST_LOG", "trace").run().expect(0);
        assert!(!outcome.output().contains(&secret[..20]), "{outcome}");
    }
    let log = format!("{:?}", server.log());
    assert!(!log.contains(&secret[..20]), "the key was sent");
    for file in crate::support::scratch::files_below(&scene.cache) {
        let bytes = std::fs::read(scene.cache.join(&file)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(&secret[..20]), "{file}");
    }
    assert!(!command_lines().contains(&secret[..20]));
}
