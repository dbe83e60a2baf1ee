//! Keeps a team's Nix binary cache hot: computes what a closure needs, pushes exactly what a cache is missing, and
//! proves from the read side that Nix can fetch it.
//!
//! The crate is laid out in three bands. Imports point from the shell to the effects to the pure band, never back; a
//! test holds them to it.
//!
//! ```text
//! shell     config  cli/  report/  ui  error          flags, environment, terminal, colours
//!    |
//! effects   jobs/ -> push/ -> cache/ -> net/           async, files, sockets, processes; they emit events,
//!    |           \-> nix/                              and never print or read flags
//!    |
//! pure      audit/  graph/  plan/  proof/  event  text   values in, values out
//! ```
//!
//! The way of one path: [`nix::Store`] reads its registration, [`graph::Closure`] knows what it refers to,
//! [`plan::Plan`] decides whether it has to move, [`push`] packs, uploads and publishes it, and [`push::verify`] reads
//! it back as Nix would.

pub mod audit;
pub mod event;
pub mod graph;
pub mod plan;
pub mod proof;
pub mod text;

pub mod cache;
pub mod jobs;
pub mod net;
pub mod nix;
pub mod push;

pub mod cli;
pub mod config;
pub mod error;
pub mod report;
pub mod ui;
