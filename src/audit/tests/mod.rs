//! The audit as a whole, with caches that are values.

use std::collections::{HashMap, HashSet};

use nix_derivation::StorePath;
use proptest::prelude::*;

use super::guesses::AHEAD;
use super::*;
use crate::graph::build_graph_tests::{derivation, drv_path};
use crate::graph::tests::{graphs, store_path};
use crate::graph::{BuildGraph, Derivation, DerivationIndex, DerivationKind};

mod predictions;

const NIX_2_8: (u32, u32) = (2, 8);
const NIX_2_34: (u32, u32) = (2, 34);

/// What one cache answers; what is not in here is absent.
type Cache = HashMap<StorePath, CacheAnswer>;

fn offer(references: &[usize]) -> CacheAnswer {
    CacheAnswer::Offer(Offer {
        trust: Trust::Signed,
        references: references.iter().map(|number| store_path(*number)).collect(),
        nar: Nar::NotChecked,
        download_bytes: Some(10),
        unpack_bytes: 100,
    })
}

fn distrusted(trust: Trust) -> CacheAnswer {
    match offer(&[]) {
        CacheAnswer::Offer(offer) => CacheAnswer::Offer(Offer { trust, ..offer }),
        other => other,
    }
}

fn unreachable_answer() -> CacheAnswer {
    CacheAnswer::Unreachable { status: Some(500), words: "HTTP 500".to_owned() }
}

/// A cache with the output of each numbered derivation, which refers to those of the numbers behind it.
fn cache(paths: &[(usize, &[usize])]) -> Cache {
    paths.iter().map(|(number, references)| (store_path(*number), offer(references))).collect()
}

/// An audit of the last derivation.
struct Audit {
    graph: BuildGraph,
    caches: Vec<Cache>,
    view: View,
    /// What was wanted and answered.
    known: HashSet<StorePath>,
    /// Decides in which order the answers come.
    order: u64,
}

impl Audit {
    fn new(derivations: &[Derivation], caches: Vec<Cache>) -> Self {
        let target = &derivations[derivations.len() - 1];
        let graph = BuildGraph::new(derivations).expect("a graph");
        let index = graph.find(&target.path).expect("the target");
        let view = View {
            targets: vec![(index, (0..target.outputs.len()).collect())],
            valid: HashSet::new(),
            scope: Scope::Needed,
            runtime: Vec::new(),
            always_allows_substitutes: false,
            caches: vec![CacheState::Used; caches.len()],
        };
        Self { graph, caches, view, known: HashSet::new(), order: 0 }
    }

    fn valid(mut self, number: usize) -> Self {
        self.view.valid.insert(store_path(number));
        self
    }

    fn facts(&mut self) -> Facts<'_> {
        let mut walk = Walk::new(&self.graph, &self.view);
        let mut random = fastrand::Rng::with_seed(self.order);
        let (mut open, mut asked) = (Vec::new(), HashSet::new());
        loop {
            while open.len() < 7
                && let Some(id) = walk.ask_next()
            {
                assert!(asked.insert(id), "{} was asked twice", walk.path(id).to_basename());
                open.push(id);
            }
            if walk.is_done() {
                break;
            }
            let id = open.swap_remove(random.usize(..open.len()));
            let answers = self.caches.iter().map(|cache| {
                let answer = cache.get(walk.path(id));
                answer.cloned().unwrap_or(CacheAnswer::Absent)
            });
            walk.answer(id, answers.collect());
        }
        let facts = walk.into_facts();
        let known = facts.ids().filter(|id| facts.answers(*id).is_some());
        self.known = known.map(|id| facts.path(id).clone()).collect();
        assert!(asked.len() <= 2 * self.known.len() + AHEAD, "{} guesses", asked.len() - self.known.len());
        facts
    }

    fn verdicts(&mut self) -> Verdicts {
        judge(&self.facts())
    }

    fn predict(&mut self, version: (u32, u32), fallback: bool) -> Vec<(usize, Option<Outlook>)> {
        let facts = self.facts();
        let settings = NixSettings { substitute: true, fallback };
        let prediction = predict(&facts, Rules::of(Flavour::Nix, version), settings);
        let numbered = |index: DerivationIndex| (number_of(facts.graph, index), prediction.of(index));
        let mut all: Vec<_> = facts.graph.indices().map(numbered).collect();
        all.sort_by_key(|(number, _)| *number);
        all
    }

    fn reason(&mut self, number: usize) -> Option<Finding> {
        let facts = self.facts();
        let verdicts = judge(&facts);
        let index = facts.graph.find(&drv_path(number)).expect("a derivation");
        explain(&facts, &verdicts, index, &["https://one".to_owned(), "https://two".to_owned()], "/d.drv")
    }
}

fn number_of(graph: &BuildGraph, index: DerivationIndex) -> usize {
    (0..graph.len()).find(|number| graph.find(&drv_path(*number)) == Some(index)).expect("a number")
}

fn of(verdicts: &Verdicts, graph: &BuildGraph, number: usize) -> DerivationVerdict {
    verdicts.derivations[graph.find(&drv_path(number)).expect("a derivation").position()].clone()
}

/// `count` derivations, each of which needs the one before.
fn chain(count: usize) -> Vec<Derivation> {
    (0..count)
        .map(|number| derivation(number, &number.checked_sub(1).into_iter().collect::<Vec<_>>()))
        .collect()
}

#[test]
fn nothing_is_asked_below_a_hit_but_what_it_refers_to() {
    let mut audit = Audit::new(&chain(4), vec![cache(&[(3, &[1]), (1, &[])])]);
    assert_eq!(audit.verdicts().totals.hits, 2);
    assert_eq!(audit.known, HashSet::from([store_path(3), store_path(1)]));
}

#[test]
fn what_is_valid_is_neither_asked_nor_needed() {
    let mut audit = Audit::new(&chain(3), vec![Cache::new()]).valid(1);
    let verdicts = audit.verdicts();
    assert_eq!((verdicts.totals.needed, verdicts.totals.misses, verdicts.totals.root_misses), (1, 1, 1));
    assert_eq!(audit.known, HashSet::from([store_path(2)]));
}

#[test]
fn one_changed_input_is_the_root_of_all_above_it() {
    // 4 needs 2 and 3, which need 1, which needs 0. 0 is there.
    let derivations = vec![
        derivation(0, &[]),
        derivation(1, &[0]),
        derivation(2, &[1]),
        derivation(3, &[1]),
        derivation(4, &[2, 3]),
    ];
    let mut audit = Audit::new(&derivations, vec![cache(&[(0, &[])])]);
    let verdicts = audit.verdicts();
    let root = of(&verdicts, &audit.graph, 1);
    assert_eq!((root.role, root.blocks), (Role::Root, 3));
    for number in 2..=4 {
        let cascade = of(&verdicts, &audit.graph, number);
        assert_eq!(cascade.role, Role::Cascade);
        assert_eq!(cascade.caused_by, [audit.graph.find(&drv_path(1)).expect("the root")]);
    }
    assert_eq!(of(&verdicts, &audit.graph, 0).status, Status::Hit);
    assert_eq!(verdicts.totals.hit_rate, Some(0.2));
    assert_eq!((verdicts.totals.download_bytes, verdicts.totals.unpack_bytes), (10, 100));
}

#[test]
fn downloads_and_what_is_local_by_design_are_no_causes_and_do_not_count() {
    let mut download = derivation(0, &[]);
    download.kind = DerivationKind::FixedOutput;
    let mut script = derivation(2, &[1]);
    script.allows_substitutes = false;
    let derivations = vec![download, derivation(1, &[]), script, derivation(3, &[0, 2])];
    let mut audit = Audit::new(&derivations, vec![Cache::new()]);
    let verdicts = audit.verdicts();
    let totals = verdicts.totals;
    assert_eq!((totals.fixed_output, totals.fixed_output_misses, totals.local_by_design), (1, 1, 1));
    assert_eq!((totals.misses, totals.root_misses, totals.cascades), (2, 1, 1));
    // The script in between is looked through.
    assert_eq!(of(&verdicts, &audit.graph, 3).caused_by, [audit.graph.find(&drv_path(1)).expect("the root")]);
    assert_eq!(audit_reason(&mut audit, 0), Reason::FixedOutput);
    assert_eq!(audit_reason(&mut audit, 2), Reason::LocalByDesign);
}

fn audit_reason(audit: &mut Audit, number: usize) -> Reason {
    audit.reason(number).expect("a reason").reason
}

#[test]
fn what_is_local_by_design_counts_when_something_refers_to_it() {
    let mut script = derivation(0, &[]);
    script.allows_substitutes = false;
    let mut audit = Audit::new(&[script, derivation(1, &[0])], vec![cache(&[(1, &[0])])]);
    let verdicts = audit.verdicts();
    // As an input of the build that follows it is local by design; as a reference it is missing.
    let script = of(&verdicts, &audit.graph, 0);
    assert!(!script.is_local_by_design && script.role == Role::Root && script.blocks == 1);
    assert_eq!(of(&verdicts, &audit.graph, 1).role, Role::Cascade);
}

#[test]
fn the_way_to_what_is_missing_is_the_shortest() {
    // 3 refers to 2 and 1, 2 refers to 1, 1 refers to 0, which is nowhere.
    let derivations =
        vec![derivation(0, &[]), derivation(1, &[0]), derivation(2, &[1]), derivation(3, &[1, 2])];
    let mut audit = Audit::new(&derivations, vec![cache(&[(3, &[2, 1]), (2, &[1]), (1, &[0])])]);
    let finding = audit.reason(3).expect("a reason");
    assert_eq!(finding.reason, Reason::IncompleteClosure);
    let chain: Vec<String> = [3, 1, 0].map(|number| store_path(number).to_basename()).to_vec();
    assert_eq!(finding.evidence.chain, chain);
    assert_eq!(finding.evidence.missing.as_deref(), Some(chain[2].as_str()));
    assert!(finding.sentence.contains(&chain[2]) && finding.sentence.contains("https://one"));
    let verdicts = audit.verdicts();
    assert_eq!(of(&verdicts, &audit.graph, 0).blocks, 3);
}

#[test]
fn several_caches_together_may_hold_what_none_of_them_does() {
    let mut audit = Audit::new(&chain(2), vec![cache(&[(1, &[0])]), cache(&[(0, &[])])]);
    assert_eq!(audit.verdicts().totals.hit_rate, Some(1.0));
}

#[test]
fn each_thing_that_is_wrong_with_an_answer_has_its_reason() {
    let missing_nar = match offer(&[]) {
        CacheAnswer::Offer(offer) => CacheAnswer::Offer(Offer { nar: Nar::Missing, ..offer }),
        other => other,
    };
    let denied = |status| CacheAnswer::Denied { status: Some(status), words: "no".to_owned() };
    let cases = [
        (distrusted(Trust::Unsigned), Reason::Unsigned, Status::Miss),
        (distrusted(Trust::UnknownKeys(vec!["x-1".into()])), Reason::KeyNotTrusted, Status::Miss),
        (distrusted(Trust::BadSignature(vec!["k".into()])), Reason::BadSignature, Status::Miss),
        (missing_nar, Reason::NarMissing, Status::Miss),
        (CacheAnswer::OtherPath(store_path(9)), Reason::BadNarinfo, Status::Miss),
        (CacheAnswer::Broken { status: None, words: "<html>".into() }, Reason::BadNarinfo, Status::Miss),
        (denied(401), Reason::Auth, Status::Miss),
        (denied(403), Reason::Auth, Status::Miss),
        (CacheAnswer::Hidden, Reason::NotOnAnyCache, Status::Miss),
        (unreachable_answer(), Reason::CacheUnreachable, Status::Inconclusive),
        (CacheAnswer::Absent, Reason::NotOnAnyCache, Status::Miss),
    ];
    for (answer, reason, status) in cases {
        let mut audit = Audit::new(&chain(1), vec![Cache::from([(store_path(0), answer.clone())])]);
        assert_eq!(of(&audit.verdicts(), &audit.graph, 0).status, status, "{answer:?}");
        assert_eq!(audit_reason(&mut audit, 0), reason, "{answer:?}");
        // With the path on another cache, all is well.
        let mut audit =
            Audit::new(&chain(1), vec![Cache::from([(store_path(0), answer)]), cache(&[(0, &[])])]);
        assert_eq!(audit.verdicts().totals.hit_rate, Some(1.0));
    }
}

#[test]
fn an_unknown_is_no_miss_and_a_gate_falls_only_when_it_must() {
    let derivations = vec![derivation(0, &[]), derivation(1, &[]), derivation(2, &[0, 1])];
    let mut known = cache(&[(0, &[])]);
    known.insert(store_path(1), unreachable_answer());
    let totals = Audit::new(&derivations, vec![known]).verdicts().totals;
    assert_eq!((totals.hits, totals.misses, totals.inconclusive), (1, 1, 1));
    assert_eq!(totals.hit_rate, Some(0.5));
    assert_eq!(totals.reaches(0.3), Some(true));
    assert_eq!(totals.reaches(0.5), None);
    assert_eq!(totals.reaches(0.7), Some(false));
    assert_eq!(Totals::default().reaches(1.0), Some(true));
}

#[test]
fn a_cache_that_cannot_be_asked_makes_misses_inconclusive() {
    let mut audit = Audit::new(&chain(1), vec![Cache::new(), Cache::new()]);
    audit.view.caches[1] = CacheState::DroppedUnknown;
    assert_eq!(audit.verdicts().totals.inconclusive, 1);
    assert_eq!(audit.predict(NIX_2_34, false), [(0, Some(Outlook::Build))]);
    audit.view.caches[1] = CacheState::Unknown;
    assert_eq!(audit.predict(NIX_2_34, false), [(0, Some(Outlook::Unknown))]);
    audit.view.caches[1] = CacheState::Dropped;
    assert_eq!(audit.verdicts().totals.misses, 1);
}

#[test]
fn a_long_chain_does_not_overflow_the_stack() {
    let count = 50_000;
    let references: Vec<Vec<usize>> =
        (0..count).map(|number: usize| number.checked_sub(1).into_iter().collect()).collect();
    let all: Vec<(usize, &[usize])> =
        references.iter().enumerate().skip(1).map(|(n, r)| (n, r.as_slice())).collect();
    let mut audit = Audit::new(&chain(count), vec![cache(&all)]);
    let facts = audit.facts();
    let verdicts = judge(&facts);
    assert_eq!((verdicts.totals.root_misses, verdicts.totals.cascades), (1, count - 1));
    for version in [NIX_2_8, NIX_2_34] {
        let settings = NixSettings { substitute: true, fallback: false };
        let prediction = predict(&facts, Rules::of(Flavour::Nix, version), settings);
        let last = facts.graph.find(&drv_path(count - 1)).expect("the target");
        let expected = if version == NIX_2_8 { Outlook::BuildThenFetch } else { Outlook::Build };
        assert_eq!(prediction.of(last), Some(expected));
    }
}

#[test]
fn a_cache_that_names_ever_new_paths_comes_to_an_end() {
    let audit = Audit::new(&chain(1), vec![Cache::new()]);
    let mut walk = Walk::new(&audit.graph, &audit.view);
    let mut next = 100;
    while let Some(id) = walk.ask_next() {
        walk.answer(id, vec![offer(&[next, next + 1, next + 2])]);
        next += 3;
        assert!(next < 300_000, "it goes on and on");
    }
    assert!(walk.is_done());
    assert_eq!(judge(&walk.into_facts()).totals.inconclusive, 1);
}

/// Walks a chain of derivations with caches that answer one round at a time; gives the rounds, and how much was asked.
fn rounds(audit: &Audit) -> (usize, usize) {
    let mut walk = Walk::new(&audit.graph, &audit.view);
    let (mut rounds, mut asked) = (0, 0);
    while !walk.is_done() {
        let round: Vec<_> = std::iter::from_fn(|| walk.ask_next()).collect();
        rounds += 1;
        asked += round.len();
        for id in round {
            let answer = audit.caches[0].get(walk.path(id)).cloned().unwrap_or(CacheAnswer::Absent);
            walk.answer(id, vec![answer]);
        }
    }
    (rounds, asked)
}

#[test]
fn a_deep_graph_takes_few_round_trips() {
    let count = 20_000;
    let references: Vec<[usize; 1]> = (0..count).map(|number: usize| [number.saturating_sub(1)]).collect();
    let all: Vec<(usize, &[usize])> =
        references.iter().enumerate().map(|(number, reference)| (number, reference.as_slice())).collect();
    for cache in [Cache::new(), cache(&all)] {
        let (rounds, asked) = rounds(&Audit::new(&chain(count), vec![cache]));
        assert!(rounds <= 10, "{rounds} round trips");
        assert_eq!(asked, count);
    }
}

#[test]
fn what_is_asked_in_vain_is_bounded() {
    // The last is there and refers to nothing, and nothing below it is wanted.
    let audit = Audit::new(&chain(20_000), vec![cache(&[(19_999, &[])])]);
    assert_eq!(rounds(&audit), (1, 1 + AHEAD));
}

#[test]
fn narinfos_that_refer_to_each_other_in_a_circle_are_no_hits() {
    let mut audit = Audit::new(&chain(2), vec![cache(&[(0, &[1]), (1, &[0])])]);
    assert_eq!(audit.verdicts().totals.hits, 0);
    assert_eq!(audit.predict(NIX_2_34, false).len(), 2);
}

#[test]
fn every_reason_stands_in_the_table_and_in_the_documentation() {
    let page = include_str!("../../../docs/audit.md");
    let mut place = 0;
    for reason in Reason::ALL {
        let row = format!("| `{}` |", reason.text().id);
        let found = page[place..].find(&row).unwrap_or_else(|| panic!("{row} is missing, or out of order"));
        place += found;
        for name in reason.text().evidence.split(", ").filter(|name| !name.is_empty()) {
            assert!(page[place..].lines().next().is_some_and(|line| line.contains(name)), "{row}: {name}");
        }
        assert_eq!(serde_json::to_value(reason).expect("a value"), reason.text().id);
    }
    assert_eq!(page.matches("\n| `").count() - 4, Reason::ALL.len(), "a row too many");
}

proptest! {
    /// Whatever the caches say: every counted derivation is a hit, a miss or inconclusive; every miss is a root or goes
    /// back to one; a hit has only hits below it; and nothing is asked that is of no use.
    #[test]
    fn the_sums_add_up(
        graph in graphs(), first in prop::collection::vec(0u8..8, 40), second in prop::collection::vec(0u8..8, 40),
        valid in any::<u64>(), order in any::<u64>(),
    ) {
        let derivations: Vec<Derivation> = graph.iter().enumerate().map(|(number, needs)| {
            let needs: Vec<usize> = needs.iter().copied().filter(|other| *other != number).collect();
            let mut derivation = derivation(number, &needs);
            derivation.allows_substitutes = number % 7 != 3;
            if number % 5 == 4 && needs.is_empty() {
                derivation.kind = DerivationKind::FixedOutput;
            }
            derivation
        }).collect();
        let caches: Vec<Cache> = [first, second].iter().map(|dice| {
            graph.iter().enumerate().filter_map(|(number, needs)| {
                let needs: Vec<usize> = needs.iter().copied().filter(|other| *other != number).collect();
                Some((store_path(number), match dice[number] {
                    0..=3 => offer(&needs),
                    4 => offer(&[]),
                    5 => distrusted(Trust::Unsigned),
                    6 => unreachable_answer(),
                    _ => return None,
                }))
            }).collect()
        }).collect();
        let mut audit = Audit::new(&derivations, caches);
        for number in (0..graph.len() - 1).filter(|number| valid >> (number % 64) & 7 == 7) {
            audit = audit.valid(number);
        }
        // Which answer comes first makes no difference.
        let usual = (audit.verdicts().totals, audit.known.clone());
        audit.order = order;
        prop_assert_eq!(usual, (audit.verdicts().totals, audit.known.clone()));
        let facts = audit.facts();
        let verdicts = judge(&facts);
        let totals = verdicts.totals;
        prop_assert_eq!(totals.root_misses + totals.cascades, totals.misses);
        prop_assert_eq!(
            totals.hits + totals.misses + totals.inconclusive + totals.local_by_design + totals.fixed_output,
            totals.needed
        );
        for index in facts.graph.indices() {
            let verdict = &verdicts.derivations[index.position()];
            if verdict.role == Role::Cascade {
                prop_assert!(!verdict.caused_by.is_empty());
                prop_assert!(!verdict.caused_by.contains(&index));
            }
            let finding = explain(&facts, &verdicts, index, &["a".to_owned(), "b".to_owned()], "d");
            if verdict.is_in_scope {
                prop_assert_eq!(finding.is_none(), verdict.status == Status::Hit && !verdict.is_local_by_design);
            }
        }
        for version in [NIX_2_8, NIX_2_34] {
            for fallback in [false, true] {
                let settings = NixSettings { substitute: true, fallback };
                let prediction = predict(&facts, Rules::of(Flavour::Nix, version), settings);
                for index in facts.graph.indices().filter(|index| verdicts.derivations[index.position()].is_valid) {
                    prop_assert_ne!(prediction.of(index), Some(Outlook::Build));
                }
            }
        }
    }
}
