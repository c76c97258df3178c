//! Timeouts for servers. They tolerate a slow connection, but not a silent server.
//!
//! A fixed timeout for a whole request would fail every upload of a large object over a slow connection, however often
//! it is retried. So the timeout of a request grows with its size, and each chunk of a response has its own timeout.

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

/// Timeouts for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The longest time between a request and its response, and between two chunks of a response.
    pub silence: Duration,
    /// The lowest rate at which a request is sent, in bytes per second: `silence` is extended by its size over this
    /// rate.
    pub slowest: u32,
}

impl Default for Bounds {
    /// 30 s, and 32 KiB/s: four concurrent upload chunks then need a connection of 128 KiB/s.
    fn default() -> Self {
        Self { silence: Duration::from_secs(30), slowest: 32 << 10 }
    }
}

impl Bounds {
    /// The timeout for the response to a request with a body of `sent` bytes.
    fn until_answered(&self, sent: usize) -> Duration {
        self.silence + Duration::from_secs_f64(sent as f64 / f64::from(self.slowest.max(1)))
    }
}

/// A server sent nothing for this long.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the server sent nothing for {} s", _0.as_secs())]
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
            // The environment sets one.
            options.clone()
        };
        Ok(HttpClient::new(Bounded { client: ReqwestConnector::default().connect(&options)?, bounds: *self }))
    }
}

/// A client that gives up on a silent server.
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

/// The body of a response, each chunk of which has its own timeout.
struct BoundedBody {
    body: HttpResponseBody,
    most: Duration,
    /// The timeout of the next chunk, which starts when the caller waits for it.
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
        if let Poll::Ready(chunk) = Pin::new(&mut self.body).poll_frame(context) {
            self.waits = None;
            return Poll::Ready(chunk);
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
    fn the_timeout_of_a_request_grows_with_its_size() {
        let bounds = Bounds { silence: Duration::from_secs(3), slowest: 1000 };
        assert_eq!(bounds.until_answered(0), Duration::from_secs(3));
        assert_eq!(bounds.until_answered(2500), Duration::from_millis(5500));
    }
}
