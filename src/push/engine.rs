//! Many paths at once: packing on threads, uploading over the network, publishing in order.
//!
//! One task owns the [`Schedule`] and decides; workers only pack, send and report back. Packing is limited by cores,
//! sending by connections, and what is packed but not sent by both, so that memory stays within the budget whatever
//! the closure is.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix_derivation::StoreDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::limits::{Limits, UPLOADS};
use super::pack::{Method, PackError, PackSettings, PackedNar, pack};
use crate::cache::narinfo::{StoredNar, narinfo_of, object_name};
use crate::cache::{Answer, BinaryCache, ObjectName, Reach, SigningKey, WriteError};
use crate::event::{Event, Progress, Reporter};
use crate::graph::{Closure, PathIndex, PathInfo};
use crate::net::UploadBody;
use crate::nix::Store;
use crate::plan::{Plan, Schedule, Tally};
use crate::text::size;

/// After so many writes in a row that nobody took, each tried several times, a target is taken to be down.
const GIVE_UP_AFTER: usize = 3;

/// How long what is under way may go on when somebody wants to stop: enough for a NAR that is nearly there.
const GRACE: Duration = Duration::from_secs(10);

/// Why a path is not in the target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Its registration cannot be written as a narinfo.
    #[error("its narinfo cannot be written: {0}")]
    Narinfo(#[from] nix_narinfo::BuildError),
}

impl Failure {
    /// What the failure says of the other paths.
    fn reach(&self) -> Reach {
        match self {
            Self::Write(error) => error.reach(),
            // No room for temporary files: every large path would fail the same way.
            Self::Pack(PackError::Staging { .. }) => Reach::Cache,
            Self::Pack(_) | Self::Narinfo(_) => Reach::Object,
        }
    }
}

/// What became of a push.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was published: count and NAR bytes.
    pub pushed: Tally,
    /// What was stored for that, in bytes, compressed.
    pub file_bytes: u64,
    /// What failed. A path on which the target gave up altogether is not finished rather than failed.
    pub failed: Vec<(PathIndex, Failure)>,
    /// What was withheld because something it refers to failed.
    pub blocked: Vec<(PathIndex, PathIndex)>,
    /// What was not attempted, or not finished, because the push stopped early.
    pub unfinished: Vec<PathIndex>,
    /// Why the push stopped early.
    pub stopped: Option<Stop>,
}

/// Why a push stopped before everything was tried.
#[derive(Debug)]
pub enum Stop {
    /// The target will take nothing more; the failure is that of the path which found out.
    Target(Box<Failure>),
    /// Somebody asked for it.
    Interrupted,
}

/// One push to one target.
#[derive(Debug)]
pub struct Push<'a> {
    /// What the plan is about.
    pub closure: &'a Closure,
    /// What has to move.
    pub plan: &'a Plan,
    /// Where the files are.
    pub store: &'a Store,
    /// Where they go.
    pub target: Arc<dyn BinaryCache>,
    /// What signs them.
    pub key: Option<&'a SigningKey>,
    /// How they are compressed, and how hard.
    pub compression: (Method, i32),
    /// How much may be used at once.
    pub limits: Limits,
    /// Where large NARs are kept on their way, unless the target has a place of its own.
    pub temporary: PathBuf,
}

impl Push<'_> {
    /// Moves everything that the plan says.
    ///
    /// A path's failure stops only what refers to it. When `interrupted` turns true, nothing new is begun, packing is
    /// abandoned, and what is being sent has a few seconds to get there.
    ///
    /// # Errors
    ///
    /// When the target cannot be written at all, which shows before anything is packed.
    pub async fn run(
        &self,
        reporter: &Reporter,
        interrupted: watch::Receiver<bool>,
    ) -> Result<Outcome, WriteError> {
        let in_target = self.target.staging_directory()?;
        let named = in_target.is_some();
        let staging = in_target.map_or_else(|| self.temporary.clone(), ToOwned::to_owned);
        let (method, level) = self.compression;
        let settings = Arc::new(PackSettings {
            method,
            level,
            in_memory: self.limits.in_memory(),
            staging,
            named,
            interrupted: interrupted.clone(),
        });
        let run = Run {
            push: self,
            reporter,
            settings,
            schedule: Schedule::new(self.closure, self.plan),
            work: JoinSet::new(),
            packing: 0,
            sending: 0,
            packed: Vec::new(),
            again: Vec::new(),
            objects: HashMap::new(),
            publishable: Vec::new(),
            unavailable: Vec::new(),
            stored: HashMap::new(),
            outcome: Outcome::default(),
        };
        Ok(run.run(interrupted).await)
    }
}

/// Counts what is sent of one NAR, and what of its content has thereby arrived: no more than there is, however often it is
/// sent.
struct Delivery {
    progress: Arc<Progress>,
    nar_size: u64,
    file_size: u64,
    sent: AtomicU64,
}

impl Delivery {
    fn add(&self, bytes: u64) {
        self.progress.add_sent(bytes);
        let before = self.sent.fetch_add(bytes, Ordering::Relaxed);
        let arrived = |sent: u64| {
            let part = u128::from(sent.min(self.file_size)) * u128::from(self.nar_size);
            u64::try_from(part / u128::from(self.file_size.max(1))).unwrap_or(self.nar_size)
        };
        self.progress.add_delivered(arrived(before + bytes) - arrived(before));
    }
}

/// Waits for a deadline, and without one for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a worker reports.
enum Report {
    Packed(PathIndex, Result<PackedNar, PackError>),
    Sent(PathIndex, StoredNar, Result<(), WriteError>),
    /// With the size of what is stored for the path.
    Published(PathIndex, Result<u64, WriteError>),
}

/// What is known of an object that this run has to do with.
enum Object {
    /// It is being sent for one path, and these have the same content, of which one copy in memory is enough.
    OnItsWay(Vec<(PathIndex, StoredNar)>),
    /// It is in the target.
    There,
}

/// The state of a push under way.
struct Run<'a> {
    push: &'a Push<'a>,
    reporter: &'a Reporter,
    settings: Arc<PackSettings>,
    schedule: Schedule<'a>,
    work: JoinSet<Report>,
    packing: usize,
    /// Requests under way: NARs and narinfos.
    sending: usize,
    /// Packed, and waiting for a place to be sent.
    packed: Vec<(PathIndex, PackedNar)>,
    /// To be packed again, because the NAR that was to serve for them could not be sent.
    again: Vec<PathIndex>,
    /// The NARs that were sent or are being sent.
    objects: HashMap<ObjectName, Object>,
    /// Narinfos that may be written, and wait for a place.
    publishable: Vec<PathIndex>,
    /// The writes in a row that found nobody to take them: failures of these paths, or of the whole target.
    unavailable: Vec<(PathIndex, Failure)>,
    /// Where the NARs of unpublished paths are.
    stored: HashMap<PathIndex, StoredNar>,
    outcome: Outcome,
}

impl Run<'_> {
    async fn run(mut self, mut interrupted: watch::Receiver<bool>) -> Outcome {
        let mut order = self.schedule.order().into_iter();
        let mut deadline = None;
        loop {
            self.start_what_may_start(&mut order);
            if self.work.is_empty() {
                break;
            }
            let report = tokio::select! {
                report = self.work.join_next() => report,
                Ok(_) = interrupted.wait_for(|interrupted| *interrupted), if deadline.is_none() => None,
                // Requests are dropped with the rest of the work; nobody sees half of an object.
                () = until(deadline) => break,
            };
            if deadline.is_none() && *interrupted.borrow() {
                deadline = Some(Instant::now() + GRACE);
                self.outcome.stopped.get_or_insert(Stop::Interrupted);
                self.packed.clear();
            }
            match report {
                Some(Ok(report)) => self.take(report),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => {}
            }
        }
        if self.outcome.stopped.is_none() {
            self.settle_unavailable();
        }
        self.outcome.unfinished = self.schedule.unfinished().collect();
        self.outcome
    }

    fn start_what_may_start(&mut self, order: &mut impl Iterator<Item = PathIndex>) {
        if matches!(self.outcome.stopped, Some(Stop::Target(_))) {
            return;
        }
        // Narinfos first: they are small, and each one published is one that a killed run need not repeat.
        while self.sending < UPLOADS {
            if let Some(index) = self.publishable.pop() {
                self.publish(index);
            } else if let Some((index, nar)) = self.packed.pop() {
                // What got blocked while it was packed is not worth the bytes.
                if self.schedule.is_waiting(index) {
                    self.send(index, nar);
                }
            } else {
                break;
            }
        }
        while self.outcome.stopped.is_none()
            && self.packing < self.push.limits.jobs()
            && self.packed.len() + self.packing < self.push.limits.jobs() * 2
        {
            let next = self.again.pop().or_else(|| order.next());
            match next {
                Some(index) if self.schedule.is_waiting(index) => self.pack(index),
                Some(_) => {}
                None => break,
            }
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Packed(index, result) => {
                self.packing -= 1;
                match result {
                    // Too late to be sent.
                    Ok(_) | Err(PackError::Abandoned) if *self.settings.interrupted.borrow() => {}
                    Ok(nar) => self.packed.push((index, nar)),
                    Err(error) => self.fail(index, error.into()),
                }
            }
            Report::Sent(index, stored, result) => {
                self.sending -= 1;
                let same = match self.objects.remove(&stored.name) {
                    Some(Object::OnItsWay(same)) => same,
                    Some(Object::There) | None => Vec::new(),
                };
                match result {
                    Ok(()) => {
                        self.settle_unavailable();
                        self.objects.insert(stored.name.clone(), Object::There);
                        for (other, stored) in same {
                            self.arrived_with_another(other);
                            self.uploaded(other, stored);
                        }
                        self.uploaded(index, stored);
                    }
                    Err(error) => {
                        self.fail(index, error.into());
                        self.again.extend(same.into_iter().map(|(other, _)| other));
                    }
                }
            }
            Report::Published(index, result) => {
                self.sending -= 1;
                match result {
                    Ok(file_bytes) => {
                        self.settle_unavailable();
                        let nar_bytes = self.info(index).nar_size;
                        let path = self.info(index).base_name();
                        tracing::info!("pushed {path} ({}, stored as {})", size(nar_bytes), size(file_bytes));
                        self.reporter.emit(Event::PathPushed { path, nar_bytes, file_bytes });
                        self.outcome.pushed.add(nar_bytes);
                        self.outcome.file_bytes += file_bytes;
                        self.publishable.extend(self.schedule.published(index));
                    }
                    Err(error) => self.fail(index, error.into()),
                }
            }
        }
    }

    /// Nothing has to be sent for a path whose content another one has too.
    fn arrived_with_another(&self, index: PathIndex) {
        self.reporter.progress().add_delivered(self.info(index).nar_size);
    }

    fn uploaded(&mut self, index: PathIndex, stored: StoredNar) {
        self.stored.insert(index, stored);
        if self.schedule.nar_uploaded(index) {
            self.publishable.push(index);
        }
    }

    fn info(&self, index: PathIndex) -> &PathInfo {
        self.push.closure.info(index)
    }

    /// Takes a failure: of the path alone, or of the whole target, which then is not asked again.
    fn fail(&mut self, index: PathIndex, failure: Failure) {
        let reach = failure.reach();
        if reach == Reach::Object {
            return self.fail_alone(index, failure);
        }
        // Once the push is stopped, what the target did not take is not finished: there is nothing to say of each path.
        if self.outcome.stopped.is_some() {
            return;
        }
        if reach == Reach::Cache || self.unavailable.len() + 1 >= GIVE_UP_AFTER {
            self.unavailable.clear();
            self.outcome.stopped = Some(Stop::Target(Box::new(failure)));
        } else {
            self.unavailable.push((index, failure));
        }
    }

    /// The target took something since, or nobody will ask it again: what it did not take has failed.
    fn settle_unavailable(&mut self) {
        for (index, failure) in std::mem::take(&mut self.unavailable) {
            self.fail_alone(index, failure);
        }
    }

    fn fail_alone(&mut self, index: PathIndex, failure: Failure) {
        // What was blocked while it was under way is told as that already.
        let Some(above) = self.schedule.failed(index) else { return };
        let path = self.info(index).base_name();
        self.reporter.emit(Event::PathFailed { path: path.clone(), error: failure.to_string() });
        for blocked in above {
            self.reporter.emit(Event::PathBlocked { path: self.info(blocked).base_name(), by: path.clone() });
            self.outcome.blocked.push((blocked, index));
        }
        self.outcome.failed.push((index, failure));
    }

    fn pack(&mut self, index: PathIndex) {
        let info = self.info(index).clone();
        self.reporter.emit(Event::PathStarted { path: info.base_name(), nar_bytes: info.nar_size });
        let real_path = self.push.store.real_path(&info.path);
        let settings = Arc::clone(&self.settings);
        let progress = Arc::clone(self.reporter.progress());
        self.packing += 1;
        self.work
            .spawn_blocking(move || Report::Packed(index, pack(&info, &real_path, &settings, &progress)));
    }

    fn send(&mut self, index: PathIndex, nar: PackedNar) {
        // Paths with the same content share one object, which is sent once.
        match self.objects.get_mut(&nar.stored.name) {
            Some(Object::There) => {
                self.arrived_with_another(index);
                return self.uploaded(index, nar.stored);
            }
            Some(Object::OnItsWay(same)) => return same.push((index, nar.stored)),
            None => self.objects.insert(nar.stored.name.clone(), Object::OnItsWay(Vec::new())),
        };
        let target = Arc::clone(&self.push.target);
        let delivery = Delivery {
            progress: Arc::clone(self.reporter.progress()),
            nar_size: self.info(index).nar_size,
            file_size: nar.stored.file_size,
            sent: AtomicU64::new(0),
        };
        self.sending += 1;
        self.work.spawn(async move {
            // The name is the hash of the content: where it is there with the right size, a run that was stopped
            // before its narinfo has sent it.
            let there = target.size(&nar.stored.name).await;
            if there == Answer::Present(Some(nar.stored.file_size)) {
                delivery.add(nar.stored.file_size);
                return Report::Sent(index, nar.stored, Ok(()));
            }
            let result = target.put(&nar.stored.name, nar.body(), &|bytes| delivery.add(bytes)).await;
            Report::Sent(index, nar.stored, result)
        });
    }

    fn publish(&mut self, index: PathIndex) {
        let Some(stored) = self.stored.remove(&index) else { return };
        let store_dir: &StoreDir = self.push.store.dir();
        let narinfo = match narinfo_of(self.info(index), &stored, store_dir, self.push.key) {
            Ok(narinfo) => narinfo,
            Err(error) => return self.fail(index, error.into()),
        };
        let target = Arc::clone(&self.push.target);
        let name = object_name(&self.info(index).path);
        self.sending += 1;
        self.work.spawn(async move {
            let body = UploadBody::Bytes(narinfo.to_canonical_bytes().into());
            let result = target.put(&name, body, &|_| {}).await;
            Report::Published(index, result.map(|()| stored.file_size))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_twice_arrives_once() {
        let progress = Arc::<Progress>::default();
        let (nar_size, file_size) = (1000, 300);
        let delivery =
            Delivery { progress: Arc::clone(&progress), nar_size, file_size, sent: AtomicU64::new(0) };
        for (bytes, sent, delivered) in [(100, 100, 333), (100, 200, 666), (150, 350, 1000), (300, 650, 1000)]
        {
            delivery.add(bytes);
            assert_eq!((progress.sent(), progress.delivered()), (sent, delivered));
        }
    }
}
