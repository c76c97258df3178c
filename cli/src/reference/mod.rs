//! Source tables of reference pages: the JSON objects that commands print, and the variables of the environment. Other
//! pages come from clap and from `antiphon_core`.
//!
//! Only tests read the tables: they write the pages from them and compare them with the output of commands.

mod check;
mod environment;
mod objects;

pub use check::{Seen, check, nested, unseen};
pub use environment::{VARIABLES, Variable, Variables};
pub use objects::{PRINTED, Printed};
