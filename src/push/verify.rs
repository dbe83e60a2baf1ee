//! Proof from the read side: can Nix fetch the closure now?

use std::collections::HashSet;
use std::sync::Arc;

use nix_derivation::{StoreDir, StorePath};

use super::reading::{Distrust, PathId, Reading, Served, Trusted, member};
use crate::cache::narinfo::is_usable;
use crate::cache::presence::{self, Breaker};
use crate::cache::{Answer, BinaryCache};
use crate::event::{Event, Reporter};
use crate::graph::PathIndex;
use crate::text::count;

/// How many problems are kept; the rest are counted.
const KEPT: usize = 20;

/// What reading back found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is wrong, one sentence each; empty when the closure can be fetched.
    pub problems: Vec<String>,
    /// How many more problems there are.
    pub more: usize,
    /// Whether something could not be asked, so that its absence is not proven.
    pub inconclusive: bool,
}

impl Verdict {
    /// Whether the closure can be fetched.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, problem: String) {
        if self.problems.len() < KEPT {
            self.problems.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Something that was not answered, or not as it should have been.
    fn add_answer<T>(&mut self, what: &str, answer: &Answer<T>) {
        match answer {
            Answer::Present(_) => {}
            Answer::Absent => self.add(format!("{what} is not in the target")),
            Answer::Denied(words) => {
                self.inconclusive = true;
                self.add(format!("{what} may not be read: {words}"));
            }
            Answer::Broken(words) => self.add(format!("{what} is broken: {words}")),
            Answer::Unreachable(words) => {
                self.inconclusive = true;
                self.add(format!("{what} could not be asked for: {words}"));
            }
        }
    }
}

/// A closure to be read back from a cache.
#[derive(Debug)]
pub struct Verification<'a> {
    /// The cache.
    pub target: &'a Arc<dyn BinaryCache>,
    /// Caches whose paths need not be in the target, each with whose word counts for it.
    pub upstreams: &'a [(Arc<dyn BinaryCache>, Trusted)],
    /// Whose store the paths are for.
    pub store_dir: &'a StoreDir,
    /// What an upstream was found to serve, before the push.
    pub served_upstream: &'a HashSet<PathIndex>,
    /// What this run has read of the target already.
    pub reading: Reading<'a>,
}

/// Which of the caches went down since reading back began.
struct Breakers {
    target: Breaker,
    upstreams: Vec<Breaker>,
}

impl Verification<'_> {
    /// Walks from `roots` along the references that the target's own narinfos give, as Nix will.
    ///
    /// The walk ends where the target names more paths than a run remembers.
    pub async fn run(mut self, roots: &[PathIndex], reporter: &Reporter) -> Verdict {
        reporter.emit(Event::VerifyStarted { target: self.target.url().to_string() });
        let mut verdict = Verdict::default();
        let down = Breakers {
            target: Breaker::default(),
            upstreams: self.upstreams.iter().map(|_| Breaker::default()).collect(),
        };
        let mut level: Vec<PathId> = roots.iter().copied().map(member).collect();
        let mut seen: HashSet<PathId> = level.iter().copied().collect();
        let mut walked = Vec::new();
        while !level.is_empty() {
            self.ask(&level, &down, reporter, &mut verdict).await;
            let mut next = Vec::new();
            for id in level {
                let Some(served) = self.reading.served(id) else { continue };
                for problem in problems_of(self.reading.path(id), served) {
                    verdict.add(problem);
                }
                next.extend(served.references.iter().copied().filter(|reference| seen.insert(*reference)));
                walked.push(id);
            }
            level = next;
            if let Some(limit) = self.reading.limit_passed() {
                let strangers = count(limit, "path");
                let problem =
                    format!("the target's narinfos name more than {strangers} outside of the closure");
                // First, because it is why nothing is said of the rest.
                verdict.problems.insert(0, problem);
                break;
            }
        }
        self.check_nars(&walked, &down.target, &mut verdict).await;
        verdict
    }

    /// Asks for the narinfos that nobody has read yet.
    async fn ask(&mut self, level: &[PathId], down: &Breakers, reporter: &Reporter, verdict: &mut Verdict) {
        let is_upstream =
            |id: PathId| self.reading.index(id).is_some_and(|index| self.served_upstream.contains(&index));
        let is_open = |id: &PathId| self.reading.served(*id).is_none() && !is_upstream(*id);
        // Copied, because what is read meanwhile may name new ones.
        let asked: Vec<StorePath> =
            level.iter().copied().filter(is_open).map(|id| self.reading.path(id).clone()).collect();
        let paths: Vec<&StorePath> = asked.iter().collect();
        let keep = |narinfo| self.reading.take(&narinfo);
        let answers =
            presence::narinfos(self.target, &down.target, self.store_dir, &paths, reporter, keep).await;
        let mut missing = Vec::new();
        for (path, answer) in paths.into_iter().zip(answers) {
            match answer {
                Answer::Absent => missing.push(path),
                answer => verdict.add_answer(&narinfo_words(path), &answer),
            }
        }
        self.look_upstream(missing, down, reporter, verdict).await;
    }

    /// Looks whether an upstream serves what the target does not have.
    async fn look_upstream(
        &self,
        mut missing: Vec<&StorePath>,
        down: &Breakers,
        reporter: &Reporter,
        verdict: &mut Verdict,
    ) {
        for ((upstream, trusted), down) in self.upstreams.iter().zip(&down.upstreams) {
            if missing.is_empty() {
                return;
            }
            let keep = |narinfo| is_usable(&narinfo, &trusted.keys, trusted.whole_cache);
            let answers = presence::narinfos(upstream, down, self.store_dir, &missing, reporter, keep).await;
            verdict.inconclusive |= answers.iter().any(|answer| matches!(answer, Answer::Unreachable(_)));
            let open = missing.iter().zip(&answers).filter(|(_, answer)| **answer != Answer::Present(true));
            missing = open.map(|(path, _)| *path).collect();
        }
        for path in missing {
            verdict.add_answer(&narinfo_words(path), &Answer::<()>::Absent);
        }
    }

    /// Looks whether each NAR is there with the size that its narinfo says.
    async fn check_nars(&self, ids: &[PathId], down: &Breaker, verdict: &mut Verdict) {
        let narinfos: Vec<(PathId, &Served)> =
            ids.iter().filter_map(|id| Some((*id, self.reading.served(*id)?))).collect();
        let questions = narinfos.iter().map(|(_, served)| self.target.size(&served.nar));
        let answers = presence::ask(down, questions, |_, answer| answer).await;
        for ((id, served), answer) in narinfos.into_iter().zip(answers) {
            let what = format!("the NAR of {}", self.reading.path(id).to_basename());
            match (answer, served.file_size) {
                (Answer::Present(Some(found)), Some(expected)) if found != expected => {
                    verdict.add(format!("{what} has {found} bytes in the target instead of {expected}"));
                }
                (answer, _) => verdict.add_answer(&what, &answer),
            }
        }
    }
}

fn narinfo_words(path: &StorePath) -> String {
    format!("the narinfo of {}", path.to_basename())
}

/// What is wrong with a narinfo that is there.
fn problems_of(path: &StorePath, served: &Served) -> impl Iterator<Item = String> {
    let distrust = served.distrust.as_ref().map(|distrust| match distrust {
        Distrust::Unsigned => {
            format!("{} carries no signature that Nix trusts here or that this run makes", path.to_basename())
        }
        Distrust::BadSignature(names) => {
            format!("{} carries a signature by {} that is not valid", path.to_basename(), names.join(", "))
        }
    });
    served.contradiction.clone().into_iter().chain(distrust)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use nix_derivation::NixHash;

    use super::*;
    use crate::cache::narinfo::{StoredNar, narinfo_of, object_name};
    use crate::cache::{CacheUrl, ObjectName, Pieces, SigningKey, WriteError};
    use crate::graph::tests::{closure, info, store_path};
    use crate::net::{Sent, UploadBody};

    /// A cache with these narinfos, whose NARs are all there or all out of reach.
    #[derive(Debug)]
    struct Fake {
        url: CacheUrl,
        narinfos: Vec<(ObjectName, Vec<u8>)>,
        has_nars: bool,
        asked: AtomicUsize,
    }

    impl Fake {
        fn new(graph: &[Vec<usize>], key: Option<&SigningKey>, has_nars: bool) -> Arc<Self> {
            let stored = StoredNar {
                name: ObjectName::new("nar/x.nar").expect("a name"),
                compression: nix_narinfo::Compression::None,
                file_hash: NixHash::Sha256([1; 32]),
                file_size: 7,
            };
            let narinfo = |(number, references): (usize, &Vec<usize>)| {
                let info = info(number, references);
                let narinfo = narinfo_of(&info, &stored, &StoreDir::default(), key).expect("a narinfo");
                (object_name(&info.path), narinfo.to_canonical_bytes())
            };
            let url = CacheUrl::parse("http://fake", Path::new("/")).expect("a URL");
            let narinfos = graph.iter().enumerate().map(narinfo).collect();
            Arc::new(Self { url, narinfos, has_nars, asked: AtomicUsize::new(0) })
        }
    }

    impl BinaryCache for Fake {
        fn url(&self) -> &CacheUrl {
            &self.url
        }

        fn get<'a>(&'a self, name: &'a ObjectName, _limit: usize) -> BoxFuture<'a, Answer<Bytes>> {
            let found = self.narinfos.iter().find(|(known, _)| known == name);
            let answer = found.map_or(Answer::Absent, |(_, body)| Answer::Present(body.clone().into()));
            std::future::ready(answer).boxed()
        }

        fn read<'a>(&'a self, _name: &'a ObjectName) -> BoxFuture<'a, Answer<Pieces<'a>>> {
            std::future::ready(Answer::Absent).boxed()
        }

        fn size<'a>(&'a self, _name: &'a ObjectName) -> BoxFuture<'a, Answer<Option<u64>>> {
            async {
                self.asked.fetch_add(1, Ordering::SeqCst);
                if self.has_nars {
                    Answer::Present(Some(7))
                } else {
                    Answer::Unreachable("down".to_owned().into())
                }
            }
            .boxed()
        }

        fn put<'a>(
            &'a self,
            _name: &'a ObjectName,
            _body: UploadBody,
            _sent: Sent<'a>,
        ) -> BoxFuture<'a, Result<(), WriteError>> {
            std::future::ready(Err(WriteError::Rejected { words: "read only".to_owned() })).boxed()
        }
    }

    /// Reads a closure back from a target that has `served`, with an upstream.
    async fn verdict(
        graph: &[Vec<usize>],
        target: &Arc<Fake>,
        upstream: &Arc<Fake>,
        key: &SigningKey,
    ) -> Verdict {
        let closure = closure(graph);
        let trusted = Trusted { keys: vec![key.trusted()], whole_cache: false };
        let cache: Arc<dyn BinaryCache> = Arc::<Fake>::clone(target);
        let upstream: Arc<dyn BinaryCache> = Arc::<Fake>::clone(upstream);
        let verification = Verification {
            target: &cache,
            upstreams: &[(upstream, trusted.clone())],
            store_dir: &StoreDir::default(),
            served_upstream: &HashSet::new(),
            reading: Reading::new(&closure, trusted),
        };
        let roots: Vec<PathIndex> = closure.indices().collect();
        verification.run(&roots, &Reporter::silent()).await
    }

    #[tokio::test]
    async fn a_target_that_goes_down_is_not_asked_for_every_nar() {
        let graph = vec![Vec::new(); 500];
        let key = SigningKey::generate().expect("a key");
        let (dead, live) = (Fake::new(&graph, Some(&key), false), Fake::new(&graph, Some(&key), true));
        let found = verdict(&graph, &dead, &live, &key).await;
        assert!(found.inconclusive);
        assert_eq!(found.problems.len() + found.more, 500);
        let asked = dead.asked.load(Ordering::SeqCst);
        assert!(asked < 100, "{asked} questions to a dead cache");
        let found = verdict(&graph, &live, &live, &key).await;
        assert_eq!((found.problems, found.inconclusive), (Vec::new(), false));
        assert_eq!(live.asked.load(Ordering::SeqCst), 500);
    }

    #[tokio::test]
    async fn an_upstream_counts_only_for_what_nix_would_take_from_it() {
        let graph = [vec![], vec![0]];
        let (key, strange) = (SigningKey::generate().expect("a key"), SigningKey::generate().expect("a key"));
        let mut target = Fake::new(&graph, Some(&key), true);
        Arc::get_mut(&mut target).expect("nobody else has it").narinfos.remove(0);
        let trusted = Fake::new(&graph, Some(&key), true);
        assert_eq!(verdict(&graph, &target, &trusted, &key).await.problems, Vec::<String>::new());
        for upstream in [Fake::new(&graph, Some(&strange), true), Fake::new(&[], None, true)] {
            let found = verdict(&graph, &target, &upstream, &key).await;
            let expected = format!("the narinfo of {} is not in the target", store_path(0).to_basename());
            assert_eq!(found.problems, [expected]);
        }
    }
}
