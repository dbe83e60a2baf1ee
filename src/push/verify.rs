//! Proof from the read side: can Nix fetch the closure now?

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nix_derivation::{StoreDir, StorePath};
use nix_narinfo::NarInfo;

use crate::cache::narinfo::nar_object;
use crate::cache::{Answer, BinaryCache, presence};
use crate::event::{Event, Reporter};
use crate::graph::PathInfo;

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
    /// What the local store knows of the paths: the same content must be served with the same references.
    pub registered: HashMap<&'a StorePath, &'a PathInfo>,
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
            let answers =
                presence::narinfos(self.target, self.store_dir, &questions, reporter, |narinfo| narinfo)
                    .await;
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
                if let Some(problem) =
                    self.registered.get(narinfo.store_path()).and_then(|info| contradiction(&narinfo, info))
                {
                    verdict.add(problem);
                }
                for reference in narinfo.references() {
                    if seen.insert(reference.clone()) {
                        level.push(reference.clone());
                    }
                }
                stored.push(narinfo);
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

/// What a narinfo says otherwise than the store about the same content.
///
/// Other content under the same path is another build of the same derivation, which has references of its own and is no
/// less fetchable.
fn contradiction(narinfo: &NarInfo, info: &PathInfo) -> Option<String> {
    if *narinfo.nar_hash() != info.nar_hash {
        return None;
    }
    let path = info.path.to_basename();
    if narinfo.nar_size() != info.nar_size {
        return Some(format!(
            "the narinfo of {path} gives a NAR of {} bytes, and the store one of {} bytes with the same hash",
            narinfo.nar_size(),
            info.nar_size
        ));
    }
    let served: HashSet<&StorePath> = narinfo.references().iter().collect();
    let registered: HashSet<&StorePath> = info.references.iter().collect();
    let (verb, reference) = registered
        .difference(&served)
        .map(|reference| ("lacks", *reference))
        .chain(served.difference(&registered).map(|reference| ("adds", *reference)))
        .min_by_key(|(_, reference)| reference.to_basename())?;
    Some(format!("the narinfo of {path} {verb} the reference to {}", reference.to_basename()))
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

#[cfg(test)]
mod tests {
    use nix_derivation::NixHash;

    use super::*;
    use crate::cache::ObjectName;
    use crate::cache::narinfo::{StoredNar, narinfo_of};
    use crate::graph::tests::info;

    fn served(info: &PathInfo) -> NarInfo {
        let stored = StoredNar {
            name: ObjectName::new("nar/x.nar").expect("a name"),
            compression: nix_narinfo::Compression::None,
            file_hash: NixHash::Sha256([1; 32]),
            file_size: 7,
        };
        narinfo_of(info, &stored, &StoreDir::default(), None).expect("a narinfo")
    }

    #[test]
    fn the_same_content_has_the_same_references() {
        let registered = info(3, &[0, 1, 3]);
        assert_eq!(contradiction(&served(&registered), &registered), None);
        let lost = contradiction(&served(&info(3, &[0, 3])), &registered).expect("a lost reference");
        assert!(lost.contains("lacks the reference") && lost.contains("-p1"), "{lost}");
        let added =
            contradiction(&served(&info(3, &[0, 1, 2, 3])), &registered).expect("a reference too many");
        assert!(added.contains("adds the reference") && added.contains("-p2"), "{added}");
        let mut other_size = registered.clone();
        other_size.nar_size += 1;
        assert!(contradiction(&served(&other_size), &registered).is_some());
    }

    #[test]
    fn another_build_of_a_path_is_judged_by_its_own_references() {
        let registered = info(3, &[0, 1]);
        let mut other = info(3, &[0]);
        other.nar_hash = NixHash::Sha256([9; 32]);
        assert_eq!(contradiction(&served(&other), &registered), None);
    }
}
