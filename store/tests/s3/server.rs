//! The part of S3 that checkpoints rest on, over HTTP and in memory: PUT with `If-None-Match`, GET with ranges, HEAD, DELETE,
//! deletion of several, listing in pages. Lists are cut into short pages, every seventh request is turned away before anything
//! is done, and every eleventh is carried out and then answered by an error: what a client must get over.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use url::form_urlencoded;

/// Keys in one page of a list.
const PAGE: usize = 2;
/// The one set of credentials that is let in.
pub(crate) const ACCESS_KEY: &str = "conformance";

type Answer = Response<Full<Bytes>>;

#[derive(Default)]
struct State {
    /// `bucket/key` to content.
    objects: BTreeMap<String, Bytes>,
    requests: u64,
}

struct Asked {
    method: Method,
    /// `bucket/key`, decoded.
    path: String,
    query: BTreeMap<String, String>,
    if_none_match: bool,
    range: Option<(usize, usize)>,
    body: Bytes,
}

/// Serves for as long as the runtime lives; hands over the endpoint's URL.
pub(crate) async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let state = Arc::new(Mutex::new(State::default()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    endpoint
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let signed_by = format!("Credential={ACCESS_KEY}/");
    let let_in = header(&request, "authorization").is_some_and(|signature| signature.contains(&signed_by));
    let asked = Asked::read(request).await;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if !let_in {
        return Ok(of(StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>"));
    }
    state.requests += 1;
    if state.requests.is_multiple_of(7) {
        return Ok(of(StatusCode::SERVICE_UNAVAILABLE, "<Error><Code>SlowDown</Code></Error>"));
    }
    let answer = state.carry_out(&asked);
    if state.requests.is_multiple_of(11) {
        return Ok(of(StatusCode::INTERNAL_SERVER_ERROR, "<Error><Code>InternalError</Code></Error>"));
    }
    Ok(answer)
}

impl Asked {
    async fn read(request: Request<Incoming>) -> Self {
        let range = header(&request, "range").and_then(|range| {
            let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((from.parse().ok()?, to.parse::<usize>().ok()? + 1))
        });
        Self {
            method: request.method().clone(),
            path: decoded(request.uri().path().trim_matches('/')),
            query: form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()).into_owned().collect(),
            if_none_match: header(&request, "if-none-match").is_some(),
            range,
            body: request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
        }
    }
}

impl State {
    fn carry_out(&mut self, asked: &Asked) -> Answer {
        match (&asked.method, asked.path.contains('/')) {
            (&Method::GET, false) => self.list(asked),
            (&Method::POST, false) if asked.query.contains_key("delete") => self.delete_several(asked),
            (&Method::PUT, true) if asked.if_none_match && self.objects.contains_key(&asked.path) => {
                of(StatusCode::PRECONDITION_FAILED, "<Error><Code>PreconditionFailed</Code></Error>")
            }
            (&Method::PUT, true) => {
                self.objects.insert(asked.path.clone(), asked.body.clone());
                object(StatusCode::OK, &asked.body, Bytes::new())
            }
            (&Method::GET | &Method::HEAD, true) => self.read(asked),
            (&Method::DELETE, true) => {
                self.objects.remove(&asked.path);
                of(StatusCode::NO_CONTENT, "")
            }
            _ => of(StatusCode::NOT_IMPLEMENTED, "<Error><Code>NotImplemented</Code></Error>"),
        }
    }

    fn read(&self, asked: &Asked) -> Answer {
        match (self.objects.get(&asked.path), asked.range) {
            (None, _) => of(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>"),
            (Some(content), None) => object(StatusCode::OK, content, content.clone()),
            (Some(content), Some((from, to))) => {
                let to = to.min(content.len());
                let mut answer = object(StatusCode::PARTIAL_CONTENT, content, content.slice(from.min(to)..to));
                let range = format!("bytes {from}-{}/{}", to.saturating_sub(1), content.len());
                answer.headers_mut().insert("content-range", range.parse().expect("a header"));
                answer
            }
        }
    }

    fn list(&self, asked: &Asked) -> Answer {
        let bucket = format!("{}/", asked.path);
        let wanted = |name: &str| asked.query.get(name).cloned().unwrap_or_default();
        let (prefix, after) = (wanted("prefix"), wanted("continuation-token").max(wanted("start-after")));
        let keys = self.objects.iter().filter_map(|(path, content)| Some((path.strip_prefix(&bucket)?, content)));
        let mut keys = keys.filter(|(key, _)| key.starts_with(&prefix) && **key > *after);
        let page: Vec<_> = keys.by_ref().take(PAGE).collect();
        let next = match (keys.next(), page.last()) {
            (Some(_), Some((last, _))) => format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(last)),
            _ => String::new(),
        };
        let contents = page.iter().map(|(key, content)| {
            format!(
                "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>{}</ETag></Contents>",
                escaped(key),
                content.len(),
                escaped(&tag(content)),
            )
        });
        let contents: String = contents.collect();
        let xml = format!(
            "<ListBucketResult><IsTruncated>{}</IsTruncated>{next}{contents}</ListBucketResult>",
            !next.is_empty()
        );
        of(StatusCode::OK, &xml)
    }

    fn delete_several(&mut self, asked: &Asked) -> Answer {
        let text = String::from_utf8_lossy(&asked.body).into_owned();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let mut deleted = String::new();
        for key in keys {
            self.objects.remove(&format!("{}/{}", asked.path, unescaped(key)));
            deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
        }
        of(StatusCode::OK, &format!("<DeleteResult>{deleted}</DeleteResult>"))
    }
}

fn header(request: &Request<Incoming>, name: &str) -> Option<String> {
    Some(request.headers().get(name)?.to_str().ok()?.to_owned())
}

fn of(status: StatusCode, xml: &str) -> Answer {
    let mut answer = Response::new(Full::from(xml.to_owned()));
    *answer.status_mut() = status;
    answer
}

/// The answer that describes `content` and carries `body`. (For HEAD hyper leaves the body out and keeps its length.)
fn object(status: StatusCode, content: &Bytes, body: Bytes) -> Answer {
    let answer = Response::builder().status(status).header("etag", tag(content));
    let answer = answer.header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
    answer.body(Full::from(body)).expect("the headers are good")
}

fn tag(content: &Bytes) -> String {
    format!("\"{}\"", antiphon_core::digest::sha256(content))
}

fn decoded(path: &str) -> String {
    let pair = format!("p={}", path.replace('+', "%2B"));
    form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&quot;", "\"").replace("&amp;", "&")
}
