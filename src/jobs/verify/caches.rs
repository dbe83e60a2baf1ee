//! The caches of a proof: the one that is verified, and its upstreams. What each says about a path, and what that is worth.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix_derivation::StorePath;
use tokio::sync::OnceCell;

use crate::audit::Trust;
use crate::cache::measured::Measured;
use crate::cache::narinfo::{self, NarinfoProblem};
use crate::cache::narinfo_syntax::Syntax;
use crate::cache::presence::Breaker;
use crate::cache::unpack::Promise;
use crate::cache::{self, Answer, BinaryCache, CacheInfo, CacheUrl, Location, ObjectName, Words};
use crate::net::{HttpError, HttpSettings};
use crate::nix::Settings;
use crate::proof::Problem;
use crate::text::Printable;

/// A cache of a proof.
#[derive(Debug)]
pub(super) struct ProvingCache {
    pub(super) url: String,
    pub(super) cache: Measured,
    pub(super) breaker: Breaker,
    /// The same for NARs, which may be kept elsewhere.
    pub(super) nar_breaker: Breaker,
    /// Whether its signatures do not matter.
    is_trusted: bool,
    standing: OnceCell<Option<Problem>>,
    /// How often it said 403 where that counts as absent.
    forbidden: AtomicUsize,
}

/// What a cache says about a path.
#[derive(Debug)]
pub(super) enum Said {
    /// It has none.
    Absent,
    /// What it says is of no use.
    Useless(Problem),
    /// It has a narinfo.
    Narinfo(Box<Narinfo>),
}

/// What matters of a narinfo.
#[derive(Debug)]
pub(super) struct Narinfo {
    /// What it refers to, other than itself.
    pub(super) references: Vec<StorePath>,
    /// Its NAR; nothing where it is outside of the cache.
    pub(super) nar: Option<(ObjectName, Promise)>,
    /// Why Nix would not take it.
    pub(super) problem: Option<Problem>,
    /// What it says otherwise than the store.
    pub(super) contradiction: Option<Problem>,
}

impl Narinfo {
    /// Whether Nix passes over it and asks the next cache.
    fn is_passed_over(&self) -> bool {
        matches!(self.problem, Some(Problem::Unsigned | Problem::UnknownKeys(_) | Problem::BadSignature(_)))
    }

    fn is_sound(&self) -> bool {
        self.problem.is_none() && self.contradiction.is_none()
    }
}

impl ProvingCache {
    /// Opens a cache; nothing is asked yet.
    pub(super) fn open(
        url: &CacheUrl,
        settings: &Settings,
        http: &Arc<HttpSettings>,
    ) -> Result<Self, HttpError> {
        Ok(Self {
            url: url.to_string(),
            cache: Measured::new(cache::open(url, http)?),
            breaker: Breaker::default(),
            nar_breaker: Breaker::default(),
            is_trusted: url.is_trusted() || !settings.trust.require_signatures,
            standing: OnceCell::new(),
            forbidden: AtomicUsize::new(0),
        })
    }

    /// Why the cache as a whole is of no use, if so. It is asked once.
    pub(super) async fn standing(&self, settings: &Settings) -> Option<&Problem> {
        self.standing.get_or_init(|| self.ask_standing(settings)).await.as_ref()
    }

    async fn ask_standing(&self, settings: &Settings) -> Option<Problem> {
        let name = ObjectName::cache_info();
        match self.cache.get(&name, CacheInfo::LIMIT).await.map(|body| CacheInfo::parse(&body)) {
            Answer::Present(Ok(info)) if info.store_dir != settings.store_dir.as_str() => {
                Some(Problem::OtherStore(info.store_dir))
            }
            // Nix passes over what it does not understand in this file.
            Answer::Present(_) => None,
            Answer::Absent => match self.cache.url().location() {
                // Nix takes a directory for a cache and writes the file.
                Location::Directory(root) if root.is_dir() => None,
                Location::Directory(_) => Some(Problem::NotACache("there is no such directory".to_owned())),
                Location::Http(_) => Some(Problem::NotACache("it has no nix-cache-info".to_owned())),
            },
            Answer::Broken(words) => Some(Problem::NotACache(words.text)),
            Answer::Denied(words) => Some(Problem::Denied(said(&name, &words))),
            Answer::Unreachable(words) => Some(Problem::Unreachable(said(&name, &words))),
        }
    }

    /// What is wrong with the cache as a whole, as far as it was asked.
    pub(super) fn known_standing(&self) -> Option<&Problem> {
        self.standing.get().and_then(Option::as_ref)
    }

    /// How often it said 403 where that counts as absent.
    pub(super) fn forbidden(&self) -> usize {
        self.forbidden.load(Ordering::Relaxed)
    }

    /// Whether an answer says that an object is not there.
    ///
    /// A bucket that may not be listed says 403 for that, and Nix takes it so. That is known by its `nix-cache-info`, without
    /// which nobody would ask for more.
    pub(super) fn is_absent<T>(&self, answer: &Answer<T>) -> bool {
        let is_forbidden = matches!(answer, Answer::Denied(Words { status: Some(403), .. }));
        if is_forbidden {
            self.forbidden.fetch_add(1, Ordering::Relaxed);
        }
        is_forbidden || matches!(answer, Answer::Absent)
    }

    /// Asks for a path.
    async fn ask(&self, path: &StorePath, proof: &Proof<'_>) -> Said {
        let store_dir = &proof.settings.store_dir;
        let probe = narinfo::probe(&self.cache, store_dir, path, Syntax::EVERY_NIX);
        let answer = self.breaker.ask(probe).await;
        if self.is_absent(&answer) {
            return Said::Absent;
        }
        let narinfo = match answer {
            Answer::Present(Ok(narinfo)) => narinfo,
            Answer::Present(Err(NarinfoProblem::Unreadable(words))) => {
                return Said::Useless(Problem::BadNarinfo(words));
            }
            Answer::Present(Err(NarinfoProblem::OtherPath(other))) => {
                return Said::Useless(Problem::OtherPath(store_dir.render_path(&other)));
            }
            Answer::Present(Err(NarinfoProblem::OutsideCache(narinfo))) => *narinfo,
            Answer::Broken(words) => return Said::Useless(Problem::BadNarinfo(words.text)),
            Answer::Absent => return Said::Absent,
            Answer::Denied(words) => {
                return Said::Useless(Problem::Denied(said(&narinfo::object_name(path), &words)));
            }
            Answer::Unreachable(words) => {
                return Said::Useless(Problem::Unreachable(said(&narinfo::object_name(path), &words)));
            }
        };
        let nar = narinfo::nar_object(&narinfo);
        let outside = || Problem::OutsideCache(Printable(narinfo.url()).to_string());
        let problem = self.distrust(&narinfo, proof.settings).or_else(|| nar.is_none().then(outside));
        let contradiction = proof.contradiction(&narinfo).map(Problem::Contradiction);
        let references = narinfo.references().iter().filter(|reference| *reference != path);
        Said::Narinfo(Box::new(Narinfo {
            references: references.cloned().collect(),
            nar: nar.map(|name| (name, Promise::of(&narinfo))),
            problem,
            contradiction,
        }))
    }

    fn distrust(&self, narinfo: &nix_narinfo::NarInfo, settings: &Settings) -> Option<Problem> {
        if self.is_trusted {
            // Checking a signature takes some 30 microseconds, of which thousands of paths make a wait.
            return None;
        }
        match narinfo::trust(narinfo, &settings.trust.public_keys, false) {
            Trust::Signed | Trust::ContentAddressed | Trust::NotNeeded => None,
            Trust::Unsigned => Some(Problem::Unsigned),
            Trust::UnknownKeys(keys) => Some(Problem::UnknownKeys(keys)),
            Trust::BadSignature(keys) => Some(Problem::BadSignature(keys)),
        }
    }
}

/// An object and what was said of it.
pub(super) fn said(name: &ObjectName, words: &Words) -> String {
    format!("{name}: {words}")
}

/// What everybody who asks has to know.
pub(super) struct Proof<'a> {
    /// The cache that is verified, and its upstreams.
    pub(super) caches: &'a [ProvingCache],
    pub(super) settings: &'a Settings,
    /// What the local store has of the closure.
    pub(super) registered: &'a std::collections::HashMap<&'a StorePath, &'a crate::graph::PathInfo>,
}

impl Proof<'_> {
    fn contradiction(&self, narinfo: &nix_narinfo::NarInfo) -> Option<String> {
        let registered = self.registered.get(narinfo.store_path())?;
        crate::push::reading::contradiction(narinfo, registered)
    }

    /// Who serves a path, and what it says.
    ///
    /// An upstream may serve what Nix does not find on the cache or passes over there. Whatever else is wrong there is wrong:
    /// some versions of Nix stop at it.
    pub(super) async fn look(&self, path: &StorePath) -> (usize, Said) {
        let Some((first, upstreams)) = self.caches.split_first() else { return (0, Said::Absent) };
        let own = first.ask(path, self).await;
        let may_be_elsewhere = match &own {
            Said::Absent => true,
            Said::Narinfo(narinfo) => narinfo.is_passed_over(),
            Said::Useless(_) => false,
        };
        if !may_be_elsewhere {
            return (0, own);
        }
        let mut open = None;
        for (number, upstream) in (1..).zip(upstreams) {
            let found = match upstream.standing(self.settings).await {
                None => upstream.ask(path, self).await,
                Some(problem) if problem.is_unknown() => Said::Useless(problem.clone()),
                // Nix leaves it out too.
                Some(_) => Said::Absent,
            };
            match found {
                Said::Narinfo(narinfo) if narinfo.is_sound() => return (number, Said::Narinfo(narinfo)),
                Said::Useless(problem) if problem.is_unknown() => open = open.or(Some((number, problem))),
                // It is the cache's own answer that counts then.
                Said::Absent | Said::Useless(_) | Said::Narinfo(_) => {}
            }
        }
        match open {
            Some((number, problem)) => (number, Said::Useless(problem)),
            None => (0, own),
        }
    }
}
