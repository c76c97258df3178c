//! Connecting to a coordinator: the one place where a channel is made.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::limits::{CLIENT_CONNECTION_WINDOW, FRAME, STREAM_WINDOW};
use crate::status;

/// How long one connection may take to be made, unless its caller says otherwise.
const CONNECT: Duration = Duration::from_secs(5);

/// An address that cannot be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("coordinator `{url}` is not an address: {reason}; give it as http://host:port")]
pub struct AddressError {
    /// As it was given.
    pub url: String,
    /// What is wrong with it.
    pub reason: String,
}

/// When the other end counts as gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// Never: the other end is this process, or one that it watches.
    Off,
    /// A worker's: it is asked while a stream is open. It may be busy for long.
    Streams,
    /// A client's: it is asked all the time, and gone if it does not answer within five seconds. A coordinator that is
    /// stopped, or whose machine is gone, says nothing.
    Always,
}

/// How to connect to one coordinator.
#[derive(Debug, Clone)]
pub struct Dial {
    url: String,
    endpoint: Endpoint,
}

impl Dial {
    /// To the coordinator at `url`. No connection is made yet.
    ///
    /// # Errors
    /// `url` is not an address, or its scheme is not `http`.
    pub fn new(url: &str, keep_alive: KeepAlive) -> Result<Self, AddressError> {
        let bad = |reason: String| AddressError { url: url.to_owned(), reason };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| bad(error.to_string()))?;
        if endpoint.uri().host().is_none() || endpoint.uri().scheme_str() != Some("http") {
            // What asks for encryption must not be sent in the clear.
            return Err(bad("it has no host, or its scheme is not http".to_owned()));
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .max_frame_size(FRAME)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CLIENT_CONNECTION_WINDOW);
        Ok(Self { url: url.to_owned(), endpoint: keep_alive.set(endpoint) })
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A channel that connects when it is used, and again when its connection is lost.
    #[must_use]
    pub fn lazy(&self) -> Channel {
        self.endpoint.connect_lazy()
    }

    /// A connection that is made now, or the reason why there is none after `timeout`.
    ///
    /// # Errors
    /// The coordinator does not answer.
    pub async fn connect(&self, timeout: Duration) -> Result<Channel, String> {
        let connecting = self.endpoint.clone().connect_timeout(timeout).connect().await;
        connecting.map_err(|error| status::connect_message(&error))
    }
}

impl KeepAlive {
    fn set(self, endpoint: Endpoint) -> Endpoint {
        match self {
            Self::Off => endpoint,
            Self::Streams => endpoint.http2_keep_alive_interval(Duration::from_secs(10)),
            Self::Always => {
                let alive = Duration::from_secs(5);
                endpoint.http2_keep_alive_interval(alive).keep_alive_timeout(alive).keep_alive_while_idle(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_with_a_host() {
        assert_eq!(Dial::new("http://host:7070", KeepAlive::Off).expect("an address").url(), "http://host:7070");
        for url in ["https://host:7070", "host:7070", "/a", "http://", ""] {
            let error = Dial::new(url, KeepAlive::Off).expect_err(url).to_string();
            assert!(error.starts_with(&format!("coordinator `{url}` is not an address: ")), "{error}");
            assert!(error.ends_with("; give it as http://host:port"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_port_without_a_server_is_an_error_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        drop(listener);
        let error = Dial::new(&url, KeepAlive::Always).expect("an address").connect(Duration::from_secs(60)).await;
        assert!(error.is_err_and(|error| error.contains("refused")), "the system says why");
    }
}
