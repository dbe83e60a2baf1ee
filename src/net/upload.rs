//! Request bodies that know their length, count what was sent, and can be sent again.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
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
        /// The file, open for reading.
        file: Arc<File>,
        /// Its length in bytes.
        length: u64,
        /// Its name, where it has one and may be renamed into a cache.
        path: Option<PathBuf>,
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
    pub(super) fn attempt(&self, counter: Arc<AtomicU64>) -> CountedBody {
        CountedBody { source: self.clone(), sent: 0, counter }
    }
}

/// A body of known length whose progress somebody else can watch.
pub(super) struct CountedBody {
    source: UploadBody,
    sent: u64,
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
        let left = body.source.length() - body.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let chunk = match &body.source {
            UploadBody::Bytes(bytes) => {
                let start = bytes.len() - usize::try_from(left).unwrap_or(0);
                Ok(bytes.slice(start..start + wanted))
            }
            // Read in place: the file was written by this process moments ago and is in the page cache; a hop to
            // another thread for every chunk costs more than the read.
            UploadBody::File { file, .. } => {
                let mut chunk = vec![0; wanted];
                file.read_exact_at(&mut chunk, body.sent).map(|()| Bytes::from(chunk))
            }
        };
        Poll::Ready(Some(chunk.map(|chunk| {
            body.sent += chunk.len() as u64;
            body.counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Frame::data(chunk)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.source.length()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.source.length() - self.sent)
    }
}
