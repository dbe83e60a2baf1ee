//! The verdict: hits, misses, which misses are roots, and what each of those blocks.

use serde::Serialize;

use super::facts::{Facts, PathId, Scope};
use super::holding::{Holding, Holdings};
use super::need::{Need, needs};
use super::way::Ways;
use crate::graph::{DerivationIndex, DerivationKind};

/// What the caches hold of a derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every wanted output, and every reference below it, can be had from the caches or is valid.
    Hit,
    /// Not so.
    Miss,
    /// It cannot be known: a cache could not be asked, or the path shows only after building.
    Inconclusive,
}

/// What a miss is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// No miss, or one that does not count: Nix builds it by design, or downloads it from elsewhere.
    None,
    /// It misses while all that it waits for is there.
    Root,
    /// It misses only because of something below it.
    Cascade,
}

/// The verdict on one derivation.
#[derive(Clone, Debug)]
pub struct DerivationVerdict {
    /// Whether it is part of what the audit is about.
    pub is_in_scope: bool,
    /// Whether somebody with these caches has to fetch or build it.
    pub is_needed: bool,
    /// Whether it is needed only where something of which nobody knows turns out to be missing.
    pub is_conditional: bool,
    /// Whether all wanted outputs are valid.
    pub is_valid: bool,
    /// Positions of the wanted outputs.
    pub outputs: Vec<usize>,
    /// What the caches hold.
    pub status: Status,
    /// What a miss is to others.
    pub role: Role,
    /// Whether Nix builds it although a cache may have it. It is then left out of the rate.
    pub is_local_by_design: bool,
    /// Whether it is a download that nothing on a cache refers to. It is then counted on its own.
    pub is_download: bool,
    /// The roots that a cascade goes back to, at most [`Verdicts::CAUSES`] of them.
    pub caused_by: Vec<DerivationIndex>,
    /// How many counted misses go back to this root.
    pub blocks: usize,
}

/// The verdicts on all derivations, by their index.
#[derive(Debug)]
pub struct Verdicts {
    /// By index.
    pub derivations: Vec<DerivationVerdict>,
    /// The sums.
    pub totals: Totals,
    holdings: Holdings,
    ways: Ways,
}

/// Sums over what is in scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Derivations in the build graph.
    pub derivations: usize,
    /// Derivations that have to be fetched or built, of any kind.
    pub needed: usize,
    /// Counted derivations that the caches hold.
    pub hits: usize,
    /// Counted derivations that they do not.
    pub misses: usize,
    /// Misses while all that they wait for is there.
    pub root_misses: usize,
    /// The other misses.
    pub cascades: usize,
    /// Derivations that Nix builds by design, left out of the rate.
    pub local_by_design: usize,
    /// Downloads, left out of the rate.
    pub fixed_output: usize,
    /// Those of the downloads that the caches do not hold.
    pub fixed_output_misses: usize,
    /// Counted derivations of which nobody knows whether the caches hold them, or whether they are needed at all.
    pub inconclusive: usize,
    #[serde(skip)]
    conditional: Conditional,
    /// Bytes to download for the hits, as far as narinfos say it.
    pub download_bytes: u64,
    /// Size of their NARs in bytes.
    pub unpack_bytes: u64,
    /// Hits among hits and misses, from 0 to 1; nothing when there are none.
    pub hit_rate: Option<f64>,
}

/// What is in [`Totals::inconclusive`] because nobody knows whether it is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Conditional {
    hits: usize,
    misses: usize,
}

impl Totals {
    /// Whether the hit rate reaches `least` (from 0 to 1): the answer is given only if it is the same with everything
    /// inconclusive taken as hits and as misses.
    ///
    /// With something unknown taken as a hit, what only its build would need is not needed.
    pub fn reaches(&self, least: f64) -> Option<bool> {
        // Nothing to fetch or build is as good as it gets.
        let rate = |hits: usize, misses: usize| {
            if hits + misses == 0 { 1.0 } else { hits as f64 / (hits + misses) as f64 }
        };
        let Conditional { hits, misses } = self.conditional;
        let unknown = self.inconclusive - hits - misses;
        let as_hits = rate(self.hits + unknown, self.misses) >= least;
        let as_misses = rate(self.hits + hits, self.misses + misses + unknown) >= least;
        (as_hits == as_misses).then_some(as_hits)
    }
}

impl Verdicts {
    /// How many causes of one cascade are named at most.
    pub const CAUSES: usize = 16;

    pub(super) fn ways(&self) -> &Ways {
        &self.ways
    }

    pub(super) fn holding(&self, id: PathId) -> Holding {
        self.holdings.of(id)
    }
}

/// Judges what the caches hold.
pub fn judge(facts: &Facts<'_>) -> Verdicts {
    let holdings = Holdings::new(facts);
    let needs = needs(facts, &holdings);
    let mut derivations: Vec<DerivationVerdict> = facts
        .graph
        .indices()
        .map(|index| judge_one(facts, &holdings, &needs[index.position()], index))
        .collect();
    let waits = transparent_waits(facts, &needs, &derivations);
    for index in facts.graph.indices() {
        let verdict = &derivations[index.position()];
        if verdict.is_counted() && !verdict.is_conditional && verdict.status == Status::Miss {
            let role = if waits[index.position()].is_empty() { Role::Root } else { Role::Cascade };
            derivations[index.position()].role = role;
        }
    }
    blame(facts, &waits, &mut derivations);
    let totals = totals(facts, &holdings, &derivations);
    let ways = Ways::new(facts, &holdings);
    Verdicts { derivations, totals, holdings, ways }
}

impl DerivationVerdict {
    /// Whether it counts for the rate.
    pub fn is_counted(&self) -> bool {
        self.is_in_scope && !self.is_local_by_design && !self.is_download
    }
}

fn judge_one(
    facts: &Facts<'_>,
    holdings: &Holdings,
    need: &Need,
    index: DerivationIndex,
) -> DerivationVerdict {
    let outputs = facts.outputs(index);
    let is_valid = !need.outputs.is_empty()
        && need.outputs.iter().all(|output| outputs[*output].is_some_and(|id| facts.is_valid(id)));
    let held = |output: &usize| outputs[*output].map_or(Holding::Unknown, |id| holdings.of(id));
    // Of what is not needed, and listed all the same, whatever was asked.
    let asked = || {
        outputs.iter().flatten().filter(|id| facts.answers(**id).is_some()).map(|id| holdings.of(*id)).min()
    };
    let status = match need.outputs.iter().map(held).min().or_else(asked).unwrap_or(Holding::Unknown) {
        Holding::Yes => Status::Hit,
        Holding::No => Status::Miss,
        Holding::Unknown => Status::Inconclusive,
    };
    let is_needed = need.is_needed() && !is_valid;
    let is_only_goal = need.is_goal && !need.is_reference;
    DerivationVerdict {
        is_in_scope: match facts.view.scope {
            Scope::Needed => is_needed,
            Scope::Runtime | Scope::Build => need.is_needed(),
        },
        is_needed,
        is_conditional: is_needed && !need.is_certain,
        is_valid,
        outputs: need.outputs.clone(),
        status,
        role: Role::None,
        is_local_by_design: is_only_goal && facts.view.is_local_by_design(facts.graph, index),
        is_download: is_only_goal
            && !need.is_target
            && facts.graph.derivation(index).kind() == DerivationKind::FixedOutput,
        caused_by: Vec::new(),
        blocks: 0,
    }
}

/// What each derivation waits for that is not there and counts: derivations that do not count are looked through.
///
/// A text that Nix writes anew, or a download, is no cause of anything; what is missing below it is.
fn transparent_waits(
    facts: &Facts<'_>,
    needs: &[Need],
    verdicts: &[DerivationVerdict],
) -> Vec<Vec<DerivationIndex>> {
    let mut waits: Vec<Vec<DerivationIndex>> = Vec::with_capacity(needs.len());
    for index in facts.graph.indices() {
        let need = &needs[index.position()];
        let mut own = Vec::new();
        if need.is_needed() {
            for other in &need.waits_for {
                let verdict = &verdicts[other.position()];
                if verdict.is_counted() {
                    if verdict.status != Status::Hit {
                        own.push(*other);
                    }
                } else if *other < index {
                    // Inputs come first, so what this one waits for is known.
                    own.extend(&waits[other.position()]);
                }
            }
        }
        own.sort_unstable();
        own.dedup();
        waits.push(own);
    }
    waits
}

/// Notes for each root what it blocks, and for each cascade what it goes back to.
fn blame(facts: &Facts<'_>, waits: &[Vec<DerivationIndex>], verdicts: &mut [DerivationVerdict]) {
    let mut waiting: Vec<Vec<DerivationIndex>> = vec![Vec::new(); waits.len()];
    for index in facts.graph.indices() {
        for other in &waits[index.position()] {
            waiting[other.position()].push(index);
        }
    }
    let mut met_by: Vec<Option<DerivationIndex>> = vec![None; waits.len()];
    for root in facts.graph.indices() {
        let is_cause = verdicts[root.position()].role == Role::Root
            || (verdicts[root.position()].is_counted()
                && verdicts[root.position()].status == Status::Inconclusive);
        if !is_cause {
            continue;
        }
        let mut open = waiting[root.position()].clone();
        while let Some(index) = open.pop() {
            if met_by[index.position()] == Some(root) {
                continue;
            }
            met_by[index.position()] = Some(root);
            open.extend(&waiting[index.position()]);
            let verdict = &mut verdicts[index.position()];
            if verdict.role == Role::Cascade {
                if verdict.caused_by.len() < Verdicts::CAUSES {
                    verdict.caused_by.push(root);
                }
                verdicts[root.position()].blocks += 1;
            }
        }
    }
}

fn totals(facts: &Facts<'_>, holdings: &Holdings, verdicts: &[DerivationVerdict]) -> Totals {
    let mut totals = Totals { derivations: facts.graph.len(), ..Totals::default() };
    for verdict in verdicts {
        totals.needed += usize::from(verdict.is_needed);
        if !verdict.is_in_scope {
            continue;
        }
        if verdict.is_local_by_design {
            totals.local_by_design += 1;
        } else if verdict.is_download {
            totals.fixed_output += 1;
            totals.fixed_output_misses += usize::from(verdict.status == Status::Miss);
        } else {
            match verdict.status {
                Status::Hit if verdict.is_conditional => totals.conditional.hits += 1,
                Status::Miss if verdict.is_conditional => totals.conditional.misses += 1,
                Status::Hit => totals.hits += 1,
                Status::Miss => totals.misses += 1,
                Status::Inconclusive => totals.inconclusive += 1,
            }
        }
        totals.root_misses += usize::from(verdict.role == Role::Root);
        totals.cascades += usize::from(verdict.role == Role::Cascade);
    }
    totals.inconclusive += totals.conditional.hits + totals.conditional.misses;
    let counted = totals.hits + totals.misses;
    totals.hit_rate = (counted > 0).then(|| totals.hits as f64 / counted as f64);
    (totals.download_bytes, totals.unpack_bytes) = bytes_to_fetch(facts, holdings, verdicts);
    totals
}

/// Bytes to download and to unpack for the wanted outputs of all hits and what they refer to, each path once.
fn bytes_to_fetch(facts: &Facts<'_>, holdings: &Holdings, verdicts: &[DerivationVerdict]) -> (u64, u64) {
    let mut is_met = vec![false; facts.len()];
    let mut open: Vec<PathId> = Vec::new();
    for index in facts.graph.indices() {
        let verdict = &verdicts[index.position()];
        if verdict.is_in_scope && verdict.status == Status::Hit && !verdict.is_local_by_design {
            open.extend(verdict.outputs.iter().filter_map(|output| facts.outputs(index)[*output]));
        }
    }
    let (mut download, mut unpack) = (0, 0);
    while let Some(id) = open.pop() {
        if facts.is_valid(id) || std::mem::replace(&mut is_met[id.position()], true) {
            continue;
        }
        let Some(cache) = holdings.source(facts, id) else { continue };
        if let Some((_, offer)) = facts.usable(id).find(|(usable, _)| *usable == cache) {
            download += offer.download_bytes.unwrap_or(0);
            unpack += offer.unpack_bytes;
        }
        open.extend(facts.references(id, cache));
    }
    (download, unpack)
}
