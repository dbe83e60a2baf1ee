//! One HTTP request, with limits, retries and credentials.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::watch;
use url::Url;

use super::credentials::{Credentials, Scheme, asks_for_token};
use super::download::Download;
use super::failure::{HttpError, connection_error, with_attempts, words};
use super::lanes::Lanes;
use super::pace::{Pace, Turn};
use super::reach::{PublicResolver, Reach, follow};
use super::retry::{is_overload, is_transient, retry_after};
use super::roots::{Roots, TlsRoots};
use super::{Netrc, Retry, UploadBody, is_loopback, may_carry_credentials, redacted};
use crate::text::Printable;

/// How much of an error's body is read for its words, in bytes.
const ERROR_BODY: usize = 4096;

/// How many stall limits the whole body of an answer may take.
pub(super) const PATIENCE: u32 = 4;

/// How often a request is sent again that the server has refused without looking at it: because the connection came to its
/// end, or because there was too much to do while others were answered. That is no failure, and still has to end.
const REFUSALS: u32 = 20;

/// Is told how many bytes more a connection took.
pub type Sent<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// What a client needs to know, gathered by whoever reads configuration.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long a request may make no progress at all, in either direction.
    pub stall_timeout: Duration,
    /// When to try again.
    pub retry: Retry,
    /// Trusted certificates.
    pub roots: TlsRoots,
    /// Logins by host.
    pub netrc: Netrc,
    /// Which servers may be contacted.
    pub reach: Reach,
    /// Turns true when somebody wants to stop: nothing is then tried again.
    pub interrupted: watch::Receiver<bool>,
}

impl HttpSettings {
    /// Waits for somebody who wants to stop, without end where there is nobody who could.
    async fn is_interrupted(&self) {
        let mut interrupted = self.interrupted.clone();
        if interrupted.wait_for(|interrupted| *interrupted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_mins(1),
            retry: Retry::default(),
            roots: TlsRoots::default(),
            netrc: Netrc::default(),
            reach: Reach::default(),
            interrupted: watch::channel(false).1,
        }
    }
}

/// What a server said.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The length that the server gave for the body, which for HEAD is the object's size.
    pub length: Option<u64>,
    /// The body, complete for a success, the first 4 KiB otherwise.
    pub body: Bytes,
}

impl Reply {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What a server says about a failure, fit to print: its status, and the first words of its body when it is text.
pub fn words_of_server(reply: &Reply) -> String {
    let reason = StatusCode::from_u16(reply.status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .map_or_else(String::new, |reason| format!(" {reason}"));
    let text = String::from_utf8_lossy(&reply.body);
    let text = text.trim();
    if text.is_empty() || text.starts_with('<') {
        format!("HTTP {}{reason}", reply.status)
    } else {
        format!("HTTP {}{reason}: {}", reply.status, Printable(text))
    }
}

/// Sends requests to one server.
///
/// Questions (GET and HEAD) may be asked by the thousand at once: as many of them are under way as the server answers well,
/// over as many connections as that takes.
#[derive(Debug)]
pub struct HttpClient {
    lanes: Lanes,
    pace: Pace,
    answered: Answered,
    /// Whether the server has asked for a token instead of a name and a password.
    takes_tokens: AtomicBool,
    settings: Arc<HttpSettings>,
}

/// What came of sending a request once.
struct Attempt {
    reply: Reply,
    /// The body of a success that was not read.
    unread: Option<Download>,
    /// How long the server wants to be left alone.
    asked_for: Option<Duration>,
    /// Whether the server takes tokens, and no name with a password.
    asks_for_token: bool,
}

/// How many questions were answered, by what was asked.
#[derive(Debug, Default)]
struct Answered {
    gets: AtomicU64,
    heads: AtomicU64,
}

impl Answered {
    fn by(&self, method: &Method) -> u64 {
        if *method == Method::HEAD { &self.heads } else { &self.gets }.load(Ordering::Relaxed)
    }

    fn note(&self, method: &Method, outcome: &Result<Attempt, HttpError>) {
        if matches!(outcome, Ok(Attempt { reply, .. }) if !is_transient(reply.status)) {
            if *method == Method::HEAD { &self.heads } else { &self.gets }.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl HttpClient {
    /// Makes a client for servers of the scheme of `url`; certificates are loaded only for `https`.
    ///
    /// The proxies of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) are used for other machines
    /// only. So a login never goes through one in clear: over `https` a proxy sees nothing of it, and over `http` to
    /// another machine none is sent at all.
    ///
    /// # Errors
    ///
    /// When the certificates are not certificates.
    pub fn new(url: &Url, settings: Arc<HttpSettings>) -> Result<Self, HttpError> {
        // Fails only when a provider is installed already, which is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let setup = |error: reqwest::Error| HttpError::Setup(words(&error));
        let roots = Roots::load(url, &settings.roots)?;
        let connect_timeout = settings.connect_timeout;
        // What stays on this machine needs no proxy, and must not meet one: the login would travel to it in clear.
        let reach = settings.reach;
        let is_named_by_the_user = matches!(reach, Reach::Anywhere);
        let takes_proxies = is_named_by_the_user && !is_loopback(url);
        let make = move || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("cache-helper/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(connect_timeout)
                .tcp_nodelay(true)
                .pool_max_idle_per_host(Lanes::REQUESTS)
                // Here, where it is known what counts as a failure.
                .retry(reqwest::retry::never())
                .redirect(reqwest::redirect::Policy::custom(move |attempt| follow(attempt, reach)));
            let builder = roots.trusted_by(builder);
            let builder =
                if is_named_by_the_user { builder } else { builder.dns_resolver(PublicResolver(reach)) };
            if takes_proxies { builder } else { builder.no_proxy() }.build()
        };
        let lanes = Lanes::new(make).map_err(setup)?;
        let pace = Pace::new(Lanes::REQUESTS, settings.retry.longest_wait);
        Ok(Self {
            lanes,
            pace,
            answered: Answered::default(),
            takes_tokens: AtomicBool::new(false),
            settings,
        })
    }

    /// Reads an object of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// When no answer could be had within the limits.
    pub async fn get(&self, url: &Url, limit: usize) -> Result<Reply, HttpError> {
        Ok(self.send(Method::GET, url, None, Some(limit)).await?.reply)
    }

    /// Opens an object of any size: what a success has to say is still to be read.
    ///
    /// # Errors
    ///
    /// When no answer could be had within the limits.
    pub async fn open(&self, url: &Url) -> Result<(Reply, Option<Download>), HttpError> {
        let Attempt { reply, unread, .. } = self.send(Method::GET, url, None, None).await?;
        Ok((reply, unread))
    }

    /// Asks for an object's status and size.
    ///
    /// # Errors
    ///
    /// When no answer could be had within the limits.
    pub async fn head(&self, url: &Url) -> Result<Reply, HttpError> {
        Ok(self.send(Method::HEAD, url, None, Some(0)).await?.reply)
    }

    /// Writes an object. `sent` grows with every chunk, also when it has to be sent again.
    ///
    /// # Errors
    ///
    /// When no answer could be had within the limits, or the body cannot be read.
    pub async fn put(&self, url: &Url, body: &UploadBody, sent: Sent<'_>) -> Result<Reply, HttpError> {
        Ok(self.send(Method::PUT, url, Some((body, sent)), Some(ERROR_BODY)).await?.reply)
    }

    /// Sends a request. Without a limit the body of a success is not read.
    async fn send(
        &self,
        method: Method,
        url: &Url,
        body: Option<(&UploadBody, Sent<'_>)>,
        limit: Option<usize>,
    ) -> Result<Attempt, HttpError> {
        let (mut attempt, mut refusals) = (1, 0);
        loop {
            // Uploads have their own limits.
            let turn = if body.is_none() { Some(self.pace.turn().await) } else { None };
            let answered_before = self.answered.by(&method);
            let began = Instant::now();
            let outcome = self.attempt(&method, url, body, limit).await;
            log(&method, url, &outcome, began.elapsed());
            // What is said to every question of a kind is no sign of too much to do.
            let others_are_answered = self.answered.by(&method) > answered_before;
            let is_refused = match &outcome {
                Err(HttpError::Refused { .. }) => true,
                Ok(Attempt { reply, .. }) => others_are_answered && is_overload(reply.status),
                Err(_) => false,
            };
            if let Some(turn) = turn {
                note(turn, &outcome, others_are_answered);
                self.answered.note(&method, &outcome);
            }
            if let Ok(Attempt { asks_for_token: true, .. }) = outcome
                && !self.takes_tokens.swap(true, Ordering::Relaxed)
            {
                continue;
            }
            if is_refused && refusals < REFUSALS && !*self.settings.interrupted.borrow() {
                refusals += 1;
                continue;
            }
            let wait = match &outcome {
                Ok(Attempt { reply, asked_for, .. }) if is_transient(reply.status) => {
                    self.settings.retry.wait(attempt, *asked_for)
                }
                Err(HttpError::Connection { .. } | HttpError::Refused { .. }) => {
                    self.settings.retry.wait(attempt, None)
                }
                // Questions come by the thousand, and the next one would wait as long for nothing.
                Err(HttpError::NoConnection { .. }) if body.is_some() => {
                    self.settings.retry.wait(attempt, None)
                }
                Ok(_) | Err(_) => None,
            };
            let ended = |outcome: Result<Attempt, _>| outcome.map_err(|error| with_attempts(error, attempt));
            let Some(wait) = wait else { return ended(outcome) };
            tracing::debug!("{method} {}: trying again in {:.1} s", redacted(url), wait.as_secs_f64());
            tokio::select! {
                () = tokio::time::sleep(wait) => attempt += 1,
                // Whoever wants to stop does not want to wait for better times.
                () = self.settings.is_interrupted() => return ended(outcome),
            }
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        url: &Url,
        body: Option<(&UploadBody, Sent<'_>)>,
        limit: Option<usize>,
    ) -> Result<Attempt, HttpError> {
        if let Some(objection) = self.settings.reach.objection(url) {
            return Err(HttpError::OutOfReach(objection));
        }
        let place = self.lanes.place();
        let mut request = place.client().request(method.clone(), url.clone());
        let credentials = self.credentials(url);
        if let Some(credentials) = &credentials {
            request = request.header(AUTHORIZATION, credentials.header());
        }
        let counter = Arc::new(AtomicU64::new(0));
        if let Some((body, _)) = body {
            let attempt = body.attempt(Arc::clone(&counter));
            request = request.header(CONTENT_LENGTH, body.length()).body(reqwest::Body::wrap(attempt));
        }
        let mut response = match body {
            Some((_, sent)) => self.watch(request.send(), &counter, sent).await?,
            None => self.wait(request.send()).await?,
        };
        self.pace.limit_to(self.lanes.note(response.version()));
        let asked_for = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value, SystemTime::now()));
        let asks_for_token = credentials.is_some() && asks_for_token(&response);
        let status = response.status().as_u16();
        let length = content_length(&response);
        let is_success = response.status().is_success();
        let body = match (is_success, limit) {
            _ if *method == Method::HEAD => Bytes::new(),
            (true, None) => {
                let unread = Some(Download::new(response, place, &self.settings));
                return Ok(Attempt {
                    reply: Reply { status, length, body: Bytes::new() },
                    unread,
                    asked_for,
                    asks_for_token: false,
                });
            }
            (true, Some(limit)) => self.read(&mut response, limit, true).await?,
            (false, _) => self.read(&mut response, ERROR_BODY, false).await?,
        };
        let body = match &credentials {
            // A server that repeats what it was sent must not get it into our messages. What is no message is left as it
            // is: a short password may well stand in a narinfo.
            Some(credentials) if !is_success => credentials.removed_from(body),
            _ => body,
        };
        Ok(Attempt { reply: Reply { status, length, body }, unread: None, asked_for, asks_for_token })
    }

    /// Waits for the response to a question.
    async fn wait(
        &self,
        request: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response, HttpError> {
        let limit = self.settings.stall_timeout;
        match tokio::time::timeout(limit, request).await {
            Ok(outcome) => outcome.map_err(|error| connection_error(&error, self.settings.connect_timeout)),
            Err(_) => Err(HttpError::Stalled { limit }),
        }
    }

    /// Waits for a response for as long as the counter moves; nothing moving for the stall limit is an error.
    async fn watch(
        &self,
        request: impl Future<Output = reqwest::Result<Response>>,
        counter: &AtomicU64,
        sent: Sent<'_>,
    ) -> Result<Response, HttpError> {
        // Several looks a stall limit, so that the counters of a slow upload are seen to move.
        let look = (self.settings.stall_timeout / 8).min(Duration::from_millis(200));
        let mut seen = 0;
        let mut last_move = tokio::time::Instant::now();
        let mut request = std::pin::pin!(request);
        loop {
            let outcome = tokio::time::timeout(look, request.as_mut()).await;
            let now = counter.load(Ordering::Relaxed);
            if now > seen {
                sent(now - seen);
                seen = now;
                last_move = tokio::time::Instant::now();
            }
            match outcome {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(connection_error(&error, self.settings.connect_timeout)),
                Err(_) if last_move.elapsed() >= self.settings.stall_timeout => {
                    return Err(HttpError::Stalled { limit: self.settings.stall_timeout });
                }
                Err(_) => {}
            }
        }
    }

    /// Reads a body of at most `limit` bytes; of an error's body, the first `limit` bytes.
    ///
    /// Bodies that are read are small, so that one which comes in drops is given up, though each drop is a progress.
    async fn read(&self, response: &mut Response, limit: usize, whole: bool) -> Result<Bytes, HttpError> {
        let stall = self.settings.stall_timeout;
        let patience = stall * PATIENCE;
        let began = Instant::now();
        let mut body = BytesMut::new();
        loop {
            let left = patience.saturating_sub(began.elapsed());
            let chunk = match tokio::time::timeout(stall.min(left), response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Ok(body.freeze()),
                // An error's words are a courtesy: what came of them is enough.
                Ok(Err(_)) | Err(_) if !whole => return Ok(body.freeze()),
                Ok(Err(error)) => return Err(connection_error(&error, self.settings.connect_timeout)),
                Err(_) if left < stall => return Err(HttpError::TooSlow { limit: patience }),
                Err(_) => return Err(HttpError::Stalled { limit: stall }),
            };
            if body.len() + chunk.len() > limit {
                if whole {
                    return Err(HttpError::TooLarge { limit });
                }
                body.extend_from_slice(&chunk[..limit - body.len()]);
                return Ok(body.freeze());
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// What to log in with at a URL, where there is a login and it may travel there.
    fn credentials(&self, url: &Url) -> Option<Credentials> {
        let login = self.settings.netrc.login(url.host_str()?)?;
        let is_named_by_the_user = matches!(self.settings.reach, Reach::Anywhere);
        if !is_named_by_the_user || !may_carry_credentials(url) {
            return None;
        }
        Credentials::new(login, if self.takes_tokens() { Scheme::Bearer } else { Scheme::Basic })
    }

    fn takes_tokens(&self) -> bool {
        self.takes_tokens.load(Ordering::Relaxed)
    }

    /// Whether requests to this URL carry a login.
    pub fn logs_in_at(&self, url: &Url) -> bool {
        self.credentials(url).is_some()
    }

    /// Whether a login for this URL exists but may not travel there.
    pub fn withholds_credentials(&self, url: &Url) -> bool {
        let login = url.host_str().and_then(|host| self.settings.netrc.login(host));
        login.is_some() && !may_carry_credentials(url)
    }
}

/// Tells the pace what came of a turn.
fn note(turn: Turn<'_>, outcome: &Result<Attempt, HttpError>, others_are_answered: bool) {
    match outcome {
        Ok(Attempt { reply, asked_for, .. }) if is_overload(reply.status) => {
            if others_are_answered || asked_for.is_some() {
                turn.refused(*asked_for);
            } else {
                turn.failed();
            }
        }
        Err(
            HttpError::Connection { .. }
            | HttpError::NoConnection { .. }
            | HttpError::Stalled { .. }
            | HttpError::TooSlow { .. },
        ) => turn.failed(),
        // The connection came to its end, not the server to its limit.
        Err(HttpError::Refused { .. }) => drop(turn),
        Ok(_) | Err(_) => turn.answered(),
    }
}

/// One line for each request that was sent.
fn log(method: &Method, url: &Url, outcome: &Result<Attempt, HttpError>, elapsed: Duration) {
    if !tracing::enabled!(tracing::Level::TRACE) {
        return;
    }
    let (url, seconds) = (redacted(url), elapsed.as_secs_f64());
    match outcome {
        Ok(Attempt { reply, .. }) => tracing::trace!("{method} {url}: {} in {seconds:.3} s", reply.status),
        Err(error) => tracing::trace!("{method} {url}: {error} in {seconds:.3} s"),
    }
}

fn content_length(response: &Response) -> Option<u64> {
    // Not `Response::content_length`, which says 0 for the empty body of a HEAD.
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
