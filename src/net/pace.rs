//! How many questions are open at one server at a time: as many as it answers well.
//!
//! The limit doubles with each round of answers while it is what holds the questions up, as TCP's window does at its start
//! (RFC 5681 §3.1), until the server shows that it has enough: it refuses (429, 503), or answers take clearly longer than the
//! fastest of late (as TCP Vegas and Netflix's concurrency-limits judge it). Then it sinks, and climbs again in small steps.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// The limit at the start.
const FIRST: usize = 64;

/// Growing latency alone does not press the limit below this.
const CALM: usize = 16;

/// Answers may take so much longer than twice the fastest, before the server counts as slowed down. Below that, what is
/// measured is this machine.
const TOLERANCE: Duration = Duration::from_millis(5);

/// The first wait after a refusal that does not say how long; it doubles with each further round of them.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest of those waits.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A limit on the questions that are open at a server, which follows what the server can take.
#[derive(Debug)]
pub(super) struct Pace {
    permits: Semaphore,
    state: Mutex<State>,
    /// The longest pause, also where a server asks for more.
    longest_pause: Duration,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// The limit never grows beyond this.
    most: usize,
    /// How many permits are kept when they come back, because the limit sank while they were out.
    excess: usize,
    /// Whether the server has not yet shown that it has enough.
    is_first_climb: bool,
    round: Round,
    /// The fastest answer of late.
    fastest: Option<Duration>,
    /// When the limit last sank: what was asked before says nothing of the new one.
    sank_at: Option<Instant>,
    /// Nothing is asked until then.
    paused_until: Option<Instant>,
    /// Refusals since the last answer, a round of them counted once.
    refusals: u32,
}

/// As many answers as the limit allows questions.
#[derive(Debug, Default)]
struct Round {
    answers: usize,
    took: Duration,
    fastest: Option<Duration>,
    /// Whether anybody had to wait for the limit.
    is_full: bool,
}

impl Pace {
    /// A pace that nothing is known of yet, whose limit never grows beyond `most`.
    pub(super) fn new(most: usize, longest_pause: Duration) -> Self {
        let limit = FIRST.min(most);
        Self {
            permits: Semaphore::new(limit),
            state: Mutex::new(State {
                limit,
                most,
                excess: 0,
                is_first_climb: true,
                round: Round::default(),
                fastest: None,
                sank_at: None,
                paused_until: None,
                refusals: 0,
            }),
            longest_pause,
        }
    }

    /// Waits until one more question may be asked.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let permit = if let Ok(permit) = self.permits.try_acquire() {
            permit
        } else {
            self.state().round.is_full = true;
            self.permits.acquire().await.expect("it is never closed")
        };
        while let Some(until) = self.pause() {
            tokio::time::sleep_until(until).await;
        }
        Turn { pace: self, permit: Some(permit), began: Instant::now() }
    }

    /// The limit never grows beyond this from now on.
    pub(super) fn limit_to(&self, most: usize) {
        self.state().most = most;
    }

    fn pause(&self) -> Option<Instant> {
        self.state().paused_until.filter(|until| *until > Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the semaphore the permits by which the limit has grown since it was `before`, or takes those by which it sank:
    /// at once where they are idle, otherwise when they come back.
    fn settle(&self, state: &mut State, before: usize) {
        if state.limit < before {
            let fewer = before - state.limit;
            state.excess += fewer - self.permits.forget_permits(fewer);
            return;
        }
        let more = state.limit - before;
        let taken_back = more.min(state.excess);
        state.excess -= taken_back;
        self.permits.add_permits(more - taken_back);
    }
}

impl State {
    fn note_answer(&mut self, began: Instant, took: Duration) {
        if self.is_of_old(began) {
            return;
        }
        self.refusals = 0;
        let round = &mut self.round;
        round.answers += 1;
        round.took += took;
        round.fastest = Some(round.fastest.map_or(took, |fastest| fastest.min(took)));
        if round.answers >= self.limit {
            let round = std::mem::take(&mut self.round);
            self.end_round(&round);
        }
    }

    fn end_round(&mut self, round: &Round) {
        let Some(fastest_now) = round.fastest else { return };
        let fastest = self.fastest.map_or(fastest_now, |known| fastest_now.min(known));
        self.fastest = Some(fastest);
        let mean = round.took / u32::try_from(round.answers).unwrap_or(u32::MAX);
        let bearable = fastest * 2 + TOLERANCE;
        if mean > bearable {
            self.is_first_climb = false;
            if self.limit > CALM {
                let share = bearable.div_duration_f64(mean).max(0.5);
                self.limit = scaled(self.limit, share).max(CALM);
            } else {
                // So few questions are no burden: the way to the server has become longer.
                self.fastest = Some(fastest_now);
                self.is_first_climb = true;
            }
        } else if round.is_full {
            let step = if self.is_first_climb { self.limit } else { self.limit / 8 + 1 };
            self.limit = (self.limit + step).min(self.most.max(self.limit));
        }
    }

    fn note_refusal(&mut self, began: Instant, asked_for: Option<Duration>, longest_pause: Duration) {
        let now = Instant::now();
        if !self.is_of_old(began) {
            self.sink(now);
            self.refusals += 1;
        }
        let wait = asked_for.unwrap_or_else(|| {
            let bound = FIRST_WAIT.saturating_mul(1 << self.refusals.saturating_sub(1).min(16));
            bound.min(LONGEST_WAIT).mul_f64(0.5 + fastrand::f64() / 2.0)
        });
        let until = now + wait.min(longest_pause);
        self.paused_until = Some(self.paused_until.map_or(until, |known| known.max(until)));
    }

    fn sink(&mut self, now: Instant) {
        self.limit = (self.limit / 2).max(1);
        self.is_first_climb = false;
        self.sank_at = Some(now);
        self.round = Round::default();
    }

    /// Whether a question was asked before the limit last sank.
    fn is_of_old(&self, began: Instant) -> bool {
        self.sank_at.is_some_and(|sank_at| began <= sank_at)
    }
}

/// A part of a number, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small numbers"
)]
fn scaled(number: usize, share: f64) -> usize {
    (number as f64 * share) as usize
}

/// The right to ask one question. What became of it is said to the pace; a turn that is dropped says nothing.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pace: &'a Pace,
    permit: Option<SemaphorePermit<'a>>,
    began: Instant,
}

impl Turn<'_> {
    /// The server answered, whatever it said.
    pub(super) fn answered(self) {
        let took = self.began.elapsed();
        self.change(|state, began| state.note_answer(began, took));
    }

    /// The server has enough: everybody waits for as long as it asks for.
    pub(super) fn refused(self, asked_for: Option<Duration>) {
        let longest_pause = self.pace.longest_pause;
        self.change(|state, began| state.note_refusal(began, asked_for, longest_pause));
    }

    /// Nobody answered.
    pub(super) fn failed(self) {
        self.change(|state, began| {
            if !state.is_of_old(began) {
                state.sink(Instant::now());
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State, Instant)) {
        let mut state = self.pace.state();
        let before = state.limit;
        change(&mut state, self.began);
        self.pace.settle(&mut state, before);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        if state.excess > 0
            && let Some(permit) = self.permit.take()
        {
            state.excess -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::StreamExt as _;

    use super::*;

    const MOST: usize = 512;

    fn pace() -> Pace {
        Pace::new(MOST, Duration::from_mins(1))
    }

    fn limit(pace: &Pace) -> usize {
        pace.state().limit
    }

    /// Asks so many questions of a server that answers each after a while that grows with how many are open.
    async fn ask(pace: &Pace, count: usize, latency: impl Fn(usize) -> Duration) -> usize {
        let (open, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        futures_util::stream::iter(0..count)
            .map(|_| async {
                let turn = pace.turn().await;
                let now_open = open.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now_open, Ordering::Relaxed);
                tokio::time::sleep(latency(now_open)).await;
                open.fetch_sub(1, Ordering::Relaxed);
                turn.answered();
            })
            .buffer_unordered(2 * MOST)
            .collect::<Vec<()>>()
            .await;
        most.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_evenly_is_asked_ever_more_up_to_the_most() {
        let pace = pace();
        let began = Instant::now();
        let most = ask(&pace, 2869, |_| Duration::from_millis(20)).await;
        assert_eq!((most, limit(&pace)), (MOST, MOST));
        // 64, 128, 256, then 512 at a time.
        assert!(began.elapsed() <= Duration::from_millis(20 * 9), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_questions_do_not_raise_the_limit() {
        let pace = pace();
        ask(&pace, FIRST, |_| Duration::from_millis(20)).await;
        assert_eq!(limit(&pace), FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn growing_latency_lowers_the_limit_and_its_end_lets_it_rise() {
        let pace = pace();
        // A server that works on 100 at a time.
        let busy =
            |open: usize| Duration::from_millis(20) * u32::try_from(open.div_ceil(100)).expect("small");
        ask(&pace, 20_000, busy).await;
        assert!((50..=300).contains(&limit(&pace)), "{}", limit(&pace));
        ask(&pace, 20_000, |_| Duration::from_millis(20)).await;
        assert_eq!(limit(&pace), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_that_became_longer_is_no_congestion_for_ever() {
        let pace = pace();
        ask(&pace, 2_000, |_| Duration::from_millis(1)).await;
        ask(&pace, 30_000, |_| Duration::from_millis(50)).await;
        assert_eq!(limit(&pace), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_of_refusals_halves_the_limit_once_and_everybody_waits() {
        let pace = pace();
        ask(&pace, 4_000, |_| Duration::from_millis(20)).await;
        let mut turns = Vec::new();
        for _ in 0..100 {
            turns.push(pace.turn().await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        for turn in turns {
            turn.refused(Some(Duration::from_secs(7)));
        }
        assert_eq!(limit(&pace), MOST / 2);
        let began = Instant::now();
        let most = ask(&pace, 200, |_| Duration::from_millis(20)).await;
        assert!(began.elapsed() >= Duration::from_secs(7), "{:?}", began.elapsed());
        assert!(most <= MOST / 2, "{most}");
        ask(&pace, 30_000, |_| Duration::from_millis(20)).await;
        assert_eq!(limit(&pace), MOST, "it comes back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_without_end_is_not_obeyed_without_end() {
        let pace = pace();
        pace.turn().await.refused(Some(Duration::from_hours(24)));
        let began = Instant::now();
        pace.turn().await.answered();
        assert!(began.elapsed() <= Duration::from_secs(61), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn no_permit_is_lost_or_won_whatever_happens() {
        let pace = pace();
        for round in 0..2_000 {
            let turn = pace.turn().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            match round % 7 {
                0 => turn.refused(Some(Duration::ZERO)),
                1 => turn.failed(),
                2 => drop(turn),
                _ => turn.answered(),
            }
        }
        assert!(limit(&pace) >= 1);
        assert_eq!(pace.permits.available_permits(), limit(&pace) + pace.state().excess);
    }
}
