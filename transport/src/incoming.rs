//! Incoming connections of a listener. They are configured only here.

use futures::{Stream, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;

/// The incoming connections of a listener, configured to send messages without delay.
pub fn incoming(listener: TcpListener) -> impl Stream<Item = std::io::Result<TcpStream>> {
    TcpListenerStream::new(listener).map(|stream| stream.inspect(send_at_once))
}

/// Disables Nagle's algorithm, which would delay a turn by tens of milliseconds. tonic disables it only on its own
/// listeners.
fn send_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::warn!(%error, "Nagle's algorithm cannot be disabled on a connection; turns will be slow");
    }
}
