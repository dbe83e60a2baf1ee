//! Several connections to one server, where one does not hold enough requests.
//!
//! Over HTTP/1.1 the client has a pool, a connection for each open request. Over HTTP/2 it keeps one connection, on which the
//! server allows so many streams at a time (nginx 128, many others 100), and everything else waits. So there are as many
//! clients as the open requests need, each with its connection.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{Client, Version};

/// How many requests are open on a connection before another is made: what RFC 9113 §6.5.2 recommends servers to allow.
const STREAMS: usize = 100;

/// How many connections there are at most over HTTP/2.
const MOST: usize = 6;

/// How many requests are open at most over HTTP/1.1, each on its own connection.
const MOST_CONNECTIONS: usize = 256;

/// Makes another client like the first.
type MakeClient = Box<dyn Fn() -> reqwest::Result<Client> + Send + Sync>;

/// The connections to a server.
pub(super) struct Lanes {
    make: MakeClient,
    opened: Mutex<Vec<Arc<Lane>>>,
    /// Whether the server has answered over HTTP/2.
    is_http2: AtomicBool,
}

#[derive(Debug)]
struct Lane {
    client: Client,
    open: AtomicUsize,
}

/// A client for one request, which counts as open until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Lane>);

impl Place {
    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    /// How many requests can be open at a time, whatever the server speaks.
    pub(super) const REQUESTS: usize = STREAMS * MOST;

    /// One lane, and a way to make more.
    ///
    /// # Errors
    ///
    /// When no client can be made.
    pub(super) fn new(
        make: impl Fn() -> reqwest::Result<Client> + Send + Sync + 'static,
    ) -> reqwest::Result<Self> {
        let first = Arc::new(Lane { client: make()?, open: AtomicUsize::new(0) });
        Ok(Self { make: Box::new(make), opened: Mutex::new(vec![first]), is_http2: AtomicBool::new(false) })
    }

    /// Where to send the next request: over the first connection with room, or a new one, or the emptiest.
    pub(super) fn place(&self) -> Place {
        let mut lanes = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |lane: &Arc<Lane>| lane.open.load(Ordering::Relaxed);
        let has_room = |lane: &&Arc<Lane>| !self.is_http2.load(Ordering::Relaxed) || open(lane) < STREAMS;
        let lane = match lanes.iter().find(has_room) {
            Some(lane) => Arc::clone(lane),
            None => match if lanes.len() < MOST { (self.make)().ok() } else { None } {
                Some(client) => {
                    lanes.push(Arc::new(Lane { client, open: AtomicUsize::new(0) }));
                    Arc::clone(&lanes[lanes.len() - 1])
                }
                None => Arc::clone(lanes.iter().min_by_key(|lane| open(lane)).unwrap_or(&lanes[0])),
            },
        };
        lane.open.fetch_add(1, Ordering::Relaxed);
        Place(lane)
    }

    /// Notes what the server speaks; gives how many requests may be open at a time.
    pub(super) fn note(&self, version: Version) -> usize {
        let is_http2 = version == Version::HTTP_2;
        self.is_http2.store(is_http2, Ordering::Relaxed);
        if is_http2 { Self::REQUESTS } else { MOST_CONNECTIONS }
    }
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Lanes").field("opened", &self.opened).finish_non_exhaustive()
    }
}
