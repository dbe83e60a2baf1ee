//! Reading a saved graph back, one derivation at a time: a document may be many times larger than the graph in it.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{BufReader, Read};

use nix_derivation::{StoreDir, StorePath};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::aterm::is_output_name;
use super::super::builder::{BuildGraphBuilder, foreign_store_dir};
use super::super::contents::Contents;
use super::super::derivation::{Derivation, DerivationKind, Input, Output};
use super::{Place, SCHEMA, SavedGraph, SavedGraphError, SavedInput, SavedOutput};

/// How much of a document is read at a time.
const PIECE: usize = 1 << 16;

impl SavedGraph {
    /// Reads a document back.
    ///
    /// # Errors
    ///
    /// When it is no saved graph, or its derivations are none.
    pub fn parse(text: &[u8]) -> Result<Self, SavedGraphError> {
        read(text, |contents, _| contents)
    }
}

impl SavedGraph<Place> {
    /// Reads a document back, and keeps of what derivations say only where it stands: [`contents_of`] reads it again.
    ///
    /// # Errors
    ///
    /// When it is no saved graph, its derivations are none, or it cannot be read.
    pub fn outline(document: impl Read) -> Result<Self, SavedGraphError> {
        read(document, |_, place| place)
    }
}

/// What a derivation says besides, given its text in a document; nothing where that is the text of something else by now.
pub fn contents_of(drv: &str, text: &[u8]) -> Option<Contents> {
    let named: Named = serde_json::from_slice(text).ok()?;
    if named.drv != drv {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// A reader that counts, in a cell because the parser keeps the reader to itself.
struct Counted<'a, R> {
    reader: BufReader<R>,
    bytes: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.bytes.set(self.bytes.get() + length as u64);
        Ok(length)
    }
}

fn read<C>(
    document: impl Read,
    keep: impl FnMut(Contents, Place) -> C,
) -> Result<SavedGraph<C>, SavedGraphError> {
    let bytes = Cell::new(0);
    let reader = Counted { reader: BufReader::with_capacity(PIECE, document), bytes: &bytes };
    let mut parser = serde_json::Deserializer::from_reader(reader);
    let mut reading = Reading {
        bytes: &bytes,
        keep,
        schema: None,
        store_dir: None,
        guessed_dir: None,
        revision: None,
        roots: None,
        derivations: None,
        error: None,
    };
    let outcome = parser.deserialize_map(&mut reading).and_then(|()| parser.end());
    match (reading.error.take(), outcome) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => reading.finish(),
    }
}

/// The derivations of a document, so far.
struct Taken<C> {
    builder: BuildGraphBuilder,
    contents: HashMap<StorePath, C>,
    met: HashSet<StorePath>,
}

/// A document that is being read.
struct Reading<'a, C, K> {
    /// How far it is read.
    bytes: &'a Cell<u64>,
    keep: K,
    schema: Option<String>,
    store_dir: Option<String>,
    /// The directory of the first derivation, where `storeDir` comes later.
    guessed_dir: Option<StoreDir>,
    revision: Option<String>,
    roots: Option<Vec<String>>,
    derivations: Option<Taken<C>>,
    /// Why it is refused, where the parser has no word for it.
    error: Option<SavedGraphError>,
}

/// The parts of a derivation that the graph is made of.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    drv: String,
    kind: DerivationKind,
    outputs: Vec<SavedOutput>,
    inputs: Vec<SavedInput>,
    sources: Vec<String>,
    allows_substitutes: bool,
    #[serde(default)]
    system: IsThere,
    #[serde(default)]
    builder: IsThere,
    #[serde(default)]
    args: IsThere,
    #[serde(default)]
    env: IsThere,
    #[serde(default)]
    structured_attrs: IsThere,
}

#[derive(Deserialize)]
struct Named {
    drv: String,
}

/// Whether a member is there, whatever it says.
#[derive(Clone, Copy, Default)]
struct IsThere(bool);

impl<'de> Deserialize<'de> for IsThere {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

impl Outline {
    /// Whether it says anything besides. Then it must say all: taken for the whole, what is missing would pass for what the derivation
    /// does not have.
    fn says(&self) -> bool {
        [self.system, self.builder, self.args, self.env, self.structured_attrs].iter().any(|member| member.0)
    }

    /// A name of an output, or a way to one, that is none.
    fn odd_name(&self) -> Option<&String> {
        let names = self.outputs.iter().map(|output| &output.name);
        let names = names.chain(self.inputs.iter().flat_map(|input| &input.outputs));
        let mut ways = self.inputs.iter().flat_map(|input| &input.dynamic);
        let mut odd = names.filter(|name| !is_output_name(name.as_bytes()));
        odd.next().or_else(|| ways.find(|way| !is_way(way)))
    }
}

/// Whether a text leads to what is needed of an output: names of outputs, of which all but the last are derivations.
fn is_way(text: &str) -> bool {
    text.contains('^') && text.split('^').all(|name| is_output_name(name.as_bytes()))
}

fn no_path(text: &str) -> SavedGraphError {
    SavedGraphError::Path(text.to_owned())
}

fn parse(store_dir: &StoreDir, text: &str) -> Result<StorePath, SavedGraphError> {
    store_dir.parse_path(text.as_bytes()).map_err(|_| no_path(text))
}

impl<C, K: FnMut(Contents, Place) -> C> Reading<'_, C, K> {
    /// The directory that paths are named by, as far as it is known when a derivation comes.
    fn store_dir(&mut self, drv: &str) -> Result<StoreDir, SavedGraphError> {
        if let Some(named) = &self.store_dir {
            return foreign_store_dir(named).ok_or_else(|| no_path(named));
        }
        if self.guessed_dir.is_none() {
            self.guessed_dir = drv.rsplit_once('/').and_then(|(dir, _)| foreign_store_dir(dir));
        }
        self.guessed_dir.clone().ok_or_else(|| no_path(drv))
    }

    /// Takes the next derivation.
    fn take(&mut self, text: &str) -> Result<(), SavedGraphError> {
        let outline: Outline = match serde_json::from_str(text) {
            Ok(outline) => outline,
            Err(source) => return Err(self.named(text, source)),
        };
        // Before anything else, so that no error names what is no path.
        let store_dir = self.store_dir(&outline.drv)?;
        let path = parse(&store_dir, &outline.drv)?;
        if !path.is_derivation() {
            return Err(no_path(&outline.drv));
        }
        if let Some(name) = outline.odd_name() {
            return Err(SavedGraphError::Name { name: name.clone(), drv: outline.drv });
        }
        let contents = match outline.says().then(|| serde_json::from_str::<Contents>(text)).transpose() {
            Ok(contents) => contents,
            Err(source) => return Err(SavedGraphError::Contents { drv: outline.drv, source }),
        };
        let place = Place { start: self.bytes.get() - text.len() as u64, length: text.len() };
        let kept = contents.map(|contents| (self.keep)(contents, place));
        let Some(taken) = &mut self.derivations else { return Ok(()) };
        if !taken.met.insert(path.clone()) {
            return Err(SavedGraphError::Twice(outline.drv));
        }
        if outline.kind == DerivationKind::Unread {
            taken.builder.add_unread(&path);
            return Ok(());
        }
        taken.builder.add(&derivation(outline, path.clone(), &store_dir)?);
        taken.contents.extend(kept.map(|kept| (path, kept)));
        Ok(())
    }

    /// The error with the derivation that it is about, where that is known.
    fn named(&mut self, text: &str, source: serde_json::Error) -> SavedGraphError {
        let drv = serde_json::from_str(text).ok().map(|Named { drv }| drv);
        let drv = drv.filter(|drv| self.store_dir(drv).is_ok_and(|dir| parse(&dir, drv).is_ok()));
        match drv {
            Some(drv) => SavedGraphError::Contents { drv, source },
            None => SavedGraphError::Form(source),
        }
    }

    fn finish(self) -> Result<SavedGraph<C>, SavedGraphError> {
        let missing = |name| SavedGraphError::Form(serde_json::Error::missing_field(name));
        self.schema.ok_or_else(|| missing("schema"))?;
        let named = self.store_dir.ok_or_else(|| missing("storeDir"))?;
        let store_dir = foreign_store_dir(&named).ok_or_else(|| no_path(&named))?;
        let roots = self.roots.ok_or_else(|| missing("roots"))?;
        let Taken { builder, contents, met } = self.derivations.ok_or_else(|| missing("derivations"))?;
        if self.guessed_dir.is_some_and(|guessed| guessed != store_dir) {
            return Err(no_path(&named));
        }
        if roots.is_empty() {
            return Err(SavedGraphError::NoRoots);
        }
        let root = |text: &String| {
            let path = parse(&store_dir, text)?;
            if met.contains(&path) { Ok(path) } else { Err(SavedGraphError::MissingRoot(text.clone())) }
        };
        let roots = roots.iter().map(root).collect::<Result<_, _>>()?;
        Ok(SavedGraph { revision: self.revision, roots, graph: builder.finish()?, contents, store_dir })
    }
}

fn derivation(
    outline: Outline,
    path: StorePath,
    store_dir: &StoreDir,
) -> Result<Derivation, SavedGraphError> {
    let parse = |text: &str| parse(store_dir, text);
    let output = |output: SavedOutput| {
        Ok(Output { name: output.name, path: output.path.as_deref().map(parse).transpose()? })
    };
    let input = |input: SavedInput| {
        Ok(Input { derivation: parse(&input.drv)?, outputs: input.outputs, dynamic: input.dynamic })
    };
    Ok(Derivation {
        path,
        kind: outline.kind,
        outputs: outline.outputs.into_iter().map(output).collect::<Result<_, SavedGraphError>>()?,
        inputs: outline.inputs.into_iter().map(input).collect::<Result<_, SavedGraphError>>()?,
        sources: outline.sources.iter().map(|source| parse(source)).collect::<Result<_, _>>()?,
        allows_substitutes: outline.allows_substitutes,
    })
}

/// The whole document: the members that are known, in any order, each once.
impl<'de, C, K: FnMut(Contents, Place) -> C> Visitor<'de> for &mut Reading<'_, C, K> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a saved graph")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<(), M::Error> {
        while let Some(name) = members.next_key::<String>()? {
            let is_known = match name.as_str() {
                "schema" => {
                    let schema: String = members.next_value()?;
                    if schema != SCHEMA {
                        self.error = Some(SavedGraphError::Schema(schema));
                        return Err(M::Error::custom("another schema"));
                    }
                    self.schema.replace(schema).is_some()
                }
                "storeDir" => self.store_dir.replace(members.next_value()?).is_some(),
                "revision" => std::mem::replace(&mut self.revision, members.next_value()?).is_some(),
                "roots" => self.roots.replace(members.next_value()?).is_some(),
                "derivations" => {
                    let is_known = self.derivations.is_some();
                    self.derivations.get_or_insert_with(|| Taken {
                        builder: BuildGraphBuilder::default(),
                        contents: HashMap::new(),
                        met: HashSet::new(),
                    });
                    members.next_value_seed(Each(&mut *self))?;
                    is_known
                }
                _ => members.next_value::<IgnoredAny>().map(|_| false)?,
            };
            if is_known {
                return Err(M::Error::custom(format_args!("duplicate field `{name}`")));
            }
        }
        Ok(())
    }
}

/// The list of derivations.
struct Each<'r, 'a, C, K>(&'r mut Reading<'a, C, K>);

impl<'de, C, K: FnMut(Contents, Place) -> C> DeserializeSeed<'de> for Each<'_, '_, C, K> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, C, K: FnMut(Contents, Place) -> C> Visitor<'de> for Each<'_, '_, C, K> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of derivations")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut derivations: S) -> Result<(), S::Error> {
        while let Some(derivation) = derivations.next_element::<Box<RawValue>>()? {
            if let Err(error) = self.0.take(derivation.get()) {
                self.0.error = Some(error);
                return Err(S::Error::custom("a derivation that is none"));
            }
        }
        Ok(())
    }
}
