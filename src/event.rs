//! Everything that the work may say to whoever watches: one enum of owned data.
//!
//! The work emits events and knows nothing of terminals; [`crate::ui`] draws them. Because they are plain data they can
//! be recorded as JSON lines and played back. Byte progress is not an event a chunk but a pair of counters in
//! [`Progress`], which the drawing side samples.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::plan::Tally;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Event {
    /// A step began that takes long enough for somebody to wonder.
    Step {
        /// What is being done, as a sentence without a full stop.
        what: String,
    },
    /// A cache is being asked what it holds.
    LookupStarted {
        /// The cache, or several of them.
        cache: String,
        /// How many paths will be asked for, as far as is known.
        paths: usize,
    },
    /// More will be asked than was known at first.
    LookupGrew {
        /// The cache.
        cache: String,
        /// How many paths more.
        paths: usize,
    },
    /// An answer came.
    LookupAnswered {
        /// The cache.
        cache: String,
    },
    /// All answers of a cache came.
    LookupFinished {
        /// The cache.
        cache: String,
        /// How many paths it serves.
        held: usize,
    },
    /// One more NAR will be downloaded.
    NarWanted {
        /// The size of the download in bytes, as far as it is known.
        file_bytes: u64,
    },
    /// A NAR is being downloaded.
    NarStarted {
        /// Base name of the path.
        path: String,
    },
    /// A NAR was downloaded, or could not be.
    NarEnded {
        /// Base name of the path.
        path: String,
    },
    /// What will be done with a target.
    Planned {
        /// The target.
        target: String,
        /// The whole closure.
        closure: Tally,
        /// What the target serves already.
        present: Tally,
        /// What a declared upstream serves.
        upstream: Tally,
        /// What a filter leaves out.
        excluded: Tally,
        /// What is withheld because of that.
        blocked: Tally,
        /// What will move.
        push: Tally,
    },
    /// A path is being packed.
    PathStarted {
        /// Base name of the path.
        path: String,
        /// Its NAR's size in bytes.
        nar_bytes: u64,
    },
    /// A path is in the target, narinfo and all.
    PathPushed {
        /// Base name of the path.
        path: String,
        /// Its NAR's size in bytes.
        nar_bytes: u64,
        /// What was stored for it, in bytes, compressed.
        file_bytes: u64,
    },
    /// A path could not be pushed.
    PathFailed {
        /// Base name of the path.
        path: String,
        /// Why.
        error: String,
    },
    /// A path is withheld because something it refers to failed.
    PathBlocked {
        /// Base name of the path.
        path: String,
        /// Base name of the path that failed.
        by: String,
    },
    /// The closure is being read back.
    VerifyStarted {
        /// The target.
        target: String,
    },
    /// Somebody should know, and the work goes on.
    Warning {
        /// One sentence.
        message: String,
    },
}

/// Bytes done so far, counted by the work and sampled by whoever draws.
#[derive(Debug, Default)]
pub struct Progress {
    packed: AtomicU64,
    sent: AtomicU64,
    delivered: AtomicU64,
    received: AtomicU64,
}

impl Progress {
    /// Counts NAR bytes that were read and compressed.
    pub fn add_packed(&self, bytes: u64) {
        self.packed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts compressed bytes that were handed to a target.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts NAR bytes whose compressed form is in a target.
    pub fn add_delivered(&self, nar_bytes: u64) {
        self.delivered.fetch_add(nar_bytes, Ordering::Relaxed);
    }

    /// Counts bytes of NARs that came from a cache.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of NARs that came from caches so far, including what had to be sent again.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// NAR bytes packed so far.
    pub fn packed(&self) -> u64 {
        self.packed.load(Ordering::Relaxed)
    }

    /// NAR bytes that have arrived so far, in proportion to what was sent of their compressed form.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Compressed bytes sent so far, including what had to be sent again.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Takes events, in the order in which they happened.
pub trait Sink: Send + Sync {
    /// Takes one event. Must not block for long: the work waits for it.
    fn emit(&self, event: Event);
}

/// Where the work reports to: a sink for events and the byte counters.
#[derive(Clone)]
pub struct Reporter {
    sink: Arc<dyn Sink>,
    progress: Arc<Progress>,
}

impl Reporter {
    /// Reports to `sink`, counting in `progress`.
    pub fn new(sink: Arc<dyn Sink>, progress: Arc<Progress>) -> Self {
        Self { sink, progress }
    }

    /// Reports to nobody.
    pub fn silent() -> Self {
        Self::new(Arc::new(Silence), Arc::default())
    }

    /// Hands an event over.
    pub fn emit(&self, event: Event) {
        self.sink.emit(event);
    }

    /// Says something that somebody should know.
    pub fn warn(&self, message: impl Into<String>) {
        self.emit(Event::Warning { message: message.into() });
    }

    /// The byte counters.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reporter").field("progress", &self.progress).finish_non_exhaustive()
    }
}

struct Silence;

impl Sink for Silence {
    fn emit(&self, _event: Event) {}
}
