//! One module per command.

pub mod bench;
pub mod chaos;
pub mod check;
mod damage;
pub mod data;
pub mod eval;
pub mod follow;
pub mod jobs;
pub mod predict;
pub mod run;
pub mod serve;
mod shared_args;
pub mod stop;
pub mod submit;
pub mod verify;
