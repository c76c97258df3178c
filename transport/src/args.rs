//! The arguments of every command that connects or listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;

/// The default port of a coordinator.
const PORT: u16 = 7070;

/// The coordinator that a command connects to.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// URL of the coordinator
    #[arg(long, env = "ANTIPHON_COORDINATOR", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub coordinator: String,
}

/// What a command does when its connection is lost.
#[derive(Debug, Clone, Args)]
pub struct ReconnectArgs {
    /// Seconds to keep trying to reconnect after a connection is lost; 0 ends at once
    #[arg(long, env = "ANTIPHON_RECONNECT_TIMEOUT", default_value_t = 600, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    pub reconnect_timeout: u64,
}

impl ReconnectArgs {
    /// How long to keep trying to reconnect.
    #[must_use]
    pub fn reconnect_timeout(&self) -> Duration {
        Duration::from_secs(self.reconnect_timeout)
    }
}

/// The address that a server listens on.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "ANTIPHON_LISTEN", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT), value_parser = socket_address)]
    pub listen: SocketAddr,

    /// Listen on an address other machines can reach, although nothing is encrypted and anybody may submit and stop
    /// jobs
    #[arg(long)]
    pub insecure_allow_remote: bool,
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("it is not an IP address with a port; write for example 127.0.0.1:{PORT}"))
}
