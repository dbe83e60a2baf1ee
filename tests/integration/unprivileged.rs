//! A user who does not own the store, and a database that can or cannot be read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::LIMIT;
use crate::support::cache::assert_closed;
use crate::support::nix::{Nix, Store, with_every_nix};
use crate::support::outcome::count;
use crate::support::program::{Run, open_to_all};
use crate::support::project;
use crate::support::scene::Scene;

/// A scene whose cache any user can write to.
fn scene(nix: &Nix) -> Scene {
    let mut scene = Scene::signed(nix, &project::diamond(), "top");
    scene.cache = open_to_all(&scene.store.scratch, "open").join("cache");
    scene
}

/// A Nix daemon for a store, run by whoever can read its database.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn new(store: &Store) -> Self {
        let socket = open_to_all(&store.scratch, "daemon").join("socket");
        let mut command = store.command("nix-daemon");
        if !rustix::process::geteuid().is_root() {
            // Root of a user namespace can read what its owner has forbidden itself.
            let mut inside = Command::new("unshare");
            inside.arg("-r").arg(command.get_program()).env_clear();
            inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command = inside;
        }
        command.env("NIX_DAEMON_SOCKET_PATH", &socket).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the Nix daemon does not run");
            assert!(started.elapsed() < LIMIT, "the Nix daemon does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket }
    }

    /// The same run, through this daemon.
    fn serve(&self, run: Run) -> Run {
        run.env("NIX_REMOTE", "daemon").env("NIX_DAEMON_SOCKET_PATH", self.socket.clone())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn forbid(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap();
}

/// What two ways to the same plan must agree on.
fn plan(report: &Value) -> Value {
    let target = &report["targets"][0];
    let of = |class: &str| (class.to_owned(), target[class].clone());
    ["closure", "present", "upstream", "excluded", "push", "failed", "blocked"].into_iter().map(of).collect()
}

#[test]
fn whoever_can_read_the_store_can_push_it() {
    with_every_nix(|nix| {
        let scene = scene(nix);
        let outcome = scene.push_to(scene.url()).unprivileged(&scene.store).run().expect(0);
        assert_eq!(count(&outcome.target(), "pushed"), 4);
        scene.is_complete();
        scene.comes_back_from(&scene.url(), &scene.key);
    });
}

#[test]
fn what_was_just_built_is_seen_while_the_database_is_in_use() {
    with_every_nix(|nix| {
        let mut scene = scene(nix);
        // A connection that stays open keeps the write-ahead log from being folded in.
        let mut holder = scene.store.command("nix-store");
        let mut holder =
            holder.args(["--serve", "--write"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        greet(&mut holder);
        let later = scene.store.build_one(&project::multi(), "user");
        let wal = scene.store.db().join("db.sqlite-wal");
        assert!(
            fs::metadata(&wal).is_ok_and(|meta| meta.len() > 0),
            "there is no write-ahead log to be seen through"
        );
        scene.closure = scene.store.closure(&[&later]);
        for unprivileged in [true, false] {
            let run = Run::push(&scene.store).arg(&later).args(["--json", "--allow-unsigned"]);
            let cache = scene.cache.with_extension(unprivileged.to_string());
            let run = run.to(&cache);
            let run = if unprivileged { run.unprivileged(&scene.store) } else { run };
            run.run().expect(0);
            assert_eq!(assert_closed(&cache, &scene.store.dir_text(), &[]).paths(), scene.names());
        }
        drop(holder.stdin.take());
        drop(holder.wait());
    });
}

/// Says hello to `nix-store --serve` and waits for its answer, after which it has opened the store.
fn greet(holder: &mut Child) {
    use std::io::{Read as _, Write as _};
    let hello: Vec<u8> = [0x390c_9deb_u64, 0x205].iter().flat_map(|word| word.to_le_bytes()).collect();
    holder.stdin.as_mut().unwrap().write_all(&hello).unwrap();
    let mut answer = [0; 16];
    holder.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], 0x5452_eecb_u32.to_le_bytes());
}

#[test]
fn the_database_and_the_command_give_the_same_plan() {
    with_every_nix(|nix| {
        let scene = scene(nix);
        let own = scene.store.key("ours-1");
        scene.store.run("nix", &["copy", "--to", &scene.url(), &scene.path("base")]);
        let read = || scene.push_to(scene.url()).args(["--dry-run", "--exclude=-left$"]);
        let by_database = read().run().expect(1).json();
        let daemon = Daemon::new(&scene.store);
        let also_by_database = daemon.serve(read().unprivileged(&scene.store)).run().expect(1).json();
        forbid(&scene.store.db().join("db.sqlite"));
        let by_command = daemon.serve(read().unprivileged(&scene.store)).run().expect(1).json();
        assert_eq!(plan(&by_database), plan(&by_command));
        assert_eq!(plan(&by_database), plan(&also_by_database));
        assert_eq!(count(&by_command["targets"][0], "push"), 1);

        // And what is pushed by it is the same too: signatures, content addresses, derivers.
        let push = |run: Run, name: &str| {
            let cache = open_to_all(&scene.store.scratch, name);
            let run = run.to(&cache).arg("--sign-key-file").arg(&own.file);
            run.run().expect(0);
            assert_closed(&cache, &scene.store.dir_text(), &[])
        };
        fs::set_permissions(&own.file, fs::Permissions::from_mode(0o644)).unwrap();
        let by_command = push(daemon.serve(scene.push().arg("-q").unprivileged(&scene.store)), "by-command");
        fs::set_permissions(scene.store.db().join("db.sqlite"), fs::Permissions::from_mode(0o644)).unwrap();
        let by_database = push(scene.push(), "by-database");
        assert_eq!(by_command.paths(), scene.names());
        for (path, entry) in &by_database.entries {
            let sorted = |text: &str| {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&entry.text), sorted(&by_command.entries[path].text));
        }
    });
}

#[test]
fn content_addresses_and_odd_paths_are_the_same_by_the_command() {
    with_every_nix(|nix| {
        let mut scene = Scene::signed(nix, &project::zoo(), "zoo");
        let open = open_to_all(&scene.store.scratch, "open");
        scene.cache = open.join("by-database");
        scene.push_to(scene.url()).run().expect(0);
        let by_database = scene.is_complete();
        let daemon = Daemon::new(&scene.store);
        forbid(&scene.store.db());
        scene.cache = open.join("by-command");
        daemon.serve(scene.push_to(scene.url()).unprivileged(&scene.store)).run().expect(0);
        let by_command = scene.is_complete();
        for (path, entry) in &by_database.entries {
            assert_eq!(entry.text, by_command.entries[path].text);
        }
        fs::set_permissions(scene.store.db(), fs::Permissions::from_mode(0o755)).unwrap();
    });
}

#[test]
fn a_database_that_cannot_be_read_by_any_means_is_named() {
    with_every_nix(|nix| {
        let scene = scene(nix);
        forbid(&scene.store.db().join("db.sqlite"));
        let outcome = scene.push().to(scene.url()).unprivileged(&scene.store).run().expect(3);
        outcome.complains(&[scene.store.scratch.path().to_str().unwrap()]);
        assert!(!scene.cache.exists());
    });
}

#[test]
fn a_file_in_the_store_that_cannot_be_read_is_named_and_the_rest_is_pushed() {
    with_every_nix(|nix| {
        let scene = scene(nix);
        forbid(&Path::new(&scene.path("left")).join("text"));
        let outcome = scene.push_to(scene.url()).unprivileged(&scene.store).run().expect(1);
        let target = outcome.target();
        assert_eq!(crate::support::outcome::names(&target, "failed"), scene.names_of(["left"]));
        assert_eq!(crate::support::outcome::names(&target, "blocked"), scene.names_of(["top"]));
        let error = target["failed"][0]["error"].as_str().unwrap();
        assert!(error.contains("ermission denied"), "{error}");
        assert_eq!(scene.is_closed().paths(), scene.names_of(["base", "right"]));
    });
}
