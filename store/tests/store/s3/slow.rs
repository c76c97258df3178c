//! Servers that take their time, and servers that say nothing.

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

/// A part in one piece and one in two, which take about a second each way.
const PARTS: [(usize, u32); 2] = [(1 << 20, 1 << 20), ((16 << 20) + 1, 16 << 20)];
/// Of the environment: the length of a part.
const LENGTH: &str = "LENGTH";
const PART: &str = "encoder-a.safetensors";

fn at(bytes_per_second: u32) -> Faults {
    Faults { slow_bodies: 1.0, bytes_per_second, ..Faults::NONE }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_arrives_over_a_line_on_which_it_takes_longer_than_a_server_may_be_silent() {
    for (length, bytes_per_second) in PARTS {
        let server = Server::start_with(at(bytes_per_second)).await;
        let mut command = command("s3::slow::client_writes_and_reads", &server.endpoint(), ACCESS_KEY);
        command.env(LENGTH, length.to_string());
        let output = client(command).await;
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() {
    let expected = "cannot list `s3://runs/some folder+more/checkpoints`: the server said nothing for 0 s; \
                    check that the address is right and the store can be reached from here";
    // Not a word, and then a byte a second.
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
    let entry = store.write_part(Turn(3), PART, content.clone()).await.expect("it is written");
    let parts = BTreeMap::from([(PART.to_owned(), entry)]);
    let checkpoint = store.complete(&manifest(3, parts)).await.expect("it is complete");
    assert!(checkpoint.part(PART).await.expect("it is read") == content);
}

#[tokio::test]
#[ignore = "started by the test above, with an endpoint in its environment"]
#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
async fn client_lists() {
    let bounds = Bounds { silence: Duration::from_millis(100), ..Bounds::default() };
    let store = CheckpointStore::new(&StoreOptions { bounds, ..StoreOptions::default() }.open(ROOT).expect("it opens"));
    println!("said: {}", store.newest().await.expect_err("the server does not answer"));
}
