//! The `cache-helper` program.

fn main() {}
