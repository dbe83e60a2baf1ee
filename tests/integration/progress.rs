//! What is said while it works, in how much memory, and what the program says of itself.

use std::time::Duration;

use crate::support::faults::{Answer, Kind, Rule};
use crate::support::full_run;
use crate::support::nix::a_nix;
use crate::support::outcome::Outcome;
use crate::support::program::{PROGRAM, Run};
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::Server;

/// A push that takes about four seconds, because the server is slow.
fn slow_push(args: &[&str]) -> Outcome {
    let scene = Scene::signed(a_nix(), &project::chain(6, 1000), "p5");
    let server = Server::new(&scene.cache);
    server.rule(Rule::on("PUT", Kind::Narinfo, Answer::Slow(Duration::from_millis(700))));
    let outcome = scene.push().to(&server.url).args(args.iter().copied()).run().expect(0);
    assert!(outcome.elapsed > Duration::from_secs(4), "{outcome}");
    outcome
}

#[test]
fn where_there_is_no_terminal_it_says_one_line_a_second_at_most() {
    let outcome = slow_push(&[]);
    let times: Vec<Duration> = outcome.stderr_lines.iter().map(|(time, _)| *time).collect();
    assert!(times.len() >= 2, "it says nothing for four seconds\n{outcome}");
    let most = usize::try_from(outcome.elapsed.as_secs()).unwrap() + 2;
    assert!(times.len() <= most, "{} lines in {:?}\n{outcome}", times.len(), outcome.elapsed);
    assert!(
        outcome.stderr_lines.iter().all(|(_, line)| line.ends_with('\n') && !line.contains('\r')),
        "{outcome}"
    );
}

#[test]
fn it_can_be_told_to_be_quiet() {
    for args in [&["-q"][..], &["--progress", "none"]] {
        let outcome = slow_push(args);
        assert_eq!(outcome.stderr(), "", "{args:?}");
    }
}

#[test]
fn progress_for_machines_is_one_json_value_a_line() {
    let outcome = slow_push(&["--progress", "json"]);
    assert!(outcome.stderr_lines.len() >= 6, "{outcome}");
    for (_, line) in &outcome.stderr_lines {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(value.is_object(), "{line}");
    }
}

#[test]
fn json_on_standard_output_is_one_document_whatever_else_is_asked() {
    let scene = Scene::diamond();
    for args in
        [&[][..], &["-vv"], &["-q"], &["--progress", "json"], &["--progress", "plain"], &["--dry-run"]]
    {
        let outcome = scene.push_to(scene.url()).args(args.iter().copied()).run().expect(0);
        let report = outcome.json();
        assert!(report["seconds"].as_f64().unwrap() < 60.0);
        assert!(report["startedAt"].as_str().unwrap().contains('T'), "{report:#}");
    }
    // A push that fails says so in a document too.
    scene.store.lose(&scene.path("left"));
    let fresh = scene.store.scratch.join("fresh");
    scene.push_to(fresh).run().expect(1).json();
}

#[test]
fn on_a_terminal_it_draws_and_leaves_a_clean_screen() {
    let scene = Scene::signed(a_nix(), &project::chain(4, 1000), "p3");
    let server = Server::new(&scene.cache);
    server.rule(Rule::on("PUT", Kind::Narinfo, Answer::Slow(Duration::from_millis(400))));
    let line = format!("{PROGRAM} push-closure {} --to {}", scene.top, server.url);
    let run = |line: &str| {
        let script = Run::of("/usr/bin/script").args(["-qefc", line, "/dev/null"]).envs(scene.store.env());
        script.env("TERM", "xterm-256color").cwd(scene.store.scratch.path()).colourful().run().expect(0)
    };
    let drawn = run(&line);
    assert!(drawn.stdout.contains('\u{1b}'), "nothing is drawn\n{drawn}");
    assert_eq!(
        drawn.stdout.matches("\u{1b}[?25l").count(),
        drawn.stdout.matches("\u{1b}[?25h").count(),
        "{drawn}"
    );
    let plain = run(&format!("{line} --color never --progress plain"));
    assert!(!plain.stdout.contains('\u{1b}'), "{plain:?}");
    let plain = run(&format!("NO_COLOR=1 {line} --progress none"));
    assert!(!plain.stdout.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn memory_is_bounded_by_what_was_asked_for_and_not_by_the_size_of_a_nar() {
    let mebibyte = 1 << 20;
    // The NAR is as large as the whole allowance, so that whoever holds it in memory once, let alone twice, is found out.
    let (size, memory) = if full_run() { (600 * mebibyte, 128) } else { (80 * mebibyte, 16) };
    let scene = Scene::signed(a_nix(), &project::big(size), "big");
    for (n, compression) in ["zstd", "none"].into_iter().enumerate() {
        let cache = scene.store.scratch.join(format!("cache{n}"));
        let server = Server::new(&scene.store.scratch.join(format!("served{n}")));
        for target in [cache.to_str().unwrap(), &server.url] {
            let push = scene.push_to(target).args([
                "--memory",
                &format!("{memory}MiB"),
                "--compression",
                compression,
            ]);
            let outcome = push.limit(Duration::from_mins(5)).watch_memory().run().expect(0);
            let most = (memory + 64) * mebibyte as u64;
            assert!(
                outcome.peak_memory < most,
                "{} MiB to {target}\n{outcome}",
                outcome.peak_memory / mebibyte as u64
            );
        }
    }
}

#[test]
fn memory_is_bounded_at_high_levels_too() {
    let mebibyte = 1 << 20;
    let scene = Scene::signed(a_nix(), &project::wide(6, 12 * mebibyte), "top");
    // One encoder takes 53 MiB; with four at a time it would be twice the allowance.
    let push = scene.push_to(scene.url()).args(["--level", "12", "--jobs", "4", "--memory", "70MiB"]);
    let outcome = push.limit(Duration::from_mins(5)).watch_memory().run().expect(0);
    let most = (70 + 40) * mebibyte as u64;
    assert!(outcome.peak_memory < most, "{} MiB\n{outcome}", outcome.peak_memory / mebibyte as u64);
}

#[test]
fn the_exit_statuses_stand_in_the_help() {
    for args in [&["--help"][..], &["push-closure", "--help"]] {
        let outcome = Run::of(PROGRAM).args(args.iter().copied()).run().expect(0);
        let words = ["0", "1", "2", "3", "4", "130"];
        let help = outcome.stdout.to_lowercase();
        let (_, table) =
            help.split_once("exit status").unwrap_or_else(|| panic!("no table of exit statuses\n{outcome}"));
        for word in words {
            let starts = |line: &str| line.split_whitespace().next() == Some(word);
            assert!(table.lines().any(starts), "no {word} in the table\n{outcome}");
        }
    }
}

#[test]
fn every_option_of_the_command_stands_in_its_help() {
    let help = Run::of(PROGRAM).args(["push-closure", "--help"]).run().expect(0).stdout;
    for option in [
        "--to",
        "--upstream",
        "--no-upstream",
        "--build",
        "--dry-run",
        "--include",
        "--exclude",
        "--compression",
        "--level",
        "--jobs",
        "--memory",
        "--sign-key-file",
        "--allow-unsigned",
        "--push-failure",
        "--no-verify",
        "--timeout",
        "--json",
        "--progress",
        "--color",
        "--file",
        "--expr",
        "--impure",
        "--override-input",
        "--option",
        "--system",
        "--accept-flake-config",
        "--arg",
        "--argstr",
    ] {
        let there = help.lines().any(|line| line.split([' ', ',', '=']).any(|word| word == option));
        assert!(there, "{option} is not explained\n{help}");
    }
}

#[test]
fn more_words_are_about_what_is_done_and_each_request() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    let outcome = scene.push().to(&server.url).arg("-v").run().expect(0);
    let stderr = outcome.stderr();
    let nix = a_nix().dir.join("nix");
    for words in [nix.to_str().unwrap(), &scene.store.dir_text(), "the closure has 4 paths"] {
        assert!(stderr.contains(words), "{words}\n{outcome}");
    }
    for path in scene.names() {
        assert!(stderr.contains(&format!("pushed {path}")), "{path}\n{outcome}");
    }
    assert!(!stderr.contains("PUT "), "{outcome}");
    let outcome = scene.push().to(&server.url).arg("-vvv").run().expect(0);
    let requests = outcome
        .stderr()
        .lines()
        .filter(|line| line.contains(&server.url) && line.contains(": 200 in "))
        .count();
    assert_eq!(requests, 1 + 4 + 4, "{outcome}");
    assert!(!outcome.stderr().contains("hyper") && !outcome.stderr().contains("pool"), "{outcome}");
}

#[test]
fn it_says_its_version() {
    let outcome = Run::of(PROGRAM).arg("--version").run().expect(0);
    assert_eq!(outcome.stdout.trim(), format!("cache-helper {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_a_command_it_says_what_there_is() {
    let outcome = Run::of(PROGRAM).run().expect(2);
    assert!(outcome.output().contains("push-closure"), "{outcome}");
    let outcome = Run::of(PROGRAM).arg("nonsense").run().expect(2);
    assert!(outcome.stderr().contains("nonsense"), "{outcome}");
}
