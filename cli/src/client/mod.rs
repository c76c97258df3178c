//! A client of a coordinator's job service that tolerates outages of the coordinator.
//!
//! ```text
//! submission ─┐
//! events ─────┼─ reconnect ─ transport::Reconnect
//!             └─ api ─ transport::Dial
//! ```
//! `api` sends each request once and returns a [`ClientError`] if it fails. `reconnect` retries with the loop of
//! `antiphon_transport`, and reports to its caller with a [`Notice`]. `submission` sends a job until the coordinator
//! has accepted it. `events` follows a job over connections that break. No module here prints.

mod api;
mod error;
mod events;
mod notice;
mod reconnect;
mod submission;

pub(crate) use api::{Client, Watched};
pub(crate) use error::ClientError;
pub(crate) use events::Events;
pub(crate) use notice::{Notice, Notify, Silent, while_waiting};
pub(crate) use reconnect::Reconnect;
pub(crate) use submission::{Submission, request};
