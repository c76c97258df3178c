//! The server's answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use hyper::{Response, StatusCode};

use crate::faults::{Broken, Pace};
use crate::request::Notes;

/// A body, which may be truncated.
pub(crate) type Body = BoxBody<Bytes, Broken>;

/// An answer, not sent yet.
#[derive(Debug)]
pub(crate) struct Answer {
    head: Response<()>,
    body: Bytes,
}

impl Answer {
    pub(crate) fn xml(status: StatusCode, xml: &str) -> Self {
        let mut head = Response::new(());
        *head.status_mut() = status;
        Self { head, body: Bytes::from(xml.to_owned()) }
    }

    pub(crate) fn error(status: StatusCode, code: &str) -> Self {
        Self::xml(status, &format!("<Error><Code>{code}</Code></Error>"))
    }

    /// An answer without a body that describes an object.
    pub(crate) fn described(tag: &str) -> Self {
        let head = Response::builder().header(ETAG, tag).header(LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT");
        Self { head: head.body(()).expect("the headers are good"), body: Bytes::new() }
    }

    pub(crate) fn with_notes(mut self, notes: &Notes) -> Self {
        self.head.headers_mut().extend(notes.iter().cloned());
        self
    }

    pub(crate) fn with_body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    /// The bytes from `from` to before `to` of an object of `size`.
    pub(crate) fn with_range(mut self, from: usize, to: usize, size: usize) -> Self {
        let range = format!("bytes {from}-{}/{size}", to.saturating_sub(1));
        self.head.headers_mut().insert(CONTENT_RANGE, range.parse().expect("a header"));
        *self.head.status_mut() = StatusCode::PARTIAL_CONTENT;
        self
    }

    pub(crate) fn is_success(&self) -> bool {
        self.head.status().is_success()
    }

    /// Sends the whole answer. For HEAD, the server omits the body but sends its length.
    pub(crate) fn send(self) -> Response<Body> {
        let chunks = stream::iter([Ok::<_, Infallible>(Frame::data(self.body.clone()))]);
        self.carrying(BodyExt::map_err(StreamBody::new(chunks), |never| match never {}).boxed())
    }

    /// Sends the whole answer slowly.
    pub(crate) fn send_at(self, pace: Pace) -> Response<Body> {
        let chunks = stream::unfold(self.body.clone(), move |mut left| async move {
            let chunk = left.split_to(left.len().min(pace.chunk()));
            tokio::time::sleep(pace.time(chunk.len())).await;
            (!chunk.is_empty()).then_some((Ok::<_, Broken>(Frame::data(chunk)), left))
        });
        self.carrying(BodyExt::boxed(StreamBody::new(chunks)))
    }

    /// Sends half of the answer, then breaks the connection.
    pub(crate) fn send_half(self) -> Response<Body> {
        let half = Ok(Frame::data(self.body.slice(..self.body.len() / 2)));
        let chunks = stream::iter([half]).chain(stream::once(async {
            // The first half is sent before the connection breaks.
            tokio::task::yield_now().await;
            Err(Broken)
        }));
        self.carrying(BodyExt::boxed(StreamBody::new(chunks)))
    }

    fn carrying(self, body: Body) -> Response<Body> {
        let length = self.body.len();
        let mut response = self.head.map(|()| body);
        if response.status() != StatusCode::NO_CONTENT {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        response
    }
}
