//! `antiphon`: the program with the built-in encoders.

use std::process::ExitCode;

fn main() -> ExitCode {
    antiphon::main()
}
