//! The schedule of faults, which is a function of the seed alone.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use antiphon_core::ids::ModalityName;
use antiphon_core::rng::{self, Stream};
use serde::{Serialize, Serializer};

/// A kind of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Target {
    /// Kill a worker, or pause it for a while
    Worker,
    /// Kill the coordinator, or pause it for a while
    Coordinator,
    /// Let requests to the store fail, in every process and at any time
    Store,
    /// Close the connection of a worker, stall it or refuse it for a while
    Connection,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Coordinator,
    Worker(ModalityName),
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coordinator"),
            Self::Worker(modality) => write!(f, "worker {modality}"),
        }
    }
}

impl Serialize for Victim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A kind of fault of a process or its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// SIGKILL, and later a restart.
    Kill,
    /// SIGSTOP, and later SIGCONT.
    Stop,
    /// Its connection is closed, and it can reconnect at once.
    Disconnect,
    /// Its connection passes no bytes for a time.
    Stall,
    /// Its connection is closed, and new ones are refused for a time.
    Refuse,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Disconnect => "disconnect",
            Self::Stall => "stall",
            Self::Refuse => "refuse",
        })
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    /// Time since the previous fault.
    pub(crate) after: Duration,
    pub(crate) kind: Kind,
    pub(crate) victim: Victim,
    /// Duration of the fault; zero for a disconnect.
    pub(crate) lasts: Duration,
}

/// The endless sequence of faults of one run.
#[derive(Debug)]
pub(crate) struct Schedule {
    stream: Stream,
    /// Targets except for the store, whose faults are not scheduled.
    targets: Vec<Target>,
    mean: Duration,
    /// Time without a message after which a worker's lease expires.
    lease: Duration,
    modalities: Vec<ModalityName>,
}

impl Schedule {
    /// Creates the schedule: a fault every `mean` on average, equally often for each target. One in three stops and
    /// stalls lasts longer than the `lease`.
    pub(crate) fn new(
        seed: u64,
        targets: &[Target],
        (mean, lease): (Duration, Duration),
        modalities: &[ModalityName],
    ) -> Self {
        let stream = rng::stream(seed, &["chaos".into()]);
        let targets: BTreeSet<Target> = targets.iter().copied().filter(|target| *target != Target::Store).collect();
        Self { stream, targets: targets.into_iter().collect(), mean, lease, modalities: modalities.to_vec() }
    }

    /// The next fault; None if only the store fails.
    pub(crate) fn next(&mut self) -> Option<Fault> {
        if self.targets.is_empty() {
            return None;
        }
        // The intervals are exponential, so that the next fault does not depend on the time of the last one.
        let after = self.mean.mul_f64(-(1.0 - rng::uniform(&mut self.stream)).ln());
        let target = *self.one_of(&self.targets.clone());
        let worker = Victim::Worker(self.one_of(&self.modalities.clone()).clone());
        let (victim, kind) = match target {
            Target::Connection => (worker, *self.one_of(&[Kind::Disconnect, Kind::Stall, Kind::Refuse])),
            Target::Coordinator => (Victim::Coordinator, *self.one_of(&[Kind::Kill, Kind::Kill, Kind::Stop])),
            Target::Worker | Target::Store => (worker, *self.one_of(&[Kind::Kill, Kind::Kill, Kind::Stop])),
        };
        let (share, is_long) = (rng::uniform(&mut self.stream), rng::below(&mut self.stream, 3) == 0);
        let lasts = match kind {
            Kind::Disconnect => Duration::ZERO,
            Kind::Stop | Kind::Stall if is_long => self.lease.mul_f64(1.0 + share),
            Kind::Kill | Kind::Stop | Kind::Stall | Kind::Refuse => self.mean.mul_f64(share),
        };
        Some(Fault { after, kind, victim, lasts })
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[rng::below(&mut self.stream, all.len() as u64) as usize]
    }
}

/// The store faults of a process that has been started `starts` times before. Every process has different faults.
pub(crate) fn store_faults(seed: u64, victim: &Victim, starts: u64) -> antiphon_store::faults::Faults {
    let name = victim.to_string();
    let stream = &mut rng::stream(seed, &["chaos-store".into(), (&name).into(), starts.into()]);
    let seed = rng::below(stream, 1 << 32);
    antiphon_store::faults::Faults { seed, errors: 0.1, lost: 0.05, slow: 0.2, slow_ms: 100, truncated: 0.05 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modalities() -> Vec<ModalityName> {
        ["audio", "image"].map(|name| ModalityName::try_from(name).expect("a name")).into()
    }

    fn faults(seed: u64, targets: &[Target]) -> Vec<Fault> {
        let mut schedule =
            Schedule::new(seed, targets, (Duration::from_secs(2), Duration::from_secs(5)), &modalities());
        std::iter::from_fn(|| schedule.next()).take(3000).collect()
    }

    #[test]
    fn faults_are_a_function_of_the_seed() {
        let targets = [Target::Worker, Target::Connection];
        assert_eq!(faults(1, &targets), faults(1, &[Target::Connection, Target::Worker, Target::Worker]));
        assert_ne!(faults(1, &targets), faults(2, &targets));
        assert_ne!(
            store_faults(1, &Victim::Coordinator, 0).seed,
            store_faults(1, &Victim::Coordinator, 1).seed,
            "a restarted process has other faults"
        );
    }

    #[test]
    fn faults_have_the_given_mean_time_and_kinds() {
        let all = faults(3, &[Target::Worker, Target::Coordinator, Target::Store, Target::Connection]);
        let mean = all.iter().map(|fault| fault.after.as_secs_f64()).sum::<f64>() / all.len() as f64;
        assert!((1.8..2.2).contains(&mean), "{mean}");
        let is_long = |fault: &&Fault| fault.lasts > Duration::from_secs(2);
        assert!(all.iter().filter(is_long).all(|fault| matches!(fault.kind, Kind::Stop | Kind::Stall)));
        assert!(all.iter().filter(is_long).all(|fault| fault.lasts >= Duration::from_secs(5)));
        assert!(all.iter().filter(is_long).count() > 100, "some outlast a lease");
        let seen: BTreeSet<(Kind, String)> = all.iter().map(|fault| (fault.kind, fault.victim.to_string())).collect();
        let kinds =
            |victim: &str, kinds: &[Kind]| kinds.iter().map(|kind| (*kind, victim.to_owned())).collect::<Vec<_>>();
        let of_worker = [Kind::Kill, Kind::Stop, Kind::Disconnect, Kind::Stall, Kind::Refuse];
        let expected = [
            kinds("coordinator", &[Kind::Kill, Kind::Stop]),
            kinds("worker audio", &of_worker),
            kinds("worker image", &of_worker),
        ];
        assert_eq!(seen, expected.concat().into_iter().collect());
        assert_eq!(faults(3, &[Target::Store]), [], "a store fails all the time");
    }
}
