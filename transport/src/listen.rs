//! Listeners, and the addresses that they may use.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::args::ListenArgs;

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {error}; stop the other program or pass another --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// Other machines could reach the address, and nothing is encrypted.
    #[error(
        "{address} can be reached from other machines, and nothing is encrypted or authenticated yet: \
         listen on 127.0.0.1, or pass --insecure-allow-remote"
    )]
    Remote {
        /// The address.
        address: SocketAddr,
    },
    /// The listener has no address.
    #[error("the listener has no address: {0}")]
    NoAddress(#[from] std::io::Error),
}

/// Opens a listener according to the arguments.
///
/// # Errors
/// If the address cannot be bound, or if other machines could reach it without permission.
pub async fn listen(args: &ListenArgs) -> Result<TcpListener, ListenError> {
    let address = args.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| ListenError::Bind { address, error })?;
    check(&listener, args.insecure_allow_remote)?;
    Ok(listener)
}

/// The listener's address, if it is permitted.
///
/// # Errors
/// If other machines could reach it and `allow_remote` is false.
pub fn check(listener: &TcpListener, allow_remote: bool) -> Result<SocketAddr, ListenError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && !allow_remote {
        return Err(ListenError::Remote { address });
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[tokio::test]
    async fn an_address_that_others_can_reach_needs_leave() {
        let args = |ip: Ipv4Addr, insecure_allow_remote| ListenArgs {
            listen: SocketAddr::new(IpAddr::V4(ip), 0),
            insecure_allow_remote,
        };
        listen(&args(Ipv4Addr::LOCALHOST, false)).await.expect("loopback needs none");
        let error = listen(&args(Ipv4Addr::UNSPECIFIED, false)).await.expect_err("others could connect");
        assert!(matches!(error, ListenError::Remote { .. }), "{error}");
        let taken = listen(&args(Ipv4Addr::UNSPECIFIED, true)).await.expect("it is allowed");
        let again = ListenArgs { listen: taken.local_addr().expect("it is bound"), insecure_allow_remote: true };
        let error = listen(&again).await.expect_err("the port is taken");
        assert!(error.to_string().starts_with("cannot listen on 0.0.0.0:"), "{error}");
    }
}
