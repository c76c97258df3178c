//! Every kind of encoder on a card against the same one in main memory. Without a card there is nothing to compare.

use antiphon_core::spec::{LearningRateSchedule, OptimizerRule, OptimizerSpec};

use super::tests::{Case, batch, built_on, cases, train};
use super::*;
use crate::nn::check::{assert_close, devices, flat, noise};
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
        let encoders = [&Device::Cpu, &card].map(|device| built_on(&case, DType::F64, device));
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
fn trained(case: &Case, device: &Device, rule: &OptimizerRule) -> Vec<Tensor> {
    let mut encoder = built_on(case, DType::F32, device);
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
    // Its ε is large, so that steps do not depend on the sign of gradients that are nothing but rounding.
    let adamw = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-2, weight_decay: 0.01 };
    for (card, case) in cards().flat_map(|card| cases().into_iter().map(move |case| (card.clone(), case))) {
        for rule in [&sgd, &adamw] {
            let expected = trained(&case, &Device::Cpu, rule);
            let [got, again] = [(); 2].map(|()| trained(&case, &card, rule));
            for (n, ((got, again), expected)) in got.iter().zip(&again).zip(&expected).enumerate() {
                assert_eq!(flat(got), flat(again), "{}: other bits the second time", case.name);
                assert_near(&case, &format!("tensor {n}"), got, expected, 2e-3);
            }
        }
    }
}

#[test]
fn a_checkpoint_of_one_device_is_restored_on_another() {
    for card in cards() {
        let case = cases().into_iter().find(|case| case.name == "cnn").expect("there is one");
        let [from, mut to] = [&Device::Cpu, &card].map(|device| built_on(&case, DType::F32, device));
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
