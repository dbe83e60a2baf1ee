//! The servers of the dev shell, as `just` starts and stops them: in copies of the project's recipes and scripts, by an
//! ordinary user, and used as their clients do.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::support::LIMIT;
use crate::support::nats::Client;
use crate::support::outcome::Outcome;
use crate::support::program::{NOBODY, Run, ordinary_user};
use crate::support::scratch::{Scratch, copy_tree};

/// A copy of the recipes and scripts, which belongs to an ordinary user. Its servers end when it is dropped.
struct Project {
    scratch: Scratch,
    dir: PathBuf,
}

impl Project {
    fn new() -> Self {
        Self::named("project")
    }

    fn named(name: &str) -> Self {
        let scratch = Scratch::new();
        let dir = scratch.dir(name);
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        copy_tree(&repository.join("scripts"), &dir.join("scripts"));
        fs::copy(repository.join("justfile"), dir.join("justfile")).unwrap();
        // Where root's cargo has put it, others do not get.
        fs::copy(just(), scratch.dir("bin").join("just")).unwrap();
        scratch.dir("home");
        give_away(scratch.path());
        Self { scratch, dir }
    }

    /// A program, in the project's directory and in the environment of its user.
    fn run(&self, program: impl AsRef<std::ffi::OsStr>) -> Run {
        Run::by_ordinary_user(program).envs(self.env()).cwd(&self.dir)
    }

    fn env(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap();
        let home = self.scratch.join("home").to_str().unwrap().to_owned();
        // Without its own port, a test would meet those that run beside it.
        [("PATH", path), ("HOME", home), ("NATS_PORT", "0".into())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// A recipe.
    fn just(&self, recipe: &str) -> Run {
        self.run(self.scratch.join("bin/just")).arg(recipe)
    }

    /// Runs a recipe that must succeed.
    #[track_caller]
    fn must(&self, recipe: &str) -> Outcome {
        self.just(recipe).run().expect(0)
    }

    /// What the database answers to a client that is started as it was said.
    #[track_caller]
    fn sql(&self, said: &Outcome, statement: &str) -> String {
        let client = format!("{} --no-psqlrc --tuples-only --no-align --command \"$1\"", psql_of(said));
        let outcome = self.run("bash").args(["-c", &client, "bash", statement]).run().expect(0);
        outcome.stdout.trim().to_owned()
    }

    fn state(&self, name: &str) -> PathBuf {
        self.dir.join(".services").join(name)
    }

    /// The process of a server.
    fn process(&self, file: &str) -> Pid {
        let text = fs::read_to_string(self.state(file)).unwrap();
        Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
    }

    /// Sends a signal to a server.
    fn signal(&self, file: &str, signal: Signal) -> OwnedFd {
        let handle = pidfd_open(self.process(file), PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&handle, signal).unwrap();
        handle
    }

    /// Kills a server as the kernel does that is out of memory.
    fn kill(&self, file: &str) {
        wait_for(&self.signal(file, Signal::KILL), "the end of a killed server");
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        for (state, recipe) in [("postgresql", "db-stop"), ("nats", "nats-stop")] {
            if self.state(state).exists() {
                let mut command = ordinary_user(self.scratch.join("bin/just"));
                command.arg(recipe).env_clear().envs(self.env()).current_dir(&self.dir);
                drop(command.stdin(Stdio::null()).output());
            }
        }
    }
}

const DATABASE: &str = "postgresql/data/postmaster.pid";
const NATS: &str = "nats/pid";

/// Where `just` is.
fn just() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo = std::env::home_dir().unwrap_or_default().join(".cargo/bin");
    std::env::split_paths(&path)
        .chain([cargo])
        .map(|dir| dir.join("just"))
        .find(|file| file.is_file())
        .expect("just is needed for this test (scripts/setup services)")
}

/// Lets the ordinary user own a tree, where that is somebody else.
fn give_away(path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path());
        }
    }
}

/// Waits until there is something to read, or until the process of a handle has ended.
#[track_caller]
fn wait_for(what: &impl std::os::fd::AsFd, name: &str) {
    let limit = Timespec { tv_sec: i64::try_from(LIMIT.as_secs()).unwrap(), tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(what, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "{name} does not come");
}

/// The command that was said to connect.
#[track_caller]
fn psql_of(said: &Outcome) -> String {
    let (_, command) =
        said.stdout.split_once("Connect with `").unwrap_or_else(|| panic!("no command\n{said}"));
    command.rsplit_once("`, or set PGHOST").unwrap().0.to_owned()
}

/// The directory of the socket, where its name needs no quotes.
#[track_caller]
fn host_of(said: &Outcome) -> PathBuf {
    PathBuf::from(psql_of(said).strip_prefix("psql --host ").unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// A program that does nothing until it is dropped, by the ordinary user.
struct Innocent(Child);

impl Innocent {
    fn new() -> Self {
        let mut command = ordinary_user("cat");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Once it answers, it is no longer root's.
        child.stdin.as_mut().unwrap().write_all(b".").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }

    /// Puts its number in the place of that of a server that has crashed.
    fn takes_the_number_in(&self, file: &Path) {
        let text = fs::read_to_string(file).unwrap();
        let rest = text.split_once('\n').map_or(String::new(), |(_, rest)| format!("\n{rest}"));
        fs::write(file, format!("{}{rest}", self.0.id())).unwrap();
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let alive = self.0.try_wait().unwrap().is_none();
        drop(self.0.kill());
        drop(self.0.wait());
        assert!(alive || std::thread::panicking(), "somebody else's process was ended");
    }
}

#[track_caller]
fn address_of(said: &Outcome) -> String {
    let url = said.stdout.lines().find_map(|line| line.strip_prefix("NATS_URL=nats://"));
    url.unwrap_or_else(|| panic!("no address\n{said}")).to_owned()
}

#[test]
fn the_database_keeps_what_is_written_and_is_not_on_the_network() {
    let project = Project::new();
    project.just("db-status").run().expect(3).says(&["does not run", "just db-start"]);
    project.must("db-stop").says(&["does not run"]);
    assert!(!project.dir.join(".services").exists(), "made by those that only look");
    let said = project.must("db-start");
    project.sql(&said, "create table tasks (name text); insert into tasks values ('Tür')");
    assert_eq!(psql_of(&project.must("db-start").says(&["already"])), psql_of(&said));
    assert_eq!(psql_of(&project.must("db-status")), psql_of(&said));

    assert_eq!(project.sql(&said, "select current_user = current_database()"), "t");
    for (name, value) in
        [("listen_addresses", ""), ("server_encoding", "UTF8"), ("unix_socket_permissions", "0700")]
    {
        assert_eq!(project.sql(&said, &format!("show {name}")), value, "{name}");
    }
    let rules = "select distinct type, auth_method from pg_hba_file_rules order by 1";
    assert_eq!(project.sql(&said, rules), "host|reject\nlocal|peer");
    for private in
        [project.dir.join(".services"), project.state("postgresql"), project.state("postgresql/data")]
    {
        assert_eq!(mode(&private), 0o700, "{}", private.display());
    }

    project.must("db-stop").says(&["has stopped"]);
    assert!(!host_of(&said).join(".s.PGSQL.5432").exists());
    project.just("db-status").run().expect(3);
    let said = project.must("db-start");
    assert_eq!(project.sql(&said, "select name from tasks"), "Tür");
}

#[test]
fn a_killed_database_starts_again_when_its_last_query_is_done() {
    let project = Project::new();
    let said = project.must("db-start");
    project.sql(&said, "create table tasks as select 7 as number");
    project.kill(DATABASE);
    project.just("db-status").run().expect(3);
    let said = project.must("db-start");
    assert_eq!(project.sql(&said, "select number from tasks"), "7");

    // This one does not see that its server is gone before it is done.
    let busy = "do $$ begin raise notice 'busy'; perform count(*) from generate_series(1, 5000000); end $$";
    let mut client = ordinary_user("psql");
    client
        .env_clear()
        .envs(project.env())
        .current_dir(&project.dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut client = client.arg("--host").arg(host_of(&said)).args(["--command", busy]).spawn().unwrap();
    let mut notice = String::new();
    BufReader::new(client.stderr.take().unwrap()).read_line(&mut notice).unwrap();
    assert!(notice.contains("busy"), "{notice}");
    project.kill(DATABASE);
    let said = project.must("db-start");
    assert_eq!(project.sql(&said, "select number from tasks"), "7");
    client.wait().unwrap();
}

#[test]
fn a_process_number_that_somebody_else_has_now_is_not_taken_for_the_server() {
    let project = Project::new();
    let (said, innocent) = (project.must("db-start"), Innocent::new());
    project.must("nats-start");
    project.kill(DATABASE);
    project.kill(NATS);
    for file in [DATABASE, "postgresql/.s.PGSQL.5432.lock", NATS] {
        innocent.takes_the_number_in(&project.state(file));
    }
    for service in ["db", "nats"] {
        project.just(&format!("{service}-status")).run().expect(3);
        project.must(&format!("{service}-stop")).says(&["does not run"]);
        let outcome = project.must(&format!("{service}-start"));
        assert!(!outcome.stdout.contains("already"), "{outcome}");
    }
    assert_eq!(project.sql(&said, "select 1"), "1");
}

#[test]
fn the_socket_of_a_project_far_down_is_in_a_short_directory() {
    let project = Project::named(&"deep/".repeat(30));
    let run = project.scratch.dir("run");
    give_away(&run);
    let with = |recipe: &str, run: &Path| project.just(recipe).env("XDG_RUNTIME_DIR", run);
    let host = project.run("scripts/database").arg("host").env("XDG_RUNTIME_DIR", &run).run().expect(0);
    let host = PathBuf::from(host.stdout.trim_end());
    assert!(host.starts_with(&run), "{}", host.display());

    // Somebody was there before.
    let trap = project.scratch.dir("trap");
    give_away(&trap);
    std::os::unix::fs::symlink(&trap, &host).unwrap();
    let said = with("db-start", &run).run().expect(1);
    said.says(&[host.to_str().unwrap(), "not a directory of yours", "XDG_RUNTIME_DIR"]);
    fs::remove_file(&host).unwrap();

    let said = with("db-start", &run).run().expect(0).says(&["too long for a socket"]);
    assert_eq!(host_of(&said), host);
    assert_eq!(mode(&host), 0o700);
    assert_eq!(project.sql(&said, "select 1"), "1");
    // Another shell has another.
    assert_eq!(host_of(&with("db-status", project.scratch.path()).run().expect(0)), host);
    with("db-stop", project.scratch.path()).run().expect(0);
    assert!(!host.exists(), "{} is left", host.display());

    // One that lies about is used, but not as it is.
    fs::create_dir(&host).unwrap();
    give_away(&host);
    fs::set_permissions(&host, fs::Permissions::from_mode(0o777)).unwrap();
    with("db-start", &run).run().expect(0);
    assert_eq!(mode(&host), 0o700);
}

#[test]
fn the_path_of_a_project_may_have_any_characters() {
    for name in ["a \"b\" it's $(id) `id` $HOME \\ ü", "one,two"] {
        let project = Project::named(name);
        let said = project.must("db-start");
        assert_eq!(project.sql(&said, "select 1"), "1", "{name}");
        let in_the_project = project.state("postgresql/.s.PGSQL.5432").exists();
        assert_eq!(in_the_project, !name.contains(','), "{name}");
        Client::new(&address_of(&project.must("nats-start"))).keep("events", "events.*");
        assert!(project.state("nats/jetstream").exists(), "{name}");
        project.must("nats-stop");
        project.must("db-stop");
    }
}

#[test]
fn projects_run_side_by_side() {
    let (one, two) = (Project::new(), Project::new());
    let (in_one, in_two) = (one.must("db-start"), two.must("db-start"));
    one.sql(&in_one, "create table only_here ()");
    assert_eq!(two.sql(&in_two, "select to_regclass('only_here') is null"), "t");
    let (at_one, at_two) = (one.must("nats-start"), two.must("nats-start"));
    assert_ne!(address_of(&at_one), address_of(&at_two));
    one.must("db-stop");
    one.must("nats-stop");
    assert_eq!(two.sql(&in_two, "select 1"), "1");
    Client::new(&address_of(&at_two));
}

#[test]
fn two_starts_at_once_are_one_start() {
    let project = Project::new();
    for (recipe, file) in [("db-start", DATABASE), ("nats-start", NATS)] {
        let (one, two) = (project.just(recipe).spawn(), project.just(recipe).spawn());
        let outcomes = [one.wait().expect(0), two.wait().expect(0)];
        let late = outcomes.iter().filter(|outcome| outcome.stdout.contains("already")).count();
        assert_eq!(late, 1, "{}\n{}", outcomes[0], outcomes[1]);
        project.process(file);
    }
}

#[test]
fn root_is_told_that_postgresql_refuses() {
    let project = Project::new();
    let just = project.scratch.join("bin/just");
    let run = if rustix::process::geteuid().is_root() {
        Run::of(just)
    } else {
        Run::of("unshare").arg("--map-root-user").arg(just)
    };
    let outcome = run.arg("db-start").envs(project.env()).cwd(&project.dir).run().expect(1);
    outcome.says(&["refuses to run as root", "ordinary user"]);
    assert!(!project.dir.join(".services").exists());
}

#[test]
fn a_cluster_that_was_half_made_is_made_anew() {
    let project = Project::new();
    let state = project.scratch.dir("project/.services/postgresql");
    give_away(&project.dir);
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, &state, inotify::WatchFlags::CREATE).unwrap();
    let mut events = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut events);

    let mut start: Command = ordinary_user(project.scratch.join("bin/just"));
    start.arg("db-start").env_clear().envs(project.env()).current_dir(&project.dir).stdin(Stdio::null());
    let mut start = start.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
    loop {
        wait_for(&watch, "the new cluster");
        if events.next().unwrap().file_name().is_some_and(|name| name.to_bytes() == b"data.new") {
            break;
        }
    }
    kill_process_group(Pid::from_child(&start), Signal::KILL).unwrap();
    start.wait().unwrap();
    assert!(state.join("data.new").exists() && !state.join("data").exists(), "not killed half way");
    // It would have written this a moment later, and not begun again where it is.
    fs::write(state.join("data.new/PG_VERSION"), "").unwrap();

    let said = project.must("db-start");
    assert_eq!(project.sql(&said, "select 1"), "1");
    assert!(!state.join("data.new").exists());
}

#[test]
fn a_cluster_of_another_version_is_named() {
    let project = Project::new();
    project.must("db-start");
    project.must("db-stop");
    let version = project.state("postgresql/data/PG_VERSION");
    let ours = fs::read_to_string(&version).unwrap();
    fs::write(&version, "9.6\n").unwrap();
    let ours = format!("this is PostgreSQL {}:", ours.trim());
    project.just("db-start").run().expect(1).says(&["is of PostgreSQL 9.6", &ours, "pg_dumpall", "remove"]);
    assert!(!project.state(DATABASE).exists());
}

#[test]
fn a_server_that_does_not_start_has_its_log_shown() {
    let project = Project::new();
    project.must("db-start");
    project.must("db-stop");
    let config = project.state("postgresql/data/postgresql.conf");
    fs::OpenOptions::new().append(true).open(&config).unwrap().write_all(b"nonsense = 1\n").unwrap();
    let log = project.state("postgresql/log");
    project.just("db-start").run().expect(1).says(&["parameter \"nonsense\"", log.to_str().unwrap()]);
    project.just("db-status").run().expect(3);

    let jetstream = project.dir.join(".services/nats/jetstream");
    fs::create_dir(jetstream.parent().unwrap()).unwrap();
    fs::write(&jetstream, "not a directory").unwrap();
    give_away(jetstream.parent().unwrap());
    let log = project.state("nats/log");
    project.just("nats-start").run().expect(1).says(&["not a directory", log.to_str().unwrap()]);
    project.just("nats-status").run().expect(3);
}

#[test]
fn messages_pass_and_jetstream_keeps_them() {
    let project = Project::new();
    project.just("nats-status").run().expect(3).says(&["does not run", "just nats-start"]);
    project.must("nats-stop").says(&["does not run"]);
    let said = project.must("nats-start");
    assert!(address_of(&said).starts_with("127.0.0.1:"), "{said}");
    assert_eq!(address_of(&project.must("nats-start").says(&["already"])), address_of(&said));
    assert_eq!(address_of(&project.must("nats-status")), address_of(&said));
    assert_eq!(mode(&project.state("nats")), 0o700);

    let (mut reader, mut writer) = (Client::new(&address_of(&said)), Client::new(&address_of(&said)));
    assert_eq!(reader.info["host"], "127.0.0.1");
    assert_eq!(reader.info["jetstream"], true);
    reader.subscribe("greetings.*");
    writer.publish("greetings.morning", "", "good morning");
    assert_eq!(reader.next(), ("greetings.morning".into(), "good morning".into()));

    writer.keep("orders", "orders.*");
    assert_eq!(writer.ask("orders.new", "one")["seq"], 1);
    project.must("nats-stop").says(&["has stopped"]);
    TcpStream::connect(address_of(&said)).unwrap_err();

    let said = project.must("nats-start");
    let mut client = Client::new(&address_of(&said));
    assert_eq!(client.kept("orders", 1), "one");
    assert_eq!(client.ask("orders.new", "two")["seq"], 2);
    project.kill(NATS);
    project.just("nats-status").run().expect(3);

    let mut client = Client::new(&address_of(&project.must("nats-start")));
    assert_eq!((client.kept("orders", 1), client.kept("orders", 2)), ("one".into(), "two".into()));
}

#[test]
fn a_stop_is_not_over_before_the_server_is() {
    let project = Project::new();
    let said = project.must("nats-start");
    let handle = project.signal(NATS, Signal::STOP);
    let stop = project.run("timeout").arg("1").arg(project.scratch.join("bin/just")).arg("nats-stop");
    let outcome = stop.run();
    pidfd_send_signal(&handle, Signal::CONT).unwrap();
    outcome.expect(124);
    wait_for(&handle, "the end of NATS");
    project.must("nats-stop").says(&["does not run"]);
    TcpStream::connect(address_of(&said)).unwrap_err();
}

#[test]
fn a_port_that_nats_cannot_have_is_named() {
    let project = Project::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let with = |port: &str| project.just("nats-start").env("NATS_PORT", port);
    let words = [format!("port {port} is taken"), "NATS_PORT".into()];
    with(&port).run().expect(1).says(&words.each_ref().map(String::as_str));
    project.just("nats-status").run().expect(3);
    for wrong in ["port", "-1", "65536", "4222 ", "0x10"] {
        with(wrong).run().expect(1).says(&[&format!("NATS_PORT is \"{wrong}\""), "number"]);
    }
    drop(taken);
    let said = with(&port).run().expect(0);
    assert_eq!(address_of(&said), format!("127.0.0.1:{port}"));
}
