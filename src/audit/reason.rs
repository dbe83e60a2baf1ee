//! Why a derivation misses: one table of reasons, and how one is found.

use serde::Serialize;

use super::facts::{Facts, PathId};
use super::holding::Holding;
use super::verdict::{DerivationVerdict, Status, Verdicts};
use super::{CacheAnswer, Nar, Trust};
use crate::graph::{DerivationIndex, DerivationKind};

/// How many steps of a way to what is missing are told, besides its end.
const CHAIN: usize = 12;

/// Why a derivation is not simply fetched. The order is that of the search: the first that holds is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nix builds it even when a cache has it.
    LocalByDesign,
    /// Where its outputs are shows only after building.
    OutputUnknown,
    /// Some wanted outputs are there and others are not.
    PartialOutputs,
    /// It is there, and something that it refers to is not.
    IncompleteClosure,
    /// Its narinfo is there, and its NAR is not.
    NarMissing,
    /// Its NAR has another size than its narinfo says.
    NarWrongSize,
    /// It is signed in the name of a trusted key, and the signature does not fit.
    BadSignature,
    /// It is signed by keys that are not trusted.
    KeyNotTrusted,
    /// It is not signed.
    Unsigned,
    /// What the cache serves as its narinfo is none.
    BadNarinfo,
    /// A cache did not answer.
    CacheUnreachable,
    /// A cache does not let us ask.
    Auth,
    /// It is a download, and on no cache.
    FixedOutput,
    /// It is on no cache.
    NotOnAnyCache,
}

/// What is to be said of a reason.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The id in reports.
    pub id: &'static str,
    /// What is the case. `{…}` stands for evidence.
    pub sentence: &'static str,
    /// The evidence that comes with it, by the names of [`Evidence`].
    pub evidence: &'static str,
    /// What to do.
    pub fix: &'static str,
}

impl Reason {
    /// Every reason, in the order of the search.
    pub const ALL: [Self; 14] = [
        Self::LocalByDesign,
        Self::OutputUnknown,
        Self::PartialOutputs,
        Self::IncompleteClosure,
        Self::NarMissing,
        Self::NarWrongSize,
        Self::BadSignature,
        Self::KeyNotTrusted,
        Self::Unsigned,
        Self::BadNarinfo,
        Self::CacheUnreachable,
        Self::Auth,
        Self::FixedOutput,
        Self::NotOnAnyCache,
    ];

    /// The table: what is to be said of each reason.
    #[expect(clippy::too_many_lines, reason = "a table in one place")]
    pub const fn text(self) -> Text {
        match self {
            Self::LocalByDesign => Text {
                id: "local-by-design",
                sentence: "Nix builds it even when a cache has it (`allowSubstitutes = false`, or impure)",
                evidence: "",
                fix: "nothing to do: it is meant to be cheaper to build than to fetch (`always-allow-substitutes`, from Nix \
                  2.19 on, fetches it all the same)",
            },
            Self::OutputUnknown => Text {
                id: "output-unknown",
                sentence: "where its output {output} will be shows only after building, so no cache can be asked for it by path",
                evidence: "output",
                fix: "nothing to do from here: Nix looks for a realisation when it builds",
            },
            Self::PartialOutputs => Text {
                id: "partial-outputs",
                sentence: "its outputs {present} are on a cache and {absent} are not, so Nix builds it as a whole",
                evidence: "present, absent",
                fix: "push all its outputs: `cache-helper push-closure --build --to {target} '{drv}^*'`",
            },
            Self::IncompleteClosure => Text {
                id: "incomplete-closure",
                sentence: "{cache} has it, but not {missing}, which it needs",
                evidence: "cache, path, missing, chain",
                fix: "push the whole closure: `cache-helper push-closure --build --to {target} '{drv}^*'`",
            },
            Self::NarMissing => Text {
                id: "nar-missing",
                sentence: "{cache} has its narinfo, but not its NAR",
                evidence: "cache, path",
                fix: "delete its narinfo from {cache} and push it again; whatever cleans that cache must take narinfo and NAR \
                  together",
            },
            Self::NarWrongSize => Text {
                id: "nar-wrong-size",
                sentence: "its NAR on {cache} has another size than its narinfo says: {words}",
                evidence: "cache, path, words",
                fix: "delete its narinfo and NAR from {cache} and push it again",
            },
            Self::BadSignature => Text {
                id: "bad-signature",
                sentence: "the signature by {keys} on {cache} does not fit: the narinfo was changed after signing, or another \
                       key has the same name",
                evidence: "cache, path, keys",
                fix: "delete its narinfo from {cache} and push it again; if all paths are like this, compare \
                  trusted-public-keys with the key that signs",
            },
            Self::KeyNotTrusted => Text {
                id: "key-not-trusted",
                sentence: "it is signed by {keys} on {cache}, which Nix does not trust here",
                evidence: "cache, path, keys",
                fix: "if you trust that key, add it to `trusted-public-keys` in nix.conf (its owner publishes it as NAME:BASE64)",
            },
            Self::Unsigned => Text {
                id: "unsigned",
                sentence: "it is not signed on {cache}, and Nix requires signatures",
                evidence: "cache, path",
                fix: "sign it there: `nix store sign --store '{cache}' --key-file FILE {path}`, and let future pushes sign \
                  (--sign-key-file)",
            },
            Self::BadNarinfo => Text {
                id: "bad-narinfo",
                sentence: "what {cache} serves as its narinfo is none: {words}",
                evidence: "cache, path, status, words",
                fix: "look at what {cache} serves for it (a proxy's page, a file cut short); delete that and push it again",
            },
            Self::CacheUnreachable => Text {
                id: "cache-unreachable",
                sentence: "{cache} did not answer, so it is not known whether it has it: {words}",
                evidence: "cache, path, status, words",
                fix: "try again when {cache} answers",
            },
            Self::Auth => Text {
                id: "auth",
                sentence: "{cache} does not let us in: {words}",
                evidence: "cache, path, status, words",
                fix: "give Nix a login for the host in its netrc file (`netrc-file` in nix.conf; where there is a daemon, it reads \
                  root's)",
            },
            Self::FixedOutput => Text {
                id: "fixed-output",
                sentence: "it is a download that is on no cache; Nix gets it from its own source",
                evidence: "path",
                fix: "push it as well if its source may go away or is slow",
            },
            Self::NotOnAnyCache => Text {
                id: "not-on-any-cache",
                sentence: "no cache has it",
                evidence: "path",
                fix: "build it once and push it: `cache-helper push-closure --build --to {target} '{drv}^*'`",
            },
        }
    }
}

/// What a reason rests on, as it was read in this run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The store path, as a base name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What the cache said, or what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// Names of keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The path that is missing, as a base name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The shortest way from the path to the missing one, both included, as base names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// Outputs that are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub present: Vec<String>,
    /// Outputs that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
}

/// Why one derivation is not simply fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The reason.
    pub reason: Reason,
    /// What else holds, such as on another cache.
    pub also: Vec<Reason>,
    /// What the reason rests on.
    pub evidence: Evidence,
    /// What is the case, in words.
    pub sentence: String,
    /// What to do, in words.
    pub fix: String,
}

/// Finds the reason for a derivation; nothing for a hit that Nix fetches. `caches` are the URLs in the order of the view.
pub fn explain(
    facts: &Facts<'_>,
    verdicts: &Verdicts,
    index: DerivationIndex,
    caches: &[String],
    drv: &str,
) -> Option<Finding> {
    let verdict = &verdicts.derivations[index.position()];
    let mut found: Vec<(Reason, Evidence)> = Vec::new();
    if verdict.is_local_by_design {
        found.push((Reason::LocalByDesign, Evidence::default()));
    }
    if verdict.status != Status::Hit {
        let search = Search { facts, verdicts, caches };
        search.outputs(index, verdict, &mut found);
    }
    // Of what is not known, first what could not be asked: the rest is so whatever the answer would have been.
    let is_unknown = |reason: Reason| matches!(reason, Reason::CacheUnreachable | Reason::OutputUnknown);
    let rank = |reason: &Reason| {
        (
            verdict.status == Status::Inconclusive
                && !is_unknown(*reason)
                && *reason != Reason::LocalByDesign,
            *reason as usize,
        )
    };
    let best = found.iter().map(|(reason, _)| *reason).min_by_key(rank)?;
    let (reason, evidence) = found.iter().find(|(reason, _)| *reason == best).cloned()?;
    let mut also: Vec<Reason> = Vec::new();
    for (other, _) in &found {
        if *other != reason && !also.contains(other) {
            also.push(*other);
        }
    }
    let text = reason.text();
    // Where only one cache is audited, and it can surely be written, that is where things have to go.
    let target = match caches {
        [only] if only.starts_with("file://") => only.as_str(),
        _ => "CACHE",
    };
    let (sentence, fix) =
        (fill(text.sentence, &evidence, drv, target), fill(text.fix, &evidence, drv, target));
    Some(Finding { reason, also, evidence, sentence, fix })
}

struct Search<'a, 'f> {
    facts: &'a Facts<'f>,
    verdicts: &'a Verdicts,
    caches: &'a [String],
}

impl Search<'_, '_> {
    fn outputs(
        &self,
        index: DerivationIndex,
        verdict: &DerivationVerdict,
        found: &mut Vec<(Reason, Evidence)>,
    ) {
        let derivation = self.facts.graph.derivation(index);
        let name = |output: &usize| derivation.output(*output).name().to_owned();
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for output in &verdict.outputs {
            let Some(id) = self.facts.outputs(index)[*output] else {
                found.push((
                    Reason::OutputUnknown,
                    Evidence { output: Some(name(output)), ..Evidence::default() },
                ));
                continue;
            };
            if self.verdicts.holding(id) == Holding::Yes {
                present.push(name(output));
                continue;
            }
            let before = found.len();
            self.path(id, found);
            let is_nowhere = found[before..].iter().all(|(reason, _)| *reason == Reason::NotOnAnyCache);
            if is_nowhere {
                absent.push(name(output));
                if derivation.kind() == DerivationKind::FixedOutput && verdict.is_download {
                    found.truncate(before);
                    found.push((Reason::FixedOutput, self.evidence(id, None)));
                }
            }
        }
        if !present.is_empty() && !absent.is_empty() {
            found.push((Reason::PartialOutputs, Evidence { present, absent, ..Evidence::default() }));
        }
    }

    /// What is wrong with a path on each cache.
    fn path(&self, id: PathId, found: &mut Vec<(Reason, Evidence)>) {
        let before = found.len();
        for (cache, answer) in self.facts.answers(id).unwrap_or_default().iter().enumerate() {
            let mut evidence = self.evidence(id, Some(cache));
            evidence.status = answer.status();
            let reason = match answer {
                CacheAnswer::Offer(offer) => match (&offer.trust, &offer.nar) {
                    (Trust::Unsigned, _) => Reason::Unsigned,
                    (Trust::UnknownKeys(keys), _) => {
                        evidence.keys.clone_from(keys);
                        Reason::KeyNotTrusted
                    }
                    (Trust::BadSignature(keys), _) => {
                        evidence.keys.clone_from(keys);
                        Reason::BadSignature
                    }
                    (_, Nar::Missing) => Reason::NarMissing,
                    (_, Nar::WrongSize { found, expected }) => {
                        evidence.words = Some(format!("{found} bytes instead of {expected}"));
                        Reason::NarWrongSize
                    }
                    (_, Nar::Unknown(words)) => {
                        evidence.words = Some(format!("its NAR could not be looked for: {words}"));
                        Reason::CacheUnreachable
                    }
                    (_, Nar::NotFollowed(words)) => {
                        evidence.words = Some(words.clone());
                        Reason::CacheUnreachable
                    }
                    (_, Nar::Refused { status, words }) => {
                        evidence.status = *status;
                        evidence.words = Some(format!("its NAR may not be read: {words}"));
                        Reason::Auth
                    }
                    (_, Nar::NotChecked | Nar::There) => {
                        let (chain, end) = self.chain(id, cache);
                        let missing = self.base_name(end);
                        if self.verdicts.holding(end) == Holding::Unknown {
                            evidence.words = Some(format!("of {missing}, which it refers to, nobody knows"));
                            Reason::CacheUnreachable
                        } else {
                            evidence.missing = Some(missing);
                            evidence.chain = chain.iter().map(|id| self.base_name(*id)).collect();
                            Reason::IncompleteClosure
                        }
                    }
                },
                CacheAnswer::OtherPath(other) => {
                    evidence.words = Some(format!("it describes {}", other.to_basename()));
                    Reason::BadNarinfo
                }
                CacheAnswer::Broken { words, .. } => {
                    evidence.words = Some(words.clone());
                    Reason::BadNarinfo
                }
                CacheAnswer::Denied { words, .. } => {
                    evidence.words = Some(words.clone());
                    Reason::Auth
                }
                CacheAnswer::Unreachable { words, .. } => {
                    evidence.words = Some(words.clone());
                    Reason::CacheUnreachable
                }
                CacheAnswer::Absent | CacheAnswer::Hidden => continue,
            };
            found.push((reason, evidence));
        }
        if found.len() == before {
            found.push((Reason::NotOnAnyCache, self.evidence(id, None)));
        }
    }

    fn evidence(&self, id: PathId, cache: Option<usize>) -> Evidence {
        Evidence {
            path: Some(self.base_name(id)),
            cache: cache.and_then(|cache| self.caches.get(cache).cloned()),
            ..Evidence::default()
        }
    }

    fn base_name(&self, id: PathId) -> String {
        self.facts.path(id).to_basename()
    }

    /// The shortest way from a path, by the offer of a cache, to something below it that no cache offers in a usable form,
    /// and that. A long way is told by its beginning and its end.
    fn chain(&self, start: PathId, cache: usize) -> (Vec<PathId>, PathId) {
        let ways = self.verdicts.ways();
        let references = self.facts.references(start, cache).iter().copied();
        let Some(first) = references.filter_map(|id| Some((ways.of(id)?, id))).min().map(|(_, id)| id) else {
            return (vec![start], start);
        };
        let end = ways.of(first).map_or(first, |way| way.end);
        let mut chain = vec![start, first];
        while let Some(next) = ways.of(chain[chain.len() - 1]).and_then(|way| way.next) {
            if chain.len() == CHAIN {
                chain.push(end);
                break;
            }
            chain.push(next);
        }
        (chain, end)
    }
}

/// The directory of a store path.
fn store_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:._-+=@%".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Puts evidence into a text.
fn fill(text: &str, evidence: &Evidence, drv: &str, target: &str) -> String {
    let list = |names: &[String]| names.join(", ");
    let values = [
        ("{drv}", drv.to_owned()),
        ("{target}", quoted(target)),
        ("{cache}", evidence.cache.clone().unwrap_or_else(|| "CACHE".to_owned())),
        ("{path}", format!("{}/{}", store_of(drv), evidence.path.as_deref().unwrap_or_default())),
        ("{output}", evidence.output.clone().unwrap_or_default()),
        ("{missing}", evidence.missing.clone().unwrap_or_default()),
        ("{keys}", list(&evidence.keys)),
        ("{present}", list(&evidence.present)),
        ("{absent}", list(&evidence.absent)),
        // Last, because it is not ours and may hold any of the others.
        ("{words}", evidence.words.clone().unwrap_or_default()),
    ];
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}
