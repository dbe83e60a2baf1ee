//! Asking a cache for many paths at once.

use std::sync::Arc;

use futures_util::StreamExt as _;
use nix_derivation::{StoreDir, StorePath};
use nix_narinfo::NarInfo;

use super::narinfo::NarinfoProblem;
use super::narinfo_syntax::Syntax;
use super::{Answer, BinaryCache, Words, narinfo};
use crate::event::{Event, Reporter};

/// How many questions are open at a time.
const WIDTH: usize = 64;

/// After so many questions in a row that nobody answered, a cache is taken to be down.
const GIVE_UP_AFTER: usize = 3;

/// Asks for each of `paths`, in any order; answers come in the order of `paths`. A narinfo with a problem is broken, and so
/// is one that any Nix would not take.
///
/// What is kept of a narinfo is for `keep` to say, so that thousands of them need not be in memory together. A cache that
/// goes down is not asked for the rest: see [`ask`].
pub async fn narinfos<T>(
    cache: &Arc<dyn BinaryCache>,
    store_dir: &StoreDir,
    paths: &[&StorePath],
    reporter: &Reporter,
    mut keep: impl FnMut(NarInfo) -> T,
) -> Vec<Answer<T>> {
    lookup(cache, store_dir, paths, Syntax::EVERY_NIX, reporter, |place, answer| {
        narinfo::sound(paths[place], answer).map(&mut keep)
    })
    .await
}

/// Asks for each of `paths`, in any order; answers come in the order of `paths`, with what is wrong with a narinfo.
///
/// A cache that goes down is not asked for the rest: see [`ask`].
pub async fn probe(
    cache: &Arc<dyn BinaryCache>,
    store_dir: &StoreDir,
    paths: &[&StorePath],
    syntax: Syntax,
    reporter: &Reporter,
) -> Vec<Answer<Result<NarInfo, NarinfoProblem>>> {
    lookup(cache, store_dir, paths, syntax, reporter, |_, answer| answer).await
}

async fn lookup<T>(
    cache: &Arc<dyn BinaryCache>,
    store_dir: &StoreDir,
    paths: &[&StorePath],
    syntax: Syntax,
    reporter: &Reporter,
    mut keep: impl FnMut(usize, Answer<Result<NarInfo, NarinfoProblem>>) -> Answer<T>,
) -> Vec<Answer<T>> {
    let url = cache.url().to_string();
    reporter.emit(Event::LookupStarted { cache: url.clone(), paths: paths.len() });
    let questions = paths.iter().map(|path| narinfo::probe(cache.as_ref(), store_dir, path, syntax));
    let mut held = 0;
    let answers = ask(questions, |place, answer| {
        reporter.emit(Event::LookupAnswered { cache: url.clone() });
        held += usize::from(matches!(answer, Answer::Present(Ok(_))));
        keep(place, answer)
    })
    .await;
    reporter.emit(Event::LookupFinished { cache: url, held });
    answers
}

/// Asks one cache many questions, some at a time. Each answer goes through `keep` as it comes; what is kept is given back in
/// the order of the questions.
///
/// When three questions in a row (in the order in which they end) are not answered, the cache is down: every further one
/// gets the same [`Answer::Unreachable`], so that a dead cache costs one wait and not one a path.
pub async fn ask<U, T, Q: Future<Output = Answer<U>>>(
    questions: impl ExactSizeIterator<Item = Q>,
    mut keep: impl FnMut(usize, Answer<U>) -> Answer<T>,
) -> Vec<Answer<T>> {
    let mut answers: Vec<Option<Answer<T>>> = std::iter::repeat_with(|| None).take(questions.len()).collect();
    let questions = questions.enumerate().map(|(place, question)| async move { (place, question.await) });
    let mut stream = std::pin::pin!(futures_util::stream::iter(questions).buffer_unordered(WIDTH));
    let mut unanswered = 0;
    let mut down = Words::from("not asked".to_owned());
    while let Some((place, answer)) = stream.next().await {
        if let Answer::Unreachable(reason) = &answer {
            unanswered += 1;
            down = reason.clone();
        } else {
            unanswered = 0;
        }
        answers[place] = Some(keep(place, answer));
        if unanswered >= GIVE_UP_AFTER {
            break;
        }
    }
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Answer::Unreachable(down.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn down<T>() -> Answer<T> {
        Answer::Unreachable("down".to_owned().into())
    }

    /// Asks 1000 questions, which `answer` answers at once; gives how many were asked, and the answers.
    async fn asked(answer: impl Fn(usize) -> Answer<usize>) -> (usize, Vec<Answer<usize>>) {
        let count = Cell::new(0);
        let questions = (0..1000).map(|place| {
            let (count, answer) = (&count, &answer);
            async move {
                count.set(count.get() + 1);
                answer(place)
            }
        });
        let answers = ask(questions, |_, answer| answer).await;
        (count.get(), answers)
    }

    #[tokio::test]
    async fn a_cache_that_goes_down_is_not_asked_for_the_rest() {
        let (count, answers) = asked(|place| if place < 500 { Answer::Present(place) } else { down() }).await;
        assert!((500..=500 + GIVE_UP_AFTER + WIDTH).contains(&count), "{count} questions");
        assert_eq!(answers.len(), 1000);
        assert!(answers[..500].iter().enumerate().all(|(place, answer)| *answer == Answer::Present(place)));
        assert!(answers[500..].iter().all(|answer| *answer == down()));
    }

    #[tokio::test]
    async fn a_cache_that_answers_now_and_then_is_asked_to_the_end() {
        let answer = |place: usize| if place.is_multiple_of(3) { Answer::Absent } else { down() };
        let (count, answers) = asked(answer).await;
        assert_eq!(count, 1000);
        assert!(answers.iter().enumerate().all(|(place, got)| *got == answer(place)));
    }
}
