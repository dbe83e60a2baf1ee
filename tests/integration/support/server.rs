//! An HTTP binary cache over a directory, in this process: GET, HEAD and PUT. It writes down every request in order,
//! and can be told to do anything else instead (`faults.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{fs, io};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use futures_util::stream::{self, StreamExt as _};
use tokio::net::TcpListener;

use super::LIMIT;
use super::cache::hash_part;
use super::faults::{Answer, Kind, Rule};
use super::scratch::files_below;
use super::wire::{Door, Peer};

/// One request and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// `GET`, `HEAD`, `PUT`, ….
    pub(crate) method: String,
    /// The path, from `/`.
    pub(crate) path: String,
    /// The request's headers; names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// When it came.
    pub(crate) at: Instant,
    /// When it began, as a place in one order of beginnings and endings.
    pub(crate) began: usize,
    /// When it ended, in that order.
    pub(crate) ended: Option<usize>,
    /// What was answered.
    pub(crate) status: Option<u16>,
    /// The body of a narinfo that was stored.
    pub(crate) narinfo: String,
}

impl Exchange {
    /// What it is about.
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(&self.path)
    }

    /// Whether it is a PUT of a kind.
    pub(crate) fn puts(&self, kind: Kind) -> bool {
        self.method == "PUT" && self.kind() == kind
    }
}

#[derive(Debug, Default)]
struct Log {
    exchanges: Vec<Exchange>,
    clock: usize,
    rules: Vec<(Rule, usize)>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    incoming: PathBuf,
    before: BTreeSet<String>,
    log: Mutex<Log>,
    news: Condvar,
    login: Mutex<Option<(String, Rule)>>,
    sent: AtomicUsize,
    number: AtomicUsize,
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    /// `http://address:port`, without a slash at the end.
    pub(crate) url: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// Serves a directory, which is made if need be, at 127.0.0.1.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::at("127.0.0.1", dir)
    }

    /// Serves a directory at an address of this machine.
    pub(crate) fn at(address: &str, dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let incoming = dir.with_extension("incoming");
        fs::create_dir_all(&incoming).unwrap();
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            incoming,
            before: files_below(dir).into_iter().collect(),
            log: Mutex::default(),
            news: Condvar::new(),
            login: Mutex::default(),
            sent: AtomicUsize::new(0),
            number: AtomicUsize::new(0),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((address, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<Peer>();
        drop(runtime.spawn(async move { axum::serve(Door(listener), service).await }));
        Self { shared, url: format!("http://{address}:{port}"), runtime: Some(runtime) }
    }

    /// Adds a rule; the first that fits decides.
    pub(crate) fn rule(&self, rule: Rule) -> &Self {
        self.shared.log.lock().unwrap().rules.push((rule, 0));
        self
    }

    /// Takes all rules away.
    pub(crate) fn heal(&self) {
        self.shared.log.lock().unwrap().rules.clear();
    }

    /// Requires this `Authorization` header for everything.
    pub(crate) fn require_login(&self, header: &str) {
        let refusal = Answer::status(401).header("www-authenticate", "Basic realm=\"test\"");
        self.without_login(header, Rule::all(refusal));
    }

    /// Requests that the rule fits are answered by it unless they have this `Authorization` header. (Its counts do not count.)
    pub(crate) fn without_login(&self, header: &str, rule: Rule) {
        *self.shared.login.lock().unwrap() = Some((header.to_owned(), rule));
    }

    /// What was asked, also for hooks.
    pub(crate) fn witness(&self) -> Witness {
        Witness(Arc::clone(&self.shared))
    }

    /// All exchanges so far.
    pub(crate) fn log(&self) -> Vec<Exchange> {
        self.witness().log()
    }

    /// How many requests fit.
    pub(crate) fn count(&self, fits: impl Fn(&Exchange) -> bool) -> usize {
        self.log().iter().filter(|exchange| fits(exchange)).count()
    }

    /// Waits until the log is as wanted.
    #[track_caller]
    pub(crate) fn wait_until(&self, wanted: impl Fn(&[Exchange]) -> bool) {
        self.witness().wait_until(wanted);
    }

    /// How many body bytes of an endless answer were taken by the other side.
    pub(crate) fn endless_bytes(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

/// Sees what a server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Witness(Arc<Shared>);

impl Witness {
    /// All exchanges so far.
    pub(crate) fn log(&self) -> Vec<Exchange> {
        self.0.log.lock().unwrap().exchanges.clone()
    }

    /// Waits until the log is as wanted.
    #[track_caller]
    pub(crate) fn wait_until(&self, wanted: impl Fn(&[Exchange]) -> bool) {
        let start = Instant::now();
        let mut log = self.0.log.lock().unwrap();
        while !wanted(&log.exchanges) {
            let left = LIMIT.checked_sub(start.elapsed());
            let left = left.unwrap_or_else(|| panic!("it did not happen: {:#?}", log.exchanges));
            log = self.0.news.wait_timeout(log, left).unwrap().0;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Hooks may hold on to what they watch.
        self.heal();
        if let Some(runtime) = self.runtime.take() {
            // What a client that is gone now has sent whole may still be on its way into the directory.
            runtime.shutdown_timeout(LIMIT);
        }
    }
}

/// What is wrong with the order in which a cache was written: a narinfo may be sent only after its NAR and the narinfos of its
/// references were stored, or were there before.
pub(crate) fn order_violations(server: &Server) -> Vec<String> {
    let log = server.log();
    let stored = |file: &str, by: usize| {
        let path = format!("/{file}");
        let fits = |exchange: &Exchange| {
            exchange.method == "PUT"
                && exchange.path == path
                && exchange.status.is_some_and(|status| status < 300)
                && exchange.ended.is_some_and(|ended| ended < by)
        };
        server.shared.before.contains(file) || log.iter().any(fits)
    };
    let mut problems = Vec::new();
    for exchange in log.iter().filter(|exchange| exchange.puts(Kind::Narinfo) && !exchange.narinfo.is_empty())
    {
        let field = |name: &str| {
            let start = format!("{name}: ");
            exchange.narinfo.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
        };
        let nar = field("URL");
        let own = exchange.path.trim_start_matches('/').to_owned();
        let references = field("References");
        let references = references.split_whitespace().map(|path| format!("{}.narinfo", hash_part(path)));
        for needed in [nar].into_iter().chain(references.filter(|file| *file != own)) {
            if !stored(&needed, exchange.began) {
                problems.push(format!("{own} was sent before {needed} was stored"));
            }
        }
    }
    problems
}

/// Takes a request down, finds what to do with it, does it, and writes down what was answered.
async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response<Body> {
    let (number, answer) = shared.begin(&request);
    let path = request.uri().path().to_owned();
    let answer = match answer {
        // What has no body has no middle.
        Some(Answer::During(_, hook)) if request.method() != "PUT" => Some(Answer::Before(hook)),
        other => other,
    };
    let answer = match answer {
        Some(Answer::Then(hook, next)) => {
            let path = path.clone();
            tokio::task::spawn_blocking(move || hook(&path)).await.unwrap();
            Some(*next)
        }
        other => other,
    };
    let response = match answer {
        None | Some(Answer::Then(..)) => shared.work(number, request, None).await,
        Some(Answer::Reply { status, headers, body }) => {
            // A client that is still sending would otherwise see a reset instead of the answer.
            drain(request).await;
            let mut response = reply(status, body);
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::HangMidBody) => {
            let begun =
                stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"Store"))]).chain(stream::pending());
            Response::new(Body::from_stream(begun))
        }
        Some(Answer::CutRequest(bytes)) => {
            let mut body = request.into_body().into_data_stream();
            let mut seen = 0;
            while seen < bytes {
                let Some(Ok(chunk)) = body.next().await else { break };
                seen += chunk.len();
            }
            peer.cut();
            // It is this response's first byte that finds the connection cut.
            Response::new(Body::empty())
        }
        Some(Answer::CutResponse(bytes)) => {
            let whole = fs::read(shared.dir.join(path.trim_start_matches('/'))).unwrap_or_default();
            let part = Bytes::copy_from_slice(&whole[..bytes.min(whole.len())]);
            let end = stream::once(async {
                // Without a pause the part would never leave the buffer.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            });
            let broken = stream::iter([Ok(part)]).chain(end);
            Response::builder().header("content-length", whole.len()).body(Body::from_stream(broken)).unwrap()
        }
        Some(Answer::Endless) => endless(Arc::clone(&shared)),
        Some(Answer::Drip) => drip(),
        Some(Answer::Slow(time)) => {
            tokio::time::sleep(time).await;
            shared.work(number, request, None).await
        }
        Some(Answer::Before(hook)) => {
            tokio::task::spawn_blocking(move || hook(&path)).await.unwrap();
            shared.work(number, request, None).await
        }
        Some(Answer::During(bytes, hook)) => {
            let run: Box<dyn FnOnce() + Send> = Box::new(move || hook(&path));
            shared.work(number, request, Some((bytes, run))).await
        }
        Some(Answer::After(hook)) => {
            let response = shared.work(number, request, None).await;
            tokio::task::spawn_blocking(move || hook(&path)).await.unwrap();
            response
        }
        Some(Answer::DoneBut(status)) => {
            drop(shared.work(number, request, None).await);
            reply(status, b"it was done all the same".to_vec())
        }
    };
    shared.end(number, response.status().as_u16());
    response
}

impl Shared {
    /// Takes a request down, and finds the rule for it.
    fn begin(&self, request: &Request) -> (usize, Option<Answer>) {
        let method = request.method().as_str().to_owned();
        let path = request.uri().path().to_owned();
        let mut log = self.log.lock().unwrap();
        log.clock += 1;
        let mut answer = None;
        for (rule, seen) in &mut log.rules {
            if rule.fits(&method, &path) {
                *seen += 1;
                if *seen > rule.skip && *seen - rule.skip <= rule.times {
                    answer = Some(rule.answer.clone());
                    break;
                }
            }
        }
        let headers = texts(request.headers());
        if let Some((login, rule)) = self.login.lock().unwrap().as_ref()
            && headers.get("authorization") != Some(login)
            && rule.fits(&method, &path)
        {
            answer = Some(rule.answer.clone());
        }
        let began = log.clock;
        let exchange = Exchange {
            method,
            path,
            headers,
            at: Instant::now(),
            began,
            ended: None,
            status: None,
            narinfo: String::new(),
        };
        log.exchanges.push(exchange);
        self.news.notify_all();
        (log.exchanges.len() - 1, answer)
    }

    fn end(&self, number: usize, status: u16) {
        let mut log = self.log.lock().unwrap();
        log.clock += 1;
        let clock = log.clock;
        let exchange = &mut log.exchanges[number];
        exchange.ended = Some(clock);
        exchange.status = Some(status);
        self.news.notify_all();
    }

    /// Does what a cache does.
    async fn work(
        &self,
        number: usize,
        request: Request,
        hook: Option<(usize, Box<dyn FnOnce() + Send>)>,
    ) -> Response<Body> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return reply(400, b"an odd path".to_vec());
        }
        let file = self.dir.join(&path);
        match request.method().as_str() {
            "GET" => {
                fs::read(&file).map_or_else(|_| reply(404, b"not here".to_vec()), |bytes| reply(200, bytes))
            }
            "HEAD" => fs::metadata(&file).map_or_else(
                |_| reply(404, Vec::new()),
                |meta| Response::builder().header("content-length", meta.len()).body(Body::empty()).unwrap(),
            ),
            "PUT" => self
                .store(number, &file, request, hook)
                .await
                .unwrap_or_else(|_| reply(400, b"cut short".to_vec())),
            _ => reply(405, b"not that".to_vec()),
        }
    }

    /// Stores a body whole, or not at all.
    async fn store(
        &self,
        number: usize,
        file: &Path,
        request: Request,
        mut hook: Option<(usize, Box<dyn FnOnce() + Send>)>,
    ) -> io::Result<Response<Body>> {
        let temporary = self.incoming.join(self.number.fetch_add(1, Ordering::SeqCst).to_string());
        let mut out = fs::File::create(&temporary)?;
        let mut body = request.into_body().into_data_stream();
        let mut seen = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(io::Error::other)?;
            seen += chunk.len();
            io::Write::write_all(&mut out, &chunk)?;
            if let Some((_, run)) = hook.take_if(|(bytes, _)| seen >= *bytes) {
                tokio::task::spawn_blocking(run).await?;
            }
        }
        if let Some((_, run)) = hook {
            tokio::task::spawn_blocking(run).await?;
        }
        if Kind::of(&file.to_string_lossy()) == Kind::Narinfo {
            self.log.lock().unwrap().exchanges[number].narinfo = fs::read_to_string(&temporary)?;
        }
        fs::create_dir_all(file.parent().unwrap())?;
        let status = if file.exists() { 204 } else { 201 };
        fs::rename(temporary, file)?;
        Ok(reply(status, Vec::new()))
    }
}

/// A body that never ends, and counts what is taken of it.
fn endless(shared: Arc<Shared>) -> Response<Body> {
    Response::new(Body::from_stream(stream::repeat_with(move || {
        shared.sent.fetch_add(16384, Ordering::SeqCst);
        Ok::<_, io::Error>(Bytes::from_static(&[b'x'; 16384]))
    })))
}

/// A body of single bytes that never ends.
fn drip() -> Response<Body> {
    Response::new(Body::from_stream(stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Some((Ok::<_, io::Error>(Bytes::from_static(b"x")), ()))
    })))
}

async fn drain(request: Request) {
    let mut body = request.into_body().into_data_stream();
    while let Some(Ok(_)) = body.next().await {}
}

fn reply(status: u16, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}
