//! Moving paths into a cache: pack, upload, publish, and read back.
//!
//! [`pack()`](pack::pack) turns a store object into a compressed NAR and checks it against the registration on the way;
//! [`engine`] runs many of them at once and writes narinfos in the order that [`crate::plan::Schedule`] allows;
//! [`reading`] remembers what the target serves; [`verify`] proves from the read side that Nix can fetch what was pushed.

pub mod engine;
mod limits;
pub mod pack;
pub mod reading;
mod spool;
pub mod verify;

pub use engine::{Failure, Outcome, Push};
pub use limits::{Limits, TooLittleMemory};
pub use pack::{Method, PackError, PackSettings};
pub use reading::{Reading, Trusted};
