//! A client of a coordinator's job service, which may be away.
//!
//! ```text
//! submission ─┐
//! events ─────┼─ reconnect ─ outage
//!             └─ api ─ error
//! ```
//! `api` asks once, and says as a [`ClientError`] what went wrong. `reconnect` is the only loop that tries again: what it
//! waits for, its callers are told as [`Notice`]s. `submission` sends a job until the coordinator has it, and `events` follows
//! one job over connections that break. Nothing here prints.

mod api;
mod error;
mod events;
mod notice;
mod outage;
mod reconnect;
mod submission;

pub(crate) use api::{Client, Watched};
pub(crate) use error::ClientError;
pub(crate) use events::Events;
pub(crate) use notice::{Notice, Notify, Silent, while_waiting};
pub(crate) use outage::RetryPolicy;
pub(crate) use reconnect::Reconnect;
pub(crate) use submission::{Submission, request};
