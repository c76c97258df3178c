//! The table of times of a job.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use antiphon_core::ids::ModalityName;
use antiphon_core::times::{Account, CoordinatorTimes, Times, WorkerTimes};
use serde::Serialize;

/// The times of a job, as its last event reported them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Accounts {
    pub(crate) modalities: BTreeMap<ModalityName, Account<WorkerTimes>>,
    pub(crate) coordinator: Account<CoordinatorTimes>,
}

impl Accounts {
    /// The table: for each worker, shares of its time; for the coordinator, milliseconds per step.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from("where the time went\n");
        let names = WorkerTimes::default().entries().into_iter().map(|(name, _)| name.to_owned());
        row(&mut text, "", names.chain(["per step".to_owned()]));
        for (modality, account) in &self.modalities {
            let total = account.seconds.total().max(f64::MIN_POSITIVE);
            let shares = account.seconds.entries().into_iter().map(|(_, seconds)| percent(seconds / total));
            row(&mut text, modality.as_str(), shares.chain([milliseconds(total, account.steps)]));
        }
        let coordinator = self.coordinator.seconds.entries();
        row(&mut text, "", coordinator.iter().map(|(name, _)| (*name).to_owned()).chain(["per step".to_owned()]));
        let steps = self.coordinator.steps;
        let each = coordinator.iter().map(|(_, seconds)| milliseconds(*seconds, steps));
        row(&mut text, "head", each.chain([milliseconds(self.coordinator.seconds.total(), steps)]));
        text
    }
}

fn row(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let cells: String = cells.map(|cell| format!(" {cell:>11}")).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {name:<18}{cells}");
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn milliseconds(seconds: f64, steps: u64) -> String {
    format!("{:.3} ms", 1000.0 * seconds / (steps.max(1) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_have_shares_of_their_time_and_the_head_per_step() {
        let worker = WorkerTimes { forward: 1.0, waiting: 2.0, backward: 1.0, ..Default::default() };
        let coordinator = CoordinatorTimes { fold: 0.002, idle: 4.0, ..Default::default() };
        let accounts = Accounts {
            modalities: [("audio".try_into().expect("a name"), Account { steps: 8, seconds: worker })].into(),
            coordinator: Account { steps: 8, seconds: coordinator },
        };
        let table = accounts.table();
        let cells = |line: usize| table.lines().nth(line).expect("a line").split_whitespace().collect::<Vec<_>>();
        assert_eq!(cells(2).join(" "), "audio 0.0 % 25.0 % 50.0 % 0.0 % 0.0 % 25.0 % 0.0 % 500.000 ms");
        assert_eq!(
            cells(4).join(" "),
            "head 0.000 ms 0.000 ms 0.000 ms 0.250 ms 0.000 ms 500.000 ms 0.000 ms 500.250 ms"
        );
    }
}
