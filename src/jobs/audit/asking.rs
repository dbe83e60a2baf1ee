//! Asking the caches whatever the walk wants to know, as it comes to want it.

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::caches::AuditedCache;
use crate::audit::{Facts, View, Walk};
use crate::cache::presence;
use crate::event::{Event, Reporter};
use crate::graph::BuildGraph;
use crate::nix::Settings;

/// Asks all caches until nothing more is wanted.
///
/// Every answer goes into the walk as it comes, and what it makes the walk want is asked at once.
pub(super) async fn ask<'a>(
    graph: &'a BuildGraph,
    view: &'a View,
    caches: &[AuditedCache],
    settings: &Settings,
    looks_for_nars: bool,
    reporter: &Reporter,
) -> Facts<'a> {
    let name = match caches {
        [one] => one.url().to_owned(),
        several => format!("{} caches", several.len()),
    };
    reporter.emit(Event::LookupStarted { cache: name.clone(), paths: 0 });
    let mut walk = Walk::new(graph, view);
    let mut open = FuturesUnordered::new();
    let mut held = 0;
    loop {
        while open.len() < presence::WIDTH
            && let Some(id) = walk.ask_next()
        {
            let path = walk.path(id).clone();
            reporter.emit(Event::LookupGrew { cache: name.clone(), paths: 1 });
            open.push(async move {
                let asked = caches.iter().map(|cache| cache.ask(&path, settings, looks_for_nars));
                (id, join_all(asked).await)
            });
        }
        if walk.is_done() {
            break;
        }
        let Some((id, answers)) = open.next().await else { break };
        reporter.emit(Event::LookupAnswered { cache: name.clone() });
        held += usize::from(answers.iter().any(|answer| answer.usable().is_some()));
        walk.answer(id, answers);
    }
    reporter.emit(Event::LookupFinished { cache: name, held });
    walk.into_facts()
}
