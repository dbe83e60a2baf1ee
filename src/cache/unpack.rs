//! Unpacks a NAR as it comes, and holds it against what its narinfo promises.
//!
//! The memory is bounded by the decoder's, which has a limit, whatever is sent: a NAR that unpacks to more than it may is left
//! at the first byte too many, and so is an object that is larger than it may be. Nothing is written anywhere.

use std::io::{self, BufRead, Read};

use bytes::{Buf as _, Bytes};
use nix_derivation::NixHash;
use nix_narinfo::{Compression, NarInfo};
use sha2::{Digest as _, Sha256};

use super::Words;
use crate::text::Printable;

/// How much is unpacked before it is hashed, in bytes.
const BUFFER: usize = 128 * 1024;

/// What a narinfo promises of its NAR.
#[derive(Clone, Debug)]
pub struct Promise {
    /// How it is compressed.
    pub compression: Compression,
    /// The hash of the object as it is stored.
    pub file_hash: Option<NixHash>,
    /// Its size as it is stored, in bytes.
    pub file_size: Option<u64>,
    /// The hash of the NAR.
    pub nar_hash: NixHash,
    /// Its size in bytes.
    pub nar_size: u64,
}

impl Promise {
    /// What a narinfo promises.
    pub fn of(narinfo: &NarInfo) -> Self {
        Self {
            compression: narinfo.compression().clone(),
            file_hash: narinfo.file_hash().cloned(),
            file_size: narinfo.file_size(),
            nar_hash: narinfo.nar_hash().clone(),
            nar_size: narinfo.nar_size(),
        }
    }

    /// How large the object may be: where its narinfo does not say, larger than its content only by what an encoder adds to
    /// what cannot be compressed.
    fn most(&self) -> u64 {
        match (self.file_size, &self.compression) {
            (Some(size), _) => size,
            (None, Compression::None) => self.nar_size,
            (None, _) => self.nar_size.saturating_add(self.nar_size / 8).saturating_add(1 << 20),
        }
    }
}

/// Why a NAR is not known to be what it should be. Words are the rest of a sentence that begins with "its NAR".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It has another size.
    WrongSize(String),
    /// It has another content.
    Damaged(String),
    /// This program cannot tell.
    NotChecked(String),
    /// Unpacking takes more memory than was allowed.
    NeedsMemory,
    /// It did not come as a whole.
    Cut(Words),
}

/// How much memory a decoder may take for what it has unpacked already, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// 8 MiB: what zstd takes up to level 19, and xz up to level 6.
    Usual,
    /// 128 MiB: the most that zstd, and so Nix, takes without being told to.
    Large,
}

impl Window {
    fn log(self) -> u32 {
        match self {
            Self::Usual => 23,
            Self::Large => 27,
        }
    }
}

/// Unpacks an object, and says what of the promise does not hold.
///
/// # Errors
///
/// The first flaw that was found.
pub fn check(
    pieces: impl Iterator<Item = Result<Bytes, Words>>,
    promise: &Promise,
    window: Window,
) -> Result<(), Flaw> {
    let hashes = promise.file_hash.iter().chain([&promise.nar_hash]);
    if let Some(other) = hashes.into_iter().find(|hash| !matches!(hash, NixHash::Sha256(_))) {
        let kind = other.algorithm();
        return Err(Flaw::NotChecked(format!(
            "this program checks SHA-256, and its narinfo has a hash by {kind}"
        )));
    }
    let mut input = Input {
        pieces,
        piece: Bytes::new(),
        size: 0,
        most: promise.most(),
        hash: Sha256::new(),
        failure: None,
    };
    let nar = unpack(&mut input, promise, window);
    if let Some(failure) = input.failure.take() {
        return Err(failure);
    }
    if matches!(nar, Err(Trouble::TooMuch | Trouble::NeedsMemory)) {
        // What else may come of it is of no interest.
        return Err(nar.err().map_or(Flaw::NeedsMemory, |trouble| trouble.flaw(promise)));
    }
    input.drain()?;
    if let Some(expected) = promise.file_size.filter(|expected| *expected != input.size) {
        return Err(Flaw::WrongSize(format!("has {} bytes instead of {expected}", input.size)));
    }
    let file_hash = NixHash::Sha256(input.hash.finalize().into());
    if promise.file_hash.as_ref().is_some_and(|expected| *expected != file_hash) {
        return Err(Flaw::Damaged("does not hash to its narinfo's FileHash".to_owned()));
    }
    let (size, hash) = nar.map_err(|trouble| trouble.flaw(promise))?;
    if size != promise.nar_size {
        return Err(Flaw::Damaged(format!("unpacks to {size} bytes instead of {}", promise.nar_size)));
    }
    if hash != promise.nar_hash {
        return Err(Flaw::Damaged("does not hash to its narinfo's NarHash when it is unpacked".to_owned()));
    }
    Ok(())
}

/// Why there is no NAR.
enum Trouble {
    /// There is more of it than there may be.
    TooMuch,
    NeedsMemory,
    /// Nobody here knows this compression.
    Unknown(String),
    Undecodable(String),
}

impl Trouble {
    fn flaw(self, promise: &Promise) -> Flaw {
        match self {
            Self::TooMuch => {
                Flaw::Damaged(format!("unpacks to more than the {} bytes of its narinfo", promise.nar_size))
            }
            Self::NeedsMemory => Flaw::NeedsMemory,
            Self::Unknown(name) => Flaw::NotChecked(format!(
                "its NAR is compressed by {name:?}, which this program cannot unpack"
            )),
            Self::Undecodable(words) => Flaw::Damaged(format!("does not unpack: {words}")),
        }
    }
}

/// The size and the hash of what an object unpacks to.
fn unpack<I: Iterator<Item = Result<Bytes, Words>>>(
    input: &mut Input<I>,
    promise: &Promise,
    window: Window,
) -> Result<(u64, NixHash), Trouble> {
    let trouble = |error: &io::Error| {
        let words = error.to_string();
        // The crates have no other way to tell.
        if ["too much memory", "memory limit"].iter().any(|sign| words.contains(sign)) {
            Trouble::NeedsMemory
        } else {
            Trouble::Undecodable(Printable(&words).to_string())
        }
    };
    let mut decoder = decoder(input, &promise.compression, window).map_err(|error| trouble(&error))?;
    let Some(decoder) = &mut decoder else {
        return Err(Trouble::Unknown(Printable(promise.compression.as_str()).to_string()));
    };
    let (mut size, mut hash) = (0u64, Sha256::new());
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = decoder.read(&mut buffer).map_err(|error| trouble(&error))?;
        if read == 0 {
            return Ok((size, NixHash::Sha256(hash.finalize().into())));
        }
        size += read as u64;
        if size > promise.nar_size {
            return Err(Trouble::TooMuch);
        }
        hash.update(&buffer[..read]);
    }
}

/// What unpacks; nothing for a compression that nobody here knows. Several streams one after the other are one, as for Nix.
fn decoder<'a, I: Iterator<Item = Result<Bytes, Words>>>(
    input: &'a mut Input<I>,
    compression: &Compression,
    window: Window,
) -> io::Result<Option<Box<dyn Read + 'a>>> {
    Ok(Some(match compression {
        Compression::None => Box::new(input),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(window.log())?;
            Box::new(decoder)
        }
        Compression::Xz => {
            // Besides the window, some of its own.
            let memory = (1 << window.log()) + (4 << 20);
            let stream = liblzma::stream::Stream::new_stream_decoder(memory, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Other(name) if name == "br" => {
            Box::new(brotli_decompressor::Decompressor::new(input, BUFFER))
        }
        Compression::Other(_) => return Ok(None),
    }))
}

/// An object as it comes: counted, hashed, and no larger than it may be.
struct Input<I> {
    pieces: I,
    piece: Bytes,
    size: u64,
    most: u64,
    hash: Sha256,
    /// Why nothing more is read, if not because it is at its end.
    failure: Option<Flaw>,
}

impl<I: Iterator<Item = Result<Bytes, Words>>> Input<I> {
    /// Reads what the decoder has left.
    fn drain(&mut self) -> Result<(), Flaw> {
        loop {
            let left = match self.fill_buf() {
                Ok(piece) => piece.len(),
                Err(_) => return Err(self.failure.take().unwrap_or(Flaw::NeedsMemory)),
            };
            if left == 0 {
                return Ok(());
            }
            self.consume(left);
        }
    }
}

impl<I: Iterator<Item = Result<Bytes, Words>>> BufRead for Input<I> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && self.failure.is_none() {
            match self.pieces.next() {
                None => break,
                Some(Err(words)) => self.failure = Some(Flaw::Cut(words)),
                Some(Ok(piece)) => {
                    self.size += piece.len() as u64;
                    if self.size > self.most {
                        let most = self.most;
                        self.failure =
                            Some(Flaw::WrongSize(format!("has more than the {most} bytes that it may have")));
                        break;
                    }
                    self.hash.update(&piece);
                    self.piece = piece;
                }
            }
        }
        if self.failure.is_some() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(&self.piece) }
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl<I: Iterator<Item = Result<Bytes, Words>>> Read for Input<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let read = piece.len().min(buffer.len());
        buffer[..read].copy_from_slice(&piece[..read]);
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn sha256(bytes: &[u8]) -> NixHash {
        NixHash::Sha256(Sha256::digest(bytes).into())
    }

    fn promise(nar: &[u8], file: &[u8], compression: Compression) -> Promise {
        Promise {
            compression,
            file_hash: Some(sha256(file)),
            file_size: Some(file.len() as u64),
            nar_hash: sha256(nar),
            nar_size: nar.len() as u64,
        }
    }

    /// Some text and some noise, packed in every way that there is an encoder for.
    fn packed() -> (Vec<u8>, Vec<(Compression, Vec<u8>)>) {
        let mut nar: Vec<u8> = b"nix-archive-1 ".repeat(20_000);
        nar.extend((0..100_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8));
        let zstd = zstd::encode_all(&nar[..], 3).expect("zstd");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&nar).expect("xz");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&nar).expect("gzip");
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
        bzip2.write_all(&nar).expect("bzip2");
        let all = vec![
            (Compression::None, nar.clone()),
            (Compression::Zstd, zstd),
            (Compression::Xz, xz.finish().expect("xz")),
            (Compression::Gzip, gzip.finish().expect("gzip")),
            (Compression::Bzip2, bzip2.finish().expect("bzip2")),
        ];
        (nar, all)
    }

    fn checked(file: &[u8], promise: &Promise) -> Result<(), Flaw> {
        let pieces = file.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        check(pieces, promise, Window::Usual)
    }

    #[test]
    fn what_is_as_promised_is_found_so_in_every_compression() {
        let (nar, all) = packed();
        for (compression, file) in all {
            let promise = promise(&nar, &file, compression.clone());
            assert_eq!(checked(&file, &promise), Ok(()), "{compression:?}");
        }
    }

    #[test]
    fn nothing_that_is_not_as_promised_passes() {
        let (nar, all) = packed();
        for (compression, file) in all {
            let sound = promise(&nar, &file, compression.clone());
            let mut flipped = file.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 1;
            let is_damaged = |found: Result<(), Flaw>| {
                assert!(matches!(found, Err(Flaw::Damaged(_))), "{compression:?}: {found:?}");
            };
            is_damaged(checked(&flipped, &sound));
            // A cache that made the narinfo for what it has.
            is_damaged(checked(&flipped, &promise(&nar, &flipped, compression.clone())));
            let silent = Promise { file_hash: None, file_size: None, ..sound.clone() };
            is_damaged(checked(&flipped, &silent));
            is_damaged(checked(&file[..file.len() - 20], &silent));
            is_damaged(checked(&[], &silent));
            is_damaged(checked(&file, &Promise { nar_size: sound.nar_size + 1, ..sound.clone() }));
            is_damaged(checked(&file, &Promise { nar_hash: sha256(b"x"), ..sound.clone() }));
            let cut = checked(&file[..file.len() - 20], &sound);
            assert!(matches!(cut, Err(Flaw::WrongSize(_))), "{compression:?}: {cut:?}");
            let longer = checked(&[&file[..], b"more"].concat(), &sound);
            assert!(matches!(longer, Err(Flaw::WrongSize(_))), "{compression:?}: {longer:?}");
        }
    }

    #[test]
    fn what_unpacks_without_end_is_left_at_once() {
        let bomb = zstd::encode_all(io::repeat(0).take(1 << 30), 3).expect("zstd");
        let mut taken = 0;
        let promise = Promise { nar_size: 1000, ..promise(b"", &bomb, Compression::Zstd) };
        let pieces = bomb.chunks(1000).inspect(|_| taken += 1).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let found = check(pieces, &promise, Window::Usual);
        assert_eq!(
            found,
            Err(Flaw::Damaged("unpacks to more than the 1000 bytes of its narinfo".to_owned()))
        );
        assert!(taken < 10, "{taken} of {}", bomb.len() / 1000);
    }

    #[test]
    fn what_packs_nothing_without_end_is_left_too() {
        // Frames of zstd that are skipped, one after the other.
        let frame = [&0x184D_2A50u32.to_le_bytes()[..], &1000u32.to_le_bytes(), &[0; 1000]].concat();
        let promise = Promise { file_size: None, file_hash: None, ..promise(b"nar", b"", Compression::Zstd) };
        let found = check(std::iter::repeat_with(|| Ok(frame.clone().into())), &promise, Window::Usual);
        assert!(matches!(found, Err(Flaw::WrongSize(_))), "{found:?}");
    }

    #[test]
    fn a_decoder_takes_no_more_memory_than_it_may() {
        let nar = vec![7; 20 << 20];
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("zstd");
        zstd.window_log(26).expect("a window");
        zstd.write_all(&nar).expect("zstd");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 8);
        xz.write_all(&nar).expect("xz");
        let all =
            [(Compression::Zstd, zstd.finish().expect("zstd")), (Compression::Xz, xz.finish().expect("xz"))];
        for (compression, file) in all {
            let promise = promise(&nar, &file, compression.clone());
            let pieces = || file.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece)));
            assert_eq!(check(pieces(), &promise, Window::Usual), Err(Flaw::NeedsMemory), "{compression:?}");
            assert_eq!(check(pieces(), &promise, Window::Large), Ok(()), "{compression:?}");
        }
    }

    #[test]
    fn what_is_not_known_or_did_not_come_is_neither_good_nor_bad() {
        let lzip = promise(b"nar", b"file", Compression::Other("lzip".to_owned()));
        assert!(matches!(checked(b"file", &lzip), Err(Flaw::NotChecked(words)) if words.contains("lzip")));
        assert!(matches!(checked(b"eile", &lzip), Err(Flaw::Damaged(_))));
        let sound = promise(b"nar", b"nar", Compression::None);
        let words = Words::from("gone".to_owned());
        let pieces = [Ok(Bytes::from_static(b"na")), Err(words.clone())].into_iter();
        assert_eq!(check(pieces, &sound, Window::Usual), Err(Flaw::Cut(words)));
    }
}
