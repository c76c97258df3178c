//! Requests that are held until a test releases them.

use std::fmt;

use hyper::Method;
use tokio::sync::oneshot;

use crate::faults::Broken;
use crate::request::Asked;

/// The operation of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Read an object, or some of its bytes.
    Get,
    /// Read the attributes of an object.
    Head,
    /// List objects.
    List,
    /// Write an object in one request.
    Put,
    /// Remove one or several objects.
    Delete,
    /// Start a multipart upload.
    CreateUpload,
    /// Upload a chunk; numbers start at 1.
    PutPart(u32),
    /// Complete a multipart upload.
    CompleteUpload,
    /// Abort a multipart upload.
    AbortUpload,
}

/// A request, as tests can match it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The client's `User-Agent`, see [`crate::Server::environment_of`].
    pub client: String,
    /// The operation.
    pub operation: Operation,
    /// `bucket/key` of every object of the request; only the bucket for [`Operation::List`].
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

/// The point at which a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Before the request is executed.
    Before,
    /// After the request is executed, before its answer.
    After,
}

/// A request that will be or is held.
///
/// If this is dropped, the connection breaks: the client receives no answer, and a request that was not executed never
/// will be.
#[derive(Debug)]
pub struct Held {
    arrived: Option<oneshot::Receiver<Request>>,
    released: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the request is held.
    ///
    /// # Panics
    /// If the server has ended, or this was called before.
    pub async fn wait(&mut self) -> Request {
        self.arrived.take().expect("it is waited for once").await.expect("the server is there")
    }

    /// Releases the request.
    pub fn release(self) {
        // The client may have disconnected meanwhile.
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

    /// Holds the request if it matches at this point.
    pub(crate) async fn here(hold: &mut Option<Self>, when: When, request: &Request) -> Result<(), Broken> {
        let Some(hold) = hold.take_if(|hold| hold.when == when) else { return Ok(()) };
        // If [`Held`] was dropped at this moment, the request is not released.
        let _ = hold.arrived.send(request.clone());
        hold.released.await.map_err(|_| Broken)
    }
}
