//! Making a build graph: derivations are added in any order, by several threads each with a builder of its own.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use nix_derivation::{StoreDir, StorePath};

use super::aterm::{Scan, Span, is_output_name};
use super::build_graph::{BuildGraph, BuildGraphError, DerivationIndex, MemberOutput};
use super::derivation::{Derivation, DerivationKind, Input};
use super::edges::{Edges, Index as _};
use super::lists::Lists;
use super::path_table::{HASH_LENGTH, PathNumber, PathTable};
use super::{ScanError, names::NameTable};
use crate::text::is_plain;

/// A member before the graph is linked. Its outputs, inputs and sources are the lists of the same number.
#[derive(Clone, Copy, Debug)]
struct Member {
    path: PathNumber,
    kind: DerivationKind,
    allows_substitutes: bool,
}

/// Derivations that are not linked yet.
#[derive(Debug, Default)]
pub struct BuildGraphBuilder {
    paths: PathTable,
    /// Paths by their hash part as it is written, so that only new ones are decoded.
    spelled: HashMap<[u8; HASH_LENGTH], PathNumber, RandomState>,
    names: NameTable,
    members: Vec<Member>,
    outputs: Lists<MemberOutput>,
    inputs: Lists<PathNumber>,
    /// Which outputs are wanted, a list an input.
    wanted: Lists<u32>,
    /// What is wanted of derivations that are outputs, by the number of the input.
    dynamic: Vec<(usize, String)>,
    sources: Lists<PathNumber>,
    /// The paths that were told of.
    met: Vec<bool>,
    scan: Scan,
    /// Room for looking for what is there twice.
    sorted: Vec<u32>,
}

/// Why the text of a `.drv` file is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DerivationTextError {
    /// It is no derivation.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Something in it should be a path, and is not.
    #[error("{0:?} is no store path of the store {1}")]
    Path(String, String),
    /// An output or an input has a name that none can have.
    #[error("{0:?} is no name of an output")]
    Name(String),
    /// It names an output or an input twice, which Nix never writes.
    #[error("it names {0:?} twice")]
    Twice(String),
}

/// The directory of the store that the paths in the text of a `.drv` file are of; nothing where it has none, or is no derivation.
pub fn store_dir_of(text: &[u8]) -> Option<StoreDir> {
    let mut scan = Scan::default();
    scan.read(text).ok()?;
    let outputs = scan.outputs.iter().map(|output| &output.path).filter(|path| !path.is_empty());
    let inputs = scan.inputs.iter().map(|input| &input.path);
    let first = outputs.chain(inputs).chain(&scan.sources).next()?;
    let path = std::str::from_utf8(&text[first.start as usize..first.end as usize]).ok()?;
    foreign_store_dir(path.rsplit_once('/')?.0)
}

/// The directory of a store that a file names. It stands before every path that is shown, so one that would steer a terminal is none.
pub(super) fn foreign_store_dir(text: &str) -> Option<StoreDir> {
    is_plain(text).then(|| StoreDir::new(text).ok()).flatten()
}

impl BuildGraphBuilder {
    /// Adds the derivation at `path`, of which `text` is the file. The paths of its inputs go to `found`, each when it is first met.
    ///
    /// # Errors
    ///
    /// When the text is no derivation; then nothing is added.
    pub fn add_text(
        &mut self,
        path: &StorePath,
        text: &[u8],
        store_dir: &StoreDir,
        mut found: impl FnMut(StorePath),
    ) -> Result<(), DerivationTextError> {
        let mut scan = std::mem::take(&mut self.scan);
        let (members, edges) = (self.members.len(), self.wanted.len());
        let added = scan
            .read(text)
            .map_err(DerivationTextError::from)
            .and_then(|()| self.add_scanned(path, text, &scan, store_dir));
        self.scan = scan;
        if let Err(error) = added {
            self.forget(members, edges);
            return Err(error);
        }
        self.met.resize(self.paths.len(), false);
        for input in self.inputs.get(members) {
            if !std::mem::replace(&mut self.met[input.position()], true) {
                found(self.paths.path(*input));
            }
        }
        Ok(())
    }

    /// Forgets all but the first so many members, with so many inputs in all, and what of another was begun.
    fn forget(&mut self, members: usize, edges: usize) {
        self.members.truncate(members);
        self.outputs.truncate(members);
        self.inputs.truncate(members);
        self.sources.truncate(members);
        self.wanted.truncate(edges);
        let kept = self.dynamic.partition_point(|(edge, _)| *edge < edges);
        self.dynamic.truncate(kept);
    }

    /// Whether the outputs and inputs of the last member are different ones, as Nix writes them.
    fn check_twice(&mut self) -> Result<(), DerivationTextError> {
        let member = self.inputs.len() - 1;
        let sorted = &mut self.sorted;
        let mut repeated = |numbers: &mut dyn Iterator<Item = u32>| {
            sorted.clear();
            sorted.extend(numbers);
            sorted.sort_unstable();
            sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
        };
        let mut name = repeated(&mut self.outputs.get(member).iter().map(|output| output.name));
        for edge in self.inputs.range(member) {
            name = name.or_else(|| repeated(&mut self.wanted.get(edge).iter().copied()));
        }
        if let Some(name) = name {
            return Err(DerivationTextError::Twice(self.names.get(name).to_owned()));
        }
        let inputs = self.inputs.get(member);
        match repeated(&mut inputs.iter().map(|input| input.number())) {
            None => Ok(()),
            twice => {
                let path = inputs.iter().find(|input| Some(input.number()) == twice);
                let path = path.map(|path| self.paths.path(*path).to_basename());
                Err(DerivationTextError::Twice(path.unwrap_or_default()))
            }
        }
    }

    /// Adds what was found in a text. Where that fails, some of it stays behind.
    fn add_scanned(
        &mut self,
        path: &StorePath,
        text: &[u8],
        scan: &Scan,
        store_dir: &StoreDir,
    ) -> Result<(), DerivationTextError> {
        let edges = self.wanted.len();
        for output in &scan.outputs {
            let name = self.name(text, &output.name)?;
            let is_known = !output.path.is_empty();
            let path = is_known.then(|| self.spelled(text, &output.path, store_dir)).transpose()?;
            self.outputs.push(MemberOutput { name, path });
        }
        for input in &scan.inputs {
            let number = self.spelled(text, &input.path, store_dir)?;
            self.inputs.push(number);
            for wanted in &scan.wanted[input.wanted.start as usize..input.wanted.end as usize] {
                let name = self.name(text, wanted)?;
                self.wanted.push(name);
            }
            self.wanted.end_list();
        }
        for source in &scan.sources {
            let number = self.spelled(text, source, store_dir)?;
            self.sources.push(number);
        }
        self.outputs.end_list();
        self.inputs.end_list();
        self.sources.end_list();
        self.dynamic.extend(scan.dynamic.iter().map(|(input, way)| (edges + *input as usize, way.clone())));
        let number = self.number(path);
        self.members.push(Member {
            path: number,
            // Without outputs it is of no kind at all; Nix makes none such.
            kind: scan.kind.unwrap_or(DerivationKind::InputAddressed),
            allows_substitutes: scan.allows_substitutes,
        });
        self.check_twice()
    }

    /// Adds a derivation that is known otherwise. What it names twice counts once.
    pub fn add(&mut self, derivation: &Derivation) {
        let mut seen: HashSet<u32, RandomState> = HashSet::default();
        for output in &derivation.outputs {
            let name = self.names.add(&output.name);
            if seen.insert(name) {
                let path = output.path.as_ref().map(|path| self.number(path));
                self.outputs.push(MemberOutput { name, path });
            }
        }
        self.outputs.end_list();
        let mut places: HashMap<PathNumber, usize, RandomState> = HashMap::default();
        let mut inputs: Vec<(PathNumber, Vec<&Input>)> = Vec::with_capacity(derivation.inputs.len());
        for input in &derivation.inputs {
            let number = self.number(&input.derivation);
            let place = *places.entry(number).or_insert(inputs.len());
            if place == inputs.len() {
                inputs.push((number, Vec::new()));
            }
            inputs[place].1.push(input);
        }
        for (number, parts) in inputs {
            let edge = self.wanted.len();
            self.inputs.push(number);
            seen.clear();
            for name in parts.iter().flat_map(|part| &part.outputs) {
                let name = self.names.add(name);
                if seen.insert(name) {
                    self.wanted.push(name);
                }
            }
            self.wanted.end_list();
            let ways = parts.iter().flat_map(|part| &part.dynamic);
            self.dynamic.extend(ways.map(|way| (edge, way.clone())));
        }
        self.inputs.end_list();
        for source in &derivation.sources {
            let number = self.number(source);
            self.sources.push(number);
        }
        self.sources.end_list();
        let (kind, allows_substitutes) = (derivation.kind, derivation.allows_substitutes);
        let path = self.number(&derivation.path);
        self.members.push(Member { path, kind, allows_substitutes });
    }

    /// Adds a derivation of which nothing is known but that it is there.
    pub fn add_unread(&mut self, path: &StorePath) {
        let path = self.number(path);
        self.members.push(Member { path, kind: DerivationKind::Unread, allows_substitutes: true });
        self.outputs.end_list();
        self.inputs.end_list();
        self.sources.end_list();
    }

    /// Takes over what another has.
    pub fn absorb(&mut self, other: &Self) {
        let theirs = other.paths.numbers();
        let numbers: Vec<PathNumber> = theirs
            .map(|theirs| self.paths.add(other.paths.digest(theirs), other.paths.name(theirs)))
            .collect();
        let path = |theirs: PathNumber| numbers[theirs.position()];
        let names: Vec<u32> = other.names.iter().map(|name| self.names.add(name)).collect();
        let edges = self.wanted.len();
        self.dynamic.extend(other.dynamic.iter().map(|(edge, way)| (edge + edges, way.clone())));
        for (number, member) in other.members.iter().enumerate() {
            self.members.push(Member { path: path(member.path), ..*member });
            self.outputs.push_list(other.outputs.get(number).iter().map(|output| MemberOutput {
                name: names[output.name as usize],
                path: output.path.map(path),
            }));
            self.inputs.push_list(other.inputs.get(number).iter().map(|input| path(*input)));
            self.sources.push_list(other.sources.get(number).iter().map(|source| path(*source)));
        }
        for edge in 0..other.wanted.len() {
            self.wanted.push_list(other.wanted.get(edge).iter().map(|name| names[*name as usize]));
        }
    }

    fn number(&mut self, path: &StorePath) -> PathNumber {
        self.paths.add(path.digest(), path.name())
    }

    /// The number of a path as it stands in a file.
    fn spelled(
        &mut self,
        text: &[u8],
        span: &Span,
        store_dir: &StoreDir,
    ) -> Result<PathNumber, DerivationTextError> {
        let bytes = &text[span.start as usize..span.end as usize];
        let no_path =
            || DerivationTextError::Path(String::from_utf8_lossy(bytes).into_owned(), store_dir.to_string());
        let base = bytes.strip_prefix(store_dir.as_str().as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
        let base = base.ok_or_else(no_path)?;
        let (hash, rest) = base.split_first_chunk::<HASH_LENGTH>().ok_or_else(no_path)?;
        if let Some(number) = self.spelled.get(hash) {
            let is_same = rest
                .split_first()
                .is_some_and(|(dash, name)| *dash == b'-' && name == self.paths.name(*number).as_bytes());
            if is_same {
                return Ok(*number);
            }
        }
        let path = StorePath::from_basename(base).map_err(|_| no_path())?;
        let number = self.number(&path);
        self.spelled.insert(*hash, number);
        Ok(number)
    }

    /// The number of the name of an output as it stands in a file.
    fn name(&mut self, text: &[u8], span: &Span) -> Result<u32, DerivationTextError> {
        let bytes = &text[span.start as usize..span.end as usize];
        let name = std::str::from_utf8(bytes).ok();
        if let Some(number) = name.and_then(|name| self.names.find(name)) {
            return Ok(number);
        }
        match name.filter(|name| is_output_name(name.as_bytes())) {
            Some(name) => Ok(self.names.add(name)),
            None => Err(DerivationTextError::Name(String::from_utf8_lossy(bytes).into_owned())),
        }
    }

    /// Links what was added. A path that was added twice counts once.
    ///
    /// # Errors
    ///
    /// When an input or a wanted output is missing, or derivations need each other.
    pub fn finish(mut self) -> Result<BuildGraph, BuildGraphError> {
        // By path, so that the graph does not depend on the order in which its members came.
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        let path = |number: usize| self.members[number].path;
        let key = |number: usize| (self.paths.digest(path(number)), self.paths.name(path(number)));
        order.sort_by(|one, other| key(*one).cmp(&key(*other)));
        order.dedup_by_key(|number| path(*number));
        let mut by_path: Vec<Option<DerivationIndex>> = vec![None; self.paths.len()];
        for (place, number) in order.iter().enumerate() {
            by_path[self.members[*number].path.position()] = Some(DerivationIndex::at(place));
        }
        let path_of = |member: &Member| self.paths.path(member.path);
        let inputs = Edges::try_collect(order.iter().map(|number| {
            let member = &self.members[*number];
            self.inputs.get(*number).iter().map(|input| {
                by_path[input.position()].ok_or_else(|| BuildGraphError::MissingInput {
                    derivation: path_of(member),
                    input: self.paths.path(*input),
                })
            })
        }))?;
        let sorted = inputs.topological_order().map_err(|circle: Vec<DerivationIndex>| {
            let path = |index: &DerivationIndex| path_of(&self.members[order[index.position()]]);
            BuildGraphError::Circle { derivations: circle.iter().map(path).collect() }
        })?;
        let place = Edges::places(&sorted);
        let inputs = inputs.renumbered(&sorted, &place);
        let order: Vec<usize> = sorted.iter().map(|old| order[old.position()]).collect();
        for index in by_path.iter_mut().flatten() {
            *index = place[index.position()];
        }
        let outputs = self.all_outputs(&order, &inputs);
        let (wanted, dynamic) = self.positions(&order, &inputs, &outputs)?;
        let mut makers = vec![None; self.paths.len()];
        for (position, _) in order.iter().enumerate() {
            for (number, output) in outputs.get(position).iter().enumerate() {
                if let Some(path) = output.path {
                    // Of several derivations with one output (a fixed output that is fetched in another way), the first.
                    let maker = &mut makers[path.position()];
                    *maker = maker.or(Some((DerivationIndex::at(position), number)));
                }
            }
        }
        let mut sources = Lists::with_capacity(order.len(), self.sources.items().len());
        for number in &order {
            sources.push_list(self.sources.get(*number).iter().copied());
        }
        let members = |member: fn(&Member) -> bool| {
            order.iter().map(|number| member(&self.members[*number])).collect::<Vec<bool>>()
        };
        let allows_substitutes = members(|member| member.allows_substitutes);
        let kinds = order.iter().map(|number| self.members[*number].kind).collect();
        let at = order.iter().map(|number| self.members[*number].path).collect();
        self.paths.shrink();
        Ok(BuildGraph {
            paths: self.paths,
            names: self.names,
            at,
            kinds,
            allows_substitutes,
            outputs,
            dependents: inputs.reversed(),
            inputs,
            wanted,
            dynamic,
            sources,
            by_path,
            makers,
        })
    }

    /// The outputs of each member in the final order. Of one that was not read, those that others want.
    fn all_outputs(&self, order: &[usize], inputs: &Edges<DerivationIndex>) -> Lists<MemberOutput> {
        let mut guessed: HashMap<DerivationIndex, Vec<u32>> = HashMap::new();
        for (position, number) in order.iter().enumerate() {
            let edges = self.inputs.range(*number);
            for (edge, input) in edges.zip(inputs.of(DerivationIndex::at(position))) {
                if self.members[order[input.position()]].kind == DerivationKind::Unread {
                    guessed.entry(*input).or_default().extend(self.wanted.get(edge));
                }
            }
        }
        let mut outputs = Lists::with_capacity(order.len(), self.outputs.items().len());
        for (position, number) in order.iter().enumerate() {
            match guessed.get_mut(&DerivationIndex::at(position)) {
                Some(names) => {
                    names.sort_by_key(|name| self.names.get(*name));
                    names.dedup();
                    outputs.push_list(names.iter().map(|name| MemberOutput { name: *name, path: None }));
                }
                None => outputs.push_list(self.outputs.get(*number).iter().copied()),
            }
        }
        outputs
    }

    /// The places of wanted outputs among those of their derivation, a list an edge of the final graph, and what is wanted of
    /// derivations that are outputs.
    #[expect(clippy::type_complexity, reason = "two lists by edge, once")]
    fn positions(
        &self,
        order: &[usize],
        inputs: &Edges<DerivationIndex>,
        outputs: &Lists<MemberOutput>,
    ) -> Result<(Lists<usize>, Vec<(usize, String)>), BuildGraphError> {
        let mut wanted = Lists::with_capacity(self.wanted.len(), self.wanted.items().len());
        let mut moved: HashMap<usize, usize> = HashMap::new();
        for (position, number) in order.iter().enumerate() {
            let edges = self.inputs.range(*number);
            for (edge, input) in edges.zip(inputs.of(DerivationIndex::at(position))) {
                let known = outputs.get(input.position());
                if !self.dynamic.is_empty() {
                    moved.insert(edge, wanted.len());
                }
                for name in self.wanted.get(edge) {
                    let place = known.iter().position(|output| output.name == *name);
                    wanted.push(place.ok_or_else(|| BuildGraphError::UnknownOutput {
                        derivation: self.paths.path(self.members[*number].path),
                        input: self.paths.path(self.members[order[input.position()]].path),
                        output: self.names.get(*name).to_owned(),
                    })?);
                }
                wanted.end_list();
            }
        }
        let mut dynamic: Vec<(usize, String)> =
            self.dynamic.iter().filter_map(|(edge, way)| Some((*moved.get(edge)?, way.clone()))).collect();
        dynamic.sort();
        wanted.shrink();
        Ok((wanted, dynamic))
    }
}

#[cfg(test)]
mod tests;
