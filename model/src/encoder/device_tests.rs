//! Compares every kind of encoder on a GPU with the same one in main memory. Does nothing without a GPU.

use std::collections::BTreeMap;

use antiphon_core::spec::{LearningRateSchedule, OptimizerRule, OptimizerSpec, Precision};
use candle_core::Tensor;

use super::tests::{Case, batch, built_on, cases, train, wide_cases};
use super::*;
use crate::nn::check::{assert_close, bf16_cards, devices, flat, noise};
use crate::optimizer::Optimizer;

fn cards() -> impl Iterator<Item = Device> {
    devices().into_iter().filter(Device::is_cuda)
}

/// Relative to the largest of each tensor.
fn assert_near(case: &Case, what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    let (got, expected) = (flat(got), flat(expected));
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-3, |largest: f64, value| largest.max(value.abs()));
    for (got, expected) in got.iter().zip(&expected) {
        let near = (got - expected).abs() <= tolerance * largest;
        assert!(near, "{}: {what}: {got} for {expected}", case.name);
    }
}

#[test]
fn features_statistics_and_gradients_are_those_of_main_memory() {
    for (card, case) in cards().flat_map(|card| cases().into_iter().map(move |case| (card.clone(), case))) {
        let encoders = [&Device::Cpu, &card].map(|device| built_on(&case, Numbers::F64, device));
        let input = batch(&case.shape, 0..7);
        let [expected, got] = encoders.each_ref().map(|encoder| encoder.forward(&input, &train(3)).expect(case.name));
        assert!(got.features.device().is_cuda());
        assert_near(&case, "features", &got.features, &expected.features, 1e-9);
        let upstream = noise(expected.features.shape(), 9);
        let [expected_gradients, gradients] = [(&encoders[0], &expected), (&encoders[1], &got)]
            .map(|(encoder, forward)| backward_tensor(encoder.parameters(), forward, &upstream).expect(case.name));
        let pairs = gradients.tensors().iter().flatten().zip(expected_gradients.tensors().iter().flatten());
        for ((name, _), (got, expected)) in encoders[0].parameters().iter().zip(pairs) {
            assert_near(&case, name, got, expected, 1e-9);
        }
        let statistics = got.pending.in_memory().expect("brought down");
        assert_eq!(statistics.0.len(), expected.pending.0.len());
        for (got, expected) in statistics.0.iter().zip(&expected.pending.0) {
            assert!(got.mean.iter().zip(&expected.mean).all(|(g, e)| (g - e).abs() < 1e-9), "{}", case.name);
            assert!(got.variance.iter().zip(&expected.variance).all(|(g, e)| (g - e).abs() < 1e-9), "{}", case.name);
        }
    }
}

/// Features of three steps, then of an evaluation, then the state.
fn trained(case: &Case, numbers: impl Into<Numbers>, device: &Device, rule: &OptimizerRule) -> Vec<Tensor> {
    let mut encoder = built_on(case, numbers, device);
    let schedule = LearningRateSchedule::Constant { warmup: 0.0 };
    let spec = OptimizerSpec { rule: rule.clone(), lr: 0.01, schedule, clip: Some(1.0) };
    let mut optimizer = Optimizer::new(&spec, encoder.parameters()).expect("an optimizer");
    let mut out = Vec::new();
    for step in 0..3 {
        let forward =
            encoder.forward(&batch(&case.shape, 8 * step..8 * step + 8), &train(step as u64)).expect(case.name);
        let upstream = noise(forward.features.shape(), step as u64);
        let gradients = backward_tensor(encoder.parameters(), &forward, &upstream).expect(case.name);
        optimizer.step(encoder.parameters(), &gradients, 0.01).expect(case.name);
        out.push(forward.features);
        encoder.commit(forward.pending.in_memory().expect("brought down"));
    }
    out.push(encoder.forward(&batch(&case.shape, 3..9), &Mode::Evaluate).expect(case.name).features);
    out.extend(state(encoder.as_ref()).expect("state").into_iter().map(|(_, tensor)| tensor));
    out.extend(optimizer.state().expect("state").into_iter().map(|(_, tensor)| tensor));
    out
}

#[test]
fn steps_are_those_of_main_memory_and_the_same_every_time() {
    let sgd = OptimizerRule::Sgd { momentum: 0.9, weight_decay: 0.01 };
    // Its ε is large, so that steps do not depend on the sign of gradients that consist of rounding errors.
    let adamw = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-2, weight_decay: 0.01 };
    for (card, case) in cards().flat_map(|card| cases().into_iter().map(move |case| (card.clone(), case))) {
        for rule in [&sgd, &adamw] {
            let [got, again] = [(); 2].map(|()| trained(&case, Precision::F32, &card, rule));
            for (got, again) in got.iter().zip(&again) {
                assert_eq!(flat(got), flat(again), "{}: other bits the second time", case.name);
            }
            // If a number is nearly 0, rounding decides whether ReLU passes its gradient. With few samples this shows
            // in f32.
            let [got, expected] = [&card, &Device::Cpu].map(|device| trained(&case, Numbers::F64, device, rule));
            for (n, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_near(&case, &format!("tensor {n}"), got, expected, 1e-8);
            }
        }
    }
}

/// The cosine of the angle between two sets of tensors, each taken as one vector.
fn cosine<'a>(a: impl Iterator<Item = &'a Tensor>, b: impl Iterator<Item = &'a Tensor>) -> f64 {
    let [a, b] = [a.flat_map(flat).collect::<Vec<_>>(), b.flat_map(flat).collect()];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

#[test]
fn bf16_features_and_gradients_point_where_f32_ones_do() {
    for (card, case) in bf16_cards().flat_map(|card| wide_cases().into_iter().map(move |case| (card.clone(), case))) {
        let input = batch(&case.shape, 0..8);
        let pass = |precision, device: &Device| {
            let encoder = built_on(&case, precision, device);
            let forward = encoder.forward(&input, &train(3)).expect(case.name);
            let upstream = noise(forward.features.shape(), 9);
            let gradients = backward_tensor(encoder.parameters(), &forward, &upstream).expect(case.name);
            (forward.features, gradients)
        };
        let ((expected, expected_gradients), (got, gradients)) =
            (pass(Precision::F32, &Device::Cpu), pass(Precision::Bf16, &card));
        let all = || [&got].into_iter().chain(gradients.tensors().iter().flatten());
        assert!(all().all(|tensor| tensor.dtype() == DType::F32), "{}", case.name);
        let features = cosine([&got].into_iter(), [&expected].into_iter());
        let together = cosine(gradients.tensors().iter().flatten(), expected_gradients.tensors().iter().flatten());
        assert!(features > 0.999, "{}: features {features}", case.name);
        // In a residual network, rounding often decides whether ReLU passes a number, and so affects everything after
        // it.
        let least = if case.name == "resnet" { 0.97 } else { 0.99 };
        assert!(together > least, "{}: gradients {together}", case.name);
    }
}

#[test]
fn bf16_steps_are_repeatable_and_their_state_is_in_f32() {
    let adamw = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    for (card, case) in bf16_cards().flat_map(|card| cases().into_iter().map(move |case| (card.clone(), case))) {
        let [got, again] = [(); 2].map(|()| trained(&case, Precision::Bf16, &card, &adamw));
        for (got, again) in got.iter().zip(&again) {
            assert_eq!((got.dtype(), flat(got)), (DType::F32, flat(again)), "{}", case.name);
        }
    }
}

#[test]
fn steps_that_bf16_could_not_tell_are_not_lost() {
    for card in bf16_cards() {
        let case = cases().into_iter().find(|case| case.name == "mlp").expect("there is one");
        let encoder = built_on(&case, Precision::Bf16, &card);
        let rule = OptimizerRule::Sgd { momentum: 0.0, weight_decay: 0.0 };
        let schedule = LearningRateSchedule::Constant { warmup: 0.0 };
        let spec = OptimizerSpec { rule, lr: 1.0, schedule, clip: None };
        let mut optimizer = Optimizer::new(&spec, encoder.parameters()).expect("an optimizer");
        let variable = &encoder.parameters()[0].1;
        let ones = Tensor::ones(variable.shape(), DType::F32, &Device::Cpu).and_then(|ones| ones.to_device(&card));
        variable.set(&ones.expect("ones")).expect("set");
        let forward = encoder.forward(&batch(&case.shape, 0..8), &train(0)).expect(case.name);
        let upstream = noise(forward.features.shape(), 9);
        let gradients = backward_tensor(encoder.parameters(), &forward, &upstream).expect(case.name);
        let gradient = flat(gradients.tensors()[0].as_ref().expect("it is trained"));
        // In bf16, the nearest neighbour of 1 is 1/256 away. No step is larger than a hundredth of that.
        let lr = 4e-5 / gradient.iter().fold(0.0, |largest: f64, g| largest.max(g.abs()));
        optimizer.step(encoder.parameters(), &gradients, lr).expect("a step");
        for (value, gradient) in flat(variable).into_iter().zip(gradient) {
            assert!((value - (1.0 - lr * gradient)).abs() < 1e-7, "{value} after a gradient of {gradient}");
        }
    }
}

#[test]
fn a_checkpoint_of_one_device_is_restored_on_another() {
    for card in cards() {
        let case = cases().into_iter().find(|case| case.name == "cnn").expect("there is one");
        let [from, mut to] = [&Device::Cpu, &card].map(|device| built_on(&case, Precision::F32, device));
        for (_, variable) in from.parameters() {
            variable.set(&(variable.as_tensor() + 1.0).expect("other values")).expect("set");
        }
        let saved: BTreeMap<_, _> = state(from.as_ref()).expect("state").into_iter().collect();
        restore(to.as_mut(), &saved).expect("restored");
        for (name, tensor) in state(to.as_ref()).expect("state") {
            assert_close(&tensor, &saved[&name], 0.0);
        }
        let matrix = to.forward(&batch(&case.shape, 0..3), &Mode::Evaluate).expect("it fits").matrix();
        assert_eq!(matrix.expect("brought down").rows(), 3);
    }
}
