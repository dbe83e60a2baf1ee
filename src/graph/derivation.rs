//! A derivation as far as substitution and building depend on it: what a `.drv` file says, without its builder and
//! environment.

use nix_derivation::StorePath;

/// A derivation with everything in it, to make a graph of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// The `.drv` path.
    pub path: StorePath,
    /// How its outputs are addressed.
    pub kind: DerivationKind,
    /// Its outputs, by name.
    pub outputs: Vec<Output>,
    /// The derivations whose outputs it needs, and which of them.
    pub inputs: Vec<Input>,
    /// The sources that it needs. They are valid wherever the `.drv` is, which refers to them.
    pub sources: Vec<StorePath>,
    /// Its `allowSubstitutes` attribute; true where it has none.
    pub allows_substitutes: bool,
}

/// How the outputs of a derivation are addressed; the less is known beforehand, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DerivationKind {
    /// By what they are made of.
    InputAddressed,
    /// By their content, which is known beforehand: a download.
    FixedOutput,
    /// By what they are made of, which includes something that shows after building.
    Deferred,
    /// By their content, which shows after building.
    #[serde(rename = "content-addressed")]
    Floating,
    /// Built anew each time.
    Impure,
    /// Not known: its file could not be read. Its outputs are those that others want.
    Unread,
}

impl DerivationKind {
    /// The kind in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::InputAddressed => "input-addressed",
            Self::FixedOutput => "fixed-output",
            Self::Floating => "content-addressed",
            Self::Deferred => "deferred",
            Self::Impure => "impure",
            Self::Unread => "unread",
        }
    }
}

/// An output of a derivation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name, such as `out`.
    pub name: String,
    /// Its path, where that is known before building.
    pub path: Option<StorePath>,
}

/// A derivation that another needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The `.drv` path.
    pub derivation: StorePath,
    /// Names of the outputs that are needed.
    pub outputs: Vec<String>,
    /// Of derivations that are outputs of this one, what is needed: the way from here, such as `out^dev`.
    pub dynamic: Vec<String>,
}

/// A name without its version, which begins after the first dash that no letter follows: `DrvName` in Nix's
/// `src/libstore/names.cc`.
///
/// ```
/// assert_eq!(cache_helper::graph::without_version("gcc-wrapper-15.2.0"), "gcc-wrapper");
/// ```
pub fn without_version(name: &str) -> &str {
    let bytes = name.as_bytes();
    let dash = (0..bytes.len())
        .find(|at| bytes[*at] == b'-' && bytes.get(at + 1).is_some_and(|next| !next.is_ascii_alphabetic()));
    &name[..dash.unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_begins_at_the_first_dash_that_no_letter_follows() {
        for (name, expected) in [
            ("bash-5.3p9", "bash"),
            ("python3-3.11.15-env", "python3"),
            ("python3.11-pip-23", "python3.11-pip"),
            ("gcc-wrapper-15.2.0", "gcc-wrapper"),
            ("source", "source"),
            ("x-y", "x-y"),
            ("x-", "x-"),
            ("-1", ""),
            ("ünï-1", "ünï"),
        ] {
            assert_eq!(without_version(name), expected);
        }
    }
}
