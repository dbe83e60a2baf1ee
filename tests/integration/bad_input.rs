//! Bad input gets one clear line, a hint that says what to do, and the right exit status; nothing is lost, and nothing hangs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::cache::assert_closed;
use crate::support::nix::{Store, a_nix, with_every_nix};
use crate::support::outcome::names;
use crate::support::program::{PROGRAM, Run, open_to_all};
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::scratch::files_below;

#[test]
fn an_unknown_installable_is_named() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let file = store.expression(&project::diamond()).to_str().unwrap().to_owned();
        let unknown: [(&[&str], &str); 5] = [
            (&["-f", &file, "nonsense"], "nonsense"),
            (&["path:./nowhere#thing"], "nowhere"),
            (&["--expr", "1 +"], "syntax error"),
            (&["--impure", "--expr", "throw \"a reason\""], "a reason"),
            (&["-f", "/nowhere/at/all.nix", "x"], "/nowhere/at/all.nix"),
        ];
        for (args, word) in unknown {
            let outcome = Run::push(&store).args(args.iter().copied()).to("./cache").run().expect(3);
            outcome.complains(&[word]);
        }
        assert!(!store.scratch.join("cache").exists());
    });
}

#[test]
fn a_path_that_is_not_in_the_store_is_named() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let invalid = format!("{}/00000000000000000000000000000000-nothing", store.dir_text());
        Run::push(&store).arg(&invalid).to("./cache").run().expect(3).complains(&[&invalid]);
        Run::push(&store).arg(format!("{invalid}.drv")).to("./cache").run().expect(3).complains(&[&invalid]);
        let file = store.scratch.file("just-a-file", "");
        let outcome = Run::push(&store).arg(&file).to("./cache").run();
        assert!(matches!(outcome.status.code(), Some(2 | 3)), "{outcome}");
        outcome.complains(&["just-a-file"]);
        // A link into nowhere, and a link out of the store.
        std::os::unix::fs::symlink(&invalid, store.scratch.join("dangling")).unwrap();
        let outcome = Run::push(&store).arg("./dangling").to("./cache").run().expect(3);
        drop(outcome.says(&["00000000000000000000000000000000-nothing"]));
        assert!(!store.scratch.join("cache").exists());
    });
}

#[test]
fn a_machine_without_nix_is_told_how_to_get_it() {
    let scene = Scene::diamond();
    let empty = scene.store.scratch.dir("empty");
    let outcome = scene.push().to(scene.url()).env("PATH", empty).run().expect(3);
    let outcome = outcome.complains(&["nix"]);
    assert!(outcome.stderr().contains("install"), "{outcome}");
    let outcome = scene.push().to(scene.url()).without("PATH").run();
    // Without PATH the system's usual directories may or may not be searched.
    assert!(matches!(outcome.status.code(), Some(0 | 3)), "{outcome}");
}

#[test]
fn a_nix_that_is_too_old_or_strange_is_refused() {
    let scene = Scene::diamond();
    let fakes = [
        ("old", "echo 'nix (Nix) 2.3.16'", "2.3"),
        ("older", "echo 'nix (Nix) 2.7.0'", "2.8"),
        ("fails", "echo broken installation >&2; exit 1", "broken installation"),
        ("silent", "exit 0", "version"),
        ("other", "echo 'Nix the airline booking tool'", "version"),
    ];
    for (name, body, word) in fakes {
        let script = scene.store.scratch.script(&format!("{name}/nix"), body);
        let path = format!("{}:/usr/bin:/bin", script.parent().unwrap().display());
        let outcome = scene.push().to(scene.url()).env("PATH", path).run().expect(3);
        outcome.complains(&[word]);
    }
    assert!(!scene.cache.exists());
}

#[test]
fn wrong_usage_is_refused_before_anything_is_done() {
    let scene = Scene::diamond();
    let wrong: [&[&str]; 9] = [
        &["--nonsense"],
        &["--compression", "lzma"],
        &["--level", "many"],
        &["--jobs", "0"],
        &["--memory", "a lot"],
        &["--timeout", "-1"],
        &["--push-failure", "maybe"],
        &["--progress", "loud"],
        &["--upstream", "./x", "--no-upstream"],
    ];
    for args in wrong {
        let outcome = scene.push().to(scene.url()).args(args.iter().copied()).run().expect(2);
        assert!(outcome.stderr().contains("error:") && outcome.stdout.is_empty(), "{outcome}");
    }
    for url in ["ftp://example.org/x", "http://", "https://[::", "file://host/x", "", "s4://bucket"] {
        let outcome = scene.push().to(url).run().expect(2);
        assert!(outcome.stderr().contains("error:"), "{outcome}");
    }
    assert!(!scene.cache.exists());
}

#[test]
fn certificates_that_cannot_be_read_matter_only_where_there_is_tls() {
    let scene = Scene::diamond();
    let run = |run: Run, variable: &str| run.env(variable, "/nowhere/certificates");
    for variable in ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"] {
        run(scene.push_to(scene.url()), variable).run().expect(0);
        let outcome = run(scene.push().to("https://127.0.0.1:1/cache"), variable).run().expect(2);
        outcome.complains(&[variable, "/nowhere/certificates"]);
    }
    let empty = scene.store.scratch.file("empty", "");
    let outcome =
        scene.push().to("https://127.0.0.1:1/cache").env("NIX_SSL_CERT_FILE", empty).run().expect(2);
    drop(outcome.complains(&["NIX_SSL_CERT_FILE"]));
}

#[test]
fn a_budget_that_is_too_small_is_refused_with_the_least_that_is_needed() {
    let scene = Scene::diamond();
    for args in [&["--memory", "2MiB"][..], &["--level", "22"], &["--compression", "xz", "--level", "9"]] {
        let outcome = scene.push().to(scene.url()).args(args.iter().copied()).run().expect(2);
        let outcome = outcome.complains(&["--memory"]);
        let stderr = outcome.stderr();
        let (_, least) = stderr.split_once("give --memory ").unwrap();
        let least = least.split_whitespace().next().unwrap();
        let enough = scene.push().to(scene.url()).arg("--dry-run");
        let enough = if args[0] == "--memory" { enough } else { enough.args(args.iter().copied()) };
        enough.args(["--memory", least]).run().expect(0);
    }
    let outcome =
        scene.push().to(scene.url()).args(["--compression", "none", "--level", "3"]).run().expect(2);
    drop(outcome.complains(&["--compression none has 0 to 0"]));
    let outcome =
        scene.push().to(scene.url()).args(["--level", "19", "--jobs", "9", "--dry-run"]).run().expect(0);
    drop(outcome.says(&["1 path at a time"]));
    assert!(!scene.cache.exists());
}

#[test]
fn a_target_that_cannot_be_written_is_named() {
    let scene = Scene::diamond();
    let file = scene.store.scratch.file("a-file", "");
    for target in [file.join("below"), file.clone()] {
        let outcome = scene.push().to(&target).run().expect(3);
        outcome.complains(&[target.to_str().unwrap()]);
    }
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn a_target_that_this_user_may_not_write_is_named() {
    let scene = Scene::diamond();
    let closed = scene.store.scratch.dir("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    for target in [closed.clone(), closed.join("below")] {
        let outcome = scene.push().to(&target).unprivileged(&scene.store).run().expect(3);
        outcome.complains(&[target.to_str().unwrap(), "ermission denied"]);
    }
    assert_eq!(files_below(&closed), Vec::<String>::new());
    // One that may not even be read has nothing to do with logins.
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let outcome = scene.push().to(&closed).unprivileged(&scene.store).run().expect(3);
    let outcome = outcome.complains(&["ermission denied", "another cache"]);
    assert!(!outcome.output().contains("netrc"), "{outcome}");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the program in a mount namespace where `./full` is a file system of this size, and copies what it holds then to `./rescued`.
fn on_a_small_disk(scene: &Scene, size: &str, args: &[&str]) -> crate::support::outcome::Outcome {
    scene.store.scratch.dir("full");
    scene.store.scratch.dir("rescued");
    let script = r#"
        mount -t tmpfs -o size=$1 none ./full || { echo 'cannot mount a small disk: run as root, or allow user namespaces' >&2; exit 99; }
        shift; "$@"; status=$?; cp -a ./full/. ./rescued/; exit $status"#;
    let namespace: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-mr"] };
    let run =
        Run::of("/usr/bin/unshare").args(namespace.iter().copied()).args(["sh", "-c", script, "sh", size]);
    run.arg(PROGRAM).args(args.iter().copied()).envs(scene.store.env()).cwd(scene.store.scratch.path()).run()
}

#[test]
fn a_full_disk_is_named_and_leaves_a_closed_cache() {
    let scene = Scene::signed(a_nix(), &project::wide(6, 300_000), "top");
    let args = ["push-closure", &scene.top, "--to", "./full", "--json", "--jobs", "1"];
    let outcome = on_a_small_disk(&scene, "1m", &args);
    assert!(matches!(outcome.status.code(), Some(1 | 3)), "{outcome}");
    let outcome = outcome.says(&["No space left on device"]);
    let rescued = scene.store.scratch.join("rescued");
    let cache = assert_closed(&rescued, &scene.store.dir_text(), &[]);
    assert!(cache.entries.len() < scene.closure.len());
    assert!(cache.strange.is_empty(), "left behind: {:?}", cache.strange);
    if outcome.status.code() == Some(1) {
        let target = outcome.target();
        assert_eq!(names(&target, "blocked"), scene.names_of(["top"]));
        assert_eq!(outcome.json()["targets"][0]["verified"], false);
    }
    // For humans too.
    let outcome = on_a_small_disk(&scene, "200k", &["push-closure", &scene.top, "--to", "./full"]);
    let outcome = outcome.complains(&["No space left on device", "make room"]);
    let error = outcome.stderr().lines().find(|line| line.starts_with("error:")).unwrap().to_owned();
    assert_eq!(error.matches("/full").count(), 1, "{outcome}");
}

#[test]
fn a_full_temporary_directory_is_no_reason_for_a_broken_cache() {
    let scene = Scene::signed(a_nix(), &project::big(3_000_000), "big");
    let full = scene.store.scratch.join("full");
    let cache = scene.url();
    scene.store.scratch.dir("full");
    let script = "mount -t tmpfs -o size=64k none ./full || exit 99; exec \"$@\"";
    let namespace: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-mr"] };
    let run = Run::of("/usr/bin/unshare").args(namespace.iter().copied()).args(["sh", "-c", script, "sh"]);
    let run =
        run.args([PROGRAM, "push-closure", &scene.top, "--to", &cache, "--json"]).envs(scene.store.env());
    let outcome = run.env("TMPDIR", full.into_os_string()).cwd(scene.store.scratch.path()).run();
    assert!(matches!(outcome.status.code(), Some(0 | 1 | 3)), "{outcome}");
    if outcome.status.code() == Some(0) {
        scene.is_complete();
    } else {
        scene.is_closed();
        drop(outcome.says(&["No space left on device"]));
    }
}

#[test]
fn a_database_of_an_unknown_shape_is_no_reason_to_guess() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::diamond(), "top");
        let db = scene.store.db().join("db.sqlite");
        fs::write(
            &db,
            b"this is not a database, but it is long enough to have a header in front of it, had it been one",
        )
        .unwrap();
        for name in ["db.sqlite-wal", "db.sqlite-shm"] {
            drop(fs::remove_file(scene.store.db().join(name)));
        }
        let outcome = scene.push().to(scene.url()).run().expect(3);
        outcome.complains(&["db"]);
        assert!(!scene.cache.exists());
    });
}

#[test]
fn a_closed_standard_output_is_no_panic() {
    let scene = Scene::diamond();
    for json in ["", "--json"] {
        let script =
            format!("{PROGRAM} push-closure {} --to {} {json} | true", scene.top, scene.cache.display());
        let run = Run::of("/bin/sh").args(["-c", &script]).envs(scene.store.env());
        run.cwd(scene.store.scratch.path()).run().expect(0);
    }
    scene.is_complete();
    let script = format!("{PROGRAM} push-closure {} --to {} >&-", scene.top, scene.cache.display());
    drop(
        Run::of("/bin/sh")
            .args(["-c", &script])
            .envs(scene.store.env())
            .cwd(scene.store.scratch.path())
            .run(),
    );
    let help = format!("{PROGRAM} push-closure --help | head -c 1");
    drop(Run::of("/bin/sh").env("PATH", "/usr/bin:/bin").args(["-c", &help]).run().expect(0));
}

#[test]
fn what_is_in_the_target_already_is_not_lost() {
    let scene = Scene::diamond();
    fs::create_dir_all(scene.cache.join("nar")).unwrap();
    let foreign = ["README", "nar/notes.txt", "log/abc.drv", "0123.ls"];
    for file in foreign {
        fs::create_dir_all(scene.cache.join(file).parent().unwrap()).unwrap();
        fs::write(scene.cache.join(file), file).unwrap();
    }
    scene.push_to(scene.url()).run().expect(0);
    for file in foreign {
        assert_eq!(fs::read_to_string(scene.cache.join(file)).unwrap(), file);
    }
    assert_eq!(scene.is_complete().strange.len(), foreign.len());
}

#[test]
fn a_home_that_cannot_be_written_matters_only_to_the_local_cache() {
    let scene = Scene::diamond();
    let home = scene.store.scratch.file("no-home", "");
    let run = |run: Run| {
        let run = run.env("HOME", home.clone().into_os_string());
        ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"]
            .into_iter()
            .fold(run, Run::without)
    };
    run(scene.push().to(scene.url())).run().expect(0);
    scene.is_complete();
    run(scene.push().to("local")).run().expect(3).complains(&[home.to_str().unwrap()]);
    assert!(Path::new(&home).is_file());
    let open = open_to_all(&scene.store.scratch, "open");
    assert!(open.is_dir());
}
