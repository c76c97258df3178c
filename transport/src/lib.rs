//! The network code that coordinator, worker and client share: addresses, channels, listeners, limits, and
//! reconnection.
//!
//! ```text
//! client, worker: ConnectArgs ─▶ Dial ─▶ Channel      what failed: status     the loop that retries: Reconnect
//! coordinator:    ListenArgs ─▶ listen ─▶ Incoming, with the limits of server
//! ```
//! Connections are established only in [`dial`] and accepted only in [`incoming()`]. Nothing here knows jobs or
//! messages.

mod args;
pub mod dial;
pub mod incoming;
mod limits;
pub mod listen;
pub mod outage;
pub mod reconnect;
pub mod server;
pub mod status;

pub use args::{ConnectArgs, ListenArgs, ReconnectArgs};
pub use dial::{AddressError, ConnectError, Dial, KeepAlive};
pub use incoming::incoming;
pub use listen::{ListenError, listen};
pub use outage::ReconnectPolicy;
pub use reconnect::Reconnect;
pub use server::server;
