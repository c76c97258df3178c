//! Follows a job: shows its events as bars and tables, or passes them on as JSON.

mod bars;
mod ending;
mod following;
mod remarks;
mod tables;
mod times;
mod watching;

pub use ending::OnInterrupt;
pub use tables::evaluation_table;

pub(crate) use ending::Followed;
pub(crate) use following::follow;
pub(crate) use remarks::Remarks;
pub(crate) use times::Accounts;
pub(crate) use watching::{Limit, RECONNECT_TIMEOUT, Watching};
