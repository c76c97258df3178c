//! The same job gives the same bits: over gRPC with everything computing at once, or in a plain loop; twice; with other
//! threads; stopped and resumed.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use antiphon_core::head::{SharedHead, StepContext};
use antiphon_core::ids::Split;
use antiphon_core::learning_rate::{alpha, factor};
use antiphon_core::spec::{Alpha, JobSpec, ProjectionSpec};
use antiphon_core::turn::Progress;
use antiphon_core::turn::epoch::batches;
use antiphon_store::part::{self, Arrays};
use antiphon_worker::trainer::{Options, Trainer};
use serde_json::Value;
use support::{SMALL_JOB, antiphon, folder_with_job, json_lines, run_to_end};

const TURNS: usize = 60;

/// One modality after the other on this thread: no coordinator, no worker, no turn machine.
struct PlainLoop {
    losses: Vec<f64>,
    head: SharedHead<f32>,
    encoders: BTreeMap<String, Vec<u8>>,
}

async fn plain_loop(spec: &JobSpec) -> PlainLoop {
    let options = Options { prefetch: Default::default(), data: Default::default() };
    let mut trainers = Vec::new();
    for modality in &spec.modalities {
        trainers.push(Trainer::open(spec, &modality.name, options.clone()).await.expect("a trainer"));
    }
    let per_epoch: Vec<u64> =
        trainers.iter().map(|t| batches(t.samples().of(Split::Train), spec.schedule.batch)).collect();
    let turns_per_epoch = (trainers.len() as u64 * per_epoch.iter().max().expect("modalities")) as f64;
    let mut head = SharedHead::new(&spec.head, spec.labels.classes.count(), spec.seed);
    let mut losses = Vec::new();
    for turn in 0..TURNS {
        let at = turn % trainers.len();
        let (modality, trainer) = (&spec.modalities[at], &mut trainers[at]);
        let progress = Progress { epoch: turn as f64 / turns_per_epoch, epochs: TURNS as f64 / turns_per_epoch };
        let step = trainer.local_step(head.head()).expect("a step");
        let context = StepContext {
            lr_factor: factor(&spec.head.optimizer.schedule, progress.epoch, progress.epochs),
            alpha: alpha(&decay(spec), trainer.steps_done() % per_epoch[at], per_epoch[at]),
        };
        losses.push(step.contribution.loss);
        head.apply(&modality.name, &step.contribution, context).expect("a contribution that fits");
        head.end_turn();
        trainer.learn(&step.feature_gradient, progress).expect("a gradient that fits");
    }
    let parts = trainers.iter().map(|trainer| trainer.parts().expect("parts").swap_remove(0));
    let encoders = parts.map(|(name, bytes)| (name, bytes.to_vec())).collect();
    PlainLoop { losses, head, encoders }
}

fn decay(spec: &JobSpec) -> Alpha {
    let ProjectionSpec::Rls { alpha, .. } = spec.head.projection else { panic!("the small job projects") };
    alpha
}

fn tensor(checkpoint: &Path, file: &str, name: &str) -> Vec<u32> {
    let bytes = std::fs::read(checkpoint.join(file)).expect("a part");
    let (arrays, _): (Arrays, Value) = part::decode(file, &bytes).expect("a whole part");
    bits(&arrays[name].data)
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_distributed_run_equals_a_plain_loop_bit_for_bit() {
    let folder = folder_with_job();
    let (code, lines) = json_lines(folder.path(), &["run", "job.yaml"]);
    assert_eq!(code, Some(0), "{lines:#?}");
    let spec = antiphon_core::spec::parse(SMALL_JOB, "job.yaml", &[], &|_| None).expect("a job");
    let plain = plain_loop(&spec).await;

    let losses: Vec<u64> = lines
        .iter()
        .filter(|line| line["event"] == "step")
        .map(|line| line["loss"].as_f64().expect("a loss").to_bits())
        .collect();
    let expected: Vec<u64> = plain.losses.iter().map(|loss| loss.to_bits()).collect();
    assert_eq!(losses.len(), TURNS);
    assert_eq!(losses, expected);

    let finished = lines.last().expect("a last line");
    let checkpoint = Path::new(finished["checkpoint"].as_str().expect("a checkpoint"));
    let head = plain.head.head();
    assert_eq!(tensor(checkpoint, "head.safetensors", "weight"), bits(head.weight().as_slice()));
    assert_eq!(tensor(checkpoint, "head.safetensors", "bias"), bits(head.bias()));
    let parts = plain.head.to_parts().expect("no turn is open");
    let projector = parts.projector.tensors.iter().find(|t| t.name == "projector").expect("a projector");
    assert_eq!(tensor(checkpoint, "projector.safetensors", "projector"), bits(&projector.data));
    assert_eq!(plain.encoders.len(), 3);
    for (name, bytes) in &plain.encoders {
        assert!(*bytes == std::fs::read(checkpoint.join(name)).expect("a part"), "{name} differs");
    }
}

#[test]
fn the_same_job_has_the_same_digest_whatever_the_threads_and_the_data_memory() {
    let folder = folder_with_job();
    let first = run_to_end(folder.path(), &["run", "job.yaml"]);
    let again = run_to_end(folder.path(), &["run", "job.yaml", "--decode-threads", "3", "--data-memory", "0"]);
    assert!(first["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{first}");
    assert_eq!(first["digest"], again["digest"]);
    assert_eq!(first["evaluation"], again["evaluation"]);
    let other = run_to_end(folder.path(), &["run", "job.yaml", "--set", "seed=12"]);
    assert_ne!(first["digest"], other["digest"]);
}

#[test]
fn a_job_that_was_stopped_and_resumed_has_the_digest_of_one_that_was_not() {
    let folder = folder_with_job();
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);
    let half = run_to_end(folder.path(), &["run", "job.yaml", "--state", "parts", "--set", "schedule.turns=25"]);
    assert_ne!(whole["digest"], half["digest"]);
    let resumed = run_to_end(folder.path(), &["run", "job.yaml", "--state", "parts", "--resume"]);
    assert_eq!(whole["digest"], resumed["digest"]);
    assert_eq!(half["job"], resumed["job"]);

    let from = half["checkpoint"].as_str().expect("a checkpoint");
    let elsewhere = run_to_end(folder.path(), &["run", "job.yaml", "--state", "elsewhere", "--resume", from]);
    assert_eq!(whole["digest"], elsewhere["digest"]);
    let best = elsewhere["best"]["checkpoint"].as_str().expect("a best checkpoint");
    assert!(best.contains("elsewhere") && Path::new(best).join("manifest.json").exists(), "{best}");
}

#[test]
fn an_interrupt_writes_a_checkpoint_from_which_the_job_ends_as_if_nothing_had_happened() {
    let folder = folder_with_job();
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);

    let mut run = antiphon(folder.path(), &["run", "job.yaml", "--state", "cut", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(run.stdout.take().expect("its output")).lines();
    let mut seen = lines.by_ref().map(|line| line.expect("a line")).filter(|line| line.contains(r#""event":"step""#));
    seen.nth(4).expect("five steps");
    let pid = run.id().to_string();
    let killed = std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill");
    assert!(killed.success());
    let last = lines.map(|line| line.expect("a line")).last().expect("a last line");
    let last: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(run.wait().expect("it ends").code(), Some(130), "{last}");
    assert_eq!((&last["event"], &last["state"]), (&"finished".into(), &"stopped".into()));
    assert!(last["checkpoint"].is_string(), "{last}");

    let resumed = run_to_end(folder.path(), &["run", "job.yaml", "--state", "cut", "--resume"]);
    assert_eq!(whole["digest"], resumed["digest"]);
}
