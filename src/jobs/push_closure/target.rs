//! One target: ask, plan, push, read back.

use std::collections::HashSet;
use std::sync::Arc;

use nix_derivation::StorePath;
use nix_narinfo::NarInfo;
use tokio::sync::watch;

use super::outcome::{BlockedPath, FailedPath, PlannedPath, Pushed, SourcePath, TargetError, TargetReport};
use super::sources::Sources;
use super::{Destination, Request, Target};
use crate::cache::local::LocalCache;
use crate::cache::signing::is_readable_by_others;
use crate::cache::{
    self, Answer, BinaryCache, CacheInfo, CacheUrl, Location, ObjectName, SigningKey, cache_info, narinfo,
    presence::{self, Breaker},
};
use crate::event::{Event, Reporter};
use crate::graph::{Closure, PathIndex};
use crate::jobs::{LocalNix, unless};
use crate::net::{HttpError, HttpSettings, UploadBody};
use crate::plan::{Class, Holdings, Plan, Tally};
use crate::push::engine::Stop;
use crate::push::verify::{Verdict, Verification};
use crate::push::{Outcome, Push, Reading, Trusted};
use crate::text;

/// A push to one target under way.
pub(super) struct TargetPush<'a> {
    pub(super) request: &'a Request,
    pub(super) local: &'a LocalNix,
    pub(super) closure: &'a Closure,
    pub(super) sources: &'a mut Sources,
    /// The dev shells by name, and their parts.
    pub(super) shells: &'a [(String, Vec<PathIndex>)],
    pub(super) http: &'a Arc<HttpSettings>,
    pub(super) reporter: &'a Reporter,
    pub(super) report: TargetReport,
}

/// What the caches said before anything moved.
struct Known<'a> {
    target: Holdings,
    /// What the target's narinfos say.
    reading: Reading<'a>,
    upstream: Holdings,
}

/// An upstream, and whose word counts for it.
type Upstream = (Arc<dyn BinaryCache>, Trusted);

impl<'a> TargetPush<'a> {
    /// Pushes, noting in the report how far it came.
    pub(super) async fn run(
        &mut self,
        target: &Target,
        interrupted: &watch::Receiver<bool>,
    ) -> Result<(), TargetError> {
        self.note_shells(|_| true);
        let (url, key) = self.open_key(target)?;
        self.report.url = url.to_string();
        self.report.public_key = key.as_ref().map(SigningKey::public_key);
        let cache = cache::open(&url, self.http)?;
        let upstreams = target
            .upstreams
            .iter()
            .map(|upstream| Ok((cache::open(upstream, self.http)?, self.trusted(upstream, None))))
            .collect::<Result<Vec<Upstream>, HttpError>>()?;
        let mut trusted = self.trusted(&url, key.as_ref());
        trusted.whole_cache |= self.request.allow_unsigned;

        let asked = async {
            let is_new_cache = !self.check_cache_info(cache.as_ref()).await?;
            Ok::<_, TargetError>((is_new_cache, self.ask(&cache, &upstreams, trusted, !is_new_cache).await?))
        };
        let (is_new_cache, known) = unless(interrupted, asked).await.ok_or(TargetError::Interrupted)??;
        let looked_at = self.look_at_sources(&known);
        unless(interrupted, looked_at).await.ok_or(TargetError::Interrupted)?;
        let plan = Plan::new(self.closure, &known.target, &known.upstream, |index| self.may_move(index));
        self.announce(&plan);
        self.note_shells(|index| !matches!(plan.class(index), Class::Present | Class::Upstream));
        if !self.request.dry_run {
            // Until something else is known of it.
            self.report.unfinished = self.report.push;
        }
        let consent = self.require_consent(&url, &known.target);
        unless(interrupted, consent).await.ok_or(TargetError::Interrupted)??;
        self.require_signatures(&plan, key.as_ref())?;
        self.warn_of_unsigned(&known.reading);
        let is_left_out = |index| matches!(plan.class(index), Class::Excluded | Class::Blocked { .. });
        if self.request.dry_run {
            self.note_shells(is_left_out);
            return Ok(());
        }
        if is_new_cache && self.report.push.paths > 0 {
            let written = self.write_cache_info(cache.as_ref(), &url);
            unless(interrupted, written).await.ok_or(TargetError::Interrupted)??;
        }
        let push = Push {
            closure: self.closure,
            plan: &plan,
            store: &self.local.store,
            target: Arc::clone(&cache),
            key: key.as_ref(),
            compression: target.compression,
            limits: self.request.limits,
            temporary: self.request.temporary.clone(),
        };
        let mut outcome = if self.report.push.paths == 0 {
            Outcome::default()
        } else {
            let url = url.to_string();
            push.run(self.reporter, interrupted.clone())
                .await
                .map_err(|source| TargetError::Write { url, source })?
        };
        let stopped = outcome.stopped.take();
        let mut missing: HashSet<PathIndex> = outcome.unfinished.iter().copied().collect();
        missing.extend(outcome.failed.iter().map(|(index, _)| *index));
        missing.extend(outcome.blocked.iter().map(|(index, _)| *index));
        self.note_shells(|index| is_left_out(index) || missing.contains(&index));
        self.note(outcome);
        match stopped {
            Some(Stop::Interrupted) => return Err(TargetError::Interrupted),
            Some(Stop::Target(failure)) => {
                return Err(TargetError::Stopped { url: url.to_string(), failure });
            }
            None => {}
        }
        if !self.request.skip_verification {
            let verified = self.verify(&cache, &upstreams, &plan, known.reading);
            unless(interrupted, verified).await.ok_or(TargetError::Interrupted)?;
        }
        Ok(())
    }

    fn open_key(&mut self, target: &Target) -> Result<(CacheUrl, Option<SigningKey>), TargetError> {
        let given = target.sign_key_file.as_deref().map(SigningKey::read).transpose()?;
        if let Some(file) = target.sign_key_file.as_deref().filter(|file| is_readable_by_others(file)) {
            self.reporter
                .warn(format!("other users can read the signing key {0}: chmod 600 {0}", file.display()));
        }
        match &target.destination {
            Destination::Cache(url) => Ok((url.clone(), given)),
            Destination::Local(directory) => {
                let local = LocalCache::open(directory, !self.request.dry_run)?;
                self.report.is_new_key = local.is_new_key && given.is_none();
                Ok((local.url, Some(given.unwrap_or(local.key))))
            }
        }
    }

    /// Whether the target has a `nix-cache-info`, which must then be for this store.
    async fn check_cache_info(&self, cache: &dyn BinaryCache) -> Result<bool, TargetError> {
        let url = cache.url().to_string();
        match cache_info::read(cache).await {
            Answer::Present(info) if info.store_dir == self.local.store.dir().as_str() => Ok(true),
            Answer::Present(info) => Err(TargetError::OtherStore {
                url,
                theirs: info.store_dir,
                ours: self.local.store.dir().to_string(),
            }),
            Answer::Absent => Ok(false),
            Answer::Denied(words) => Err(TargetError::Denied { url, reason: words.text }),
            Answer::Broken(words) | Answer::Unreachable(words) => {
                Err(TargetError::Unusable { url, reason: words.text })
            }
        }
    }

    async fn write_cache_info(&self, cache: &dyn BinaryCache, url: &CacheUrl) -> Result<(), TargetError> {
        let priority = match url.location() {
            Location::Directory(_) => 30,
            Location::Http(_) => 41,
        };
        let body = CacheInfo::text(self.local.store.dir(), priority);
        let written = cache.put(&ObjectName::cache_info(), UploadBody::Bytes(body.into()), &|_| {}).await;
        written.map_err(|source| TargetError::Write { url: url.to_string(), source })
    }

    /// Whose word counts for a cache.
    fn trusted(&self, url: &CacheUrl, key: Option<&SigningKey>) -> Trusted {
        let trust = &self.local.settings.trust;
        let keys = trust.public_keys.iter().cloned().chain(key.map(SigningKey::trusted)).collect();
        Trusted { keys, whole_cache: url.is_trusted() || !trust.require_signatures }
    }

    /// Asks the target for everything, and the upstreams for what it does not have.
    async fn ask(
        &self,
        target: &Arc<dyn BinaryCache>,
        upstreams: &[Upstream],
        trusted: Trusted,
        is_readable: bool,
    ) -> Result<Known<'a>, TargetError> {
        let mut known = Known {
            target: Holdings::none(self.closure),
            reading: Reading::new(self.closure, trusted),
            upstream: Holdings::none(self.closure),
        };
        let everything: Vec<PathIndex> = self.closure.indices().collect();
        let (mut present, mut denied) = (Vec::new(), None);
        let reading = &mut known.reading;
        for (index, answer) in self.narinfos(target, &everything, |narinfo| reading.take(&narinfo)).await {
            match answer {
                Answer::Present(()) => present.push(index),
                Answer::Absent => {}
                // A bucket that may not be listed says 403 for what is not there.
                Answer::Denied(words) if is_readable => denied = Some(words),
                Answer::Broken(words) => self.reporter.warn(format!(
                    "the target has something else where a narinfo should be, which will be replaced: {words}"
                )),
                Answer::Denied(words) => {
                    return Err(TargetError::Denied { url: target.url().to_string(), reason: words.text });
                }
                Answer::Unreachable(words) => {
                    return Err(TargetError::Unusable { url: target.url().to_string(), reason: words.text });
                }
            }
        }
        for index in present {
            known.target.add_with(index, known.reading.references(index));
        }
        if let Some(words) = denied {
            self.reporter.warn(format!("narinfos that may not be read are taken as absent: {words}"));
        }
        for (upstream, trusted) in upstreams {
            let missing: Vec<PathIndex> = everything
                .iter()
                .copied()
                .filter(|index| !known.target.has(*index) && !known.upstream.has(*index))
                .collect();
            if !missing.is_empty() {
                self.ask_upstream(upstream, trusted, &missing, &mut known.upstream).await?;
            }
        }
        Ok(known)
    }

    async fn ask_upstream(
        &self,
        upstream: &Arc<dyn BinaryCache>,
        trusted: &Trusted,
        missing: &[PathIndex],
        held: &mut Holdings,
    ) -> Result<(), TargetError> {
        let url = upstream.url().to_string();
        match cache_info::read(upstream.as_ref()).await {
            Answer::Present(info) if info.store_dir == self.local.store.dir().as_str() => {}
            Answer::Present(info) => {
                let reason = format!("it is for the store directory {}", info.store_dir);
                return Err(TargetError::Upstream { url, reason });
            }
            Answer::Absent => {
                let reason = "it has no nix-cache-info; is this the URL of a binary cache?".to_owned();
                return Err(TargetError::Upstream { url, reason });
            }
            Answer::Denied(words) | Answer::Broken(words) | Answer::Unreachable(words) => {
                return Err(TargetError::Upstream { url, reason: words.text });
            }
        }
        let (mut distrusted, mut unknown) = (0, Vec::new());
        let is_usable = |narinfo| narinfo::is_usable(&narinfo, &trusted.keys, trusted.whole_cache);
        for (index, answer) in self.narinfos(upstream, missing, is_usable).await {
            match answer {
                Answer::Present(true) => held.add(index),
                Answer::Present(false) => distrusted += 1,
                Answer::Absent => {}
                Answer::Broken(words) | Answer::Denied(words) => unknown.push(words),
                Answer::Unreachable(words) => {
                    return Err(TargetError::Upstream { url, reason: words.text });
                }
            }
        }
        if distrusted > 0 {
            self.reporter.warn(format!(
                "{} in the upstream {url} carry no signature that Nix trusts here, and are pushed as well",
                text::count(distrusted, "path")
            ));
        }
        if let Some(words) = unknown.first() {
            self.reporter.warn(format!(
                "the upstream {url} does not say whether it has {}, which therefore count as absent there: {words}",
                text::count(unknown.len(), "path")
            ));
        }
        Ok(())
    }

    async fn narinfos<T>(
        &self,
        cache: &Arc<dyn BinaryCache>,
        indices: &[PathIndex],
        keep: impl FnMut(NarInfo) -> T,
    ) -> Vec<(PathIndex, Answer<T>)> {
        let paths: Vec<&StorePath> = indices.iter().map(|index| &self.closure.info(*index).path).collect();
        // Once a phase: a push takes long enough for a cache to come back.
        let breaker = Breaker::default();
        let store_dir = self.local.store.dir();
        let answers = presence::narinfos(cache, &breaker, store_dir, &paths, self.reporter, keep).await;
        indices.iter().copied().zip(answers).collect()
    }

    /// Tells what will be done, and notes it.
    fn announce(&mut self, plan: &Plan) {
        let is_blocked = |class| matches!(class, Class::Blocked { .. });
        let tally = |wanted| plan.tally(self.closure, move |class| class == wanted);
        self.report.present = tally(Class::Present);
        self.report.upstream = tally(Class::Upstream);
        self.report.excluded = tally(Class::Excluded);
        self.report.push = tally(Class::Push);
        self.report.sources = plan
            .paths(self.closure, |class| matches!(class, Class::Push | Class::Excluded))
            .filter(|index| self.is_chosen(*index))
            .filter_map(|index| {
                Some(SourcePath {
                    path: self.shown(index),
                    what: self.sources.of(index)?.to_string(),
                    is_withheld: !self.request.scope.include_sources,
                })
            })
            .collect();
        self.report.blocked = plan
            .paths(self.closure, is_blocked)
            .filter_map(|index| match plan.class(index) {
                Class::Blocked { by } => Some(BlockedPath { path: self.shown(index), by: self.shown(by) }),
                _ => None,
            })
            .collect();
        let planned = |index| PlannedPath {
            path: self.shown(index),
            class: plan.class(index).name(),
            nar_bytes: self.closure.info(index).nar_size,
        };
        self.report.plan = self.request.dry_run.then(|| self.closure.indices().map(planned).collect());
        self.reporter.emit(Event::Planned {
            target: self.report.url.clone(),
            closure: self.report.closure,
            present: self.report.present,
            upstream: self.report.upstream,
            excluded: self.report.excluded,
            blocked: plan.tally(self.closure, is_blocked),
            push: self.report.push,
        });
    }

    fn shown(&self, index: PathIndex) -> String {
        self.local.store.dir().render_path(&self.closure.info(index).path)
    }

    /// Whether no filter leaves it out.
    fn is_chosen(&self, index: PathIndex) -> bool {
        self.request.filter.keeps(&self.closure.info(index).base_name())
    }

    fn may_move(&self, index: PathIndex) -> bool {
        let is_free = self.request.scope.include_sources || self.sources.of(index).is_none();
        is_free && self.is_chosen(index)
    }

    /// Finds out what is a source of what may have to move.
    async fn look_at_sources(&mut self, known: &Known<'_>) {
        let (closure, filter) = (self.closure, &self.request.filter);
        let members = closure.indices().filter(|index| {
            let is_held = known.target.has(*index) || known.upstream.has(*index);
            !is_held && filter.keeps(&closure.info(*index).base_name())
        });
        self.sources.look_at(closure, &self.local.store, members, self.reporter).await;
    }

    /// Notes of which dev shells the target lacks a part.
    fn note_shells(&mut self, is_missing: impl Fn(PathIndex) -> bool) {
        let incomplete = self.shells.iter().filter(|(_, parts)| parts.iter().any(|part| is_missing(*part)));
        self.report.incomplete_dev_shells = incomplete.map(|(shell, _)| shell.clone()).collect();
    }

    fn require_signatures(&self, plan: &Plan, key: Option<&SigningKey>) -> Result<(), TargetError> {
        if key.is_some() || self.request.allow_unsigned {
            return Ok(());
        }
        let unsigned: Vec<PathIndex> = plan
            .paths(self.closure, |class| class == Class::Push)
            .filter(|index| {
                let info = self.closure.info(*index);
                info.signatures.is_empty() && info.content_address.is_none()
            })
            .collect();
        if unsigned.is_empty() {
            return Ok(());
        }
        Err(TargetError::Unsigned {
            url: self.report.url.clone(),
            count: unsigned.len(),
            examples: unsigned.iter().take(3).map(|index| self.closure.info(*index).base_name()).collect(),
        })
    }

    /// Paths that the target has without a signature that anybody could trust stay so: a push writes no narinfo again.
    fn warn_of_unsigned(&self, reading: &Reading<'_>) {
        let distrusted = reading.distrusted();
        if distrusted.is_empty() {
            return;
        }
        let roots = self.closure.roots().iter().take(3).map(|index| self.shown(*index));
        self.reporter.warn(format!(
            "{} already in {url} without a valid signature, and Nix does not take them from there; this signs them: \
             nix store sign --store {url} --key-file FILE --recursive {}",
            text::count(distrusted.len(), "path") + if distrusted.len() == 1 { " is" } else { " are" },
            roots.collect::<Vec<_>>().join(" "),
            url = self.report.url,
        ));
    }

    fn note(&mut self, outcome: Outcome) {
        let Tally { paths, nar_bytes } = outcome.pushed;
        self.report.pushed = Pushed { paths, nar_bytes, file_bytes: outcome.file_bytes };
        self.report.failed = outcome
            .failed
            .iter()
            .map(|(index, failure)| FailedPath { path: self.shown(*index), error: failure.to_string() })
            .collect();
        let blocked: Vec<BlockedPath> = outcome
            .blocked
            .iter()
            .map(|(index, by)| BlockedPath { path: self.shown(*index), by: self.shown(*by) })
            .collect();
        self.report.blocked.extend(blocked);
        self.report.unfinished = Tally::default();
        for index in &outcome.unfinished {
            self.report.unfinished.add(self.closure.info(*index).nar_size);
        }
        self.report.failure = outcome.failed.into_iter().next().map(|(_, failure)| failure);
    }

    async fn verify(
        &mut self,
        cache: &Arc<dyn BinaryCache>,
        upstreams: &[Upstream],
        plan: &Plan,
        reading: Reading<'_>,
    ) {
        if !(self.report.failed.is_empty() && self.report.blocked.is_empty()) {
            self.report.verified = Some(false);
            return;
        }
        let wanted: Vec<PathIndex> = plan.paths(self.closure, |class| class != Class::Excluded).collect();
        let verification = Verification {
            target: cache,
            upstreams,
            store_dir: self.local.store.dir(),
            served_upstream: &plan.paths(self.closure, |class| class == Class::Upstream).collect(),
            reading,
        };
        let verdict: Verdict = verification.run(&wanted, self.reporter).await;
        // Without what was left out there is no saying that the closure can be fetched.
        let is_whole = self.report.excluded.paths == 0;
        self.report.verified = (is_whole || !verdict.is_good()).then_some(verdict.is_good());
        self.report.is_rest_verified = verdict.is_good();
        self.report.inconclusive = verdict.inconclusive;
        self.report.problems = verdict.problems;
        if verdict.more > 0 {
            self.report.problems.push(format!("and {}", text::count(verdict.more, "more problem")));
        }
    }
}
