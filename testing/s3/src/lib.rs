//! An S3 server for tests: the subset of S3 that Antiphon uses, in memory, over HTTP, with optional faults.
//!
//! It supports PUT and the completion of multipart uploads with `If-None-Match` and `If-Match`, GET with ranges, HEAD,
//! DELETE, deletion of several objects, multipart uploads, and listing in pages and by folder. Bodies may be slow in
//! both directions. A condition is checked and the object written under one lock, so that one of several concurrent
//! writers wins. Of a signature, only the access key is checked. A test can hold a request before or after it is
//! executed, and kill its client meanwhile.

mod answer;
mod faults;
mod hold;
mod objects;
mod request;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use faults::Faults;
pub use hold::{Held, Operation, Request, When};
pub use objects::OpenUpload;
pub use request::ACCESS_KEY;

use answer::Answer;
use faults::Broken;
use hold::Hold;
use objects::Objects;
use request::Asked;

/// A server on a free loopback port. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    objects: Objects,
    faults: Faults,
    holds: Vec<Hold>,
    requests: u64,
}

impl Server {
    /// Starts a server without faults.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start() -> Self {
        Self::start_with(Faults::NONE).await
    }

    /// Starts a server with faults.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start_with(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State { objects: Objects::default(), faults, holds: Vec::new(), requests: 0 }));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, _serving: serving }
    }

    /// URL of the server.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment variables that direct `s3://` URLs to this server.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "any".to_owned()),
            ("AWS_REGION", "eu-north-1".to_owned()),
        ]
    }

    /// The same for a client with the user agent `client`.
    #[must_use]
    pub fn environment_of(&self, client: &str) -> Vec<(&'static str, String)> {
        let mut environment = self.environment();
        environment.push(("AWS_USER_AGENT", client.to_owned()));
        environment
    }

    /// Holds the next request that is `wanted`, and only that one.
    #[must_use]
    pub fn hold(&self, when: When, wanted: impl Fn(&Request) -> bool + Send + 'static) -> Held {
        let (hold, held) = Hold::new(when, wanted);
        self.locked(|state| state.holds.push(hold));
        held
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.locked(|state| state.faults = faults);
    }

    /// The names of all objects, as sorted `bucket/key`.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.locked(|state| state.objects.keys().map(str::to_owned).collect())
    }

    /// The object at `bucket/key`, if there is one.
    #[must_use]
    pub fn object(&self, path: &str) -> Option<Bytes> {
        self.locked(|state| state.objects.object(path).cloned())
    }

    /// Puts an object at `bucket/key`.
    pub fn put(&self, path: &str, content: Bytes) {
        self.locked(|state| state.objects.set(path, content));
    }

    /// Multipart uploads that are neither complete nor aborted.
    #[must_use]
    pub fn open_uploads(&self) -> Vec<OpenUpload> {
        self.locked(|state| state.objects.open_uploads())
    }

    /// Number of requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.locked(|state| state.requests)
    }

    fn locked<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        connections.spawn(async move {
            // The client disconnected, or the connection was intentionally broken.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<answer::Body>, Broken> {
    let fate = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests += 1;
        state.faults.fate(state.requests - 1)
    };
    let asked = Asked::read(request, fate.pace).await?;
    if !asked.is_let_in() {
        return Ok(Answer::error(StatusCode::FORBIDDEN, "AccessDenied").send());
    }
    let request = Request::of(&asked);
    let mut hold = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgets requests whose `Held` was dropped.
        state.holds.retain(|hold| !hold.is_over());
        let wanted = state.holds.iter().position(|hold| hold.wants(&request));
        wanted.map(|at| state.holds.remove(at))
    };
    Hold::here(&mut hold, When::Before, &request).await?;
    let answer = if fate.refused || fate.reset_before {
        None
    } else {
        Some(state.lock().unwrap_or_else(PoisonError::into_inner).objects.carry_out(&asked))
    };
    Hold::here(&mut hold, When::After, &request).await?;
    if let Some(late) = fate.late {
        tokio::time::sleep(late).await;
    }
    match answer {
        None if fate.refused => Ok(Answer::error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown").send()),
        None => Err(Broken),
        Some(_) if fate.reset_after => Err(Broken),
        Some(_) if fate.lost => Ok(Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError").send()),
        Some(answer) if fate.truncated => Ok(answer.send_half()),
        Some(answer) => Ok(match fate.pace {
            Some(pace) => answer.send_at(pace),
            None => answer.send(),
        }),
    }
}
