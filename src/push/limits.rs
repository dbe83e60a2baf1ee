//! How much a push may use at once.

use super::pack::Method;
use crate::text::size;

/// How many requests to one target may be open at a time.
pub(super) const UPLOADS: usize = 16;

const MIB: usize = 1024 * 1024;

/// What a path that is being packed takes besides its encoder: buffers, and files as they are read.
const BUFFERS: usize = MIB;

/// How much of a compressed NAR is kept in memory at least before it goes to a file.
const LEAST_SPOOL: usize = 256 * 1024;

/// And at most: beyond that a file costs nothing.
const MOST_SPOOL: usize = 64 * MIB;

/// What one encoder takes, in MiB, up to and with each level: `ZSTD_estimateCStreamSize` of zstd 1.5.7, rounded up.
const ZSTD: [(i32, usize); 14] = [
    (2, 2),
    (3, 4),
    (4, 5),
    (6, 6),
    (8, 9),
    (9, 17),
    (11, 29),
    (14, 53),
    (18, 69),
    (19, 90),
    (20, 194),
    (21, 386),
    (22, 834),
    (i32::MAX, 834),
];

/// The same for xz: `lzma_easy_encoder_memusage` of liblzma 5.8, rounded up.
const XZ: [(i32, usize); 10] =
    [(0, 3), (1, 9), (2, 17), (3, 32), (4, 48), (6, 94), (7, 186), (8, 370), (9, 674), (i32::MAX, 674)];

/// A budget in which not even one path can be packed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{} is too little: to pack one path at a time takes {}", size(*.given as u64), size(*.needed as u64))]
pub struct TooLittleMemory {
    /// What may be used, in bytes.
    pub given: usize,
    /// The least that is needed, in bytes.
    pub needed: usize,
}

/// How much a push may use at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    jobs: usize,
    in_memory: usize,
}

impl Limits {
    /// Divides a budget of `memory` bytes among up to `jobs` paths that are packed at a time; fewer, where the encoders
    /// would not fit.
    ///
    /// The budget is for encoders, and for compressed NARs on their way. The rest of the program takes some tens of
    /// megabytes besides, whatever the closure is.
    ///
    /// # Errors
    ///
    /// When not even one path can be packed in that.
    pub fn new(jobs: usize, memory: usize, (method, level): (Method, i32)) -> Result<Self, TooLittleMemory> {
        let packing = encoder(method, level) + BUFFERS;
        // Up to twice as many compressed NARs as jobs, and those that are being sent.
        let each = packing + 2 * LEAST_SPOOL;
        let sending = UPLOADS * LEAST_SPOOL;
        let needed = sending + each;
        if memory < needed {
            return Err(TooLittleMemory { given: memory, needed: needed.next_multiple_of(MIB) });
        }
        let jobs = jobs.clamp(1, (memory - sending) / each);
        let in_memory = (memory - jobs * packing) / (jobs * 2 + UPLOADS);
        Ok(Self { jobs, in_memory: in_memory.clamp(LEAST_SPOOL, MOST_SPOOL) })
    }

    /// How many paths are packed at the same time.
    pub fn jobs(self) -> usize {
        self.jobs
    }

    /// Up to how many compressed bytes of one NAR are kept in memory.
    pub(super) fn in_memory(self) -> usize {
        self.in_memory
    }
}

/// What one encoder takes, in bytes.
fn encoder(method: Method, level: i32) -> usize {
    let table: &[(i32, usize)] = match method {
        Method::Zstd => &ZSTD,
        Method::Xz => &XZ,
        Method::None => &[],
    };
    table.iter().find(|(up_to, _)| level <= *up_to).map_or(0, |(_, mebibytes)| mebibytes * MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_jobs_run_where_their_encoders_would_not_fit() {
        let jobs =
            |memory: usize, method, level| Limits::new(64, memory * MIB, (method, level)).map(Limits::jobs);
        assert_eq!(jobs(128, Method::Zstd, 3), Ok(22));
        assert_eq!(jobs(1024, Method::Zstd, 3), Ok(64));
        assert_eq!(jobs(1024, Method::Zstd, 22), Ok(1));
        assert_eq!(jobs(1024, Method::Zstd, 19), Ok(11));
        assert_eq!(jobs(128, Method::Xz, 6), Ok(1));
        assert_eq!(jobs(128, Method::None, 0), Ok(64));
    }

    #[test]
    fn the_parts_do_not_exceed_the_whole_and_the_least_is_enough() {
        for (method, levels) in [(Method::Zstd, -7..=22), (Method::Xz, 0..=9), (Method::None, 0..=0)] {
            for level in levels {
                let error = Limits::new(1, 0, (method, level)).expect_err("nothing is too little");
                for memory in [error.needed, error.needed * 3, 2048 * MIB] {
                    let limits = Limits::new(8, memory, (method, level)).expect("enough");
                    let packing = encoder(method, level) + BUFFERS;
                    let used = limits.jobs * packing + limits.in_memory * (limits.jobs * 2 + UPLOADS);
                    assert!(used <= memory, "{method:?} {level}: {used} of {memory}");
                }
            }
        }
    }
}
