//! Pairs the training samples of the modalities by id.

use antiphon_core::ids::ModalityName;
use antiphon_core::join::{Join, JoinError, Row};

use super::learner::Opened;

/// Every sample that has at least one modality, in byte order of the ids. Memory use grows with their number.
#[derive(Debug)]
pub(super) struct Pairs {
    labels: Vec<u32>,
    /// Per modality and sample: the sample's index in the modality's split.
    indices: Vec<Vec<Option<u32>>>,
}

impl Pairs {
    /// Pairs by id, as an evaluation does.
    pub(super) fn of(modalities: &[Opened]) -> Result<Self, JoinError> {
        let names: Vec<ModalityName> = modalities.iter().map(|modality| modality.spec.name.clone()).collect();
        let mut join = Join::new(&names);
        for modality in modalities {
            let train = &modality.train;
            let row = |i: &u32| Row { id: train.id(*i).to_owned(), label: train.label(*i), logits: Vec::new() };
            join.push(&modality.spec.name, train.ids_in_order().iter().map(row).collect(), true)?;
        }
        let mut in_order: Vec<_> = modalities.iter().map(|modality| modality.train.ids_in_order().iter()).collect();
        let mut pairs = Self { labels: Vec::new(), indices: vec![Vec::new(); modalities.len()] };
        while let Some(sample) = join.next_sample()? {
            pairs.labels.push(sample.label);
            for ((own, left), has) in pairs.indices.iter_mut().zip(&mut in_order).zip(&sample.logits) {
                own.push(has.as_ref().and_then(|_| left.next().copied()));
            }
        }
        Ok(pairs)
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(super) fn label(&self, sample: u32) -> u32 {
        self.labels[sample as usize]
    }

    /// The sample's index in the split of modality `m`, if it has that modality.
    pub(super) fn index(&self, m: usize, sample: u32) -> Option<u32> {
        self.indices[m][sample as usize]
    }

    /// The rows of a batch that have modality `m`.
    pub(super) fn rows_with(&self, m: usize, batch: &[u32]) -> Vec<usize> {
        (0..batch.len()).filter(|row| self.index(m, batch[*row]).is_some()).collect()
    }
}
