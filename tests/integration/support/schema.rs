//! Holds what `--json` prints against the schemas under `docs/schema/`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

/// Fails unless the document is valid for the schema that it names.
pub(crate) fn check(document: &Value) {
    let name = document["schema"].as_str().unwrap_or_else(|| panic!("no `schema` in {document:#}"));
    let command = name.strip_prefix("cache-helper/").and_then(|rest| rest.strip_suffix("/1"));
    let command = command.unwrap_or_else(|| panic!("an odd schema name: {name}"));
    let problems = validate(command, document);
    assert!(
        problems.is_empty(),
        "the output does not follow docs/schema/{command}.json: {problems:#?}\n{document:#}"
    );
}

/// What is wrong with a document of a command.
pub(crate) fn validate(command: &str, document: &Value) -> Vec<String> {
    static COMPILED: OnceLock<Mutex<BTreeMap<String, jsonschema::Validator>>> = OnceLock::new();
    let mut compiled = COMPILED.get_or_init(Mutex::default).lock().unwrap();
    let validator = compiled.entry(command.to_owned()).or_insert_with(|| {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schema/{command}.json"));
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let schema =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    });
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path)).collect()
}
