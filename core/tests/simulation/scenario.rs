//! A scenario: a job, its data, its delays and its faults. A seed determines all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use antiphon_core::ids::{JobName, ModalityName};
use antiphon_core::rng::{self, Stream};
use antiphon_core::spec::*;
use serde::{Deserialize, Serialize};

use crate::bugs::Bug;
use crate::delays::{CoordinatorDelays, Delay, WorkerDelays};
use crate::faults::Faults;
use crate::learner::{Learner, TableSizes};

/// The names of modalities. They are not in byte order, so that the order of the job differs from the order of maps.
const NAMES: [&str; 4] = ["text", "audio", "image", "depth"];

/// More heads than any of these jobs makes.
const PLENTY: usize = 1 << 20;

/// The complete input of a simulation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) job: JobSpec,
    /// The data of each modality, in the order of the job.
    pub(crate) tables: Vec<TableSizes>,
    /// Root of the random streams of all delays and disturbances.
    pub(crate) schedule_seed: u64,
    pub(crate) coordinator: CoordinatorDelays,
    /// The delays of each modality's workers, in the order of the job.
    pub(crate) workers: Vec<WorkerDelays>,
    /// Per cent of a worker's messages that arrive a second time, later.
    pub(crate) copies: u64,
    /// Per cent of contributions that a wrong one follows or overtakes.
    pub(crate) lies: u64,
    /// The bound of the replay buffer, in heads.
    pub(crate) heads: usize,
    /// Workers of each modality that wait for a slot from the beginning.
    pub(crate) spares: u64,
    pub(crate) faults: Faults,
    /// Requests to stop.
    pub(crate) stops: Faults,
    /// A planted bug, to test that the simulation finds it.
    pub(crate) bug: Option<Bug>,
}

impl Scenario {
    /// Any job, under any schedule.
    pub(crate) fn any(seed: u64) -> Self {
        let mut stream = rng::stream(seed, &["scenario".into()]);
        let job = any_job(seed, &mut stream);
        let samples = 1 + rng::below(&mut stream, 20);
        let (validation, test) = (rng::below(&mut stream, 4), rng::below(&mut stream, 3));
        let missing: Vec<u64> = job.modalities.iter().map(|_| rng::below(&mut stream, 70)).collect();
        let tables = missing.iter().map(|missing| TableSizes { train: samples, validation, test, missing: *missing });
        Self { tables: tables.collect(), ..Self::quiet(job).under_schedule(seed) }
    }

    /// This job, with random delays and faults.
    pub(crate) fn under_schedule(self, seed: u64) -> Self {
        let mut stream = rng::stream(seed, &["schedule".into()]);
        let (mut copies, mut lies) = (0, 0);
        if rng::below(&mut stream, 2) == 0 {
            (copies, lies) = (rng::below(&mut stream, 50), rng::below(&mut stream, 50));
        }
        let coordinator = CoordinatorDelays::any(&mut stream);
        let workers: Vec<_> = self.job.modalities.iter().map(|_| WorkerDelays::any(&mut stream)).collect();
        let faults = Faults::any(&mut stream);
        let stops = match seed % 3 {
            0 => Faults::stops(&mut rng::stream(seed, &["requests to stop".into()])),
            _ => Faults::default(),
        };
        let few = if rng::below(&mut stream, 3) == 0 { rng::below(&mut stream, 12) as usize } else { PLENTY };
        let mut new = Self {
            schedule_seed: seed,
            coordinator,
            workers,
            copies,
            lies,
            heads: few,
            spares: rng::below(&mut stream, 2),
            faults,
            stops,
            ..self
        };
        new.set_leases(&mut stream);
        new
    }

    /// Leases that outlast a message, and deadlines that outlast any single step of work. Shorter ones would replace
    /// workers all the time.
    fn set_leases(&mut self, stream: &mut Stream) {
        let longest = |delays: &[Delay]| delays.iter().map(|delay| delay.longest()).max().unwrap_or(0);
        let messages = self.workers.iter().map(|worker| longest(&[worker.outbound, worker.inbound])).max().unwrap_or(0);
        let own = longest(&[self.coordinator.apply, self.coordinator.fold]);
        let work = self
            .workers
            .iter()
            .map(|worker| longest(&[worker.forward, worker.local_step, worker.learn, worker.evaluate]));
        let work = work.max().unwrap_or(0);
        let ttl = 10.0_f64.powf(4.7 + 2.5 * rng::uniform(stream)) + 4.0 * (messages + own) as f64;
        self.job.schedule.lease_ttl = ttl / 1e6;
        let factor = 1.0 + 4.0 * rng::uniform(stream);
        self.job.schedule.turn_deadline = (factor * ttl + 4.0 * (messages + own + work) as f64) / 1e6;
    }

    /// This job, without delays and faults.
    pub(crate) fn quiet(job: JobSpec) -> Self {
        use crate::delays::Delay::Fixed;
        let zero = Fixed(0);
        let worker = WorkerDelays {
            join: zero,
            prepare: zero,
            forward: zero,
            local_step: zero,
            learn: zero,
            evaluate: zero,
            save: zero,
            inbound: zero,
            outbound: zero,
        };
        Self {
            tables: vec![TableSizes { train: 8, validation: 0, test: 0, missing: 0 }; job.modalities.len()],
            schedule_seed: 0,
            coordinator: CoordinatorDelays { apply: zero, fold: zero, manifest: zero },
            workers: vec![worker; job.modalities.len()],
            copies: 0,
            lies: 0,
            heads: PLENTY,
            spares: 0,
            faults: Faults::default(),
            stops: Faults::default(),
            bug: None,
            job,
        }
    }

    /// The modalities before the first step.
    pub(crate) fn learners(&self) -> Vec<Learner> {
        let both = self.job.modalities.iter().zip(&self.tables);
        both.map(|(modality, sizes)| Learner::new(&self.job, modality, *sizes)).collect()
    }

    /// The kinds of scenario that this one belongs to.
    pub(crate) fn kinds(&self) -> BTreeSet<String> {
        let schedule = &self.job.schedule;
        let order = match &schedule.order {
            TurnOrder::Cyclic => "cyclic",
            TurnOrder::WeakFirst => "weak-first",
            TurnOrder::Weighted(_) => "weighted",
        };
        let projection = match &self.job.head.projection {
            ProjectionSpec::Off => "off".to_owned(),
            ProjectionSpec::Rls { alpha: Alpha::Decay, reset, .. } => format!("rls, decay, reset {reset:?}"),
            ProjectionSpec::Rls { reset, .. } => format!("rls, constant, reset {reset:?}"),
            ProjectionSpec::Window { .. } => "window".to_owned(),
        };
        let every = |every: Every| match every {
            Every::Epochs(_) => "epochs",
            Every::Turns(_) => "turns",
            Every::End => "the end",
        };
        let length = match schedule.length {
            Length::Epochs(_) => "in epochs",
            Length::Turns(_) => "in turns",
        };
        [
            format!("order: {order}"),
            format!("projection: {projection}"),
            format!("mode: {}", schedule.mode.as_str()),
            format!("turn_batches: {}", schedule.turn_batches),
            format!("modalities: {}", self.job.modalities.len()),
            format!("length: {length}"),
            format!("evaluation every: {}", every(self.job.evaluation.every)),
            format!("checkpoint every: {}", every(self.job.checkpoints.every)),
            format!("disturbed: {}", self.copies + self.lies > 0),
            format!("faults: {}", self.faults.count > 0),
        ]
        .into()
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: BTreeMap<&ModalityName, TableSizes> =
            self.job.modalities.iter().map(|m| &m.name).zip(self.tables.iter().copied()).collect();
        writeln!(f, "job: {}", self.job.to_json())?;
        writeln!(f, "kinds: {:?}", self.kinds())?;
        writeln!(f, "data: {sizes:?}")?;
        writeln!(f, "delays, in µs: {:?} {:?}", self.coordinator, self.workers)?;
        let (heads, spares, bug) = (self.heads, self.spares, self.bug);
        writeln!(
            f,
            "copies: {} %, lies: {} %, heads: {heads}, spares: {spares}, bug: {bug:?}",
            self.copies, self.lies
        )?;
        write!(f, "{:?} {:?}", self.faults, self.stops)
    }
}

/// A small job of the modalities with these names: one epoch, cyclic, no projection, nothing in between.
pub(crate) fn small_job(seed: u64, names: &[&str]) -> JobSpec {
    let optimizer = OptimizerSpec {
        rule: OptimizerRule::Sgd { momentum: 0.9, weight_decay: 1e-3 },
        lr: 0.05,
        schedule: LearningRateSchedule::Constant { warmup: 0.0 },
        clip: None,
    };
    let modality = |name: &&str| ModalitySpec {
        name: ModalityName::try_from(*name).expect("a good name"),
        // Not used: the data of simulated workers are in their tables.
        data: DataSpec::Synth {
            kind: SynthKind::Features,
            column: "a".to_owned(),
            samples: SynthSamples { train: 1, validation: 0, test: 0 },
            missing: 0.0,
            seed: 0,
        },
        input: InputSpec::Auto,
        encoder: EncoderSpec::Auto,
        precision: Precision::F32,
        transfer: TransferSpec::default(),
        optimizer: optimizer.clone(),
        workers: WorkerRange { min: 1, max: 1 },
    };
    JobSpec {
        name: JobName::try_from("simulated").expect("a good name"),
        seed,
        modalities: names.iter().map(modality).collect(),
        labels: LabelSpec { column: "label".to_owned(), classes: Classes::Count(3) },
        head: HeadSpec { width: 4, projection: ProjectionSpec::Off, optimizer: optimizer.clone() },
        schedule: ScheduleSpec {
            length: Length::Epochs(1),
            order: TurnOrder::Cyclic,
            mode: ScheduleMode::Pipelined,
            batch: 4,
            turn_batches: 1,
            micro_shards: 1,
            // No worker is lost.
            lease_ttl: 1e9,
            turn_deadline: 1e9,
        },
        fusion: FusionSpec::Mean,
        checkpoints: CheckpointSpec { to: None, every: Every::End, keep: 2 },
        evaluation: EvaluationSpec { every: Every::End, chunk: 64 },
    }
}

fn any_job(seed: u64, stream: &mut Stream) -> JobSpec {
    let mut job = small_job(seed, &NAMES[..1 + rng::below(stream, 4) as usize]);
    job.labels.classes = Classes::Count(2 + rng::below(stream, 3) as u32);
    job.head.width = 2 + rng::below(stream, 4) as u32;
    job.head.projection = any_projection(stream);
    if rng::below(stream, 4) == 0 {
        job.head.optimizer.rule = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 1e-2 };
        job.head.optimizer.clip = Some(0.5);
    }
    job.head.optimizer.schedule = any_learning_rates(stream);
    for modality in &mut job.modalities {
        modality.optimizer.schedule = any_learning_rates(stream);
    }
    job.schedule.length = match rng::below(stream, 8) {
        0..4 => Length::Epochs(1 + rng::below(stream, 3)),
        _ => Length::Turns(rng::below(stream, 25)),
    };
    job.schedule.order = any_order(&job, stream);
    if rng::below(stream, 3) == 0 {
        job.schedule.mode = ScheduleMode::Sequential;
    }
    job.schedule.batch = 3 + rng::below(stream, 6) as u32;
    job.schedule.turn_batches = 1 + rng::below(stream, 3) as u32;
    job.checkpoints.every = any_period(stream);
    job.checkpoints.keep = 1 + rng::below(stream, 3) as u32;
    job.evaluation.every = any_period(stream);
    job
}

fn any_projection(stream: &mut Stream) -> ProjectionSpec {
    let apply_to = if rng::below(stream, 2) == 0 { ApplyTo::Gradient } else { ApplyTo::Update };
    let alpha = 0.01 + rng::uniform(stream);
    match rng::below(stream, 6) {
        0 => ProjectionSpec::Off,
        1 => ProjectionSpec::Window { alpha, turns: 1 + rng::below(stream, 5) as u32, apply_to },
        kind => ProjectionSpec::Rls {
            alpha: if kind < 4 { Alpha::Decay } else { Alpha::Constant(alpha) },
            reset: if kind % 2 == 0 { Reset::Never } else { Reset::Epoch },
            apply_to,
        },
    }
}

fn any_learning_rates(stream: &mut Stream) -> LearningRateSchedule {
    let warmup = rng::uniform(stream);
    match rng::below(stream, 3) {
        0 => LearningRateSchedule::Constant { warmup },
        1 => LearningRateSchedule::Step { at: vec![0.5, 1.5], factor: 0.5, warmup },
        _ => LearningRateSchedule::Cosine { floor: 0.1, warmup },
    }
}

fn any_order(job: &JobSpec, stream: &mut Stream) -> TurnOrder {
    match rng::below(stream, 3) {
        0 => TurnOrder::Cyclic,
        1 => TurnOrder::WeakFirst,
        _ => {
            // Some are not named, and have one turn.
            let named = job.modalities.iter().filter(|_| rng::below(stream, 4) > 0).map(|m| m.name.clone());
            let named: Vec<ModalityName> = named.collect();
            TurnOrder::Weighted(named.into_iter().map(|name| (name, 1 + rng::below(stream, 3) as u32)).collect())
        }
    }
}

fn any_period(stream: &mut Stream) -> Every {
    match rng::below(stream, 3) {
        0 => Every::End,
        1 => Every::Epochs(1 + rng::below(stream, 2)),
        _ => Every::Turns(1 + rng::below(stream, 6)),
    }
}
