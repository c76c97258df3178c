//! The length of a job, the order of its turns, and its timeouts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ModalitySpec;
use crate::ids::ModalityName;

/// How long a job trains, and in which order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// When training ends.
    pub length: Length,
    /// Which modality has the next turn.
    pub order: TurnOrder,
    /// Which work may run at the same time. Bits do not depend on it.
    #[serde(default)]
    pub mode: ScheduleMode,
    /// B, samples per step.
    pub batch: u32,
    /// k, steps per turn.
    pub turn_batches: u32,
    /// Micro-shards of a batch, whatever the number of workers. Bits depend on it.
    pub micro_shards: u32,
    /// Seconds without a heartbeat after which a worker's lease expires.
    #[serde(default = "ScheduleSpec::default_lease_ttl")]
    pub lease_ttl: f64,
    /// Seconds without progress after which the lease of a worker that has work to do expires.
    #[serde(default = "ScheduleSpec::default_turn_deadline")]
    pub turn_deadline: f64,
}

/// When training ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// After this many epochs of the job.
    Epochs(u64),
    /// After this many turns. 0 writes the initial state and ends.
    Turns(u64),
}

/// Which work may run at the same time. The bits of a run are the same either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleMode {
    /// All encoders compute at the same time; only the steps of the head are in turn order.
    #[default]
    Pipelined,
    /// One modality after the other, each to the end of its turn. It is the baseline for pipelining.
    Sequential,
}

impl ScheduleSpec {
    fn default_lease_ttl() -> f64 {
        15.0
    }

    fn default_turn_deadline() -> f64 {
        300.0
    }

    /// Turns in a cycle of these modalities: one each, or as many as `order` gives them.
    #[must_use]
    pub fn turns_per_cycle(&self, modalities: &[ModalitySpec]) -> u64 {
        let turns = |name: &ModalityName| match &self.order {
            TurnOrder::Weighted(turns) => turns.get(name).copied().unwrap_or(1).max(1),
            TurnOrder::Cyclic | TurnOrder::WeakFirst => 1,
        };
        modalities.iter().map(|modality| u64::from(turns(&modality.name))).sum()
    }
}

impl ScheduleMode {
    /// As a job file spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pipelined => "pipelined",
            Self::Sequential => "sequential",
        }
    }
}

/// Which modality has the next turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnOrder {
    /// In the order of the job.
    Cyclic,
    /// By training loss in the previous epoch, the highest first; the first epoch is cyclic.
    WeakFirst,
    /// The turns of each modality in a cycle; a modality that is not named has one.
    Weighted(BTreeMap<ModalityName, u32>),
}
