//! Which modality has which turn of an epoch. Pure functions of the schedule, the sizes of the data and the losses so
//! far.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::ModalityName;
use crate::spec::{ScheduleSpec, TurnOrder};

/// The turns of one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPlan {
    /// The turns of one cycle, in order; a modality with weight w is named w times.
    pub cycle: Vec<ModalityName>,
    /// The number of cycles.
    pub cycles: u64,
}

impl EpochPlan {
    /// Turns in the epoch.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.cycles * self.cycle.len() as u64
    }

    /// The modality of the `index`-th turn of the epoch; None after its end.
    #[must_use]
    pub fn modality(&self, index: u64) -> Option<&ModalityName> {
        if index >= self.turns() {
            return None;
        }
        self.cycle.get(usize::try_from(index % self.cycle.len() as u64).ok()?)
    }
}

/// The number of batches in one pass through `samples`. The last batch may be smaller.
#[must_use]
pub fn batches(samples: u64, batch: u32) -> u64 {
    samples.div_ceil(u64::from(batch))
}

/// Samples in the batch of a modality's `step`-th step, counted from 0 over all epochs.
#[must_use]
pub fn batch_size(samples: u64, batch: u32, step: u64) -> u64 {
    let position = step % batches(samples, batch).max(1);
    u64::from(batch).min(samples - (position * u64::from(batch)).min(samples))
}

/// Plans the next epoch. It ends when the modality that needs the most cycles has seen all its data once.
///
/// `modalities` are in the order of the job; `losses` are the mean training losses of the epoch before, empty in the
/// first.
#[must_use]
pub fn plan(
    schedule: &ScheduleSpec,
    modalities: &[ModalityName],
    samples: &BTreeMap<ModalityName, u64>,
    losses: &BTreeMap<ModalityName, f64>,
) -> EpochPlan {
    let weight = |name: &ModalityName| match &schedule.order {
        TurnOrder::Weighted(weights) => weights.get(name).copied().unwrap_or(1).max(1),
        TurnOrder::Cyclic | TurnOrder::WeakFirst => 1,
    };
    let mut order: Vec<&ModalityName> = modalities.iter().collect();
    if schedule.order == TurnOrder::WeakFirst {
        // A stable sort: modalities with the same loss, and all of them in the first epoch, keep the order of the job.
        let loss = |name: &ModalityName| losses.get(name).copied().unwrap_or(0.0);
        order.sort_by(|a, b| loss(b).total_cmp(&loss(a)));
    }
    let most = order.iter().map(|name| weight(name)).max().unwrap_or(0);
    // Round by round. A modality with several turns does not have them in a row, so that others can compute in between.
    let cycle = (0..most)
        .flat_map(|round| order.iter().filter(move |name| weight(name) > round).map(|name| (*name).clone()))
        .collect();
    let cycles = modalities
        .iter()
        .map(|name| {
            let per_cycle = u64::from(schedule.turn_batches) * u64::from(weight(name));
            batches(samples.get(name).copied().unwrap_or(0), schedule.batch).div_ceil(per_cycle)
        })
        .max()
        .unwrap_or(0);
    EpochPlan { cycle, cycles }
}

#[cfg(test)]
mod tests {
    use super::super::SplitSizes;
    use super::super::testing::*;
    use super::*;
    use crate::spec::{Length, ScheduleMode};

    fn name(text: &str) -> ModalityName {
        ModalityName::try_from(text).expect("a good name")
    }

    fn schedule(order: TurnOrder, turn_batches: u32) -> ScheduleSpec {
        ScheduleSpec {
            length: Length::Epochs(1),
            order,
            mode: ScheduleMode::Pipelined,
            batch: 10,
            turn_batches,
            micro_shards: 1,
            lease_ttl: 15.0,
            turn_deadline: 300.0,
        }
    }

    fn sizes(sizes: &[(&str, u64)]) -> (Vec<ModalityName>, BTreeMap<ModalityName, u64>) {
        (sizes.iter().map(|(n, _)| name(n)).collect(), sizes.iter().map(|(n, s)| (name(n), *s)).collect())
    }

    fn turns(plan: &EpochPlan) -> String {
        (0..plan.turns()).filter_map(|i| plan.modality(i)).map(|m| &m.as_str()[..1]).collect()
    }

    #[test]
    fn an_epoch_is_one_pass_of_the_longest_modality() {
        let (order, samples) = sizes(&[("audio", 25), ("image", 11)]);
        assert_eq!(turns(&plan(&schedule(TurnOrder::Cyclic, 1), &order, &samples, &BTreeMap::new())), "aiaiai");
        assert_eq!(turns(&plan(&schedule(TurnOrder::Cyclic, 2), &order, &samples, &BTreeMap::new())), "aiai");
    }

    #[test]
    fn weighted_turns_are_spread_over_the_cycle() {
        let (order, samples) = sizes(&[("audio", 60), ("image", 10), ("text", 10)]);
        let weights = TurnOrder::Weighted([(name("audio"), 3), (name("text"), 2)].into());
        assert_eq!(turns(&plan(&schedule(weights, 1), &order, &samples, &BTreeMap::new())), "aitataaitata");
    }

    #[test]
    fn the_weakest_goes_first_and_ties_keep_the_order_of_the_job() {
        let (order, samples) = sizes(&[("audio", 10), ("image", 10), ("text", 10)]);
        let losses = [(name("audio"), 0.5), (name("image"), 0.9), (name("text"), 0.5)].into();
        assert_eq!(turns(&plan(&schedule(TurnOrder::WeakFirst, 1), &order, &samples, &losses)), "iat");
        assert_eq!(turns(&plan(&schedule(TurnOrder::WeakFirst, 1), &order, &samples, &BTreeMap::new())), "ait");
    }

    #[test]
    fn a_new_order_of_turns_applies_from_the_next_epoch() {
        let samples = SplitSizes { train: 20, validation: 0, test: 0 };
        let spec = |order| {
            let mut spec = job(&["audio", "image"]);
            spec.schedule.length = Length::Epochs(3);
            spec.schedule.order = order;
            spec
        };
        let mut before = running(spec(TurnOrder::Cyclic), samples);
        for _ in 0..5 {
            contribute(&mut before, 10);
        }
        assert_eq!((before.position().epoch, before.position().turn_in_epoch), (1, 1));
        let weighted = TurnOrder::Weighted([(name("image"), 2)].into());
        let mut now = resumed(spec(weighted), before.position().clone());
        prepare_all(&mut now, samples);
        let mut whose = String::new();
        while let Some(holder) = now.holder() {
            whose.push_str(&holder.as_str()[..1]);
            contribute(&mut now, 10);
        }
        assert_eq!(whose, "iaiaiiaii", "three turns, and an epoch of two cycles of three");
    }

    #[test]
    fn batch_sizes_add_up_to_the_samples() {
        for samples in 1..50_u64 {
            for batch in 1..20_u32 {
                let n = batches(samples, batch);
                let sum: u64 = (0..n).map(|step| batch_size(samples, batch, step)).sum();
                assert_eq!(sum, samples);
                assert_eq!(batch_size(samples, batch, n), batch_size(samples, batch, 0), "the next epoch starts over");
            }
        }
    }
}
