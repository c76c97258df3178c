//! Checks that operators and encoders share in their tests.

use std::sync::Arc;

use antiphon_core::spec::Precision;
use candle_core::{DType, Device, Result, Shape, Tensor, Var};

use super::value::{Node, Tape, Value, backward};
use crate::device::DeviceChoice;
use crate::encoder::check_numbers;

/// The devices for tests of operators: main memory, and a GPU if the build supports one and there is one. With the
/// environment variable `ANTIPHON_TEST_CARD`, there must be a GPU.
///
/// # Panics
/// If there must be a GPU but there is none.
pub(crate) fn devices() -> Vec<Device> {
    let card = DeviceChoice::Cuda(0).open();
    assert!(card.is_ok() || std::env::var_os("ANTIPHON_TEST_CARD").is_none(), "{card:?}");
    std::iter::once(Device::Cpu).chain(card.ok()).collect()
}

/// The [`devices`] that compute in bf16.
pub(crate) fn bf16_cards() -> impl Iterator<Item = Device> {
    devices().into_iter().filter(|device| check_numbers(Precision::Bf16.into(), device).is_ok())
}

/// Pseudo-random numbers between −1 and 1, in f64.
pub(crate) fn noise(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let values: Vec<f64> = (0..shape.elem_count())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape has")
}

/// All values in row-major order, as f64.
pub(crate) fn flat(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_device(&Device::Cpu).and_then(|t| t.to_dtype(DType::F64)?.flatten_all());
    flat.and_then(|t| t.to_vec1()).expect("a tensor")
}

/// # Panics
/// If shapes differ, or values differ by more than `tolerance`, relative to the larger of 1 and the expected value.
pub(crate) fn assert_close(got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), expected.dims());
    for (i, (g, e)) in flat(got).into_iter().zip(flat(expected)).enumerate() {
        assert!((g - e).abs() <= tolerance * e.abs().max(1.0), "value {i}: {g} where {e} was expected");
    }
}

/// Compares `backward` of `Σ weights · function(inputs)` with central differences, for every element of every input, on
/// every device. Also compares the gradients with those for which some inputs are constants.
///
/// # Panics
/// If an input gets no gradient or a wrong one, or an unwanted gradient is computed.
pub(crate) fn check_gradients(inputs: &[Tensor], function: impl Fn(&[Value]) -> Result<Value>) {
    devices().iter().for_each(|device| check_gradients_on(device, inputs, &function));
}

fn check_gradients_on(device: &Device, inputs: &[Tensor], function: &impl Fn(&[Value]) -> Result<Value>) {
    let moved = inputs.iter().map(|t| t.to_device(device).expect("moved"));
    let variables: Vec<Var> = moved.map(|t| Var::from_tensor(&t).expect("a variable")).collect();
    let inputs: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let everything = (1_usize << inputs.len()) - 1;
    let (gradients, weights) = gradients_of(everything, &inputs, function);
    for wanted in 1..everything {
        for (n, (gradient, whole)) in gradients_of(wanted, &inputs, function).0.iter().zip(&gradients).enumerate() {
            let expected = whole.as_ref().filter(|_| wanted >> n & 1 == 1);
            assert_eq!(gradient.as_ref().map(flat), expected.map(flat), "input {n} of {wanted:b}");
        }
    }
    let score = || -> Result<f64> {
        let constants: Vec<Value> = variables.iter().map(|v| Value::constant(v.as_tensor().clone())).collect();
        (function(&constants)?.tensor().to_device(&Device::Cpu)? * &weights)?.sum_all()?.to_scalar()
    };
    for (n, (variable, gradient)) in variables.iter().zip(gradients).enumerate() {
        let gradient = gradient.unwrap_or_else(|| panic!("input {n} got no gradient"));
        let elements: Vec<usize> = (0..variable.elem_count()).collect();
        check_elements(&format!("input {n}"), variable, &gradient, &elements, score);
    }
}

/// Gradients of the inputs whose bits are set in `wanted`, and their weights. The other inputs are constants.
fn gradients_of(
    wanted: usize,
    inputs: &[Tensor],
    function: impl Fn(&[Value]) -> Result<Value>,
) -> (Vec<Option<Tensor>>, Tensor) {
    let tape = Arc::new(Tape::default());
    let value = |(n, input): (usize, &Tensor)| {
        if wanted >> n & 1 == 1 { tape.variable(input.clone()) } else { Value::constant(input.clone()) }
    };
    let values: Vec<Value> = inputs.iter().enumerate().map(value).collect();
    let out = function(&values).expect("a result");
    let weights = noise(out.tensor().shape(), 99);
    let numbers: Vec<_> = values.iter().map(|v| v.node().map(Node::number)).collect();
    let node = out.node().expect("the result depends on the inputs");
    let upstream = weights.to_device(out.tensor().device()).expect("moved");
    (backward(node, upstream, &numbers).expect("a backward pass"), weights)
}

/// Compares a gradient with central differences of `score` at some elements of a variable.
///
/// # Panics
/// If they differ.
pub(crate) fn check_elements(
    name: &str,
    variable: &Var,
    gradient: &Tensor,
    elements: &[usize],
    score: impl Fn() -> Result<f64>,
) {
    // A kink (of ReLU or pooling) within a step spoils the difference. A shorter step rarely contains one.
    const STEPS: [f64; 2] = [1e-6, 5e-8];
    let (original, gradient) = (flat(variable), flat(gradient));
    let score_at = |i: usize, offset: f64| {
        let mut moved = original.clone();
        moved[i] += offset;
        let moved = Tensor::from_vec(moved, variable.shape(), &Device::Cpu).expect("the same shape");
        moved
            .to_device(variable.device())
            .and_then(|moved| variable.set(&moved))
            .and_then(|()| score())
            .expect("a forward pass")
    };
    for &i in elements {
        let differences = STEPS.map(|step| (score_at(i, step) - score_at(i, -step)) / (2.0 * step));
        let close = |difference: &f64| (difference - gradient[i]).abs() <= 1e-6 * difference.abs().max(1.0);
        assert!(differences.iter().any(close), "{name}, element {i}: {} for {differences:?}", gradient[i]);
    }
    score_at(elements[0], 0.0);
}
