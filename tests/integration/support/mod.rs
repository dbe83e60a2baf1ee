//! What the tests are made of: stores, projects, servers, and readers that judge the result.

pub(crate) mod busy;
pub(crate) mod cache;
pub(crate) mod checkout;
pub(crate) mod delay;
pub(crate) mod faults;
pub(crate) mod flakes;
pub(crate) mod graphs;
pub(crate) mod nats;
pub(crate) mod nginx;
pub(crate) mod nix;
pub(crate) mod outcome;
pub(crate) mod program;
pub(crate) mod project;
pub(crate) mod scene;
pub(crate) mod schema;
pub(crate) mod scratch;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod watch;
pub(crate) mod wild;
pub(crate) mod wire;

use std::ops::Range;
use std::time::Duration;

/// How long anything may take before it is a hang.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Whether the long campaigns run whole.
pub(crate) fn full_run() -> bool {
    std::env::var_os("CACHE_HELPER_TEST_FULL").is_some_and(|value| value == "1")
}

/// Numbers that are as good as random, and the same again with the same `CACHE_HELPER_TEST_SEED`.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Begins with the seed of the environment, or the usual one, and says which.
    pub(crate) fn new() -> Self {
        let seed = std::env::var("CACHE_HELPER_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(20_261_124);
        eprintln!("CACHE_HELPER_TEST_SEED={seed}");
        Self(seed)
    }

    /// The same for one of several tests that share the seed, each with numbers of its own.
    pub(crate) fn part(part: u64) -> Self {
        let Self(seed) = Self::new();
        Self(seed ^ (part + 1).wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// A number of a range, which may be empty: then its start. (`SplitMix64`)
    pub(crate) fn within(&mut self, range: Range<usize>) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let size = range.len().max(1) as u64;
        range.start + usize::try_from((z ^ (z >> 31)) % size).unwrap()
    }
}
