//! Whether a target may have the sources that a push comes upon.

use std::sync::Arc;

use super::outcome::{SourcePath, TargetError};
use super::target::TargetPush;
use crate::cache::{self, Answer, CacheUrl, Location, ObjectName, cache_info, narinfo};
use crate::plan::Holdings;

/// Who can read a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Whoever can reach it.
    Everybody,
    /// Who has a login, or may read the directory.
    Some,
    /// That is not known.
    Unknown(String),
}

impl Readers {
    /// Who can read the target at a URL, as the beginning of a sentence.
    pub(super) fn words(&self, url: &str) -> String {
        match self {
            Self::Everybody => format!("{url} can be read without a login"),
            Self::Some => format!("{url} cannot be read without a login"),
            Self::Unknown(reason) => {
                format!("whether {url} can be read without a login is not known ({reason})")
            }
        }
    }

    /// What the answers to questions without a login say, each about something that a reader needs. What everybody can read of
    /// a cache everybody can read.
    fn of<T>(answers: impl IntoIterator<Item = (ObjectName, Answer<T>)>) -> Self {
        let mut readers = Self::Some;
        for (name, answer) in answers {
            let reason = match answer {
                Answer::Present(_) => return Self::Everybody,
                Answer::Denied(_) => continue,
                Answer::Absent => format!("it says that {name} is not there"),
                Answer::Broken(words) | Answer::Unreachable(words) => words.text,
            };
            if readers == Self::Some {
                readers = Self::Unknown(reason);
            }
        }
        readers
    }
}

impl TargetPush<'_> {
    /// Refuses a target that everybody can read, as far as is known, if sources would have to be withheld from it: it is for the
    /// user to say whether they may go there. Where a target wants a login, they are only left out.
    pub(super) async fn require_consent(&self, url: &CacheUrl, held: &Holdings) -> Result<(), TargetError> {
        let withheld = self.report.sources.iter().filter(|source| source.is_withheld).cloned();
        let sources: Vec<SourcePath> = withheld.collect();
        if sources.is_empty() {
            return Ok(());
        }
        match self.readers(url, held).await? {
            Readers::Some => Ok(()),
            readers => Err(TargetError::Sources { url: url.to_string(), sources, readers }),
        }
    }

    /// Asks a target without a login for what a reader needs.
    async fn readers(&self, url: &CacheUrl, held: &Holdings) -> Result<Readers, TargetError> {
        if matches!(url.location(), Location::Directory(_)) {
            return Ok(Readers::Some);
        }
        let anonymous = cache::open(url, &Arc::new(self.request.http.clone()))?;
        let info = cache_info::read(anonymous.as_ref()).await;
        let mut answers = vec![(ObjectName::cache_info(), info.map(|_| ()))];
        // Some servers protect only the one or the other.
        if let Some(index) = self.closure.indices().find(|index| held.has(*index)) {
            let path = &self.closure.info(index).path;
            let answer = narinfo::fetch(anonymous.as_ref(), self.local.store.dir(), path).await;
            answers.push((narinfo::object_name(path), answer.map(|_| ())));
        }
        Ok(Readers::of(answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Words;

    #[test]
    fn a_cache_is_public_as_soon_as_something_of_it_is_and_private_only_if_all_of_it_is() {
        let words = |text: &str| Words::from(text.to_owned());
        let of = |answers: &[Answer<()>]| {
            Readers::of(answers.iter().map(|answer| (ObjectName::cache_info(), answer.clone())))
        };
        let (open, closed) = (Answer::Present(()), Answer::Denied(words("401")));
        let unknown = [Answer::Absent, Answer::Broken(words("no")), Answer::Unreachable(words("no"))];
        assert_eq!(of(std::slice::from_ref(&open)), Readers::Everybody);
        assert_eq!(of(&[closed.clone(), open.clone()]), Readers::Everybody);
        assert_eq!(of(&[closed.clone(), closed.clone()]), Readers::Some);
        for answer in unknown {
            assert_eq!(of(&[answer.clone(), open.clone()]), Readers::Everybody);
            assert!(matches!(of(&[closed.clone(), answer.clone()]), Readers::Unknown(_)));
            assert!(matches!(of(&[answer, closed.clone()]), Readers::Unknown(_)));
        }
    }
}
