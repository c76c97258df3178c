//! A TCP proxy in front of the coordinator, whose connections can be closed, stalled and refused.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Size of the buffer in bytes.
const BUFFER: usize = 64 << 10;

/// The state of a proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Conduct {
    /// Number of disconnects so far. A connection ends when this number changes.
    disconnects: u64,
    /// Whether connections pass no bytes.
    stalled: bool,
    /// Whether new connections are closed at once.
    refusing: bool,
}

/// Listens on a free loopback port and forwards to the coordinator. Connections end when the proxy is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    conduct: watch::Sender<Conduct>,
    _serving: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let (conduct, seen) = watch::channel(Conduct::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, upstream, seen));
        Ok(Self { address, conduct, _serving: serving })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether the proxy stalls or refuses connections.
    pub(crate) fn is_disturbed(&self) -> bool {
        let conduct = *self.conduct.borrow();
        conduct.stalled || conduct.refusing
    }

    /// Ends every connection.
    pub(crate) fn disconnect(&self) {
        self.conduct.send_modify(|conduct| conduct.disconnects += 1);
    }

    /// Stops or resumes the flow of bytes.
    pub(crate) fn stall(&self, stalled: bool) {
        self.conduct.send_modify(|conduct| conduct.stalled = stalled);
    }

    /// Ends every connection and refuses new ones, or allows them.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.conduct.send_modify(|conduct| {
            conduct.refusing = refusing;
            conduct.disconnects += u64::from(refusing);
        });
    }
}

async fn serve(listener: TcpListener, upstream: SocketAddr, conduct: watch::Receiver<Conduct>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if !conduct.borrow().refusing {
            connections.spawn(connect(client, upstream, conduct.clone()));
        }
    }
}

/// Forwards in both directions until one ends or the proxy closes the connection.
async fn connect(client: TcpStream, upstream: SocketAddr, conduct: watch::Receiver<Conduct>) {
    let disconnects = conduct.borrow().disconnects;
    let mut disconnect = conduct.clone();
    // If no coordinator listens, the connection of the client is closed.
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, conduct.clone()) => {}
        () = pass(from_server, to_client, conduct) => {}
        _ = disconnect.wait_for(|conduct| conduct.disconnects != disconnects) => {}
    }
}

/// Forwards in one direction until it ends.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut conduct: watch::Receiver<Conduct>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if conduct.wait_for(|conduct| !conduct.stalled).await.is_err() || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that returns the bytes that it receives.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        address
    }

    async fn connected(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address).await.expect("it listens")
    }

    /// Sends `text` and returns the answer; None if the connection has ended.
    async fn said(stream: &mut TcpStream, text: &str) -> Option<String> {
        stream.write_all(text.as_bytes()).await.ok()?;
        heard(stream, text.len()).await
    }

    async fn heard(stream: &mut TcpStream, length: usize) -> Option<String> {
        let mut buffer = vec![0; length];
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut buffer));
        read.await.expect("it answers or ends").ok()?;
        String::from_utf8(buffer).ok()
    }

    #[tokio::test]
    async fn a_connection_is_closed_refused_and_stalled() {
        let proxy = Proxy::start(echo().await).await.expect("it starts");
        let mut stream = connected(&proxy).await;
        assert_eq!(said(&mut stream, "here").await.as_deref(), Some("here"));
        proxy.disconnect();
        assert_eq!(heard(&mut stream, 1).await, None, "it is closed");
        let mut stream = connected(&proxy).await;
        assert_eq!(said(&mut stream, "again").await.as_deref(), Some("again"), "a new one passes");

        proxy.refuse(true);
        assert_eq!(heard(&mut stream, 1).await, None, "it is closed");
        let mut refused = connected(&proxy).await;
        assert_eq!(heard(&mut refused, 1).await, None, "a new one is refused");
        proxy.refuse(false);
        let mut stream = connected(&proxy).await;
        assert_eq!(said(&mut stream, "at last").await.as_deref(), Some("at last"));

        proxy.stall(true);
        stream.write_all(b"wait").await.expect("it is taken");
        let early = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(early.is_err(), "no bytes pass");
        proxy.stall(false);
        assert_eq!(heard(&mut stream, 4).await.as_deref(), Some("wait"), "the delayed bytes pass");
    }

    #[tokio::test]
    async fn a_connection_to_no_server_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let unused = listener.local_addr().expect("it is bound");
        drop(listener);
        let proxy = Proxy::start(unused).await.expect("it starts");
        assert_eq!(heard(&mut connected(&proxy).await, 1).await, None);
    }
}
