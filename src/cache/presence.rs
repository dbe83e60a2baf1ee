//! Asking a cache for many narinfos at once.

use std::sync::Arc;

use futures_util::StreamExt as _;
use nix_derivation::{StoreDir, StorePath};
use nix_narinfo::NarInfo;

use super::narinfo::NarinfoProblem;
use super::{Answer, BinaryCache, Words, narinfo};
use crate::event::{Event, Reporter};

/// How many questions are open at a time.
const WIDTH: usize = 64;

/// After so many unanswered questions without a single answer, a cache is taken to be down.
const GIVE_UP_AFTER: usize = 3;

/// Asks for each of `paths`, in any order; answers come in the order of `paths`. A narinfo with a problem is broken.
///
/// A cache that answers nothing at all is not asked for the rest: see [`probe`].
pub async fn narinfos(
    cache: &Arc<dyn BinaryCache>,
    store_dir: &StoreDir,
    paths: &[&StorePath],
    reporter: &Reporter,
) -> Vec<Answer<NarInfo>> {
    let answers = probe(cache, store_dir, paths, reporter).await;
    paths.iter().zip(answers).map(|(path, answer)| narinfo::sound(path, answer)).collect()
}

/// Asks for each of `paths`, in any order; answers come in the order of `paths`, with what is wrong with a narinfo.
///
/// A cache that answers nothing at all is not asked for the rest: every further path gets the same
/// [`Answer::Unreachable`].
pub async fn probe(
    cache: &Arc<dyn BinaryCache>,
    store_dir: &StoreDir,
    paths: &[&StorePath],
    reporter: &Reporter,
) -> Vec<Answer<Result<NarInfo, NarinfoProblem>>> {
    let url = cache.url().to_string();
    reporter.emit(Event::LookupStarted { cache: url.clone(), paths: paths.len() });
    let mut answers: Vec<Option<Answer<_>>> = vec![None; paths.len()];
    let (mut answered, mut unanswered) = (0, 0);
    let mut down: Option<Words> = None;
    {
        let questions = paths.iter().enumerate().map(|(place, path)| async move {
            (place, narinfo::probe(cache.as_ref(), store_dir, path).await)
        });
        let mut stream = std::pin::pin!(futures_util::stream::iter(questions).buffer_unordered(WIDTH));
        while let Some((place, answer)) = stream.next().await {
            reporter.emit(Event::LookupAnswered { cache: url.clone() });
            match &answer {
                Answer::Unreachable(reason) => {
                    unanswered += 1;
                    if answered == 0 && unanswered >= GIVE_UP_AFTER {
                        down = Some(reason.clone());
                    }
                }
                _ => answered += 1,
            }
            answers[place] = Some(answer);
            if down.is_some() {
                break;
            }
        }
    }
    let held = answers.iter().filter(|answer| matches!(answer, Some(Answer::Present(Ok(_))))).count();
    reporter.emit(Event::LookupFinished { cache: url, held });
    let unasked = down.unwrap_or_else(|| "not asked".to_owned().into());
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Answer::Unreachable(unasked.clone()))).collect()
}
