//! Asking a cache for many paths at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use nix_derivation::{StoreDir, StorePath};
use nix_narinfo::NarInfo;
use tokio::sync::watch;

use super::narinfo_syntax::Syntax;
use super::{Answer, BinaryCache, Words, narinfo};
use crate::event::{Event, Reporter};

/// How many questions are handed to a cache at a time. How many of them are under way is for the cache to say, which knows
/// what it can take; the rest waits for its turn, and costs a few kilobytes each.
pub const WIDTH: usize = 1024;

/// After so many questions in a row that nobody answered, a cache is taken to be down.
const GIVE_UP_AFTER: usize = 3;

/// Whether a cache is down, as far as was seen: one for each cache, for as long as it shall not be asked again.
///
/// When three questions in a row (in the order in which they end) are not answered, the cache is down and stays so: every
/// question that is open or comes later gets the same [`Answer::Unreachable`], so that a dead cache costs one wait and not
/// one a path, however often it is turned to.
///
/// A question counts only where no other was answered since it was asked: what fails is tried again for a while, so that
/// the few objects for which a cache that lives has no answer all come to their end when everything else is done.
#[derive(Debug)]
pub struct Breaker {
    seen: Mutex<Seen>,
    down: watch::Sender<Option<Words>>,
}

/// What became of the questions so far.
#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    /// Since the last that was answered.
    unanswered: usize,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { seen: Mutex::default(), down: watch::Sender::new(None) }
    }
}

impl Breaker {
    /// What the cache said last, if it is down.
    pub fn down(&self) -> Option<Words> {
        self.down.borrow().clone()
    }

    /// Asks the cache, unless it is down or goes down meanwhile.
    pub async fn ask<T>(&self, question: impl Future<Output = Answer<T>>) -> Answer<T> {
        let mut down = self.down.subscribe();
        let answered_before = self.seen().answered;
        tokio::select! {
            // Whoever found it down before keeps being right.
            biased;
            Ok(words) = down.wait_for(Option::is_some) => {
                Answer::Unreachable(words.clone().unwrap_or_else(|| "it is down".to_owned().into()))
            }
            answer = question => {
                self.note(&answer, answered_before);
                answer
            }
        }
    }

    /// Takes note of an answer.
    fn note<T>(&self, answer: &Answer<T>, answered_before: u64) {
        let mut seen = self.seen();
        match answer {
            Answer::Unreachable(_) if seen.answered > answered_before => {}
            Answer::Unreachable(words) => {
                seen.unanswered += 1;
                if seen.unanswered >= GIVE_UP_AFTER {
                    self.down
                        .send_if_modified(|down| down.is_none() && down.replace(words.clone()).is_none());
                }
            }
            _ => *seen = Seen { answered: seen.answered + 1, unanswered: 0 },
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for each of `paths`, in any order; answers come in the order of `paths`. A narinfo with a problem is broken, and so
/// is one that any Nix would not take.
///
/// What is kept of a narinfo is for `keep` to say, so that thousands of them need not be in memory together. A cache that
/// goes down is not asked for the rest: see [`Breaker`].
pub async fn narinfos<T>(
    cache: &Arc<dyn BinaryCache>,
    breaker: &Breaker,
    store_dir: &StoreDir,
    paths: &[&StorePath],
    reporter: &Reporter,
    mut keep: impl FnMut(NarInfo) -> T,
) -> Vec<Answer<T>> {
    let url = cache.url().to_string();
    reporter.emit(Event::LookupStarted { cache: url.clone(), paths: paths.len() });
    let syntax = Syntax::EVERY_NIX;
    let questions = paths.iter().map(|path| narinfo::probe(cache.as_ref(), store_dir, path, syntax));
    let mut held = 0;
    let answers = ask(breaker, questions, |place, answer| {
        reporter.emit(Event::LookupAnswered { cache: url.clone() });
        held += usize::from(matches!(answer, Answer::Present(Ok(_))));
        narinfo::sound(paths[place], answer).map(&mut keep)
    })
    .await;
    reporter.emit(Event::LookupFinished { cache: url, held });
    answers
}

/// Asks one cache many questions, some at a time. Each answer goes through `keep` as it comes; what is kept is given back in
/// the order of the questions.
///
/// When the cache's breaker finds it down, here or before, the rest is answered by that: see [`Breaker`].
pub async fn ask<U, T, Q: Future<Output = Answer<U>>>(
    breaker: &Breaker,
    questions: impl ExactSizeIterator<Item = Q>,
    mut keep: impl FnMut(usize, Answer<U>) -> Answer<T>,
) -> Vec<Answer<T>> {
    let mut answers: Vec<Option<Answer<T>>> = std::iter::repeat_with(|| None).take(questions.len()).collect();
    let questions =
        questions.enumerate().map(|(place, question)| async move { (place, breaker.ask(question).await) });
    let mut stream = std::pin::pin!(futures_util::stream::iter(questions).buffer_unordered(WIDTH));
    while let Some((place, answer)) = stream.next().await {
        answers[place] = Some(keep(place, answer));
    }
    // Each question was answered.
    answers.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn down<T>() -> Answer<T> {
        Answer::Unreachable("down".to_owned().into())
    }

    /// Asks 1000 questions, which `answer` answers at once; gives how many were asked, and the answers.
    async fn asked(
        breaker: &Breaker,
        answer: impl Fn(usize) -> Answer<usize>,
    ) -> (usize, Vec<Answer<usize>>) {
        let count = Cell::new(0);
        let questions = (0..1000).map(|place| {
            let (count, answer) = (&count, &answer);
            async move {
                count.set(count.get() + 1);
                answer(place)
            }
        });
        let answers = ask(breaker, questions, |_, answer| answer).await;
        (count.get(), answers)
    }

    #[tokio::test]
    async fn a_cache_that_goes_down_is_not_asked_for_the_rest() {
        let breaker = Breaker::default();
        let answer = |place| if place < 500 { Answer::Present(place) } else { down() };
        let (count, answers) = asked(&breaker, answer).await;
        assert!((500..=500 + GIVE_UP_AFTER).contains(&count), "{count} questions");
        assert_eq!(answers.len(), 1000);
        assert!(answers[..500].iter().enumerate().all(|(place, answer)| *answer == Answer::Present(place)));
        assert!(answers[500..].iter().all(|answer| *answer == down()));
        // And is not asked for anything else, though it may be back.
        let (count, answers) = asked(&breaker, Answer::Present).await;
        assert_eq!(count, 0);
        assert!(answers.iter().all(|answer| *answer == down()));
    }

    #[tokio::test]
    async fn questions_in_a_row_are_counted_from_one_call_to_the_next() {
        let breaker = Breaker::default();
        let question = |answer: Answer<()>| std::future::ready(answer);
        for answer in [down(), down(), Answer::Absent, down(), down()] {
            ask(&breaker, std::iter::once(question(answer)), |_, answer| answer).await;
            assert_eq!(breaker.down(), None);
        }
        ask(&breaker, std::iter::once(question(down())), |_, answer| answer).await;
        assert_eq!(breaker.down(), Some("down".to_owned().into()));
    }

    #[tokio::test]
    async fn what_fails_late_among_answers_does_not_bring_a_cache_down() {
        let (breaker, failed) = (Breaker::default(), tokio::sync::Notify::new());
        let question = |place: usize| {
            let failed = &failed;
            async move {
                // The first ten are tried again and again, and end when all others have.
                if place < 10 {
                    failed.notified().await;
                    failed.notify_one();
                    return down();
                }
                if place == 999 {
                    failed.notify_one();
                }
                Answer::Present(place)
            }
        };
        let answers = ask(&breaker, (0..1000).map(question), |_, answer| answer).await;
        assert_eq!(breaker.down(), None);
        assert!(answers[10..].iter().all(|answer| *answer != down()));
        for _ in 0..GIVE_UP_AFTER {
            ask(&breaker, std::iter::once(std::future::ready(down::<()>())), |_, answer| answer).await;
        }
        assert_eq!(breaker.down(), Some("down".to_owned().into()));
    }

    #[tokio::test]
    async fn a_cache_that_answers_now_and_then_is_asked_to_the_end() {
        let answer = |place: usize| if place.is_multiple_of(3) { Answer::Absent } else { down() };
        let (count, answers) = asked(&Breaker::default(), answer).await;
        assert_eq!(count, 1000);
        assert!(answers.iter().enumerate().all(|(place, got)| *got == answer(place)));
    }
}
