//! Runs the program under test: a clean environment, a time limit on every run, and all that can be seen of it from outside.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::LIMIT;
use super::nix::Store;
use super::outcome::Outcome;
use super::scratch::Scratch;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_cache-helper");

/// One run to be.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    stdin: Vec<u8>,
    limit: Duration,
    colour: bool,
    watch_memory: bool,
}

impl Run {
    /// The program in the environment of a store.
    pub(crate) fn new(store: &Store) -> Self {
        Self::of(PROGRAM).envs(store.env()).cwd(store.scratch.path())
    }

    /// `push-closure` in the environment of a store.
    pub(crate) fn push(store: &Store) -> Self {
        Self::new(store).arg("push-closure")
    }

    /// Any program, with an empty environment.
    pub(crate) fn of(program: impl AsRef<std::ffi::OsStr>) -> Self {
        Self::from(Command::new(program))
    }

    /// The same by an ordinary user, who must be able to reach the program.
    pub(crate) fn by_ordinary_user(program: impl AsRef<std::ffi::OsStr>) -> Self {
        Self::from(ordinary_user(program))
    }

    fn from(mut command: Command) -> Self {
        command.env_clear();
        Self { command, stdin: Vec::new(), limit: LIMIT, colour: false, watch_memory: false }
    }

    /// The same run, but by a user who owns nothing here: the program is copied to where that user can reach it.
    pub(crate) fn unprivileged(mut self, store: &Store) -> Self {
        let copy = store.scratch.join("cache-helper");
        if !copy.exists() {
            std::fs::copy(PROGRAM, &copy).unwrap();
        }
        let home = open_to_all(&store.scratch, "their-home");
        let mut command = ordinary_user(&copy);
        command.env_clear().args(self.command.get_args());
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        for (name, below) in [("HOME", ""), ("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config")] {
            command.env(name, home.join(below));
        }
        command.current_dir(&home);
        self.command = command;
        self
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.command.arg(arg.into());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args.into_iter().map(Into::into));
        self
    }

    /// Adds `--to`.
    pub(crate) fn to(self, cache: impl AsRef<Path>) -> Self {
        self.arg("--to").arg(cache.as_ref())
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.command.env(name, value.into());
        self
    }

    /// Sets variables.
    pub(crate) fn envs(mut self, all: Vec<(String, String)>) -> Self {
        self.command.envs(all);
        self
    }

    /// Takes a variable away.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Gives standard input.
    pub(crate) fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// Sets the working directory.
    pub(crate) fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets how long it may take.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Allows colours, which are otherwise held to be absent.
    pub(crate) fn colourful(mut self) -> Self {
        self.colour = true;
        self
    }

    /// Watches its memory.
    pub(crate) fn watch_memory(mut self) -> Self {
        self.watch_memory = true;
        self
    }

    /// Starts it and comes back at once.
    pub(crate) fn spawn(mut self) -> Running {
        let line = format!("{:?}", self.command);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that what it leaves behind can be ended with it.
        self.command.process_group(0);
        let started = Instant::now();
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
        let id = child.id();
        let handle = pidfd_open(pid(id), PidfdFlags::empty()).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = std::mem::take(&mut self.stdin);
        // A program that does not read its input must not hold up the test.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = read_all(child.stdout.take().unwrap());
        let stderr = read_lines(child.stderr.take().unwrap(), started);
        let (sender, ended) = channel();
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            sender.send((status, started.elapsed())).ok();
        });
        let peak = self.watch_memory.then(|| std::thread::spawn(move || peak_memory(id)));
        Running {
            line,
            id,
            handle,
            stdout,
            stderr,
            ended,
            peak,
            started,
            limit: self.limit,
            colour: self.colour,
        }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Outcome {
        self.spawn().wait()
    }
}

/// The user that root becomes to be an ordinary one: Linux's nobody.
pub(crate) const NOBODY: u32 = 65534;

/// A command for a program that is not run as root: by who runs the tests, or by nobody where that is root.
pub(crate) fn ordinary_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
    command.args(["--clear-groups", "--inh-caps=-all"]).arg(program.as_ref());
    command
}

/// A directory that every user can write to.
pub(crate) fn open_to_all(scratch: &Scratch, name: &str) -> PathBuf {
    let dir = scratch.dir(name);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

/// A run that has started.
#[derive(Debug)]
pub(crate) struct Running {
    line: String,
    id: u32,
    handle: OwnedFd,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<Vec<(Duration, String)>>,
    ended: Receiver<(ExitStatus, Duration)>,
    peak: Option<JoinHandle<u64>>,
    started: Instant,
    limit: Duration,
    colour: bool,
}

impl Running {
    /// Something that can send signals to it, also from another thread and after it has ended.
    pub(crate) fn handle(&self) -> Handle {
        Handle(self.handle.try_clone().unwrap())
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&at_once)).unwrap() == 1
    }

    /// Whether it has said what to do at a signal, which would otherwise just end it.
    pub(crate) fn handles(&self, signal: Signal) -> bool {
        let program = std::fs::read_link(format!("/proc/{}/exe", self.id)).unwrap_or_default();
        if program != Path::new(PROGRAM) {
            // Still what starts it.
            return false;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        caught >> (signal.as_raw() - 1) & 1 == 1
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.handle().signal(signal);
    }

    /// Waits for its end, which must come within the limit.
    pub(crate) fn wait(self) -> Outcome {
        let left = self.limit.saturating_sub(self.started.elapsed());
        let (status, elapsed) = match self.ended.recv_timeout(left) {
            Ok(ended) => ended,
            Err(RecvTimeoutError::Timeout) => {
                rustix::process::kill_process_group(pid(self.id), Signal::KILL).ok();
                let stderr = self.stderr.join().unwrap();
                let stderr: String = stderr.iter().map(|(_, line)| line.as_str()).collect();
                panic!("{} hangs: not done after {:?}; standard error:\n{stderr}", self.line, self.limit);
            }
            Err(RecvTimeoutError::Disconnected) => panic!("{} could not be waited for", self.line),
        };
        // What it started and left behind would keep the pipes open.
        rustix::process::kill_process_group(pid(self.id), Signal::KILL).ok();
        let outcome = Outcome {
            line: self.line,
            status,
            stdout: self.stdout.join().unwrap(),
            stderr_lines: self.stderr.join().unwrap(),
            elapsed,
            peak_memory: self.peak.map_or(0, |peak| peak.join().unwrap()),
        };
        outcome.check_manners(self.colour);
        outcome
    }
}

/// Sends signals to a program, and never to another one that got its number.
#[derive(Debug)]
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// Sends a signal; nothing happens where the program has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.0, signal).ok();
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// The kernel's own high-water mark of a process, read until it ends. (What `wait4` reports is no use: it begins with the size of
/// the process that forked.)
fn peak_memory(id: u32) -> u64 {
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        // A process that has ended, but is not yet waited for, has no memory.
        let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { return peak };
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        peak = kilobytes * 1024;
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        drop(pipe.read_to_end(&mut all));
        String::from_utf8_lossy(&all).into_owned()
    })
}

fn read_lines(pipe: impl Read + Send + 'static, started: Instant) -> JoinHandle<Vec<(Duration, String)>> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            lines.push((started.elapsed(), String::from_utf8_lossy(&line).into_owned()));
            line.clear();
        }
        lines
    })
}
