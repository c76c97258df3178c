//! A program that registers a custom encoder. It has every command of `antiphon`, and works as a worker in a cluster:
//!
//! ```text
//! cargo run --release -p custom-encoder -- run examples/custom-encoder/spoken-digits.yaml
//! ```
//!
//! The encoder is registered by the name that jobs give as `encoder: {kind: tcn}`. On a cluster only the workers and
//! the program that checks and submits the job need it; any `antiphon coordinator` will do.

mod tcn;

use std::process::ExitCode;

use antiphon::{Encoders, main_with};

fn main() -> ExitCode {
    main_with(Encoders::new().register("tcn", tcn::Tcn::new))
}
