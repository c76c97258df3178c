//! Compares steps on a GPU with those in main memory. Does nothing without a GPU.

use candle_core::{DType, Device};

use super::tests::{adamw, sgd, spec};
use super::*;
use crate::nn::check::{assert_close, devices, noise};

/// Tensors of several sizes, some larger than a block.
fn tensors(seed: u64, device: &Device, dtype: DType) -> Vec<Tensor> {
    let shapes = [(3, 4), (1, 5), (70, 300), (1, 1)].into_iter().zip(seed..);
    let moved = |tensor: Tensor| tensor.to_dtype(dtype).and_then(|t| t.to_device(device)).expect("moved");
    shapes.map(|(shape, seed)| moved(noise(shape, seed))).collect()
}

fn parameters(device: &Device, dtype: DType) -> Vec<(String, Var)> {
    let variables = tensors(1, device, dtype).into_iter().map(|t| Var::from_tensor(&t).expect("a variable"));
    variables.enumerate().map(|(n, variable)| (format!("p{n}"), variable)).collect()
}

fn cards() -> impl Iterator<Item = Device> {
    devices().into_iter().filter(Device::is_cuda)
}

#[test]
fn steps_and_norms_are_those_of_main_memory() {
    for (card, rule) in cards().flat_map(|card| [sgd(), adamw()].map(|rule| (card.clone(), rule))) {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let go = |device: &Device| {
                let parameters = parameters(device, dtype);
                let mut optimizer = Optimizer::new(&spec(rule.clone(), Some(20.0)), &parameters).expect("an optimizer");
                let gradients = |step: u64| Gradients::new(tensors(10 * step, device, dtype));
                let mut norms = Vec::new();
                for step in 1..4_u64 {
                    norms.push(optimizer.step(&parameters, &gradients(step), 0.05).expect("a step"));
                }
                let moments = optimizer.state().expect("state").into_iter().map(|(_, tensor)| tensor);
                let all = parameters.into_iter().map(|(_, variable)| variable.as_tensor().clone()).chain(moments);
                (norms, all.collect::<Vec<_>>())
            };
            let ((norms, got), (expected_norms, expected)) = (go(&card), go(&Device::Cpu));
            for (got, expected) in norms.iter().zip(&expected_norms) {
                assert!((got / expected - 1.0).abs() < 1e-12, "{got} for {expected}");
            }
            got.iter().zip(&expected).for_each(|(got, expected)| assert_close(got, expected, tolerance));
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_found() {
    for card in cards() {
        let parameters = parameters(&card, DType::F32);
        let mut optimizer = Optimizer::new(&spec(adamw(), None), &parameters).expect("an optimizer");
        let mut gradients = tensors(5, &Device::Cpu, DType::F32);
        gradients[2] = (&gradients[2] * f64::INFINITY).expect("a product");
        let gradients = gradients.into_iter().map(|t| t.to_device(&card).expect("moved")).collect();
        let error = optimizer.step(&parameters, &Gradients::new(gradients), 0.1).expect_err("there is one");
        assert!(error.to_string().contains("`p2`"), "{error}");
        for ((_, variable), before) in parameters.iter().zip(tensors(1, &Device::Cpu, DType::F32)) {
            assert_close(variable, &before, 0.0);
        }
    }
}

#[test]
fn moments_are_restored_from_main_memory() {
    for (card, rule) in cards().flat_map(|card| [sgd(), adamw()].map(|rule| (card.clone(), rule))) {
        let parameters = parameters(&card, DType::F32);
        let mut optimizer = Optimizer::new(&spec(rule, None), &parameters).expect("an optimizer");
        let named = optimizer.state().expect("state").into_iter().enumerate();
        let saved: BTreeMap<_, _> =
            named.map(|(n, (name, t))| (name, noise(t.shape(), n as u64).to_dtype(DType::F32).expect("f32"))).collect();
        optimizer.restore(&saved, 3).expect("restored");
        for (name, tensor) in optimizer.state().expect("state") {
            assert_close(&tensor, &saved[&name], 0.0);
        }
    }
}
