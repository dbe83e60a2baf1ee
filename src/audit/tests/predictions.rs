//! What each version of Nix would do. Those that the differential test has found say so.

use super::*;
use crate::graph::Output;

#[test]
fn with_a_leaf_gone_old_nix_builds_the_leaf_and_new_nix_the_chain() {
    let caches = || vec![cache(&[(1, &[0]), (2, &[1])])];
    let old = Audit::new(&chain(3), caches()).predict(NIX_2_8, false);
    assert_eq!(
        old,
        [(0, Some(Outlook::Build)), (1, Some(Outlook::BuildThenFetch)), (2, Some(Outlook::BuildThenFetch))]
    );
    let new = Audit::new(&chain(3), caches()).predict(NIX_2_34, false);
    assert_eq!(new, [0, 1, 2].map(|number| (number, Some(Outlook::Build))));
}

#[test]
fn a_lookup_that_fails_stops_old_nix_and_new_nix_only_at_the_last_cache() {
    let broken = || CacheAnswer::Broken { status: None, words: "<html>".into() };
    let bad = || Cache::from([(store_path(0), broken())]);
    let good = || cache(&[(0, &[])]);
    let predict = |caches, version, fallback| Audit::new(&chain(1), caches).predict(version, fallback)[0].1;
    assert_eq!(predict(vec![bad(), good()], NIX_2_8, false), Some(Outlook::Fail));
    assert_eq!(predict(vec![bad(), good()], NIX_2_34, false), Some(Outlook::Fetch));
    assert_eq!(predict(vec![good(), bad()], NIX_2_8, false), Some(Outlook::Fetch));
    assert_eq!(predict(vec![bad()], NIX_2_34, false), Some(Outlook::Fail));
    assert_eq!(predict(vec![bad()], NIX_2_34, true), Some(Outlook::Build));
    assert_eq!(predict(vec![bad()], NIX_2_8, true), Some(Outlook::Build));
}

#[test]
fn a_status_of_401_is_absent_until_2_35() {
    let denied =
        || Cache::from([(store_path(0), CacheAnswer::Denied { status: Some(401), words: "no".into() })]);
    assert_eq!(Audit::new(&chain(1), vec![denied()]).predict(NIX_2_34, false), [(0, Some(Outlook::Build))]);
    assert_eq!(Audit::new(&chain(1), vec![denied()]).predict((2, 35), false), [(0, Some(Outlook::Fail))]);
}

#[test]
fn of_some_outputs_the_present_are_fetched_and_the_derivation_is_built() {
    let mut multi = derivation(0, &[]);
    multi.outputs.push(Output { name: "dev".into(), path: Some(store_path(50)) });
    let mut audit = Audit::new(&[multi], vec![cache(&[(0, &[])])]);
    assert_eq!(audit.predict(NIX_2_8, false), [(0, Some(Outlook::Build))]);
    let finding = audit.reason(0).expect("a reason");
    assert_eq!(finding.reason, Reason::PartialOutputs);
    assert_eq!(
        (finding.evidence.present, finding.evidence.absent),
        (vec!["out".to_owned()], vec!["dev".to_owned()])
    );
}

/// Found by the differential test, seed 20261124: 2.8 throws where it may not.
#[test]
fn nobody_knows_what_2_8_does_once_fallback_has_switched_a_cache_off() {
    let caches = || vec![Cache::from([(store_path(0), unreachable_answer())]), cache(&[(0, &[])])];
    assert_eq!(Audit::new(&chain(1), caches()).predict(NIX_2_8, true), [(0, Some(Outlook::Unknown))]);
    assert_eq!(Audit::new(&chain(1), caches()).predict(NIX_2_34, true), [(0, Some(Outlook::Fetch))]);
}

/// Found by the differential test, seed 1: what Nix is asked to make is decided before the download of the same path, as
/// a reference of something else, is done.
#[test]
fn what_is_built_by_design_while_something_else_fetches_it_is_decided_by_chance() {
    // 2 needs the script 0 and 1; 1 is there and refers to the script.
    let mut script = derivation(0, &[]);
    script.allows_substitutes = false;
    let derivations = vec![script, derivation(1, &[0]), derivation(2, &[0, 1])];
    let predicted = Audit::new(&derivations, vec![cache(&[(0, &[]), (1, &[0])])]).predict(NIX_2_8, false);
    assert_eq!(
        predicted,
        [(0, Some(Outlook::Unknown)), (1, Some(Outlook::Fetch)), (2, Some(Outlook::Build))]
    );
}

/// Found by the differential test, seed 2: from 2.31 on, a failed output fails only who needs it.
#[test]
fn a_damaged_output_fails_all_of_a_derivation_only_where_outputs_are_one_goal() {
    let mut multi = derivation(0, &[]);
    multi.outputs.push(Output { name: "dev".into(), path: Some(store_path(50)) });
    let mut user = derivation(1, &[0]);
    user.inputs[0].outputs = vec!["dev".into()];
    let damaged = match offer(&[]) {
        CacheAnswer::Offer(offer) => {
            CacheAnswer::Offer(Offer { nar: Nar::WrongSize { found: 1, expected: 2 }, ..offer })
        }
        other => other,
    };
    let derivations = || vec![multi.clone(), user.clone(), derivation(2, &[0, 1])];
    let caches = || vec![Cache::from([(store_path(50), offer(&[])), (store_path(0), damaged.clone())])];
    let built = |version| Audit::new(&derivations(), caches()).predict(version, false)[1].1;
    assert_eq!(built((2, 30)), Some(Outlook::Fail));
    assert_eq!(built(NIX_2_34), Some(Outlook::Build));
}

/// Found by the differential test, seeds 2 and 3: `requires non-existent output` in Nix 2.8.
#[test]
fn nobody_knows_what_2_8_does_when_it_builds_beside_an_output_that_is_there() {
    let mut multi = derivation(0, &[]);
    multi.outputs.push(Output { name: "dev".into(), path: Some(store_path(50)) });
    let mut user = derivation(1, &[0]);
    user.inputs[0].outputs = vec!["dev".into()];
    let derivations = || vec![multi.clone(), user.clone(), derivation(2, &[0, 1])];
    let outlooks = |cache, version| Audit::new(&derivations(), vec![cache]).predict(version, false);
    // `dev` is fetched, `out` makes Nix build; `user` needs `dev`.
    let dev = || Cache::from([(store_path(50), offer(&[]))]);
    assert_eq!(outlooks(dev(), NIX_2_8), [0, 1, 2].map(|number| (number, Some(Outlook::Unknown))));
    assert_eq!(outlooks(dev(), NIX_2_34), [0, 1, 2].map(|number| (number, Some(Outlook::Build))));
    // Where none of its outputs is there, all is well.
    assert_eq!(outlooks(Cache::new(), NIX_2_8), [0, 1, 2].map(|number| (number, Some(Outlook::Build))));
}

/// Found by the differential test, seed 2: a download waits for whoever builds the same path.
#[test]
fn what_lacks_only_a_nar_that_others_build_is_decided_by_chance() {
    let gone = || match offer(&[]) {
        CacheAnswer::Offer(offer) => CacheAnswer::Offer(Offer { nar: Nar::Missing, ..offer }),
        other => other,
    };
    // 2 needs 0 and 1; 1 needs 0, is on the cache, and refers to 0, whose NAR is gone.
    let derivations = || vec![derivation(0, &[]), derivation(1, &[0]), derivation(2, &[0, 1])];
    let caches = || vec![Cache::from([(store_path(0), gone()), (store_path(1), offer(&[0]))])];
    let predicted = Audit::new(&derivations(), caches()).predict(NIX_2_34, false);
    assert_eq!((predicted[1].1, predicted[2].1), (Some(Outlook::Unknown), Some(Outlook::Build)));
    // Where only 1 needs it, it cannot be there before 1 has given up.
    let alone = || vec![derivation(0, &[]), derivation(1, &[0]), derivation(2, &[1])];
    let predicted = Audit::new(&alone(), caches()).predict(NIX_2_34, false);
    assert_eq!(predicted, [0, 1, 2].map(|number| (number, Some(Outlook::Build))));
}
