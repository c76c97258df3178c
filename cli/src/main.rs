//! `antiphon`: the program with the built-in encoders.

use std::process::ExitCode;

use antiphon_worker::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

fn main() -> ExitCode {
    antiphon::main()
}
