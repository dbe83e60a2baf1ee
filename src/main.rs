//! The `cache-helper` program: parse, run, exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    cache_helper::cli::main().into()
}
