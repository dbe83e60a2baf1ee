//! Proof from the read side: can Nix fetch the closure now?

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nix_derivation::{StoreDir, StorePath};
use nix_narinfo::NarInfo;

use crate::cache::narinfo::nar_object;
use crate::cache::{Answer, BinaryCache, presence};
use crate::event::{Event, Reporter};

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
}

/// A closure to be read back from a cache.
#[derive(Debug)]
pub struct Verification<'a> {
    /// The cache.
    pub target: &'a Arc<dyn BinaryCache>,
    /// Caches whose paths need not be in the target.
    pub upstreams: &'a [Arc<dyn BinaryCache>],
    /// Whose store the paths are for.
    pub store_dir: &'a StoreDir,
    /// What an upstream was found to serve, before the push.
    pub served_upstream: &'a HashSet<StorePath>,
    /// Narinfos of the target that this run has read already.
    pub known: Vec<NarInfo>,
    /// Paths whose NARs are looked for as well: those that were pushed.
    pub pushed: HashSet<StorePath>,
}

impl Verification<'_> {
    /// Walks from `roots` along the references that the target's own narinfos give, as Nix will.
    pub async fn run(mut self, roots: &[StorePath], reporter: &Reporter) -> Verdict {
        reporter.emit(Event::VerifyStarted { target: self.target.url().to_string() });
        let mut verdict = Verdict::default();
        let mut known: HashMap<StorePath, NarInfo> = std::mem::take(&mut self.known)
            .into_iter()
            .map(|narinfo| (narinfo.store_path().clone(), narinfo))
            .collect();
        let mut seen: HashSet<StorePath> = roots.iter().cloned().collect();
        let mut level: Vec<StorePath> = roots.to_vec();
        let mut stored = Vec::new();
        while !level.is_empty() {
            let (here, asked): (Vec<_>, Vec<_>) = level
                .into_iter()
                .partition(|path| known.contains_key(path) || self.served_upstream.contains(path));
            let mut narinfos: Vec<NarInfo> = here.iter().filter_map(|path| known.remove(path)).collect();
            let questions: Vec<&StorePath> = asked.iter().collect();
            let answers = presence::narinfos(self.target, self.store_dir, &questions, reporter).await;
            let mut missing = Vec::new();
            for (path, answer) in asked.iter().zip(answers) {
                match answer {
                    Answer::Present(narinfo) => narinfos.push(narinfo),
                    Answer::Absent => missing.push(path),
                    other => {
                        verdict.inconclusive |= matches!(other, Answer::Unreachable(_) | Answer::Denied(_));
                        verdict.add(problem_of(path, &other));
                    }
                }
            }
            for path in missing {
                if !self.is_upstream(path).await {
                    verdict.add(format!("{} has no narinfo in the target", path.to_basename()));
                }
            }
            level = Vec::new();
            for narinfo in narinfos {
                for reference in narinfo.references() {
                    if seen.insert(reference.clone()) {
                        level.push(reference.clone());
                    }
                }
                if self.pushed.contains(narinfo.store_path()) {
                    stored.push(narinfo);
                }
            }
        }
        check_nars(self.target, &stored, &mut verdict).await;
        verdict
    }

    /// Whether an upstream serves a path that was not part of the closure that was pushed.
    async fn is_upstream(&self, path: &StorePath) -> bool {
        for upstream in self.upstreams {
            let answer = crate::cache::narinfo::fetch(upstream.as_ref(), self.store_dir, path).await;
            if matches!(answer, Answer::Present(_)) {
                return true;
            }
        }
        false
    }
}

fn problem_of(path: &StorePath, answer: &Answer<NarInfo>) -> String {
    let path = path.to_basename();
    match answer {
        Answer::Present(_) | Answer::Absent => format!("{path} has no narinfo in the target"),
        Answer::Denied(words) => format!("the narinfo of {path} may not be read: {words}"),
        Answer::Broken(words) => format!("the narinfo of {path} is broken: {words}"),
        Answer::Unreachable(words) => format!("the narinfo of {path} could not be read: {words}"),
    }
}

/// Looks whether each NAR is there with the size that its narinfo says.
async fn check_nars(target: &Arc<dyn BinaryCache>, narinfos: &[NarInfo], verdict: &mut Verdict) {
    use futures_util::StreamExt as _;
    let questions = narinfos.iter().map(|narinfo| async move {
        // A narinfo whose URL leads out of the cache was not taken as present in the first place.
        let name = nar_object(narinfo)?;
        Some((narinfo, target.size(&name).await))
    });
    let mut answers = std::pin::pin!(futures_util::stream::iter(questions).buffer_unordered(64));
    while let Some(answer) = answers.next().await {
        let Some((narinfo, answer)) = answer else { continue };
        let path = narinfo.store_path().to_basename();
        match answer {
            Answer::Present(size) if size.is_none() || size == narinfo.file_size() => {}
            Answer::Present(size) => verdict.add(format!(
                "the NAR of {path} has {} bytes in the target instead of {}",
                size.unwrap_or_default(),
                narinfo.file_size().unwrap_or_default()
            )),
            Answer::Absent => verdict.add(format!("the NAR of {path} is not in the target")),
            Answer::Denied(words) | Answer::Broken(words) | Answer::Unreachable(words) => {
                verdict.inconclusive |= true;
                verdict.add(format!("the NAR of {path} could not be looked for: {words}"));
            }
        }
    }
}
