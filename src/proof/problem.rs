//! What can be wrong with a path on a cache: its name, what was found, and what to do.

use crate::text::{count, some};

/// What is wrong, or was not to be found out. What a cache said is fit to print already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nix takes it for no binary cache; with what speaks against it.
    NotACache(String),
    /// It is for another store directory.
    OtherStore(String),
    /// There is no narinfo, neither on the cache nor, where there are any, on an upstream.
    Missing {
        /// Whether upstreams were asked too.
        has_upstreams: bool,
    },
    /// What is there is no narinfo.
    BadNarinfo(String),
    /// There is the narinfo of another path.
    OtherPath(String),
    /// The narinfo's URL leads out of the cache, where nobody follows.
    OutsideCache(String),
    /// No signature at all.
    Unsigned,
    /// Signed, by keys that Nix does not trust here.
    UnknownKeys(Vec<String>),
    /// Signed in the name of keys that Nix trusts, and not by them.
    BadSignature(Vec<String>),
    /// It says otherwise than the local store about the same content.
    Contradiction(String),
    /// The NAR is not there.
    NarMissing,
    /// The NAR has another size than its narinfo says.
    NarWrongSize(String),
    /// The NAR is not what its narinfo says.
    NarDamaged(String),
    /// The cache does not let us read it; with the object and its words.
    Denied(String),
    /// The cache did not answer; with the object and what came instead.
    Unreachable(String),
    /// This program cannot tell; with the reason.
    NotChecked(String),
    /// So many paths were followed, and there are more.
    TooMany(usize),
}

/// Where a problem is, as far as what to do depends on it.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The cache.
    pub cache: &'a str,
    /// Whether it is an upstream, which somebody else fills.
    pub is_upstream: bool,
    /// The path, with its store directory; for a cache as a whole, what was named.
    pub path: &'a str,
    /// What was named, as store paths.
    pub roots: &'a str,
    /// Whether the store has all of it, so that it can be pushed without more ado.
    pub is_valid: bool,
    /// The name of the path's narinfo.
    pub narinfo: &'a str,
    /// The name of its NAR, where it is known.
    pub nar: Option<&'a str>,
}

impl Problem {
    /// The id that reports have.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotACache(_) => "not-a-cache",
            Self::OtherStore(_) => "other-store",
            Self::Missing { .. } => "missing",
            Self::BadNarinfo(_) => "bad-narinfo",
            Self::OtherPath(_) => "other-path",
            Self::OutsideCache(_) => "outside-cache",
            Self::Unsigned => "unsigned",
            Self::UnknownKeys(_) => "key-not-trusted",
            Self::BadSignature(_) => "bad-signature",
            Self::Contradiction(_) => "contradiction",
            Self::NarMissing => "nar-missing",
            Self::NarWrongSize(_) => "nar-wrong-size",
            Self::NarDamaged(_) => "nar-damaged",
            Self::Denied(_) => "denied",
            Self::Unreachable(_) => "unreachable",
            Self::NotChecked(_) => "not-checked",
            Self::TooMany(_) => "too-many-paths",
        }
    }

    /// Whether nothing is known to be wrong, only not known to be right.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Unreachable(_) | Self::NotChecked(_) | Self::TooMany(_))
    }

    /// What was found, as the rest of a sentence that begins with the path.
    pub fn words(&self) -> String {
        match self {
            Self::NotACache(words) => format!("it is no binary cache: {words}"),
            Self::OtherStore(theirs) => format!("it is for the store directory {theirs}"),
            Self::Missing { has_upstreams: false } => "no narinfo".to_owned(),
            Self::Missing { has_upstreams: true } => {
                "no narinfo, and no upstream has it in a form that Nix takes".to_owned()
            }
            Self::BadNarinfo(words) => format!("its narinfo is broken: {words}"),
            Self::OtherPath(other) => format!("its narinfo is that of {other}"),
            Self::OutsideCache(url) => format!("its narinfo's URL leads out of the cache: {url}"),
            Self::Unsigned => "its narinfo carries no signature, and Nix requires one".to_owned(),
            Self::UnknownKeys(keys) => {
                format!("its narinfo is signed by {}, which Nix does not trust here", some(keys))
            }
            Self::BadSignature(keys) => format!(
                "its narinfo carries a signature by {} that is not valid: it was changed after signing, or another key \
                 has the same name",
                some(keys)
            ),
            Self::Contradiction(words) => words.clone(),
            Self::NarMissing => "its NAR is not there".to_owned(),
            Self::NarWrongSize(words) | Self::NarDamaged(words) => format!("its NAR {words}"),
            Self::Denied(words) => format!("may not be read: {words}"),
            Self::Unreachable(words) => format!("could not be asked for: {words}"),
            Self::NotChecked(words) => format!("not checked: {words}"),
            Self::TooMany(most) => {
                format!("its narinfos name more than {}, and were not followed further", count(*most, "path"))
            }
        }
    }

    /// What to do about it.
    pub fn fix(&self, place: &Place<'_>) -> String {
        let Place { cache, path, roots, narinfo, .. } = place;
        let build = if place.is_valid { "" } else { "--build " };
        let push = format!("`cache-helper push-closure {build}--to {cache} {roots}`");
        let to_upstream =
            "tell whoever keeps that cache, or leave it out and push the path: then it need not have it";
        match self {
            Self::NotACache(_) => format!("check the URL, and whether {cache}/nix-cache-info is there"),
            Self::OtherStore(_) => "name a cache for this store directory".to_owned(),
            Self::Denied(_) if cache.starts_with("file:") => "run as a user who may read there".to_owned(),
            Self::Denied(_) => {
                "give a login for this host in the netrc file that Nix uses (its setting `netrc-file`)".to_owned()
            }
            Self::Unreachable(_) => "try again when it answers".to_owned(),
            Self::NotChecked(_) => format!("let Nix fetch it: `nix copy --from {cache} {path}`"),
            Self::TooMany(_) => "look at what the narinfos say; no closure is so large".to_owned(),
            Self::UnknownKeys(_) => {
                "if the key is to be trusted, add it to `trusted-public-keys` in nix.conf, or for this run with \
                 `--option extra-trusted-public-keys NAME:KEY`"
                    .to_owned()
            }
            _ if place.is_upstream => to_upstream.to_owned(),
            Self::Missing { .. } => format!("push what is missing: {push}"),
            Self::BadNarinfo(_) | Self::OtherPath(_) | Self::OutsideCache(_) => {
                format!("push it again, which replaces the narinfo: {push}")
            }
            Self::Unsigned => {
                format!("sign what is there: `nix store sign --store {cache} --key-file FILE --recursive {roots}`")
            }
            Self::BadSignature(_) | Self::Contradiction(_) | Self::NarMissing => {
                format!("remove {narinfo} from the cache, then push it again: {push}")
            }
            Self::NarWrongSize(_) | Self::NarDamaged(_) => format!(
                "remove {narinfo} and {} from the cache, then push it again: {push}",
                place.nar.unwrap_or("the NAR")
            ),
        }
    }
}
