//! Slow servers and silent servers.

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon_core::ids::Turn;
use antiphon_store::bounds::Bounds;
use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use antiphon_testing_s3::{ACCESS_KEY, Faults, Server, When};
use bytes::Bytes;

use super::client::{ROOT, client, command, said, text};
use crate::conformance::suite::manifest;

/// Lengths of a file in one request, and of one in two chunks. Each transfer takes about a second.
const FILES: [(usize, u32); 2] = [(1 << 20, 1 << 20), ((16 << 20) + 1, 16 << 20)];
/// Environment variable: the length of a file.
const LENGTH: &str = "LENGTH";
const FILE: &str = "encoder-a.safetensors";

fn at(bytes_per_second: u32) -> Faults {
    Faults { slow_bodies: 1.0, bytes_per_second, ..Faults::NONE }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_take_longer_than_a_server_may_be_silent() {
    for (length, bytes_per_second) in FILES {
        let server = Server::start_with(at(bytes_per_second)).await;
        let mut command = command("s3::slow::client_writes_and_reads", &server.endpoint(), ACCESS_KEY);
        command.env(LENGTH, length.to_string());
        let output = client(command).await;
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_given_up() {
    let expected = "cannot list `s3://runs/some folder+more/checkpoints`: the server sent nothing for 0 s; \
                    check the address, and that this machine can reach the store";
    // First no byte at all, then one byte per second.
    for silent in [true, false] {
        let server = Server::start_with(at(1)).await;
        let held: Vec<_> = (0..100).filter(|_| silent).map(|_| server.hold(When::Before, |_| true)).collect();
        let output = client(command("s3::slow::client_lists", &server.endpoint(), ACCESS_KEY)).await;
        assert_eq!(said(&output), expected);
        drop(held);
    }
}

#[tokio::test]
#[ignore = "started by the test above, with an endpoint in its environment"]
async fn client_writes_and_reads() {
    let length = std::env::var(LENGTH).expect("it is told").parse().expect("a number");
    let content = Bytes::from(vec![7; length]);
    let bounds = Bounds { silence: Duration::from_millis(500), slowest: 64 << 10 };
    let store = CheckpointStore::new(&StoreOptions { bounds, ..StoreOptions::default() }.open(ROOT).expect("it opens"))
        .with_retry(RetryPolicy::new(Duration::from_secs(5), 0));
    let entry = store.write_file(Turn(3), FILE, content.clone()).await.expect("it is written");
    let files = BTreeMap::from([(FILE.to_owned(), entry)]);
    let checkpoint = store.complete(&manifest(3, files)).await.expect("it is complete");
    assert!(checkpoint.file(FILE).await.expect("it is read") == content);
}

#[tokio::test]
#[ignore = "started by the test above, with an endpoint in its environment"]
#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
async fn client_lists() {
    let bounds = Bounds { silence: Duration::from_millis(100), ..Bounds::default() };
    let store = CheckpointStore::new(&StoreOptions { bounds, ..StoreOptions::default() }.open(ROOT).expect("it opens"));
    println!("said: {}", store.newest().await.expect_err("the server does not answer"));
}
