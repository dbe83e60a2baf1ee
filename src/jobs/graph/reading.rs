//! What the derivations of a graph say besides, read from their files for whoever writes it all down.

use std::num::NonZeroUsize;
use std::sync::mpsc::sync_channel;

use super::outcome::{Damaged, GraphReport};
use crate::graph::{DerivationIndex, DerivationKind, SavedDerivation};

/// How many derivations are read at a time.
const PIECE: usize = 64;

/// How many such pieces of a thread may wait to be taken.
const WAITING: usize = 4;

impl GraphReport {
    /// Hands every derivation to `take`, inputs first, with what its file says, in the form that `render` gives it. Threads read and
    /// render some at a time, so that no more is in memory. Gives those of whose file nothing more can be read. Blocks.
    ///
    /// # Errors
    ///
    /// When it cannot be taken.
    pub fn each_saved<T: Send, E>(
        &self,
        render: &(impl Fn(&SavedDerivation) -> T + Sync),
        mut take: impl FnMut(T) -> Result<(), E>,
    ) -> Result<Vec<Damaged>, E> {
        let all: Vec<DerivationIndex> = self.graph.indices().collect();
        let pieces: Vec<&[DerivationIndex]> = all.chunks(PIECE).collect();
        let threads = std::thread::available_parallelism().map_or(2, NonZeroUsize::get).min(pieces.len());
        let mut damaged = Vec::new();
        std::thread::scope(|scope| {
            let receivers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (sender, receiver) = sync_channel(WAITING);
                    let own = pieces.iter().skip(thread).step_by(threads);
                    scope.spawn(move || {
                        for piece in own {
                            // Where nobody takes any more, there is nothing more to read.
                            if sender.send(self.piece(piece, render)).is_err() {
                                return;
                            }
                        }
                    });
                    receiver
                })
                .collect();
            for number in 0..pieces.len() {
                let Ok((rendered, mut unusable)) = receivers[number % threads].recv() else { break };
                damaged.append(&mut unusable);
                rendered.into_iter().try_for_each(&mut take)?;
            }
            Ok(damaged)
        })
    }

    /// Some derivations, and those of them that cannot be read whole.
    fn piece<T>(
        &self,
        piece: &[DerivationIndex],
        render: &impl Fn(&SavedDerivation) -> T,
    ) -> (Vec<T>, Vec<Damaged>) {
        let (mut rendered, mut damaged) = (Vec::with_capacity(piece.len()), Vec::new());
        for index in piece {
            let view = self.graph.derivation(*index);
            let contents = match view.kind() {
                DerivationKind::Unread => None,
                _ => match self.files.contents(&view.path()) {
                    Ok(contents) => Some(contents),
                    Err(error) => {
                        damaged.push(Damaged { drv: self.drv(*index), error: error.to_string() });
                        None
                    }
                },
            };
            rendered.push(render(&SavedDerivation::new(view, &self.graph, contents, self.files.dir())));
        }
        (rendered, damaged)
    }
}
