//! A build graph as JSON: what `cache-helper graph --format json` writes and `cache-helper diff` reads back.
//!
//! The schema is `docs/schema/graph.json`.

use std::collections::{HashMap, HashSet};

use nix_derivation::{StoreDir, StorePath};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::aterm::is_output_name;
use super::build_graph::{BuildGraph, BuildGraphError, DerivationView};
use super::builder::{BuildGraphBuilder, foreign_store_dir};
use super::contents::Contents;
use super::derivation::{Derivation, DerivationKind, Input, Output};

/// One derivation of a saved graph; paths are in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedDerivation<C = Option<Contents>> {
    /// The `.drv` path.
    pub drv: String,
    /// The name, without the suffix.
    pub name: String,
    /// How the outputs are addressed.
    pub kind: DerivationKind,
    /// The outputs, by name.
    pub outputs: Vec<SavedOutput>,
    /// What is needed of other derivations.
    pub inputs: Vec<SavedInput>,
    /// The sources.
    pub sources: Vec<String>,
    /// The attribute `allowSubstitutes`.
    pub allows_substitutes: bool,
    /// What it says besides; nothing where its file could not be read.
    #[serde(flatten)]
    pub contents: C,
}

/// An output of a saved derivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOutput {
    /// Its name.
    pub name: String,
    /// Its path, where that is known before building.
    pub path: Option<String>,
}

/// An input of a saved derivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedInput {
    /// The `.drv` path.
    pub drv: String,
    /// The outputs that are needed.
    pub outputs: Vec<String>,
    /// What is needed of derivations that are outputs: the way from here, such as `out^dev`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dynamic: Vec<String>,
}

/// A graph that was read back.
#[derive(Debug)]
pub struct SavedGraph {
    /// The directory that its paths are named by.
    pub store_dir: StoreDir,
    /// What was named when it was saved.
    pub roots: Vec<StorePath>,
    /// The graph.
    pub graph: BuildGraph,
    /// What each derivation says besides.
    pub contents: HashMap<StorePath, Contents>,
}

/// Why a document is no graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedGraphError {
    /// It is not JSON, or not of this form.
    #[error("it is no saved graph: {0}")]
    Form(#[from] serde_json::Error),
    /// It is of another schema.
    #[error("its schema is {0:?}, and not {SCHEMA:?}")]
    Schema(String),
    /// Something in it should be a path, and is not.
    #[error("{0:?} is no path of its store, or of another kind than should be here")]
    Path(String),
    /// What should be the name of an output, or a way to one, is none.
    #[error("what it says of {drv} cannot be used: {name:?} is no name of an output")]
    Name {
        /// The `.drv` path.
        drv: String,
        /// The name or the way.
        name: String,
    },
    /// A derivation says only a part of what it should, or something else.
    #[error("what it says of {drv} cannot be used: {source}")]
    Contents {
        /// The `.drv` path.
        drv: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It has a derivation twice.
    #[error("it lists {0} twice")]
    Twice(String),
    /// Nothing was named when it was saved, so that there is nothing to begin at.
    #[error("its \"roots\" are empty, so that it does not say what was named")]
    NoRoots,
    /// What was named is not in it.
    #[error("its root {0} is not among its derivations")]
    MissingRoot(String),
    /// Its derivations are no graph.
    #[error(transparent)]
    Graph(#[from] BuildGraphError),
}

/// The schema that a saved graph names.
pub const SCHEMA: &str = "cache-helper/graph/1";

/// The whole document, as far as it is read back.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema: String,
    store_dir: String,
    roots: Vec<String>,
    /// What they say besides is looked at when it is known whose it is, so that an error can name it.
    derivations: Vec<SavedDerivation<Map<String, Value>>>,
}

/// The members that [`Contents`] is saved as.
const CONTENTS: [&str; 5] = ["system", "builder", "args", "env", "structuredAttrs"];

/// Whether a text leads to what is needed of an output: names of outputs, of which all but the last are derivations.
fn is_way(text: &str) -> bool {
    text.contains('^') && text.split('^').all(|name| is_output_name(name.as_bytes()))
}

/// What a derivation says besides; nothing where nothing of it is there. A part of it is an error: taken for the whole, what
/// is missing would pass for what the derivation does not have.
fn contents(drv: &str, members: Map<String, Value>) -> Result<Option<Contents>, SavedGraphError> {
    if !CONTENTS.iter().any(|name| members.contains_key(*name)) {
        return Ok(None);
    }
    let read = serde_json::from_value(Value::Object(members));
    read.map(Some).map_err(|source| SavedGraphError::Contents { drv: drv.to_owned(), source })
}

impl SavedDerivation {
    /// A derivation of a graph with what it says besides.
    pub fn new(
        derivation: DerivationView<'_>,
        graph: &BuildGraph,
        contents: Option<Contents>,
        store_dir: &StoreDir,
    ) -> Self {
        let shown = |path: &StorePath| store_dir.render_path(path);
        let index = derivation.index();
        let mut inputs: Vec<SavedInput> = graph
            .inputs(index)
            .map(|input| {
                let view = graph.derivation(input.derivation);
                let outputs = input.outputs.iter().map(|output| view.output(*output).name().to_owned());
                SavedInput { drv: shown(&view.path()), outputs: outputs.collect(), dynamic: Vec::new() }
            })
            .collect();
        for (input, way) in graph.dynamic_inputs(index) {
            let drv = shown(&graph.derivation(input).path());
            if let Some(input) = inputs.iter_mut().find(|input| input.drv == drv) {
                input.dynamic.push(way.to_owned());
            }
        }
        Self {
            drv: shown(&derivation.path()),
            name: derivation.name().to_owned(),
            kind: derivation.kind(),
            outputs: derivation
                .outputs()
                .map(|output| SavedOutput {
                    name: output.name().to_owned(),
                    path: output.path().as_ref().map(shown),
                })
                .collect(),
            inputs,
            sources: derivation.sources().map(|source| shown(&source)).collect(),
            allows_substitutes: derivation.allows_substitutes(),
            contents,
        }
    }
}

impl SavedDerivation<Map<String, Value>> {
    fn into_derivation(
        self,
        parse: impl Fn(&str) -> Result<StorePath, SavedGraphError>,
    ) -> Result<(Derivation, Option<Contents>), SavedGraphError> {
        // Before anything else, so that no error names what is no path.
        let path = parse(&self.drv)?;
        if !path.is_derivation() {
            return Err(SavedGraphError::Path(self.drv));
        }
        let names = self.outputs.iter().map(|output| &output.name);
        let names = names.chain(self.inputs.iter().flat_map(|input| &input.outputs));
        let mut ways = self.inputs.iter().flat_map(|input| &input.dynamic);
        let is_none = |name: &&String| !is_output_name(name.as_bytes());
        if let Some(name) = { names }.find(is_none).or_else(|| ways.find(|way| !is_way(way))) {
            return Err(SavedGraphError::Name { name: name.clone(), drv: self.drv });
        }
        let contents = contents(&self.drv, self.contents)?;
        let derivation = Derivation {
            path,
            kind: self.kind,
            outputs: self
                .outputs
                .into_iter()
                .map(|output| {
                    Ok(Output { name: output.name, path: output.path.as_deref().map(&parse).transpose()? })
                })
                .collect::<Result<_, SavedGraphError>>()?,
            inputs: self
                .inputs
                .into_iter()
                .map(|input| {
                    Ok(Input {
                        derivation: parse(&input.drv)?,
                        outputs: input.outputs,
                        dynamic: input.dynamic,
                    })
                })
                .collect::<Result<_, SavedGraphError>>()?,
            sources: self.sources.iter().map(|source| parse(source)).collect::<Result<_, _>>()?,
            allows_substitutes: self.allows_substitutes,
        };
        Ok((derivation, contents))
    }
}

impl SavedGraph {
    /// Reads a document back.
    ///
    /// # Errors
    ///
    /// When it is no saved graph, or its derivations are none.
    pub fn parse(text: &[u8]) -> Result<Self, SavedGraphError> {
        let document: Document = serde_json::from_slice(text)?;
        if document.schema != SCHEMA {
            return Err(SavedGraphError::Schema(document.schema));
        }
        let no_path = |text: &str| SavedGraphError::Path(text.to_owned());
        let store_dir = foreign_store_dir(&document.store_dir).ok_or_else(|| no_path(&document.store_dir))?;
        let parse = |text: &str| store_dir.parse_path(text.as_bytes()).map_err(|_| no_path(text));
        let mut builder = BuildGraphBuilder::default();
        let mut all = HashMap::with_capacity(document.derivations.len());
        let mut met = HashSet::with_capacity(document.derivations.len());
        for saved in document.derivations {
            let (derivation, contents) = saved.into_derivation(parse)?;
            if !met.insert(derivation.path.clone()) {
                return Err(SavedGraphError::Twice(store_dir.render_path(&derivation.path)));
            }
            if derivation.kind == DerivationKind::Unread {
                builder.add_unread(&derivation.path);
                continue;
            }
            builder.add(&derivation);
            if let Some(contents) = contents {
                all.insert(derivation.path, contents);
            }
        }
        if document.roots.is_empty() {
            return Err(SavedGraphError::NoRoots);
        }
        let root = |text: &String| {
            let path = parse(text)?;
            if met.contains(&path) { Ok(path) } else { Err(SavedGraphError::MissingRoot(text.clone())) }
        };
        let roots = document.roots.iter().map(root).collect::<Result<_, _>>()?;
        Ok(Self { roots, graph: builder.finish()?, contents: all, store_dir })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::build_graph_tests::{derivation, drv_path};

    fn saved(graph: &BuildGraph) -> Value {
        let store_dir = StoreDir::default();
        let contents =
            || Contents { builder: "/bin/sh".into(), args: vec!["-c".into()], ..Contents::default() };
        let derivations: Vec<SavedDerivation> = graph
            .indices()
            .map(|index| SavedDerivation::new(graph.derivation(index), graph, Some(contents()), &store_dir))
            .collect();
        json!({
            "schema": SCHEMA, "storeDir": store_dir.as_str(), "derivations": derivations, "more": 1,
            "roots": [derivations.last().map(|last| &last.drv)],
        })
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let mut dynamic = derivation(2, &[0, 1]);
        dynamic.inputs[1].dynamic.push("out^dev".into());
        let graph = BuildGraph::new(&[dynamic, derivation(1, &[0]), derivation(0, &[])]).expect("a graph");
        let document = saved(&graph);
        let back = SavedGraph::parse(document.to_string().as_bytes()).expect("a saved graph");
        assert_eq!(saved(&back.graph), document);
        assert_eq!((back.graph.len(), back.roots), (3, vec![drv_path(2)]));
        assert_eq!(back.contents[&drv_path(1)].builder, "/bin/sh");
    }

    #[test]
    fn what_is_none_is_named() {
        let graph = BuildGraph::new(&[derivation(0, &[])]).expect("a graph");
        let broken = |change: fn(&mut Value)| {
            let mut document = saved(&graph);
            change(&mut document);
            SavedGraph::parse(document.to_string().as_bytes()).expect_err("broken").to_string()
        };
        assert!(broken(|document| document["schema"] = json!("cache-helper/audit/1")).contains("audit"));
        assert!(
            broken(|document| document["derivations"][0]["drv"] = json!("/tmp/x.drv")).contains("/tmp/x.drv")
        );
        assert!(broken(|document| document["derivations"] = json!({})).contains("no saved graph"));
        assert!(SavedGraph::parse(b"{").is_err());
        let drv = StoreDir::default().render_path(&drv_path(0));
        let named = |change| {
            let error = broken(change);
            assert!(error.contains(&drv), "{error}");
            error
        };
        named(|document| document["derivations"][0]["env"] = Value::Null);
        let without = |document: &mut Value| {
            document["derivations"][0].as_object_mut().expect("a derivation").remove("env");
        };
        assert!(named(without).contains("missing field `env`"));
        named(|document| document["derivations"][0]["env"] = json!({ "v": 1 }));
        named(|document| document["derivations"][0]["structuredAttrs"] = json!([]));
        let twice = |document: &mut Value| {
            let first = document["derivations"][0].clone();
            document["derivations"].as_array_mut().expect("derivations").push(first);
        };
        assert!(named(twice).contains("twice"));
        assert!(broken(|document| document["roots"] = json!([])).contains("roots"));
        let other = |document: &mut Value| {
            document["roots"] = json!([StoreDir::default().render_path(&drv_path(7))]);
        };
        assert!(broken(other).contains("-p7.drv is not among its derivations"));
        let output = |document: &mut Value| {
            document["derivations"][0]["drv"] = document["derivations"][0]["outputs"][0]["path"].clone();
        };
        assert!(broken(output).contains("is no path"));
        // What is no path is never taken for one, whatever else is wrong.
        let odd = |document: &mut Value| {
            document["derivations"][0]["drv"] = json!("/tmp\u{1b}[31m");
            document["derivations"][0].as_object_mut().expect("a derivation").remove("env");
        };
        let error = broken(odd);
        assert!(error.contains("is no path") && !error.contains('\u{1b}'), "{error}");
        let name = |document: &mut Value| {
            document["derivations"][0]["outputs"][0]["name"] = json!("o\u{1b}[31mut");
        };
        assert!(named(name).contains("is no name of an output"));
    }

    #[test]
    fn what_no_way_can_be_is_refused() {
        let graph = BuildGraph::new(&[derivation(0, &[]), derivation(1, &[0])]).expect("a graph");
        let with = |way: &str| {
            let mut document = saved(&graph);
            document["derivations"][1]["inputs"][0]["dynamic"] = json!([way]);
            SavedGraph::parse(document.to_string().as_bytes()).map_err(|error| error.to_string())
        };
        assert!(with("out^dev").is_ok());
        for way in ["", "^", "out^", "^dev", "out", "a\u{1b}[31m^b"] {
            let error = with(way).expect_err(way);
            assert!(error.contains("is no name of an output") && !error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn a_derivation_that_says_nothing_was_not_read() {
        let graph = BuildGraph::new(&[derivation(0, &[])]).expect("a graph");
        let mut document = saved(&graph);
        for name in CONTENTS {
            document["derivations"][0].as_object_mut().expect("a derivation").remove(name);
        }
        let back = SavedGraph::parse(document.to_string().as_bytes()).expect("a saved graph");
        assert_eq!((back.graph.len(), back.contents.len()), (1, 0));
    }
}
