//! Thousands of questions at once: over HTTP/1.1 and HTTP/2, to servers that close connections, that are far away, that have
//! too much to do, and that are dead.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::Value;

use crate::support::busy::{Busy, Temper};
use crate::support::delay;
use crate::support::graphs::{document, instantiate};
use crate::support::nginx::Nginx;
use crate::support::nix::{Store, a_nix, base};
use crate::support::program::Run;
use crate::support::tls::Tls;

/// More than nginx answers on one connection, several times.
const COUNT: usize = 2500;

/// A build graph, and a cache that has all of it, each path with references to what its derivation needs.
struct Graph {
    store: Store,
    drv: String,
    cache: PathBuf,
    outputs: usize,
}

impl Graph {
    fn new(count: usize) -> Self {
        let store = Store::new(a_nix());
        let drv = instantiate(&store, count, 40);
        let cache = store.scratch.dir("cache");
        fs::write(cache.join("nix-cache-info"), format!("StoreDir: {}\n", store.dir_text())).unwrap();
        let mut paths: BTreeMap<(String, String), String> = BTreeMap::new();
        for one in document(&store, &[&drv])["derivations"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let mut references = Vec::new();
            for input in one["inputs"].as_array().unwrap() {
                for output in input["outputs"].as_array().unwrap() {
                    references.push(base(&paths[&(text(&input["drv"]), text(output))]).to_owned());
                }
            }
            for output in one["outputs"].as_array().unwrap() {
                let path = text(&output["path"]);
                write_narinfo(&cache, &path, &references);
                paths.insert((text(&one["drv"]), text(&output["name"])), path);
            }
        }
        Self { store, drv, cache, outputs: paths.len() }
    }

    fn audit(&self, url: &str) -> Run {
        let run = Run::new(&self.store).args(["audit", "--json", &self.drv, "--cache", url]);
        run.args(["--option", "require-sigs", "false"])
    }

    /// Audits a server that has everything, and must find everything.
    #[track_caller]
    fn finds_all(&self, url: &str, with: impl FnOnce(Run) -> Run) -> Value {
        let report = with(self.audit(url)).run().expect(0).json();
        assert_eq!(
            (&report["totals"]["hits"], &report["totals"]["inconclusive"]),
            (&COUNT.into(), &0.into()),
            "{}",
            report["caches"]
        );
        report
    }
}

/// An unsigned narinfo; the NAR behind it does not exist.
fn write_narinfo(cache: &Path, path: &str, references: &[String]) {
    let hash = "0".repeat(52);
    let text = format!(
        "StorePath: {path}\nURL: nar/{hash}.nar\nCompression: none\nFileHash: sha256:{hash}\nFileSize: 1\n\
         NarHash: sha256:{hash}\nNarSize: 1\nReferences: {}\n",
        references.join(" ")
    );
    fs::write(cache.join(format!("{}.narinfo", &base(path)[..32])), text).unwrap();
}

/// How often each path was asked for, by the protocol that it was asked over, as nginx wrote it down.
fn asked(log: &Path) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut paths, mut protocols) = (BTreeMap::new(), BTreeMap::new());
    for line in fs::read_to_string(log).unwrap().lines() {
        let request = line.split('"').nth(1).unwrap();
        let [_, path, protocol] = request.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        *paths.entry(path.to_owned()).or_default() += 1;
        *protocols.entry(protocol.to_owned()).or_default() += 1;
    }
    (paths, protocols)
}

#[test]
fn connections_that_end_after_a_thousand_requests_lose_no_answer() {
    let graph = Graph::new(COUNT);
    let tls = Tls::new(&graph.store.scratch);
    for (protocol, is_tls) in [("HTTP/1.1", false), ("HTTP/2.0", true)] {
        let log = graph.store.scratch.join("access.log");
        let mut more = format!("access_log {} combined;", log.display());
        if is_tls {
            let (certificate, key) = (tls.certificate.display(), tls.key.display());
            more.push_str(&format!("ssl_certificate {certificate}; ssl_certificate_key {key};"));
        }
        let nginx =
            if is_tls { Nginx::over_tls(&graph.cache, &more) } else { Nginx::new(&graph.cache, &more) };
        let report = graph.finds_all(&nginx.url, |run| run.env("NIX_SSL_CERT_FILE", &tls.authority));
        // It writes its log when it ends at the latest.
        drop(nginx);
        let (paths, protocols) = asked(&log);
        assert_eq!(protocols.keys().collect::<Vec<_>>(), [protocol]);
        let narinfos = paths.keys().filter(|path| path.ends_with(".narinfo")).count();
        // Some outputs nobody wants, and guesses never ask for those.
        assert!((COUNT..=graph.outputs).contains(&narinfos), "{narinfos} of {}", graph.outputs);
        assert_eq!(report["caches"][0]["requests"], paths.len());
        fs::remove_file(log).unwrap();
    }
}

#[test]
fn a_server_far_away_costs_few_round_trips() {
    let graph = Graph::new(COUNT);
    let nginx = Nginx::new(&graph.cache, "");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = nginx.url.trim_start_matches("http://").parse().unwrap();
    // So far that everything else is nothing beside it.
    let round_trip = Duration::from_millis(400);
    drop(runtime.spawn(delay::serve(listener, to, round_trip)));
    let began = Instant::now();
    graph.finds_all(&url, |run| run);
    let round_trips = began.elapsed().div_duration_f64(round_trip);
    // The graph has 63 levels. On a machine with nothing else to do it takes 17 round trips.
    assert!(round_trips < 40.0, "{round_trips:.1} round trips");
}

#[test]
fn a_server_that_has_too_much_to_do_is_asked_less_and_answers_everything() {
    let store = Store::new(a_nix());
    let count = 600;
    let drv = instantiate(&store, count, 40);
    for (refusal, retry_after) in [
        (StatusCode::TOO_MANY_REQUESTS, None),
        (StatusCode::TOO_MANY_REQUESTS, Some("1")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("0")),
    ] {
        let temper = Temper { at_a_time: 8, takes: Duration::from_millis(5), refusal, retry_after };
        let server = Busy::new(&store.dir_text(), temper);
        let run = Run::new(&store).args(["audit", "--json", &drv, "--cache", &server.url]);
        let report = run.run().expect(0).json();
        let totals = &report["totals"];
        assert_eq!(totals["inconclusive"], 0, "{refusal} {retry_after:?}: {}", report["caches"]);
        assert_eq!(
            totals["misses"].as_u64().unwrap() + totals["fixedOutput"].as_u64().unwrap(),
            count as u64
        );
        assert!(server.refused() > 0 && server.most() > 8, "it was never pressed");
        assert!(server.answered().values().all(|times| *times == 1));
        // Pressed hard once, and then carefully.
        assert!(server.refused() < 4 * count, "{} refusals", server.refused());
    }
}

#[test]
fn a_server_that_takes_no_connection_costs_one_timeout() {
    let store = Store::new(a_nix());
    let drv = instantiate(&store, 200, 40);
    // A listener whose queue is full: the kernel does not answer any more.
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address: std::net::SocketAddr = rustix::net::getsockname(&listener).unwrap().try_into().unwrap();
    let _queue: Vec<_> = std::iter::from_fn(|| {
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()
    })
    .take(64)
    .collect();
    let timeout = Duration::from_secs(3);
    let began = Instant::now();
    let run = Run::new(&store).args(["audit", "--json", "--timeout", "3", &drv]);
    let report = run.args(["--cache", &format!("http://{address}")]).run().expect(0).json();
    assert_eq!(report["caches"][0]["status"], "unreachable");
    assert_eq!((&report["totals"]["misses"], &report["totals"]["hits"]), (&0.into(), &0.into()));
    let answers = &report["derivations"][0]["outputs"][0]["answers"][0];
    assert_eq!(answers["answer"], "unreachable", "{answers}");
    assert!(began.elapsed() < timeout * 2, "{:?}", began.elapsed());
}
