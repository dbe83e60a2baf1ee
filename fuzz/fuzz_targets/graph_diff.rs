//! Any bytes as two graphs of derivations, made as Nix makes them, the second of them by a few edits of the first: no panic, neither in
//! comparing them nor in telling it; a graph does not differ from itself; the texts give the same as what was read of them; and nothing
//! is rebuilt without a reason.
#![no_main]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

use cache_helper::graph::diff::{Change, Comparison, Difference, Differences, Pair, Says, Side};
use cache_helper::graph::{BuildGraph, BuildGraphBuilder, Contents, DerivationIndex, DerivationKind};
use cache_helper::jobs::diff::{
    ChangeReport, DiffReport, DifferenceReport, FileChange, FileStatus, Node, SideReport, UnreadPair,
};
use cache_helper::report;
use cache_helper::ui::{ColorMode, Printer};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use nix_derivation::{HashAlgorithm, StoreDir, StorePath, hash_bytes, nixbase32};

const NAMES: [&str; 8] = ["a", "b", "lib-1.0", "lib-1.1", "lib-2", "source", "python3.10-x", "python3.11-x"];
const OUTPUTS: [&[&str]; 5] = [&["out"], &["dev", "out"], &["dev"], &["doc", "out"], &["out"]];
const VARIABLES: [&str; 8] = ["name", "flags", "src", "inputs", "system", "builder", "outputs", "a.b"];
const WORDS: [&str; 12] = [
    "",
    " ",
    "-O2",
    "-O3",
    "\n",
    "/",
    "/nix/store/",
    "[-",
    "\u{1b}[31m",
    "\u{fc}",
    "'",
    "00000000000000000000000000000001-a",
];
const JSON: [&str; 6] = [
    "{",
    "{}",
    r#"{"a":1}"#,
    r#"{"a":"1","b":{"c":["x","y"]}}"#,
    r#"{"a.b":"1","a":{"b":[{}]}}"#,
    r#"{"outputs":["out"],"out":"x"}"#,
];
/// The most derivations of a graph, and the most edits between two.
const MOST: usize = 8;
const EDITS: usize = 3;

fuzz_target!(|data: &[u8]| {
    // Where the bytes end, everything is the first of its kind; there is nothing that cannot be made.
    let _ = try_all(&mut Unstructured::new(data));
});

fn try_all(bytes: &mut Unstructured<'_>) -> Result<()> {
    let number = bytes.int_in_range(1..=MOST)?;
    let old: Vec<Model> = (0..number).map(|_| Model::any(bytes)).collect::<Result<_>>()?;
    let mut new = old.clone();
    for _ in 0..bytes.int_in_range(0..=EDITS)? {
        let place = bytes.choose_index(new.len())?;
        match bytes.int_in_range(0..=4u8)? {
            0 => new[place] = Model::any(bytes)?,
            1 => new[place].variables.push(any_variable(bytes)?),
            2 => new[place].name = bytes.choose(&NAMES)?,
            3 => new.insert(place, Model::any(bytes)?),
            _ if new.len() > 1 => drop(new.remove(place)),
            _ => {}
        }
    }
    let (Some(old), Some(new)) = (Made::of(&old, bytes)?, Made::of(&new, bytes)?) else { return Ok(()) };
    for (one, other) in [(&old, &old), (&new, &new), (&old, &new), (&new, &old)] {
        let found = compare(one, other, |made, path| made.texts.get(path).map(|text| Says::Text(text)));
        check(one, other, &found);
        // A damaged file may write a text as Nix never does.
        if [one, other].iter().all(|made| made.is_whole && made.contents.len() == made.texts.len()) {
            let read = compare(one, other, |made, path| made.contents.get(path).map(Says::Contents));
            assert_eq!(found, read);
        }
        tell(one, other, &found, bytes)?;
    }
    Ok(())
}

/// A piece of a text.
#[derive(Clone, Debug)]
enum Piece {
    Word(&'static str),
    Bytes(Vec<u8>),
    /// Where an input, or the derivation itself, will be.
    Input(usize),
    Own,
}

/// A derivation to be.
#[derive(Clone, Debug)]
struct Model {
    name: &'static str,
    /// Input-addressed (0), fixed, floating or impure (3). Deferred it is by its inputs alone.
    kind: u8,
    outputs: &'static [&'static str],
    /// By how much earlier they are, with which output is needed, and whether that is a derivation of which `out` is needed.
    inputs: Vec<(usize, usize, bool)>,
    sources: Vec<(&'static str, u8)>,
    args: Vec<Vec<Piece>>,
    variables: Vec<(&'static str, Vec<Piece>)>,
    json: Option<&'static str>,
    /// A byte of the file that is another: where it is, and what it is.
    damage: Option<(u16, u8)>,
}

fn any_text(bytes: &mut Unstructured<'_>) -> Result<Vec<Piece>> {
    let number = bytes.int_in_range(0..=4usize)?;
    let piece = |bytes: &mut Unstructured<'_>| {
        Ok(match bytes.int_in_range(0..=3u8)? {
            0 => Piece::Word(bytes.choose(&WORDS)?),
            1 => Piece::Input(bytes.int_in_range(0..=3usize)?),
            2 => Piece::Own,
            _ => {
                let length = bytes.int_in_range(0..=6usize)?;
                Piece::Bytes(bytes.bytes(length)?.to_vec())
            }
        })
    };
    (0..number).map(|_| piece(bytes)).collect()
}

fn any_variable(bytes: &mut Unstructured<'_>) -> Result<(&'static str, Vec<Piece>)> {
    Ok((bytes.choose(&VARIABLES)?, any_text(bytes)?))
}

impl Model {
    fn any(bytes: &mut Unstructured<'_>) -> Result<Self> {
        let shape: [u8; 3] = bytes.arbitrary()?;
        let some = |number: u8| 0..usize::from(number % 4);
        Ok(Self {
            name: bytes.choose(&NAMES)?,
            // Most are of the usual kind.
            kind: if shape[0] < 128 { 0 } else { shape[0] % 4 },
            outputs: bytes.choose(&OUTPUTS)?,
            inputs: some(shape[1])
                .map(|_| {
                    Ok((bytes.int_in_range(0..=MOST)?, bytes.int_in_range(0..=1)?, bytes.ratio(1u8, 16u8)?))
                })
                .collect::<Result<_>>()?,
            sources: some(shape[1] / 4)
                .map(|_| Ok((*bytes.choose(&NAMES)?, bytes.int_in_range(0..=3u8)?)))
                .collect::<Result<_>>()?,
            args: some(shape[1] / 16).map(|_| any_text(bytes)).collect::<Result<_>>()?,
            variables: some(shape[1] / 64).map(|_| any_variable(bytes)).collect::<Result<_>>()?,
            json: if shape[2] > 200 { Some(bytes.choose(&JSON)?) } else { None },
            damage: if shape[2] < 4 { Some(bytes.arbitrary()?) } else { None },
        })
    }
}

/// A graph with what its members say.
struct Made {
    graph: BuildGraph,
    texts: HashMap<StorePath, Vec<u8>>,
    /// Of those whose texts can be read.
    contents: HashMap<StorePath, Contents>,
    roots: Vec<DerivationIndex>,
    /// Whether all is as it was made, so that each path follows from what makes it.
    is_whole: bool,
}

/// What is known of a derivation that was made.
struct Known {
    drv: StorePath,
    name: &'static str,
    outputs: Vec<(&'static str, Option<StorePath>)>,
    /// What stands for it where the paths of what needs it come from.
    modulo: String,
}

impl Known {
    /// How an output is written in what needs it.
    fn text(&self, output: usize, dir: &StoreDir) -> String {
        let (name, path) = &self.outputs[output];
        match path {
            Some(path) => dir.render_path(path),
            None => format!("/{}", base_32(&self.upstream(name))),
        }
    }

    fn upstream(&self, output: &str) -> [u8; 32] {
        let hash = self.drv.to_basename()[..32].to_owned();
        sha256(format!("nix-upstream-output:{hash}:{}", output_name(self.name, output)).as_bytes())
    }

    /// What stands for `out` of the derivation that an output is.
    fn dynamic(&self, output: usize) -> String {
        let mut folded = [0u8; 20];
        for (place, byte) in self.upstream(self.outputs[output].0).iter().enumerate() {
            folded[place % 20] ^= byte;
        }
        let text = format!("nix-computed-output:{}:out", nixbase32::encode(&folded));
        format!("/{}", base_32(&sha256(text.as_bytes())))
    }
}

fn sha256(text: &[u8]) -> [u8; 32] {
    hash_bytes(HashAlgorithm::Sha256, text).digest_as_bytes().try_into().expect("32 bytes")
}

fn base_32(hash: &[u8; 32]) -> String {
    nixbase32::encode(hash)
}

fn output_name(name: &str, output: &str) -> String {
    if output == "out" { name.to_owned() } else { format!("{name}-{output}") }
}

fn path(text: &[u8], name: &str) -> StorePath {
    let digest = *sha256(text).first_chunk().expect("32 bytes");
    StorePath::from_parts(digest, name).expect("a path")
}

fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut text = vec![b'"'];
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            other => text.push(*other),
        }
    }
    text.push(b'"');
    text
}

fn list(items: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let items: Vec<Vec<u8>> = items.into_iter().collect();
    [b"[".as_slice(), &items.join(b",".as_slice()), b"]"].concat()
}

fn tuple(items: &[&[u8]]) -> Vec<u8> {
    let items: Vec<Vec<u8>> = items.iter().map(|item| quoted(item)).collect();
    [b"(".as_slice(), &items.join(b",".as_slice()), b")"].concat()
}

/// A derivation and the text of its file.
fn derivation(model: &Model, earlier: &[Known], dir: &StoreDir) -> (Known, Vec<u8>) {
    let inputs: Vec<(&Known, usize, bool)> = model
        .inputs
        .iter()
        .filter(|_| !earlier.is_empty())
        .map(|(before, output, is_dynamic)| {
            let input = &earlier[earlier.len() - 1 - before % earlier.len()];
            (input, output % input.outputs.len(), *is_dynamic)
        })
        .collect();
    let is_late = |(input, _, is_dynamic): &(&Known, _, bool)| *is_dynamic || input.outputs[0].1.is_none();
    let kind = match model.kind {
        0 if inputs.iter().any(is_late) => 4,
        kind => kind,
    };
    let outputs: &[&str] = if kind == 1 { &["out"] } else { model.outputs };
    let sources: BTreeSet<String> =
        model.sources.iter().map(|(name, content)| dir.render_path(&path(&[*content], name))).collect();
    let texts: Vec<String> = inputs
        .iter()
        .map(
            |(input, output, is_dynamic)| {
                if *is_dynamic { input.dynamic(*output) } else { input.text(*output, dir) }
            },
        )
        .chain(sources.iter().cloned())
        .collect();
    let says = |pieces: &[Piece], own: &str| {
        pieces.iter().fold(Vec::new(), |mut text: Vec<u8>, piece| {
            match piece {
                Piece::Word(word) => text.extend(word.as_bytes()),
                Piece::Bytes(bytes) => text.extend(bytes),
                Piece::Input(place) => text.extend(texts.get(*place).map_or(own, |text| text).as_bytes()),
                Piece::Own => text.extend(own.as_bytes()),
            }
            text
        })
    };
    // An argument is UTF-8, or the file is none.
    let args = |own: &str| {
        list(model.args.iter().map(|arg| quoted(String::from_utf8_lossy(&says(arg, own)).as_bytes())))
    };
    let env = |paths: &[String]| {
        let own = paths.first().map_or("", String::as_str);
        let mut env: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        env.insert("name", model.name.into());
        env.insert("inputs", texts.join(" ").into());
        env.extend(model.variables.iter().map(|(name, text)| (*name, says(text, own))));
        env.extend(model.json.map(|json| ("__json", json.into())));
        env.extend(outputs.iter().zip(paths).map(|(output, path)| (*output, path.clone().into())));
        list(env.iter().map(|(name, value)| tuple(&[name.as_bytes(), value])))
    };
    let mut wanted: BTreeMap<String, (&Known, BTreeSet<usize>, BTreeSet<usize>)> = BTreeMap::new();
    for (input, output, is_dynamic) in &inputs {
        let entry =
            wanted.entry(dir.render_path(&input.drv)).or_insert((*input, BTreeSet::new(), BTreeSet::new()));
        if *is_dynamic {
            entry.2.insert(*output)
        } else {
            entry.1.insert(*output)
        };
    }
    let names = |known: &Known, all: &BTreeSet<usize>| {
        let names: BTreeSet<&str> = all.iter().map(|output| known.outputs[*output].0).collect();
        list(names.into_iter().map(|name| quoted(name.as_bytes())))
    };
    let is_dynamic = wanted.values().any(|(_, _, dynamic)| !dynamic.is_empty());
    let input_list = list(wanted.iter().map(|(drv, (known, direct, dynamic))| {
        let direct = names(known, direct);
        let node = if dynamic.is_empty() {
            direct
        } else {
            let ways: BTreeSet<&str> = dynamic.iter().map(|output| known.outputs[*output].0).collect();
            let ways = ways
                .into_iter()
                .map(|way| [b"(".as_slice(), &quoted(way.as_bytes()), b",[\"out\"])"].concat());
            [b"(".as_slice(), &direct, b",", &list(ways), b")"].concat()
        };
        [b"(".as_slice(), &quoted(drv.as_bytes()), b",", &node, b")"].concat()
    }));
    // The inputs by what they make, as Nix does it: what makes the same makes no difference.
    let sources_text = list(sources.iter().map(|source| quoted(source.as_bytes())));
    let empty = vec![String::new(); outputs.len()];
    let modulo_inputs: BTreeSet<String> = wanted
        .values()
        .map(|(known, direct, dynamic)| format!("{} {direct:?} {dynamic:?}", known.modulo))
        .collect();
    let rest = [
        sources_text.clone(),
        args(""),
        env(&empty),
        format!("{kind} {outputs:?} {modulo_inputs:?}").into_bytes(),
    ]
    .concat();
    let (modulo, made): (String, Vec<(&'static str, Option<StorePath>)>) = match kind {
        0 => {
            let paths = outputs.iter().map(|output| {
                let text = [&rest, output.as_bytes(), model.name.as_bytes()].concat();
                (*output, Some(path(&text, &output_name(model.name, output))))
            });
            (base_32(&sha256(&rest)), paths.map(|(output, path)| (known_name(output), path)).collect())
        }
        1 => {
            let content = [model.sources.len() as u8, 1];
            let path = path(&content, model.name);
            (path.to_basename(), vec![("out", Some(path))])
        }
        _ => (base_32(&sha256(&rest)), outputs.iter().map(|output| (known_name(output), None)).collect()),
    };
    let paths: Vec<String> = made
        .iter()
        .map(|(_, path)| path.as_ref().map_or_else(String::new, |path| dir.render_path(path)))
        .collect();
    let output_list = list(made.iter().zip(&paths).map(|((name, _), path)| {
        let (algorithm, hash): (&str, &str) = match kind {
            1 => ("sha256", "abababababababababababababababababababababababababababababababab"),
            2 => ("r:sha256", ""),
            3 => ("r:sha256", "impure"),
            _ => ("", ""),
        };
        tuple(&[name.as_bytes(), path.as_bytes(), algorithm.as_bytes(), hash.as_bytes()])
    }));
    let head: &[u8] = if is_dynamic { b"DrvWithVersion(\"xp-dyn-drv\"," } else { b"Derive(" };
    let own = paths[0].clone();
    let parts = [
        output_list,
        input_list,
        sources_text,
        quoted(b"x86_64-linux"),
        quoted(b"/bin/sh"),
        args(&own),
        env(&paths),
    ];
    let text = [head, &parts.join(b",".as_slice()), b")"].concat();
    let drv = path(&text, &format!("{}.drv", model.name));
    (Known { drv, name: model.name, outputs: made, modulo }, text)
}

fn known_name(output: &str) -> &'static str {
    ["dev", "doc", "out"].into_iter().find(|known| *known == output).expect("one of these")
}

impl Made {
    /// The graph; nothing where damage makes it none.
    fn of(models: &[Model], bytes: &mut Unstructured<'_>) -> Result<Option<Self>> {
        let dir = StoreDir::default();
        let mut earlier: Vec<Known> = Vec::new();
        let (mut builder, mut seen) = (BuildGraphBuilder::default(), HashSet::new());
        let (mut texts, mut contents, mut met, mut is_whole) =
            (HashMap::new(), HashMap::new(), Vec::new(), true);
        for model in models {
            let (known, mut text) = derivation(model, &earlier, &dir);
            let drv = known.drv.clone();
            if seen.insert(drv.clone()) {
                if let Some((place, byte)) = model.damage {
                    let place = usize::from(place) % text.len();
                    is_whole &= std::mem::replace(&mut text[place], byte) == byte;
                }
                if builder.add_text(&drv, &text, &dir, |input| met.push(input)).is_err() {
                    assert!(!is_whole, "{}", text.escape_ascii());
                    builder.add_unread(&drv);
                }
                let read = Contents::parse(&text, known.name, &dir);
                contents.extend(read.ok().map(|read| (drv.clone(), read)));
                texts.insert(drv, text);
            }
            earlier.push(known);
        }
        for input in met {
            if seen.insert(input.clone()) {
                builder.add_unread(&input);
            }
        }
        let Ok(graph) = builder.finish() else {
            assert!(!is_whole);
            return Ok(None);
        };
        let number = bytes.int_in_range(1..=2usize)?;
        let mut roots: Vec<DerivationIndex> = Vec::new();
        for known in earlier.iter().rev().take(number) {
            let root = graph.find(&known.drv).expect("a member");
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        Ok(Some(Self { graph, texts, contents, roots, is_whole }))
    }

    /// What it is made of, for whoever has to find out what is wrong with it.
    fn files(&self) -> String {
        let members = self.graph.indices().map(|index| self.graph.derivation(index).path());
        let text = |path: StorePath| format!("{path}: {}\n", self.texts[&path].escape_ascii());
        members.map(text).collect()
    }

    fn side(&self) -> Side<'_> {
        Side { graph: &self.graph, roots: &self.roots }
    }
}

fn compare<'a>(
    old: &'a Made,
    new: &'a Made,
    says: impl Fn(&'a Made, &StorePath) -> Option<Says<'a>>,
) -> Differences {
    let dir = StoreDir::default();
    let mut comparison = Comparison::new(old.side(), new.side(), &dir);
    let mut wanted_before = HashSet::new();
    loop {
        let wanted = comparison.wanted(3);
        if wanted.is_empty() {
            return comparison.finish();
        }
        for pair in wanted {
            assert!(wanted_before.insert(pair), "wanted twice");
            let said = |made: &'a Made, index| says(made, &made.graph.derivation(index).path());
            let both = said(old, pair.old).zip(said(new, pair.new));
            let compared = both.and_then(|(old, new)| comparison.compare(pair, &old, &new).ok());
            comparison.take(pair, compared);
        }
    }
}

/// What is true of every comparison.
fn check(old: &Made, new: &Made, found: &Differences) {
    if std::ptr::eq(old, new) {
        assert_eq!(*found, Differences::default());
    }
    assert!(found.rebuilds <= new.graph.len());
    let mut pairs = HashSet::new();
    for Difference { pair, changes, rebuilds } in &found.found {
        assert!(!changes.is_empty() && *rebuilds <= found.rebuilds);
        assert!(pairs.insert(*pair), "found twice");
    }
    assert!(found.unread.iter().all(|pair| pairs.insert(*pair)), "found and not read");
    assert!(found.found.is_sorted_by_key(|difference| std::cmp::Reverse(difference.rebuilds)));
    assert!(found.removed.iter().all(|root| old.roots.contains(root)));
    assert!(found.added.iter().all(|root| new.roots.contains(root)));
    assert_eq!(old.roots.len() - found.removed.len(), new.roots.len() - found.added.len());
    let is_impure = |made: &Made| {
        made.graph.indices().any(|index| made.graph.derivation(index).kind() == DerivationKind::Impure)
    };
    if old.is_whole && new.is_whole && found.unread.is_empty() && !is_impure(new) {
        check_reasons(old, new, found);
    }
}

/// What is rebuilt goes back to something that is named.
fn check_reasons(old: &Made, new: &Made, found: &Differences) {
    let graph = &new.graph;
    let mut explained: HashSet<DerivationIndex> = graph.all_dependencies(&found.added).into_iter().collect();
    for difference in &found.found {
        explained.extend(graph.all_dependents(&[difference.pair.new]));
        for change in &difference.changes {
            if let Change::InputAdded { input, .. } = change {
                explained.extend(graph.all_dependencies(&[*input]));
            }
        }
    }
    let is_kept = |index: &DerivationIndex| {
        let view = graph.derivation(*index);
        let is_made = |path: Option<StorePath>| path.is_some_and(|path| old.graph.maker(&path).is_some());
        old.graph.find(&view.path()).is_some() || view.outputs().all(|output| is_made(output.path()))
    };
    let files = || format!("old:\n{}new:\n{}", old.files(), new.files());
    let (mut open, mut seen, mut late) = (new.roots.clone(), HashSet::new(), 0);
    while let Some(index) = open.pop() {
        if !is_kept(&index) && seen.insert(index) {
            // Its path shows only after building, and may be the same.
            let view = graph.derivation(index);
            let is_late = view.outputs().all(|output| output.path().is_none());
            late += usize::from(is_late);
            assert!(
                is_late || explained.contains(&index),
                "{} is rebuilt for no reason\n{}",
                view.name(),
                files()
            );
            open.extend(graph.dependencies(index));
        }
    }
    let bounds = seen.len() - late..=seen.len();
    assert!(bounds.contains(&found.rebuilds), "{} rebuilds, and not {bounds:?}\n{}", found.rebuilds, files());
    assert!(found.rebuilds == 0 || !found.found.is_empty() || !found.added.is_empty(), "why?\n{}", files());
}

/// The report, as it is told: nothing in it commands a terminal, and every change is to be seen.
fn tell(old: &Made, new: &Made, found: &Differences, bytes: &mut Unstructured<'_>) -> Result<()> {
    let report = described(old, new, found, bytes)?;
    let told = report::diff::human(&report, Printer::new(ColorMode::Never).out());
    assert!(!told.contains(|c: char| c.is_control() && c != '\n'), "{told:?}");
    let marks = ["[-", "{+", "(differs in ", ": line ends "];
    for change in report.differences.iter().flat_map(|difference| &difference.changes) {
        if let ChangeReport::Variable { name, old: Some(_), new: Some(_) } = change
            // The title may tell it.
            && name != "name"
        {
            let line = told.lines().find(|line| line.starts_with(&format!("  {name}: ")));
            assert!(line.is_some_and(|line| marks.iter().any(|mark| line.contains(mark))), "{name}: {told}");
        }
    }
    Ok(())
}

fn described(
    old: &Made,
    new: &Made,
    found: &Differences,
    bytes: &mut Unstructured<'_>,
) -> Result<DiffReport> {
    let dir = StoreDir::default();
    let node = |made: &Made, index: DerivationIndex| {
        let view = made.graph.derivation(index);
        Node { drv: dir.render_path(&view.path()), name: view.name().to_owned() }
    };
    let side = |made: &Made| SideReport {
        revision: None,
        installable: String::new(),
        drvs: made.roots.iter().map(|root| node(made, *root).drv).collect(),
        derivations: made.graph.len(),
    };
    let (mut file, mut lines) = (String::new(), Vec::new());
    for _ in 0..bytes.int_in_range(0..=2u8)? {
        let length = bytes.int_in_range(0..=8usize)?;
        let line = String::from_utf8_lossy(bytes.bytes(length)?).into_owned();
        let _ = write!(file, "{line}");
        lines.push(line);
    }
    let files = vec![FileChange { file, status: FileStatus::Changed, link: None, executable: None, lines }];
    let change = |change: &Change| match change.clone() {
        Change::System { old, new } => ChangeReport::System { old, new },
        Change::Name { old, new } => ChangeReport::Name { old, new },
        Change::Kind { old, new } => ChangeReport::Kind { old, new },
        Change::Content { old, new } => {
            ChangeReport::Content { old: dir.render_path(&old), new: dir.render_path(&new) }
        }
        Change::Builder { old, new } => ChangeReport::Builder { old, new },
        Change::Arguments { old, new } => ChangeReport::Arguments { old, new },
        Change::Variable { name, old, new } => ChangeReport::Variable { name, old, new },
        Change::Outputs { old, new } => ChangeReport::Outputs { old, new },
        Change::Source { name, old, new } => {
            let shown = |path: Option<StorePath>| path.map(|path| dir.render_path(&path));
            ChangeReport::Source { name, old: shown(old), new: shown(new), files: Some(files.clone()) }
        }
        Change::InputAdded { input, outputs } => {
            ChangeReport::InputAdded { input: node(new, input), outputs }
        }
        Change::InputRemoved { input, outputs } => {
            ChangeReport::InputRemoved { input: node(old, input), outputs }
        }
        Change::InputOutputs { pair, old, new: now } => {
            ChangeReport::InputOutputs { input: node(new, pair.new), old, new: now }
        }
    };
    let unread =
        |pair: &Pair| UnreadPair { old: node(old, pair.old), new: node(new, pair.new), error: "cut".into() };
    Ok(DiffReport {
        old: side(old),
        new: side(new),
        differences: found
            .found
            .iter()
            .map(|difference| DifferenceReport {
                old: node(old, difference.pair.old),
                new: node(new, difference.pair.new),
                changes: difference.changes.iter().map(change).collect(),
                rebuilds: difference.rebuilds,
            })
            .collect(),
        rebuilds: found.rebuilds,
        removed: found.removed.iter().map(|index| node(old, *index)).collect(),
        added: found.added.iter().map(|index| node(new, *index)).collect(),
        unread: found.unread.iter().map(unread).collect(),
    })
}
