//! The conformance suite over S3: a server in this process, and a client in a process of its own, because stores take their
//! endpoint and credentials from the environment, which belongs to the whole process.

mod server;
#[path = "../conformance/suite.rs"]
mod suite;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::storage::Store;

const ROOT: &str = "s3://runs/some folder+more";

/// Runs one of the ignored tests of this file as a client of `endpoint`.
async fn client(test: &str, endpoint: &str, access_key: &str) -> Output {
    let program = std::env::current_exe().expect("a test knows its program");
    let mut command = Command::new(program);
    command
        .args(["--exact", "--ignored", "--nocapture", test])
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", access_key)
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .env("AWS_REGION", "eu-north-1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    let run = tokio::time::timeout(Duration::from_secs(120), run).await;
    let run = run.expect("requests are given up in a bounded time").expect("waiting does not panic");
    run.expect("the program runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The line that [`client_says_what_is_wrong`] prints.
fn said(output: &Output) -> String {
    let text = text(output);
    let line = text.lines().find_map(|line| line.split_once("said: "));
    line.unwrap_or_else(|| panic!("nothing was said: {text}")).1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let endpoint = server::start().await;
    let output = client("client_conforms", &endpoint, server::ACCESS_KEY).await;
    assert!(output.status.success(), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_nobody_serves_is_named_with_its_reason() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    let output = client("client_says_what_is_wrong", &endpoint, server::ACCESS_KEY).await;
    let expected = "cannot list `s3://runs/some folder+more/checkpoints`: Connection refused (os error 111); \
                    check that the address is right and the store can be reached from here";
    assert_eq!(said(&output), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_named() {
    let endpoint = server::start().await;
    let output = client("client_says_what_is_wrong", &endpoint, "somebody-else").await;
    let expected = "cannot list `s3://runs/some folder+more/checkpoints`: the server answered 403 Forbidden: \
                    <Error><Code>AccessDenied</Code></Error>; check the bucket and the credentials in the environment";
    assert_eq!(said(&output), expected);
}

#[tokio::test]
#[ignore = "started by the tests above, with an endpoint in its environment"]
async fn client_conforms() {
    suite::conforms(ROOT).await;
}

#[tokio::test]
#[ignore = "started by the tests above, with an endpoint in its environment"]
#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
async fn client_says_what_is_wrong() {
    let store = CheckpointStore::new(&Store::open(ROOT).expect("nothing is asked of the server yet"));
    let error = store.newest().await.expect_err("the server does not answer");
    println!("said: {error}");
}
