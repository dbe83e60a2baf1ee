//! Request bodies that know their length, count what was sent, and can be sent again.

use std::io::Read as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// How much is handed to the connection at a time, in bytes.
const CHUNK: usize = 256 * 1024;

/// What a request sends.
#[derive(Clone, Debug)]
pub enum UploadBody {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, read as it is sent.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
}

impl UploadBody {
    /// The length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    /// A body for one attempt. `counter` grows as chunks are taken by the connection.
    pub(super) fn attempt(&self, counter: Arc<AtomicU64>) -> std::io::Result<CountedBody> {
        let source = match self {
            Self::Bytes(bytes) => Source::Bytes(bytes.clone()),
            Self::File { path, .. } => Source::File(std::fs::File::open(path)?),
        };
        Ok(CountedBody { source, left: self.length(), counter })
    }
}

enum Source {
    Bytes(Bytes),
    // Read in place: the file was written by this process moments ago and is in the page cache; a hop to another thread
    // for every chunk costs more than the read.
    File(std::fs::File),
}

/// A body of known length whose progress somebody else can watch.
pub(super) struct CountedBody {
    source: Source,
    left: u64,
    counter: Arc<AtomicU64>,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let body = self.get_mut();
        if body.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = usize::try_from(body.left).unwrap_or(usize::MAX).min(CHUNK);
        let chunk = match &mut body.source {
            Source::Bytes(bytes) => Ok(bytes.split_to(wanted)),
            Source::File(file) => {
                let mut chunk = vec![0; wanted];
                file.read_exact(&mut chunk).map(|()| Bytes::from(chunk))
            }
        };
        Poll::Ready(Some(chunk.map(|chunk| {
            body.left -= chunk.len() as u64;
            body.counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Frame::data(chunk)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
