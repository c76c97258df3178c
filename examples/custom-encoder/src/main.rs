//! A program with a custom encoder. It has every command of `antiphon`, and can be a worker in a cluster:
//!
//! ```text
//! cargo run --release -p custom-encoder -- run examples/custom-encoder/spoken-digits.yaml
//! ```
//!
//! Jobs select the encoder by its name, as in `encoder: {kind: tcn}`. In a cluster, only the workers and the program
//! that checks and submits the job need the encoder; the coordinator can be plain `antiphon`.

mod tcn;

use std::process::ExitCode;

use antiphon::{Encoders, main_with};

fn main() -> ExitCode {
    main_with(Encoders::new().register("tcn", tcn::Tcn::new))
}
