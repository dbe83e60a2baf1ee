//! Where versions and implementations of Nix differ in what they fetch and what they build.
//!
//! What the sources say stands in `src/libstore/build/{derivation-goal,substitution-goal}.cc` and
//! `src/libstore/{store-api,misc,filetransfer}.cc` of NixOS/nix at the tags named below; the differential tests hold the
//! rules against a real Nix.
//!
//! What does not differ: of a derivation with some outputs on a cache and others not, those that can be had are fetched and
//! then it is built; a missing NAR leads to the next cache; a
//! path that is not trusted is passed over; `allowSubstitutes = false` concerns what Nix is asked to make, never a path
//! that another refers to.

/// Whose Nix it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// NixOS/nix, and Determinate Nix, which shows the version of the Nix that it is made of.
    Nix,
    /// Lix, which parted from Nix at 2.18.
    Lix,
}

/// What Nix does with a path that a cache has and of which a reference cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncompleteClosure {
    /// It makes the inputs of the derivation, tries to fetch again, and builds only if that fails too.
    MakesInputsAndTriesAgain,
    /// It builds.
    Builds,
}

/// What fails when one of several wanted outputs of a derivation fails to be fetched, where `fallback` is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialOutputs {
    /// The outputs are one goal: whoever needs any of them fails.
    Together,
    /// Each output is a goal of its own: who needs another goes on.
    Apart,
}

/// What a lookup that fails (no narinfo, a server error, no connection) means where `fallback` is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// Everything stops.
    Stops,
    /// Everything stops, unless a cache that is asked later answers.
    StopsIfLast,
}

/// How an installed Nix decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A reference that cannot be had.
    pub incomplete_closure: IncompleteClosure,
    /// An output that fails.
    pub partial_outputs: PartialOutputs,
    /// A lookup that fails.
    pub lookup_error: LookupError,
    /// HTTP statuses that count as absent, besides 404 and 410.
    pub absent_statuses: &'static [u16],
    /// Whether Nix aborts when it comes back to a cache that `fallback` has switched off (2.8 throws in a function that may
    /// not).
    pub aborts_at_disabled_cache: bool,
    /// Whether a derivation that is built while one of its outputs is valid already does not tell of that one to those who
    /// wait for it, upon which everything stops.
    pub loses_outputs: bool,
}

/// One line: from this version on (major, minor), these rules.
type Line = ((u32, u32), Rules);

const FIRST: Rules = Rules {
    incomplete_closure: IncompleteClosure::MakesInputsAndTriesAgain,
    partial_outputs: PartialOutputs::Together,
    lookup_error: LookupError::Stops,
    absent_statuses: &[401, 403, 407],
    aborts_at_disabled_cache: true,
    loses_outputs: true,
};
/// `HttpBinaryCacheStore::getFile` catches what `checkEnabled` throws.
const FROM_2_9: Rules = Rules { aborts_at_disabled_cache: false, ..FIRST };
/// The outputs of inputs are looked up again (`queryPartialDerivationOutputMap` in `inputsRealised`).
const FROM_2_12: Rules = Rules { loses_outputs: false, ..FROM_2_9 };
/// `IncompleteClosure` is gone (#13176).
const FROM_2_30: Rules = Rules { incomplete_closure: IncompleteClosure::Builds, ..FROM_2_12 };
/// `DerivationGoal` is for one output.
const FROM_2_31: Rules = Rules { partial_outputs: PartialOutputs::Apart, ..FROM_2_30 };
/// The last error is kept and thrown at the end (#13301).
const FROM_2_32: Rules = Rules { lookup_error: LookupError::StopsIfLast, ..FROM_2_31 };
/// 401 and 407 are errors (#15877).
const FROM_2_35: Rules = Rules { absent_statuses: &[403], ..FROM_2_32 };

const NIX: [Line; 7] = [
    ((2, 0), FIRST),
    ((2, 9), FROM_2_9),
    ((2, 12), FROM_2_12),
    ((2, 30), FROM_2_30),
    ((2, 31), FROM_2_31),
    ((2, 32), FROM_2_32),
    ((2, 35), FROM_2_35),
];

/// Read in its sources and not tried.
const LIX: [Line; 1] = [((2, 0), FROM_2_12)];

impl Rules {
    /// The rules of a version.
    pub fn of(flavour: Flavour, version: (u32, u32)) -> Self {
        let lines: &[Line] = match flavour {
            Flavour::Nix => &NIX,
            Flavour::Lix => &LIX,
        };
        let line = lines.iter().rev().find(|(from, _)| *from <= version);
        line.map_or(FIRST, |(_, rules)| *rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_the_rules_of_the_last_change_before_it() {
        let nix = |minor| Rules::of(Flavour::Nix, (2, minor));
        assert_eq!(nix(8), FIRST);
        assert_eq!(nix(29).incomplete_closure, IncompleteClosure::MakesInputsAndTriesAgain);
        assert_eq!(nix(30).incomplete_closure, IncompleteClosure::Builds);
        assert_eq!(nix(31).lookup_error, LookupError::Stops);
        assert_eq!(nix(34), FROM_2_32);
        assert_eq!(Rules::of(Flavour::Nix, (3, 0)).absent_statuses, [403]);
        assert_eq!(Rules::of(Flavour::Lix, (2, 94)), FROM_2_12);
    }
}
