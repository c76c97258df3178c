//! A connection that can be cut, stalled and refused: bytes pass through this process on their way to the coordinator.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are passed on at a time.
const BUFFER: usize = 64 << 10;

/// How a proxy treats its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Conduct {
    /// How often they were cut: one that began before the last time is over.
    cuts: u64,
    /// Nothing passes.
    stalled: bool,
    /// New ones are closed at once.
    refusing: bool,
}

/// Listens on a free loopback port, and passes on what comes. It ends when it is dropped, with all of its connections.
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

    /// Whether it is stalled or refuses.
    pub(crate) fn is_in_trouble(&self) -> bool {
        let conduct = *self.conduct.borrow();
        conduct.stalled || conduct.refusing
    }

    /// Ends every connection there is.
    pub(crate) fn cut(&self) {
        self.conduct.send_modify(|conduct| conduct.cuts += 1);
    }

    /// Lets nothing pass, or everything that waits.
    pub(crate) fn stall(&self, stalled: bool) {
        self.conduct.send_modify(|conduct| conduct.stalled = stalled);
    }

    /// Ends every connection there is and lets no other through, or lets them again.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.conduct.send_modify(|conduct| {
            conduct.refusing = refusing;
            conduct.cuts += u64::from(refusing);
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

/// Both ways, until one ends or the connection is cut.
async fn connect(client: TcpStream, upstream: SocketAddr, conduct: watch::Receiver<Conduct>) {
    let cuts = conduct.borrow().cuts;
    let mut cut = conduct.clone();
    // Nobody may be there: then the client sees its connection end.
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, conduct.clone()) => {}
        () = pass(from_server, to_client, conduct) => {}
        _ = cut.wait_for(|conduct| conduct.cuts != cuts) => {}
    }
}

/// One way, until it ends.
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

    /// Sends back what it gets.
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

    /// What comes back; none if the connection has ended.
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
    async fn a_connection_is_cut_refused_and_stalled() {
        let proxy = Proxy::start(echo().await).await.expect("it starts");
        let mut stream = connected(&proxy).await;
        assert_eq!(said(&mut stream, "here").await.as_deref(), Some("here"));
        proxy.cut();
        assert_eq!(heard(&mut stream, 1).await, None, "it is cut");
        let mut stream = connected(&proxy).await;
        assert_eq!(said(&mut stream, "again").await.as_deref(), Some("again"), "another is let through");

        proxy.refuse(true);
        assert_eq!(heard(&mut stream, 1).await, None, "it is cut");
        let mut refused = connected(&proxy).await;
        assert_eq!(heard(&mut refused, 1).await, None, "nor is another let through");
        proxy.refuse(false);
        let mut stream = connected(&proxy).await;
        assert_eq!(said(&mut stream, "at last").await.as_deref(), Some("at last"));

        proxy.stall(true);
        stream.write_all(b"wait").await.expect("it is taken");
        let early = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(early.is_err(), "nothing passes");
        proxy.stall(false);
        assert_eq!(heard(&mut stream, 4).await.as_deref(), Some("wait"), "what waited passes");
    }

    #[tokio::test]
    async fn who_connects_while_nobody_serves_sees_it_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let nobody = listener.local_addr().expect("it is bound");
        drop(listener);
        let proxy = Proxy::start(nobody).await.expect("it starts");
        assert_eq!(heard(&mut connected(&proxy).await, 1).await, None);
    }
}
