//! Keeps a team's Nix binary cache hot.
