//! Whether a NAR is there as its narinfo promises: by its size, or by reading all of it.

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, mpsc};

use super::caches::{ProvingCache, said};
use crate::cache::unpack::{self, Flaw, Promise, Window};
use crate::cache::{Answer, BinaryCache as _, ObjectName, Words};
use crate::event::Reporter;
use crate::net::Retry;
use crate::proof::Problem;

/// How many small NARs are downloaded at a time, which wait for the server more than for anything else, and how many large
/// ones, which take some 10 MiB each with the usual window.
pub(super) const DOWNLOADS: [usize; 2] = [32, 8];

/// The largest small NAR, in bytes: a decoder takes about as much for it.
const SMALL: u64 = 1 << 20;

/// How often a download is begun at most.
const ATTEMPTS: u32 = 3;

/// How many pieces wait to be unpacked.
const AHEAD: usize = 4;

/// 0 for a small NAR, 1 for a large one.
pub(super) fn size(promise: &Promise) -> usize {
    usize::from(promise.nar_size > SMALL)
}

/// The right to unpack with a large window, which one at a time has.
#[derive(Debug)]
pub(super) struct LargeWindow(Semaphore);

impl Default for LargeWindow {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

/// Asks for a NAR's size; gives it where the cache says it, and what is wrong.
pub(super) async fn look(
    cache: &ProvingCache,
    name: &ObjectName,
    promise: &Promise,
) -> (Option<u64>, Option<Problem>) {
    let mut answer = cache.nar_breaker.ask(cache.cache.size(name)).await;
    if matches!(answer, Answer::Denied(_) | Answer::Broken(_)) {
        // Some servers, and some logins, know GET alone.
        answer = cache.nar_breaker.ask(cache.cache.read(name)).await.map(|_| None);
    }
    if cache.is_absent(&answer) {
        return (None, Some(Problem::NarMissing));
    }
    match answer {
        Answer::Present(found) => {
            let is_wrong = found.zip(promise.file_size).filter(|(found, expected)| found != expected);
            let words = |(found, expected)| format!("has {found} bytes instead of {expected}");
            (found, is_wrong.map(|sizes| Problem::NarWrongSize(words(sizes))))
        }
        Answer::Absent => (None, Some(Problem::NarMissing)),
        Answer::Denied(words) => (None, Some(Problem::Denied(said(name, &words)))),
        Answer::Broken(words) => (None, Some(Problem::NarDamaged(format!("cannot be read: {words}")))),
        Answer::Unreachable(words) => (None, Some(Problem::Unreachable(said(name, &words)))),
    }
}

/// Downloads a NAR, unpacks it, and says what is wrong.
pub(super) async fn read(
    cache: &ProvingCache,
    name: &ObjectName,
    promise: &Promise,
    large: &LargeWindow,
    reporter: &Reporter,
) -> Option<Problem> {
    // As one question: a cache that begins to answer and never ends is as down as one that does not answer.
    let answer = cache.nar_breaker.ask(download(cache, name, promise, large, reporter)).await;
    if cache.is_absent(&answer) {
        return Some(Problem::NarMissing);
    }
    match answer {
        Answer::Present(Ok(())) => None,
        Answer::Present(Err(flaw)) => Some(match flaw {
            Flaw::WrongSize(words) => Problem::NarWrongSize(words),
            Flaw::Damaged(words) => Problem::NarDamaged(words),
            Flaw::NotChecked(words) => Problem::NotChecked(words),
            Flaw::NeedsMemory => {
                Problem::NotChecked("unpacking its NAR takes more than 128 MiB of memory".to_owned())
            }
            Flaw::Cut(words) => Problem::Unreachable(said(name, &words)),
        }),
        Answer::Absent => Some(Problem::NarMissing),
        Answer::Denied(words) => Some(Problem::Denied(said(name, &words))),
        Answer::Broken(words) => Some(Problem::NarDamaged(format!("cannot be read: {words}"))),
        Answer::Unreachable(words) => Some(Problem::Unreachable(said(name, &words))),
    }
}

/// Downloads a NAR, again where it does not come whole, and gives what is wrong with it.
async fn download(
    cache: &ProvingCache,
    name: &ObjectName,
    promise: &Promise,
    large: &LargeWindow,
    reporter: &Reporter,
) -> Answer<Result<(), Flaw>> {
    let retry = Retry { attempts: ATTEMPTS, ..Retry::default() };
    let (mut attempt, mut window, mut permit) = (1, Window::Usual, None);
    loop {
        let pieces = match cache.cache.read(name).await {
            Answer::Present(pieces) => pieces,
            other => return other.map(|_| Ok(())),
        };
        match unpacked(pieces, promise, window, reporter).await {
            Err(Flaw::NeedsMemory) if window == Window::Usual => {
                window = Window::Large;
                // Never closed, so that this cannot fail.
                permit = permit.or(large.0.acquire().await.ok());
            }
            Err(Flaw::Cut(words)) => {
                let Some(wait) = retry.wait(attempt, None) else {
                    return Answer::Unreachable(format!("{words} (after {attempt} attempts)").into());
                };
                tracing::debug!("{name}: {words}; trying again in {:.1} s", wait.as_secs_f64());
                tokio::time::sleep(wait).await;
                attempt += 1;
            }
            found => return Answer::Present(found),
        }
    }
}

/// Hands what comes to a thread that unpacks it.
async fn unpacked(
    mut pieces: crate::cache::Pieces<'_>,
    promise: &Promise,
    window: Window,
    reporter: &Reporter,
) -> Result<(), Flaw> {
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, Words>>(AHEAD);
    let promise = promise.clone();
    let checking = tokio::task::spawn_blocking(move || {
        let pieces = std::iter::from_fn(|| receiver.blocking_recv());
        unpack::check(pieces, &promise, window)
    });
    while let Some(piece) = pieces.next().await {
        reporter.progress().add_received(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        if sender.send(piece).await.is_err() {
            // It has seen enough.
            break;
        }
    }
    drop(sender);
    match checking.await {
        Ok(found) => found,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
