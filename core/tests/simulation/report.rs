//! What a job did, as far as it must not depend on timing, and the first difference between two reports.

use std::collections::BTreeMap;
use std::fmt;

use antiphon_core::head::SharedHead;
use antiphon_core::ids::{HeadVersion, ModalityName, Split, Turn};
use antiphon_core::turn::{Outcome, Position};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A hash of numbers' bits, shortened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Digest(u64);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The hash of the bits of these numbers, and of a note.
pub(crate) fn digest(numbers: impl IntoIterator<Item = f32>, note: &str) -> Digest {
    let mut hash = Sha256::new();
    let bytes: Vec<u8> = numbers.into_iter().flat_map(|number| number.to_bits().to_le_bytes()).collect();
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(&bytes);
    hash.update(note.as_bytes());
    let whole: [u8; 32] = hash.finalize().into();
    let (first, _) = whole.split_first_chunk().expect("a hash has more than eight bytes");
    Digest(u64::from_le_bytes(*first))
}

/// The digests of all files of a job, by name.
pub(crate) type State = BTreeMap<String, Digest>;

/// The files of the shared head: `head`, `state` (its optimizer) and `projector`.
pub(crate) fn head_state(head: &SharedHead<f32>) -> Result<State, String> {
    let files = head.to_files().map_err(|error| error.to_string())?;
    let files = [("head", files.head), ("state", files.state), ("projector", files.projector)];
    let hash = |file: antiphon_core::head::TensorFile<f32>| {
        let names: Vec<&str> = file.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let note = format!("{names:?} {}", file.note);
        digest(file.tensors.iter().flat_map(|tensor| tensor.data.iter().copied()), &note)
    };
    Ok(files.into_iter().map(|(name, file)| (name.to_owned(), hash(file))).collect())
}

/// A step of the shared head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepRecord {
    pub(crate) turn: Turn,
    pub(crate) step: u32,
    pub(crate) modality: ModalityName,
    /// After the step.
    pub(crate) version: HeadVersion,
    /// The bits of the loss.
    pub(crate) loss: u64,
    /// W and b after the step.
    pub(crate) head: Digest,
}

impl StepRecord {
    pub(crate) fn new(turn: Turn, step: u32, modality: &ModalityName, loss: f64, head: &SharedHead<f32>) -> Self {
        let numbers = head.head().weight().as_slice().iter().chain(head.head().bias()).copied();
        Self {
            turn,
            step,
            modality: modality.clone(),
            version: head.version(),
            loss: loss.to_bits(),
            head: digest(numbers, ""),
        }
    }
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvaluationRecord {
    /// Turns applied.
    pub(crate) turn: Turn,
    pub(crate) split: Split,
    /// The bits of the score.
    pub(crate) score: u64,
}

/// A checkpoint that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointRecord {
    pub(crate) turn: Turn,
    /// The bits of the validation score of this state, if it was evaluated.
    pub(crate) score: Option<u64>,
    pub(crate) state: State,
}

/// What a job did.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) steps: Vec<StepRecord>,
    pub(crate) evaluations: Vec<EvaluationRecord>,
    pub(crate) checkpoints: Vec<CheckpointRecord>,
    pub(crate) outcome: Option<Outcome>,
    /// The best validation score of a checkpoint, and its turn.
    pub(crate) best: Option<(f64, Turn)>,
    /// Turns, steps of the head, complete epochs, and turns of the current epoch.
    pub(crate) counts: [u64; 4],
    pub(crate) state: State,
}

/// The hash of a text.
pub(crate) fn digest_of(text: &str) -> Digest {
    digest([], text)
}

/// The counts of a position that are compared.
pub(crate) fn counts(position: &Position) -> [u64; 4] {
    [position.turn.0, position.head_version.0, position.epoch, position.turn_in_epoch]
}

impl Report {
    /// Removes everything after the checkpoint from which the job resumes.
    pub(crate) fn go_back(&mut self, position: Option<&Position>) {
        let (version, turn) = position.map_or((0, None), |at| (at.head_version.0, Some(at.turn)));
        self.steps.truncate(version as usize);
        // The evaluation of the test split follows the last checkpoint.
        self.evaluations
            .retain(|it| turn.is_some_and(|turn| it.turn < turn || it.turn == turn && it.split == Split::Validation));
    }

    /// The first difference between this report and the expected one.
    pub(crate) fn differs_from(&self, expected: &Report) -> Option<String> {
        first_difference("step", &self.steps, &expected.steps)
            .or_else(|| first_difference("evaluation", &self.evaluations, &expected.evaluations))
            .or_else(|| first_difference("checkpoint", &self.checkpoints, &expected.checkpoints))
            .or_else(|| file("the outcome", &self.outcome, &expected.outcome))
            .or_else(|| file("the best checkpoint", &self.best, &expected.best))
            .or_else(|| file("turns, steps, epochs, turns in epoch", &self.counts, &expected.counts))
            .or_else(|| file("the final state", &self.state, &expected.state))
    }
}

fn first_difference<T: PartialEq + fmt::Debug>(what: &str, ours: &[T], theirs: &[T]) -> Option<String> {
    let at = (0..ours.len().max(theirs.len())).find(|i| ours.get(*i) != theirs.get(*i))?;
    file(&format!("{what} {at} (from 0)"), &ours.get(at), &theirs.get(at))
}

fn file<T: PartialEq + fmt::Debug>(what: &str, ours: &T, theirs: &T) -> Option<String> {
    (ours != theirs).then(|| format!("{what}\n  simulated: {ours:?}\n  naive:     {theirs:?}"))
}

/// The score of an evaluation: the fraction of samples whose label has the greatest sum of logits over their
/// modalities, in byte order of the modalities' names.
pub(crate) fn score(answers: &BTreeMap<ModalityName, Vec<crate::learner::Logits>>) -> f64 {
    let mut sums: BTreeMap<u64, (u32, Vec<f32>)> = BTreeMap::new();
    for sample in answers.values().flatten() {
        let (_, sum) = sums.entry(sample.id).or_insert_with(|| (sample.label, vec![0.0; sample.values.len()]));
        for (sum, value) in sum.iter_mut().zip(&sample.values) {
            *sum += value;
        }
    }
    let correct = sums.values().filter(|(label, sum)| antiphon_core::linalg::argmax(sum) == *label as usize).count();
    correct as f64 / sums.len().max(1) as f64
}
