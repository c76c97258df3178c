//! `antiphon`: the command line.
//!
//! ```text
//! program ─ commands ─┬─ lab ──────┐
//!                     ├─ follow ───┼─ client ─ exit, output
//!                     ├─ predictor │
//!                     └─ joint     └─ …
//! ```
//! `program` parses, runs a command and exits. [`commands`] has one module per command: each parses, calls and
//! prints. `client` talks to a coordinator; [`follow`] shows a job's events as text or JSON; `lab` runs jobs on this
//! machine and injects faults; [`predictor`] predicts with a checkpoint; `joint` trains all modalities jointly, for
//! comparison. No module imports one to its left.

use antiphon_model::allocator::Allocator;

mod arguments;
mod client;
pub mod commands;
mod context;
mod duration;
pub mod exit;
pub mod follow;
mod job_file;
mod joint;
mod lab;
pub mod output;
pub mod predictor;
mod program;
mod progress;
pub mod reference;
mod runs;

pub use arguments::{Cli, Command, command};
pub use context::Context;
pub use program::{execute, main, main_with};

pub use antiphon_data::InputShape;
pub use antiphon_model::custom::{Blueprint, BuildError, Conv1d, Dropout, Encoders, OptionError, Options, conv1d};

/// The allocator of every program that uses this crate. Training allocates and frees hundreds of megabytes per step.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();
