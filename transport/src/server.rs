//! A gRPC server with the limits of this project.

use std::time::Duration;

use tonic::transport::Server;

use crate::limits::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW};

/// The interval between pings to a client.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a client may leave pings unanswered before its connection is closed. It is long because leases detect
/// silent workers.
const CLIENT_SILENCE: Duration = Duration::from_secs(3600);

/// A gRPC server that is configured for tensors.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(CLIENT_SILENCE))
}
