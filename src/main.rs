//! The `keyferry` binary: everything it does is in [`keyferry::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    keyferry::cli::main()
}
