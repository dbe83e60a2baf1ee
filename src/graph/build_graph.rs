//! The build graph: derivations, what each needs of the others, and which output makes which path.
//!
//! `docs/build-graph.md` explains the representation.

use nix_derivation::StorePath;

use super::builder::BuildGraphBuilder;
use super::derivation::{Derivation, DerivationKind};
use super::edges::{Edges, Index};
use super::lists::Lists;
use super::names::NameTable;
use super::path_table::{PathNumber, PathTable};

/// A derivation's place in a [`BuildGraph`]: every input stands before what needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DerivationIndex(u32);

impl DerivationIndex {
    /// The index as a position in arrays of the graph's length.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

impl Index for DerivationIndex {
    fn at(position: usize) -> Self {
        Self(u32::try_from(position).expect("a store holds fewer than 2^32 derivations"))
    }

    fn position(self) -> usize {
        self.0 as usize
    }
}

/// Some outputs of a derivation in a [`BuildGraph`].
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The derivation.
    pub derivation: DerivationIndex,
    /// Positions in its [`Derivation::outputs`].
    pub outputs: &'a [usize],
    /// What is needed of derivations that are its outputs, each with the number of the edge.
    dynamic: &'a [(usize, String)],
}

impl<'a> Wanted<'a> {
    /// What is needed of derivations that are outputs of this one: the way from here, such as `out^dev`.
    pub fn ways(self) -> impl ExactSizeIterator<Item = &'a str> {
        self.dynamic.iter().map(|(_, way)| &**way)
    }
}

/// Why derivations are no graph.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildGraphError {
    /// A derivation needs one that is not there.
    #[error("{} needs {}, which is missing", .derivation.to_basename(), .input.to_basename())]
    MissingInput {
        /// The derivation.
        derivation: StorePath,
        /// What it needs.
        input: StorePath,
    },
    /// A derivation needs an output that another does not have.
    #[error("{} needs the output {output:?} of {}, which has none of that name", .derivation.to_basename(), .input.to_basename())]
    UnknownOutput {
        /// The derivation.
        derivation: StorePath,
        /// What it needs.
        input: StorePath,
        /// The output.
        output: String,
    },
    /// Derivations need each other, which no evaluation can make.
    #[error("{}", circle_words(.derivations))]
    Circle {
        /// The circle: each needs the next, and the last needs the first.
        derivations: Vec<StorePath>,
    },
}

/// How many derivations of a circle are named.
const CIRCLE: usize = 8;

fn circle_words(circle: &[StorePath]) -> String {
    let names: Vec<String> = circle.iter().take(CIRCLE).map(StorePath::to_basename).collect();
    match (names.as_slice(), circle.len().saturating_sub(CIRCLE)) {
        ([], _) => "a derivation needs itself".to_owned(),
        ([alone], _) => format!("{alone} needs itself"),
        ([first, others @ ..], 0) => format!("{first} needs itself, by way of {}", others.join(", then ")),
        ([first, others @ ..], more) => {
            format!("{first} needs itself, by way of {} and {more} more", others.join(", then "))
        }
    }
}

/// An output of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemberOutput {
    pub(super) name: u32,
    pub(super) path: Option<PathNumber>,
}

/// Derivations in which every input is a member, inputs first.
#[derive(Debug, Default)]
pub struct BuildGraph {
    pub(super) paths: PathTable,
    pub(super) names: NameTable,
    /// The path of each member.
    pub(super) at: Vec<PathNumber>,
    pub(super) kinds: Vec<DerivationKind>,
    pub(super) allows_substitutes: Vec<bool>,
    pub(super) outputs: Lists<MemberOutput>,
    pub(super) inputs: Edges<DerivationIndex>,
    pub(super) dependents: Edges<DerivationIndex>,
    /// Positions of the outputs that are wanted, a list an edge of `inputs`.
    pub(super) wanted: Lists<usize>,
    /// What is wanted of derivations that are outputs, sorted by the number of the edge.
    pub(super) dynamic: Vec<(usize, String)>,
    pub(super) sources: Lists<PathNumber>,
    /// The member at each path.
    pub(super) by_path: Vec<Option<DerivationIndex>>,
    /// The member that makes each path, and the position of the output.
    pub(super) makers: Vec<Option<(DerivationIndex, usize)>>,
}

/// A derivation of a graph.
#[derive(Clone, Copy, Debug)]
pub struct DerivationView<'a> {
    graph: &'a BuildGraph,
    index: DerivationIndex,
}

/// An output of a derivation of a graph.
#[derive(Clone, Copy, Debug)]
pub struct OutputView<'a> {
    graph: &'a BuildGraph,
    output: MemberOutput,
}

impl BuildGraph {
    /// Links derivations. Duplicates of a path count once, and so do duplicates in a list of inputs or outputs.
    ///
    /// # Errors
    ///
    /// When an input or a needed output is missing, or derivations need each other.
    pub fn new(derivations: &[Derivation]) -> Result<Self, BuildGraphError> {
        let mut builder = BuildGraphBuilder::default();
        for derivation in derivations {
            builder.add(derivation);
        }
        builder.finish()
    }

    /// How many derivations there are.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// All derivations, inputs before what needs them.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = DerivationIndex> + use<> {
        (0..self.len()).map(DerivationIndex::at)
    }

    /// A derivation.
    pub fn derivation(&self, index: DerivationIndex) -> DerivationView<'_> {
        DerivationView { graph: self, index }
    }

    /// What a derivation needs of others.
    pub fn inputs(&self, index: DerivationIndex) -> impl ExactSizeIterator<Item = Wanted<'_>> {
        let edges = self.inputs.numbers_of(index).zip(self.inputs.of(index));
        edges.map(|(edge, derivation)| {
            let first = self.dynamic.partition_point(|(number, _)| *number < edge);
            let behind = self.dynamic[first..].partition_point(|(number, _)| *number == edge);
            let dynamic = &self.dynamic[first..first + behind];
            Wanted { derivation: *derivation, outputs: self.wanted.get(edge), dynamic }
        })
    }

    /// What a derivation needs of derivations that are outputs of others: which other, and the way from there, such as
    /// `out^dev`.
    pub fn dynamic_inputs(&self, index: DerivationIndex) -> impl Iterator<Item = (DerivationIndex, &str)> {
        let edges = self.inputs.numbers_of(index);
        let first = self.dynamic.partition_point(|(edge, _)| *edge < edges.start);
        let ways = self.dynamic[first..].iter().take_while(move |(edge, _)| *edge < edges.end);
        let (start, inputs) = (self.inputs.numbers_of(index).start, self.inputs.of(index));
        ways.map(move |(edge, way)| (inputs[edge - start], &**way))
    }

    /// The derivations that a derivation needs.
    pub fn dependencies(&self, index: DerivationIndex) -> &[DerivationIndex] {
        self.inputs.of(index)
    }

    /// The derivations that need a derivation.
    pub fn dependents(&self, index: DerivationIndex) -> &[DerivationIndex] {
        self.dependents.of(index)
    }

    /// The derivations that need a path as a source.
    pub fn needing_source(&self, source: &StorePath) -> Vec<DerivationIndex> {
        let Some(source) = self.paths.find(source) else { return Vec::new() };
        self.indices().filter(|index| self.sources.get(index.position()).contains(&source)).collect()
    }

    /// The derivation at a `.drv` path.
    pub fn find(&self, path: &StorePath) -> Option<DerivationIndex> {
        self.by_path[self.paths.find(path)?.position()]
    }

    /// The derivation that makes a path, and the position of the output.
    pub fn maker(&self, path: &StorePath) -> Option<(DerivationIndex, usize)> {
        self.makers[self.paths.find(path)?.position()]
    }
}

impl<'a> DerivationView<'a> {
    /// Its place in the graph.
    pub fn index(self) -> DerivationIndex {
        self.index
    }

    /// The `.drv` path.
    pub fn path(self) -> StorePath {
        self.graph.paths.path(self.graph.at[self.index.position()])
    }

    /// The name: the `.drv` path's, without the suffix.
    pub fn name(self) -> &'a str {
        let name = self.graph.paths.name(self.graph.at[self.index.position()]);
        name.strip_suffix(".drv").unwrap_or(name)
    }

    /// How its outputs are addressed.
    pub fn kind(self) -> DerivationKind {
        self.graph.kinds[self.index.position()]
    }

    /// Its `allowSubstitutes` attribute; true where it has none.
    pub fn allows_substitutes(self) -> bool {
        self.graph.allows_substitutes[self.index.position()]
    }

    /// Its outputs, by name.
    pub fn outputs(self) -> impl ExactSizeIterator<Item = OutputView<'a>> + DoubleEndedIterator {
        let graph = self.graph;
        graph
            .outputs
            .get(self.index.position())
            .iter()
            .map(move |output| OutputView { graph, output: *output })
    }

    /// One of its outputs.
    pub fn output(self, position: usize) -> OutputView<'a> {
        OutputView { graph: self.graph, output: self.graph.outputs.get(self.index.position())[position] }
    }

    /// The sources that it needs. They are valid wherever the `.drv` is, which refers to them.
    pub fn sources(self) -> impl ExactSizeIterator<Item = StorePath> + 'a {
        let graph = self.graph;
        graph.sources.get(self.index.position()).iter().map(move |source| graph.paths.path(*source))
    }
}

impl<'a> OutputView<'a> {
    /// Its name, such as `out`.
    pub fn name(self) -> &'a str {
        self.graph.names.get(self.output.name)
    }

    /// Its path, where that is known before building.
    pub fn path(self) -> Option<StorePath> {
        self.output.path.map(|path| self.graph.paths.path(path))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::graph::tests::store_path;
    use crate::graph::{Input, Output};

    /// Path of the output of derivation `number`; the name of its `.drv` path goes with it.
    pub(crate) fn derivation(number: usize, inputs: &[usize]) -> Derivation {
        Derivation {
            path: drv_path(number),
            kind: DerivationKind::InputAddressed,
            outputs: vec![Output { name: "out".into(), path: Some(store_path(number)) }],
            inputs: inputs
                .iter()
                .map(|input| Input {
                    derivation: drv_path(*input),
                    outputs: vec!["out".into()],
                    dynamic: Vec::new(),
                })
                .collect(),
            sources: Vec::new(),
            allows_substitutes: true,
        }
    }

    pub(crate) fn drv_path(number: usize) -> StorePath {
        let output = store_path(number);
        let mut digest = *output.digest();
        digest[19] = 1;
        StorePath::from_parts(digest, &format!("{}.drv", output.name())).expect("a name")
    }

    #[test]
    fn inputs_come_before_what_needs_them() {
        let graph = BuildGraph::new(&[
            derivation(2, &[0, 1]),
            derivation(1, &[0]),
            derivation(0, &[]),
            derivation(0, &[]),
        ])
        .expect("a graph");
        assert_eq!(graph.len(), 3);
        for index in graph.indices() {
            for input in graph.inputs(index) {
                assert!(input.derivation < index);
                assert_eq!(input.outputs, [0]);
            }
        }
        let (maker, output) = graph.maker(&store_path(1)).expect("a maker");
        assert_eq!((graph.derivation(maker).path(), output), (drv_path(1), 0));
        assert_eq!(graph.find(&drv_path(1)), Some(maker));
    }

    #[test]
    fn what_is_no_graph_is_named() {
        let missing = BuildGraph::new(&[derivation(1, &[0])]).expect_err("no input");
        assert!(matches!(missing, BuildGraphError::MissingInput { input, .. } if input == drv_path(0)));
        // What stands above a circle is not on it.
        let circle = BuildGraph::new(&[
            derivation(9, &[0]),
            derivation(0, &[1]),
            derivation(1, &[5, 0]),
            derivation(5, &[]),
        ]);
        let circle = circle.expect_err("a circle");
        assert_eq!(circle, BuildGraphError::Circle { derivations: vec![drv_path(0), drv_path(1)] });
        assert!(circle.to_string().contains("-p0.drv needs itself, by way of "), "{circle}");
        let itself = BuildGraph::new(&[derivation(3, &[3])]).expect_err("a circle of one").to_string();
        assert!(itself.ends_with("-p3.drv needs itself"), "{itself}");
        let mut wrong = derivation(1, &[0]);
        wrong.inputs[0].outputs = vec!["dev".into()];
        let unknown = BuildGraph::new(&[derivation(0, &[]), wrong]).expect_err("no such output");
        assert!(matches!(unknown, BuildGraphError::UnknownOutput { output, .. } if output == "dev"));
    }
}
