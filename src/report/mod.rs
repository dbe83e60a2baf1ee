//! What became of a job, for people and for programs.

pub mod audit;
pub mod diff;
pub mod graph;
pub mod push_closure;
pub mod verify;
pub mod why;

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::text::without_secrets;

/// The members that every JSON document of this program has.
pub(crate) fn document(
    command: &str,
    installables: &[String],
    warnings: &[String],
    started_at: SystemTime,
) -> Value {
    let installables: Vec<_> = installables.iter().map(|text| without_secrets(text)).collect();
    json!({
        "schema": format!("cache-helper/{command}/1"),
        "tool": { "name": "cache-helper", "version": env!("CARGO_PKG_VERSION") },
        "startedAt": humantime::format_rfc3339_seconds(started_at).to_string(),
        "installables": installables,
        "revision": null,
        "warnings": warnings,
    })
}
