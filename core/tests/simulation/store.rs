//! The simulated store: checkpoints, and the fence against replaced coordinators.

use std::collections::BTreeMap;
use std::rc::Rc;

use antiphon_core::head::HeadFiles;
use antiphon_core::ids::{ModalityName, Term, Turn};
use antiphon_core::turn::Position;

use crate::bugs::Bug;
use crate::learner::Learner;
use crate::naive::Naive;
use crate::report::{CheckpointRecord, State};

/// A manifest, with the head's files.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) term: Term,
    pub(crate) position: Position,
    pub(crate) score: Option<f64>,
    pub(crate) head: HeadFiles<f32>,
    /// The hashes of all files.
    pub(crate) state: State,
}

impl Manifest {
    pub(crate) fn turn(&self) -> Turn {
        self.position.turn
    }
}

/// Checkpoints of one job.
pub(crate) struct Store {
    naive: Rc<Naive>,
    bug: Option<Bug>,
    keep: usize,
    /// The newest term so far. No coordinator of an older term can write a manifest.
    fence: Term,
    manifests: BTreeMap<Turn, Manifest>,
    files: BTreeMap<(Turn, ModalityName), Learner>,
    /// Every checkpoint that was ever written.
    pub(crate) log: Vec<CheckpointRecord>,
}

impl Store {
    pub(crate) fn new(naive: Rc<Naive>, keep: u32, bug: Option<Bug>) -> Self {
        let (manifests, files) = (BTreeMap::new(), BTreeMap::new());
        Self { naive, bug, keep: keep as usize, fence: Term(0), manifests, files, log: Vec::new() }
    }

    /// A coordinator takes over: older ones can no longer write.
    pub(crate) fn begin(&mut self, term: Term) -> Option<&Manifest> {
        self.fence = term;
        self.newest()
    }

    pub(crate) fn newest(&self) -> Option<&Manifest> {
        self.manifests.last_key_value().map(|(_, manifest)| manifest)
    }

    /// Stores a worker's files. A worker that writes them again must write the same bits.
    pub(crate) fn put_encoder(&mut self, turn: Turn, encoder: &Learner) -> Result<(), String> {
        let (name, digest) = (encoder.name(), encoder.digest());
        let expected = self.naive.states.get(turn.0 as usize).and_then(|state| state.get(&format!("encoder-{name}")));
        if expected != Some(&digest) {
            return Err(format!("encoder `{name}` of checkpoint {turn} is {digest:?} and should be {expected:?}"));
        }
        self.files.insert((turn, name.clone()), encoder.clone());
        Ok(())
    }

    /// A worker loads its encoder, which may have been removed in the meantime.
    pub(crate) fn encoder(&self, turn: Turn, modality: &ModalityName) -> Option<&Learner> {
        self.manifests.get(&turn)?;
        self.files.get(&(turn, modality.clone()))
    }

    /// Writes a manifest. False says that another coordinator is the leader, and nothing was written.
    pub(crate) fn complete(&mut self, manifest: &Manifest) -> Result<bool, String> {
        let turn = manifest.turn();
        if manifest.term < self.fence {
            if self.bug != Some(Bug::StoreTakesOldTerms) {
                return Ok(false);
            }
            self.manifests.insert(turn, manifest.clone());
            return Err(format!("a manifest of term {} was written in term {}", manifest.term, self.fence));
        }
        if self.manifests.contains_key(&turn) {
            return Err(format!("checkpoint {turn} was completed twice"));
        }
        for (name, digest) in &manifest.state {
            if let Some(modality) = name.strip_prefix("encoder-") {
                let of = |((at, encoder), _): &(&(Turn, ModalityName), &Learner)| {
                    *at == turn && encoder.as_str() == modality
                };
                let stored = self.files.iter().find(of).map(|(_, encoder)| encoder.digest());
                if stored != Some(*digest) {
                    return Err(format!("checkpoint {turn} names `{name}` {digest:?}, and there is {stored:?}"));
                }
            }
        }
        let score = manifest.score.map(f64::to_bits);
        let record = CheckpointRecord { turn, score, state: manifest.state.clone() };
        let expected = self.naive.checkpoint(turn);
        if expected.as_ref() != Some(&record) {
            return Err(format!("checkpoint {turn}\n  simulated: {record:?}\n  naive:     {expected:?}"));
        }
        self.log.push(record);
        self.manifests.insert(turn, manifest.clone());
        self.retain(manifest.position.best.map(|(_, turn)| turn));
        Ok(true)
    }

    /// Retains the newest checkpoints and the best.
    fn retain(&mut self, best: Option<Turn>) {
        let newest: Vec<Turn> = self.manifests.keys().rev().take(self.keep).copied().collect();
        let oldest = newest.last().copied().unwrap_or_default();
        self.manifests.retain(|turn, _| newest.contains(turn) || Some(*turn) == best);
        let (manifests, files) = (&self.manifests, &mut self.files);
        files.retain(|(turn, _), _| *turn > oldest || manifests.contains_key(turn));
    }
}
