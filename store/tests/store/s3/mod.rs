//! The conformance suite with S3. The server is in this process and the client in another, because stores read endpoint
//! and credentials from the environment of the process.

mod client;
mod conditions;
mod killed;
mod late;
mod slow;

use std::process::Stdio;
use std::time::Duration;

use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::faults::{self, Faults};
use antiphon_store::storage::{Store, StoreOptions};
use antiphon_testing_s3::{ACCESS_KEY, Faults as ServerFaults, Server};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use self::client::{ROOT, client, command, said, text};
use crate::conformance::{interrupted, suite};

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let server = Server::start_with(ServerFaults::frequent(0)).await;
    let output = client(command("s3::client_conforms", &server.endpoint(), ACCESS_KEY)).await;
    assert!(output.status.success(), "{}", text(&output));
}

/// Both the server and the store in the client have faults.
#[tokio::test(flavor = "multi_thread")]
async fn s3_that_fails_at_both_ends_conforms() {
    for seed in 1..3 {
        let server = Server::start_with(ServerFaults::frequent(seed)).await;
        let mut command = command("s3::client_conforms", &server.endpoint(), ACCESS_KEY);
        command.env(faults::VARIABLE, format!("seed={seed},errors=0.05,lost=0.05,slow=0.1,slow_ms=5,truncated=0.05"));
        let output = client(command).await;
        assert!(output.status.success(), "seed {seed}: {}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upload_is_aborted() {
    let server = Server::start().await;
    let mut client =
        tokio::process::Command::from(command("s3::client_is_interrupted", &server.endpoint(), ACCESS_KEY))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program runs");
    let lifeline = client.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let aborted = async {
        while let Some(line) = lines.next_line().await.expect("it is text") {
            if line.contains("all writers are dropped") {
                break;
            }
        }
        // The client has sent the requests, but may not have their answers yet.
        while !server.open_uploads().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), aborted).await.expect("abandoned uploads are aborted");
    drop(lifeline);
    assert!(client.wait().await.expect("it ends").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_a_server_is_named_with_its_reason() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    let output = client(command("s3::client_says_what_is_wrong", &endpoint, ACCESS_KEY)).await;
    let expected = "cannot list `s3://runs/some folder+more/checkpoints`: Connection refused (os error 111); \
                    check the address, and that this machine can reach the store";
    assert_eq!(said(&output), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_named() {
    let server = Server::start().await;
    let output = client(command("s3::client_says_what_is_wrong", &server.endpoint(), "another-key")).await;
    let expected = "cannot list `s3://runs/some folder+more/checkpoints`: the server answered 403 Forbidden: \
                    <Error><Code>AccessDenied</Code></Error>; check the bucket and the credentials in the environment";
    assert_eq!(said(&output), expected);
}

#[tokio::test]
#[ignore = "started by the tests above, with an endpoint in its environment"]
async fn client_conforms() {
    let faults = Faults::from_environment().expect("faults");
    suite::conforms(ROOT, &StoreOptions { faults, ..StoreOptions::default() }).await;
}

#[tokio::test]
#[ignore = "started by the tests above, with an endpoint in its environment"]
#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
async fn client_is_interrupted() {
    interrupted::leaves_no_garbage(&Store::open(ROOT).expect("it opens")).await;
    println!("all writers are dropped");
    // The parent process ends this one.
    let told = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    told.await.expect("waiting does not panic").expect("it is read to its end");
}

#[tokio::test]
#[ignore = "started by the tests above, with an endpoint in its environment"]
#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
async fn client_says_what_is_wrong() {
    let store = CheckpointStore::new(&Store::open(ROOT).expect("it opens"));
    println!("said: {}", store.newest().await.expect_err("the server does not answer"));
}
