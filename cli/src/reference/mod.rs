//! The tables that the reference pages are written from, as far as they are not clap's or those of `antiphon_core`: the JSON
//! objects that commands print, and the variables of the environment.
//!
//! Nothing reads them when a command runs. Tests write the pages from them, and hold them against what commands print.

mod check;
mod environment;
mod objects;

pub use check::{Seen, check, unseen};
pub use environment::{VARIABLES, Variable, Variables};
pub use objects::{PRINTED, Printed};
