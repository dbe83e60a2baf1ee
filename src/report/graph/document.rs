//! The documents of `graph --json`, written piece by piece: with what each derivation says, a hundred thousand of them do not fit in
//! memory.

use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::graph::{DerivationIndex, SavedDerivation};
use crate::jobs::graph::{Answer, GraphReport, Request};

/// How many of the derivations that most others need are named.
const MOST_NEEDED: usize = 10;

/// What both documents begin with.
fn beginning(
    name: &str,
    request: &Request,
    report: &GraphReport,
    warnings: &[String],
    started_at: SystemTime,
) -> Value {
    let mut document = super::super::document(name, &request.installables, warnings, started_at);
    document["revision"] = json!(report.revision);
    document["storeDir"] = json!(report.files.dir().as_str());
    document["roots"] = report.roots.iter().map(|root| report.drv(*root)).collect();
    document
}

/// Writes the graph; its schema is `docs/schema/graph.json`.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_graph(
    request: &Request,
    report: &GraphReport,
    warnings: &[String],
    started_at: SystemTime,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut document = beginning("graph", request, report, warnings, started_at);
    document["summary"] = summary(report);
    let text = format!("{document:#}");
    let open = text.strip_suffix("\n}").unwrap_or(&text);
    write!(out, "{open},\n  \"derivations\": [")?;
    let mut separator = "\n    ";
    let render = |saved: &SavedDerivation| serde_json::to_vec(saved).map_err(io::Error::from);
    let unusable = report.each_saved(&render, |line| {
        out.write_all(separator.as_bytes())?;
        separator = ",\n    ";
        out.write_all(&line?)
    })?;
    let mut damaged = report.damaged.clone();
    damaged.extend(unusable);
    damaged.sort_by(|one, other| one.drv.cmp(&other.drv));
    writeln!(out, "\n  ],\n  \"damaged\": {}\n}}", json!(damaged))
}

fn summary(report: &GraphReport) -> Value {
    let (sizes, shape) = (report.graph.sizes(), report.graph.shape());
    let kinds: serde_json::Map<String, Value> =
        sizes.kinds.iter().map(|(kind, number)| (kind.name().to_owned(), json!(number))).collect();
    let most_needed = report.graph.most_needed(MOST_NEEDED).into_iter();
    let most_needed: Vec<Value> = most_needed
        .map(|index| json!({ "drv": report.drv(index), "dependents": report.graph.dependents(index).len() }))
        .collect();
    let minimal_roots = report.graph.tops(&report.roots).into_iter().map(|index| report.drv(index));
    json!({
        "derivations": report.graph.len(),
        "kinds": kinds,
        "outputs": sizes.outputs,
        "wantedOutputs": sizes.wanted_outputs,
        "sources": sizes.sources,
        "edges": sizes.edges,
        "dynamicInputs": sizes.dynamic_inputs,
        "depth": shape.depth,
        "width": shape.width,
        "drvBytes": report.bytes,
        "mostNeeded": most_needed,
        "minimalRoots": minimal_roots.collect::<Vec<_>>(),
    })
}

/// Writes the ways or the critical path that was asked for; its schema is `docs/schema/graph-path.json`.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_answer(
    request: &Request,
    report: &GraphReport,
    warnings: &[String],
    started_at: SystemTime,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut document = beginning("graph-path", request, report, warnings, started_at);
    document["damaged"] = json!(report.damaged);
    let describe = |index: DerivationIndex, outputs: Vec<&str>| {
        let view = report.graph.derivation(index);
        json!({ "drv": report.drv(index), "name": view.name(), "kind": view.kind(), "outputs": outputs })
    };
    match &report.answer {
        Answer::Everything | Answer::BlockedBy { .. } => {}
        Answer::Paths { from, to, paths } => {
            document["question"] = json!("paths");
            document["from"] = json!(report.drv(*from));
            document["to"] = json!(report.drv(*to));
            document["number"] = json!((paths.number < u64::MAX).then_some(paths.number));
            document["paths"] = paths
                .shortest
                .iter()
                .map(|way| {
                    let before = std::iter::once(None).chain(way.iter().map(Some));
                    let steps = way.iter().zip(before).map(|(index, before)| {
                        let wanted = before.map(|before| report.wanted(*index, *before));
                        describe(*index, wanted.unwrap_or_default())
                    });
                    steps.collect::<Value>()
                })
                .collect();
        }
        Answer::CriticalPath { path, unknown } => {
            // As the other ways: what needs comes before what it needs.
            let mut above = None;
            let steps = path.steps.iter().rev().map(|step| {
                let wanted =
                    above.replace(step.derivation).map(|above| report.wanted(step.derivation, above));
                let mut described = describe(step.derivation, wanted.unwrap_or_default());
                if unknown.is_some() {
                    described["seconds"] = json!(step.weight);
                }
                described
            });
            let steps: Value = steps.collect();
            document["question"] = json!("critical-path");
            document["seconds"] = json!(unknown.as_ref().map(|_| path.weight));
            let unknown = unknown.iter().flatten();
            document["unknownSeconds"] = unknown.map(|index| json!(report.drv(*index))).collect();
            document["from"] = steps[0]["drv"].clone();
            document["to"] =
                path.steps.first().map_or(Value::Null, |step| json!(report.drv(step.derivation)));
            document["number"] = json!(u8::from(!path.steps.is_empty()));
            document["paths"] = if path.steps.is_empty() { json!([]) } else { json!([steps]) };
        }
    }
    writeln!(out, "{document:#}")
}

/// Writes what some derivations block; its schema is `docs/schema/graph-blocked.json`.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_blocked(
    request: &Request,
    report: &GraphReport,
    warnings: &[String],
    started_at: SystemTime,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Answer::BlockedBy { missing, roots, blocked } = &report.answer else { return Ok(()) };
    let mut document = beginning("graph-blocked", request, report, warnings, started_at);
    document["damaged"] = json!(report.damaged);
    let describe = |index: &DerivationIndex| {
        let view = report.graph.derivation(*index);
        json!({ "drv": report.drv(*index), "name": view.name(), "kind": view.kind() })
    };
    document["missing"] = missing.iter().map(describe).collect();
    document["missingRoots"] = roots.iter().map(|index| json!(report.drv(*index))).collect();
    document["blocked"] = blocked.iter().map(describe).collect();
    writeln!(out, "{document:#}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use nix_derivation::StoreDir;

    use super::*;
    use crate::graph::SavedGraph;
    use crate::jobs::StoreEnvironment;
    use crate::jobs::graph::{Damaged, Question};
    use crate::nix::{DerivationFiles, EvaluationArguments};

    /// A store of a hundred and one derivations, each of which needs the one before it and the first, with a value that is not UTF-8.
    fn write_store(dir: &Path) -> Vec<String> {
        let drv = |number: usize| format!("{number:032}-d{number}.drv");
        for number in 0..101usize {
            let mut needed = vec![0];
            needed.extend(number.checked_sub(1).filter(|below| *below > 0));
            let inputs: Vec<String> = needed
                .iter()
                .filter(|_| number > 0)
                .map(|input| format!(r#"("/s/{}",["out"])"#, drv(*input)))
                .collect();
            let text = format!(
                r#"Derive([("out","/s/{number:032}-d{number}","","")],[{}],["/s/{:032}-source"],"x","/b",["-c"],[("name","d{number}"),("odd",""#,
                inputs.join(","),
                1000
            );
            let text = [text.as_bytes(), b"\xff\\n\")])"].concat();
            std::fs::write(dir.join(drv(number)), text).expect("a file");
        }
        (0..101).map(drv).collect()
    }

    #[tokio::test]
    async fn what_is_written_is_read_back_as_the_same_graph() {
        let dir = tempfile::tempdir().expect("a directory");
        let names = write_store(dir.path());
        let files = DerivationFiles::new(StoreDir::new("/s").expect("a directory"), dir.path().to_owned());
        let root = files.dir().parse_path(format!("/s/{}", names[100]).as_bytes()).expect("a path");
        // One is gone, and one can be scanned but not be read whole: its digest is no hexadecimal number.
        std::fs::remove_file(dir.path().join(&names[50])).expect("a file");
        let odd = std::fs::read(dir.path().join(&names[70])).expect("a file");
        let odd = String::from_utf8_lossy(&odd).replace(r#"-d70","","""#, r#"-d70","sha256","xyz""#);
        std::fs::write(dir.path().join(&names[70]), odd).expect("a file");
        let loaded = files.load(std::slice::from_ref(&root)).await.expect("a graph");
        let damaged = loaded.damaged.iter().map(|error| Damaged {
            drv: error.path().unwrap_or_default().to_owned(),
            error: error.to_string(),
        });
        let report = GraphReport {
            damaged: damaged.collect(),
            roots: vec![loaded.graph.find(&root).expect("a member")],
            graph: loaded.graph,
            files,
            revision: None,
            bytes: loaded.bytes,
            answer: Answer::Everything,
            elapsed: Duration::ZERO,
        };
        let request = Request {
            installables: vec!["/s/x.drv".into()],
            arguments: EvaluationArguments::default(),
            directory: "/".into(),
            store: StoreEnvironment::default(),
            question: Question::Everything,
        };
        let mut text = Vec::new();
        write_graph(&request, &report, &[], SystemTime::UNIX_EPOCH, &mut text).expect("written");
        let document: Value = serde_json::from_slice(&text).expect("JSON");
        let damaged: Vec<&str> =
            (0..2).filter_map(|number| document["damaged"][number]["drv"].as_str()).collect();
        assert_eq!(damaged, [format!("/s/{}", names[50]), format!("/s/{}", names[70])]);
        let saved = SavedGraph::parse(&text).expect("a saved graph");
        assert_eq!((saved.roots, saved.store_dir.as_str()), (vec![root], "/s"));
        let rendered = |graph: &crate::graph::BuildGraph| -> Vec<SavedDerivation> {
            let saved =
                |index| SavedDerivation::new(graph.derivation(index), graph, None, report.files.dir());
            graph.indices().map(saved).collect()
        };
        // What is below the one that is gone is not known.
        assert_eq!(saved.graph.len(), 52);
        assert_eq!(rendered(&saved.graph), rendered(&report.graph));
        assert_eq!(
            saved
                .contents
                .values()
                .filter(|contents| contents.env.get("odd").is_some_and(|odd| odd == "\\xff\n"))
                .count(),
            50
        );
    }
}
