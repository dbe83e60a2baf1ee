//! One target: ask, plan, push, read back.

use std::collections::HashSet;
use std::sync::Arc;

use nix_derivation::StorePath;
use nix_narinfo::NarInfo;
use tokio::sync::watch;

use super::outcome::{BlockedPath, FailedPath, PlannedPath, Pushed, TargetError, TargetReport};
use super::{Destination, Request, Target};
use crate::cache::local::LocalCache;
use crate::cache::signing::is_readable_by_others;
use crate::cache::{
    self, Answer, BinaryCache, CacheInfo, CacheUrl, Location, ObjectName, SigningKey, cache_info, narinfo,
    presence,
};
use crate::event::{Event, Reporter};
use crate::graph::{Closure, PathIndex};
use crate::jobs::{LocalNix, unless};
use crate::net::{HttpSettings, UploadBody};
use crate::plan::{Class, Holdings, Plan, Tally};
use crate::push::engine::Stop;
use crate::push::verify::{Verdict, Verification};
use crate::push::{Outcome, Push};
use crate::text;

/// A push to one target under way.
pub(super) struct TargetPush<'a> {
    pub(super) request: &'a Request,
    pub(super) local: &'a LocalNix,
    pub(super) closure: &'a Closure,
    pub(super) http: &'a Arc<HttpSettings>,
    pub(super) reporter: &'a Reporter,
    pub(super) report: TargetReport,
}

/// What the caches said before anything moved.
struct Known {
    target: Holdings,
    /// Narinfos that the target served.
    narinfos: Vec<NarInfo>,
    upstream: Holdings,
}

impl TargetPush<'_> {
    /// Pushes, noting in the report how far it came.
    pub(super) async fn run(
        &mut self,
        target: &Target,
        interrupted: &watch::Receiver<bool>,
    ) -> Result<(), TargetError> {
        let (url, key) = self.open_key(target)?;
        self.report.url = url.to_string();
        self.report.public_key = key.as_ref().map(SigningKey::public_key);
        let cache = cache::open(&url, self.http)?;
        let upstreams = target
            .upstreams
            .iter()
            .map(|upstream| cache::open(upstream, self.http))
            .collect::<Result<Vec<_>, _>>()?;

        let asked = async {
            let is_new_cache = !self.check_cache_info(cache.as_ref()).await?;
            Ok::<_, TargetError>((is_new_cache, self.ask(&cache, &upstreams, !is_new_cache).await?))
        };
        let (is_new_cache, known) = unless(interrupted, asked).await.ok_or(TargetError::Interrupted)??;
        let plan = Plan::new(self.closure, &known.target, &known.upstream, &self.request.filter);
        self.announce(&plan);
        if !self.request.dry_run {
            // Until something else is known of it.
            self.report.unfinished = self.report.push;
        }
        self.require_signatures(&plan, key.as_ref())?;
        if self.request.dry_run {
            return Ok(());
        }
        if is_new_cache && self.report.push.paths > 0 {
            self.write_cache_info(cache.as_ref(), &url).await?;
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
        self.note(outcome);
        match stopped {
            Some(Stop::Interrupted) => return Err(TargetError::Interrupted),
            Some(Stop::Target(failure)) => {
                return Err(TargetError::Stopped { url: url.to_string(), failure });
            }
            None => {}
        }
        if !self.request.skip_verification {
            let verified = self.verify(&cache, &upstreams, &plan, known);
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

    /// Asks the target for everything, and the upstreams for what it does not have.
    async fn ask(
        &self,
        target: &Arc<dyn BinaryCache>,
        upstreams: &[Arc<dyn BinaryCache>],
        is_readable: bool,
    ) -> Result<Known, TargetError> {
        let mut known = Known {
            target: Holdings::none(self.closure),
            narinfos: Vec::new(),
            upstream: Holdings::none(self.closure),
        };
        let everything: Vec<PathIndex> = self.closure.indices().collect();
        let mut denied = None;
        for (index, answer) in self.narinfos(target, &everything).await {
            match answer {
                Answer::Present(narinfo) => {
                    known.target.add(index);
                    known.narinfos.push(narinfo);
                }
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
        if let Some(words) = denied {
            self.reporter.warn(format!("narinfos that may not be read are taken as absent: {words}"));
        }
        for upstream in upstreams {
            let missing: Vec<PathIndex> = everything
                .iter()
                .copied()
                .filter(|index| !known.target.has(*index) && !known.upstream.has(*index))
                .collect();
            if !missing.is_empty() {
                self.ask_upstream(upstream, &missing, &mut known.upstream).await?;
            }
        }
        Ok(known)
    }

    async fn ask_upstream(
        &self,
        upstream: &Arc<dyn BinaryCache>,
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
        let trust = &self.local.settings.trust;
        let trusts_cache = upstream.url().is_trusted() || !trust.require_signatures;
        let mut distrusted = 0;
        for (index, answer) in self.narinfos(upstream, missing).await {
            match answer {
                Answer::Present(narinfo)
                    if narinfo::is_usable(&narinfo, &trust.public_keys, trusts_cache) =>
                {
                    held.add(index);
                }
                Answer::Present(_) => distrusted += 1,
                Answer::Absent | Answer::Broken(_) | Answer::Denied(_) => {}
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
        Ok(())
    }

    async fn narinfos(
        &self,
        cache: &Arc<dyn BinaryCache>,
        indices: &[PathIndex],
    ) -> Vec<(PathIndex, Answer<NarInfo>)> {
        let paths: Vec<&StorePath> = indices.iter().map(|index| &self.closure.info(*index).path).collect();
        let answers =
            presence::narinfos(cache, self.local.store.dir(), &paths, self.reporter, |narinfo| narinfo).await;
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
        upstreams: &[Arc<dyn BinaryCache>],
        plan: &Plan,
        known: Known,
    ) {
        if !(self.report.failed.is_empty() && self.report.blocked.is_empty()) {
            self.report.verified = Some(false);
            return;
        }
        let path_of = |index: PathIndex| self.closure.info(index).path.clone();
        let wanted: Vec<StorePath> =
            plan.paths(self.closure, |class| class != Class::Excluded).map(path_of).collect();
        let verification = Verification {
            target: cache,
            upstreams,
            store_dir: self.local.store.dir(),
            served_upstream: &plan
                .paths(self.closure, |class| class == Class::Upstream)
                .map(path_of)
                .collect::<HashSet<_>>(),
            known: known.narinfos,
            registered: self
                .closure
                .indices()
                .map(|index| self.closure.info(index))
                .map(|info| (&info.path, info))
                .collect(),
        };
        let verdict: Verdict = verification.run(&wanted, self.reporter).await;
        self.report.verified = Some(verdict.is_good());
        self.report.inconclusive = verdict.inconclusive;
        self.report.problems = verdict.problems;
        if verdict.more > 0 {
            self.report.problems.push(format!("and {} more", text::count(verdict.more, "problem")));
        }
    }
}
