//! The caches of an audit: which there are, in which order Nix asks them, and what each is good for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use nix_derivation::{StoreDir, StorePath};
use nix_narinfo::{Compression, NarInfo};

use super::outcome::{CacheReport, CacheStatus};
use crate::audit::{CacheAnswer, CacheState, Nar, Offer};
use crate::cache::measured::Measured;
use crate::cache::narinfo::{self, NarinfoProblem, nar_object};
use crate::cache::narinfo_syntax::Syntax;
use crate::cache::presence::Breaker;
use crate::cache::{self, Answer, BinaryCache, CacheInfoError, CacheUrl, CacheUrlError, ObjectName, Words};
use crate::jobs::local_nix::LocalNix;
use crate::net::{HttpError, HttpSettings};
use crate::nix::{Implementation, Settings, TrustSettings, Version};
use crate::text::count;

/// A cache as it is written in Nix's settings or on the command line.
#[derive(Clone, Debug)]
pub(super) enum Named {
    /// One that this program can ask.
    Cache(CacheUrl),
    /// One that it cannot ask: what to show of it, and why.
    Other(String, &'static str),
}

impl Named {
    /// Reads a substituter as Nix writes it. What has no scheme is a store in a directory, no binary cache.
    pub(super) fn substituter(text: &str, directory: &Path) -> Self {
        let is_known = ["file://", "http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        let shown = || crate::text::Printable(text.split('?').next().unwrap_or_default()).to_string();
        match CacheUrl::parse(text, directory) {
            Ok(url) if is_known => Self::Cache(url),
            Err(CacheUrlError::Credentials(host)) => Self::Other(
                crate::text::Printable(&host).to_string(),
                "its URL contains a user name or password; put them into the netrc file instead, and it is asked",
            ),
            _ => Self::Other(
                shown(),
                "this program asks file:// and http(s):// binary caches, and this is none",
            ),
        }
    }
}

/// A cache of an audit.
#[derive(Debug)]
pub(super) struct AuditedCache {
    url: String,
    priority: i64,
    status: CacheStatus,
    words: Option<Words>,
    /// How many narinfos it hides: it says 403 for them, and has let us read others.
    hidden: AtomicUsize,
    cache: Option<Arc<Measured>>,
    syntax: Syntax,
    breaker: Breaker,
    /// The same for NARs, which may be kept elsewhere.
    nar_breaker: Breaker,
}

/// Opens the caches and puts them into the order in which Nix asks them.
pub(super) async fn open(
    named: &[Named],
    local: &LocalNix,
    http: &Arc<HttpSettings>,
) -> Result<Vec<AuditedCache>, HttpError> {
    let store_dir = &local.settings.store_dir;
    let nix = local.store.nix();
    // Lix keeps reading signatures as text.
    let strict_signatures =
        nix.implementation() != Implementation::Lix && nix.version() >= Version { major: 2, minor: 34 };
    let syntax = Syntax::one_nix(strict_signatures);
    let mut http = HttpSettings::clone(http);
    http.retry = http.retry.for_a_report();
    let http = Arc::new(http);
    // Nix too takes the same store once.
    let mut distinct: Vec<&Named> = Vec::new();
    for one in named {
        let is_same = |other: &&Named| match (one, other) {
            (Named::Cache(one), Named::Cache(other)) => one.location() == other.location(),
            _ => false,
        };
        if !distinct.iter().any(is_same) {
            distinct.push(one);
        }
    }
    let opened = join_all(distinct.into_iter().map(|named| open_one(named, store_dir, syntax, &http))).await;
    let mut caches = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
    // Nix's sort is stable too: of equal priorities, the first named is asked first.
    caches.sort_by_key(|cache| cache.priority);
    Ok(caches)
}

async fn open_one(
    named: &Named,
    store_dir: &StoreDir,
    syntax: Syntax,
    http: &Arc<HttpSettings>,
) -> Result<AuditedCache, HttpError> {
    let url = match named {
        Named::Cache(url) => url,
        Named::Other(text, why) => {
            return Ok(AuditedCache {
                url: text.clone(),
                priority: 0,
                status: CacheStatus::Unsupported,
                words: Some((*why).to_owned().into()),
                hidden: AtomicUsize::new(0),
                cache: None,
                syntax,
                breaker: Breaker::default(),
                nar_breaker: Breaker::default(),
            });
        }
    };
    let measured = Arc::new(Measured::new(cache::open(url, http)?));
    let body = measured.get(&ObjectName::cache_info(), cache::CacheInfo::LIMIT).await;
    let is_directory = matches!(url.location(), cache::Location::Directory(_));
    let (status, words, priority) = match body.map(|body| cache::CacheInfo::parse(&body)) {
        Answer::Present(Ok(info)) if info.store_dir != store_dir.as_str() => {
            let words = format!("it is for the store directory {}", info.store_dir);
            (CacheStatus::OtherStore, Some(words.into()), info.priority)
        }
        Answer::Present(Ok(info)) => (CacheStatus::Ok, None, info.priority),
        // Nix passes over what it does not understand in this file.
        Answer::Present(Err(CacheInfoError::NoStoreDir)) => {
            (CacheStatus::Ok, Some("its nix-cache-info says nothing".to_owned().into()), None)
        }
        // Nix takes a directory for an empty cache and writes the file.
        Answer::Absent if is_directory => (CacheStatus::Ok, None, None),
        Answer::Absent => (CacheStatus::NotACache, Some("it has no nix-cache-info".to_owned().into()), None),
        Answer::Denied(words) => (CacheStatus::Denied, Some(words), None),
        Answer::Broken(words) => (CacheStatus::NotACache, Some(words), None),
        Answer::Unreachable(words) => (CacheStatus::Unreachable, Some(words), None),
    };
    Ok(AuditedCache {
        url: url.to_string(),
        // Without a word on it, Nix takes 0: before cache.nixos.org's 40.
        priority: url.priority().or(priority).unwrap_or(0),
        status,
        words,
        hidden: AtomicUsize::new(0),
        cache: Some(measured),
        syntax,
        breaker: Breaker::default(),
        nar_breaker: Breaker::default(),
    })
}

impl AuditedCache {
    /// The URL, fit to print.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How Nix would use it.
    pub(super) fn state(&self) -> CacheState {
        match self.status {
            CacheStatus::Ok => CacheState::Used,
            CacheStatus::NotACache | CacheStatus::OtherStore => CacheState::Dropped,
            CacheStatus::Denied => CacheState::DroppedDenied,
            CacheStatus::Unreachable => CacheState::DroppedUnknown,
            CacheStatus::Unsupported => CacheState::Unknown,
        }
    }

    /// How it did.
    pub(super) fn report(&self) -> CacheReport {
        let health = self.cache.as_ref().map(|cache| cache.health()).unwrap_or_default();
        let hidden = self.hidden.load(Ordering::Relaxed);
        let (status, words) = if let Some(words) = self.breaker.down().or_else(|| self.nar_breaker.down()) {
            (CacheStatus::Unreachable, Some(format!("it stopped answering: {words}")))
        } else if hidden > 0 {
            let paths = count(hidden, "path");
            let words =
                format!("it says 403 for {paths}, which counts as absent: it lets us read other things");
            (self.status, Some(words))
        } else {
            (self.status, self.words.as_ref().map(ToString::to_string))
        };
        CacheReport {
            url: self.url.clone(),
            priority: self.priority,
            status,
            words,
            requests: health.requests,
            median_seconds: health.median.map(|median| median.as_secs_f64()),
        }
    }

    /// Asks for a path, and for its NAR where that is wanted too. A cache that Nix does not use is not asked.
    pub(super) async fn ask(
        &self,
        path: &StorePath,
        settings: &Settings,
        looks_for_nars: bool,
    ) -> CacheAnswer {
        let words = || self.words.clone().unwrap_or_else(|| "it was not asked".to_owned().into());
        let cache = match (&self.cache, self.status) {
            (Some(cache), CacheStatus::Ok) => cache,
            // An unknown is never a miss.
            (_, CacheStatus::Unreachable | CacheStatus::Unsupported) => {
                let Words { status, text } = words();
                return CacheAnswer::Unreachable { status, words: text };
            }
            (_, CacheStatus::Denied) => {
                let Words { status, text } = words();
                return CacheAnswer::Denied { status, words: text };
            }
            (_, _) => return CacheAnswer::Absent,
        };
        let narinfo = narinfo::probe(cache.as_ref(), &settings.store_dir, path, self.syntax);
        let narinfo = self.breaker.ask(narinfo).await;
        // It is used, so that it has served its nix-cache-info.
        if matches!(&narinfo, Answer::Denied(Words { status: Some(403), .. })) {
            self.hidden.fetch_add(1, Ordering::Relaxed);
            return CacheAnswer::Hidden;
        }
        let trusts_cache = cache.url().is_trusted() || !settings.trust.require_signatures;
        let (mut answer, nar) = judged(narinfo, &settings.trust, trusts_cache);
        if let (CacheAnswer::Offer(offer), Some(nar)) = (&mut answer, nar.filter(|_| looks_for_nars)) {
            offer.nar = nar.found(self.nar_breaker.ask(cache.size(&nar.name)).await);
        }
        answer
    }
}

/// Whether Nix may not know how to unpack this (`makeDecompressionSink` in `src/libutil/compression.cc`, and libarchive's
/// filters).
fn is_odd(compression: &Compression) -> bool {
    const KNOWN: [&str; 9] = ["br", "compress", "grzip", "gzip", "lrzip", "lz4", "lzip", "lzma", "lzop"];
    matches!(compression, Compression::Other(name) if !KNOWN.contains(&name.as_str()))
}

/// A NAR that is worth a look.
struct Promised {
    name: ObjectName,
    size: Option<u64>,
}

impl Promised {
    /// What it is, by what the cache answered about its size.
    fn found(&self, answer: Answer<Option<u64>>) -> Nar {
        match (answer, self.size) {
            (Answer::Present(Some(found)), Some(expected)) if found != expected => {
                Nar::WrongSize { found, expected }
            }
            (Answer::Present(_), _) => Nar::There,
            // Nix takes 403 for absent here too (`FileTransfer::Forbidden` in `http-binary-cache-store.cc`).
            (Answer::Absent | Answer::Denied(Words { status: Some(403), .. }), _) => Nar::Missing,
            (Answer::Denied(Words { status, text: words }), _) => Nar::Refused { status, words },
            (Answer::Broken(words) | Answer::Unreachable(words), _) => Nar::Unknown(words.text),
        }
    }
}

/// What an answer is worth, by Nix's keys, and the NAR that Nix would then fetch.
fn judged(
    answer: Answer<Result<NarInfo, NarinfoProblem>>,
    trust: &TrustSettings,
    trusts_cache: bool,
) -> (CacheAnswer, Option<Promised>) {
    let denied = |Words { status, text: words }| CacheAnswer::Denied { status, words };
    let broken = |Words { status, text: words }| CacheAnswer::Broken { status, words };
    let unreachable = |Words { status, text: words }| CacheAnswer::Unreachable { status, words };
    let answer = match answer {
        Answer::Absent => CacheAnswer::Absent,
        Answer::Denied(words) => denied(words),
        Answer::Broken(words) => broken(words),
        Answer::Unreachable(words) => unreachable(words),
        Answer::Present(Err(problem @ NarinfoProblem::Unreadable(_))) => broken(problem.to_string().into()),
        Answer::Present(Err(NarinfoProblem::OtherPath(path))) => CacheAnswer::OtherPath(path),
        Answer::Present(Err(NarinfoProblem::OutsideCache(narinfo))) => {
            let words = "its URL leads out of the cache, where this program does not follow".to_owned();
            CacheAnswer::Offer(offer(&narinfo, trust, trusts_cache, Nar::NotFollowed(words)))
        }
        Answer::Present(Ok(narinfo)) if is_odd(narinfo.compression()) => {
            let name = crate::text::Printable(narinfo.compression().as_str()).to_string();
            let words = format!("its NAR is compressed by {name:?}, which this program does not know");
            CacheAnswer::Offer(offer(&narinfo, trust, trusts_cache, Nar::NotFollowed(words)))
        }
        Answer::Present(Ok(narinfo)) => {
            let offer = offer(&narinfo, trust, trusts_cache, Nar::NotChecked);
            let nar = nar_object(&narinfo).filter(|_| offer.trust.is_enough());
            let nar = nar.map(|name| Promised { name, size: narinfo.file_size() });
            return (CacheAnswer::Offer(offer), nar);
        }
    };
    (answer, None)
}

fn offer(narinfo: &NarInfo, trust: &TrustSettings, trusts_cache: bool, nar: Nar) -> Offer {
    Offer {
        trust: narinfo::trust(narinfo, &trust.public_keys, trusts_cache),
        references: narinfo
            .references()
            .iter()
            .filter(|path| *path != narinfo.store_path())
            .cloned()
            .collect(),
        nar,
        download_bytes: narinfo.file_size(),
        unpack_bytes: narinfo.nar_size(),
    }
}
