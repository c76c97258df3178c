//! The connections that come in at a listener: the one place where they are set up.

use futures::{Stream, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;

/// The connections that come in at a listener, set up so that messages go out at once.
pub fn incoming(listener: TcpListener) -> impl Stream<Item = std::io::Result<TcpStream>> {
    TcpListenerStream::new(listener).map(|stream| stream.inspect(send_at_once))
}

/// A listener that tonic did not open leaves Nagle's algorithm on, which delays a turn by tens of milliseconds.
fn send_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::warn!(%error, "a connection keeps Nagle's algorithm; turns will be slow");
    }
}
