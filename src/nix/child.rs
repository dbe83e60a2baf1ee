//! A child process that is ended when nobody waits for it any more, and in a way that lets it end its own children first.
//!
//! Nix builds in processes of their own. Killed, it leaves them behind, and they go on; asked, it ends them.

use std::io;
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// How long a process that was asked to end may take for it.
const GRACE: Duration = Duration::from_secs(5);

/// How often is looked whether it has.
const PAUSE: Duration = Duration::from_millis(10);

/// A running process.
///
/// Dropped before it has ended, it is asked to end (SIGTERM), and killed where it does not within five seconds. The drop waits
/// for that: the program may end right after it, and then nobody would be left to do it.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    grace: Duration,
}

impl Running {
    /// Starts a command.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        Ok(Self { child: command.spawn()?, grace: GRACE })
    }

    /// Its number, as long as it has not been waited for.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end, and gives what it wrote to the pipes that it was given.
    pub(super) async fn output(mut self) -> io::Result<Output> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (status, stdout, stderr) =
            tokio::try_join!(self.child.wait(), read_all(stdout), read_all(stderr))?;
        Ok(Output { status, stdout, stderr })
    }

    /// Waits until it has ended, for so long at most, and says whether it has.
    fn ends_within(&mut self, limit: Duration) -> bool {
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if started.elapsed() >= limit {
                return false;
            }
            sleep(PAUSE);
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing once it has been waited for, when its number may be another's.
        let Some(id) = self.id() else { return };
        let asked = i32::try_from(id).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, Signal::TERM));
        let is_asked = matches!(asked, Some(Ok(())));
        if !(is_asked && self.ends_within(self.grace)) {
            // What cannot be killed has ended already.
            let _ended = self.child.start_kill();
            self.ends_within(self.grace);
        }
    }
}

async fn read_all(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Stdio;

    use super::*;

    /// A shell that does something at SIGTERM, and runs until then. It has begun when this returns.
    async fn shell(at_term: &str) -> Running {
        let mut command = Command::new("/bin/sh");
        let script = format!("trap '{at_term}' TERM; echo; while :; do sleep 0.01; done");
        let mut running =
            Running::start(command.args(["-c", &script]).stdout(Stdio::piped())).expect("a shell");
        let stdout = running.child.stdout.as_mut().expect("a pipe");
        assert_eq!(stdout.read_u8().await.expect("a line"), b'\n');
        running
    }

    /// Whether there is such a process, be it only as a zombie.
    fn is_there(id: u32) -> bool {
        Path::new(&format!("/proc/{id}")).exists()
    }

    #[tokio::test]
    async fn dropped_it_is_asked_to_end_and_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("asked");
        let running = shell(&format!("sleep 0.2; touch {}; exit", file.display())).await;
        let id = running.id().expect("it runs");
        drop(running);
        assert!(file.exists() && !is_there(id));
    }

    #[tokio::test]
    async fn what_does_not_end_when_it_is_asked_is_killed() {
        let mut running = shell("").await;
        running.grace = Duration::from_millis(100);
        let id = running.id().expect("it runs");
        drop(running);
        assert!(!is_there(id));
    }

    #[tokio::test]
    async fn what_it_writes_is_read_however_much_it_is() {
        let mut command = Command::new("/bin/sh");
        let script = "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3";
        let command = command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = Running::start(command).expect("a shell").output().await.expect("an end");
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 200_000));
        assert_eq!(output.status.code(), Some(3));
    }
}
