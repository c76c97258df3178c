use std::collections::BTreeMap;

use antiphon_core::ids::MicroShard;
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{BertSize, Pooling, ResnetDepth, TransformerSize, VitSize};
use antiphon_data::{BatchInput, Decoded};
use candle_core::Tensor;

use super::*;
use crate::nn::check::{assert_close, bf16_cards, check_elements, devices, flat, noise};

fn modality() -> ModalityName {
    ModalityName::try_from("audio").expect("a name")
}

pub(super) fn train(step: u64) -> Mode {
    Mode::Train(DropoutKey { seed: 5, modality: modality(), step, shard: MicroShard::WHOLE }, Frozen::none())
}

/// An encoder to test, with its input shape.
pub(super) struct Case {
    pub(super) name: &'static str,
    network: Network,
    pub(super) shape: InputShape,
}

/// A network that a job can name, or a small version of a network that jobs can have only in large sizes.
#[derive(Clone)]
enum Network {
    Spec(EncoderSpec),
    Resnet(resnet::Plan),
    Vit(vit::Plan),
    Bert(bert::Plan),
}

/// Every kind, with dropout, with and without an adapter (s = 6).
pub(super) fn cases() -> Vec<Case> {
    let features = InputShape::Features { width: 7 };
    let grid = InputShape::Grid { channels: 2, height: 9, width: 6 };
    let tokens = InputShape::Tokens { vocabulary: 11, max_tokens: 9, padding: 10 };
    let mlp = |hidden: &[u32]| EncoderSpec::Mlp { hidden: hidden.to_vec(), dropout: 0.2 };
    let text = |width| EncoderSpec::Text { width, layers: 2, heads: 2, dropout: 0.2 };
    let cnn = EncoderSpec::Cnn { channels: vec![3, 4], dropout: 0.2 };
    let pixels = InputShape::Grid { channels: 3, height: 17, width: 24 };
    let size = TransformerSize { width: 8, layers: 2, heads: 2 };
    let vit = |pooling| Network::Vit(vit::Plan { size, patch: 8, pooling, dropout: 0.1 });
    let bert = |pooling| Network::Bert(bert::Plan { size, pooling, dropout: 0.1 });
    let resnet = |bottlenecks| {
        let (kind, channels) = ("resnet", [4, 4, 6, WIDTH]);
        Network::Resnet(resnet::Plan { kind, bottlenecks, blocks: [1, 2, 1, 1], channels })
    };
    let small = InputShape::Clip { frames: 3, channels: 2, height: 9, width: 6 };
    let clip = InputShape::Clip { frames: 2, channels: 3, height: 17, width: 24 };
    let of = |name, network, shape: &InputShape| Case { name, network, shape: shape.clone() };
    let case = |name, spec, shape: &InputShape| of(name, Network::Spec(spec), shape);
    vec![
        case("mlp", mlp(&[8, 5]), &features),
        case("mlp without adapter", mlp(&[6]), &features),
        case("mlp without hidden layers", mlp(&[]), &features),
        case("mlp over a grid", mlp(&[5]), &grid),
        case("cnn", cnn.clone(), &grid),
        case("text", text(4), &tokens),
        case("text without adapter", text(6), &tokens),
        of("resnet without adapter", resnet(false), &pixels),
        of("resnet of bottlenecks", resnet(true), &pixels),
        of("vit", vit(Pooling::Cls), &pixels),
        of("vit, mean", vit(Pooling::Mean), &pixels),
        of("bert", bert(Pooling::Cls), &tokens),
        of("bert, mean", bert(Pooling::Mean), &tokens),
        case("mlp over a clip", mlp(&[5]), &small),
        case("mlp over a clip without hidden layers", mlp(&[]), &small),
        case("cnn over a clip", cnn, &small),
        of("resnet over a clip", resnet(false), &clip),
        of("vit over a clip", vit(Pooling::Cls), &clip),
    ]
}

/// One encoder of each kind, without dropout, and wide enough that normalisations do not amplify rounding errors.
pub(super) fn wide_cases() -> Vec<Case> {
    let tokens = InputShape::Tokens { vocabulary: 50, max_tokens: 12, padding: 49 };
    let pixels = InputShape::Grid { channels: 3, height: 48, width: 48 };
    let size = TransformerSize { width: 64, layers: 2, heads: 4 };
    let (pooling, dropout) = (Pooling::Mean, 0.0);
    let resnet = resnet::Plan { kind: "resnet", bottlenecks: false, blocks: [1, 1, 1, 1], channels: [16, 16, 32, 32] };
    let cases = [
        ("mlp", Network::Spec(EncoderSpec::Mlp { hidden: vec![64, 64], dropout }), InputShape::Features { width: 32 }),
        ("cnn", Network::Spec(EncoderSpec::Cnn { channels: vec![16, 32], dropout }), pixels.clone()),
        ("text", Network::Spec(EncoderSpec::Text { width: 64, layers: 2, heads: 4, dropout }), tokens.clone()),
        ("resnet", Network::Resnet(resnet), pixels.clone()),
        ("vit", Network::Vit(vit::Plan { size, patch: 8, pooling, dropout }), pixels),
        ("bert", Network::Bert(bert::Plan { size, pooling, dropout }), tokens),
    ];
    cases.into_iter().map(|(name, network, shape)| Case { name, network, shape }).collect()
}

const WIDTH: usize = 6;

fn built(case: &Case, numbers: impl Into<Numbers>) -> Box<dyn Encoder> {
    built_on(case, numbers, &Device::Cpu)
}

pub(super) fn built_on(case: &Case, numbers: impl Into<Numbers>, device: &Device) -> Box<dyn Encoder> {
    let (modality, numbers) = (modality(), numbers.into());
    let made = Parameters::new(1, &modality, numbers, device);
    let built: Result<Box<dyn Encoder>, EncoderError> = match &case.network {
        Network::Spec(spec) => build_of(numbers, spec, &case.shape, WIDTH, 1, &modality, device),
        Network::Resnet(plan) => resnet::Resnet::new(made, *plan, &case.shape, WIDTH).map(|e| Box::new(e) as _),
        Network::Vit(plan) => vit::Vit::new(made, *plan, &case.shape, WIDTH).map(|e| Box::new(e) as _),
        Network::Bert(plan) => bert::Bert::new(made, *plan, &case.shape, WIDTH).map(|e| Box::new(e) as _),
    };
    built.expect(case.name)
}

/// Samples `range` of an endless sequence.
pub(super) fn batch(shape: &InputShape, range: std::ops::Range<usize>) -> BatchInput {
    let samples = range.map(|i| match *shape {
        InputShape::Tokens { vocabulary, max_tokens, .. } => {
            let length = 1 + (i * 5) % max_tokens;
            Decoded::Tokens((0..length).map(|t| ((i * 31 + t * 7 + t * t) % (vocabulary - 1)) as u32).collect())
        }
        _ => Decoded::Dense(flat(&noise(shape.size(), 100 + i as u64)).into_iter().map(|v| v as f32).collect()),
    });
    BatchInput::stack(shape, samples.collect())
}

#[test]
fn every_parameter_gets_the_gradient_of_finite_differences() {
    for case in cases() {
        let encoder = built(&case, Numbers::F64);
        let input = batch(&case.shape, 0..5);
        let forward = encoder.forward(&input, &train(3)).expect(case.name);
        let upstream = noise(forward.features.shape(), 9);
        let gradients = backward_tensor(encoder.parameters(), &forward, &upstream).expect(case.name);
        for ((name, variable), gradient) in encoder.parameters().iter().zip(gradients.tensors().iter().flatten()) {
            let elements: Vec<usize> = (0..variable.elem_count()).step_by(1 + variable.elem_count() / 12).collect();
            check_elements(&format!("{}: {name}", case.name), variable, gradient, &elements, || {
                let forward = encoder.forward(&input, &train(3)).map_err(candle_core::Error::wrap)?;
                (forward.features * &upstream)?.sum_all()?.to_scalar()
            });
        }
    }
}

#[test]
fn no_gradient_is_zero_throughout() {
    for case in cases() {
        let encoder = built(&case, Precision::F32);
        let forward = encoder.forward(&batch(&case.shape, 0..16), &train(0)).expect(case.name);
        let upstream = noise(forward.features.shape(), 9);
        let gradients = backward_tensor(encoder.parameters(), &forward, &upstream).expect(case.name);
        assert!(!encoder.parameters().is_empty());
        for ((name, variable), gradient) in encoder.parameters().iter().zip(gradients.tensors().iter().flatten()) {
            assert_eq!(variable.dims(), gradient.dims(), "{}: {name}", case.name);
            assert!(flat(gradient).iter().any(|g| g.abs() > 1e-6), "{}: {name}", case.name);
        }
    }
}

#[test]
fn frozen_parameters_get_no_gradient_and_the_rest_the_same_bits() {
    let in_bf16 = bf16_cards().map(|card| (card, Precision::Bf16));
    let everywhere: Vec<_> = devices().into_iter().map(|device| (device, Precision::F32)).chain(in_bf16).collect();
    for (at, case) in everywhere.iter().flat_map(|at| cases().into_iter().map(move |case| (at, case))) {
        let encoder = built_on(&case, at.1, &at.0);
        let input = batch(&case.shape, 0..7);
        let pass = |frozen: Frozen| {
            let Mode::Train(key, _) = train(3) else { unreachable!("it trains") };
            let forward = encoder.forward(&input, &Mode::Train(key, frozen)).expect(case.name);
            let steps = forward.steps();
            let upstream = noise(forward.features.shape(), 9);
            let gradients = backward_tensor(encoder.parameters(), &forward, &upstream).expect(case.name);
            let gradients: Vec<_> = gradients.tensors().iter().map(|gradient| gradient.as_ref().map(bits)).collect();
            (bits(&forward.features), forward.pending, steps, gradients)
        };
        let (features, pending, steps, whole) = pass(Frozen::none());
        let parameters = || encoder.parameters().iter().map(|(_, variable)| variable);
        let count = parameters().count();
        let stem = Frozen::new(parameters().take(count.div_ceil(2)));
        let scattered = Frozen::new(parameters().step_by(3));
        let all = Frozen::new(parameters());
        // A single layer has no layers before it.
        for (frozen, begins_later) in [(stem, count > 2), (scattered, false), (all, true)] {
            let (same_features, same_pending, fewer, some) = pass(frozen.clone());
            assert_eq!((&same_features, &same_pending), (&features, &pending), "{}", case.name);
            assert!(if begins_later { fewer < steps } else { fewer <= steps }, "{}: {fewer} of {steps}", case.name);
            for (n, variable) in parameters().enumerate() {
                let expected = whole[n].as_ref().filter(|_| !frozen.contains(variable));
                assert_eq!(some[n].as_ref(), expected, "{}: {}", case.name, encoder.parameters()[n].0);
            }
        }
    }
}

/// The bits of a tensor in f32.
fn bits(tensor: &Tensor) -> Vec<u32> {
    let flat = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
    flat.into_iter().map(f32::to_bits).collect()
}

fn state_bits(encoder: &dyn Encoder) -> Vec<(String, Vec<u32>)> {
    state(encoder).expect("state").into_iter().map(|(name, tensor)| (name, bits(&tensor))).collect()
}

/// Forward, backward with a fixed upstream gradient, a plain step along it, commit. Returns the features' bits.
fn step(encoder: &mut dyn Encoder, input: &BatchInput, number: u64) -> Vec<u32> {
    let forward = encoder.forward(input, &train(number)).expect("a forward pass");
    let upstream = noise(forward.features.shape(), number);
    let gradients = backward_tensor(encoder.parameters(), &forward, &upstream).expect("a backward pass");
    for ((_, variable), gradient) in encoder.parameters().iter().zip(gradients.tensors().iter().flatten()) {
        let moved = (variable.as_tensor() - (gradient * 0.01).expect("scaled")).expect("moved");
        variable.set(&moved.detach()).expect("set");
    }
    let out = bits(&forward.features);
    encoder.commit(forward.pending);
    out
}

#[test]
fn a_forward_pass_changes_nothing() {
    for case in cases() {
        let encoder = built(&case, Precision::F32);
        let input = batch(&case.shape, 0..7);
        let before = state_bits(encoder.as_ref());
        let first = encoder.forward(&input, &train(1)).expect(case.name);
        encoder.forward(&batch(&case.shape, 7..9), &train(2)).expect(case.name);
        encoder.forward(&input, &Mode::Evaluate).expect(case.name);
        let again = encoder.forward(&input, &train(1)).expect(case.name);
        assert_eq!(bits(&first.features), bits(&again.features), "{}", case.name);
        assert_eq!(first.pending, again.pending, "{}", case.name);
        assert_eq!(before, state_bits(encoder.as_ref()), "{}", case.name);
    }
}

#[test]
fn dropout_differs_from_step_to_step_and_is_off_in_evaluation() {
    let drops =
        |case: &Case| !case.name.contains("without hidden layers") && !matches!(case.network, Network::Resnet(_));
    for case in cases().into_iter().filter(drops) {
        let encoder = built(&case, Precision::F32);
        let input = batch(&case.shape, 0..7);
        let features = |mode: &Mode| bits(&encoder.forward(&input, mode).expect(case.name).features);
        assert_ne!(features(&train(1)), features(&train(2)), "{}", case.name);
        assert_eq!(features(&Mode::Evaluate), features(&Mode::Evaluate), "{}", case.name);
    }
}

#[test]
fn in_evaluation_a_sample_has_the_same_bits_whatever_it_is_with() {
    for case in cases() {
        let mut encoder = built(&case, Precision::F32);
        step(encoder.as_mut(), &batch(&case.shape, 50..60), 0);
        let features = |range| {
            let forward = encoder.forward(&batch(&case.shape, range), &Mode::Evaluate).expect(case.name);
            assert_eq!(forward.pending, Pending::default(), "{}", case.name);
            bits(&forward.features)
        };
        let all = features(0..150);
        for (first, count) in [(0, 1), (1, 64), (64, 65), (148, 2)] {
            assert_eq!(features(first..first + count), all[first * WIDTH..(first + count) * WIDTH], "{}", case.name);
        }
    }
}

#[test]
fn the_features_of_a_clip_are_the_mean_of_those_of_its_frames() {
    for clip in cases() {
        let InputShape::Clip { frames, channels, height, width } = clip.shape else { continue };
        let shape = InputShape::Grid { channels, height, width };
        let image = Case { name: clip.name, network: clip.network.clone(), shape };
        let inputs = |first: usize| {
            let BatchInput::Dense { shape, data } = batch(&clip.shape, first..first + 6) else {
                unreachable!("clips are dense")
            };
            let images = BatchInput::Dense { shape: vec![6 * frames, channels, height, width], data: data.clone() };
            (BatchInput::Dense { shape, data }, images)
        };
        let (mut of_clips, mut of_images) = (built(&clip, Numbers::F64), built(&image, Numbers::F64));
        let (clips, images) = inputs(0);
        let trained = [(&of_clips, &clips), (&of_images, &images)]
            .map(|(encoder, input)| encoder.forward(input, &train(0)).expect(clip.name).pending);
        assert_eq!(trained[0], trained[1], "{}: a batch norm sees every frame", clip.name);
        let [of_clip, of_image] = trained;
        of_clips.commit(of_clip);
        of_images.commit(of_image);
        let (clips, images) = inputs(6);
        let features = |encoder: &dyn Encoder, input: &BatchInput| {
            encoder.forward(input, &Mode::Evaluate).expect(clip.name).features
        };
        let each = features(of_images.as_ref(), &images).reshape((6, frames, WIDTH)).expect("frame by frame");
        assert_close(&features(of_clips.as_ref(), &clips), &each.mean(1).expect("a mean"), 1e-12);
    }
}

#[test]
fn padding_is_never_read() {
    let case = cases().into_iter().find(|case| case.name == "text").expect("there is one");
    let encoder = built(&case, Precision::F32);
    let features = |input: &BatchInput| bits(&encoder.forward(input, &train(1)).expect("a forward pass").features);
    let padded = |filler: u32| BatchInput::Tokens { ids: vec![1, 2, filler, 3, 4, 5], lengths: vec![2, 3], longest: 3 };
    assert_eq!(features(&padded(10)), features(&padded(7)));
}

#[test]
fn running_statistics_are_those_of_committed_batches_only() {
    let case = cases().into_iter().find(|case| case.name == "cnn").expect("there is one");
    let mut encoder = built(&case, Precision::F32);
    let mut untouched = built(&case, Precision::F32);
    let ahead = encoder.forward(&batch(&case.shape, 0..8), &train(0)).expect("a forward pass");
    assert_eq!(state_bits(encoder.as_ref()), state_bits(untouched.as_ref()));
    let mean = ahead.pending.0[0].mean.clone();
    encoder.commit(ahead.pending);
    let buffers = encoder.buffers().expect("buffers");
    assert_eq!(buffers[0].0, "stages.0.norm.running_mean");
    for (running, batch) in flat(&buffers[0].1).iter().zip(&mean) {
        assert!((running - 0.1 * batch).abs() < 1e-7, "{running} after a batch of mean {batch}");
    }
    untouched.commit(Pending::default());
    assert_ne!(state_bits(encoder.as_ref()), state_bits(untouched.as_ref()));
}

#[test]
fn the_first_parameters_depend_on_seed_and_modality() {
    let (spec, shape) = (EncoderSpec::Cnn { channels: vec![3, 4], dropout: 0.2 }, &cases()[4].shape);
    let of = |seed, modality: &str| {
        let modality = ModalityName::try_from(modality).expect("a name");
        let encoder = build(Precision::F32, &spec, shape, WIDTH, seed, &modality, &Device::Cpu).expect("an encoder");
        state_bits(encoder.as_ref())
    };
    assert_eq!(of(1, "audio"), of(1, "audio"));
    assert_ne!(of(1, "audio"), of(2, "audio"));
    assert_ne!(of(1, "audio"), of(1, "image"));
}

#[test]
fn a_restored_encoder_continues_with_the_same_bits() {
    for case in cases() {
        let mut encoder = built(&case, Precision::F32);
        let input = |n: usize| batch(&case.shape, 10 * n..10 * n + 10);
        (0..3).for_each(|n| drop(step(encoder.as_mut(), &input(n), n as u64)));
        let saved: BTreeMap<_, _> = state(encoder.as_ref()).expect("state").into_iter().collect();
        let expected: Vec<_> = (3..6).map(|n| step(encoder.as_mut(), &input(n), n as u64)).collect();
        let mut second = built(&case, Precision::F32);
        restore(second.as_mut(), &saved).expect("restored");
        let got: Vec<_> = (3..6).map(|n| step(second.as_mut(), &input(n), n as u64)).collect();
        assert_eq!(got, expected, "{}", case.name);
        assert_eq!(state_bits(second.as_ref()), state_bits(encoder.as_ref()), "{}", case.name);
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_changes_nothing() {
    let case = &cases()[4];
    let mut encoder = built(case, Precision::F32);
    let before = state_bits(encoder.as_ref());
    let mut saved: BTreeMap<_, _> = state(encoder.as_ref()).expect("state").into_iter().collect();
    for tensor in saved.values_mut() {
        *tensor = (&*tensor + 1.0).expect("other values");
    }
    let name = "stages.1.norm.running_var";
    let mut message = |tensor: Option<Tensor>| {
        match tensor {
            Some(tensor) => saved.insert(name.to_owned(), tensor),
            None => saved.remove(name),
        };
        let message = restore(encoder.as_mut(), &saved).expect_err("it does not fit").to_string();
        assert_eq!(before, state_bits(encoder.as_ref()));
        message
    };
    let end = "the checkpoint belongs to another encoder or optimizer";
    let short = Tensor::zeros(3, DType::F32, &Device::Cpu).expect("zeros");
    assert_eq!(message(Some(short)), format!("saved tensor `{name}`: it is F32 [3], not F32 [4]; {end}"));
    assert_eq!(message(None), format!("saved tensor `{name}`: it is missing; {end}"));
}

#[test]
fn bf16_is_refused_in_main_memory() {
    let (spec, shape) = (EncoderSpec::Auto, InputShape::Features { width: 8 });
    let error = build(Precision::Bf16, &spec, &shape, 8, 0, &modality(), &Device::Cpu).map(|_| ()).expect_err("no GPU");
    assert_eq!(
        error.to_string(),
        "`precision: bf16` needs a GPU of the Ampere generation (8.0) or later, but this device is the CPU; train on such \
         a GPU (`--device cuda`), or leave `precision` at f32"
    );
}

#[test]
fn an_encoder_that_does_not_fit_its_input_is_refused() {
    let grid = InputShape::Grid { channels: 1, height: 28, width: 7 };
    let tokens = InputShape::Tokens { vocabulary: 257, max_tokens: 64, padding: 256 };
    let features = InputShape::Features { width: 8 };
    let cnn = |stages| EncoderSpec::Cnn { channels: vec![4; stages], dropout: 0.0 };
    let text = |heads| EncoderSpec::Text { width: 16, layers: 1, heads, dropout: 0.0 };
    let mlp = EncoderSpec::Mlp { hidden: vec![], dropout: 0.0 };
    let message = |spec, shape| {
        let error = build(Precision::F32, &spec, shape, 8, 0, &modality(), &Device::Cpu)
            .map(|_| ())
            .expect_err("it does not fit");
        error.to_string()
    };
    assert_eq!(message(cnn(2), &features), "encoder `cnn` cannot read features of width 8; use `mlp`");
    assert_eq!(message(cnn(2), &tokens), "encoder `cnn` cannot read texts of up to 64 tokens out of 257; use `text`");
    assert_eq!(message(mlp, &tokens), "encoder `mlp` cannot read texts of up to 64 tokens out of 257; use `text`");
    assert_eq!(message(text(2), &grid), "encoder `text` cannot read grids of 1 × 28 × 7; use `mlp` or `cnn`");
    assert_eq!(
        message(text(3), &tokens),
        "encoder `text` has width 16 and 3 heads; use a width that is a multiple of the heads"
    );
    assert_eq!(
        message(cnn(3), &grid),
        "encoder `cnn` has 3 stages, which halve height and width each, but its input is only 28 × 7; \
         use at most 2 entries in `channels`, or a larger input"
    );
}

#[test]
fn a_batch_of_another_shape_is_refused() {
    let refused = |case: &Case, input: &BatchInput| {
        let error = built(case, Precision::F32).forward(input, &Mode::Evaluate).expect_err("another shape");
        error.to_string()
    };
    let cases = cases();
    let (cnn, text) = (&cases[4], &cases[5]);
    assert_eq!(
        refused(cnn, &batch(&InputShape::Features { width: 3 }, 0..2)),
        "the encoder received a batch of shape [2, 3], but it reads grids of 2 × 9 × 6"
    );
    assert_eq!(
        refused(cnn, &batch(&text.shape, 0..2)),
        "the encoder received a batch of texts, but it reads grids of 2 × 9 × 6"
    );
    let tokens = |ids: Vec<u32>, lengths: Vec<u32>, longest| BatchInput::Tokens { ids, lengths, longest };
    let reads = "but it reads texts of up to 9 tokens out of 11";
    let unknown = tokens(vec![1, 11], vec![2], 2);
    assert_eq!(refused(text, &unknown), format!("the encoder received a batch of sequences with token 11, {reads}"));
    let short = tokens(vec![1, 2], vec![2, 2], 2);
    assert_eq!(
        refused(text, &short),
        format!("the encoder received a batch of 2 ids for 2 sequences of up to 2 tokens, {reads}")
    );
    let empty = tokens(vec![1, 2], vec![0, 2], 1);
    assert_eq!(
        refused(text, &empty),
        format!("the encoder received a batch of 2 ids for 2 sequences of up to 1 tokens, {reads}")
    );
}

#[test]
fn a_feature_gradient_of_another_shape_is_refused() {
    let encoder = built(&cases()[0], Precision::F32);
    let forward = encoder.forward(&batch(&cases()[0].shape, 0..4), &train(0)).expect("a forward pass");
    assert_eq!(forward.matrix().expect("features").shape(), (4, WIDTH));
    let error = backward(encoder.as_ref(), &forward, &Matrix::zeros(4, 5)).expect_err("5 is not 6");
    assert_eq!(error.to_string(), "the feature gradient has shape 4 × 5, but the features have shape 4 × 6");
    let gradients = backward(encoder.as_ref(), &forward, &Matrix::zeros(4, WIDTH)).expect("zeros are a gradient");
    assert_eq!(gradients.tensors().len(), encoder.parameters().len());
}

/// Set for the child process of the test below: print the digest and exit.
const CHILD: &str = "ANTIPHON_TEST_PRINT_BITS";

/// Bits of features and parameters after three steps of every kind of encoder, on batches that are large enough to be
/// divided among threads.
fn training_digest() -> u64 {
    let grid = InputShape::Grid { channels: 1, height: 28, width: 28 };
    let tokens = InputShape::Tokens { vocabulary: 257, max_tokens: 40, padding: 256 };
    let features = InputShape::Features { width: 300 };
    let vit = EncoderSpec::Vit { size: VitSize::Tiny, patch: 7, pooling: Pooling::Cls, dropout: 0.1 };
    let cases = [
        (EncoderSpec::Auto, &grid, 64),
        (EncoderSpec::Auto, &tokens, 64),
        (EncoderSpec::Auto, &features, 64),
        (EncoderSpec::Resnet { depth: ResnetDepth::Eighteen }, &grid, 20),
        (vit, &grid, 20),
        (EncoderSpec::Bert { size: BertSize::Tiny, pooling: Pooling::Mean, dropout: 0.1 }, &tokens, 20),
    ];
    let mut digest = 0u64;
    for (spec, shape, size) in cases {
        let mut encoder = build(Precision::F32, &spec, shape, 96, 3, &modality(), &Device::Cpu).expect("an encoder");
        let mut all: Vec<u32> =
            (0..3).flat_map(|n| step(encoder.as_mut(), &batch(shape, size * n..size * n + size), n as u64)).collect();
        all.extend(state_bits(encoder.as_ref()).into_iter().flat_map(|(_, bits)| bits));
        digest = all.into_iter().fold(digest, |d, b| (d ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3).rotate_left(7));
    }
    digest
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    if std::env::var_os(CHILD).is_some() {
        use std::io::Write;
        let digest = training_digest();
        writeln!(std::io::stdout(), "digest {digest:016x};").expect("printed");
        return;
    }
    let name = "encoder::tests::bits_do_not_depend_on_the_number_of_threads";
    let digests = ["1", "2", "3"].map(|threads| {
        let program = std::env::current_exe().expect("this test's program");
        let mut child = std::process::Command::new(program);
        child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env("RAYON_NUM_THREADS", threads);
        let out = child.output().expect("the child runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let digest = text.split("digest ").nth(1).and_then(|rest| rest.split(';').next());
        digest.unwrap_or_else(|| panic!("no digest in {text}")).to_owned()
    });
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
}
