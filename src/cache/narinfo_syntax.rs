//! A narinfo's text, read as Nix reads it.
//!
//! Nix stops at a narinfo that it calls corrupt, so what counts is not which text is sensible but which text Nix takes. This
//! follows `NarInfo::NarInfo` in `src/libstore/nar-info.cc` step by step, oddities included: a name reaches from the end of
//! the last field to the next colon, over line ends too, and a value begins two bytes behind the colon, whatever they are.
//! Of a field that stands several times, the last counts.

use std::collections::BTreeSet;

use nix_derivation::{CAHash, ContentAddressMethod, HashAlgorithm, NixHash, StoreDir, StorePath, nixbase32};
use nix_narinfo::{Compression, MAX_NARINFO_SIZE, NarInfo, NixSignature};

/// Which Nix a narinfo is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// Whether a signature that is none spoils the whole narinfo, as it does since Nix 2.34.
    strict_signatures: bool,
    /// How large a narinfo may be, in bytes.
    limit: usize,
}

impl Syntax {
    /// What every Nix takes, no larger than anybody writes it: for caches that one is responsible for.
    pub const EVERY_NIX: Self = Self { strict_signatures: true, limit: MAX_NARINFO_SIZE };

    /// What one Nix takes, which since 2.34 has `strict_signatures`.
    ///
    /// Nix sets no limit to the size; ours is where many of them at once would fill the memory.
    pub const fn one_nix(strict_signatures: bool) -> Self {
        Self { strict_signatures, limit: 4 * MAX_NARINFO_SIZE }
    }

    /// How large a narinfo may be, in bytes.
    pub const fn limit(self) -> usize {
        self.limit
    }

    /// Reads a narinfo. What Nix passes over is not in the result.
    ///
    /// # Errors
    ///
    /// When Nix calls the text corrupt, or takes something that [`NarInfo`] has no place for; with the reason.
    pub fn read(self, store_dir: &StoreDir, body: &[u8]) -> Result<NarInfo, String> {
        let mut fields = Fields::default();
        let mut place = 0;
        while place < body.len() {
            let (name, value, end) = next(body, place).map_err(|reason| at_line(body, place, reason))?;
            fields
                .take(name, value, store_dir, self.strict_signatures)
                .map_err(|reason| at_line(body, place, reason))?;
            place = end;
        }
        fields.into_narinfo(store_dir)
    }
}

fn at_line(body: &[u8], place: usize, reason: &str) -> String {
    let line = body[..place].split(|byte| *byte == b'\n').count();
    format!("Nix calls it corrupt: {reason} in line {line}")
}

/// The field that begins at `place`, and where the next one does.
fn next(body: &[u8], place: usize) -> Result<(&[u8], &[u8], usize), &'static str> {
    let find = |byte: u8, from: usize| {
        Some(from + body.get(from..)?.iter().position(|candidate| *candidate == byte)?)
    };
    let colon = find(b':', place).ok_or("no colon")?;
    let end = find(b'\n', colon + 2).ok_or("no line end")?;
    Ok((&body[place..colon], &body[colon + 2..end], end + 1))
}

/// What was read so far.
#[derive(Debug, Default)]
struct Fields {
    store_path: Option<StorePath>,
    url: Vec<u8>,
    compression: Vec<u8>,
    file_hash: Option<NixHash>,
    file_size: Option<u64>,
    nar_hash: Option<NixHash>,
    nar_size: u64,
    references: BTreeSet<StorePath>,
    deriver: Option<StorePath>,
    signatures: Vec<NixSignature>,
    content_address: Option<CAHash>,
}

impl Fields {
    /// Takes one field, or says why Nix does not.
    fn take(
        &mut self,
        name: &[u8],
        value: &[u8],
        store_dir: &StoreDir,
        strict_signatures: bool,
    ) -> Result<(), &'static str> {
        match name {
            b"StorePath" => {
                self.store_path = Some(full_path(store_dir, value).ok_or("no path of this store")?);
            }
            b"URL" => value.clone_into(&mut self.url),
            b"Compression" => value.clone_into(&mut self.compression),
            b"FileHash" => self.file_hash = Some(hash(value).ok_or("no hash")?),
            b"FileSize" => self.file_size = Some(number(value).ok_or("no number")?),
            b"NarHash" => self.nar_hash = Some(hash(value).ok_or("no hash")?),
            b"NarSize" => self.nar_size = number(value).ok_or("no number")?,
            b"References" => {
                if !self.references.is_empty() {
                    return Err("the references once more");
                }
                for reference in value.split(|byte| *byte == b' ').filter(|name| !name.is_empty()) {
                    self.references.insert(base_name(reference)?);
                }
            }
            b"Deriver" if value != b"unknown-deriver" => self.deriver = Some(base_name(value)?),
            b"Sig" => match signature(value) {
                Some(signature) => self.signatures.push(signature),
                None if strict_signatures && !is_signature(value) => return Err("no signature"),
                // Of no key, or of one whose name is known: then it is a bad one.
                None => self.signatures.extend(bad_signature(value)),
            },
            b"CA" => {
                if self.content_address.is_some() {
                    return Err("a content address once more");
                }
                if !value.is_empty() {
                    self.content_address = Some(content_address(value).ok_or("no content address")?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn into_narinfo(self, store_dir: &StoreDir) -> Result<NarInfo, String> {
        let missing = |what: &str| format!("Nix calls it corrupt: no {what}");
        let store_path = self.store_path.ok_or_else(|| missing("StorePath"))?;
        let nar_hash = self.nar_hash.ok_or_else(|| missing("NarHash"))?;
        if self.url.is_empty() {
            return Err(missing("URL"));
        }
        if self.nar_size == 0 {
            return Err(missing("NarSize"));
        }
        // `NarInfo` has no place for a blank at the beginning, nor for other bytes than text. Such a URL names no object that we
        // would ask for, which must stay so; how a NAR is compressed is not looked at.
        let url = String::from_utf8_lossy(&self.url);
        let url =
            url.strip_prefix(char::is_whitespace).map(|rest| format!("%20{rest}")).unwrap_or(url.into());
        let compression = String::from_utf8_lossy(&self.compression);
        NarInfo::builder_in(store_dir.clone(), store_path, url, nar_hash, self.nar_size)
            .compression(Compression::parse(compression.trim_ascii()))
            .references(self.references)
            .deriver(self.deriver)
            .signatures(self.signatures)
            .content_address(self.content_address)
            .file_hash(self.file_hash)
            // Nix writes 0 where it does not know the size.
            .file_size(self.file_size.filter(|size| *size > 0))
            .build()
            .map_err(|error| format!("Nix may take it, but this program does not: {error}"))
    }
}

/// `Store::parseStorePath`: made canonical first, so that a slash too many does no harm.
fn full_path(store_dir: &StoreDir, value: &[u8]) -> Option<StorePath> {
    let mut canonical: Vec<&[u8]> = Vec::new();
    for component in value.strip_prefix(b"/")?.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(canonical.pop()),
            component => canonical.push(component),
        }
    }
    let path = canonical.into_iter().flat_map(|component| [b"/", component]).flatten().copied();
    store_dir.parse_path(&path.collect::<Vec<u8>>()).ok()
}

fn base_name(value: &[u8]) -> Result<StorePath, &'static str> {
    StorePath::from_basename(value).map_err(|_| "no name of a store path")
}

/// `string2Int`: without blanks, and within 64 bits.
fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `Hash::parseAnyPrefixed`.
fn hash(value: &[u8]) -> Option<NixHash> {
    let value = std::str::from_utf8(value).ok()?;
    match value.split_once(':') {
        Some((algorithm, digest)) => digest_of(algorithm, digest, false),
        None => value.split_once('-').and_then(|(algorithm, digest)| digest_of(algorithm, digest, true)),
    }
}

/// A digest in the encoding that its length tells, or always in base 64.
fn digest_of(algorithm: &str, digest: &str, is_sri: bool) -> Option<NixHash> {
    // BLAKE3 is an experimental feature of Nix, which without it calls the narinfo corrupt.
    let (algorithm, size) = match algorithm {
        "md5" => (HashAlgorithm::Md5, 16),
        "sha1" => (HashAlgorithm::Sha1, 20),
        "sha256" => (HashAlgorithm::Sha256, 32),
        "sha512" => (HashAlgorithm::Sha512, 64),
        _ => return None,
    };
    let bytes = if is_sri || digest.len() == 4 * usize::div_ceil(size, 3) {
        base64(digest.as_bytes())?
    } else if digest.len() == 2 * size {
        base16(digest.as_bytes())?
    } else if digest.len() == nixbase32::encoded_len(size) {
        nixbase32::decode(digest.as_bytes()).ok()?
    } else {
        return None;
    };
    NixHash::from_algorithm_and_digest(algorithm, &bytes).ok()
}

/// `ContentAddress::parse`. Git hashing is an experimental feature of Nix.
fn content_address(value: &[u8]) -> Option<CAHash> {
    let value = std::str::from_utf8(value).ok()?;
    let (method, hash) = if let Some(hash) = value.strip_prefix("text:") {
        (ContentAddressMethod::Text, hash)
    } else if let Some(hash) = value.strip_prefix("fixed:r:") {
        (ContentAddressMethod::Nar, hash)
    } else {
        (ContentAddressMethod::Flat, value.strip_prefix("fixed:")?)
    };
    let (algorithm, digest) = hash.split_once(':')?;
    let hash = digest_of(algorithm, digest, false)?;
    CAHash::from_parts(method, hash.algorithm(), hash.digest_as_bytes()).ok()
}

/// `Signature::parse`.
fn signature(value: &[u8]) -> Option<NixSignature> {
    let (name, encoded) = split_signature(value)?;
    NixSignature::from_bytes(name, &base64(encoded)?).ok()
}

/// Whether Nix takes a text for a signature (`parseColonBase64` in `src/libutil/signature/local-keys.cc`), be its name one
/// that no key has.
fn is_signature(value: &[u8]) -> bool {
    let colon = value.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0);
    colon.and_then(|colon| base64(&value[colon + 1..])).is_some_and(|bytes| !bytes.is_empty())
}

/// What is kept of a signature that cannot be read, where it has a name.
fn bad_signature(value: &[u8]) -> Option<NixSignature> {
    let (name, encoded) = split_signature(value)?;
    Some(NixSignature {
        key_name: name.to_owned(),
        encoded: String::from_utf8_lossy(encoded).replace('\r', ""),
    })
}

/// The key's name and the rest. A name that no setting can hold belongs to no key that Nix knows.
fn split_signature(value: &[u8]) -> Option<(&str, &[u8])> {
    let colon = value.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&value[..colon]).ok()?;
    let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
    is_name.then_some((name, &value[colon + 1..]))
}

/// `base16::decode`.
fn base16(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// `base64::decode`: up to the first `=`, with as much padding or as little as there is.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut data, mut bits) = (Vec::new(), 0_u32, 0);
    for byte in text.iter().copied().take_while(|byte| *byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        data = (data << 6 | u32::from(digit)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(data.checked_shr(bits)?.to_le_bytes()[0]);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256:0000000000000000000000000000000000000000000000000000";

    fn read(syntax: Syntax, more: &str) -> Result<NarInfo, String> {
        let path = "/nix/store/00000000000000000000000000000000-x";
        let text = format!("StorePath: {path}\nURL: x.nar\nNarHash: {HASH}\nNarSize: 1\n{more}");
        syntax.read(&StoreDir::default(), text.as_bytes())
    }

    #[test]
    fn a_name_and_a_value_reach_over_line_ends() {
        // The value of the first is the whole second line; the name of the third begins with a line end.
        let narinfo = read(Syntax::EVERY_NIX, "Hello:\nDeriver: /x\n\nDeriver: /x\n").expect("a narinfo");
        assert_eq!(narinfo.deriver(), None);
        let problem = read(Syntax::EVERY_NIX, "\n").expect_err("no colon");
        assert_eq!(problem, "Nix calls it corrupt: no colon in line 5");
        let problem = read(Syntax::EVERY_NIX, "Deriver: /x\n").expect_err("no name");
        assert_eq!(problem, "Nix calls it corrupt: no name of a store path in line 5");
    }

    #[test]
    fn only_since_some_version_a_signature_must_be_one() {
        let bytes = "A".repeat(85) + "A";
        let good = format!("Sig: a:{bytes}==\nSig: b:{bytes}\n");
        let names = |narinfo: &NarInfo| {
            narinfo.signatures().iter().map(|signature| signature.key_name.clone()).collect::<Vec<_>>()
        };
        let narinfo = read(Syntax::EVERY_NIX, &good).expect("a narinfo");
        assert_eq!(names(&narinfo), ["a", "b"]);
        assert_eq!(narinfo.signatures()[0].encoded, narinfo.signatures()[1].encoded);
        for (bad, kept) in
            [("hello", None), ("", None), (":AAAA", None), ("a:%", Some("a")), ("a:", Some("a"))]
        {
            let line = format!("Sig: {bad}\n");
            assert!(read(Syntax::EVERY_NIX, &line).is_err(), "{bad}");
            assert!(read(Syntax::one_nix(true), &line).is_err(), "{bad}");
            let narinfo = read(Syntax::one_nix(false), &line).expect("a narinfo");
            assert_eq!(names(&narinfo), kept.into_iter().collect::<Vec<_>>(), "{bad}");
        }
    }

    #[test]
    fn hashes_come_in_several_spellings() {
        let zeros = |length: usize, digit: &str| digit.repeat(length);
        let same = [
            HASH.to_owned(),
            format!("sha256:{}", zeros(64, "0")),
            format!("sha256:{}=", zeros(43, "A")),
            format!("sha256-{}", zeros(43, "A")),
        ];
        for spelling in same {
            let narinfo = read(Syntax::EVERY_NIX, &format!("FileHash: {spelling}\n")).expect("a narinfo");
            assert_eq!(narinfo.file_hash(), Some(&NixHash::Sha256([0; 32])), "{spelling}");
        }
        for bad in ["sha256:00", "sha256:", "blake3:00", "00"] {
            assert!(read(Syntax::EVERY_NIX, &format!("FileHash: {bad}\n")).is_err(), "{bad}");
        }
        let addresses = [
            (format!("text:{HASH}"), true),
            (format!("fixed:r:{HASH}"), true),
            (format!("fixed:{HASH}"), true),
            (format!("text:md5:{}", zeros(32, "0")), false),
            (format!("fixed:sha256-{}", zeros(43, "A")), false),
            (HASH.to_owned(), false),
        ];
        for (address, is_one) in addresses {
            assert_eq!(read(Syntax::EVERY_NIX, &format!("CA: {address}\n")).is_ok(), is_one, "{address}");
        }
        assert!(read(Syntax::EVERY_NIX, &format!("CA: \nCA: fixed:{HASH}\n")).is_ok());
        assert!(read(Syntax::EVERY_NIX, &format!("CA: fixed:{HASH}\nCA: \n")).is_err());
    }

    #[test]
    fn references_stand_once() {
        let (a, b) = ("00000000000000000000000000000000-a", "00000000000000000000000000000000-b");
        assert_eq!(
            read(Syntax::EVERY_NIX, &format!("References:  {b}  {a} \n")).expect("two").references().len(),
            2
        );
        assert!(read(Syntax::EVERY_NIX, &format!("References: \nReferences: {a}\n")).is_ok());
        assert!(read(Syntax::EVERY_NIX, &format!("References: {a}\nReferences: \n")).is_err());
        assert!(read(Syntax::EVERY_NIX, &format!("References: /nix/store/{a}\n")).is_err());
    }
}
