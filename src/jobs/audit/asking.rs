//! Asking the caches whatever the walk wants to know, as it comes to want it.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::caches::AuditedCache;
use crate::audit::{Facts, View, Walk};
use crate::cache::presence;
use crate::event::{Event, Reporter};
use crate::graph::BuildGraph;
use crate::nix::Settings;

/// Asks all caches until nothing more is wanted.
///
/// Every answer goes into the walk as it comes, and what it makes the walk want is asked at once. Each path is a task of its
/// own, so that signatures are checked on all cores.
pub(super) async fn ask<'a>(
    graph: &'a BuildGraph,
    view: &'a View,
    caches: &Arc<[AuditedCache]>,
    settings: &Arc<Settings>,
    looks_for_nars: bool,
    reporter: &Reporter,
) -> Facts<'a> {
    let name = match &**caches {
        [one] => one.url().to_owned(),
        several => format!("{} caches", several.len()),
    };
    reporter.emit(Event::LookupStarted { cache: name.clone(), paths: 0 });
    let mut walk = Walk::new(graph, view);
    let mut open = JoinSet::new();
    let mut held = 0;
    loop {
        while open.len() < presence::WIDTH
            && let Some(id) = walk.ask_next()
        {
            let path = walk.path(id).clone();
            reporter.emit(Event::LookupGrew { cache: name.clone(), paths: 1 });
            let (caches, settings) = (Arc::clone(caches), Arc::clone(settings));
            open.spawn(async move {
                let asked = caches.iter().map(|cache| cache.ask(&path, &settings, looks_for_nars));
                (id, join_all(asked).await)
            });
        }
        if walk.is_done() {
            break;
        }
        let (id, answers) = match open.join_next().await {
            Some(Ok(answered)) => answered,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => break,
        };
        reporter.emit(Event::LookupAnswered { cache: name.clone() });
        held += usize::from(answers.iter().any(|answer| answer.usable().is_some()));
        walk.answer(id, answers);
    }
    reporter.emit(Event::LookupFinished { cache: name, held });
    walk.into_facts()
}
