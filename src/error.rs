//! Every way in which a command ends: kinds of errors, hints, and the exit status, each in one exhaustive table.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use crate::cache::{CacheUrlError, WriteError};
use crate::config::ConfigError;
use crate::graph::BuildGraphError;
use crate::jobs::LocalNixError;
use crate::jobs::audit::AuditError;
use crate::jobs::diff::DiffError;
use crate::jobs::graph::GraphError;
use crate::jobs::push_closure::{PushClosureError, ScopeError, TargetError};
use crate::jobs::verify::VerifyError;
use crate::jobs::why::WhyError;
use crate::net::HttpError;
use crate::nix::{DerivationError, NixError, ResolveError, StoreError};
use crate::plan::FilterError;
use crate::push::{Failure, PackError};
use crate::text::{some, without_secrets};

/// How a command ended. The numbers are API: scripts count on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done, and the answer is yes.
    Success,
    /// The answer is no: a gate failed, two differ, something misses, some path was not pushed, or the closure was not verified.
    No,
    /// It is not known: a cache could not be asked, or something not be read or checked.
    Inconclusive,
    /// The job could not be done: Nix, the network or a cache refused.
    Impossible,
    /// Wrong usage or configuration.
    Usage,
    /// Interrupted by a signal.
    Interrupted,
}

impl ExitStatus {
    /// Every status, its number, and what it means, as `--help` lists them.
    pub const TABLE: [(ExitStatus, &'static str); 6] = [
        (Self::Success, "done, and the answer is yes"),
        (
            Self::No,
            "the answer is no: a gate failed, `diff` found a difference, `why` a miss, one does not need the other, some path was \
             not pushed, or the closure was not verified",
        ),
        (Self::Usage, "wrong usage or configuration"),
        (Self::Impossible, "the job could not be done: Nix, the network or a cache refused"),
        (Self::Inconclusive, "inconclusive: a cache could not be asked, or something not be read or checked"),
        (Self::Interrupted, "interrupted"),
    ];

    /// The one of two that a command ends with when both happened.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        let severity = |status| match status {
            Self::Success => 0,
            Self::Inconclusive => 1,
            Self::No => 2,
            Self::Impossible => 3,
            Self::Usage => 4,
            Self::Interrupted => 5,
        };
        if severity(other) > severity(self) { other } else { self }
    }

    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Impossible => 3,
            Self::Inconclusive => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.code().into()
    }
}

/// An error as a person sees it: what happened, what to do next, and the exit status that it makes.
#[derive(Debug)]
pub struct CommandError {
    /// The exit status.
    pub status: ExitStatus,
    /// What happened, to what.
    pub message: String,
    /// What to do next, one sentence each.
    pub hints: Vec<String>,
}

impl CommandError {
    /// An error without hints.
    pub fn new(status: ExitStatus, message: impl fmt::Display) -> Self {
        Self { status, message: message.to_string(), hints: Vec::new() }
    }

    /// Wrong usage.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ExitStatus::Usage, message)
    }

    /// The same with a hint.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same with a hint, where there is one.
    pub(crate) fn maybe_hinted(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hinted(hint),
            None => self,
        }
    }
}

/// Of the printer: all other files have errors of their own.
impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        Self::new(ExitStatus::Impossible, format!("cannot write to standard output: {error}"))
            .hinted("make room where it goes")
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let hint = match &error {
            ConfigError::Unreadable { .. } => None,
            ConfigError::Invalid { .. } => {
                Some("known keys: to, target.NAME.upstreams, target.NAME.sign-key-file")
            }
            ConfigError::NoHome => Some("name a cache with `--to`"),
            ConfigError::NoDirectory(_) => Some("change to a directory that exists"),
        };
        Self::usage(&error).maybe_hinted(hint.map(str::to_owned))
    }
}

impl From<CacheUrlError> for CommandError {
    fn from(error: CacheUrlError) -> Self {
        let hint = match &error {
            CacheUrlError::NotACache(text) => {
                // What looks like a URL is none that can be read; nobody calls a directory like that.
                let advice = match (text.as_str(), text.contains("://")) {
                    ("", _) => "name a cache, or leave --to out".to_owned(),
                    (_, true) => "a URL is scheme://host:port/path; check the host and the port".to_owned(),
                    _ => format!("for a directory called {text:?}, write ./{text}"),
                };
                Some(advice)
            }
            CacheUrlError::UnknownScheme(_) => {
                Some("this version speaks to file:// and http(s):// caches".to_owned())
            }
            CacheUrlError::Credentials(host) => Some(format!(
                "put them into the netrc file that Nix uses: machine {host} login NAME password …"
            )),
        };
        Self::usage(&error).maybe_hinted(hint)
    }
}

impl From<FilterError> for CommandError {
    fn from(error: FilterError) -> Self {
        Self::usage(error)
    }
}

impl From<PushClosureError> for CommandError {
    fn from(error: PushClosureError) -> Self {
        match error {
            PushClosureError::Nix(LocalNixError::Nix(error)) => error.into(),
            PushClosureError::Nix(LocalNixError::Store(error)) | PushClosureError::Store(error) => {
                error.into()
            }
            PushClosureError::Resolve(error) => error.into(),
            PushClosureError::Scope(error) => error.into(),
            PushClosureError::Interrupted => Self::new(ExitStatus::Interrupted, error),
        }
    }
}

impl From<AuditError> for CommandError {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Nix(LocalNixError::Nix(error)) => error.into(),
            AuditError::Nix(LocalNixError::Store(error)) | AuditError::Store(error) => error.into(),
            AuditError::Resolve(error) => error.into(),
            AuditError::Derivation(error) => error.into(),
            AuditError::Http(error) => http_error(&error),
            AuditError::NoCaches => Self::usage(&error).hinted(
                "add one to `substituters` in nix.conf, or name it here: --cache https://cache.example.org",
            ),
            AuditError::Interrupted => Self::new(ExitStatus::Interrupted, error),
        }
    }
}

impl From<DiffError> for CommandError {
    fn from(error: DiffError) -> Self {
        match error {
            DiffError::Nix(LocalNixError::Nix(error)) => error.into(),
            DiffError::Nix(LocalNixError::Store(error)) => error.into(),
            DiffError::Resolve(error) => error.into(),
            DiffError::Derivation(error) => error.into(),
            DiffError::Unreadable { .. } | DiffError::NoFile { .. } => {
                Self::new(ExitStatus::Impossible, error).hinted("name a file that can be read")
            }
            DiffError::Saved { .. } => {
                Self::usage(error).hinted("save a graph with `cache-helper graph --format json INSTALLABLE`")
            }
            DiffError::OtherStore { .. } => {
                Self::usage(error).hinted("compare what was evaluated with the same store directory")
            }
            DiffError::NoGit { .. } => {
                Self::new(ExitStatus::Impossible, error).hinted("install git: Nix needs it for a repository too")
            }
            DiffError::Revision { .. } => Self::new(ExitStatus::Impossible, error).hinted(
                "name one commit that is in this repository (in a shallow one, fetch it first), or a flake of the \
                 registry as flake:NAME",
            ),
            DiffError::Repository { .. } => Self::new(ExitStatus::Impossible, error)
                .hinted("name the revision as Nix does: '.?rev=COMMIT#ATTRIBUTE'"),
            DiffError::Interrupted => Self::new(ExitStatus::Interrupted, error),
        }
    }
}

impl From<GraphError> for CommandError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Nix(LocalNixError::Nix(error)) => error.into(),
            GraphError::Nix(LocalNixError::Store(error)) => error.into(),
            GraphError::Resolve(error) => error.into(),
            GraphError::Derivation(error) => error.into(),
            GraphError::NotThere { ref near, .. } | GraphError::Unknown { ref near, .. } => {
                let hint = match near.as_slice() {
                    [] => "a .drv path, an output's path, a name with or without its version, or an installable \
                           names one; `--format dot` and `--json` list them"
                        .to_owned(),
                    near => format!("there is {}", some(near)),
                };
                Self::usage(&error).hinted(hint)
            }
            GraphError::Source { .. } => Self::usage(&error)
                .hinted("name one of those; `cache-helper why` tells by which ways a source is needed"),
            GraphError::Seconds { .. } => Self::usage(&error)
                .hinted("write one JSON object: the seconds by .drv path, by its base name, or by name"),
            GraphError::OtherStore { .. } => {
                Self::usage(&error).hinted("name those of one directory at a time")
            }
            GraphError::Ambiguous { .. } => Self::usage(&error).hinted("name one of them by its .drv path"),
            GraphError::Interrupted => Self::new(ExitStatus::Interrupted, error),
        }
    }
}

const PART_OF: &str = "name with --of of what it is a part (without it that is `.`, where there is a flake); `cache-helper graph --json` \
                       lists all that is in there";

impl From<WhyError> for CommandError {
    fn from(error: WhyError) -> Self {
        match error {
            WhyError::Graph(error @ (GraphError::NotThere { .. } | GraphError::Unknown { .. })) => {
                let error = Self::from(error);
                // `graph` has formats that list all; here is only what lies near.
                let near = error.hints.into_iter().find(|hint| hint.starts_with("there is "));
                Self { hints: near.into_iter().collect(), ..error }.hinted(PART_OF)
            }
            WhyError::Graph(error @ GraphError::Resolve(ResolveError::NoDerivation { .. })) => {
                Self::from(error).hinted(PART_OF)
            }
            WhyError::Graph(error) => error.into(),
            WhyError::Audit(error) => error.into(),
        }
    }
}

impl From<VerifyError> for CommandError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Nix(LocalNixError::Nix(error)) => error.into(),
            VerifyError::Nix(LocalNixError::Store(error)) => error.into(),
            VerifyError::Resolve(ResolveError::NotBuilt { ref command, .. }) => {
                let hint = format!("build it with `{command}`, or name the path that it has");
                Self::new(ExitStatus::Impossible, &error).hinted(hint)
            }
            VerifyError::Resolve(error) => error.into(),
            VerifyError::Http(error) => http_error(&error),
            VerifyError::Interrupted => Self::new(ExitStatus::Interrupted, error),
        }
    }
}

impl From<DerivationError> for CommandError {
    fn from(error: DerivationError) -> Self {
        let hint = match &error {
            DerivationError::Graph(
                BuildGraphError::Circle { .. } | BuildGraphError::UnknownOutput { .. },
            ) => "a .drv file was changed; `nix-store --verify --check-contents` says which",
            _ => "evaluate it again, which writes the .drv file: `nix-instantiate` or `nix eval`",
        };
        Self::new(ExitStatus::Impossible, &error).hinted(hint)
    }
}

impl From<NixError> for CommandError {
    fn from(error: NixError) -> Self {
        let hint = match &error {
            NixError::Missing => Some(
                "install Nix (https://nixos.org/download; on Debian and Ubuntu: apt-get install nix-bin), or add the \
                 directory of `nix` to PATH",
            ),
            NixError::TooOld { .. } => Some("install a newer Nix (https://nixos.org/download)"),
            NixError::NotNix { .. } => Some("put the real `nix` first on PATH"),
            NixError::Start { .. } => Some("reinstall Nix, or put a working `nix` first on PATH"),
            NixError::Failed { .. } => Some(
                "run that command to see all that Nix says; cache-helper takes what `nix build` takes, store paths and \
                 links such as ./result",
            ),
            NixError::TimedOut { .. } => {
                Some("run that command to see what it waits for; is nix-daemon well?")
            }
            NixError::Unexpected { .. } => {
                Some("please report this with the output of `nix --version` and of that command")
            }
        };
        Self::new(ExitStatus::Impossible, &error).maybe_hinted(hint.map(str::to_owned))
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        let hint = match &error {
            StoreError::NotLocal(store) => {
                let store = without_secrets(store);
                Some(format!("copy the closure here first: `nix copy --from '{store}' INSTALLABLE`"))
            }
            StoreError::NotValid { path } => Some(format!("fetch or build it: `nix-store --realise {path}`")),
            StoreError::Closure(_) | StoreError::Damaged(_) => {
                Some("the store is damaged; `nix-store --verify --repair` may mend it".to_owned())
            }
            StoreError::Unreadable { .. } => {
                Some("run as a user who may read the store database, or start nix-daemon".to_owned())
            }
        };
        Self::new(ExitStatus::Impossible, &error).maybe_hinted(hint)
    }
}

impl From<ResolveError> for CommandError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Nix(error) => error.into(),
            ResolveError::Store(error) => error.into(),
            ResolveError::Installable(error) => Self::usage(error)
                .hinted("name a store path, a link such as ./result, or anything that `nix build` takes"),
            ResolveError::UnknownOutput { .. } => {
                Self::usage(&error).hinted("name one of those after `^`, or `^*` for all of them")
            }
            ResolveError::NotValid { ref command, .. }
            | ResolveError::NotBuilt { ref command, .. }
            | ResolveError::NoEnvironment { ref command, .. } => {
                let hint = format!("build it with `{command}`, or add --build");
                Self::new(ExitStatus::Impossible, &error).hinted(hint)
            }
            ResolveError::Temporary { .. } => Self::new(ExitStatus::Impossible, error)
                .hinted("let TMPDIR name a directory that can be written"),
            ResolveError::NoDerivation { .. } => Self::new(ExitStatus::Impossible, error).hinted(
                "name what evaluates to it, such as .#NAME: that writes the derivation; a path that was fetched alone has none",
            ),
            ResolveError::Derivation(error) => error.into(),
        }
    }
}

impl From<ScopeError> for CommandError {
    fn from(error: ScopeError) -> Self {
        let hint = match &error {
            ScopeError::NoFlake { .. } => {
                "name a flake, such as . or github:OWNER/NAME; store paths, links, and attributes of --file or --expr are in none"
            }
            ScopeError::NotAFlake(_) => "name the flake alone, or leave --flake-outputs out",
            ScopeError::NoOutputs { .. } => "leave out the `^` and what follows it",
            ScopeError::NotAShell { .. } => {
                "name the shell as for `nix develop`, such as .#dev, or its .drv file; without --dev-shell a path is pushed as it is"
            }
            ScopeError::NothingOffered { .. } => {
                return Self::new(ExitStatus::Impossible, error)
                    .hinted("name another flake, or with --system another system");
            }
        };
        Self::usage(error).hinted(hint)
    }
}

impl From<&TargetError> for CommandError {
    fn from(error: &TargetError) -> Self {
        use ExitStatus::{Impossible, Inconclusive, Interrupted, Usage};
        let (status, hint) = match error {
            // A directory has no logins.
            TargetError::Denied { url, .. } if url.starts_with("file:") => (Impossible, OTHER_USER),
            TargetError::Denied { .. } => (Impossible, LOGIN),
            TargetError::Sources { .. } => (
                Usage,
                "--include-sources pushes them, if everybody who can reach that cache may have them; --exclude leaves them out, \
                 and what refers to them",
            ),
            TargetError::Unusable { .. } => {
                (Impossible, "check the URL, and whether it answers: `curl URL/nix-cache-info`")
            }
            TargetError::OtherStore { .. } => (Usage, "push to a cache of its own for each store directory"),
            TargetError::Upstream { .. } => (
                Inconclusive,
                "try again, or leave this upstream out, which pushes more (--no-upstream: without configured ones)",
            ),
            TargetError::Unsigned { .. } => (
                Usage,
                "sign with --sign-key-file FILE (make one with `nix-store --generate-binary-cache-key`), or push them \
                 unsigned with --allow-unsigned",
            ),
            TargetError::Key(_) => {
                (Usage, "make a key with `nix-store --generate-binary-cache-key NAME SECRET PUBLIC`")
            }
            TargetError::Local(_) => (
                Impossible,
                "set XDG_CACHE_HOME to a directory that can be written, or name a cache with --to",
            ),
            TargetError::Http(error) => return http_error(error),
            TargetError::Write { source, .. } => (Impossible, write_hint(source)),
            TargetError::Stopped { failure, .. } => {
                let hint = failure_hint(failure);
                return Self::new(Impossible, error).maybe_hinted(hint.map(str::to_owned)).hinted(
                    "what was pushed is complete; when the cause is mended, the same command pushes only the rest",
                );
            }
            TargetError::Interrupted => (Interrupted, "the same command goes on where this one stopped"),
        };
        let error = Self::new(status, error);
        if hint.is_empty() { error } else { error.hinted(hint) }
    }
}

fn http_error(error: &HttpError) -> CommandError {
    match error {
        HttpError::Setup(_) => CommandError::usage(error)
            .hinted("let it name a file of PEM certificates, or unset it to trust those of the system"),
        _ => CommandError::new(ExitStatus::Impossible, error),
    }
}

const LOGIN: &str = "give a login for this host, one that may do this, in the netrc file that Nix uses (its setting `netrc-file`)";

const OTHER_USER: &str = "push as a user who may read and write there, or to another cache";

/// What to do about a path that failed, where that is not plain from the failure itself.
pub(crate) fn failure_hint(failure: &Failure) -> Option<&'static str> {
    match failure {
        Failure::Write(error) => Some(write_hint(error)),
        Failure::Pack(PackError::Staging { .. }) => {
            Some("make room there; without a directory as target it is TMPDIR that says where")
        }
        Failure::Pack(_) | Failure::Narinfo(_) => None,
    }
}

fn write_hint(error: &WriteError) -> &'static str {
    match error {
        WriteError::Denied { .. } => LOGIN,
        WriteError::NotWritable { .. } => {
            "the server must take PUT below this URL; nginx needs `dav_methods PUT` and `create_full_put_path on`"
        }
        WriteError::TooLarge { .. } => "raise the server's limit (nginx: client_max_body_size)",
        WriteError::Rejected { .. } | WriteError::Unavailable { .. } => "try again when the server is well",
        WriteError::File { source, .. } => match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => OTHER_USER,
            _ => "name a directory that can be made and written",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_api() {
        let codes: Vec<u8> = ExitStatus::TABLE.iter().map(|(status, _)| status.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 130]);
    }
}
