//! What a derivation says besides how it hangs together with others: what is run, and with which words and variables.

use std::collections::BTreeMap;

use nix_derivation::{Derivation, StoreDir};
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
    /// The program's environment. What is not UTF-8 in a value is written as `\xff`, so that other bytes
    /// are another value.
    pub env: BTreeMap<String, String>,
    /// Its structured attributes, which stand in place of an environment.
    #[serde(rename = "structuredAttrs", default, skip_serializing_if = "Option::is_none")]
    pub structured_attributes: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Contents {
    /// Reads the text of a `.drv` file; `name` is that of the derivation, without the suffix.
    ///
    /// # Errors
    ///
    /// When it is no derivation; the text says why.
    pub fn parse(text: &[u8], name: &str, store_dir: &StoreDir) -> Result<Self, String> {
        let derivation = Derivation::from_aterm_bytes_in(text, name, store_dir.clone())
            .map_err(|error| error.to_string())?;
        let shown = |(name, value): (&String, &Vec<u8>)| (name.clone(), text_of(value));
        Ok(Self {
            system: derivation.system().to_owned(),
            builder: derivation.builder().to_owned(),
            args: derivation.arguments().to_vec(),
            env: derivation.environment().iter().map(shown).collect(),
            structured_attributes: derivation.structured_attrs().map(|attributes| {
                attributes.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect()
            }),
        })
    }
}

/// Bytes as a text, with what is not UTF-8 written as `\xff`.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
