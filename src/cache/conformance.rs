//! What every kind of cache must do alike: one suite, run against each.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use futures_util::future::join_all;

use super::*;
use crate::net::{HttpSettings, UploadBody};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("a name")
}

async fn put(cache: &dyn BinaryCache, object: &str, body: UploadBody) {
    let (length, sent) = (body.length(), AtomicU64::new(0));
    cache
        .put(&name(object), body, &|bytes| {
            sent.fetch_add(bytes, Ordering::SeqCst);
        })
        .await
        .expect("it is written");
    assert_eq!(sent.into_inner(), length, "{object}: what was sent is told");
}

async fn has(cache: &dyn BinaryCache, object: &str, content: &[u8]) {
    let found = cache.get(&name(object), 1 << 20).await;
    assert_eq!(found, Answer::Present(content.to_vec().into()), "{object}");
    let size = cache.size(&name(object)).await;
    assert_eq!(size, Answer::Present(Some(content.len() as u64)), "{object}");
}

fn bytes(content: &[u8]) -> UploadBody {
    UploadBody::Bytes(content.to_vec().into())
}

/// A cache that holds nothing yet does what [`BinaryCache`] says.
async fn conforms(cache: &dyn BinaryCache) {
    // What is not there is absent, however deep.
    for object in ["nix-cache-info", "x.narinfo", "nar/x.nar", "a/b/c"] {
        assert_eq!(cache.get(&name(object), 100).await, Answer::Absent, "{object}");
        assert_eq!(cache.size(&name(object)).await, Answer::Absent, "{object}");
    }

    // What is written is there, whole, beside and below others, and empty too.
    for (object, content) in
        [("x.narinfo", &b"one"[..]), ("nar/x.nar", b"two"), ("a/b/c", b""), ("a+b=c,@~_.-", b"\0\xff\n")]
    {
        put(cache, object, bytes(content)).await;
        has(cache, object, content).await;
    }

    // Files as well as bytes, larger than any buffer.
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).take(900_000).collect();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&content).expect("written");
    let (handle, path) = file.into_parts();
    for path in [None, Some(path.to_path_buf())] {
        let body = UploadBody::File {
            file: Arc::new(handle.try_clone().expect("a handle")),
            length: content.len() as u64,
            path,
        };
        put(cache, "nar/large.nar", body).await;
        has(cache, "nar/large.nar", &content).await;
    }

    // A limit is kept to the byte.
    assert_eq!(cache.get(&name("x.narinfo"), 3).await, Answer::Present(b"one".to_vec().into()));
    assert!(matches!(cache.get(&name("x.narinfo"), 2).await, Answer::Broken(_)));
    assert!(matches!(cache.get(&name("nar/large.nar"), 1000).await, Answer::Broken(_)));

    // What is written again replaces what was there; of several at once one wins, whole.
    put(cache, "x.narinfo", bytes(b"longer than before")).await;
    has(cache, "x.narinfo", b"longer than before").await;
    put(cache, "x.narinfo", bytes(b"short")).await;
    has(cache, "x.narinfo", b"short").await;
    let writers: Vec<Vec<u8>> = (0..8).map(|n| vec![b'0' + n; 50_000]).collect();
    join_all(writers.iter().map(|content| put(cache, "contended", bytes(content)))).await;
    let Answer::Present(found) = cache.get(&name("contended"), 1 << 20).await else { panic!("it is there") };
    assert!(writers.iter().any(|content| *content == found), "a mixture of {} bytes", found.len());

    // Many questions at once are each answered for themselves.
    let objects: Vec<ObjectName> = (0..2000).map(|n| name(&format!("many/{n}"))).collect();
    for object in objects.iter().step_by(7) {
        put(cache, object.as_str(), bytes(object.as_str().as_bytes())).await;
    }
    let answers = join_all(objects.iter().map(|object| cache.get(object, 100))).await;
    for (place, (object, answer)) in objects.iter().zip(answers).enumerate() {
        let expected = if place % 7 == 0 {
            Answer::Present(object.as_str().as_bytes().to_vec().into())
        } else {
            Answer::Absent
        };
        assert_eq!(answer, expected, "{object}");
    }
}

fn opened(url: &str) -> Arc<dyn BinaryCache> {
    let url = CacheUrl::parse(url, Path::new("/")).expect("a URL");
    open(&url, &Arc::new(HttpSettings::default())).expect("a cache")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("not/yet/there");
    conforms(opened(root.to_str().expect("a text")).as_ref()).await;
}

/// Objects in memory behind HTTP, below a prefix.
async fn serve(prefix: &str) -> String {
    type Objects = Arc<std::sync::Mutex<std::collections::HashMap<String, Body>>>;
    async fn handle(
        State(objects): State<Objects>,
        UrlPath(path): UrlPath<String>,
        method: Method,
        body: Body,
    ) -> axum::response::Response {
        let mut objects = objects.lock().expect("nobody panics");
        if method == Method::PUT {
            objects.insert(path, body);
            return StatusCode::CREATED.into_response();
        }
        match objects.get(&path) {
            // axum answers a HEAD with the length of what it leaves out.
            Some(body) => body.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}{prefix}", listener.local_addr().expect("an address"));
    let router = Router::new()
        .route(&format!("{prefix}/{{*path}}"), axum::routing::any(handle))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(Objects::default());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_server() {
    for prefix in ["", "/team/cache"] {
        conforms(opened(&serve(prefix).await).as_ref()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_measured() {
    let cache = measured::Measured::new(opened(&serve("").await));
    conforms(&cache).await;
    assert!(cache.health().requests > 2000);
}
