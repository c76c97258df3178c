//! Training that starts from pretrained weights: frozen parameters do not change, and a checkpoint does not need the
//! file.

use std::collections::BTreeMap;
use std::path::Path;

use antiphon_core::head::Head;
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{JobSpec, Override, parse};
use antiphon_core::turn::Progress;
use antiphon_data::{OpenOptions, PrefetchOptions};
use antiphon_model::custom::Encoders;
use antiphon_model::device::Device;
use antiphon_model::weights::Cache;
use antiphon_process::full_message;
use antiphon_store::tensors::{self, Arrays};
use antiphon_worker::trainer::{Machine, Options, TrainError, Trainer};

/// Compares the message with the golden file.
fn check(name: &str, message: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/worker/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, format!("{message}\n")).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(message, expected.trim_end(), "{name}: run with UPDATE=1 and look at the difference if this is meant");
}

const JOB: &str = "
name: t
data: {source: synth, kind: features, samples: {train: 40, validation: 0, test: 0}}
modalities: {a: {encoder: {kind: mlp, hidden: [6, 5]}, optimizer: {kind: adamw, lr: 0.01}}}
labels: 10
head: {width: 4}
schedule: {epochs: 1, batch: 10}
";

fn job(options: &str) -> JobSpec {
    let set: Vec<Override> =
        options.split_whitespace().map(|set| format!("modalities.a.{set}").as_str().into()).collect();
    parse(JOB, "job", &set, &|_| None).expect("a good job")
}

async fn trainer(job: &JobSpec) -> Result<Trainer, TrainError> {
    let options = Options {
        prefetch: PrefetchOptions::default(),
        data: OpenOptions::new(antiphon_worker::stores()),
        machine: Machine { device: Device::Cpu, encoders: Encoders::default() },
    };
    Trainer::open(job, &"a".try_into().expect("a name"), options).await
}

fn step(trainer: &mut Trainer, steps: usize) {
    let weight = Matrix::from_vec(10, 4, (0..40).map(|i| (i * 7 % 11) as f32 / 11.0 - 0.5).collect()).expect("as many");
    let head = Head::new(weight, vec![0.0; 10]).expect("a head");
    for _ in 0..steps {
        trainer.contribute(&head).expect("good data");
        trainer.learn(&head, Progress { epoch: 0.0, epochs: 1.0 }).expect("finite");
    }
}

type Values = BTreeMap<String, Vec<f32>>;

/// The encoder's and the optimizer's tensors in a checkpoint.
fn kept(trainer: &Trainer) -> [Values; 2] {
    let mut files = trainer.files().expect("files").into_iter();
    [(); 2].map(|()| {
        let (name, bytes) = files.next().expect("two");
        let (arrays, _): (Arrays, serde_json::Value) = tensors::decode(&name, &bytes).expect("a file");
        arrays.into_iter().map(|(name, array)| (name, array.data)).collect()
    })
}

#[tokio::test]
async fn an_encoder_starts_from_the_checkpoint_of_another_job() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut first = trainer(&job("")).await.expect("a job");
    step(&mut first, 3);
    let path = folder.path().join("encoder-a.safetensors");
    std::fs::write(&path, &first.files().expect("files")[0].1).expect("the folder is writable");
    let [learnt, _] = kept(&first);

    let cache = Cache::at(folder.path().join("cache"), antiphon_worker::stores());
    let loaded = |options: String| {
        let cache = cache.clone();
        async move {
            let mut trainer = trainer(&job(&options)).await.expect("a job");
            trainer.begin_from_weights(&cache).await.expect("it fits");
            trainer
        }
    };
    let from = format!("encoder.weights={}", path.display());
    let [begins, _] = kept(&loaded(from.clone()).await);
    assert_eq!(begins, learnt);

    let mut frozen = loaded(format!("{from} encoder.freeze=[layers.0.*,'*.bias']")).await;
    step(&mut frozen, 2);
    let [values, moments] = kept(&frozen);
    for (name, value) in &values {
        let stays = name.starts_with("layers.0.") || name.ends_with(".bias") || name.starts_with("input.");
        assert_eq!(*value == learnt[name], stays, "{name}");
    }
    let names: Vec<&str> = moments.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["mean.adapter.weight", "mean.layers.1.weight", "square.adapter.weight", "square.layers.1.weight"]
    );

    // The first step of AdamW has the length of the learning rate, whatever the gradient.
    let moved = async |options: String| {
        let mut trainer = loaded(options).await;
        step(&mut trainer, 1);
        let [after, _] = kept(&trainer);
        let largest =
            |name: &str| after[name].iter().zip(&learnt[name]).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        (largest("adapter.weight"), largest("layers.1.weight"))
    };
    let (adapter, layer) = moved(format!("{from} optimizer.weight_decay=0 encoder.adapter_lr=5")).await;
    assert!((adapter - 0.05).abs() < 1e-4 && (layer - 0.01).abs() < 1e-4, "{adapter} {layer}");
}

#[tokio::test]
async fn a_resumed_job_does_not_read_the_weights_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let job = job(&format!("encoder.weights={} encoder.freeze=layers.0.weight", folder.path().join("gone").display()));
    let mut first = trainer(&job).await.expect("nothing is read yet");
    step(&mut first, 2);
    let files = first.files().expect("files");
    let mut second = trainer(&job).await.expect("nothing is read yet");
    second.restore(&job, &files[0].1, &files[1].1).expect("its own files");
    step(&mut first, 2);
    step(&mut second, 2);
    assert_eq!(kept(&first), kept(&second));
    let error = second
        .begin_from_weights(&Cache::at(folder.path().to_owned(), antiphon_worker::stores()))
        .await
        .expect_err("there is no file");
    let folder = folder.path().display().to_string();
    check("trainer", &full_message(&error).replace(&folder, "FOLDER"));
}

#[tokio::test]
async fn a_pattern_that_names_nothing_is_refused() {
    let error = trainer(&job("encoder.freeze=layer.0.*")).await.err().expect("there is no such parameter");
    check("freeze", &full_message(&error));
}
