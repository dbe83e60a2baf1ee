//! Asking the caches for a closure: every narinfo names what to ask for next, and the NAR that it promises.

use std::collections::VecDeque;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use nix_derivation::StorePath;

use super::caches::{Narinfo, Proof, Said};
use super::nars::{self, LargeWindow};
use super::outcome::{Served, Totals};
use crate::cache::ObjectName;
use crate::cache::presence;
use crate::cache::unpack::Promise;
use crate::event::{Event, Reporter};
use crate::proof::{Finding, Findings, PathId, Problem, Walk};

/// What was found of a closure.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) findings: Findings,
    pub(super) totals: Totals,
    /// What each of the caches serves.
    pub(super) served: Vec<Served>,
}

/// A NAR that is to be looked at.
#[derive(Debug)]
struct Wanted {
    id: PathId,
    cache: usize,
    name: ObjectName,
    promise: Promise,
}

/// What a question gave.
enum Answered {
    Narinfo(PathId, usize, Said),
    Nar(Wanted, Option<u64>, Option<Problem>),
}

/// Asks until nothing more is to be known.
///
/// As many questions are open as the caches take, narinfos before NARs: they name what to ask for next. Downloads are few at a
/// time, and go on beside the questions.
pub(super) async fn ask(proof: &Proof<'_>, roots: &[StorePath], is_deep: bool, reporter: &Reporter) -> Asked {
    let url = proof.caches.first().map(|cache| cache.url.clone()).unwrap_or_default();
    reporter.emit(Event::LookupStarted { cache: url.clone(), paths: 0 });
    let mut asking = Asking {
        proof,
        url,
        walk: Walk::new(roots.iter().cloned()),
        wanted: Default::default(),
        is_deep,
        reporter,
        found: Asked {
            findings: Findings::default(),
            totals: Totals::default(),
            served: proof.caches.iter().map(|_| Served::default()).collect(),
        },
    };
    let large = LargeWindow::default();
    let mut open: FuturesUnordered<BoxFuture<'_, Answered>> = FuturesUnordered::new();
    let mut downloads = [0; nars::DOWNLOADS.len()];
    loop {
        while open.len() - downloads.iter().sum::<usize>() < presence::WIDTH {
            let Some(question) = asking.next_question() else { break };
            open.push(question);
        }
        for (size, most) in nars::DOWNLOADS.into_iter().enumerate().filter(|_| is_deep) {
            while downloads[size] < most
                && let Some(wanted) = asking.wanted[size].pop_front()
            {
                downloads[size] += 1;
                let path = asking.walk.path(wanted.id).to_basename();
                open.push(download(proof, wanted, path, &large, reporter).boxed());
            }
        }
        match open.next().await {
            None => break,
            Some(Answered::Narinfo(id, cache, said)) => asking.take(id, cache, said),
            Some(Answered::Nar(wanted, size, problem)) => {
                downloads[nars::size(&wanted.promise)] -= usize::from(is_deep);
                asking.take_nar(wanted, size, problem);
            }
        }
    }
    asking.end()
}

async fn download(
    proof: &Proof<'_>,
    wanted: Wanted,
    path: String,
    large: &LargeWindow,
    reporter: &Reporter,
) -> Answered {
    reporter.emit(Event::NarStarted { path: path.clone() });
    let cache = &proof.caches[wanted.cache];
    let problem = nars::read(cache, &wanted.name, &wanted.promise, large, reporter).await;
    reporter.emit(Event::NarEnded { path });
    Answered::Nar(wanted, None, problem)
}

/// A closure that is being asked for.
struct Asking<'a> {
    proof: &'a Proof<'a>,
    url: String,
    walk: Walk,
    /// NARs that nobody has looked at yet, small and large ones.
    wanted: [VecDeque<Wanted>; nars::DOWNLOADS.len()],
    is_deep: bool,
    reporter: &'a Reporter,
    found: Asked,
}

impl<'a> Asking<'a> {
    /// The next thing to ask, where there is one for now.
    fn next_question(&mut self) -> Option<BoxFuture<'a, Answered>> {
        let proof = self.proof;
        if let Some(id) = self.walk.ask_next() {
            self.reporter.emit(Event::LookupGrew { cache: self.url.clone(), paths: 1 });
            let path = self.walk.path(id).clone();
            let question = async move {
                let (cache, said) = proof.look(&path).await;
                Answered::Narinfo(id, cache, said)
            };
            return Some(question.boxed());
        }
        if self.is_deep {
            return None;
        }
        let wanted = self.wanted.iter_mut().find_map(VecDeque::pop_front)?;
        self.reporter.emit(Event::LookupGrew { cache: self.url.clone(), paths: 1 });
        let question = async move {
            let cache = &proof.caches[wanted.cache];
            let (size, problem) = nars::look(cache, &wanted.name, &wanted.promise).await;
            Answered::Nar(wanted, size, problem)
        };
        Some(question.boxed())
    }

    /// Takes in what was said of a path.
    fn take(&mut self, id: PathId, cache: usize, said: Said) {
        self.reporter.emit(Event::LookupAnswered { cache: self.url.clone() });
        let narinfo = match said {
            Said::Absent => {
                let has_upstreams = self.proof.caches.len() > 1;
                return self.find(id, cache, Problem::Missing { has_upstreams }, None);
            }
            Said::Useless(problem) => return self.find(id, cache, problem, None),
            Said::Narinfo(narinfo) => narinfo,
        };
        let Narinfo { references, nar, problem, contradiction } = *narinfo;
        self.walk.refers(id, &references);
        for problem in problem.into_iter().chain(contradiction) {
            self.find(id, cache, problem, nar.as_ref().map(|(name, _)| name));
        }
        let Some((name, promise)) = nar else { return };
        let served = &mut self.found.served[cache];
        served.paths += 1;
        served.download_bytes = served.download_bytes.saturating_add(promise.file_size.unwrap_or(0));
        served.unpack_bytes = served.unpack_bytes.saturating_add(promise.nar_size);
        if self.is_deep {
            self.reporter.emit(Event::NarWanted { file_bytes: promise.file_size.unwrap_or(0) });
        }
        self.wanted[nars::size(&promise)].push_back(Wanted { id, cache, name, promise });
    }

    /// Takes in what was found of a NAR, and its size where only the cache knows it.
    fn take_nar(&mut self, wanted: Wanted, size: Option<u64>, problem: Option<Problem>) {
        let Wanted { id, cache, name, promise } = wanted;
        if !self.is_deep {
            self.reporter.emit(Event::LookupAnswered { cache: self.url.clone() });
        }
        if let (None, Some(size)) = (promise.file_size, size) {
            let served = &mut self.found.served[cache];
            served.download_bytes = served.download_bytes.saturating_add(size);
        }
        self.found.totals.nars += 1;
        if let Some(problem) = problem {
            self.find(id, cache, problem, Some(&name));
        }
    }

    fn find(&mut self, id: PathId, cache: usize, problem: Problem, nar: Option<&ObjectName>) {
        let store_dir = &self.proof.settings.store_dir;
        self.found.findings.add(Finding {
            path: Some(store_dir.render_path(self.walk.path(id))),
            cache,
            problem,
            needed_by: self.walk.needed_by(id).map(|path| store_dir.render_path(path)),
            nar: nar.map(|name| name.as_str().to_owned()),
        });
    }

    fn end(mut self) -> Asked {
        let held = self.found.served.iter().map(|served| served.paths).sum();
        self.reporter.emit(Event::LookupFinished { cache: self.url, held });
        if let Some(most) = self.walk.limit_passed() {
            let problem = Problem::TooMany(most);
            self.found.findings.add(Finding { path: None, cache: 0, problem, needed_by: None, nar: None });
        }
        self.found.totals.paths = self.walk.len();
        self.found
    }
}
