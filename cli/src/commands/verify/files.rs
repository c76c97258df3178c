//! Compares every file of a checkpoint with the manifest, and with the job in the manifest.

use std::collections::BTreeMap;

use antiphon_core::files::{self, HEAD, HEAD_STATE, PROJECTOR};
use antiphon_core::head::{self, HeadFiles, HeadFilesError, NamedTensor, SharedHead};
use antiphon_core::ids::ModalityName;
use antiphon_core::spec::{JobSpec, ModalitySpec, Precision};
use antiphon_core::turn::Position;
use antiphon_model::custom::Encoders;
use antiphon_model::device::Device;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, MANIFEST};
use antiphon_store::retry::Transient as _;
use antiphon_store::storage;
use antiphon_store::tensors::{self, Array, Arrays};
use antiphon_worker::trainer::{Machine, Model, check_state};
use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::verdict::{State, Verdict};

/// The files of the head.
const OF_HEAD: [&str; 3] = [HEAD, HEAD_STATE, PROJECTOR];

/// Damage found so far, by the name of the file.
#[derive(Debug, Default)]
struct Damage {
    wrong: BTreeMap<String, (State, String)>,
    /// The store's error after all retries. Once it is set, no other file is requested.
    store_error: Option<String>,
}

impl Damage {
    fn insert(&mut self, file: String, reason: String) {
        self.wrong.insert(file, (State::Damaged, reason));
    }

    fn insert_unreadable(&mut self, file: String, reason: String) {
        self.wrong.insert(file, (State::Unreadable, reason));
    }
}

/// Checks the manifest, every file that it names, and every file that it should name. Verdicts are in the order of
/// names.
pub(super) async fn check(checkpoint: &Checkpoint, encoders: &Encoders) -> Vec<Verdict> {
    let manifest = checkpoint.manifest();
    let mut damage = Damage::default();
    let machine = Machine { device: Device::Cpu, encoders: encoders.clone() };
    let mut expected: Vec<String> = manifest.files.keys().cloned().collect();
    match job_of(checkpoint) {
        Ok((job, position)) => {
            if position.turn != manifest.turn {
                let reason = format!("its turn is {}, but its state belongs to turn {}", manifest.turn, position.turn);
                damage.insert(MANIFEST.to_owned(), reason);
            }
            expected = files_of(&job);
            check_head(checkpoint, &job, &position, &mut damage).await;
            for modality in &job.modalities {
                check_modality(checkpoint, &job, (modality, &machine), &position, &mut damage).await;
            }
            for name in manifest.files.keys().filter(|name| !expected.contains(name)) {
                damage.insert(name.clone(), "the job has no such file".to_owned());
            }
        }
        // Without a valid job, files can be decoded but not compared with the job.
        Err(reason) => {
            damage.insert(MANIFEST.to_owned(), reason);
            for name in &expected {
                read::<IgnoredAny>(checkpoint, name, &mut damage).await;
            }
        }
    }
    let mut names = [vec![MANIFEST.to_owned()], expected, manifest.files.keys().cloned().collect()].concat();
    names.sort();
    names.dedup();
    let verdict = |name: String| {
        let entry = manifest.files.get(&name);
        let (state, reason) =
            damage.wrong.remove(&name).map_or((State::Sound, None), |(state, reason)| (state, Some(reason)));
        let (size, sha256) = (entry.map(|entry| entry.size), entry.map(|entry| entry.sha256));
        Verdict { size, sha256, sound: state == State::Sound, state, reason, file: name }
    };
    names.into_iter().map(verdict).collect()
}

/// The job in the manifest, and its position in the training.
fn job_of(checkpoint: &Checkpoint) -> Result<(JobSpec, Position), String> {
    let manifest = checkpoint.manifest();
    let mut job = JobSpec::from_json(&manifest.specification.to_string()).map_err(|error| error.to_string())?;
    for modality in &mut job.modalities {
        // Files hold f32, whatever the precision of training, and the processor computes in f32 only.
        modality.precision = Precision::F32;
    }
    let position: Position =
        serde_json::from_value(manifest.state.clone()).map_err(|error| format!("cannot read its position: {error}"))?;
    if position.turn != manifest.turn {
        return Err(format!("its turn is {}, but the turn of its position is {}", manifest.turn, position.turn));
    }
    Ok((job, position))
}

fn files_of(job: &JobSpec) -> Vec<String> {
    let of_modality = job
        .modalities
        .iter()
        .flat_map(|modality| [files::encoder(&modality.name), files::encoder_state(&modality.name)]);
    OF_HEAD.map(str::to_owned).into_iter().chain(of_modality).collect()
}

/// Fetches and decodes a file: its tensors and its note. None if it is damaged or unreadable.
async fn read<N: DeserializeOwned>(
    checkpoint: &Checkpoint,
    name: &str,
    damage: &mut Damage,
) -> Option<(Bytes, Arrays, N)> {
    let bytes = fetch(checkpoint, name, damage).await?;
    let read = bytes.and_then(|bytes| {
        let (arrays, note) = tensors::decode(name, &bytes).map_err(|error| error.to_string())?;
        match arrays.iter().find_map(|(tensor, array)| Some((tensor, not_finite(array)?))) {
            None => Ok((bytes, arrays, note)),
            Some((tensor, at)) => Err(format!("tensor `{tensor}` is infinite or NaN at element {at}")),
        }
    });
    read.map_err(|reason| damage.insert(name.to_owned(), reason)).ok()
}

/// Fetches a file. Returns its bytes or its damage; None if it is unreadable.
async fn fetch(checkpoint: &Checkpoint, name: &str, damage: &mut Damage) -> Option<Result<Bytes, String>> {
    if let Some(reason) = damage.store_error.clone().filter(|_| checkpoint.manifest().files.contains_key(name)) {
        damage.insert_unreadable(name.to_owned(), reason);
        return None;
    }
    match checkpoint.file(name).await {
        Err(CheckpointError::Request { source, .. }) if !matches!(source, object_store::Error::NotFound { .. }) => {
            let reason = storage::reason(&source);
            damage.store_error = source.is_transient().then(|| reason.clone());
            damage.insert_unreadable(name.to_owned(), reason);
            None
        }
        read => Some(read.map_err(full_message)),
    }
}

fn not_finite(array: &Array) -> Option<usize> {
    array.data.iter().position(|number| !number.is_finite())
}

/// The message without the URL of the file, because the name of the file is printed beside it.
fn full_message(error: CheckpointError) -> String {
    match error {
        CheckpointError::Damaged { what, given, expected, .. } => {
            format!("its {what} is {given}, but {expected} in the manifest")
        }
        CheckpointError::NoFile { .. } => "the manifest does not name it".to_owned(),
        CheckpointError::Request { source: object_store::Error::NotFound { .. }, .. } => "it is missing".to_owned(),
        other => other.to_string(),
    }
}

async fn check_head(checkpoint: &Checkpoint, job: &JobSpec, position: &Position, damage: &mut Damage) {
    let mut found = Vec::new();
    for name in OF_HEAD {
        let file = read::<String>(checkpoint, name, damage).await;
        found.extend(file.map(|(_, arrays, note)| head::TensorFile { tensors: named(arrays), note }));
    }
    // The three files together are one head. If one is damaged, the others cannot be compared with the job.
    let Ok([head, state, projector]) = <[head::TensorFile<f32>; 3]>::try_from(found) else { return };
    match SharedHead::from_files(&job.head, job.labels.classes.count(), &HeadFiles { head, state, projector }) {
        Ok(head) if head.version() != position.head_version => {
            let (found, expected) = (head.version(), position.head_version);
            let reason = format!("its head has taken {found} steps, but {expected} according to its position");
            damage.insert(HEAD_STATE.to_owned(), reason);
        }
        Ok(_) => {}
        Err(error) => {
            damage.insert(file_of(&error).to_owned(), error.to_string());
        }
    }
}

fn named(arrays: Arrays) -> Vec<NamedTensor<f32>> {
    arrays.into_iter().map(|(name, Array { shape, data })| NamedTensor { name, shape, data }).collect()
}

/// The file of the head that an error is about.
fn file_of(error: &HeadFilesError) -> &'static str {
    let tensor = match error {
        HeadFilesError::Missing { name }
        | HeadFilesError::Shape { name, .. }
        | HeadFilesError::NotFinite { name, .. } => name,
        HeadFilesError::Note { file: "projector", .. } => return PROJECTOR,
        HeadFilesError::Note { .. } | HeadFilesError::TurnOpen { .. } => return HEAD_STATE,
    };
    match tensor.as_str() {
        "weight" | "bias" => HEAD,
        "projector" | "window" => PROJECTOR,
        _ => HEAD_STATE,
    }
}

async fn check_modality(
    checkpoint: &Checkpoint,
    job: &JobSpec,
    (modality, machine): (&ModalitySpec, &Machine),
    position: &Position,
    damage: &mut Damage,
) {
    let (encoder, state) = (files::encoder(&modality.name), files::encoder_state(&modality.name));
    let model = read::<IgnoredAny>(checkpoint, &encoder, damage).await.and_then(|(bytes, ..)| {
        let model = Model::from_file(job, modality, &bytes, machine);
        model.map_err(|error| damage.insert(encoder, antiphon_process::full_message(&error))).ok()
    });
    let state_bytes = read::<IgnoredAny>(checkpoint, &state, damage).await.map(|(bytes, ..)| bytes);
    let (Some(model), Some(bytes)) = (model, state_bytes) else { return };
    let reason = match check_state(modality, &model, &bytes) {
        Ok(steps) => other_steps(steps, &modality.name, position),
        Err(error) => Some(antiphon_process::full_message(&error)),
    };
    if let Some(reason) = reason {
        damage.insert(state, reason);
    }
}

fn other_steps(steps: u64, modality: &ModalityName, position: &Position) -> Option<String> {
    let expected = position.steps_done.get(modality).copied().unwrap_or(0);
    (steps != expected).then(|| {
        format!(
            "its encoder has taken {steps} steps, but {expected} according to its \
             position"
        )
    })
}
