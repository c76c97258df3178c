//! Requests that are held until a test has looked, or done something.

use std::fmt;

use hyper::Method;
use tokio::sync::oneshot;

use crate::faults::Broken;
use crate::request::Asked;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// An object, or some of its bytes.
    Get,
    /// What is known of an object.
    Head,
    /// Which objects there are.
    List,
    /// An object is to be written, all at once.
    Put,
    /// An object, or several, are to be removed.
    Delete,
    /// A multipart upload is to begin.
    CreateUpload,
    /// A part of one; they count from 1.
    PutPart(u32),
    /// The parts of one are to be put together.
    CompleteUpload,
    /// One is to be given up.
    AbortUpload,
}

/// A request, as far as a test can tell it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks: the client's `User-Agent`, see [`crate::Server::environment_of`].
    pub client: String,
    /// What is asked for.
    pub operation: Operation,
    /// `bucket/key` of every object that it is about; of [`Operation::List`] the bucket alone.
    pub paths: Vec<String>,
}

impl Request {
    pub(crate) fn of(asked: &Asked) -> Self {
        let of_upload = asked.query.contains_key("uploadId");
        let operation = match asked.method {
            Method::GET if asked.is_of_bucket() => Operation::List,
            Method::GET => Operation::Get,
            Method::PUT if of_upload => Operation::PutPart(asked.wanted("partNumber").parse().unwrap_or_default()),
            Method::PUT => Operation::Put,
            Method::POST if of_upload => Operation::CompleteUpload,
            Method::POST if asked.query.contains_key("uploads") => Operation::CreateUpload,
            Method::DELETE if of_upload => Operation::AbortUpload,
            Method::DELETE | Method::POST => Operation::Delete,
            _ => Operation::Head,
        };
        let paths = if operation == Operation::Delete && asked.is_of_bucket() {
            asked.paths_to_delete()
        } else {
            vec![asked.path.clone()]
        };
        Self { client: asked.client.clone(), operation, paths }
    }
}

/// Where a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Nothing of it is done yet.
    Before,
    /// It is carried out, and its client has heard nothing.
    After,
}

/// A request that is to be held, or is.
///
/// If this is dropped, the connection breaks: the client hears nothing, and what was not carried out never is.
#[derive(Debug)]
pub struct Held {
    arrived: Option<oneshot::Receiver<Request>>,
    released: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the request is held where it is to be.
    ///
    /// # Panics
    /// If the server has ended, or it was waited for before.
    pub async fn wait(&mut self) -> Request {
        self.arrived.take().expect("it is waited for once").await.expect("the server is there")
    }

    /// Lets the server continue with it.
    pub fn release(self) {
        // A client that is gone meanwhile does not wait for it.
        let _ = self.released.send(());
    }
}

/// The server's end of [`Held`].
pub(crate) struct Hold {
    when: When,
    wanted: Box<dyn Fn(&Request) -> bool + Send>,
    arrived: oneshot::Sender<Request>,
    released: oneshot::Receiver<()>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("when", &self.when).finish_non_exhaustive()
    }
}

impl Hold {
    pub(crate) fn new(when: When, wanted: impl Fn(&Request) -> bool + Send + 'static) -> (Self, Held) {
        let ((tell, arrived), (release, released)) = (oneshot::channel(), oneshot::channel());
        let hold = Self { when, wanted: Box::new(wanted), arrived: tell, released };
        (hold, Held { arrived: Some(arrived), released: release })
    }

    pub(crate) fn wants(&self, request: &Request) -> bool {
        (self.wanted)(request)
    }

    /// Whether its [`Held`] was dropped.
    pub(crate) fn is_over(&self) -> bool {
        self.arrived.is_closed()
    }

    /// Holds the request if this is where.
    pub(crate) async fn here(hold: &mut Option<Self>, when: When, request: &Request) -> Result<(), Broken> {
        let Some(hold) = hold.take_if(|hold| hold.when == when) else { return Ok(()) };
        // If it was dropped just now, it is not released either.
        let _ = hold.arrived.send(request.clone());
        hold.released.await.map_err(|_| Broken)
    }
}
