//! Processes that are killed at each request that writes a checkpoint to S3: before the request is executed, and
//! between its execution and its answer. Each time, a replacement resumes from the newest manifest, ends with the same
//! bits, and leaves no stray files.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::process::address;
use crate::support::{antiphon, folder_with, run_to_end};
use antiphon_testing_s3::{Held, Operation, Request, Server, When};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// A job whose projector has two upload chunks, with a checkpoint after every other turn.
const LARGE_HEAD: &str = "
name: kept
seed: 3
data: {source: synth, kind: features, samples: {train: 24, validation: 0, test: 0}}
modalities:
  a: {encoder: {kind: mlp, hidden: [4]}}
labels: 10
head: {width: 2112, projection: rls}
schedule: {turns: 12, batch: 4}
checkpoints: {every: 2 turns, keep: 1}
";

/// A job whose encoder has two upload chunks.
const LARGE_ENCODER: &str = "
name: kept
seed: 3
data: {source: synth, kind: features, samples: {train: 24, validation: 0, test: 0}}
modalities:
  a: {encoder: {kind: mlp, hidden: [2048]}}
labels: 10
head: {width: 2112}
schedule: {turns: 6, batch: 4}
checkpoints: {every: 2 turns, keep: 1}
";

/// The folder of the checkpoints.
const CHECKPOINTS: &str = "bucket/runs/kept/checkpoints";
/// The prefix of the names of markers.
const MARKER: &str = ".upload-";
const PROJECTOR: &str = "projector.safetensors";
const ENCODER: &str = "encoder-a.safetensors";

/// The longest time that a test waits.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A request at which a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    when: When,
    operation: Operation,
    /// Turn of the checkpoint that the request belongs to.
    turn: u64,
    /// Prefix of the object's name.
    object: &'static str,
    /// Turn of the newest complete checkpoint at that point.
    newest: u64,
}

impl Point {
    fn is_of(&self, request: &Request, client: &str) -> bool {
        let folder = format!("{CHECKPOINTS}/{:08}/{}", self.turn, self.object);
        request.client == client
            && request.operation == self.operation
            && request.paths.iter().any(|path| path.starts_with(&folder))
    }
}

/// Both crash points of a request: before and after its execution.
fn around(operation: Operation, turn: u64, object: &'static str, newest: u64) -> [Point; 2] {
    [When::Before, When::After].map(|when| Point { when, operation, turn, object, newest })
}

/// The processes of a job, and the server that holds their state.
struct Stage {
    folder: tempfile::TempDir,
    server: Server,
    address: String,
    /// Number of processes started so far.
    processes: usize,
}

impl Stage {
    async fn set(job: &str) -> Self {
        let address = address().to_string();
        Self { folder: folder_with(job), server: Server::start().await, address, processes: 0 }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The name by which the server identifies the next process.
    fn next(&self) -> String {
        format!("process-{}", self.processes)
    }

    fn process(&mut self, arguments: &[&str]) -> Child {
        let name = self.next();
        self.processes += 1;
        let mut command = tokio::process::Command::from(antiphon(self.path(), arguments));
        command
            .envs(self.server.environment_of(&name))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.kill_on_drop(true).spawn().expect("the program starts")
    }

    /// Holds the next process at this point.
    fn hold(&self, point: Point) -> Trap {
        let client = self.next();
        Trap { point, held: self.server.hold(point.when, move |request| point.is_of(request, &client)) }
    }

    fn coordinator(&mut self) -> Child {
        let address = self.address.clone();
        self.process(&["coordinator", "--listen", &address, "--state", "s3://bucket/runs"])
    }

    /// Waits until the coordinator listens.
    async fn listens(&self) {
        let listens = async {
            while tokio::net::TcpStream::connect(&self.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, listens).await.expect("it listens");
    }

    fn worker(&mut self) -> Child {
        let url = format!("http://{}", self.address);
        self.process(&["worker", "--modality", "a", "--coordinator", &url])
    }

    fn follower(&mut self) -> Follower {
        let url = format!("http://{}", self.address);
        let arguments = ["submit", "job.yaml", "--id", "kept", "--follow", "--format", "json", "--coordinator", &url];
        let mut process = self.process(&arguments);
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        Follower { _process: process, lines }
    }

    /// The objects of checkpoints, by turn and name.
    fn objects(&self) -> BTreeSet<(u64, String)> {
        let keys = self.server.keys();
        let paths = keys.iter().filter_map(|key| key.strip_prefix(CHECKPOINTS)?.strip_prefix('/')?.split_once('/'));
        paths.map(|(turn, name)| (turn.parse().expect("a turn"), name.to_owned())).collect()
    }

    /// The turns of complete checkpoints.
    fn complete(&self) -> BTreeSet<u64> {
        self.objects().into_iter().filter(|(_, name)| name == "manifest.json").map(|(turn, _)| turn).collect()
    }

    /// The manifests and the files that they name.
    fn named(&self) -> BTreeSet<(u64, String)> {
        let of = |turn: u64| {
            let text = self.server.object(&format!("{CHECKPOINTS}/{turn:08}/manifest.json")).expect("it is there");
            let manifest: Value = serde_json::from_slice(&text).expect("it is JSON");
            let files = manifest["files"].as_object().expect("its files");
            let names: Vec<String> = files.keys().cloned().chain(["manifest.json".to_owned()]).collect();
            names.into_iter().map(move |name| (turn, name))
        };
        self.complete().into_iter().flat_map(of).collect()
    }

    /// Checks that a manifest names every object of its checkpoint, and that no upload is open, except for those of
    /// processes that were killed before they could write the marker.
    fn holds_nothing_else(&self, points: &[Point]) {
        assert_eq!(self.objects(), self.named());
        let is_unmarked = |point: &&Point| {
            (point.when, point.operation) == (When::After, Operation::CreateUpload)
                || (point.when, point.object) == (When::Before, MARKER) && point.operation == Operation::Put
        };
        let open = self.server.open_uploads();
        assert_eq!(open.len(), points.iter().filter(is_unmarked).count(), "{open:?}");
        assert!(open.iter().all(|upload| upload.chunks == 0), "{open:?}");
    }
}

/// A client that submits the job and follows it.
struct Follower {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    /// The next event of this kind.
    async fn until(&mut self, kind: &str) -> Value {
        let found = async {
            while let Some(line) = self.lines.next_line().await.expect("it is text") {
                let event: Value = serde_json::from_str(&line).expect("JSON");
                assert!(event["event"] != "error", "{event}");
                if event["event"] == kind {
                    return event;
                }
                assert!(event["event"] != "finished", "it finished before it said `{kind}`: {event}");
            }
            panic!("there is no `{kind}`");
        };
        tokio::time::timeout(TEST_TIMEOUT, found).await.unwrap_or_else(|_| panic!("it never says `{kind}`"))
    }
}

/// A point at which a process will be killed.
struct Trap {
    point: Point,
    held: Held,
}

impl Trap {
    /// Kills the process when it reaches the point, and drops its request.
    async fn kills(mut self, process: &mut Child) {
        let arrived = tokio::time::timeout(TEST_TIMEOUT, self.held.wait()).await;
        arrived.unwrap_or_else(|_| panic!("no request reaches {:?}", self.point));
        process.kill().await.expect("it is killed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_at_any_request_resumes_from_the_newest() {
    let mut points = Vec::new();
    for (operation, object) in [
        (Operation::Put, "head.safetensors"),
        (Operation::Put, "head.state.safetensors"),
        (Operation::CreateUpload, PROJECTOR),
        (Operation::Put, MARKER),
        (Operation::PutPart(1), PROJECTOR),
        (Operation::PutPart(2), PROJECTOR),
        (Operation::CompleteUpload, PROJECTOR),
        (Operation::Delete, MARKER),
    ] {
        points.extend(around(operation, 4, object, 2));
    }
    let [before, after] = around(Operation::Put, 4, "manifest.json", 2);
    points.extend([before, Point { newest: 4, ..after }]);
    let [before, after] = around(Operation::Delete, 4, "manifest.json", 6);
    points.extend([before, Point { newest: 8, ..after }]);
    points.push(Point { when: When::Before, operation: Operation::Delete, turn: 8, object: PROJECTOR, newest: 10 });

    let mut stage = Stage::set(LARGE_HEAD).await;
    let whole = run_to_end(stage.path(), &["run", "job.yaml", "--state", "whole"]);
    let held = stage.hold(points[0]);
    let mut coordinator = stage.coordinator();
    stage.listens().await;
    let (_worker, mut follower) = (stage.worker(), stage.follower());
    held.kills(&mut coordinator).await;
    for (before, point) in points.iter().zip(points.iter().skip(1).map(Some).chain([None])) {
        assert_eq!(stage.complete().last(), Some(&before.newest), "{before:?}");
        let held = point.map(|point| stage.hold(*point));
        coordinator = stage.coordinator();
        let recovered = follower.until("recovered").await;
        assert_eq!(recovered["turn"], before.newest, "{before:?}: {recovered}");
        if let Some(held) = held {
            held.kills(&mut coordinator).await;
        }
    }
    let finished = follower.until("finished").await;
    assert_eq!((&finished["state"], &finished["digest"]), (&"succeeded".into(), &whole["digest"]), "{finished}");
    stage.holds_nothing_else(&points);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_request_of_its_files_is_replaced() {
    let points = [
        (When::After, Operation::CreateUpload, ENCODER),
        (When::Before, Operation::Put, MARKER),
        (When::After, Operation::Put, MARKER),
        (When::After, Operation::PutPart(1), ENCODER),
        (When::Before, Operation::PutPart(2), ENCODER),
        (When::Before, Operation::CompleteUpload, ENCODER),
        (When::After, Operation::CompleteUpload, ENCODER),
        (When::After, Operation::Delete, MARKER),
    ];
    let points = points.map(|(when, operation, object)| Point { when, operation, turn: 4, object, newest: 2 });
    let mut stage = Stage::set(LARGE_ENCODER).await;
    let whole = run_to_end(stage.path(), &["run", "job.yaml", "--state", "whole"]);
    let _coordinator = stage.coordinator();
    stage.listens().await;
    let mut follower = stage.follower();
    for point in points {
        let held = stage.hold(point);
        held.kills(&mut stage.worker()).await;
        assert_eq!(stage.complete().last(), Some(&point.newest), "{point:?}");
    }
    let _worker = stage.worker();
    let finished = follower.until("finished").await;
    assert_eq!((&finished["state"], &finished["digest"]), (&"succeeded".into(), &whole["digest"]), "{finished}");
    stage.holds_nothing_else(&points);
}
