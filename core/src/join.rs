//! Pairing the modalities of a split: a merge join of streams of logits, each in ascending order of sample id.
//!
//! Memory holds one chunk per modality, however large the split. The outcome depends neither on the chunks of the
//! streams nor on which stream arrives first.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::ModalityName;

/// One modality's logits for one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The id of the sample, which pairs the modalities.
    pub id: String,
    /// The class, 0 .. C - 1.
    pub label: u32,
    /// Z, (C).
    pub logits: Vec<f32>,
}

/// One sample with the logits of its modalities.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The id that its rows share.
    pub id: String,
    /// The class, 0 .. C - 1.
    pub label: u32,
    /// Z of each modality in the order given to [`Join::new`]; none where the sample lacks it.
    pub logits: Vec<Option<Vec<f32>>>,
}

/// Why streams cannot be paired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Rows came for a modality that the join does not expect, or whose stream has ended.
    #[error(
        "logits of `{modality}` came, which the join does not expect or whose stream has ended; this is a bug in the sender"
    )]
    Unexpected {
        /// The modality.
        modality: ModalityName,
    },
    /// Ids are repeated or out of order.
    #[error("`{modality}` sent sample `{id}` after `{before}`; send samples in ascending order of id")]
    Order {
        /// The modality of the stream.
        modality: ModalityName,
        /// The id of the sample that is out of order.
        id: String,
        /// The id of the sample before it.
        before: String,
    },
    /// The same sample has two labels.
    #[error(
        "sample `{id}` is labelled {label} in `{modality}` and {other_label} in `{other}`: ids pair samples across \
         modalities, so their labels must agree"
    )]
    Labels {
        /// The sample.
        id: String,
        /// One of the two modalities.
        modality: ModalityName,
        /// Its label.
        label: u32,
        /// The other modality.
        other: ModalityName,
        /// Its label.
        other_label: u32,
    },
}

#[derive(Debug, Default)]
struct Stream {
    rows: VecDeque<Row>,
    last_id: Option<String>,
    ended: bool,
}

/// The join in progress.
#[derive(Debug)]
pub struct Join {
    order: Vec<ModalityName>,
    streams: BTreeMap<ModalityName, Stream>,
}

impl Join {
    /// Pairs these modalities.
    #[must_use]
    pub fn new(modalities: &[ModalityName]) -> Self {
        let streams = modalities.iter().map(|name| (name.clone(), Stream::default())).collect();
        Self { order: modalities.to_vec(), streams }
    }

    /// Adds the next rows of a modality; `last` ends its stream.
    ///
    /// # Errors
    /// The stream is not expected, or its rows are not in ascending order of id. Rejected rows change nothing.
    pub fn push(&mut self, modality: &ModalityName, rows: Vec<Row>, last: bool) -> Result<(), JoinError> {
        let unexpected = || JoinError::Unexpected { modality: modality.clone() };
        let stream = self.streams.get_mut(modality).filter(|s| !s.ended).ok_or_else(unexpected)?;
        let ids = stream.last_id.as_ref().into_iter().chain(rows.iter().map(|row| &row.id));
        let ids: Vec<&String> = ids.collect();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(JoinError::Order { modality: modality.clone(), id: pair[1].clone(), before: pair[0].clone() });
        }
        stream.last_id = rows.last().map(|row| row.id.clone()).or(stream.last_id.take());
        stream.rows.extend(rows);
        stream.ended = last;
        Ok(())
    }

    /// The modalities whose next rows the join needs before it can continue.
    pub fn hungry(&self) -> impl Iterator<Item = &ModalityName> {
        self.order.iter().filter(|name| self.streams.get(*name).is_some_and(|s| s.rows.is_empty() && !s.ended))
    }

    /// Whether every stream has ended and every row was paired.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.streams.values().all(|stream| stream.ended && stream.rows.is_empty())
    }

    /// The next sample in order of id; none while rows are missing.
    ///
    /// # Errors
    /// The modalities disagree on its label.
    pub fn next_sample(&mut self) -> Result<Option<Sample>, JoinError> {
        if self.hungry().next().is_some() {
            return Ok(None);
        }
        let Some(id) = self.streams.values().filter_map(|s| s.rows.front()).map(|row| &row.id).min().cloned() else {
            return Ok(None);
        };
        let mut label: Option<(u32, ModalityName)> = None;
        let mut logits = Vec::with_capacity(self.order.len());
        for name in &self.order {
            let row = self.streams.get_mut(name).and_then(|s| s.rows.pop_front_if(|row| row.id == id));
            if let Some(row) = &row {
                match &label {
                    Some((known, other)) if *known != row.label => {
                        return Err(JoinError::Labels {
                            id,
                            modality: name.clone(),
                            label: row.label,
                            other: other.clone(),
                            other_label: *known,
                        });
                    }
                    Some(_) => {}
                    None => label = Some((row.label, name.clone())),
                }
            }
            logits.push(row.map(|row| row.logits));
        }
        Ok(label.map(|(label, _)| Sample { id, label, logits }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ModalityName {
        ModalityName::try_from(text).expect("a good name")
    }

    fn row(id: u32, logit: f32) -> Row {
        Row { id: format!("{id:03}"), label: id % 3, logits: vec![logit] }
    }

    /// Feeds two streams in chunks of the given sizes, the one that needs rows first.
    fn join(a: &[u32], b: &[u32], chunk_a: usize, chunk_b: usize) -> Vec<Sample> {
        let (audio, image) = (name("audio"), name("image"));
        let mut join = Join::new(&[audio.clone(), image.clone()]);
        let (mut at_a, mut at_b) = (0, 0);
        let mut samples = Vec::new();
        while !join.is_finished() {
            let hungry: Vec<ModalityName> = join.hungry().cloned().collect();
            for modality in hungry {
                let (source, at, chunk) =
                    if modality == audio { (a, &mut at_a, chunk_a) } else { (b, &mut at_b, chunk_b) };
                let end = (*at + chunk).min(source.len());
                let rows = source[*at..end].iter().map(|id| row(*id, *id as f32)).collect();
                *at = end;
                join.push(&modality, rows, end == source.len()).expect("ascending rows");
            }
            while let Some(sample) = join.next_sample().expect("labels agree") {
                samples.push(sample);
            }
        }
        samples
    }

    #[test]
    fn the_outcome_does_not_depend_on_the_chunks() {
        let (a, b) = ([1, 2, 3, 7, 8, 20], [2, 3, 4, 5, 6, 9, 30, 31]);
        let whole = join(&a, &b, 100, 100);
        let ids: Vec<&str> = whole.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids, ["001", "002", "003", "004", "005", "006", "007", "008", "009", "020", "030", "031"]);
        assert_eq!(whole[0].logits, [Some(vec![1.0]), None]);
        assert_eq!(whole[1].logits, [Some(vec![2.0]), Some(vec![2.0])]);
        for (chunk_a, chunk_b) in [(1, 1), (1, 3), (2, 5), (6, 1)] {
            assert_eq!(join(&a, &b, chunk_a, chunk_b), whole);
        }
        assert!(join(&[], &[], 1, 1).is_empty());
    }

    #[test]
    fn labels_must_agree() {
        let (audio, image) = (name("audio"), name("image"));
        let mut join = Join::new(&[audio.clone(), image.clone()]);
        join.push(&audio, vec![row(1, 0.0)], true).expect("a first row");
        join.push(&image, vec![Row { label: 9, ..row(1, 0.0) }], true).expect("a first row");
        assert_eq!(
            join.next_sample().expect_err("1 is not 9").to_string(),
            "sample `001` is labelled 9 in `image` and 1 in `audio`: ids pair samples across modalities, so their \
             labels must agree"
        );
    }

    #[test]
    fn ids_must_ascend_across_chunks_and_streams_end_once() {
        let audio = name("audio");
        let mut join = Join::new(std::slice::from_ref(&audio));
        join.push(&audio, vec![row(1, 0.0), row(2, 0.0)], false).expect("ascending");
        assert!(matches!(join.push(&audio, vec![row(2, 0.0)], false), Err(JoinError::Order { .. })));
        join.push(&audio, vec![row(3, 0.0)], true).expect("the refused rows changed nothing");
        assert!(matches!(join.push(&audio, vec![], true), Err(JoinError::Unexpected { .. })));
        assert!(matches!(join.push(&name("video"), vec![], true), Err(JoinError::Unexpected { .. })));
    }
}
