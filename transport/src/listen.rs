//! Listening, and which addresses may be listened on.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::args::ListenArgs;

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        error: std::io::Error,
    },
    /// Other machines could reach the address, and nothing is encrypted.
    #[error(
        "{address} can be reached from other machines, and nothing is encrypted or authenticated yet: \
         listen on 127.0.0.1, or say --insecure-allow-remote"
    )]
    Remote {
        /// The address.
        address: SocketAddr,
    },
    /// The listener is no socket any more.
    #[error("the listener has no address: {0}")]
    NoAddress(#[from] std::io::Error),
}

/// Listens as the arguments say.
///
/// # Errors
/// The address cannot be listened on, or other machines could reach it although they may not.
pub async fn listen(args: &ListenArgs) -> Result<TcpListener, ListenError> {
    let address = args.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| ListenError::Bind { address, error })?;
    check(&listener, args.insecure_allow_remote)?;
    Ok(listener)
}

/// The listener's address, if it may be served on.
///
/// # Errors
/// Other machines could reach it, and `allow_remote` does not say that they may.
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
