//! Writers whose requests arrive late: another process has completed the checkpoint.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};

use antiphon_core::ids::Turn;
use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::storage::Store;
use antiphon_testing_s3::{ACCESS_KEY, Held, Operation, Server, When};
use bytes::Bytes;

use super::client::{ROOT, client, command, said, text};
use crate::conformance::suite::manifest;

const FILE: &str = "encoder-a.safetensors";
const STRAY: &str = "encoder-b.safetensors";
const PATH: &str = "runs/some folder+more/checkpoints/00000003/";
/// Environment variables: a file's length, and the byte that fills the file.
const LENGTH: &str = "LENGTH";
const FULL_OF: &str = "FULL_OF";
/// Lengths of a file in one request, and of one in two chunks.
const SMALL: usize = 1000;
const LARGE: usize = (16 << 20) + 1;

fn content() -> Bytes {
    let told = |name| std::env::var(name).expect("it is told");
    let (length, byte) = (told(LENGTH).parse().expect("a number"), told(FULL_OF).parse().expect("a byte"));
    Bytes::from(vec![byte; length])
}

fn of_part(server: &Server, test: &str, length: usize, full_of: u8) -> std::process::Command {
    let mut command = command(&format!("s3::late::{test}"), &server.endpoint(), ACCESS_KEY);
    command.env(LENGTH, length.to_string()).env(FULL_OF, full_of.to_string());
    command
}

/// The result of a client that is held while another client completes the checkpoint with a file full of sevens.
async fn overtaken(server: &Server, mut held: Held, late: std::process::Command, length: usize) -> Output {
    let late = tokio::process::Command::from(late).stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let late = late.expect("the program runs");
    held.wait().await;
    let output = client(of_part(server, "client_completes", length, 7)).await;
    assert!(output.status.success(), "{}", text(&output));
    held.release();
    late.wait_with_output().await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_arrives_late_changes_nothing() {
    for (operation, length) in [(Operation::Put, SMALL), (Operation::PutPart(2), LARGE)] {
        for (full_of, expected) in [
            (7, "written"),
            (
                8,
                "`s3://runs/some folder+more/checkpoints/00000003/encoder-a.safetensors` is not written: another \
                 process has completed the checkpoint with a different file of this name, or without one",
            ),
        ] {
            let server = Server::start().await;
            let held = server
                .hold(When::Before, move |request| request.operation == operation && request.paths[0].ends_with(FILE));
            let late = of_part(&server, "client_writes", length, full_of);
            let output = overtaken(&server, held, late, length).await;
            assert_eq!(said(&output), expected, "{operation:?}");
            let found = server.object(&format!("{PATH}{FILE}")).expect("it is there");
            assert!(found.len() == length && found.iter().all(|byte| *byte == 7), "{operation:?}: it stays");
            assert!(server.open_uploads().is_empty(), "{operation:?}");
            assert_eq!(server.keys().len(), 2, "the manifest and the file: {:?}", server.keys());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_manifest_written_meanwhile_are_no_garbage() {
    let server = Server::start().await;
    for name in [FILE, STRAY] {
        let mut stray = of_part(&server, "client_writes", SMALL, 7);
        stray.env("NAME", name);
        assert_eq!(said(&client(stray).await), "written");
    }
    let held = server.hold(When::After, |request| request.operation == Operation::List);
    // A page of a list has two objects.
    let output = overtaken(&server, held, of_part(&server, "client_clears_up", SMALL, 7), SMALL).await;
    assert_eq!(said(&output), "1 went");
    assert_eq!(server.keys(), [FILE, "manifest.json"].map(|name| format!("{PATH}{name}")));
}

fn store() -> CheckpointStore {
    CheckpointStore::new(&Store::open(ROOT).expect("it opens"))
}

#[tokio::test]
#[ignore = "started by the tests above, with an endpoint in its environment"]
#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
async fn client_writes() {
    let name = std::env::var("NAME").unwrap_or_else(|_| FILE.to_owned());
    match store().write_file(Turn(3), &name, content()).await {
        Ok(_) => println!("said: written"),
        Err(error) => println!("said: {error}"),
    }
}

#[tokio::test]
#[ignore = "started by the tests above, with an endpoint in its environment"]
async fn client_completes() {
    let entry = store().write_file(Turn(3), FILE, content()).await.expect("it is written");
    store().complete(&manifest(3, BTreeMap::from([(FILE.to_owned(), entry)]))).await.expect("it is complete");
}

#[tokio::test]
#[ignore = "started by the tests above, with an endpoint in its environment"]
#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
async fn client_clears_up() {
    println!("said: {} went", store().collect_all_garbage().await.expect("it clears up"));
}
