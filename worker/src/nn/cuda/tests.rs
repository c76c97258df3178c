//! Operators on a card against the same ones in main memory, at sizes that take several blocks, tiles and groups. Their gradients
//! are also held to finite differences, with those of main memory, in each operator's own tests.
//!
//! Without a card there is nothing to compare, and every test passes.

use std::sync::Arc;

use antiphon_core::rng;
use candle_core::{DType, Device, Result, Tensor};

use crate::nn::attention::attention;
use crate::nn::batch_norm::{ChannelStatistics, Origin, batch_norm};
use crate::nn::check::{assert_close, devices, flat, noise};
use crate::nn::convolution::convolution;
use crate::nn::dropout::dropout;
use crate::nn::embedding::{Packed, embedding};
use crate::nn::gelu::gelu;
use crate::nn::layer_norm::layer_norm;
use crate::nn::linear::{Activation, linear};
use crate::nn::pooling::{Window, grid_mean, max_pool};
use crate::nn::segment_mean::segment_mean;
use crate::nn::sequence::with_class_token;
use crate::nn::value::{Place, Tape, Value, backward};

/// The result, then the gradient of each input from the same gradient of the result, all in main memory.
fn outcome(
    inputs: &[Tensor],
    (device, dtype): (&Device, DType),
    function: &impl Fn(&[Value]) -> Result<Value>,
) -> Vec<Tensor> {
    let moved = |tensor: &Tensor| tensor.to_dtype(dtype).and_then(|t| t.to_device(device)).expect("moved");
    let tape = Arc::new(Tape::default());
    let values: Vec<Value> = inputs.iter().map(|input| tape.variable(moved(input))).collect();
    let out = function(&values).expect("a result");
    assert_eq!(out.tensor().dtype(), dtype);
    let numbers: Vec<_> = values.iter().map(|value| value.place().map(Place::number)).collect();
    let upstream = moved(&noise(out.tensor().shape(), 98));
    let gradients = backward(out.place().expect("a place"), upstream, &numbers).expect("a backward pass");
    let all = [out.tensor().clone()].into_iter().chain(gradients.into_iter().map(|g| g.expect("a gradient")));
    all.map(|tensor| tensor.to_device(&Device::Cpu).expect("brought down")).collect()
}

/// # Panics
/// When a card gives something else than main memory, or other bits the second time.
fn check(inputs: &[Tensor], function: impl Fn(&[Value]) -> Result<Value>) {
    for card in devices().iter().filter(|device| device.is_cuda()) {
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 2e-4)] {
            let expected = outcome(inputs, (&Device::Cpu, dtype), &function);
            let got = outcome(inputs, (card, dtype), &function);
            let again = outcome(inputs, (card, dtype), &function);
            for (n, ((got, again), expected)) in got.iter().zip(&again).zip(&expected).enumerate() {
                assert_eq!(flat(got), flat(again), "{dtype:?}, result {n}: other bits the second time");
                assert_close(got, expected, tolerance);
            }
        }
    }
}

#[test]
fn linear_layers() {
    for (rows, inputs, outputs) in [(1, 3, 2), (300, 40, 70), (5, 1, 1)] {
        for activation in [Activation::Identity, Activation::Relu] {
            let all = [noise((rows, inputs), 1), noise((outputs, inputs), 2), noise(outputs, 3)];
            check(&all, |v| linear(&v[0], &v[1], &v[2], activation));
        }
    }
}

#[test]
fn convolutions() {
    let of = |input: (usize, usize, usize, usize), kernel: (usize, usize, usize, usize), stride, padding| {
        check(&[noise(input, 1), noise(kernel, 2)], |v| convolution(&v[0], &v[1], stride, padding));
    };
    of((3, 9, 7, 5), (6, 5, 3, 3), 1, 1);
    of((2, 10, 11, 3), (4, 3, 7, 7), 2, 3);
    of((2, 8, 8, 4), (5, 4, 1, 1), 1, 0);
    of((2, 9, 8, 4), (5, 4, 1, 1), 2, 0);
    of((2, 8, 12, 3), (6, 3, 4, 4), 4, 0);
    of((1, 5, 4, 1), (1, 1, 2, 3), 1, 2);
}

#[test]
fn a_convolution_over_data_has_no_gradient_of_it() {
    for card in devices() {
        let [x, w] = [noise((2, 4, 4, 3), 1), noise((2, 3, 3, 3), 2)].map(|t| t.to_device(&card).expect("moved"));
        let tape = Arc::new(Tape::default());
        let kernel = tape.variable(w);
        let y = convolution(&Value::constant(x), &kernel, 1, 1).expect("it fits");
        let numbers = [kernel.place().map(Place::number)];
        let upstream = noise(y.tensor().shape(), 3).to_device(&card).expect("moved");
        let gradients = backward(y.place().expect("a place"), upstream, &numbers).expect("gradients");
        assert_eq!(gradients[0].as_ref().expect("the kernel's").dims(), [2, 3, 3, 3]);
    }
}

#[test]
fn batch_norms() {
    for shape in [(3, 7, 6, 4), (5, 13, 11, 37), (2, 1, 1, 70)] {
        let all = [noise(shape, 1), noise(shape.3, 2), noise(shape.3, 3), noise(shape, 4)];
        let by_batch = |v: &[Value], residual: Option<&Value>, activation| {
            let statistics = ChannelStatistics::of(v[0].tensor())?;
            batch_norm(&v[0], (&v[1], &v[2]), (&statistics, Origin::Batch), residual, activation)
        };
        check(&all, |v| by_batch(v, Some(&v[3]), Activation::Relu));
        check(&all, |v| by_batch(v, Some(&v[3]), Activation::Identity));
        check(&all[..3], |v| by_batch(v, None, Activation::Relu));
        check(&all[..3], |v| by_batch(v, None, Activation::Identity));
        let [mean, variance] = [5, 6].map(|seed| flat(&noise(shape.3, seed)));
        let known = ChannelStatistics::known(mean, variance.iter().map(|v| v + 1.5).collect(), 1);
        check(&all[..3], |v| batch_norm(&v[0], (&v[1], &v[2]), (&known, Origin::Running), None, Activation::Relu));
    }
}

#[test]
fn statistics_of_a_batch_are_brought_down_together() {
    for card in devices().iter().filter(|device| device.is_cuda()) {
        let inputs = [(40, 30), (500, 3), (1, 1)].map(|shape| (noise(shape, 7) + 3.0).expect("shifted"));
        let of = |device: &Device| -> Vec<ChannelStatistics> {
            let moved = inputs.iter().map(|input| input.to_device(device).expect("moved"));
            moved.map(|input| ChannelStatistics::of(&input).expect("statistics")).collect()
        };
        let got = super::batch_norm::in_memory(of(card)).expect("brought down");
        for (got, expected) in got.iter().zip(&of(&Device::Cpu)) {
            assert_eq!((got.count, got.device.is_none()), (expected.count, true));
            for (got, expected) in [(&got.mean, &expected.mean), (&got.variance, &expected.variance)] {
                assert_eq!(got.len(), expected.len());
                assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12), "{got:?} for {expected:?}");
            }
        }
        let [one, other] = [of(card), of(card)];
        assert_eq!(one, other);
    }
}

#[test]
fn pools() {
    let x = [noise((3, 11, 9, 5), 1)];
    for (size, stride, padding) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 1), (5, 1, 0)] {
        check(&x, |v| max_pool(&v[0], Window { size, stride, padding }));
    }
    for cells in [(1, 1), (2, 4), (11, 9), (8, 8)] {
        check(&x, |v| grid_mean(&v[0], cells));
    }
}

#[test]
fn where_several_are_the_largest_the_first_is_taken() {
    check(&[noise((2, 8, 8, 3), 1).zeros_like().expect("zeros")], |v| {
        max_pool(&v[0], Window { size: 3, stride: 2, padding: 1 })
    });
}

#[test]
fn layer_norms() {
    for (rows, width) in [(1, 1), (3, 5), (70, 300), (300, 33)] {
        let all = [noise((rows, width), 1), noise(width, 2), noise(width, 3)];
        check(&all, |v| layer_norm(&v[0], &v[1], &v[2], 1e-5));
    }
}

#[test]
fn attention_over_texts_of_several_lengths() {
    for starts in [vec![0, 3, 4, 8, 11], vec![0, 300, 301, 601], vec![0, 5, 10, 15]] {
        let starts: Arc<[usize]> = starts.into();
        let rows = starts.last().copied().unwrap_or(0);
        check(&[noise((rows, 3 * 8), 1)], |v| attention(&v[0], 2, &starts));
    }
}

#[test]
fn numbers_one_by_one() {
    let [a, b] = [noise((70, 31), 1), noise((70, 31), 2)].map(|t| (t * 4.0).expect("scaled"));
    check(std::slice::from_ref(&a), |v| gelu(&v[0]));
    check(&[a.clone(), b], |v| v[0].add(&v[1]));
    check(std::slice::from_ref(&a), |v| v[0].add(&v[0])?.add(&v[0]));
    check(&[a], |v| dropout(&v[0], 0.3, &mut rng::stream(3, &[])));
}

#[test]
fn embeddings() {
    let tokens: Vec<u32> = (0..60).map(|i| i * i % 7).collect();
    let texts = Arc::new(Packed::new(&tokens, &[20, 1, 13], 20));
    let all = [noise((9, 35), 1), noise((25, 35), 2), noise((2, 35), 3)];
    check(&all[..2], |v| embedding(&v[0], &v[1], None, &texts));
    check(&all, |v| embedding(&v[0], &v[1], Some(&v[2]), &texts));
}

#[test]
fn means_of_segments() {
    let x = [noise((40, 35), 1)];
    check(&x, |v| segment_mean(&v[0], vec![0..1, 1..39, 39..40]));
    check(&x, |v| segment_mean(&v[0], vec![3..20, 10..12, 5..5]));
}

#[test]
fn sequences_with_a_class_token() {
    for (samples, count, width) in [(2, 3, 4), (7, 16, 35)] {
        let all = [
            noise((samples, count, width), 1),
            noise(width, 2),
            noise((1, 1, width), 3),
            noise((1, 1 + count, width), 4),
        ];
        check(&all, |v| with_class_token(&v[0], &v[1], &v[2], &v[3]));
    }
}
