//! A cache without a single path, that can do only so much at a time and says so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use tokio::net::TcpListener;

/// What the server is like.
#[derive(Clone, Debug)]
pub(crate) struct Temper {
    /// How many requests it works on at a time; the others are refused.
    pub(crate) at_a_time: usize,
    /// How long it works on one.
    pub(crate) takes: Duration,
    /// The status of a refusal.
    pub(crate) refusal: StatusCode,
    /// The refusal's `Retry-After`.
    pub(crate) retry_after: Option<&'static str>,
}

#[derive(Debug)]
struct Shared {
    store_dir: String,
    temper: Temper,
    open: AtomicUsize,
    most: AtomicUsize,
    refused: AtomicUsize,
    answered: Mutex<BTreeMap<String, usize>>,
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Busy {
    shared: Arc<Shared>,
    /// `http://address:port`.
    pub(crate) url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Busy {
    /// An empty cache for a store directory.
    pub(crate) fn new(store_dir: &str, temper: Temper) -> Self {
        let shared = Arc::new(Shared {
            store_dir: store_dir.to_owned(),
            temper,
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            answered: Mutex::default(),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        drop(runtime.spawn(async move { axum::serve(listener, router).await }));
        Self { shared, url, _runtime: runtime }
    }

    /// How many requests were open at once at most.
    pub(crate) fn most(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// How many requests were refused.
    pub(crate) fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// How often each path was answered.
    pub(crate) fn answered(&self) -> BTreeMap<String, usize> {
        self.shared.answered.lock().unwrap().clone()
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> axum::response::Response {
    if request.uri().path() == "/nix-cache-info" {
        return format!("StoreDir: {}\n", shared.store_dir).into_response();
    }
    let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most.fetch_max(open, Ordering::SeqCst);
    let temper = &shared.temper;
    let response = if open > temper.at_a_time {
        shared.refused.fetch_add(1, Ordering::SeqCst);
        let mut headers = HeaderMap::new();
        if let Some(seconds) = temper.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.parse().unwrap());
        }
        (temper.refusal, headers).into_response()
    } else {
        tokio::time::sleep(temper.takes).await;
        *shared.answered.lock().unwrap().entry(request.uri().path().to_owned()).or_default() += 1;
        StatusCode::NOT_FOUND.into_response()
    };
    shared.open.fetch_sub(1, Ordering::SeqCst);
    response
}
