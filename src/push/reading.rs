//! What a run remembers of the narinfos that the target serves: enough to plan, to judge and to walk on, and no more.
//!
//! A server may send a megabyte a path, and name paths without end. So a narinfo is judged when it comes and kept as a few
//! numbers; references into the closure are places in it, and of all others only so many are remembered.

use std::collections::{HashMap, HashSet};

use nix_derivation::StorePath;
use nix_narinfo::{NarInfo, TrustedPublicKey};

use crate::audit::Trust;
use crate::cache::ObjectName;
use crate::cache::narinfo::{nar_object, trust};
use crate::graph::{Closure, PathIndex, PathInfo};

/// How many paths outside of the closure are remembered, besides as many as the closure has.
const STRANGERS: usize = 4096;

/// A path that a run has to do with: a member of the closure, or one that only the target's narinfos name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(u32);

/// What is remembered of one narinfo.
#[derive(Debug)]
pub struct Served {
    /// What it refers to, other than itself.
    pub references: Box<[PathId]>,
    /// The object that holds the content.
    pub nar: ObjectName,
    /// That object's size in bytes, where the narinfo says it.
    pub file_size: Option<u64>,
    /// What it says otherwise than the store about the same content.
    pub contradiction: Option<String>,
    /// Why Nix would not take it; nothing where it would, or where only others can tell.
    pub distrust: Option<Distrust>,
}

/// Why nobody can trust a narinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// It carries no signature at all.
    Unsigned,
    /// It is signed in the name of these keys, and the signatures are not theirs.
    BadSignature(Vec<String>),
}

/// Whose word counts.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// The keys that Nix trusts here, and the one of this run.
    pub keys: Vec<TrustedPublicKey>,
    /// Whether signatures do not matter for this cache.
    pub whole_cache: bool,
}

/// Everything that was read of a target so far.
#[derive(Debug)]
pub struct Reading<'a> {
    closure: &'a Closure,
    trusted: Trusted,
    members: HashMap<&'a StorePath, PathId>,
    strangers: Vec<StorePath>,
    stranger_ids: HashMap<StorePath, PathId>,
    most_strangers: usize,
    has_too_many: bool,
    served: HashMap<PathId, Served>,
}

impl<'a> Reading<'a> {
    /// Nothing is read yet.
    pub fn new(closure: &'a Closure, trusted: Trusted) -> Self {
        let members = closure.indices().map(|index| (&closure.info(index).path, member(index))).collect();
        Self {
            closure,
            trusted,
            members,
            strangers: Vec::new(),
            stranger_ids: HashMap::new(),
            most_strangers: closure.len() + STRANGERS,
            has_too_many: false,
            served: HashMap::new(),
        }
    }

    /// Judges a narinfo and remembers what matters of it.
    pub fn take(&mut self, narinfo: &NarInfo) {
        let path = narinfo.store_path();
        // Asked for was a path that is known, or nobody would have asked.
        let Some(id) = self.id(path) else { return };
        // A narinfo whose URL leads out of the cache was not taken as present in the first place.
        let Some(nar) = nar_object(narinfo) else { return };
        let mut references: Vec<PathId> =
            narinfo.references().iter().filter_map(|reference| self.id(reference)).collect();
        references.sort_unstable();
        references.dedup();
        references.retain(|reference| *reference != id);
        let registered = self.index(id).map(|index| self.closure.info(index));
        let served = Served {
            references: references.into(),
            nar,
            file_size: narinfo.file_size(),
            contradiction: registered.and_then(|info| contradiction(narinfo, info)),
            distrust: self.distrust(narinfo),
        };
        self.served.insert(id, served);
    }

    fn distrust(&self, narinfo: &NarInfo) -> Option<Distrust> {
        if self.trusted.whole_cache {
            // Checking a signature takes some 30 microseconds, of which thousands of paths make a wait.
            return None;
        }
        match trust(narinfo, &self.trusted.keys, false) {
            Trust::Unsigned => Some(Distrust::Unsigned),
            Trust::BadSignature(names) => Some(Distrust::BadSignature(names)),
            // Signed by keys that are not trusted here: who pushes need not trust every key of the cache.
            Trust::Signed | Trust::ContentAddressed | Trust::NotNeeded | Trust::UnknownKeys(_) => None,
        }
    }

    /// What is remembered of a path's narinfo; nothing where none was read.
    pub fn served(&self, id: PathId) -> Option<&Served> {
        self.served.get(&id)
    }

    /// The members of the closure that the target's narinfo of a member refers to.
    pub fn references(&self, index: PathIndex) -> Vec<PathIndex> {
        let served = self.served.get(&member(index));
        served.into_iter().flat_map(|served| &*served.references).filter_map(|id| self.index(*id)).collect()
    }

    /// The paths that nobody can trust, in the closure's order.
    pub fn distrusted(&self) -> Vec<PathIndex> {
        let is_distrusted = |index: &PathIndex| {
            self.served.get(&member(*index)).is_some_and(|served| served.distrust.is_some())
        };
        self.closure.indices().filter(is_distrusted).collect()
    }

    /// The path of an id.
    pub fn path(&self, id: PathId) -> &StorePath {
        match self.index(id) {
            Some(index) => &self.closure.info(index).path,
            None => &self.strangers[id.0 as usize - self.closure.len()],
        }
    }

    /// How many paths outside of the closure are remembered at most, where more than that were named.
    pub fn limit_passed(&self) -> Option<usize> {
        self.has_too_many.then_some(self.most_strangers)
    }

    /// The member that an id stands for.
    pub fn index(&self, id: PathId) -> Option<PathIndex> {
        self.closure.member(id.0 as usize)
    }

    /// The id of a path; nothing for one too many.
    fn id(&mut self, path: &StorePath) -> Option<PathId> {
        if let Some(id) = self.members.get(path).or_else(|| self.stranger_ids.get(path)) {
            return Some(*id);
        }
        if self.strangers.len() >= self.most_strangers {
            self.has_too_many = true;
            return None;
        }
        let id = PathId(u32::try_from(self.closure.len() + self.strangers.len()).ok()?);
        self.strangers.push(path.clone());
        self.stranger_ids.insert(path.clone(), id);
        Some(id)
    }
}

/// The id of a member of the closure.
pub(super) fn member(index: PathIndex) -> PathId {
    PathId(u32::try_from(index.position()).expect("a store holds fewer than 2^32 paths"))
}

/// What a narinfo says otherwise than the store about the same content.
///
/// Other content under the same path is another build of the same derivation, which has references of its own and is no
/// less fetchable.
pub(crate) fn contradiction(narinfo: &NarInfo, info: &PathInfo) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use nix_derivation::{NixHash, StoreDir};

    use super::*;
    use crate::cache::SigningKey;
    use crate::cache::narinfo::{StoredNar, narinfo_of};
    use crate::graph::tests::{closure, info};

    fn signed(info: &PathInfo, key: Option<&SigningKey>) -> NarInfo {
        let stored = StoredNar {
            name: ObjectName::new("nar/x.nar").expect("a name"),
            compression: nix_narinfo::Compression::None,
            file_hash: NixHash::Sha256([1; 32]),
            file_size: 7,
        };
        narinfo_of(info, &stored, &StoreDir::default(), key).expect("a narinfo")
    }

    fn served(info: &PathInfo) -> NarInfo {
        signed(info, None)
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

    #[test]
    fn what_nobody_vouches_for_is_distrusted_and_a_strange_key_is_not() {
        let closure = closure(&[vec![]]);
        let (ours, strange) =
            (SigningKey::generate().expect("a key"), SigningKey::generate().expect("a key"));
        let distrust = |narinfo: &NarInfo, whole_cache| {
            let mut reading = Reading::new(&closure, Trusted { keys: vec![ours.trusted()], whole_cache });
            reading.take(narinfo);
            reading.served(PathId(0)).expect("it was read").distrust.clone()
        };
        let registered = info(0, &[]);
        assert_eq!(distrust(&signed(&registered, Some(&ours)), false), None);
        assert_eq!(distrust(&signed(&registered, Some(&strange)), false), None);
        assert_eq!(distrust(&served(&registered), false), Some(Distrust::Unsigned));
        assert_eq!(distrust(&served(&registered), true), None);
        let mut forged = registered;
        forged.signatures = signed(&info(7, &[]), Some(&ours)).signatures().to_vec();
        let bad = Distrust::BadSignature(vec![ours.name().to_owned()]);
        assert_eq!(distrust(&served(&forged), false), Some(bad));
    }

    #[test]
    fn paths_without_end_are_not_remembered() {
        let closure = closure(&[vec![], vec![0]]);
        let mut reading = Reading::new(&closure, Trusted::default());
        let many: Vec<usize> = (0..STRANGERS + 3).collect();
        reading.take(&served(&info(1, &many[..STRANGERS])));
        assert_eq!(reading.limit_passed(), None);
        reading.take(&served(&info(1, &many)));
        reading.take(&served(&info(0, &[STRANGERS + 10, STRANGERS + 11])));
        assert_eq!(reading.limit_passed(), Some(STRANGERS + 2));
        assert_eq!(reading.strangers.len(), STRANGERS + 2);
    }
}
