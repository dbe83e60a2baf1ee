//! An independent reader of a binary cache in a directory. It shares no code with the program: the text is parsed here, and only
//! signatures are checked with a crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::Path;

use nix_derivation::StoreDir;
use nix_narinfo::{NarInfo, TrustedPublicKey};
use sha2::{Digest as _, Sha256};

use super::scratch::files_below;

/// What one narinfo says.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The base name of the store path.
    pub(crate) path: String,
    /// Its fields, in order.
    pub(crate) fields: Vec<(String, String)>,
    /// The whole text.
    pub(crate) text: String,
}

impl Entry {
    /// The value of a field that stands at most once.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The base names that it refers to, itself left out.
    pub(crate) fn references(&self) -> BTreeSet<String> {
        let all = self.get("References").unwrap_or_default();
        all.split_whitespace().filter(|name| *name != self.path).map(str::to_owned).collect()
    }

    /// The key names of its signatures, in order.
    pub(crate) fn signers(&self) -> Vec<&str> {
        let all = self.fields.iter().filter(|(field, _)| field == "Sig");
        all.map(|(_, value)| value.split(':').next().unwrap()).collect()
    }

    /// Whether a key of this `trusted-public-keys` form signed it.
    pub(crate) fn is_signed_by(&self, store_dir: &str, public: &str) -> bool {
        let dir = StoreDir::new(store_dir).unwrap();
        let info = NarInfo::parse_in(&dir, self.text.as_bytes()).unwrap();
        info.has_valid_signature(&dir, &[TrustedPublicKey::parse(public).unwrap()])
    }
}

/// A cache as it was read, and all that is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// By base name of the store path.
    pub(crate) entries: BTreeMap<String, Entry>,
    /// What breaks the rules of a closed binary cache.
    pub(crate) problems: Vec<String>,
    /// NARs that no narinfo names: harmless, but not free.
    pub(crate) unused_nars: Vec<String>,
    /// Files that are neither cache information, nor narinfos, nor NARs.
    pub(crate) strange: Vec<String>,
}

impl Cache {
    /// The base names of all store paths.
    pub(crate) fn paths(&self) -> BTreeSet<String> {
        self.entries.keys().cloned().collect()
    }
}

/// Reads a cache that must be closed relative to its upstreams, and gives what it holds.
#[track_caller]
pub(crate) fn assert_closed(dir: &Path, store_dir: &str, upstreams: &[&Path]) -> Cache {
    let cache = read(dir, store_dir, upstreams);
    assert!(cache.problems.is_empty(), "{} is not a closed cache: {:#?}", dir.display(), cache.problems);
    cache
}

/// Reads a whole cache: every byte of it.
pub(crate) fn read(dir: &Path, store_dir: &str, upstreams: &[&Path]) -> Cache {
    let mut cache = Cache::default();
    let mut nars = BTreeSet::new();
    for file in files_below(dir) {
        if file == "nix-cache-info" {
            check_cache_info(dir, store_dir, &mut cache.problems);
        } else if let Some(hash) = file.strip_suffix(".narinfo").filter(|hash| is_nix32(hash, 32)) {
            match read_entry(dir, &file, hash, store_dir) {
                Ok(entry) => drop(cache.entries.insert(entry.path.clone(), entry)),
                Err(problem) => cache.problems.push(format!("{file}: {problem}")),
            }
        } else if is_nar_name(&file) {
            nars.insert(file);
        } else {
            cache.strange.push(file);
        }
    }
    if !cache.entries.is_empty() && !dir.join("nix-cache-info").is_file() {
        cache.problems.push("there are narinfos, but no nix-cache-info".into());
    }
    let known: BTreeMap<&str, &str> =
        cache.entries.keys().map(|path| (hash_part(path), path.as_str())).collect();
    for entry in cache.entries.values() {
        match check_nar(dir, entry) {
            Err(problem) => cache.problems.push(format!("{}: {problem}", entry.path)),
            // A derivation names outputs that need not be anywhere: Nix takes only its inputs for references.
            Ok(_) if Path::new(&entry.path).extension().is_some_and(|end| end == "drv") => {}
            Ok(nar) => {
                let told = entry.get("References").unwrap_or_default();
                for path in
                    found_in(&nar, &known).iter().filter(|path| !told.split(' ').any(|one| one == **path))
                {
                    cache
                        .problems
                        .push(format!("{}: its files refer to {path}, its References do not", entry.path));
                }
            }
        }
        if let Some(url) = entry.get("URL") {
            nars.remove(url);
        }
        for reference in entry.references() {
            if !cache.entries.contains_key(&reference) && !upstreams.iter().any(|up| has(up, &reference)) {
                cache.problems.push(format!("{}: its reference {reference} is not there", entry.path));
            }
        }
        let signers: BTreeSet<&str> = entry.signers().into_iter().collect();
        if signers.len() != entry.signers().len() {
            cache.problems.push(format!("{}: a key name stands twice in {:?}", entry.path, entry.signers()));
        }
    }
    cache.unused_nars = nars.into_iter().collect();
    cache
}

/// Whether a narinfo in a directory names this store path.
pub(crate) fn has(dir: &Path, path: &str) -> bool {
    let text = fs::read_to_string(dir.join(format!("{}.narinfo", hash_part(path)))).unwrap_or_default();
    text.lines()
        .any(|line| line.strip_prefix("StorePath: ").is_some_and(|full| full.ends_with(&format!("/{path}"))))
}

/// The hash part of a base name or a full store path.
pub(crate) fn hash_part(path: &str) -> &str {
    &path.rsplit('/').next().unwrap()[..32]
}

fn check_cache_info(dir: &Path, store_dir: &str, problems: &mut Vec<String>) {
    let text = fs::read_to_string(dir.join("nix-cache-info")).unwrap_or_default();
    if !text.lines().any(|line| line.strip_prefix("StoreDir: ") == Some(store_dir)) || !text.ends_with('\n') {
        problems.push(format!("nix-cache-info does not name {store_dir}: {text:?}"));
    }
}

/// Parses a narinfo, strictly: what Nix would write.
fn read_entry(dir: &Path, file: &str, hash: &str, store_dir: &str) -> Result<Entry, String> {
    let text = fs::read_to_string(dir.join(file)).map_err(|error| error.to_string())?;
    let fields = parse_fields(&text)?;
    let entry = Entry { path: String::new(), fields, text };
    for name in
        ["StorePath", "URL", "Compression", "FileHash", "FileSize", "NarHash", "NarSize", "References"]
    {
        entry.get(name).ok_or_else(|| format!("no {name}: {:?}", entry.text))?;
    }
    for name in [
        "StorePath",
        "URL",
        "Compression",
        "FileHash",
        "FileSize",
        "NarHash",
        "NarSize",
        "References",
        "Deriver",
        "CA",
    ] {
        if entry.fields.iter().filter(|(field, _)| field == name).count() > 1 {
            return Err(format!("{name} stands twice: {:?}", entry.text));
        }
    }
    let full = entry.get("StorePath").unwrap();
    let base = full.strip_prefix(store_dir).and_then(|rest| rest.strip_prefix('/'));
    let base = base.ok_or_else(|| format!("{full} is not in {store_dir}"))?;
    if base.split_once('-').is_none_or(|(part, _)| part != hash) {
        return Err(format!("it names another path: {full}"));
    }
    let path = base.to_owned();
    NarInfo::parse_in(&StoreDir::new(store_dir).unwrap(), entry.text.as_bytes())
        .map_err(|error| format!("nix-narinfo refuses it: {error}"))?;
    Ok(Entry { path, ..entry })
}

fn parse_fields(text: &str) -> Result<Vec<(String, String)>, String> {
    if !text.ends_with('\n') {
        return Err(format!("cut short: {text:?}"));
    }
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("not a field: {line:?}"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    text.lines().map(field).collect()
}

/// The store paths whose hash parts stand in a NAR, found as Nix finds references.
fn found_in<'a>(nar: &[u8], known: &BTreeMap<&str, &'a str>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut start = 0;
    while let Some(window) = nar.get(start..start + 32) {
        if let Some(other) = window.iter().rposition(|byte| !DIGITS.contains(byte)) {
            start += other + 1;
            continue;
        }
        found.extend(known.get(std::str::from_utf8(window).unwrap()));
        start += 1;
    }
    found
}

/// Checks that the NAR of an entry is there, and that every byte of it is right; gives it unpacked.
fn check_nar(dir: &Path, entry: &Entry) -> Result<Vec<u8>, String> {
    let get = |name: &str| entry.get(name).unwrap();
    let suffix = match get("Compression") {
        "none" => "",
        "zstd" => ".zst",
        "xz" => ".xz",
        other => return Err(format!("unexpected compression {other}")),
    };
    let file_hash = get("FileHash").strip_prefix("sha256:").ok_or("FileHash is not SHA-256")?;
    let expected = format!("nar/{file_hash}.nar{suffix}");
    if get("URL") != expected {
        return Err(format!("URL is {}, not {expected}", get("URL")));
    }
    let bytes = fs::read(dir.join(get("URL"))).map_err(|error| format!("{}: {error}", get("URL")))?;
    if bytes.len().to_string() != get("FileSize") {
        return Err(format!("FileSize is {}, but the file has {}", get("FileSize"), bytes.len()));
    }
    let nar = match suffix {
        "" => bytes.clone(),
        ".zst" => zstd::decode_all(bytes.as_slice()).map_err(|error| format!("zstd: {error}"))?,
        _ => {
            let mut nar = Vec::new();
            liblzma::read::XzDecoder::new(bytes.as_slice())
                .read_to_end(&mut nar)
                .map_err(|error| format!("xz: {error}"))?;
            nar
        }
    };
    if nix32(&Sha256::digest(&bytes)) != file_hash {
        return Err("the file does not have its FileHash".into());
    }
    if nar.len().to_string() != get("NarSize") {
        return Err(format!("NarSize is {}, but the NAR has {}", get("NarSize"), nar.len()));
    }
    let nar_hash = format!("sha256:{}", nix32(&Sha256::digest(&nar)));
    if nar_hash != get("NarHash") {
        return Err(format!("NarHash is {}, but the NAR has {nar_hash}", get("NarHash")));
    }
    Ok(nar)
}

const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Nix's base 32.
pub(crate) fn nix32(bytes: &[u8]) -> String {
    let length = (bytes.len() * 8 - 1) / 5 + 1;
    let digit = |n: usize| {
        let (byte, bit) = (n * 5 / 8, n * 5 % 8);
        let low = u16::from(bytes[byte]);
        let high = bytes.get(byte + 1).map_or(0, |byte| u16::from(*byte));
        char::from(DIGITS[usize::from(((high << 8 | low) >> bit) & 31)])
    };
    (0..length).rev().map(digit).collect()
}

fn is_nix32(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| DIGITS.contains(&byte))
}

fn is_nar_name(file: &str) -> bool {
    let Some((hash, suffix)) = file.strip_prefix("nar/").and_then(|name| name.split_once('.')) else {
        return false;
    };
    is_nix32(hash, 52) && matches!(suffix, "nar" | "nar.zst" | "nar.xz")
}
