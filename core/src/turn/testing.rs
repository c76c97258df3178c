//! A turn machine for tests: jobs without data, workers named after their modality, and steps that check the
//! invariants.

use super::epoch;
use super::machine::{Duty, Phase, TurnMachine};
use super::message::{ContributionHeader, Effect, Input, Rejected, SplitSizes};
use super::position::Position;
use crate::ids::{JobId, JobName, MicroShard, ModalityName, Split, Term, TurnRef, WorkerId};
use crate::spec::*;
use crate::time::Time;

pub(super) fn modality(name: &str) -> ModalityName {
    ModalityName::try_from(name).expect("a good name")
}

pub(super) fn worker(name: &str) -> WorkerId {
    WorkerId::try_from(format!("w-{name}")).expect("a good name")
}

/// A job of these modalities with batches of 10 and no end.
pub(super) fn job(modalities: &[&str]) -> JobSpec {
    let optimizer = OptimizerSpec {
        rule: OptimizerRule::Sgd { momentum: 0.9, weight_decay: 0.0 },
        lr: 0.1,
        schedule: LearningRateSchedule::Constant { warmup: 0.0 },
        clip: None,
    };
    let one = |name: &&str| ModalitySpec {
        name: modality(name),
        data: DataSpec::Synth {
            kind: SynthKind::SpokenDigits,
            column: (*name).to_owned(),
            samples: SynthSamples { train: 1, validation: 1, test: 1 },
            missing: 0.0,
            seed: 0,
        },
        input: InputSpec::Auto,
        encoder: EncoderSpec::Auto,
        transfer: TransferSpec::default(),
        precision: Precision::F32,
        optimizer: optimizer.clone(),
        workers: WorkerRange { min: 1, max: 1 },
    };
    JobSpec {
        name: JobName::try_from("test").expect("a good name"),
        seed: 7,
        modalities: modalities.iter().map(one).collect(),
        labels: LabelSpec { column: "label".to_owned(), classes: Classes::Count(3) },
        head: HeadSpec {
            width: 4,
            projection: ProjectionSpec::Rls { alpha: Alpha::Decay, reset: Reset::Never, apply_to: ApplyTo::Gradient },
            optimizer: optimizer.clone(),
        },
        schedule: ScheduleSpec {
            length: Length::Turns(u64::MAX),
            order: TurnOrder::Cyclic,
            mode: ScheduleMode::Pipelined,
            batch: 10,
            turn_batches: 1,
            micro_shards: 1,
            lease_ttl: 15.0,
            turn_deadline: 300.0,
        },
        fusion: FusionSpec::Entropy,
        checkpoints: CheckpointSpec { to: None, every: Every::End, keep: 3 },
        evaluation: EvaluationSpec { every: Every::End, chunk: 64 },
    }
}

pub(super) fn machine(modalities: &[&str]) -> TurnMachine {
    machine_of(job(modalities))
}

pub(super) fn machine_of(spec: JobSpec) -> TurnMachine {
    TurnMachine::new(JobId::try_from("test-1").expect("a good id"), Term(1), spec, None, Time(0))
}

pub(super) fn resumed(spec: JobSpec, position: Position) -> TurnMachine {
    TurnMachine::new(JobId::try_from("test-1").expect("a good id"), Term(1), spec, Some(position), Time(0))
}

/// Lets every worker join and prepare. Returns all effects.
pub(super) fn prepare_all(machine: &mut TurnMachine, samples: SplitSizes) -> Vec<Effect> {
    let names: Vec<ModalityName> = machine.spec().modalities.iter().map(|m| m.name.clone()).collect();
    let mut effects = Vec::new();
    for name in &names {
        let joined = Input::Joined { worker: worker(name.as_str()), modality: name.clone() };
        effects.extend(take(machine, joined));
    }
    for name in &names {
        let steps_done = machine.position().steps_done.get(name).copied().unwrap_or(0);
        effects.extend(take(machine, Input::Prepared { worker: worker(name.as_str()), samples, steps_done }));
    }
    effects
}

/// A job whose workers are all prepared.
pub(super) fn running(spec: JobSpec, samples: SplitSizes) -> TurnMachine {
    let mut machine = machine_of(spec);
    prepare_all(&mut machine, samples);
    machine
}

/// Gives an input that must be accepted.
pub(super) fn take(machine: &mut TurnMachine, input: Input) -> Vec<Effect> {
    take_at(machine, Time(1), input)
}

/// The same at this time.
pub(super) fn take_at(machine: &mut TurnMachine, now: Time, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    let told = format!("{input:?}");
    machine.step(now, input, &mut effects).unwrap_or_else(|rejected| panic!("{told}: {rejected}"));
    machine.check_invariants().unwrap_or_else(|broken| panic!("after {told}: {broken}"));
    effects
}

/// Gives an input that must be refused, and checks that nothing changed.
pub(super) fn refuse(machine: &mut TurnMachine, input: Input) -> Rejected {
    let before = machine.clone();
    let mut effects = Vec::new();
    let told = format!("{input:?}");
    let Err(rejected) = machine.step(Time(1), input, &mut effects) else { panic!("{told} was taken") };
    assert_eq!(*machine, before, "{told} changed the state");
    assert!(effects.is_empty(), "{told} had effects");
    rejected
}

/// The header that answers the open step.
pub(super) fn open_header(machine: &TurnMachine, samples: u32) -> ContributionHeader {
    let Phase::Training(open) = &machine.phase else { panic!("no step is open: {}", machine.phase_name()) };
    ContributionHeader {
        worker: machine.worker(&open.modality).expect("it has a worker").clone(),
        turn: TurnRef {
            job: machine.job.clone(),
            term: machine.term,
            turn: machine.position.turn,
            step: open.step,
            attempt: open.attempt,
            head_version: machine.position.head_version,
        },
        micro_shard: MicroShard::WHOLE,
        samples,
        loss: 1.0,
    }
}

pub(super) fn contribute(machine: &mut TurnMachine, samples: u32) -> Vec<Effect> {
    let header = open_header(machine, samples);
    take(machine, Input::Contribution(header))
}

/// Completes the pending checkpoint, file by file.
pub(super) fn save(machine: &mut TurnMachine) -> Vec<Effect> {
    let pending = machine.pending_checkpoint().expect("a checkpoint is being written").clone();
    let mut effects = Vec::new();
    for modality in pending.missing() {
        let worker = machine.worker(modality).expect("it has a worker").clone();
        effects.extend(take(machine, Input::FilesSaved { worker, turn: pending.turn() }));
    }
    effects.extend(take(machine, Input::CheckpointWritten { turn: pending.turn() }));
    effects
}

/// Does whatever the machine waits for; a checkpoint is written when training has to wait for it.
pub(super) fn drive(machine: &mut TurnMachine, samples: u32) -> Vec<Effect> {
    let input = match machine.phase.clone() {
        Phase::Training(_) => Input::Contribution(open_header(machine, samples)),
        Phase::Boundary { duties, .. } => match duties.front().expect("a duty") {
            Duty::Evaluate { evaluation, .. } => {
                Input::EvaluationFinished { evaluation: evaluation.expect("it is under way"), score: 0.5 }
            }
            Duty::Save | Duty::FreeBuffer | Duty::Finish(_) => return save(machine),
        },
        phase @ (Phase::Gathering | Phase::Finished(_)) => panic!("nothing to drive in {phase:?}"),
    };
    take(machine, input)
}

/// The same with batch sizes that follow from the data.
pub(super) fn drive_sizes(machine: &mut TurnMachine) -> Vec<Effect> {
    let samples = match &machine.phase {
        Phase::Training(open) => {
            let done = machine.position.steps_done.get(&open.modality).copied().unwrap_or(0);
            let train = machine.samples()[&open.modality].of(Split::Train);
            epoch::batch_size(train, machine.spec.schedule.batch, done) as u32
        }
        Phase::Gathering | Phase::Boundary { .. } | Phase::Finished(_) => 0,
    };
    drive(machine, samples)
}

pub(super) const SAMPLES: SplitSizes = SplitSizes { train: 20, validation: 5, test: 0 };

pub(super) fn two() -> JobSpec {
    let mut spec = job(&["audio", "image"]);
    spec.schedule.lease_ttl = 15.0;
    spec.schedule.turn_deadline = 60.0;
    spec
}

pub(super) fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000)
}

pub(super) fn join(who: &str, of: &str) -> Input {
    Input::Joined { worker: worker(who), modality: modality(of) }
}

pub(super) fn prepared(who: &str, steps_done: u64) -> Input {
    Input::Prepared { worker: worker(who), samples: SAMPLES, steps_done }
}

pub(super) fn left(who: &str) -> Input {
    Input::Left { worker: worker(who), why: "it closed its stream".to_owned() }
}

pub(super) fn beat(who: &str, progress: u64, busy: bool) -> Input {
    Input::Heartbeat { worker: worker(who), progress, busy }
}

pub(super) fn failed(who: &str, transient: bool) -> Input {
    Input::WorkerFailed { worker: worker(who), reason: "the store does not answer".to_owned(), transient }
}

/// What is granted: (whether as a replay, worker, turn, attempt, head).
pub(super) fn grants(effects: &[Effect]) -> Vec<(bool, String, u64, u32, u64)> {
    let grant = |effect: &Effect| match effect {
        Effect::Grant { worker, turn, .. } => {
            Some((false, worker.to_string(), turn.turn.0, turn.attempt.0, turn.head_version.0))
        }
        Effect::Replay { worker, turn, .. } => {
            Some((true, worker.to_string(), turn.turn.0, turn.attempt.0, turn.head_version.0))
        }
        _ => None,
    };
    effects.iter().filter_map(grant).collect()
}

pub(super) fn granted(whom: &str, turn: u64, attempt: u32) -> (bool, String, u64, u32, u64) {
    (false, whom.to_owned(), turn, attempt, turn)
}

pub(super) fn replay(whom: &str, turn: u64) -> (bool, String, u64, u32, u64) {
    (true, whom.to_owned(), turn, 0, turn)
}

/// Reports that the worker has replayed the step of these effects.
pub(super) fn replayed(machine: &mut TurnMachine, who: &str, effects: &[Effect]) -> Vec<Effect> {
    let turn = effects.iter().find_map(|effect| match effect {
        Effect::Replay { turn, .. } => Some(turn.clone()),
        _ => None,
    });
    take(machine, Input::Learned { worker: worker(who), turn: turn.expect("a step to replay") })
}
