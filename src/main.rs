//! `imatch`: parse, run, print the error, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    imatch::cli::main()
}
