//! What of a `.drv` file says how derivations hang together, found without copying any of it.
//!
//! Format: "Derivation" in the Nix manual, chapter "Protocols" (`ATerm`), and `src/libstore/derivations.cc` in Nix's source, which
//! has the form of dynamic derivations too. GNU Guix writes the same. The `nix-derivation` crate reads the whole of a
//! file; the tests hold this scanner against it.

use std::collections::HashSet;
use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

use super::derivation::DerivationKind;

/// The first word of the newer form, before its version.
const WITH_VERSION: &[u8] = b"DrvWithVersion(";

/// How deep outputs of outputs may go.
const DEPTH: usize = 16;

/// A place in the text.
pub(super) type Span = Range<u32>;

/// An output: its name, and its path, which is empty where it is not known before building.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutputSpan {
    pub(super) name: Span,
    pub(super) path: Span,
}

/// An input: its `.drv` path, and the outputs that are wanted, as a range of [`Scan::wanted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InputSpan {
    pub(super) path: Span,
    pub(super) wanted: Range<u32>,
}

/// Where things stand in the text of a `.drv` file. Used again for the next file, it needs no new memory.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) outputs: Vec<OutputSpan>,
    pub(super) inputs: Vec<InputSpan>,
    /// Names of outputs that are wanted.
    pub(super) wanted: Vec<Span>,
    /// Outputs of derivations that are themselves outputs: the input, and the way from there, such as `out^dev`.
    pub(super) dynamic: Vec<(u32, String)>,
    pub(super) sources: Vec<Span>,
    pub(super) kind: Option<DerivationKind>,
    pub(super) allows_substitutes: bool,
    /// Where what follows the inputs begins: system, builder, arguments, environment.
    pub(super) own: u32,
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanError {
    /// Something else was expected.
    #[error("at byte {at}: expected {expected}")]
    Expected {
        /// Where.
        at: usize,
        /// What.
        expected: &'static str,
    },
    /// It is of a form that is not known.
    #[error("it is of the version {0:?}, which is not known here")]
    Version(String),
    /// It is too large for the numbers in use.
    #[error("it has {0} bytes")]
    TooLarge(usize),
    /// Outputs of outputs go too deep.
    #[error("outputs of outputs go deeper than {DEPTH}")]
    TooDeep,
    /// An output of an output is named twice, which Nix never writes.
    #[error("it names the output {0:?} twice")]
    Twice(String),
}

impl Scan {
    /// Finds where everything stands in `text`.
    pub(super) fn read(&mut self, text: &[u8]) -> Result<(), ScanError> {
        if u32::try_from(text.len()).is_err() {
            return Err(ScanError::TooLarge(text.len()));
        }
        self.outputs.clear();
        self.inputs.clear();
        self.wanted.clear();
        self.dynamic.clear();
        self.sources.clear();
        self.kind = None;
        self.allows_substitutes = true;
        let mut reader = Reader { text, at: 0 };
        let is_dynamic = reader.head()?;
        reader.list(|reader| self.output(reader))?;
        reader.expect(b",", "a comma")?;
        reader.list(|reader| self.input(reader, is_dynamic))?;
        reader.expect(b",", "a comma")?;
        reader.list(|reader| {
            self.sources.push(reader.plain_string()?);
            Ok(())
        })?;
        reader.expect(b",", "a comma")?;
        self.own = reader.position();
        reader.string()?;
        reader.expect(b",", "a comma")?;
        reader.string()?;
        reader.expect(b",", "a comma")?;
        reader.list(|reader| reader.string().map(drop))?;
        reader.expect(b",", "a comma")?;
        reader.list(|reader| self.variable(reader))?;
        reader.expect(b")", "the end")?;
        if reader.at == text.len() { Ok(()) } else { Err(reader.expected("the end")) }
    }

    fn output(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        reader.expect(b"(", "an output")?;
        let name = reader.plain_string()?;
        reader.expect(b",", "a comma")?;
        let path = reader.plain_string()?;
        reader.expect(b",", "a comma")?;
        let algorithm = reader.plain_string()?;
        reader.expect(b",", "a comma")?;
        let hash = reader.plain_string()?;
        reader.expect(b")", "the end of an output")?;
        // Without an algorithm a hash says nothing. (`parseDerivationOutput` in `src/libstore/derivations.cc`)
        let kind = match (algorithm.is_empty(), reader.bytes(&hash)) {
            (true, _) if path.is_empty() => DerivationKind::Deferred,
            (true, _) => DerivationKind::InputAddressed,
            (false, b"impure") => DerivationKind::Impure,
            (false, b"") => DerivationKind::Floating,
            (false, _) => DerivationKind::FixedOutput,
        };
        // Outputs of one derivation are of one kind; in a forged one, the least certain counts.
        self.kind = self.kind.max(Some(kind));
        self.outputs.push(OutputSpan { name, path });
        Ok(())
    }

    fn input(&mut self, reader: &mut Reader<'_>, is_dynamic: bool) -> Result<(), ScanError> {
        reader.expect(b"(", "an input")?;
        let path = reader.plain_string()?;
        reader.expect(b",", "a comma")?;
        let start = self.wanted.len();
        if is_dynamic && reader.peek() == Some(b'(') {
            self.dynamic_outputs(reader)?;
        } else {
            reader.list(|reader| {
                self.wanted.push(reader.plain_string()?);
                Ok(())
            })?;
        }
        reader.expect(b")", "the end of an input")?;
        self.inputs.push(InputSpan { path, wanted: number(start)..number(self.wanted.len()) });
        Ok(())
    }

    /// Outputs, and outputs of the derivations that they are: `(["out"],[("out",["dev"])])`.
    fn dynamic_outputs(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let input = number(self.inputs.len());
        // The way to each level that is open, and all that there was, as what is needed and as what leads on.
        let mut way: Vec<String> = Vec::new();
        let mut seen: HashSet<(bool, String)> = HashSet::new();
        let mut once = |leads_on: bool, way: String| {
            if seen.insert((leads_on, way.clone())) { Ok(way) } else { Err(ScanError::Twice(way)) }
        };
        loop {
            if way.len() > DEPTH {
                return Err(ScanError::TooDeep);
            }
            let is_node = reader.peek() == Some(b'(');
            if is_node {
                reader.expect(b"(", "outputs")?;
            }
            reader.list(|reader| {
                let span = reader.plain_string()?;
                if way.is_empty() {
                    self.wanted.push(span);
                } else {
                    let name = reader.output_name(&span)?;
                    self.dynamic.push((input, once(false, format!("{}^{name}", way.join("^")))?));
                }
                Ok(())
            })?;
            if is_node {
                reader.expect(b",[(", "outputs of outputs")?;
                let name = reader.plain_string()?;
                way.push(reader.output_name(&name)?.to_owned());
                once(true, way.join("^"))?;
                reader.expect(b",", "a comma")?;
                continue;
            }
            // Up again, to the next of some level, or out.
            loop {
                if way.pop().is_none() {
                    return Ok(());
                }
                reader.expect(b")", "the end of an output of an output")?;
                if reader.peek() == Some(b',') {
                    reader.expect(b",(", "an output of an output")?;
                    let name = reader.plain_string()?;
                    way.push(reader.output_name(&name)?.to_owned());
                    once(true, way.join("^"))?;
                    reader.expect(b",", "a comma")?;
                    break;
                }
                reader.expect(b"])", "the end of outputs of outputs")?;
                if way.is_empty() {
                    return Ok(());
                }
            }
        }
    }

    fn variable(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        reader.expect(b"(", "a variable")?;
        let name = reader.string()?;
        reader.expect(b",", "a comma")?;
        let value = reader.string()?;
        reader.expect(b")", "the end of a variable")?;
        // As Nix reads it (`DerivationOptions` in `src/libstore/derivation-options.cc`): in the environment anything but `1`
        // is false, in structured attributes it is a boolean.
        match reader.bytes(&name) {
            b"allowSubstitutes" => self.allows_substitutes = reader.bytes(&value) == b"1",
            b"__json" if memmem::find(reader.bytes(&value), b"allowSubstitutes").is_some() => {
                let text = unescaped(reader.bytes(&value));
                let attributes: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
                self.allows_substitutes =
                    attributes.get("allowSubstitutes").and_then(serde_json::Value::as_bool).unwrap_or(true);
            }
            _ => {}
        }
        Ok(())
    }
}

/// A string's content without its escapes. (`parseString` in `src/libstore/derivations.cc`: `n`, `r` and `t` stand for control
/// characters, anything else for itself.)
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(escape) = memchr(b'\\', rest) {
        plain.extend_from_slice(&rest[..escape]);
        match rest.get(escape + 1) {
            Some(b'n') => plain.push(b'\n'),
            Some(b'r') => plain.push(b'\r'),
            Some(b't') => plain.push(b'\t'),
            Some(other) => plain.push(*other),
            None => return plain,
        }
        rest = &rest[escape + 2..];
    }
    plain.extend_from_slice(rest);
    plain
}

/// Whether an output can be called so. ("Store Object names" in the Nix manual.)
pub(super) fn is_output_name(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
    !name.is_empty() && name.iter().all(is_part)
}

/// Positions and counts fit: the text's length was checked.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// A text, and how far it is read.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn position(&self) -> u32 {
        number(self.at)
    }

    fn bytes(&self, span: &Span) -> &'a [u8] {
        &self.text[span.start as usize..span.end as usize]
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> ScanError {
        ScanError::Expected { at: self.at, expected }
    }

    /// Passes over `bytes`. (An array, because their number is known then, and comparing them costs no call.)
    fn expect<const N: usize>(&mut self, bytes: &[u8; N], expected: &'static str) -> Result<(), ScanError> {
        if self.text[self.at..].first_chunk() == Some(bytes) {
            self.at += N;
            Ok(())
        } else {
            Err(self.expected(expected))
        }
    }

    /// Reads up to the outputs, and tells whether it is the form that has dynamic derivations.
    fn head(&mut self) -> Result<bool, ScanError> {
        if !self.text.starts_with(WITH_VERSION) {
            return self.expect(b"Derive(", "a derivation").map(|()| false);
        }
        self.at = WITH_VERSION.len();
        let version = self.plain_string()?;
        match self.bytes(&version) {
            b"xp-dyn-drv" => self.expect(b",", "a comma").map(|()| true),
            other => Err(ScanError::Version(String::from_utf8_lossy(other).into_owned())),
        }
    }

    /// A string; the span is of its content, escapes included.
    ///
    /// Most of a file is text of scripts with an escape on every line, so only quotes are searched for: one ends the string
    /// unless an odd number of backslashes stands before it.
    fn string(&mut self) -> Result<Span, ScanError> {
        self.expect(b"\"", "a string")?;
        let start = self.at;
        loop {
            let rest = &self.text[self.at..];
            let found = memchr(b'"', rest).ok_or_else(|| self.expected("the end of a string"))?;
            let backslashes = rest[..found].iter().rev().take_while(|byte| **byte == b'\\').count();
            let end = self.at + found;
            self.at = end + 1;
            if backslashes % 2 == 0 {
                return Ok(number(start)..number(end));
            }
        }
    }

    /// A string of something that needs no escapes, such as a path or a name.
    fn plain_string(&mut self) -> Result<Span, ScanError> {
        let before = self.at;
        self.expect(b"\"", "a string")?;
        let (start, rest) = (self.at, &self.text[self.at..]);
        let found = memchr2(b'"', b'\\', rest).ok_or_else(|| self.expected("the end of a string"))?;
        if rest[found] == b'\\' {
            self.at = before;
            return Err(self.expected("a string without escapes"));
        }
        self.at = start + found + 1;
        Ok(number(start)..number(start + found))
    }

    /// The name of an output, which was just read.
    fn output_name(&self, span: &Span) -> Result<&'a str, ScanError> {
        let name = Some(self.bytes(span)).filter(|name| is_output_name(name));
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        name.ok_or(ScanError::Expected { at: span.start as usize, expected: "the name of an output" })
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), ScanError>) -> Result<(), ScanError> {
        self.expect(b"[", "a list")?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.expected("a comma or the end of a list")),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
