//! What a cache answered about one path, as far as it matters for substitution.

use nix_derivation::StorePath;

/// A cache's answer about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheAnswer {
    /// It has a narinfo for the path.
    Offer(Offer),
    /// It has a narinfo for another path with the same hash part.
    OtherPath(StorePath),
    /// It has none (404, 410).
    Absent,
    /// It says 403, and lets us read other things: a bucket that may not be listed answers so for what is not there.
    Hidden,
    /// It does not let us ask.
    Denied {
        /// The HTTP status, where there was one.
        status: Option<u16>,
        /// What it said.
        words: String,
    },
    /// What it has is no narinfo.
    Broken {
        /// The HTTP status, where there was one.
        status: Option<u16>,
        /// What is wrong.
        words: String,
    },
    /// It did not answer.
    Unreachable {
        /// The HTTP status, where there was one.
        status: Option<u16>,
        /// What happened.
        words: String,
    },
}

impl CacheAnswer {
    /// The answer in one word, as reports have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offer(_) => "present",
            Self::OtherPath(_) | Self::Broken { .. } => "broken",
            Self::Absent | Self::Hidden => "absent",
            Self::Denied { .. } => "denied",
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// The HTTP status; 200 and 404 stand for what means the same. Nothing where it is not known.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Offer(_) | Self::OtherPath(_) | Self::Absent => None,
            Self::Hidden => Some(403),
            Self::Denied { status, .. } | Self::Broken { status, .. } | Self::Unreachable { status, .. } => {
                *status
            }
        }
    }

    /// The offer, where there is one that Nix would take: trusted, and its NAR not known to be unusable.
    pub fn usable(&self) -> Option<&Offer> {
        match self {
            Self::Offer(offer) if offer.trust.is_enough() && !offer.nar.is_unusable() => Some(offer),
            _ => None,
        }
    }

    /// Any offer, trusted or not.
    pub fn offer(&self) -> Option<&Offer> {
        match self {
            Self::Offer(offer) => Some(offer),
            _ => None,
        }
    }
}

/// What a narinfo offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What Nix thinks of it.
    pub trust: Trust,
    /// What the path refers to, other than itself.
    pub references: Vec<StorePath>,
    /// What is known of its NAR.
    pub nar: Nar,
    /// How much there is to download, in bytes, where the narinfo says it.
    pub download_bytes: Option<u64>,
    /// Size of the NAR in bytes.
    pub unpack_bytes: u64,
}

/// What Nix thinks of a narinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Signed by a trusted key.
    Signed,
    /// Content-addressed, which needs no signature.
    ContentAddressed,
    /// The cache is trusted as such, or no signatures are required.
    NotNeeded,
    /// No signature at all.
    Unsigned,
    /// Signed, by keys that are not trusted.
    UnknownKeys(Vec<String>),
    /// Signed in the name of trusted keys, and the signature does not fit.
    BadSignature(Vec<String>),
}

impl Trust {
    /// Whether Nix would take the path.
    pub fn is_enough(&self) -> bool {
        matches!(self, Self::Signed | Self::ContentAddressed | Self::NotNeeded)
    }
}

/// What is known of the NAR behind a narinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nar {
    /// Nobody looked.
    NotChecked,
    /// It is there, and as large as it should be where that is known.
    There,
    /// It is not there.
    Missing,
    /// It has another size than the narinfo says.
    WrongSize {
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be.
        expected: u64,
    },
    /// The cache does not let us look for it.
    Refused {
        /// The HTTP status, where there was one.
        status: Option<u16>,
        /// What it said.
        words: String,
    },
    /// It could not be looked for.
    Unknown(String),
    /// Nix would follow the narinfo further than this program does.
    NotFollowed(String),
}

impl Nar {
    /// Whether Nix cannot use it, as far as is known.
    pub fn is_unusable(&self) -> bool {
        matches!(self, Self::Missing | Self::WrongSize { .. })
    }
}
