//! What a derivation says besides how it hangs together with others: what is run, and with which words and variables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The part of a derivation that is its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The system that it is built on.
    pub system: String,
    /// The program that builds it.
    pub builder: String,
    /// The program's arguments.
    pub args: Vec<String>,
    /// The program's environment. What is not UTF-8 in a value is replaced by U+FFFD, as in all JSON that Nix writes.
    pub env: BTreeMap<String, String>,
    /// Its structured attributes, which stand in place of an environment.
    #[serde(rename = "structuredAttrs", default, skip_serializing_if = "Option::is_none")]
    pub structured_attributes: Option<serde_json::Map<String, serde_json::Value>>,
}
