//! The build graph: derivations, what each needs of the others, and which output makes which path.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use nix_derivation::StorePath;

use super::edges::{Edges, Index};

/// A derivation as far as substitution and building depend on it: what a `.drv` file says, without its builder and
/// environment.
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

impl Derivation {
    /// The name: the `.drv` path's, without the suffix.
    pub fn name(&self) -> &str {
        let name = self.path.name();
        name.strip_suffix(".drv").unwrap_or(name)
    }
}

/// How the outputs of a derivation are addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DerivationKind {
    /// By what they are made of.
    InputAddressed,
    /// By their content, which is known beforehand: a download.
    FixedOutput,
    /// By their content, which shows after building.
    Floating,
    /// By what they are made of, which includes something that shows after building.
    Deferred,
    /// Built anew each time.
    Impure,
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
}

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
    #[error("{} needs itself, by way of others", .derivation.to_basename())]
    Circle {
        /// One derivation on the circle, or above it.
        derivation: StorePath,
    },
}

/// Derivations in which every input is a member, inputs first.
#[derive(Debug, Default)]
pub struct BuildGraph {
    derivations: Vec<Derivation>,
    inputs: Edges<DerivationIndex>,
    /// Which outputs are needed, in the order of the edges of `inputs`.
    wanted: Vec<Vec<Vec<usize>>>,
    by_path: HashMap<StorePath, DerivationIndex>,
    makers: HashMap<StorePath, (DerivationIndex, usize)>,
}

impl BuildGraph {
    /// Links derivations. Duplicates of a path count once.
    ///
    /// # Errors
    ///
    /// When an input or a needed output is missing, or derivations need each other.
    pub fn new(derivations: Vec<Derivation>) -> Result<Self, BuildGraphError> {
        let mut by_path = HashMap::with_capacity(derivations.len());
        let mut unique: Vec<Derivation> = Vec::with_capacity(derivations.len());
        for derivation in derivations {
            let next = DerivationIndex::at(unique.len());
            if let Entry::Vacant(entry) = by_path.entry(derivation.path.clone()) {
                entry.insert(next);
                unique.push(derivation);
            }
        }
        let inputs = Edges::try_collect(unique.iter().map(|derivation| {
            derivation.inputs.iter().map(|input| {
                by_path.get(&input.derivation).copied().ok_or_else(|| BuildGraphError::MissingInput {
                    derivation: derivation.path.clone(),
                    input: input.derivation.clone(),
                })
            })
        }))?;
        let order = inputs.topological_order().map_err(|stuck: DerivationIndex| BuildGraphError::Circle {
            derivation: unique[stuck.position()].path.clone(),
        })?;
        let place = Edges::places(&order);
        let inputs = inputs.renumbered(&order, &place);
        let mut slots: Vec<Option<Derivation>> = unique.into_iter().map(Some).collect();
        let derivations: Vec<Derivation> =
            order.iter().filter_map(|old| slots[old.position()].take()).collect();
        for index in by_path.values_mut() {
            *index = place[index.position()];
        }
        let wanted = derivations
            .iter()
            .map(|derivation| positions_of_inputs(derivation, &derivations, &by_path))
            .collect::<Result<_, _>>()?;
        let mut makers = HashMap::new();
        for (position, derivation) in derivations.iter().enumerate() {
            for (number, output) in derivation.outputs.iter().enumerate() {
                if let Some(path) = &output.path {
                    // Of several derivations with one output (a fixed output that is fetched in another way), the first.
                    makers.entry(path.clone()).or_insert((DerivationIndex::at(position), number));
                }
            }
        }
        Ok(Self { derivations, inputs, wanted, by_path, makers })
    }

    /// How many derivations there are.
    pub fn len(&self) -> usize {
        self.derivations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.derivations.is_empty()
    }

    /// All derivations, inputs before what needs them.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = DerivationIndex> + use<> {
        (0..self.derivations.len()).map(DerivationIndex::at)
    }

    /// A derivation.
    pub fn derivation(&self, index: DerivationIndex) -> &Derivation {
        &self.derivations[index.position()]
    }

    /// What a derivation needs of others.
    pub fn inputs(&self, index: DerivationIndex) -> impl Iterator<Item = Wanted<'_>> {
        let wanted = &self.wanted[index.position()];
        self.inputs
            .of(index)
            .iter()
            .zip(wanted)
            .map(|(derivation, outputs)| Wanted { derivation: *derivation, outputs })
    }

    /// The derivation at a `.drv` path.
    pub fn find(&self, path: &StorePath) -> Option<DerivationIndex> {
        self.by_path.get(path).copied()
    }

    /// The derivation that makes a path, and the position of the output.
    pub fn maker(&self, path: &StorePath) -> Option<(DerivationIndex, usize)> {
        self.makers.get(path).copied()
    }
}

fn positions_of_inputs(
    derivation: &Derivation,
    derivations: &[Derivation],
    by_path: &HashMap<StorePath, DerivationIndex>,
) -> Result<Vec<Vec<usize>>, BuildGraphError> {
    let positions = |input: &Input| {
        let known = &derivations[by_path[&input.derivation].position()].outputs;
        input
            .outputs
            .iter()
            .map(|name| {
                known.iter().position(|output| output.name == *name).ok_or_else(|| {
                    BuildGraphError::UnknownOutput {
                        derivation: derivation.path.clone(),
                        input: input.derivation.clone(),
                        output: name.clone(),
                    }
                })
            })
            .collect()
    };
    derivation.inputs.iter().map(positions).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::graph::tests::store_path;

    /// Path of the output of derivation `number`; its `.drv` path is `number + 1000`.
    pub(crate) fn derivation(number: usize, inputs: &[usize]) -> Derivation {
        Derivation {
            path: drv_path(number),
            kind: DerivationKind::InputAddressed,
            outputs: vec![Output { name: "out".into(), path: Some(store_path(number)) }],
            inputs: inputs
                .iter()
                .map(|input| Input { derivation: drv_path(*input), outputs: vec!["out".into()] })
                .collect(),
            sources: Vec::new(),
            allows_substitutes: true,
        }
    }

    pub(crate) fn drv_path(number: usize) -> StorePath {
        let base = store_path(number + 1000).to_basename();
        StorePath::from_basename(format!("{base}.drv").as_bytes()).expect("a name")
    }

    #[test]
    fn inputs_come_before_what_needs_them() {
        let graph = BuildGraph::new(vec![
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
        assert_eq!((graph.derivation(maker).path.clone(), output), (drv_path(1), 0));
        assert_eq!(graph.find(&drv_path(1)), Some(maker));
    }

    #[test]
    fn what_is_no_graph_is_named() {
        let missing = BuildGraph::new(vec![derivation(1, &[0])]).expect_err("no input");
        assert!(matches!(missing, BuildGraphError::MissingInput { input, .. } if input == drv_path(0)));
        let circle = BuildGraph::new(vec![derivation(0, &[1]), derivation(1, &[0])]).expect_err("a circle");
        assert!(matches!(circle, BuildGraphError::Circle { .. }));
        let mut wrong = derivation(1, &[0]);
        wrong.inputs[0].outputs = vec!["dev".into()];
        let unknown = BuildGraph::new(vec![derivation(0, &[]), wrong]).expect_err("no such output");
        assert!(matches!(unknown, BuildGraphError::UnknownOutput { output, .. } if output == "dev"));
    }
}
