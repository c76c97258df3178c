//! How long a server may take: a slow line takes its time, and a server that says nothing is given up.
//!
//! A bound on a whole request would be one on how slow a line may be: what is large would never arrive, however often it is
//! sent. So a request may take the longer to be answered the more it sends, and each piece of an answer has a time of its own.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use object_store::{ClientConfigKey, ClientOptions};
use tokio::time::{Sleep, sleep, timeout};

/// How long a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Without a word: from when a request is sent to its answer, and between any two pieces of an answer.
    pub silence: Duration,
    /// Bytes per second that a request is sent with at the least; it is answered so much later than `silence` allows.
    pub slowest: u32,
}

impl Default for Bounds {
    /// Half a minute, and 32 KiB/s: four pieces of an upload at once need a line of 128 KiB/s then.
    fn default() -> Self {
        Self { silence: Duration::from_secs(30), slowest: 32 << 10 }
    }
}

impl Bounds {
    /// Until an answer to a request with a body of so many bytes begins.
    fn until_answered(&self, sent: usize) -> Duration {
        self.silence + Duration::from_secs_f64(sent as f64 / f64::from(self.slowest.max(1)))
    }
}

/// A server said nothing for so long.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the server said nothing for {} s", _0.as_secs())]
struct Silent(Duration);

impl From<Silent> for HttpError {
    fn from(silent: Silent) -> Self {
        Self::new(HttpErrorKind::Timeout, silent)
    }
}

impl HttpConnector for Bounds {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let asked_for = options.get_config_value(&ClientConfigKey::Timeout);
        let options = if asked_for == ClientOptions::default().get_config_value(&ClientConfigKey::Timeout) {
            options.clone().with_timeout_disabled()
        } else {
            // Somebody has set one, in the environment.
            options.clone()
        };
        Ok(HttpClient::new(Bounded { client: ReqwestConnector::default().connect(&options)?, bounds: *self }))
    }
}

/// A client that gives up on a server that says nothing.
#[derive(Debug)]
struct Bounded {
    client: HttpClient,
    bounds: Bounds,
}

#[async_trait]
impl HttpService for Bounded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let most = self.bounds.until_answered(request.body().content_length());
        let answer = timeout(most, self.client.execute(request)).await.map_err(|_| Silent(most))??;
        let most = self.bounds.silence;
        Ok(answer.map(|body| HttpResponseBody::new(BoundedBody { body, most, waits: None })))
    }
}

/// The body of an answer, each piece of which has its time.
struct BoundedBody {
    body: HttpResponseBody,
    most: Duration,
    /// Since somebody waits for the next piece.
    waits: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for BoundedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedBody").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Body for BoundedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let most = self.most;
        if let Poll::Ready(piece) = Pin::new(&mut self.body).poll_frame(context) {
            self.waits = None;
            return Poll::Ready(piece);
        }
        ready!(self.waits.get_or_insert_with(|| Box::pin(sleep(most))).as_mut().poll(context));
        Poll::Ready(Some(Err(Silent(most).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_longer_the_more_it_sends() {
        let bounds = Bounds { silence: Duration::from_secs(3), slowest: 1000 };
        assert_eq!(bounds.until_answered(0), Duration::from_secs(3));
        assert_eq!(bounds.until_answered(2500), Duration::from_millis(5500));
    }
}
