//! What became of a comparison, as values: the report renders them, and `--json` is them.

use std::path::Path;

use nix_derivation::StorePath;
use serde::Serialize;

use super::patience::Patience;
use super::side::LoadedSide;
use super::trees;
use crate::graph::diff::{Change, Differences, Pair};
use crate::graph::{DerivationIndex, DerivationKind};

/// A derivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its `.drv` path.
    pub drv: String,
    /// Its name, without the suffix.
    pub name: String,
}

/// One of the two that were compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SideReport {
    /// How it was named.
    pub installable: String,
    /// The derivations that it stands for.
    pub drvs: Vec<String>,
    /// The revision of the flake that it is in, where there is one.
    pub revision: Option<String>,
    /// How many derivations these are built from, themselves included.
    pub derivations: usize,
}

/// A file of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its name in the source; empty where the source is a single file.
    pub file: String,
    /// What became of it.
    pub status: FileStatus,
    /// Where it leads, where one of the two is a link and not both are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkChange>,
    /// Whether it can be run now, where that has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<bool>,
    /// The lines that went (`-`) and came (`+`), the first few of a text that is not too long. `\ no newline at the end` stands
    /// after one that does not end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// Where a link leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkChange {
    /// Before; nothing where there was none.
    pub old: Option<String>,
    /// Now; nothing where it is none.
    pub new: Option<String>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FileStatus {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

/// Something of a derivation that has changed, and not only because an input has. In what was before, the new inputs stand in
/// place of the old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ChangeReport {
    /// The system that it is built on.
    System {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// Its name, where no variable tells it.
    Name {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// How its outputs are addressed.
    Kind {
        /// Before.
        old: DerivationKind,
        /// Now.
        new: DerivationKind,
    },
    /// The content of a download, where nothing else tells that it is another.
    Content {
        /// Its path before.
        old: String,
        /// Its path now.
        new: String,
    },
    /// The program that builds it.
    Builder {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// The program's arguments.
    Arguments {
        /// Before.
        old: Vec<String>,
        /// Now.
        new: Vec<String>,
    },
    /// A variable, or a structured attribute.
    Variable {
        /// Its name.
        name: String,
        /// Before; nothing where there was none.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
    /// The names of its outputs.
    Outputs {
        /// Before.
        old: Vec<String>,
        /// Now.
        new: Vec<String>,
    },
    /// A source.
    Source {
        /// Its name.
        name: String,
        /// Its path before.
        old: Option<String>,
        /// Its path now.
        new: Option<String>,
        /// The files that differ; nothing where not both are in the store.
        files: Option<Vec<FileChange>>,
    },
    /// An input that it has got.
    InputAdded {
        /// The input.
        #[serde(flatten)]
        input: Node,
        /// The outputs that are needed.
        outputs: Vec<String>,
    },
    /// An input that it has lost.
    InputRemoved {
        /// The input.
        #[serde(flatten)]
        input: Node,
        /// The outputs that were needed.
        outputs: Vec<String>,
    },
    /// Other outputs of an input are needed.
    InputOutputs {
        /// The input.
        #[serde(flatten)]
        input: Node,
        /// The outputs that were needed.
        old: Vec<String>,
        /// Those that are.
        new: Vec<String>,
    },
}

/// A derivation that differs by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DifferenceReport {
    /// What was before.
    pub old: Node,
    /// What is in its place now.
    pub new: Node,
    /// What differs.
    pub changes: Vec<ChangeReport>,
    /// How many derivations are rebuilt because of it, itself included.
    pub rebuilds: usize,
}

/// Two derivations of which one could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadPair {
    /// What was before.
    pub old: Node,
    /// What is in its place now.
    pub new: Node,
    /// Why.
    pub error: String,
}

/// What became of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiffReport {
    /// What was before.
    pub old: SideReport,
    /// What is now.
    pub new: SideReport,
    /// What differs by itself, the ones first that rebuild the most.
    pub differences: Vec<DifferenceReport>,
    /// How many derivations of the new side are rebuilt.
    pub rebuilds: usize,
    /// What was named of the old side and has no partner.
    pub removed: Vec<Node>,
    /// What was named of the new side and has none.
    pub added: Vec<Node>,
    /// What could not be read.
    pub unread: Vec<UnreadPair>,
}

impl DiffReport {
    /// Whether both are the same, as far as it is known.
    pub fn is_same(&self) -> bool {
        self.differences.is_empty()
            && self.rebuilds == 0
            && self.removed.is_empty()
            && self.added.is_empty()
            && self.unread.is_empty()
    }
}

/// Turns numbers into what they stand for.
pub(super) struct Describe<'a> {
    pub(super) old: &'a LoadedSide,
    pub(super) new: &'a LoadedSide,
    pub(super) patience: Patience,
}

impl Describe<'_> {
    /// The report. Reads sources that differ, and blocks.
    pub(super) fn report(&self, differences: &Differences, errors: &[(Pair, String)]) -> DiffReport {
        let (old, new) = (
            |index: &DerivationIndex| node(self.old, *index),
            |index: &DerivationIndex| node(self.new, *index),
        );
        DiffReport {
            old: side(self.old),
            new: side(self.new),
            differences: differences
                .found
                .iter()
                .map(|difference| DifferenceReport {
                    old: old(&difference.pair.old),
                    new: new(&difference.pair.new),
                    changes: difference.changes.iter().map(|change| self.change(change)).collect(),
                    rebuilds: difference.rebuilds,
                })
                .collect(),
            rebuilds: differences.rebuilds,
            removed: differences.removed.iter().map(old).collect(),
            added: differences.added.iter().map(new).collect(),
            unread: errors
                .iter()
                .map(|(pair, error)| UnreadPair {
                    old: old(&pair.old),
                    new: new(&pair.new),
                    error: error.clone(),
                })
                .collect(),
        }
    }

    fn change(&self, change: &Change) -> ChangeReport {
        match change.clone() {
            Change::System { old, new } => ChangeReport::System { old, new },
            Change::Name { old, new } => ChangeReport::Name { old, new },
            Change::Kind { old, new } => ChangeReport::Kind { old, new },
            Change::Content { old, new } => {
                let shown = |path| self.new.store_dir.render_path(path);
                ChangeReport::Content { old: shown(&old), new: shown(&new) }
            }
            Change::Builder { old, new } => ChangeReport::Builder { old, new },
            Change::Arguments { old, new } => ChangeReport::Arguments { old, new },
            Change::Variable { name, old, new } => ChangeReport::Variable { name, old, new },
            Change::Outputs { old, new } => ChangeReport::Outputs { old, new },
            Change::Source { name, old, new } => {
                let files = old.as_ref().zip(new.as_ref()).and_then(|(old, new)| self.files(old, new));
                let shown = |path: Option<StorePath>| path.map(|path| self.new.store_dir.render_path(&path));
                ChangeReport::Source { name, old: shown(old), new: shown(new), files }
            }
            Change::InputAdded { input, outputs } => {
                ChangeReport::InputAdded { input: node(self.new, input), outputs }
            }
            Change::InputRemoved { input, outputs } => {
                ChangeReport::InputRemoved { input: node(self.old, input), outputs }
            }
            Change::InputOutputs { pair, old, new } => {
                ChangeReport::InputOutputs { input: node(self.new, pair.new), old, new }
            }
        }
    }

    fn files(&self, old: &StorePath, new: &StorePath) -> Option<Vec<FileChange>> {
        // A saved graph has no sources; they may be where the other's are, or a store may be here that has them.
        let real_path = |side: &LoadedSide, other: &LoadedSide, path: &StorePath| {
            let known = side.real_path(path).or_else(|| other.real_path(path));
            known.unwrap_or_else(|| Path::new(side.store_dir.as_str()).join(path.to_basename()))
        };
        let (old, new) = (real_path(self.old, self.new, old), real_path(self.new, self.old, new));
        trees::changes(&old, &new, &self.patience)
    }
}

fn side(loaded: &LoadedSide) -> SideReport {
    SideReport {
        installable: String::new(),
        drvs: loaded.roots.iter().map(|root| node(loaded, *root).drv).collect(),
        revision: loaded.revision.clone(),
        derivations: loaded.graph.len(),
    }
}

fn node(side: &LoadedSide, index: DerivationIndex) -> Node {
    let derivation = side.graph.derivation(index);
    Node { drv: side.store_dir.render_path(&derivation.path()), name: derivation.name().to_owned() }
}
