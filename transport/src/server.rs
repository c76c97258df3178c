//! A gRPC server with the limits of this project.

use std::time::Duration;

use tonic::transport::Server;

use crate::limits::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW};

/// How often a client is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// For how long a client may say nothing and keep its connection. Workers' silence is judged by leases, which may be
/// long.
const CLIENT_SILENCE: Duration = Duration::from_secs(3600);

/// A gRPC server set up for tensors.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(CLIENT_SILENCE))
}
