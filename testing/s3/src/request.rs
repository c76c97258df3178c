//! Requests to the server.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request};
use url::form_urlencoded;

use crate::faults::{Broken, Pace};

/// The only credentials that are accepted.
pub const ACCESS_KEY: &str = "conformance";

/// Headers that are stored with an object.
pub(crate) type Notes = Vec<(HeaderName, HeaderValue)>;

fn note((name, value): (&HeaderName, &HeaderValue)) -> (HeaderName, HeaderValue) {
    (name.clone(), value.clone())
}

/// A request, read to its end.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// `bucket/key`, decoded.
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) if_match: Option<String>,
    range: Option<String>,
    authorization: Option<String>,
    /// The `User-Agent`; empty if there is none.
    pub(crate) client: String,
    /// Attributes to store with the object: `x-amz-meta-…`.
    pub(crate) notes: Notes,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) async fn read(request: Request<Incoming>, pace: Option<Pace>) -> Result<Self, Broken> {
        let header = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
        Ok(Self {
            method: request.method().clone(),
            path: decoded(request.uri().path().trim_matches('/')),
            query: form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()).into_owned().collect(),
            if_none_match: header("if-none-match"),
            if_match: header("if-match"),
            range: header("range"),
            authorization: header("authorization"),
            client: header("user-agent").unwrap_or_default(),
            notes: request
                .headers()
                .iter()
                .filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"))
                .map(note)
                .collect(),
            body: body(request.into_body(), pace).await?,
        })
    }

    pub(crate) fn is_let_in(&self) -> bool {
        let signed_by = format!("Credential={ACCESS_KEY}/");
        self.authorization.as_ref().is_some_and(|signature| signature.contains(&signed_by))
    }

    /// Whether the request is about a bucket, not an object.
    pub(crate) fn is_of_bucket(&self) -> bool {
        !self.path.contains('/')
    }

    /// A field of the query; empty if it is missing.
    pub(crate) fn wanted(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// `bucket/key` of the objects to remove in one request.
    pub(crate) fn paths_to_delete(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.body);
        all_between(&text, "<Key>", "</Key>").map(|key| format!("{}/{}", self.path, unescaped(key))).collect()
    }

    /// The requested range of bytes of an object of `size`. None for all bytes.
    pub(crate) fn range(&self, size: usize) -> Option<(usize, usize)> {
        let (from, to) = self.range.as_ref()?.strip_prefix("bytes=")?.split_once('-')?;
        Some(match (from, to) {
            ("", last) => (size.saturating_sub(last.parse().ok()?), size),
            (from, "") => (from.parse().ok()?, size),
            (from, to) => (from.parse().ok()?, size.min(to.parse::<usize>().ok()? + 1)),
        })
    }
}

async fn body(mut body: Incoming, pace: Option<Pace>) -> Result<Bytes, Broken> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // A request of a client that was killed while sending is ignored.
        let Ok(chunk) = frame.map_err(|_| Broken)?.into_data() else { continue };
        if let Some(pace) = pace {
            tokio::time::sleep(pace.time(chunk.len())).await;
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

fn decoded(path: &str) -> String {
    let pair = format!("p={}", path.replace('+', "%2B"));
    form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

pub(crate) fn all_between<'a>(text: &'a str, begin: &'static str, end: &'static str) -> impl Iterator<Item = &'a str> {
    text.split(begin).skip(1).filter_map(move |rest| rest.split(end).next())
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&quot;", "\"").replace("&amp;", "&")
}
