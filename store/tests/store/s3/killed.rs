//! Processes that are killed during an upload, and the clean-up after them.

use std::collections::BTreeSet;
use std::process::Stdio;

use antiphon_core::ids::Turn;
use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::storage::Store;
use antiphon_testing_s3::{ACCESS_KEY, Operation, Server, When};
use bytes::Bytes;

use super::client::{ROOT, client, command, text};
use crate::conformance::suite::write;

/// Environment variable: the checkpoint that a client writes, or spares when it cleans up.
const TURN: &str = "TURN";
const FILE: &str = "projector.safetensors";
/// The prefix of the names of markers.
const MARKER: &str = ".upload-";

/// The points at which a client is killed, in the order of turns from 1, and whether it leaves a marker.
const POINTS: [(When, Operation, bool); 9] = [
    (When::Before, Operation::CreateUpload, false),
    (When::After, Operation::CreateUpload, false),
    (When::Before, Operation::Put, false),
    (When::After, Operation::Put, true),
    (When::Before, Operation::PutPart(2), true),
    (When::After, Operation::PutPart(1), true),
    (When::Before, Operation::CompleteUpload, true),
    (When::After, Operation::CompleteUpload, true),
    (When::Before, Operation::Delete, true),
];

fn turn() -> Turn {
    Turn(std::env::var(TURN).expect("it is told").parse().expect("a number"))
}

fn of_turn(keys: &[String], turn: u64, name: &str) -> bool {
    keys.iter().any(|key| key.contains(&format!("/{turn:08}/{name}")))
}

/// The turns of open uploads.
fn open(server: &Server) -> Vec<u64> {
    let open = server.open_uploads();
    let turns = open.iter().map(|upload| upload.path.rsplit('/').nth(1).and_then(|turn| turn.parse().ok()));
    turns.map(|turn| turn.expect("it is a checkpoint's")).collect()
}

async fn clear_up(server: &Server, in_progress: u64) {
    let mut command = command("s3::killed::client_clears_up", &server.endpoint(), ACCESS_KEY);
    command.env(TURN, in_progress.to_string());
    let output = client(command).await;
    assert!(output.status.success(), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_client_leaves_of_an_upload_is_removed() {
    let server = Server::start().await;
    for (turn, (when, operation, is_marked)) in (1..).zip(POINTS) {
        // Requests of the killed client may still arrive.
        let mut held =
            server.hold(when, move |request| request.operation == operation && of_turn(&request.paths, turn, ""));
        let mut writer =
            tokio::process::Command::from(command("s3::killed::client_writes", &server.endpoint(), ACCESS_KEY));
        writer.env(TURN, turn.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let mut writer = writer.spawn().expect("the program runs");
        held.wait().await;
        writer.kill().await.expect("it is killed");
        drop(held);
        assert_eq!(of_turn(&server.keys(), turn, MARKER), is_marked, "{when:?} {operation:?}");
    }
    assert_eq!(open(&server), [2, 3, 4, 5, 6, 7]);

    clear_up(&server, 6).await;
    let keys = server.keys();
    assert!((1..10).all(|turn| of_turn(&keys, turn, "") == (turn == 6)), "{keys:?}");
    // The upload in progress, and those without a marker.
    assert_eq!(open(&server), [2, 3, 6]);

    clear_up(&server, 100).await;
    let keys = server.keys();
    assert!(keys.iter().all(|key| key.contains("/00000100/")), "{keys:?}");
    assert_eq!(open(&server), [2, 3]);
    assert!(server.open_uploads().iter().all(|upload| upload.chunks == 0), "it takes no storage");
}

#[tokio::test]
#[ignore = "started by the test above, with an endpoint in its environment"]
async fn client_writes() {
    let store = CheckpointStore::new(&Store::open(ROOT).expect("it opens"));
    let file = Bytes::from(vec![7; (16 << 20) + 1]);
    store.write_file(turn(), FILE, file).await.expect("it is written, unless this process is killed");
}

#[tokio::test]
#[ignore = "started by the test above, with an endpoint in its environment"]
async fn client_clears_up() {
    let store = CheckpointStore::new(&Store::open(ROOT).expect("it opens"));
    if store.newest().await.expect("it lists").is_none() {
        write(&store, 100).await;
    }
    store.collect_garbage(&BTreeSet::from([turn()])).await.expect("it clears up");
}
