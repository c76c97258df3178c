//! The samples of a split, with the logits of every modality that they have.

use std::collections::VecDeque;

use antiphon_core::ids::{EvaluationId, ModalityName};
use antiphon_core::join::{Join, JoinError, Row};
use antiphon_data::UNLABELLED;
use antiphon_worker::trainer::{Chunk, Pass};

use super::error::PredictorError;
use super::model::{Modality, Predictor, Ready};

/// One sample, with the logits of its modalities.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Id of the sample.
    pub id: String,
    /// The class, if it is known.
    pub label: Option<u32>,
    /// Z (C) of each modality, in the order of the job; None if the modality is missing or dropped.
    pub logits: Vec<Option<Vec<f32>>>,
}

/// An iterator over a split. It ends after an error.
pub struct Samples<'a> {
    join: Join,
    streams: Vec<Stream<'a>>,
    modalities: usize,
    rows: u64,
    failed: bool,
}

/// The logits of one modality.
struct Stream<'a> {
    name: ModalityName,
    /// Index of the modality in the job.
    position: usize,
    ready: &'a Ready,
    pass: Pass,
    /// Labels of the rows in the join. They are optional, so the join does not receive them.
    labels: VecDeque<u32>,
}

impl Predictor {
    /// Every sample that has at least one modality, in byte order of the ids.
    #[must_use]
    pub fn samples(&self) -> Samples<'_> {
        Samples::new(self)
    }
}

impl<'a> Samples<'a> {
    fn new(predictor: &'a Predictor) -> Self {
        let stream = |(position, modality): (usize, &'a Modality)| {
            let ready = modality.ready.as_ref()?;
            let head = predictor.head.clone();
            let data = (!ready.data.is_empty()).then_some(&ready.data);
            let pass = Pass::new(EvaluationId(0), head, data, &ready.model, predictor.chunk, predictor.prefetch);
            Some(Stream { name: modality.name.clone(), position, ready, pass, labels: VecDeque::new() })
        };
        let streams: Vec<Stream<'a>> = predictor.modalities.iter().enumerate().filter_map(stream).collect();
        let names: Vec<ModalityName> = streams.iter().map(|stream| stream.name.clone()).collect();
        Self { join: Join::new(&names), streams, modalities: predictor.modalities.len(), rows: 0, failed: false }
    }

    /// Number of rows read so far, out of [`Predictor::rows`].
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn advance(&mut self) -> anyhow::Result<Option<Sample>> {
        loop {
            if let Some(joined) = self.join.next_sample()? {
                let mut logits = vec![None; self.modalities];
                for (stream, own) in self.streams.iter().zip(joined.logits) {
                    logits[stream.position] = own;
                }
                let label = self.label(&joined.id, &logits)?;
                return Ok(Some(Sample { id: joined.id, label, logits }));
            }
            if self.join.is_finished() {
                return Ok(None);
            }
            let hungry: Vec<ModalityName> = self.join.hungry().cloned().collect();
            for stream in self.streams.iter_mut().filter(|stream| hungry.contains(&stream.name)) {
                let (rows, last) = stream.next_rows()?;
                self.rows += rows.len() as u64;
                self.join.push(&stream.name, rows, last)?;
            }
        }
    }

    /// The label that the modalities of a sample agree on.
    fn label(&mut self, id: &str, logits: &[Option<Vec<f32>>]) -> Result<Option<u32>, JoinError> {
        let mut known: Option<(u32, ModalityName)> = None;
        for stream in self.streams.iter_mut().filter(|stream| logits[stream.position].is_some()) {
            let label = stream.labels.pop_front().filter(|label| *label != UNLABELLED);
            match (label, &known) {
                (None, _) => {}
                (Some(label), None) => known = Some((label, stream.name.clone())),
                (Some(label), Some((other_label, _))) if label == *other_label => {}
                (Some(label), Some((other_label, other))) => {
                    let (other, other_label) = (other.clone(), *other_label);
                    return Err(JoinError::Labels {
                        id: id.to_owned(),
                        modality: stream.name.clone(),
                        label,
                        other,
                        other_label,
                    });
                }
            }
        }
        Ok(known.map(|(label, _)| label))
    }
}

impl Iterator for Samples<'_> {
    type Item = anyhow::Result<Sample>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

impl Stream<'_> {
    /// The rows of the next chunk, and whether it is the last.
    fn next_rows(&mut self) -> anyhow::Result<(Vec<Row>, bool)> {
        let Chunk { ids, labels, logits, last } = self.pass.next_chunk(&self.ready.model)?;
        self.labels.extend(labels);
        let mut rows = Vec::with_capacity(ids.len());
        for (id, logits) in ids.into_iter().zip(logits.iter().flat_map(|logits| logits.iter_rows())) {
            if let Some(class) = logits.iter().position(|z| !z.is_finite()) {
                return Err(PredictorError::NotFinite { modality: self.name.clone(), id, class }.into());
            }
            rows.push(Row { id, label: 0, logits: logits.to_vec() });
        }
        Ok((rows, last))
    }
}
