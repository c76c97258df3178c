//! Held requests of clients that wait, and of clients that disconnect.

use std::sync::Arc;

use antiphon_testing_s3::{ACCESS_KEY, Held, OpenUpload, Operation, Request, Server, When};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Sends a request, and returns the status of the answer, or 0 if the connection broke.
async fn ask(server: &Server, client: &str, request: &str, body: &str) -> u16 {
    let address = server.endpoint().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let head = format!(
        "{request} HTTP/1.1\r\nHost: s3\r\nConnection: close\r\nAuthorization: Credential={ACCESS_KEY}/\r\n\
         User-Agent: {client}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    // A broken connection has sent no answer.
    let _ = stream.read_to_string(&mut answer).await;
    answer.split(' ').nth(1).map_or(0, |status| status.parse().expect("a status"))
}

/// The same, on a separate thread.
fn asking(server: &Arc<Server>, client: &'static str, request: &'static str) -> JoinHandle<u16> {
    let server = Arc::clone(server);
    tokio::spawn(async move { ask(&server, client, request, "x").await })
}

fn held(server: &Server, when: When) -> Held {
    server.hold(when, |request| request.client == "one" && request.operation == Operation::Put)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_held_before_or_after_it_is_carried_out() {
    for (when, done) in [(When::Before, false), (When::After, true)] {
        let server = Arc::new(Server::start().await);
        let mut held = held(&server, when);
        assert_eq!(ask(&server, "another", "PUT /bucket/other", "x").await, 200, "others are not held");
        let put = asking(&server, "one", "PUT /bucket/a");
        let request = held.wait().await;
        let paths = vec!["bucket/a".to_owned()];
        assert_eq!(request, Request { client: "one".to_owned(), operation: Operation::Put, paths });
        assert_eq!(server.object("bucket/a").is_some(), done, "{when:?}");
        assert_eq!(ask(&server, "one", "PUT /bucket/b", "x").await, 200, "only one is held");
        held.release();
        assert_eq!(put.await.expect("no task panicked"), 200);
        assert_eq!(server.keys(), ["bucket/a", "bucket/b", "bucket/other"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_released_has_no_further_effect() {
    for (when, done) in [(When::Before, false), (When::After, true)] {
        let server = Arc::new(Server::start().await);
        let mut held = held(&server, when);
        let put = asking(&server, "one", "PUT /bucket/a");
        held.wait().await;
        drop(held);
        assert_eq!(put.await.expect("no task panicked"), 0, "the connection breaks");
        assert_eq!(server.object("bucket/a").is_some(), done, "{when:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_hold_was_dropped_is_not_held() {
    let server = Server::start().await;
    drop(held(&server, When::Before));
    assert_eq!(ask(&server, "one", "PUT /bucket/a", "x").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_apart() {
    let requests = [
        ("PUT /bucket/a", "", Operation::Put, "bucket/a"),
        ("GET /bucket/a", "", Operation::Get, "bucket/a"),
        ("HEAD /bucket/a", "", Operation::Head, "bucket/a"),
        ("GET /bucket?list-type=2", "", Operation::List, "bucket"),
        ("POST /bucket/b?uploads", "", Operation::CreateUpload, "bucket/b"),
        ("PUT /bucket/b?partNumber=3&uploadId=upload-1", "x", Operation::PutPart(3), "bucket/b"),
        ("POST /bucket/b?uploadId=upload-1", "", Operation::CompleteUpload, "bucket/b"),
        ("DELETE /bucket/b?uploadId=upload-2", "", Operation::AbortUpload, "bucket/b"),
        ("DELETE /bucket/a", "", Operation::Delete, "bucket/a"),
        ("POST /bucket?delete", "<Key>c/d</Key>", Operation::Delete, "bucket/c/d"),
    ];
    let server = Arc::new(Server::start().await);
    for (request, body, operation, path) in requests {
        let mut held = server.hold(When::After, |_| true);
        let asked = Arc::clone(&server);
        let asked = tokio::spawn(async move { ask(&asked, "one", request, body).await });
        let seen = held.wait().await;
        assert_eq!((seen.operation, seen.paths), (operation, vec![path.to_owned()]), "{request}");
        held.release();
        asked.await.expect("no task panicked");
    }
    assert_eq!(server.open_uploads(), [OpenUpload { path: "bucket/b".to_owned(), chunks: 1 }]);
}
