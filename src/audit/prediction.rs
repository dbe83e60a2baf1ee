//! The prediction: what the installed Nix would do now.

use serde::Serialize;

use super::facts::{CacheState, Facts};
use super::rules::Rules;
use super::simulation::{Course, Simulation};
use super::{CacheAnswer, Nar};
use crate::graph::DerivationIndex;

/// Nix's settings, as far as they decide what it fetches and what it builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NixSettings {
    /// `substitute`: whether caches are asked at all.
    pub substitute: bool,
    /// `fallback`: whether what cannot be fetched is built.
    pub fallback: bool,
}

/// What Nix would do with a derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outlook {
    /// Fetch it.
    Fetch,
    /// Build it; some of its outputs may be fetched all the same.
    Build,
    /// Build or fetch what it is built from first, and then fetch it.
    BuildThenFetch,
    /// Fail to make it, or stop because of it.
    Fail,
    /// Nobody can tell.
    Unknown,
}

/// What Nix would do with every derivation.
#[derive(Debug)]
pub struct Prediction {
    outlooks: Vec<Option<Outlook>>,
    /// Whether a lookup would stop everything.
    pub stops: bool,
}

impl Prediction {
    /// What Nix would do with a derivation; nothing where it would not touch it.
    pub fn of(&self, index: DerivationIndex) -> Option<Outlook> {
        self.outlooks[index.position()]
    }
}

/// Predicts what Nix does by the rules of its version.
pub fn predict(facts: &Facts<'_>, rules: Rules, settings: NixSettings) -> Prediction {
    let none = vec![false; facts.view.caches.len()];
    let mut first = outlooks(facts, rules, settings, none);
    // With `fallback`, a cache that fails once is not asked again for a minute. What was asked before that is chance.
    let failing = failing_caches(facts);
    if !settings.fallback || !failing.contains(&true) {
        return first;
    }
    let second = outlooks(facts, rules, settings, failing);
    for (outlook, other) in first.outlooks.iter_mut().zip(second.outlooks) {
        if *outlook != other || (rules.aborts_at_disabled_cache && outlook.is_some()) {
            *outlook = Some(Outlook::Unknown);
        }
    }
    first
}

/// The caches that failed to answer at least once.
fn failing_caches(facts: &Facts<'_>) -> Vec<bool> {
    let mut failing = vec![false; facts.view.caches.len()];
    for answers in facts.ids().filter_map(|id| facts.answers(id)) {
        for (failing, answer) in failing.iter_mut().zip(answers) {
            // Any status but 404 and what counts as absent switches it off; a body that is no narinfo does not.
            *failing |= matches!(
                answer,
                CacheAnswer::Unreachable { .. } | CacheAnswer::Broken { status: Some(_), .. }
            );
        }
    }
    failing
}

fn outlooks(facts: &Facts<'_>, rules: Rules, settings: NixSettings, is_ignored: Vec<bool>) -> Prediction {
    let simulation = Simulation::run(facts, rules, settings, is_ignored);
    let may_lose_outputs = rules.loses_outputs && simulation.is_built_beside_a_valid_output();
    let may_be_fetched_late = simulation.may_be_fetched_late();
    let may_not_fail = simulation.may_not_fail(&may_be_fetched_late);
    let is_followed = |id| {
        let answers: &[CacheAnswer] = facts.answers(id).unwrap_or_default();
        answers.iter().filter_map(CacheAnswer::offer).all(|offer| !matches!(offer.nar, Nar::NotFollowed(_)))
    };
    let may_be_elsewhere = facts.view.caches.contains(&CacheState::Unknown) || !facts.ids().all(is_followed);
    let mut outlooks = Vec::with_capacity(facts.graph.len());
    // What a derivation is built from that may not be built at all is not known either.
    let mut is_uncertain = vec![false; facts.graph.len()];
    for index in facts.graph.indices().rev() {
        let course = simulation.course(index);
        let uncertain = course == Course::Unknown
            || is_uncertain[index.position()]
            || (course == Course::Built && simulation.is_raced_for(index))
            || may_be_fetched_late[index.position()]
            || may_not_fail[index.position()];
        if uncertain {
            for input in facts.graph.inputs(index) {
                is_uncertain[input.derivation.position()] = true;
            }
        }
        let outlook = match course {
            Course::Unknown => Some(Outlook::Unknown),
            Course::Fails | Course::Stops => Some(Outlook::Fail),
            Course::Made | Course::Built if simulation.fails_in_part(index) => Some(Outlook::Fail),
            Course::Built => Some(Outlook::Build),
            Course::MadeLater => Some(Outlook::BuildThenFetch),
            Course::Untouched | Course::Made => simulation.is_fetched(index).then_some(Outlook::Fetch),
        };
        let is_target = || facts.view.targets.iter().any(|(target, _)| *target == index);
        outlooks.push(match outlook {
            // Somebody else may have it: then it is fetched, and nothing below it is built.
            Some(Outlook::Build | Outlook::BuildThenFetch | Outlook::Fail) if may_be_elsewhere => {
                Some(Outlook::Unknown)
            }
            Some(_) if uncertain || may_lose_outputs => Some(Outlook::Unknown),
            // How far Nix comes before it stops is chance.
            Some(Outlook::Fail) => Some(Outlook::Fail),
            Some(_) if simulation.stops && is_target() => Some(Outlook::Fail),
            Some(_) if simulation.stops => Some(Outlook::Unknown),
            other => other,
        });
    }
    outlooks.reverse();
    Prediction { outlooks, stops: simulation.stops }
}
