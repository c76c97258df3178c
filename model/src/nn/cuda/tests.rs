//! Compares operators on a GPU with the same ones in main memory, at sizes with several blocks, tiles and groups. Each
//! operator's own tests also compare gradients with finite differences.
//!
//! Without a GPU, every test passes.

use std::sync::Arc;

use antiphon_core::rng;
use candle_core::{DType, Device, Result, Tensor};

use crate::nn::activation::Activation;
use crate::nn::attention::attention;
use crate::nn::batch_norm::{ChannelStatistics, Origin, batch_norm};
use crate::nn::cast;
use crate::nn::check::{assert_close, bf16_cards, devices, flat, noise};
use crate::nn::convolution::convolution;
use crate::nn::dropout::dropout;
use crate::nn::embedding::{Packed, embedding};
use crate::nn::gelu::gelu;
use crate::nn::layer_norm::layer_norm;
use crate::nn::linear::linear;
use crate::nn::pooling::{Window, grid_mean, max_pool};
use crate::nn::segment_mean::segment_mean;
use crate::nn::sequence::with_class_token;
use crate::nn::value::{Node, Tape, Value, backward};

/// The result, then the gradient of each input from a fixed gradient of the result, all in main memory. Inputs have
/// these types.
fn outcome(
    inputs: &[Tensor],
    (device, dtypes): (&Device, &[DType]),
    function: &impl Fn(&[Value]) -> Result<Value>,
) -> Vec<Tensor> {
    let moved = |tensor: &Tensor, dtype| tensor.to_dtype(dtype).and_then(|t| t.to_device(device)).expect("moved");
    let tape = Arc::new(Tape::default());
    let values: Vec<Value> =
        inputs.iter().zip(dtypes).map(|(input, dtype)| tape.variable(moved(input, *dtype))).collect();
    let out = function(&values).expect("a result");
    assert_eq!(out.tensor().dtype(), dtypes[0]);
    let numbers: Vec<_> = values.iter().map(|value| value.node().map(Node::number)).collect();
    let upstream = moved(&rounded(&noise(out.tensor().shape(), 98)), dtypes[0]);
    let gradients = backward(out.node().expect("a node"), upstream, &numbers).expect("a backward pass");
    let gradients: Vec<Tensor> = gradients.into_iter().map(|gradient| gradient.expect("a gradient")).collect();
    assert!(
        gradients.iter().map(Tensor::dtype).eq(dtypes.iter().copied()),
        "gradients are of the types of their inputs"
    );
    let all = [out.tensor().clone()].into_iter().chain(gradients);
    all.map(|tensor| tensor.to_device(&Device::Cpu).expect("brought down")).collect()
}

/// The numbers rounded to bf16, in their own type.
fn rounded(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::BF16).and_then(|narrow| narrow.to_dtype(tensor.dtype())).expect("rounded")
}

/// Runs it twice on a GPU.
///
/// # Panics
/// If the second run gives different bits.
fn twice(
    inputs: &[Tensor],
    (card, dtypes): (&Device, &[DType]),
    function: &impl Fn(&[Value]) -> Result<Value>,
) -> Vec<Tensor> {
    let [got, again] = [(); 2].map(|()| outcome(inputs, (card, dtypes), function));
    for (n, (got, again)) in got.iter().zip(&again).enumerate() {
        assert_eq!(flat(got), flat(again), "{dtypes:?}, result {n}: other bits the second time");
    }
    got
}

fn cards() -> impl Iterator<Item = Device> {
    devices().into_iter().filter(Device::is_cuda)
}

/// # Panics
/// If the GPU differs from main memory, or a second run gives different bits.
fn check(inputs: &[Tensor], function: impl Fn(&[Value]) -> Result<Value>) {
    for card in cards() {
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 2e-4)] {
            let dtypes = vec![dtype; inputs.len()];
            let expected = outcome(inputs, (&Device::Cpu, &dtypes), &function);
            let got = twice(inputs, (&card, &dtypes), &function);
            got.iter().zip(&expected).for_each(|(got, expected)| assert_close(got, expected, tolerance));
        }
    }
}

/// The largest relative error of rounding to bf16.
const ROUNDING: f64 = 1.0 / 256.0;

/// As [`check`], where those inputs of which `flowing` has the numbers are in bf16 and the others, parameters, in f32.
/// Main memory has the same numbers in f32, each one that bf16 has. Each bf16 result was rounded at most `roundings`
/// times, relative to the largest number of its tensor. Gradients of parameters were not rounded.
fn check_bf16(inputs: &[Tensor], flowing: &[usize], roundings: u32, function: impl Fn(&[Value]) -> Result<Value>) {
    let inputs: Vec<Tensor> = inputs.iter().map(rounded).collect();
    let dtype = |n: usize| if flowing.contains(&n) { DType::BF16 } else { DType::F32 };
    let dtypes: Vec<DType> = (0..inputs.len()).map(dtype).collect();
    for card in bf16_cards() {
        let expected = outcome(&inputs, (&Device::Cpu, &vec![DType::F32; inputs.len()]), &function);
        let got = twice(&inputs, (&card, &dtypes), &function);
        for (n, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let tolerance = if got.dtype() == DType::BF16 { f64::from(roundings) * ROUNDING } else { 2e-4 };
            assert_within(tolerance, &format!("bf16, result {n}"), got, expected);
        }
    }
}

/// # Panics
/// If numbers differ by more than this fraction of the largest number.
fn assert_within(tolerance: f64, what: &str, got: &Tensor, expected: &Tensor) {
    let (got, expected) = (flat(got), flat(expected));
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * largest, "{what}, value {i}: {got} for {expected} of {largest}");
    }
}

/// As [`check`], and as [`check_bf16`] where each result is rounded once.
fn check_all(inputs: &[Tensor], flowing: &[usize], function: impl Fn(&[Value]) -> Result<Value>) {
    check(inputs, &function);
    check_bf16(inputs, flowing, 1, function);
}

#[test]
fn linear_layers() {
    for (rows, inputs, outputs) in [(1, 3, 2), (300, 40, 70), (5, 1, 1)] {
        for activation in [Activation::Identity, Activation::Relu] {
            let all = [noise((rows, inputs), 1), noise((outputs, inputs), 2), noise(outputs, 3)];
            check(&all, |v| linear(&v[0], &v[1], &v[2], activation));
        }
        // The product is rounded, and so is its sum with the bias.
        let mut all = [noise((rows, inputs), 1), noise((outputs, inputs), 2), noise(outputs, 3)];
        check_bf16(&all, &[0], 2, |v| linear(&v[0], &v[1], &v[2], Activation::Identity));
        // So that rounding does not decide the sign of any sum.
        let far = (0..outputs).map(|n| if n % 2 == 0 { 64.0 } else { -64.0 });
        all[2] = Tensor::from_iter(far, &Device::Cpu).expect("biases");
        check_bf16(&all, &[0], 2, |v| linear(&v[0], &v[1], &v[2], Activation::Relu));
    }
}

#[test]
fn convolutions() {
    let of = |input: (usize, usize, usize, usize), kernel: (usize, usize, usize, usize), stride, padding| {
        let all = [noise(input, 1), noise(kernel, 2)];
        check(&all, |v| convolution(&v[0], &v[1], stride, padding));
        check_convolution_bf16(&all, stride, padding);
    };
    of((3, 9, 7, 5), (6, 5, 3, 3), 1, 1);
    of((2, 10, 11, 3), (4, 3, 7, 7), 2, 3);
    of((2, 8, 8, 4), (5, 4, 1, 1), 1, 0);
    of((2, 9, 8, 4), (5, 4, 1, 1), 2, 0);
    of((2, 8, 12, 3), (6, 3, 4, 4), 4, 0);
    of((1, 5, 4, 1), (1, 1, 2, 3), 1, 2);
}

/// Without cuDNN the terms of a position's gradient are rounded before they are added up. With it the kernel's gradient
/// is rounded.
fn check_convolution_bf16(all: &[Tensor; 2], stride: usize, padding: usize) {
    let taps = all[1].dims()[2..].iter().product::<usize>() as u32;
    let function = |v: &[Value]| convolution(&v[0], &v[1], stride, padding);
    if cfg!(not(feature = "cudnn")) {
        return check_bf16(all, &[0], 1 + taps, function);
    }
    let all = all.each_ref().map(rounded);
    for card in bf16_cards() {
        let expected = outcome(&all, (&Device::Cpu, &[DType::F32; 2]), &function);
        let got = twice(&all, (&card, &[DType::BF16, DType::F32]), &function);
        for (n, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_within(ROUNDING, &format!("bf16 by cuDNN, result {n}"), got, expected);
        }
    }
}

#[test]
fn a_convolution_over_data_has_no_gradient_of_it() {
    for card in devices() {
        let [x, w] = [noise((2, 4, 4, 3), 1), noise((2, 3, 3, 3), 2)].map(|t| t.to_device(&card).expect("moved"));
        let tape = Arc::new(Tape::default());
        let kernel = tape.variable(w);
        let y = convolution(&Value::constant(x), &kernel, 1, 1).expect("it fits");
        let numbers = [kernel.node().map(Node::number)];
        let upstream = noise(y.tensor().shape(), 3).to_device(&card).expect("moved");
        let gradients = backward(y.node().expect("a node"), upstream, &numbers).expect("gradients");
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
        check_all(&all, &[0, 3], |v| by_batch(v, Some(&v[3]), Activation::Relu));
        check_all(&all, &[0, 3], |v| by_batch(v, Some(&v[3]), Activation::Identity));
        check_all(&all[..3], &[0], |v| by_batch(v, None, Activation::Relu));
        check_all(&all[..3], &[0], |v| by_batch(v, None, Activation::Identity));
        let [mean, variance] = [5, 6].map(|seed| flat(&noise(shape.3, seed)));
        let known = ChannelStatistics::known(mean, variance.iter().map(|v| v + 1.5).collect(), 1);
        let by_known =
            |v: &[Value]| batch_norm(&v[0], (&v[1], &v[2]), (&known, Origin::Running), None, Activation::Relu);
        check_all(&all[..3], &[0], by_known);
    }
}

#[test]
fn statistics_of_a_batch_are_brought_down_together() {
    for card in &cards().collect::<Vec<_>>() {
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
        check_all(&x, &[0], |v| max_pool(&v[0], Window { size, stride, padding }));
    }
    for cells in [(1, 1), (2, 4), (11, 9), (8, 8)] {
        check_all(&x, &[0], |v| grid_mean(&v[0], cells));
    }
}

#[test]
fn where_several_are_the_largest_the_first_is_taken() {
    check_all(&[noise((2, 8, 8, 3), 1).zeros_like().expect("zeros")], &[0], |v| {
        max_pool(&v[0], Window { size: 3, stride: 2, padding: 1 })
    });
}

#[test]
fn layer_norms() {
    for (rows, width) in [(1, 1), (3, 5), (70, 300), (300, 33)] {
        let all = [noise((rows, width), 1), noise(width, 2), noise(width, 3)];
        check_all(&all, &[0], |v| layer_norm(&v[0], &v[1], &v[2], 1e-5));
    }
}

#[test]
fn attention_over_texts_of_several_lengths() {
    for starts in [vec![0, 3, 4, 8, 11], vec![0, 300, 301, 601], vec![0, 5, 10, 15]] {
        let starts: Arc<[usize]> = starts.into();
        let rows = starts.last().copied().unwrap_or(0);
        // Heads of 4 numbers, which are not aligned for products in bf16, and of 8.
        for width in [8, 16] {
            let all = [noise((rows, 3 * width), 1)];
            check(&all, |v| attention(&v[0], 2, &starts));
            // Probabilities and the gradients of scores are rounded as factors, and so is each result.
            check_bf16(&all, &[0], 3, |v| attention(&v[0], 2, &starts));
        }
    }
}

#[test]
fn numbers_one_by_one() {
    let [a, b] = [noise((70, 31), 1), noise((70, 31), 2)].map(|t| (t * 4.0).expect("scaled"));
    check_all(std::slice::from_ref(&a), &[0], |v| gelu(&v[0]));
    check_all(&[a.clone(), b], &[0, 1], |v| v[0].add(&v[1]));
    check(std::slice::from_ref(&a), |v| v[0].add(&v[0])?.add(&v[0]));
    check_bf16(std::slice::from_ref(&a), &[0], 2, |v| v[0].add(&v[0])?.add(&v[0]));
    check_all(&[a], &[0], |v| dropout(&v[0], 0.3, &mut rng::stream(3, &[])));
}

#[test]
fn embeddings() {
    let tokens: Vec<u32> = (0..60).map(|i| i * i % 7).collect();
    let sequences = Arc::new(Packed::new(&tokens, &[20, 1, 13], 20));
    let all = [noise((9, 35), 1), noise((25, 35), 2), noise((2, 35), 3)];
    check(&all[..2], |v| embedding(&v[0], &v[1], None, &sequences));
    check(&all, |v| embedding(&v[0], &v[1], Some(&v[2]), &sequences));
}

#[test]
fn means_of_segments() {
    let x = [noise((40, 35), 1)];
    check_all(&x, &[0], |v| segment_mean(&v[0], vec![0..1, 1..39, 39..40]));
    check_all(&x, &[0], |v| segment_mean(&v[0], vec![3..20, 10..12, 5..5]));
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
        check_all(&all, &[0], |v| with_class_token(&v[0], &v[1], &v[2], &v[3]));
    }
}

/// Numbers, and the bits of their roundings to bf16.
const ROUNDED: [(f32, u16); 11] = [
    (0.0, 0),
    (-0.0, 0x8000),
    (1.0, 0x3f80),
    // Halfway between two neighbours, the even one is chosen.
    (1.0 + 1.0 / 256.0, 0x3f80),
    (1.0 + 3.0 / 256.0, 0x3f82),
    (1.003_906_4, 0x3f81),
    (-3.2, 0xc04d),
    (f32::MAX, 0x7f80),
    (f32::INFINITY, 0x7f80),
    (f32::NEG_INFINITY, 0xff80),
    // A denormal number.
    (1e-40, 0x0001),
];

#[test]
fn numbers_become_the_nearest_of_16_bits() {
    for card in bf16_cards() {
        let wide: Vec<f32> = ROUNDED.iter().map(|(wide, _)| *wide).chain([f32::NAN]).collect();
        let x = Value::constant(Tensor::new(wide, &card).expect("numbers"));
        let narrow = cast::narrow(&x).expect("a GPU narrows").tensor().to_vec1::<half::bf16>().expect("bf16");
        for (got, (wide, bits)) in narrow.iter().zip(ROUNDED) {
            assert_eq!(got.to_bits(), bits, "{wide}: {got}");
        }
        assert!(narrow[ROUNDED.len()].is_nan());
    }
}

#[test]
fn what_was_widened_is_the_same_and_gradients_go_back_likewise() {
    for card in bf16_cards() {
        let tape = Arc::new(Tape::default());
        let narrow = noise((70, 31), 1).to_dtype(DType::BF16).and_then(|x| x.to_device(&card)).expect("moved");
        let x = tape.variable(narrow.clone());
        let wide = cast::widen(&x).expect("a GPU widens");
        assert_eq!((wide.tensor().dtype(), flat(wide.tensor())), (DType::F32, flat(&narrow)));
        let y = cast::narrow(&wide).expect("a GPU narrows");
        let gradients = backward(y.node().expect("a node"), narrow.clone(), &[x.node().map(Node::number)]);
        let gradient = gradients.expect("a backward pass")[0].take().expect("a gradient");
        assert_eq!((gradient.dtype(), flat(&gradient)), (DType::BF16, flat(&narrow)));
    }
}
