//! Connections to a coordinator. Channels are created only here.

use std::time::Duration;

use antiphon_process::innermost;
use tonic::transport::{self, Channel, Endpoint};

use crate::limits::{CLIENT_CONNECTION_WINDOW, FRAME, STREAM_WINDOW};

/// The default timeout for establishing a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// An invalid address of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("coordinator `{url}` is not an address: {reason}; give it as http://host:port")]
pub struct AddressError {
    /// The URL as given.
    pub url: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A connection that could not be established.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to the coordinator at {url}: {}", self.reason())]
pub struct ConnectError {
    /// The URL of the coordinator.
    pub url: String,
    /// The error, whose innermost cause is the operating system's.
    pub source: transport::Error,
}

impl ConnectError {
    /// The message of the operating system.
    #[must_use]
    pub fn reason(&self) -> String {
        innermost(&self.source)
    }
}

/// When a connection counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// Never, because the other end is this process or a process that it watches.
    Off,
    /// For workers: pings are sent while a stream is open. The other end may be busy for a long time.
    Streams,
    /// For clients: pings are sent all the time, and the connection is lost if there is no answer within five seconds.
    /// A stopped coordinator, or one whose machine failed, sends nothing.
    Always,
}

/// How to connect to one coordinator.
#[derive(Debug, Clone)]
pub struct Dial {
    url: String,
    endpoint: Endpoint,
}

impl Dial {
    /// A dialer for the coordinator at `url`. It does not connect yet.
    ///
    /// # Errors
    /// If `url` is not an address, or its scheme is not `http`.
    pub fn new(url: &str, keep_alive: KeepAlive) -> Result<Self, AddressError> {
        let bad = |reason: String| AddressError { url: url.to_owned(), reason };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| bad(error.to_string()))?;
        if endpoint.uri().host().is_none() || endpoint.uri().scheme_str() != Some("http") {
            // A URL that requires encryption must not be used in the clear.
            return Err(bad("write it as http://HOST:PORT; https is not supported yet".to_owned()));
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .max_frame_size(FRAME)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CLIENT_CONNECTION_WINDOW);
        Ok(Self { url: url.to_owned(), endpoint: keep_alive.set(endpoint) })
    }

    /// The URL of the coordinator.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A channel that connects when it is used, and reconnects when its connection is lost.
    #[must_use]
    pub fn lazy(&self) -> Channel {
        self.endpoint.connect_lazy()
    }

    /// Establishes a connection now.
    ///
    /// # Errors
    /// If the coordinator does not answer within `timeout`.
    pub async fn connect(&self, timeout: Duration) -> Result<Channel, ConnectError> {
        let connecting = self.endpoint.clone().connect_timeout(timeout).connect().await;
        connecting.map_err(|source| ConnectError { url: self.url.clone(), source })
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
        let error = error.expect_err("no server listens");
        assert!(error.reason().contains("refused"), "the system says why: {error}");
        assert_eq!(error.to_string(), format!("cannot connect to the coordinator at {url}: {}", error.reason()));
    }
}
