//! A store object as a compressed NAR, read once: encoded, hashed, compressed and hashed again in one pass.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix_archive::nar::{CaseHack, encode_path};
use nix_derivation::NixHash;
use nix_narinfo::Compression;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::spool::{Content, Spool, SpoolFailure};
use crate::cache::ObjectName;
use crate::cache::narinfo::StoredNar;
use crate::event::Progress;
use crate::graph::PathInfo;
use crate::net::UploadBody;
use crate::text::Printable;

/// How much of a NAR is gathered before it is hashed and compressed, in bytes: its small tokens one by one are slow.
const BUFFER: usize = 128 * 1024;

/// How NARs are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Zstandard: fast, and what every Nix since 2.4 reads.
    Zstd,
    /// XZ: a third smaller and a hundred times slower.
    Xz,
    /// Not at all.
    None,
}

impl Method {
    /// The level that is used where none is asked for.
    pub fn default_level(self) -> i32 {
        match self {
            Self::Zstd => 3,
            Self::Xz => 6,
            Self::None => 0,
        }
    }

    /// The levels that there are.
    pub fn levels(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::Zstd => -7..=22,
            Self::Xz => 0..=9,
            Self::None => 0..=0,
        }
    }

    fn narinfo_name(self) -> Compression {
        match self {
            Self::Zstd => Compression::Zstd,
            Self::Xz => Compression::Xz,
            Self::None => Compression::None,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Zstd => ".nar.zst",
            Self::Xz => ".nar.xz",
            Self::None => ".nar",
        }
    }
}

/// How to pack.
#[derive(Clone, Debug)]
pub struct PackSettings {
    /// How to compress.
    pub method: Method,
    /// How hard, in the method's own levels.
    pub level: i32,
    /// Up to how many compressed bytes are kept in memory; what is larger goes to a file.
    pub in_memory: usize,
    /// Where such files are made.
    pub staging: PathBuf,
    /// Whether such files get a name, by which a file cache can rename them into place. A file without one is gone when
    /// the program is, however it ends.
    pub named: bool,
    /// Turns true when nobody wants the NAR any more.
    pub interrupted: watch::Receiver<bool>,
}

/// A compressed NAR, ready to be uploaded.
#[derive(Debug)]
pub struct PackedNar {
    /// What its narinfo will say of it.
    pub stored: StoredNar,
    content: Content,
}

impl PackedNar {
    /// What to send. A file lives as long as `self` does.
    pub fn body(&self) -> UploadBody {
        match &self.content {
            Content::Memory(bytes) => UploadBody::Bytes(bytes.clone()),
            Content::Named(file, path) => UploadBody::File {
                file: Arc::clone(file),
                length: self.stored.file_size,
                path: Some(path.to_path_buf()),
            },
            Content::Unnamed(file) => {
                UploadBody::File { file: Arc::clone(file), length: self.stored.file_size, path: None }
            }
        }
    }
}

/// Why a path was not packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Its files are not what the store registered: damaged, or changed after the build.
    #[error(
        "its content does not match the store's registration: NAR hash {found} ({found_size} bytes), \
         registered {registered} ({registered_size} bytes)"
    )]
    Mismatch {
        /// Hash of what is there.
        found: String,
        /// Its size in bytes.
        found_size: u64,
        /// Hash that was registered.
        registered: String,
        /// Size that was registered.
        registered_size: u64,
    },
    /// Its files cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The store path.
        path: String,
        /// Why.
        reason: String,
    },
    /// There is no room for the compressed NAR.
    #[error("cannot write a temporary file in {directory}: {source}")]
    Staging {
        /// Where.
        directory: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody wanted to stop.
    #[error("packing was abandoned")]
    Abandoned,
    /// The compressor refused.
    #[error("cannot compress: {0}")]
    Compress(#[source] io::Error),
}

/// Packs the object at `real_path`, which is registered as `info`. Blocks; meant for a thread of its own.
///
/// # Errors
///
/// When the files cannot be read, do not hash to what is registered, or there is no room.
pub fn pack(
    info: &PathInfo,
    real_path: &Path,
    settings: &PackSettings,
    progress: &Progress,
) -> Result<PackedNar, PackError> {
    let spool = Hashing::new(Spool::new(settings));
    let compressor = Compressor::new(spool, settings).map_err(PackError::Compress)?;
    let interrupted = &settings.interrupted;
    let counting = Counting { inner: Hashing::new(compressor), progress, interrupted };
    let mut nar = BufWriter::with_capacity(BUFFER, counting);
    encode_path(&mut nar, real_path, CaseHack::native()).map_err(|error| match error {
        nix_archive::nar::Error::Io(error) => io_error(error, settings, real_path),
        other => unreadable(real_path, &other),
    })?;
    let nar = nar.into_inner().map_err(|error| io_error(error.into_error(), settings, real_path))?;
    let (nar_digest, nar_size, compressor) = nar.inner.finish();
    let nar_hash = NixHash::Sha256(nar_digest);
    if nar_hash != info.nar_hash || nar_size != info.nar_size {
        return Err(PackError::Mismatch {
            found: nar_hash.to_nix_nixbase32_string(),
            found_size: nar_size,
            registered: info.nar_hash.to_nix_nixbase32_string(),
            registered_size: info.nar_size,
        });
    }
    let spool = compressor.finish().map_err(|error| io_error(error, settings, real_path))?;
    let (file_digest, file_size, spool) = spool.finish();
    Ok(PackedNar {
        stored: StoredNar {
            name: ObjectName::nar(&file_digest, settings.method.extension()),
            compression: settings.method.narinfo_name(),
            file_hash: NixHash::Sha256(file_digest),
            file_size,
        },
        content: spool.into_content(),
    })
}

/// Tells a failure of the spool, which means a full disk, from one of the files that are read.
fn io_error(error: io::Error, settings: &PackSettings, real_path: &Path) -> PackError {
    match error.downcast::<SpoolFailure>() {
        Ok(SpoolFailure(source)) => {
            PackError::Staging { directory: settings.staging.display().to_string(), source }
        }
        Err(error) => match error.get_ref() {
            Some(inner) if inner.is::<Abandoned>() => PackError::Abandoned,
            _ => unreadable(real_path, &error),
        },
    }
}

fn unreadable(real_path: &Path, reason: &dyn std::fmt::Display) -> PackError {
    // The reason may name a file inside the object, and file names may hold anything.
    let reason = Printable(&reason.to_string()).to_string();
    PackError::Unreadable { path: real_path.display().to_string(), reason }
}

/// Hashes what passes through.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    fn finish(self) -> ([u8; 32], u64, W) {
        (self.hasher.finalize().into(), self.size, self.inner)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Counts what passes through for whoever watches, until nobody wants it any more.
struct Counting<'a, W> {
    inner: W,
    progress: &'a Progress,
    interrupted: &'a watch::Receiver<bool>,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if *self.interrupted.borrow() {
            return Err(io::Error::other(Abandoned));
        }
        let written = self.inner.write(buffer)?;
        self.progress.add_packed(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

enum Compressor {
    // Boxed, as they are large and of different size.
    Zstd(Box<zstd::Encoder<'static, Hashing<Spool>>>),
    Xz(Box<liblzma::write::XzEncoder<Hashing<Spool>>>),
    None(Box<Hashing<Spool>>),
}

impl Compressor {
    fn new(spool: Hashing<Spool>, settings: &PackSettings) -> io::Result<Self> {
        Ok(match settings.method {
            Method::Zstd => {
                let mut encoder = zstd::Encoder::new(spool, settings.level)?;
                // 4 bytes that let any reader find a damaged download before Nix hashes it.
                encoder.include_checksum(true)?;
                Self::Zstd(Box::new(encoder))
            }
            Method::Xz => {
                let level = u32::try_from(settings.level).unwrap_or(6);
                Self::Xz(Box::new(liblzma::write::XzEncoder::new(spool, level)))
            }
            Method::None => Self::None(Box::new(spool)),
        })
    }

    fn finish(self) -> io::Result<Hashing<Spool>> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
            Self::None(spool) => Ok(*spool),
        }
    }
}

impl Write for Compressor {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(encoder) => encoder.write(buffer),
            Self::Xz(encoder) => encoder.write(buffer),
            Self::None(spool) => spool.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is to be seen before the end; flushing would only cost compression.
        Ok(())
    }
}

/// Nobody wants the NAR any more; told apart from other I/O errors by its type.
#[derive(Debug, thiserror::Error)]
#[error("packing was abandoned")]
struct Abandoned;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use super::*;

    fn settings(method: Method, in_memory: usize, staging: &Path) -> PackSettings {
        PackSettings {
            method,
            level: method.default_level(),
            in_memory,
            staging: staging.to_owned(),
            named: true,
            interrupted: watch::channel(false).1,
        }
    }

    /// A directory with a file in it, and its registration.
    fn object(content: &[u8]) -> (tempfile::TempDir, PathBuf, PathInfo) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("object");
        fs::create_dir(&path).expect("a directory");
        fs::write(path.join("file"), content).expect("a file");
        let hash = nix_archive::nar::hash_path(&path, CaseHack::native()).expect("a NAR");
        let (nar_size, digest) = hash.into_parts();
        let mut info = crate::graph::tests::info(1, &[]);
        info.nar_hash = NixHash::Sha256(digest);
        info.nar_size = nar_size;
        (directory, path, info)
    }

    fn stored_bytes(packed: &PackedNar) -> Vec<u8> {
        match packed.body() {
            UploadBody::Bytes(bytes) => bytes.to_vec(),
            UploadBody::File { path, length, .. } => {
                let bytes = fs::read(path.expect("a name")).expect("a file");
                assert_eq!(bytes.len() as u64, length);
                bytes
            }
        }
    }

    #[test]
    fn every_method_gives_the_same_nar_back_from_memory_and_from_a_file() {
        let content: Vec<u8> =
            (0..200_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) % 251).to_le_bytes()).collect();
        let (directory, path, info) = object(&content);
        let mut expected = Vec::new();
        encode_path(&mut expected, &path, CaseHack::native()).expect("a NAR");
        for method in [Method::Zstd, Method::Xz, Method::None] {
            for in_memory in [usize::MAX, 10] {
                let progress = Progress::default();
                let settings = settings(method, in_memory, directory.path());
                let packed = pack(&info, &path, &settings, &progress).expect("packed");
                assert_eq!(matches!(packed.content, Content::Named(..)), in_memory == 10);
                let bytes = stored_bytes(&packed);
                assert_eq!(packed.stored.file_size, bytes.len() as u64);
                assert_eq!(packed.stored.file_hash, NixHash::Sha256(Sha256::digest(&bytes).into()));
                let mut nar = Vec::new();
                match method {
                    Method::Zstd => zstd::stream::copy_decode(&*bytes, &mut nar).expect("zstd"),
                    Method::Xz => {
                        liblzma::read::XzDecoder::new(&*bytes).read_to_end(&mut nar).map(|_| ()).expect("xz");
                    }
                    Method::None => nar = bytes,
                }
                assert!(nar == expected, "{method:?}");
                assert_eq!(progress.packed(), expected.len() as u64);
            }
        }
        assert_eq!(
            fs::read_dir(directory.path()).expect("a directory").count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn one_flipped_bit_is_found() {
        let (directory, path, info) = object(b"content");
        fs::write(path.join("file"), b"contenu").expect("a file");
        let settings = settings(Method::Zstd, 1024, directory.path());
        let error = pack(&info, &path, &settings, &Progress::default()).expect_err("a mismatch");
        assert!(matches!(error, PackError::Mismatch { .. }), "{error}");
    }

    #[test]
    fn a_vanished_path_and_a_missing_staging_directory_are_told_apart() {
        let (directory, path, info) = object(&vec![7; 1_000_000]);
        let missing = directory.path().join("missing");
        let settings = settings(Method::None, 10, &missing);
        let error = pack(&info, &path, &settings, &Progress::default()).expect_err("no room");
        assert!(matches!(error, PackError::Staging { .. }), "{error}");
        fs::remove_dir_all(&path).expect("removed");
        let error = pack(&info, &path, &settings, &Progress::default()).expect_err("no files");
        assert!(matches!(error, PackError::Unreadable { .. }), "{error}");
    }
}
