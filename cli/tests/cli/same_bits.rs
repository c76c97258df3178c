//! The same job gives the same bits: over gRPC with parallel computation or in a plain loop, twice, with any number of
//! threads, stopped and resumed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::support::{SMALL_JOB, antiphon, folder_with, folder_with_job, json_lines, parse_lines, run_to_end};
use antiphon_core::head::{SharedHead, StepContext};
use antiphon_core::ids::{MicroShard, Split};
use antiphon_core::learning_rate::{alpha, factor};
use antiphon_core::spec::{Alpha, JobSpec, Length, ModalitySpec, ProjectionSpec};
use antiphon_core::turn::Progress;
use antiphon_data::{BatchInput, Dataset, OpenOptions, Preprocessor, Sampler};
use antiphon_model::encoder::{self, DropoutKey, Encoder, Frozen, Mode};
use antiphon_model::optimizer::Optimizer;
use antiphon_model::weights::Rates;
use antiphon_store::tensors::{self, Arrays};
use candle_core::{Device, Tensor};
use serde_json::Value;

/// A residual network whose first layers are frozen, and a vision transformer.
const LARGE_JOB: &str = "
name: large
seed: 5
data: {source: synth, kind: spoken-digits, samples: {train: 24, validation: 0, test: 0}}
modalities:
  audio:
    input: {kind: audio, sample_rate: 8000, seconds: 0.5 s, mels: 16, window: 256, hop: 256}
    encoder: {kind: resnet18, freeze: [conv1.*, bn1.*, layer1.*, layer2.0.*], adapter_lr: 5}
    optimizer: {kind: sgd, lr: 0.01, momentum: 0.9, clip: 1.0}
  image:
    input: {kind: image, height: 28, width: 28, channels: 1}
    encoder: {kind: vit, size: tiny, patch: 14, dropout: 0.1}
    optimizer: {kind: adamw, lr: 1e-3}
labels: 10
head: {width: 16, optimizer: {kind: sgd, lr: 0.05, momentum: 0.9}}
schedule: {turns: 8, batch: 8}
checkpoints: {every: end}
";

/// A head that does not fit into one message, and batches whose D and logits do not either.
const LARGE_HEAD: &str = "
name: large-head
seed: 5
data: {source: synth, kind: spoken-digits, samples: {train: 300, validation: 260, test: 0}}
modalities:
  image: {encoder: {kind: cnn, channels: [4]}}
  text: {encoder: {kind: text, width: 8, layers: 1, heads: 1}}
labels: 1500
head: {width: 400, optimizer: {kind: sgd, lr: 0.05, momentum: 0.9}}
schedule: {turns: 5, batch: 250}
checkpoints: {every: end}
";

/// The result of training one modality after the other on one thread, without coordinator, workers, turn machine or
/// computing ahead.
struct PlainLoop {
    losses: Vec<f64>,
    head: SharedHead<f32>,
    /// Parameters and buffers of each modality.
    encoders: Vec<Vec<(String, Vec<u32>)>>,
}

/// One modality in a plain loop.
struct Learner {
    data: Dataset,
    preprocessor: Preprocessor,
    encoder: Box<dyn Encoder>,
    optimizer: Optimizer,
    sampler: Sampler,
    steps: u64,
}

impl Learner {
    async fn new(job: &JobSpec, modality: &ModalitySpec) -> Self {
        let options = OpenOptions::new(antiphon_data::stores::LocalStores::shared());
        let open = Dataset::open(modality, &job.labels, Split::Train, job.seed, &options);
        let data = open.await.expect("a training split");
        let preprocessor = Preprocessor::fit(modality, &data).await.expect("samples that decode");
        let (width, name) = (job.head.width as usize, &modality.name);
        let (precision, shape) = (modality.precision, preprocessor.shape());
        let built = encoder::build(precision, &modality.encoder, shape, width, job.seed, name, &Device::Cpu);
        let encoder = built.expect("it fits");
        let rates = Rates::new(&modality.transfer, encoder.parameters()).expect("names of parameters");
        let optimizer = Optimizer::with_rates(&modality.optimizer, encoder.parameters(), &rates).expect("an optimizer");
        let sampler = Sampler::new(job.seed, name.clone(), data.len(), job.schedule.batch);
        Self { data, preprocessor, encoder, optimizer, sampler, steps: 0 }
    }

    fn step(&mut self, job: &JobSpec, modality: &ModalitySpec, head: &mut SharedHead<f32>, progress: Progress) -> f64 {
        let (_, indices) = self.sampler.batch_indices(self.steps);
        let value = |i: &u32| self.preprocessor.decode(&self.data.value(*i).expect("a value")).expect("it decodes");
        let input = BatchInput::stack(self.preprocessor.shape(), indices.iter().map(value).collect());
        let labels: Vec<u32> = indices.iter().map(|i| self.data.label(*i)).collect();
        let key =
            DropoutKey { seed: job.seed, modality: modality.name.clone(), step: self.steps, shard: MicroShard::WHOLE };
        // Frozen parameters are not modelled here: the additional gradients do not change those that are used.
        let forward = self.encoder.forward(&input, &Mode::Train(key, Frozen::none())).expect("features");
        let local = head.head().local_step(forward.matrix().expect("features"), &labels).expect("a step");
        let per_epoch = self.sampler.batches_per_epoch();
        let context = StepContext {
            lr_factor: factor(&job.head.optimizer.schedule, progress.epoch, progress.epochs),
            alpha: alpha(&decay(job), self.steps % per_epoch, per_epoch),
        };
        head.apply(&modality.name, &local.contribution, context).expect("a contribution that fits");
        head.end_turn();
        let gradients = encoder::backward(self.encoder.as_ref(), &forward, &local.feature_gradient).expect("gradients");
        let lr = modality.optimizer.lr * factor(&modality.optimizer.schedule, progress.epoch, progress.epochs);
        self.optimizer.step(self.encoder.parameters(), &gradients, lr).expect("finite gradients");
        self.encoder.commit(forward.pending);
        self.steps += 1;
        local.contribution.loss
    }

    fn state(&self) -> Vec<(String, Vec<u32>)> {
        let state = encoder::state(self.encoder.as_ref()).expect("its state").into_iter();
        let flat = |tensor: Tensor| tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("numbers");
        state.map(|(name, tensor)| (name, bits(&flat(tensor)))).collect()
    }
}

fn plain_loop(job: &JobSpec) -> PlainLoop {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut learners: Vec<Learner> =
        job.modalities.iter().map(|modality| runtime.block_on(Learner::new(job, modality))).collect();
    let longest = learners.iter().map(|learner| learner.sampler.batches_per_epoch()).max().expect("modalities");
    let turns_per_epoch = (longest * learners.len() as u64) as f64;
    let Length::Turns(turns) = job.schedule.length else { panic!("the jobs here are so many turns long") };
    let mut head = SharedHead::new(&job.head, job.labels.classes.count(), job.seed);
    let mut losses = Vec::new();
    for turn in 0..turns {
        let at = turn as usize % learners.len();
        let progress = Progress { epoch: turn as f64 / turns_per_epoch, epochs: turns as f64 / turns_per_epoch };
        losses.push(learners[at].step(job, &job.modalities[at], &mut head, progress));
    }
    PlainLoop { losses, head, encoders: learners.iter().map(Learner::state).collect() }
}

fn decay(spec: &JobSpec) -> Alpha {
    let ProjectionSpec::Rls { alpha, .. } = spec.head.projection else { panic!("the small job projects") };
    alpha
}

fn tensor(checkpoint: &Path, file: &str, name: &str) -> Vec<u32> {
    let bytes = std::fs::read(checkpoint.join(file)).expect("a file");
    let (arrays, _): (Arrays, Value) = tensors::decode(file, &bytes).expect("a sound file");
    bits(&arrays[name].data)
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Compares every loss and all bits of the last checkpoint of a run with those of a plain loop over the same job on one
/// thread.
fn assert_equal_to_plain_loop(job: &str, lines: &[Value]) {
    let spec = antiphon_core::spec::parse(job, "job.yaml", &[], &|_| None).expect("a job");
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    let plain = one_thread.install(|| plain_loop(&spec));

    let losses: Vec<u64> = lines
        .iter()
        .filter(|line| line["event"] == "step")
        .map(|line| line["loss"].as_f64().expect("a loss").to_bits())
        .collect();
    let expected: Vec<u64> = plain.losses.iter().map(|loss| loss.to_bits()).collect();
    assert!(!losses.is_empty());
    assert_eq!(losses, expected);

    let finished = lines.last().expect("a last line");
    let checkpoint = Path::new(finished["checkpoint"].as_str().expect("a checkpoint"));
    let head = plain.head.head();
    assert_eq!(tensor(checkpoint, "head.safetensors", "weight"), bits(head.weight().as_slice()));
    assert_eq!(tensor(checkpoint, "head.safetensors", "bias"), bits(head.bias()));
    let files = plain.head.to_files().expect("no turn is open");
    let projector = files.projector.tensors.iter().find(|t| t.name == "projector").expect("a projector");
    assert_eq!(tensor(checkpoint, "projector.safetensors", "projector"), bits(&projector.data));
    assert_eq!(plain.encoders.len(), spec.modalities.len());
    for (modality, state) in spec.modalities.iter().zip(&plain.encoders) {
        let file = format!("encoder-{}.safetensors", modality.name);
        assert!(!state.is_empty());
        for (name, numbers) in state {
            assert!(*numbers == tensor(checkpoint, &file, name), "{name} of {file} differs");
        }
    }
}

#[test]
fn the_distributed_run_equals_a_plain_loop_bit_for_bit() {
    let folder = folder_with_job();
    let (code, lines) = json_lines(folder.path(), &["run", "job.yaml"]);
    assert_eq!(code, Some(0), "{lines:#?}");
    assert_equal_to_plain_loop(SMALL_JOB, &lines);
}

#[test]
fn so_does_one_of_large_encoders_on_one_thread_and_on_two() {
    let folder = folder_with(LARGE_JOB);
    let run = |threads: &str| {
        let arguments = ["run", "job.yaml", "--format", "json", "--state", threads];
        let output = antiphon(folder.path(), &arguments).env("RAYON_NUM_THREADS", threads).output();
        let lines = parse_lines(&output.expect("the program starts"));
        assert_eq!(lines.last().expect("a last line")["state"], "succeeded", "{lines:#?}");
        lines
    };
    let (one, two) = (run("1"), run("2"));
    assert_eq!(one.last().expect("a last line")["digest"], two.last().expect("a last line")["digest"]);
    assert_equal_to_plain_loop(LARGE_JOB, &two);
}

#[test]
fn so_does_one_whose_head_is_sent_in_chunks() {
    let folder = folder_with(LARGE_HEAD);
    let (code, lines) = json_lines(folder.path(), &["run", "job.yaml"]);
    assert_eq!(code, Some(0), "{lines:#?}");
    assert_equal_to_plain_loop(LARGE_HEAD, &lines);
}

#[test]
fn threads_and_data_memory_do_not_change_the_digest() {
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
fn a_job_that_was_stopped_and_resumed_has_the_same_digest() {
    let folder = folder_with_job();
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);
    let half = run_to_end(folder.path(), &["run", "job.yaml", "--state", "resumed", "--set", "schedule.turns=25"]);
    assert_ne!(whole["digest"], half["digest"]);
    let resumed = run_to_end(folder.path(), &["run", "job.yaml", "--state", "resumed", "--resume"]);
    assert_eq!(whole["digest"], resumed["digest"]);
    assert_eq!(half["job"], resumed["job"]);

    let from = half["checkpoint"].as_str().expect("a checkpoint");
    let elsewhere = run_to_end(folder.path(), &["run", "job.yaml", "--state", "elsewhere", "--resume", from]);
    assert_eq!(whole["digest"], elsewhere["digest"]);
    let best = elsewhere["best"]["checkpoint"].as_str().expect("a best checkpoint");
    assert!(best.contains("elsewhere") && Path::new(best).join("manifest.json").exists(), "{best}");
}

/// Projectors with a memory, turns of several steps and orders that depend on earlier results are restored on resume.
#[test]
fn every_kind_of_state_survives_a_resume() {
    let folder = folder_with_job();
    let settings: [&[&str]; 3] = [
        &[
            "head.projection={kind: window, alpha: 0.1, turns: 6}",
            "schedule.turn_batches=2",
            "schedule.order=weak-first",
        ],
        &["head.projection={kind: rls, reset: epoch, apply_to: update}", "schedule.order={audio: 2}"],
        &[
            "head.projection=off",
            "head.optimizer={kind: adamw, lr: 1e-2, clip: 1.0}",
            "optimizer.schedule={kind: step, at: [1], factor: 0.1}",
        ],
    ];
    for (number, set) in settings.iter().enumerate() {
        let run = |state: &str, more: &[&str]| {
            let (whole, resumed) = (format!("whole-{number}"), format!("resumed-{number}"));
            let mut arguments = vec!["run", "job.yaml", "--state", if state == "whole" { &whole } else { &resumed }];
            set.iter().for_each(|set| arguments.extend(["--set", *set]));
            arguments.extend(more);
            run_to_end(folder.path(), &arguments)
        };
        let whole = run("whole", &[]);
        run("resumed", &["--set", "schedule.turns=31"]);
        let resumed = run("resumed", &["--resume"]);
        assert_eq!(whole["digest"], resumed["digest"], "{set:?}");
        assert_eq!(whole["evaluation"], resumed["evaluation"], "{set:?}");
    }
}

#[test]
fn an_interrupted_job_resumes_and_ends_in_the_same_bits() {
    let folder = folder_with_job();
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);

    let mut run = antiphon(folder.path(), &["run", "job.yaml", "--state", "killed", "--format", "json"])
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

    let resumed = run_to_end(folder.path(), &["run", "job.yaml", "--state", "killed", "--resume"]);
    assert_eq!(whole["digest"], resumed["digest"]);
}
