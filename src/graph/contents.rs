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
    /// The program's environment. What is not UTF-8 in a value is written as `\xff`, and a text that reads like that as `\\xff`,
    /// so that other bytes are another value.
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

/// Bytes as a text, with what is not UTF-8 written as `\xff`. Backslashes before it, and before what reads like it, are doubled:
/// otherwise the byte and the four characters would be the same.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(place) = rest.find('\\') {
            let after = rest[place..].trim_start_matches('\\');
            let (before, backslashes) = rest[..rest.len() - after.len()].split_at(place);
            let is_doubled =
                if after.is_empty() { !chunk.invalid().is_empty() } else { reads_like_a_byte(after) };
            text.push_str(before);
            text.push_str(&backslashes.repeat(if is_doubled { 2 } else { 1 }));
            rest = after;
        }
        text.push_str(rest);
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Whether a text begins as what follows the backslash of a byte that is not UTF-8, which none below 0x80 is.
fn reads_like_a_byte(text: &str) -> bool {
    matches!(text.as_bytes(), [b'x', b'8' | b'9' | b'a'..=b'f', b'0'..=b'9' | b'a'..=b'f', ..])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn other_bytes_are_another_text() {
        assert_eq!(text_of(b"a\xffb"), r"a\xffb");
        assert_eq!(text_of(br"a\xffb"), r"a\\xffb");
        assert_eq!(text_of(br"a\x1b \n \"), r"a\x1b \n \");
        // All short texts of what could be taken for one another.
        let mut known: HashMap<String, Vec<u8>> = HashMap::new();
        let pieces: [&[u8]; 7] = [b"\\", b"x", b"f", b"8", b"1", b"\xff", b"\x88"];
        for number in 0..7_usize.pow(7) {
            let bytes: Vec<u8> =
                (0..7).flat_map(|place| pieces[number / 7_usize.pow(place) % 7].to_vec()).collect();
            if let Some(other) = known.insert(text_of(&bytes), bytes.clone()) {
                assert_eq!(other, bytes);
            }
        }
    }
}
