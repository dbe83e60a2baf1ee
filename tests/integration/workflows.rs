//! The workflows of CI, and the scripts that check them and what only a machine with a network can check.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::support::checkout::Checkout;
use super::support::nix::{a_nix, with_every_nix};
use super::support::program::{PROGRAM, Run};
use super::support::scratch::Scratch;

/// A file or directory of this repository.
fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The workflows: file name and text.
fn workflows() -> Vec<(String, String)> {
    let found: Vec<_> = fs::read_dir(ours(".github/workflows"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    assert!(found.len() >= 2, "the workflows were not found");
    found
}

/// The script of a named step.
#[track_caller]
fn step(workflow: &str, name: &str) -> String {
    let text = fs::read_to_string(ours(".github/workflows").join(workflow)).unwrap();
    let (_, after) = text.split_once(&format!("- name: {name}\n")).expect("the step");
    let (_, script) = after.split_once("        run: |\n").expect("its script");
    let indent = "          ";
    script
        .lines()
        .map_while(|line| line.strip_prefix(indent))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Runs the script of a step as GitHub does, with the secret and with what `nix` is.
fn run_step(scratch: &Scratch, script: &str, token: &str, nix: &str) -> Run {
    let bin = scratch.dir("bin");
    scratch.script("bin/nix", nix);
    Run::of("bash")
        .args(["--noprofile", "--norc", "-eo", "pipefail"])
        .arg(scratch.file("step", script))
        .env("PATH", format!("{}:/usr/bin:/bin:/run/current-system/sw/bin", bin.display()))
        .env("RUNNER_TEMP", scratch.path())
        .env("CACHIX_AUTH_TOKEN", token)
        .cwd(scratch.path())
}

#[test]
fn every_action_is_pinned_to_a_commit_and_names_its_tag() {
    for (file, text) in workflows() {
        let uses: Vec<&str> = text.lines().filter(|line| line.contains("uses:")).collect();
        assert!(!uses.is_empty(), "{file} uses nothing?");
        for line in uses {
            let (_, action) = line.split_once("uses: ").unwrap();
            let (action, tag) = action.split_once(" # ").unwrap_or_else(|| panic!("{file}: no tag: {line}"));
            let (_, commit) = action.split_once('@').unwrap_or_else(|| panic!("{file}: no commit: {line}"));
            assert!(tag.starts_with('v'), "{file}: {line}");
            assert!(
                commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{file}: {line}"
            );
        }
    }
}

#[test]
fn workflows_may_only_read_and_every_job_has_a_limit() {
    for (file, text) in workflows() {
        let count = |words: &str| text.matches(words).count();
        assert_eq!(count("permissions:"), 1, "{file}");
        assert_eq!(count("permissions:\n  contents: read\n\n"), 1, "{file}");
        assert_eq!(count("concurrency:"), 1, "{file}");
        assert_eq!(count("    runs-on:"), count("    timeout-minutes:"), "{file}");
        assert_eq!(count("uses: actions/checkout@"), count("persist-credentials: false"), "{file}");
    }
}

#[test]
fn what_the_flake_offers_is_evaluated_for_every_system() {
    let text = fs::read_to_string(ours(".github/workflows/ci.yml")).unwrap();
    assert!(text.contains("        run: nix flake check --no-build --all-systems\n"));
}

#[test]
fn without_the_secret_of_a_fork_nothing_is_pushed_and_the_log_says_why() {
    let steps = [
        ("ci.yml", "Push what the team's cache lacks", "Nothing is pushed"),
        ("ml-shell.yml", "Build the shell and push it", "Nothing is built"),
    ];
    for (workflow, name, words) in steps {
        let scratch = Scratch::new();
        let run = run_step(&scratch, &step(workflow, name), "", "touch ran; exit 1");
        run.run().expect(0).says(&["::notice::", words, "CACHIX_AUTH_TOKEN"]);
        assert!(!scratch.join("ran").exists(), "{workflow} runs Nix all the same");
    }
}

#[test]
fn with_the_secret_the_paths_that_were_found_are_pushed() {
    let scratch = Scratch::new();
    scratch.file("paths", "/nix/store/one\n/nix/store/two\n");
    let script = step("ci.yml", "Push what the team's cache lacks");
    let nix = "echo \"nix $*\"; cat";
    let outcome = run_step(&scratch, &script, "a-token", nix).run().expect(0);
    assert_eq!(
        outcome.stdout,
        "nix develop .#ci --command cachix push mikkihugo\n/nix/store/one\n/nix/store/two\n"
    );
    run_step(&scratch, &script, "a-token", "exit 7").run().expect(7);
}

/// A workflow with one job, whose steps are these lines.
fn workflow(job: &str, steps: &str) -> String {
    format!(
        "name: A\non: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n{job}    steps:\n      - run: 'true'\n{steps}"
    )
}

#[test]
fn the_lint_finds_what_is_wrong_in_a_workflow() {
    let matrix = "    strategy: { matrix: { system: [a] } }\n";
    let pinned = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1";
    let wrong = [
        ("key", "    timeout-minuets: 3\n", "", "unexpected key \"timeout-minuets\""),
        ("matrix", matrix, "      - run: echo \"${{ matrix.os }}\"\n", "property \"os\" is not defined"),
        ("context", "", "      - run: echo \"${{ secret.A }}\"\n", "undefined variable \"secret\""),
        ("title", "", "      - run: echo '${{ github.event.issue.title }}'\n", "potentially untrusted"),
        ("tag", "", "      - uses: actions/checkout@v7.0.1\n", "uses: actions/checkout@v7.0.1"),
        ("bare", "", &format!("      - uses: {pinned}\n"), pinned),
        ("short", "", "      - uses: actions/checkout@3d3c42e # v7.0.1\n", "checkout@3d3c42e"),
        ("shell", "", "      - run: |\n          true\n          echo $UNQUOTED\n", "SC2086"),
        ("posix", "", "      - shell: sh\n        run: \"[[ a = b ]]\"\n", "SC3010"),
        ("yaml", "", "      - run: a: b\n", "could not parse"),
    ];
    let scratch = Scratch::new();
    let lint = || {
        let run = Run::of(ours("scripts/lint-workflows")).cwd(scratch.path());
        let variables = ["PATH", "HOME", "XDG_CACHE_HOME"];
        run.envs(
            variables
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
                .collect(),
        )
    };
    let mut all = lint();
    for (name, job, steps, _) in wrong {
        let file = format!("{name}.yml");
        scratch.file(&file, workflow(job, steps));
        all = all.arg(file);
    }
    let outcome = all.run().expect(1);
    for (name, _, _, words) in wrong {
        let file = format!("{name}.yml:");
        let lines: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with(&file)).collect();
        assert!(lines.iter().any(|line| line.contains(words)), "{name}: {words}\n{outcome}");
    }
    assert!(
        outcome.stdout.lines().any(|line| line.starts_with("shell.yml:10:") && line.contains("SC2086")),
        "not at the line where it is\n{outcome}"
    );

    for alone in ["tag.yml", "shell.yml"] {
        lint().arg(alone).run().expect(1);
    }

    let fine = format!("{matrix}    timeout-minutes: 3\n");
    let steps = format!(
        "      - uses: {pinned} # v7.0.1\n      - run: |\n          # Its case is no constant, and \
         nobody assigns it here.\n          case ${{{{ matrix.system }}}} in a) echo \"$given\" ;; esac\n"
    );
    scratch.file("fine.yml", workflow(&fine, &steps));
    lint().arg("fine.yml").run().expect(0);
}

/// `scripts/check-with-network` with the Nix of the tests, and whatever comes before it on `PATH`.
fn check_with_network(scratch: &Scratch) -> Run {
    let before = scratch.dir("before");
    Run::of(ours("scripts/check-with-network"))
        .env("PATH", format!("{}:{}", before.display(), a_nix().path()))
        .env("HOME", scratch.dir("home"))
}

#[test]
fn what_needs_a_network_is_listed_in_sentences() {
    let text = fs::read_to_string(ours("scripts/check-with-network")).unwrap();
    let done: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("check_")?.strip_suffix("() {")).collect();
    let scratch = Scratch::new();
    let outcome = check_with_network(&scratch).arg("--list").run().expect(0);
    let mut listed = BTreeSet::new();
    for line in outcome.stdout.lines() {
        let (name, sentence) = line.split_once(' ').unwrap();
        assert!(sentence.trim_start().contains(' ') && sentence.ends_with('.'), "no sentence: {line}");
        listed.insert(name);
    }
    assert_eq!(listed, done);
    assert_eq!(check_with_network(&scratch).run().expect(0).stdout, outcome.stdout);
    check_with_network(&scratch).args(["--run", "no-such"]).run().expect(2).says(&["no check no-such"]);
}

#[test]
fn without_a_network_it_says_so_within_seconds() {
    let scratch = Scratch::new();
    // Nobody reads what comes to this one; nobody is there at the other.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for proxy in [format!("http://{}", silent.local_addr().unwrap()), "http://127.0.0.1:1".to_owned()] {
        let outcome = check_with_network(&scratch)
            .arg("--run")
            .env("https_proxy", &proxy)
            .limit(Duration::from_secs(20))
            .run()
            .expect(69)
            .says(&["no network", "nothing checked", "cache.nixos.org"]);
        assert!(outcome.elapsed < Duration::from_secs(10), "{outcome}");
        assert_eq!(outcome.stdout, "", "{outcome}");
    }
}

#[test]
fn one_failure_does_not_stop_the_other_checks() {
    let scratch = Scratch::new();
    // A Cachix where only the first of two questions is refused, and a GitHub with every tag where the workflows have it.
    scratch.script(
        "before/curl",
        "case \"$*\" in *.cachix.org/nix-cache-info) exit 22 ;; esac\n\
         grep -o '\"[a-z.]*cachix.org-1:[^\"]*\"' flake.nix || true",
    );
    scratch.script(
        "before/git",
        "while [ \"$1\" != ls-remote ]; do shift; done\n\
         action=${2#https://github.com/} tag=${3#refs/tags/}\n\
         sed -nE \"s|.*uses: $action[^@]*@([0-9a-f]+) # $tag\\$|\\1 refs/tags/$tag|p\" .github/workflows/*.yml",
    );
    let outcome = check_with_network(&scratch).args(["--run", "team-cache", "actions"]).run().expect(1);
    let table: Vec<Vec<&str>> = outcome
        .stdout
        .lines()
        .rev()
        .take_while(|line| !line.is_empty())
        .map(|line| line.splitn(2, ' ').map(str::trim).collect())
        .collect();
    let result = |name: &str| {
        table.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no {name}\n{outcome}"))[1]
    };
    assert_eq!(result("team-cache"), "FAILED", "{outcome}");
    assert_eq!(result("actions"), "passed", "{outcome}");
    assert_eq!(result("shells"), "left out", "{outcome}");

    // One tag is elsewhere now.
    scratch.script("before/git", "echo 0000000000000000000000000000000000000000 refs/tags/v1");
    let outcome = check_with_network(&scratch).args(["--run", "actions"]).run().expect(1);
    outcome.says(&[
        "actions/checkout has not 3d3c42e5aac5ba805825da76410c181273ba90b1",
        "actions          FAILED",
    ]);
}

/// The checks that build, on the flake as it is, with the stand-in for nixpkgs.
#[test]
fn the_checks_that_build_do_so_and_notice_what_a_push_lacks() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        let scratch = &checkout.store.scratch;
        // The package of the stand-in does nothing; the program under test takes its place.
        let program = scratch.script("program/bin/cache-helper", &format!("exec '{PROGRAM}' \"$@\" $MORE"));
        let program = program.parent().unwrap().parent().unwrap().display().to_string();
        let real = nix.dir.join("nix").display().to_string();
        scratch.script("before/curl", "exit 0");
        scratch.script(
            "before/nix",
            &format!("case \"$*\" in *'--print-out-paths .#cache-helper') echo {program} ;; *) exec {real} \"$@\" ;; esac"),
        );
        let check = |names: &[&str], more: &str| {
            let environment = checkout.store.env();
            let path = format!("{}:{}", scratch.join("before").display(), nix.path());
            Run::of(checkout.dir.join("scripts/check-with-network"))
                .args(["--run"])
                .args(names.to_vec())
                .envs(environment)
                .env("PATH", path)
                .env("MORE", more)
                .cwd(&checkout.dir)
                .run()
        };
        let outcome = check(&["builds", "round-trip"], "").expect(0);
        assert!(outcome.stdout.contains("builds           passed"), "{outcome}");
        assert!(outcome.stdout.contains("round-trip       passed"), "{outcome}");
        check(&["round-trip"], "--exclude -env$").expect(1);
    });
}
