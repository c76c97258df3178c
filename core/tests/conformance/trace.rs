//! Whole runs of 60 turns: the worker's half and the coordinator's half of every step, one after the other.

use std::collections::BTreeMap;

use antiphon_core::head::{Head, SharedHead, StepContext};
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{
    Alpha, ApplyTo, HeadSpec, LearningRateSchedule, OptimizerRule, OptimizerSpec, ProjectionSpec, Reset,
};
use serde::Deserialize;

use crate::encoder::{Encoder, Parameters};
use crate::{Tolerance, assert_all_close, assert_close, matrix, modality, read, vector};

#[derive(Deserialize)]
struct Trace {
    data: BTreeMap<String, Vec<Vec<f64>>>,
    labels: BTreeMap<String, Vec<u32>>,
    runs: BTreeMap<String, Run>,
}

#[derive(Deserialize)]
struct Run {
    config: Config,
    start: Start,
    turns: Vec<TurnVectors>,
    end: End,
}

#[derive(Deserialize)]
struct Config {
    s: u32,
    batch: usize,
    turns: usize,
    encoder: EncoderOptimizer,
    head: HeadOptimizer,
    projection: Projection,
}

#[derive(Deserialize)]
struct EncoderOptimizer {
    lr: f64,
    momentum: f64,
    decay: f64,
}

#[derive(Deserialize)]
struct HeadOptimizer {
    lr: f64,
    momentum: f64,
    weight_decay: f64,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Projection {
    Off,
    Rls { alpha: f64, apply_to: ApplyTo },
    Window { alpha: f64, window: u32, apply_to: ApplyTo },
}

#[derive(Deserialize)]
struct HeadVectors {
    w: Vec<Vec<f64>>,
    b: Vec<f64>,
}

#[derive(Deserialize)]
struct Start {
    head: HeadVectors,
    encoders: BTreeMap<String, Parameters>,
}

#[derive(Deserialize)]
struct End {
    head: HeadVectors,
    projector: Vec<Vec<f64>>,
    encoders: BTreeMap<String, Parameters>,
}

#[derive(Deserialize)]
struct TurnVectors {
    turn: usize,
    modality: String,
    loss: f64,
    raw_grad_norm: f64,
    head_update_norm: f64,
    projector_trace: f64,
}

impl Config {
    fn head_spec(&self) -> HeadSpec {
        let projection = match self.projection {
            Projection::Off => ProjectionSpec::Off,
            Projection::Rls { alpha, apply_to } => {
                ProjectionSpec::Rls { alpha: Alpha::Constant(alpha), reset: Reset::Never, apply_to }
            }
            Projection::Window { alpha, window, apply_to } => ProjectionSpec::Window { alpha, turns: window, apply_to },
        };
        let rule = OptimizerRule::Sgd { momentum: self.head.momentum, weight_decay: self.head.weight_decay };
        let schedule = LearningRateSchedule::Constant { warmup: 0.0 };
        HeadSpec {
            width: self.s,
            projection,
            optimizer: OptimizerSpec { rule, lr: self.head.lr, schedule, clip: None },
        }
    }

    fn encoder_rule(&self) -> OptimizerRule {
        OptimizerRule::Sgd { momentum: self.encoder.momentum, weight_decay: self.encoder.decay }
    }

    fn alpha(&self) -> f64 {
        match self.projection {
            Projection::Off => 1.0,
            Projection::Rls { alpha, .. } | Projection::Window { alpha, .. } => alpha,
        }
    }
}

/// Plays the run of this name in `T` and compares every number.
pub(crate) fn check<T: Tolerance>(name: &str) {
    let trace: Trace = read(include_str!("../vectors/trace.json"));
    let run = &trace.runs[name];
    let config = &run.config;
    assert_eq!(run.turns.len(), config.turns);
    let head = Head::new(matrix::<T>(&run.start.head.w), vector(&run.start.head.b)).expect("the vectors' head");
    let mut shared = SharedHead::with_head(&config.head_spec(), head);
    let mut encoders: BTreeMap<&str, Encoder<T>> = BTreeMap::new();
    for (name, start) in &run.start.encoders {
        encoders.insert(name, Encoder::new(start, &config.encoder_rule()));
    }
    for turn in &run.turns {
        let (data, labels) = (&trace.data[&turn.modality], &trace.labels[&turn.modality]);
        let cycle = turn.turn / encoders.len();
        let batch: Vec<usize> = (0..config.batch).map(|i| (i + cycle * config.batch) % labels.len()).collect();
        let rows: Vec<Vec<f64>> = batch.iter().map(|i| data[*i].clone()).collect();
        let labels: Vec<u32> = batch.iter().map(|i| labels[*i]).collect();
        let encoder = encoders.get_mut(turn.modality.as_str()).expect("one of the modalities");
        take_turn(&mut shared, encoder, config, turn, &matrix(&rows), &labels);
    }
    assert_all_close("W", shared.head().weight().as_slice(), &run.end.head.w.concat());
    assert_all_close("b", shared.head().bias(), &run.end.head.b);
    assert_all_close("P", shared.projector().matrix().as_slice(), &run.end.projector.concat());
    for (name, encoder) in &encoders {
        encoder.assert_close(name, &run.end.encoders[*name]);
    }
}

fn take_turn<T: Tolerance>(
    shared: &mut SharedHead<T>,
    encoder: &mut Encoder<T>,
    config: &Config,
    expected: &TurnVectors,
    x: &Matrix<T>,
    labels: &[u32],
) {
    let (middle, features) = encoder.forward(x);
    let step = shared.head().local_step(features, labels).expect("a good batch");
    let at = StepContext { lr_factor: 1.0, alpha: config.alpha() };
    let report = shared.apply(&modality(&expected.modality), &step.contribution, at).expect("a good contribution");
    shared.end_turn();
    encoder.step(x, &middle, &step.feature_gradient, config.encoder.lr);

    let what = |figure: &str| format!("{figure} of turn {}", expected.turn);
    assert_close::<T>(&what("loss"), step.contribution.loss, expected.loss);
    assert_close::<T>(&what("|G|"), report.gradient_norm, expected.raw_grad_norm);
    assert_close::<T>(&what("|W_new - W_old|"), report.update_norm, expected.head_update_norm);
    assert_close::<T>(&what("trace(P)"), shared.projector_trace(), expected.projector_trace);
}
