//! Reading what `nix path-info --json` prints, in every shape that it has had.
//!
//! | Nix | shape |
//! |---|---|
//! | up to 2.18 | a list of `{path, …}` |
//! | from 2.19 | an object, full path → info, `null` where it is not valid |
//! | `--json-format 2`, 3 | `{version, storeDir, info: {base name → info}}` |
//!
//! Which shape it is shows in the text itself, so the version is never asked.

use nix_derivation::{CAHash, ContentAddressMethod, NixHash, StoreDir, StorePath};
use nix_narinfo::NixSignature;
use serde_json::Value;

use super::program::{Nix, Version};
use crate::graph::PathInfo;

/// From this version on `--json` wants to be told its format.
const JSON_FORMAT: Version = Version { major: 2, minor: 33 };

/// The options that go with `--json`.
pub(super) fn json_format(nix: &Nix) -> &'static [&'static str] {
    if nix.version() >= JSON_FORMAT { &["--json-format", "1"] } else { &[] }
}

/// One path of the output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is valid, and this is its registration.
    Valid(Box<PathInfo>),
    /// It is not valid.
    Invalid(StorePath),
}

/// Reads the output of `nix path-info --json`.
///
/// The error is a reason in words.
pub(super) fn parse(text: &str, store_dir: &StoreDir) -> Result<Vec<Entry>, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match document {
        Value::Array(infos) => infos
            .iter()
            .map(|info| {
                let path = info.get("path").and_then(Value::as_str).ok_or("an entry without a path")?;
                entry(path, info, store_dir)
            })
            .collect(),
        Value::Object(object) => {
            let infos = match object.get("info") {
                Some(Value::Object(infos)) if object.contains_key("version") => infos,
                _ => &object,
            };
            infos.iter().map(|(path, info)| entry(path, info, store_dir)).collect()
        }
        _ => Err("neither a list nor an object".to_owned()),
    }
}

fn entry(path: &str, info: &Value, store_dir: &StoreDir) -> Result<Entry, String> {
    let path = store_path(path, store_dir)?;
    if info.is_null() || info.get("valid") == Some(&Value::Bool(false)) {
        return Ok(Entry::Invalid(path));
    }
    let fail = |what: &str| format!("{}: {what}", path.to_basename());
    let text = |name: &str| info.get(name).and_then(Value::as_str);
    let list = |name: &str| info.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let nar_hash = text("narHash").ok_or_else(|| fail("no narHash"))?;
    let references = list("references")
        .iter()
        .map(|reference| {
            store_path(reference.as_str().ok_or_else(|| fail("a reference is no text"))?, store_dir)
        })
        .collect::<Result<_, _>>()?;
    let content_address = match info.get("ca") {
        None | Some(Value::Null) => None,
        Some(ca) => Some(content_address(ca).map_err(|reason| fail(&reason))?),
    };
    Ok(Entry::Valid(Box::new(PathInfo {
        nar_hash: NixHash::parse(nar_hash).map_err(|error| fail(&error.to_string()))?,
        nar_size: info.get("narSize").and_then(Value::as_u64).ok_or_else(|| fail("no narSize"))?,
        references,
        deriver: text("deriver").map(|deriver| store_path(deriver, store_dir)).transpose()?,
        signatures: list("signatures").iter().filter_map(signature).collect(),
        content_address,
        path,
    })))
}

fn store_path(text: &str, store_dir: &StoreDir) -> Result<StorePath, String> {
    let parsed = if text.starts_with('/') {
        store_dir.parse_path(text.as_bytes())
    } else {
        StorePath::from_basename(text.as_bytes())
    };
    parsed.map_err(|error| format!("{text:?}: {error}"))
}

/// `NAME:BASE64`, or from format 3 on `{keyName, sig}`.
fn signature(value: &Value) -> Option<NixSignature> {
    match value {
        Value::String(text) => NixSignature::parse(text).ok(),
        Value::Object(object) => {
            let part = |name: &str| object.get(name).and_then(Value::as_str);
            NixSignature::parse(&format!("{}:{}", part("keyName")?, part("sig")?)).ok()
        }
        _ => None,
    }
}

/// `fixed:r:sha256:…`, or from format 2 on `{method, hash}`.
fn content_address(value: &Value) -> Result<CAHash, String> {
    let part = |name: &str| value.get(name).and_then(Value::as_str);
    let parsed = match (value, part("method"), part("hash")) {
        (Value::String(text), ..) => CAHash::parse(text).map_err(|error| error.to_string()),
        (_, Some(method), Some(hash)) => {
            let method = match method {
                "flat" => ContentAddressMethod::Flat,
                "nar" => ContentAddressMethod::Nar,
                "text" => ContentAddressMethod::Text,
                "git" => ContentAddressMethod::Git,
                other => return Err(format!("unknown content address method {other:?}")),
            };
            NixHash::parse(hash).map_err(|error| error.to_string()).and_then(|hash| {
                CAHash::from_parts(method, hash.algorithm(), hash.digest_as_bytes())
                    .map_err(|error| error.to_string())
            })
        }
        _ => Err("it has no method and hash".to_owned()),
    };
    parsed.map_err(|reason| format!("unreadable content address: {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const A: &str = "3dpv64qhnvgcx3494y8dvs9g1vwcs6km-a";
    const B: &str = "ari2mx30djy2a8lh9vg8cacq57k4z8ip-b";
    const HASH: &str = "sha256-knb9U7Sdy/YWj4gjrvFIevLuTiMEt+5kEtunmYK5CoY=";
    const CA: &str = "fixed:r:sha256:0jcsnv2k4bln3zy32i86am9iqcw5041qml5acv5hzgsppln8pkwf";

    fn full(base_name: &str) -> String {
        format!("/nix/store/{base_name}")
    }

    fn read(document: &Value) -> Vec<Entry> {
        parse(&document.to_string(), &StoreDir::default()).expect("readable")
    }

    #[test]
    fn every_shape_says_the_same() {
        let signature = NixSignature::from_bytes("k", &[7; 64]).expect("a signature");
        let hash = CAHash::parse(CA).expect("a content address").hash().to_sri_string();
        let old = json!([
            {"path": full(B), "narHash": HASH, "narSize": 168, "references": [full(A)], "deriver": full(A),
             "signatures": [signature.to_nix_string()], "ca": CA, "ultimate": true},
            {"path": full(A), "valid": false},
        ]);
        let middle = json!({
            full(B): {"narHash": HASH, "narSize": 168, "references": [full(A)], "deriver": full(A),
                      "signatures": [signature.to_nix_string()], "ca": CA, "version": 1},
            full(A): null,
        });
        let new = json!({"version": 3, "storeDir": "/nix/store", "info": {
            B: {"narHash": HASH, "narSize": 168, "references": [A], "deriver": A,
                "signatures": [{"keyName": "k", "sig": signature.encoded}],
                "ca": {"method": "nar", "hash": hash}, "version": 3},
            A: null,
        }});
        let sorted = |document: &Value| {
            let mut entries = read(document);
            entries.sort_by_key(|entry| matches!(entry, Entry::Valid(_)));
            entries
        };
        let expected = sorted(&old);
        assert_eq!(expected.len(), 2);
        assert!(
            matches!(&expected[1], Entry::Valid(info) if info.signatures == [signature] && info.nar_size == 168)
        );
        assert_eq!(sorted(&middle), expected);
        assert_eq!(sorted(&new), expected);
    }

    #[test]
    fn an_empty_answer_is_no_path() {
        assert_eq!(read(&json!([])), []);
        assert_eq!(read(&json!({})), []);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,200}") {
            let _ = parse(&text, &StoreDir::default());
        }
    }
}
