//! Narinfos: made for what is pushed, and checked when a cache sends one.

use nix_derivation::{NixHash, StoreDir, StorePath};
use nix_narinfo::{BuildError, Compression, NarInfo, NixSignature, TrustedPublicKey};

use super::narinfo_syntax::Syntax;
use super::{Answer, BinaryCache, ObjectName, SigningKey};
use crate::audit::Trust;
use crate::graph::PathInfo;
use crate::text::Printable;

/// How a path is stored in a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredNar {
    /// The object's name.
    pub name: ObjectName,
    /// How it is compressed.
    pub compression: Compression,
    /// SHA-256 of the object as it is stored.
    pub file_hash: NixHash,
    /// Its size as it is stored, in bytes.
    pub file_size: u64,
}

/// The name of a path's narinfo: only the hash part counts.
pub fn object_name(path: &StorePath) -> ObjectName {
    ObjectName(format!("{}.narinfo", nix_derivation::nixbase32::encode(path.digest())))
}

/// Makes the narinfo of a path.
///
/// It carries every signature that the store has for the path, and ours besides where there is a key; of several with
/// one key name the first counts, and ours before all.
///
/// # Errors
///
/// When the registration cannot be written as a narinfo, such as a NAR of 0 bytes.
pub fn narinfo_of(
    info: &PathInfo,
    stored: &StoredNar,
    store_dir: &StoreDir,
    key: Option<&SigningKey>,
) -> Result<NarInfo, BuildError> {
    let unsigned = NarInfo::builder_in(
        store_dir.clone(),
        info.path.clone(),
        stored.name.as_str(),
        info.nar_hash.clone(),
        info.nar_size,
    )
    .compression(stored.compression.clone())
    .references(info.references.iter().cloned())
    .deriver(info.deriver.clone())
    .content_address(info.content_address.clone())
    .file_hash(Some(stored.file_hash.clone()))
    .file_size(Some(stored.file_size));
    let fingerprint = unsigned.clone().build()?.fingerprint(store_dir);
    let mut signatures: Vec<NixSignature> = key.map(|key| key.sign(&fingerprint)).into_iter().collect();
    for signature in &info.signatures {
        if signatures.iter().all(|kept| kept.key_name != signature.key_name) {
            signatures.push(signature.clone());
        }
    }
    unsigned.signatures(signatures).build()
}

/// Why what a cache serves as the narinfo of a path is not that. Shown as one line, fit to print.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NarinfoProblem {
    /// Nix does not take it as a narinfo of this store.
    #[error("not a narinfo ({0})")]
    Unreadable(String),
    /// It is the narinfo of another path.
    #[error("it describes {}", .0.to_basename())]
    OtherPath(StorePath),
    /// Its URL leads out of the cache.
    #[error("its URL {} leads out of the cache", Printable(.0.url()))]
    OutsideCache(Box<NarInfo>),
}

/// Asks a cache for a path's narinfo, and checks that what comes is one that every Nix takes, for this path and this store.
pub async fn fetch(cache: &dyn BinaryCache, store_dir: &StoreDir, path: &StorePath) -> Answer<NarInfo> {
    sound(path, probe(cache, store_dir, path, Syntax::EVERY_NIX).await)
}

/// A narinfo with a problem is no narinfo.
pub(super) fn sound(path: &StorePath, answer: Answer<Result<NarInfo, NarinfoProblem>>) -> Answer<NarInfo> {
    answer.and_then(|narinfo| match narinfo {
        Ok(narinfo) => Answer::Present(narinfo),
        Err(problem) => Answer::Broken(format!("{}: {problem}", object_name(path)).into()),
    })
}

/// Asks a cache for a path's narinfo, and says what is wrong with it where something is.
pub async fn probe(
    cache: &dyn BinaryCache,
    store_dir: &StoreDir,
    path: &StorePath,
    syntax: Syntax,
) -> Answer<Result<NarInfo, NarinfoProblem>> {
    let answer = cache.get(&object_name(path), syntax.limit()).await;
    answer.map(|body| check(&body, store_dir, path, syntax))
}

/// Reads a narinfo that came for `path`.
fn check(
    body: &[u8],
    store_dir: &StoreDir,
    path: &StorePath,
    syntax: Syntax,
) -> Result<NarInfo, NarinfoProblem> {
    let narinfo = syntax.read(store_dir, body).map_err(|reason| {
        let first_line: Vec<u8> = body.iter().copied().take_while(|byte| *byte != b'\n').take(80).collect();
        let first_line = String::from_utf8_lossy(&first_line);
        NarinfoProblem::Unreadable(format!("{}; it begins with {first_line:?}", Printable(&reason)))
    })?;
    if narinfo.store_path() != path {
        return Err(NarinfoProblem::OtherPath(narinfo.store_path().clone()));
    }
    if nar_object(&narinfo).is_none() {
        return Err(NarinfoProblem::OutsideCache(Box::new(narinfo)));
    }
    Ok(narinfo)
}

/// The object that holds a path's content; nothing where the narinfo's URL leads out of the cache.
///
/// A query, which some servers append, is no part of the name.
pub fn nar_object(narinfo: &NarInfo) -> Option<ObjectName> {
    let path = narinfo.url().split('?').next().unwrap_or_default();
    ObjectName::new(path)
}

/// Whether Nix, trusting `keys`, would take this path from a cache without more ado.
pub fn is_usable(narinfo: &NarInfo, keys: &[TrustedPublicKey], trusts_cache: bool) -> bool {
    trust(narinfo, keys, trusts_cache).is_enough()
}

/// What Nix, trusting `keys`, thinks of a narinfo (`ValidPathInfo::checkSignatures` in `src/libstore/path-info.cc`).
pub fn trust(narinfo: &NarInfo, keys: &[TrustedPublicKey], trusts_cache: bool) -> Trust {
    let store_dir = narinfo.store_dir();
    let names = |signatures: &mut dyn Iterator<Item = &NixSignature>| {
        signatures.map(|signature| Printable(&signature.key_name).to_string()).collect::<Vec<_>>()
    };
    if narinfo.is_content_addressed(store_dir) {
        return Trust::ContentAddressed;
    }
    if narinfo.has_valid_signature(store_dir, keys) {
        return Trust::Signed;
    }
    if trusts_cache {
        return Trust::NotNeeded;
    }
    let is_known = |signature: &&NixSignature| keys.iter().any(|key| key.name == signature.key_name);
    let known = names(&mut narinfo.signatures().iter().filter(is_known));
    if !known.is_empty() {
        Trust::BadSignature(known)
    } else if narinfo.signatures().is_empty() {
        Trust::Unsigned
    } else {
        Trust::UnknownKeys(names(&mut narinfo.signatures().iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tests::info;

    fn stored() -> StoredNar {
        StoredNar {
            name: ObjectName::new("nar/x.nar.zst").expect("a name"),
            compression: Compression::Zstd,
            file_hash: NixHash::Sha256([1; 32]),
            file_size: 7,
        }
    }

    #[test]
    fn every_signature_is_kept_ours_added_and_no_key_named_twice() {
        let key = SigningKey::generate().expect("randomness");
        let mut info = info(1, &[0, 1]);
        let signature =
            |name: &str, byte: u8| NixSignature::from_bytes(name, &[byte; 64]).expect("a signature");
        info.signatures =
            vec![signature("a", 1), signature(key.name(), 2), signature("b", 3), signature("a", 4)];
        let store_dir = StoreDir::default();
        let narinfo = narinfo_of(&info, &stored(), &store_dir, Some(&key)).expect("a narinfo");
        let names: Vec<_> = narinfo.signatures().iter().map(|s| s.key_name.as_str()).collect();
        assert_eq!(names, [key.name(), "a", "b"]);
        assert!(narinfo.has_valid_signature(&store_dir, &[key.trusted()]));
        assert_eq!(narinfo.signatures()[1], signature("a", 1));
        let again = check(&narinfo.to_canonical_bytes(), &store_dir, &info.path, Syntax::EVERY_NIX)
            .expect("our own narinfo");
        assert_eq!(again, narinfo);
    }

    #[test]
    fn a_narinfo_is_not_believed_unread() {
        let store_dir = StoreDir::default();
        let info = info(1, &[]);
        let good = narinfo_of(&info, &stored(), &store_dir, None).expect("a narinfo");
        let text = String::from_utf8(good.to_canonical_bytes()).expect("text");
        let problem = |text: &str, path: &StorePath| {
            check(text.as_bytes(), &store_dir, path, Syntax::EVERY_NIX).expect_err("a problem").to_string()
        };
        assert!(problem("<html>\u{1b}[2J", &info.path).contains("\\u{1b}"));
        assert!(problem(&text, &crate::graph::tests::store_path(2)).contains("it describes"));
        for url in ["../../etc/passwd", "/etc/passwd", "https://elsewhere/x", "nar/\u{1b}"] {
            let moved = text.replace("nar/x.nar.zst", url);
            assert!(problem(&moved, &info.path).contains("leads out of the cache"), "{url}");
        }
        assert!(problem(&text.replace("/nix/store", "/gnu/store"), &info.path).contains("not a narinfo"));
    }

    #[test]
    fn what_nix_would_take_is_usable() {
        let key = SigningKey::generate().expect("randomness");
        let store_dir = StoreDir::default();
        let signed = narinfo_of(&info(1, &[]), &stored(), &store_dir, Some(&key)).expect("a narinfo");
        let unsigned = narinfo_of(&info(1, &[]), &stored(), &store_dir, None).expect("a narinfo");
        assert!(is_usable(&signed, &[key.trusted()], false));
        assert!(!is_usable(&signed, &[], false));
        assert!(!is_usable(&unsigned, &[key.trusted()], false));
        assert!(is_usable(&unsigned, &[], true));
    }
}
