//! What the HTTP cache server can be told to do instead of its work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a request is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// `nix-cache-info`.
    Info,
    /// `*.narinfo`.
    Narinfo,
    /// `nar/…`.
    Nar,
    /// Anything else.
    Other,
}

impl Kind {
    /// The kind of a path.
    pub(crate) fn of(path: &str) -> Self {
        match path.rsplit('/').next().unwrap_or_default() {
            "nix-cache-info" => Self::Info,
            name if name.ends_with(".narinfo") => Self::Narinfo,
            name if name.contains(".nar") => Self::Nar,
            _ => Self::Other,
        }
    }
}

/// Runs in the server at a chosen moment, with the path of the request.
pub(crate) type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// What to do with a request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Nothing is done; this is answered.
    Reply { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// Nothing is ever answered.
    Hang,
    /// A response begins, and then nothing more ever comes.
    HangMidBody,
    /// So many bytes of the request's body are read, then the connection is reset.
    CutRequest(usize),
    /// So many bytes of the response's body are sent, then the connection is closed.
    CutResponse(usize),
    /// A success whose body never ends.
    Endless,
    /// A success whose body never ends, and comes byte by byte.
    Drip,
    /// The work is done, and answered after a while.
    Slow(Duration),
    /// The hook runs, then the work is done.
    Before(Hook),
    /// The hook runs, then this is answered.
    Then(Hook, Box<Answer>),
    /// So many bytes of the request's body are read, or all of it, then the hook runs, then the work goes on.
    During(usize, Hook),
    /// The work is done, then the hook runs, then it is answered.
    After(Hook),
    /// The work is done, and this status is answered all the same.
    DoneBut(u16),
}

impl fmt::Debug for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply { status, .. } => write!(out, "Reply({status})"),
            Self::Before(_) => out.write_str("Before"),
            Self::Then(_, next) => write!(out, "Then({next:?})"),
            Self::During(..) => out.write_str("During"),
            Self::After(_) => out.write_str("After"),
            Self::Hang => out.write_str("Hang"),
            Self::HangMidBody => out.write_str("HangMidBody"),
            Self::CutRequest(bytes) => write!(out, "CutRequest({bytes})"),
            Self::CutResponse(bytes) => write!(out, "CutResponse({bytes})"),
            Self::Endless => out.write_str("Endless"),
            Self::Drip => out.write_str("Drip"),
            Self::Slow(time) => write!(out, "Slow({time:?})"),
            Self::DoneBut(status) => write!(out, "DoneBut({status})"),
        }
    }
}

impl Answer {
    /// A status with a short body.
    pub(crate) fn status(status: u16) -> Self {
        Self::Reply {
            status,
            headers: Vec::new(),
            body: format!("status {status} from the test").into_bytes(),
        }
    }

    /// A success with this body.
    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self::Reply { status: 200, headers: Vec::new(), body: body.into() }
    }

    /// A redirect.
    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self::Reply { status: 302, headers: vec![("location", to.into())], body: Vec::new() }
    }

    /// The same reply with one more header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Reply { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    /// The same reply with another body.
    pub(crate) fn with_body(mut self, text: impl Into<Vec<u8>>) -> Self {
        if let Self::Reply { body, .. } = &mut self {
            *body = text.into();
        }
        self
    }
}

/// Which requests an answer is for. The first rule that fits decides.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    method: Option<&'static str>,
    kind: Option<Kind>,
    path_has: Option<String>,
    /// How many fitting requests pass first.
    pub(crate) skip: usize,
    /// How many it is for after those.
    pub(crate) times: usize,
    /// What they get.
    pub(crate) answer: Answer,
}

impl Rule {
    /// For every request.
    pub(crate) fn all(answer: Answer) -> Self {
        Self { method: None, kind: None, path_has: None, skip: 0, times: usize::MAX, answer }
    }

    /// For a method and a kind.
    pub(crate) fn on(method: &'static str, kind: Kind, answer: Answer) -> Self {
        Self { method: Some(method), kind: Some(kind), ..Self::all(answer) }
    }

    /// For a method.
    pub(crate) fn method(method: &'static str, answer: Answer) -> Self {
        Self { method: Some(method), ..Self::all(answer) }
    }

    /// Only where the path has this text.
    pub(crate) fn path(mut self, text: &str) -> Self {
        self.path_has = Some(text.to_owned());
        self
    }

    /// Only the `n`-th fitting request, from 1.
    pub(crate) fn nth(mut self, n: usize) -> Self {
        self.skip = n - 1;
        self.times = 1;
        self
    }

    /// Only the first `n` fitting requests.
    pub(crate) fn first(mut self, n: usize) -> Self {
        self.times = n;
        self
    }

    /// Whether a request fits, ignoring the counts.
    pub(crate) fn fits(&self, method: &str, path: &str) -> bool {
        self.method.is_none_or(|wanted| wanted == method)
            && self.kind.is_none_or(|kind| kind == Kind::of(path))
            && self.path_has.as_ref().is_none_or(|text| path.contains(text))
    }
}
