//! What coordinator, worker and client share of the network: addresses, channels, listeners, limits, and when to
//! reconnect.
//!
//! ```text
//! client, worker: ConnectArgs ─▶ Dial ─▶ Channel      what failed: status     when to try again: Outage
//! coordinator:    ListenArgs ─▶ listen ─▶ Incoming, with the limits of server
//! ```
//! Each end has one place where a connection is made: [`dial`] and [`incoming()`]. Nothing here knows a job or a message.

mod args;
pub mod dial;
pub mod incoming;
mod limits;
pub mod listen;
pub mod outage;
pub mod server;
pub mod status;

pub use args::{ConnectArgs, ListenArgs, ReconnectArgs};
pub use dial::{AddressError, Dial, KeepAlive};
pub use incoming::incoming;
pub use listen::{ListenError, listen};
pub use outage::{Outage, ReconnectPolicy};
pub use server::server;
