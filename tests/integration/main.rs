//! The one integration binary: the program as its users see it, from outside.
//!
//! Nothing here uses the library. The judges are Nix itself, which must fetch back what was pushed, an independent
//! reader of binary caches, and servers that record what they were asked and can answer anything.
//! `CACHE_HELPER_TEST_NIX` names the Nixes to test with (colon-separated directories that hold `nix`),
//! `CACHE_HELPER_TEST_FULL=1` runs the long campaigns whole, `CACHE_HELPER_TEST_KEEP=1` keeps what a failed test wrote.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and says which Nix it was using"
)]

mod support;

mod audit;
mod audit_agrees;
mod audit_down;
mod bad_input;
mod damage;
mod dev_shell;
mod dev_shell_edges;
mod diff;
mod diff_kinds;
mod diff_saved;
mod fetch_back;
mod flake;
mod flake_outputs;
mod graph;
mod graph_damage;
mod graph_questions;
mod house;
mod http_faults;
mod installables;
mod kills;
mod narinfo_syntax;
mod own_files;
mod plans;
mod progress;
mod secrets;
mod services;
mod signatures;
mod sources;
mod support_holds;
mod together;
mod unprivileged;
mod verify;
mod verify_downloads;
mod why;
mod width;
mod workflows;
