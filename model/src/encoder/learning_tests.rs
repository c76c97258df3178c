//! Every kind of encoder learns a task that only an encoder can learn, because the head sees only its features.

use antiphon_core::head::{SharedHead, StepContext};
use antiphon_core::ids::{MicroShard, ModalityName};
use antiphon_core::rng::{self, Stream};
use antiphon_core::spec::{
    EncoderSpec, HeadSpec, LearningRateSchedule, OptimizerRule, OptimizerSpec, Precision, ProjectionSpec,
};
use antiphon_data::{BatchInput, Decoded, InputShape};
use candle_core::Device;

use super::{DropoutKey, Frozen, Mode, backward, build};
use crate::nn::check::bf16_cards;
use crate::optimizer::Optimizer;

const CLASSES: usize = 4;
const WIDTH: usize = 16;
const BATCH: usize = 32;

fn optimizer(rule: OptimizerRule, lr: f64) -> OptimizerSpec {
    OptimizerSpec { rule, lr, schedule: LearningRateSchedule::Constant { warmup: 0.0 }, clip: None }
}

fn sgd() -> OptimizerSpec {
    optimizer(OptimizerRule::Sgd { momentum: 0.9, weight_decay: 1e-4 }, 0.02)
}

fn adamw() -> OptimizerSpec {
    optimizer(OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }, 3e-3)
}

/// Where encoders learn: in main memory, and in bf16 on a GPU if there is one.
fn everywhere() -> impl Iterator<Item = (Precision, Device)> {
    let in_bf16 = bf16_cards().map(|card| (Precision::Bf16, card));
    std::iter::once((Precision::F32, Device::Cpu)).chain(in_bf16)
}

/// The accuracy on unseen samples after this many steps.
fn accuracy(
    (precision, device): (Precision, &Device),
    spec: &EncoderSpec,
    shape: &InputShape,
    optimizer: &OptimizerSpec,
    steps: u64,
    sample: impl Fn(u32, &mut Stream) -> Decoded,
) -> f64 {
    let modality = ModalityName::try_from("only").expect("a name");
    let mut encoder = build(precision, spec, shape, WIDTH, 1, &modality, device).expect("an encoder");
    let mut rule = Optimizer::new(optimizer, encoder.parameters()).expect("an optimizer");
    let head = HeadSpec { width: WIDTH as u32, projection: ProjectionSpec::Off, optimizer: sgd() };
    let mut head = SharedHead::<f32>::new(&head, CLASSES, 1);
    let batch = |name: &str, number: u64| {
        let mut stream = rng::stream(2, &[name.into(), number.into()]);
        let labels: Vec<u32> = (0..BATCH).map(|_| rng::below(&mut stream, CLASSES as u64) as u32).collect();
        let samples = labels.iter().map(|label| sample(*label, &mut stream)).collect();
        (BatchInput::stack(shape, samples), labels)
    };
    for step in 0..steps {
        let (input, labels) = batch("train", step);
        let key = DropoutKey { seed: 1, modality: modality.clone(), step, shard: MicroShard::WHOLE };
        let forward = encoder.forward(&input, &Mode::Train(key, Frozen::none())).expect("a forward pass");
        let local = head.head().local_step(forward.matrix().expect("features"), &labels).expect("a step of the head");
        let gradients = backward(encoder.as_ref(), &forward, &local.feature_gradient).expect("a backward pass");
        head.apply(&modality, &local.contribution, StepContext { lr_factor: 1.0, alpha: 1.0 }).expect("a step");
        head.end_turn();
        rule.step(encoder.parameters(), &gradients, optimizer.lr).expect("a step of the encoder");
        encoder.commit(forward.pending.in_memory().expect("brought down"));
    }
    let right = (0..8).map(|number| {
        let (input, labels) = batch("test", number);
        let features = encoder.forward(&input, &Mode::Evaluate).and_then(|forward| forward.matrix());
        head.head().local_step(features.expect("features"), &labels).expect("an answer").contribution.correct
    });
    f64::from(right.sum::<u32>()) / (8 * BATCH) as f64
}

fn learns(
    spec: &EncoderSpec,
    shape: &InputShape,
    optimizer: &OptimizerSpec,
    steps: u64,
    sample: impl Fn(u32, &mut Stream) -> Decoded,
) {
    for (precision, device) in everywhere() {
        let accuracy = accuracy((precision, &device), spec, shape, optimizer, steps, &sample);
        assert!(accuracy > 0.9, "{accuracy} in {}", precision.name());
    }
}

#[test]
fn mlp_learns_what_no_plane_separates() {
    let shape = InputShape::Features { width: 6 };
    let spec = EncoderSpec::Mlp { hidden: vec![32], dropout: 0.1 };
    // The class is the exclusive or of the signs of two numbers.
    learns(&spec, &shape, &sgd(), 300, |label, stream| {
        let mut numbers: Vec<f32> = (0..6).map(|_| rng::normal(stream) as f32 * 0.3).collect();
        for bit in 0..2 {
            let sign = if rng::below(stream, 2) == 0 { 1.0 } else { -1.0 };
            numbers[2 * bit] += sign;
            numbers[2 * bit + 1] += if label >> bit & 1 == 1 { sign } else { -sign };
        }
        Decoded::Dense(numbers)
    });
}

#[test]
fn cnn_learns_where_a_spot_is() {
    let shape = InputShape::Grid { channels: 1, height: 12, width: 12 };
    let spec = EncoderSpec::Cnn { channels: vec![8, 16], dropout: 0.1 };
    learns(&spec, &shape, &sgd(), 60, |label, stream| {
        let mut pixels: Vec<f32> = (0..144).map(|_| rng::normal(stream) as f32 * 0.3).collect();
        let mut node = |side: u32| 1 + 5 * side as usize + rng::below(stream, 4) as usize;
        let (row, column) = (node(label / 2), node(label % 2));
        for (y, x) in [(row, column), (row + 1, column), (row, column + 1), (row + 1, column + 1)] {
            pixels[y.min(11) * 12 + x.min(11)] += 2.0;
        }
        Decoded::Dense(pixels)
    });
}

#[test]
fn text_learns_which_words_there_are_and_in_which_order() {
    let shape = InputShape::Tokens { vocabulary: 12, max_tokens: 10, padding: 11 };
    let spec = EncoderSpec::Text { width: 32, layers: 1, heads: 2, dropout: 0.0 };
    // One bit of the class says which of tokens 0 and 1 occurs, the other whether it comes before or after token 2.
    let accuracy = accuracy((Precision::F32, &Device::Cpu), &spec, &shape, &adamw(), 300, |label, stream| {
        let length = 4 + rng::below(stream, 7) as usize;
        let mut tokens: Vec<u32> = (0..length).map(|_| 3 + rng::below(stream, 8) as u32).collect();
        let first = rng::below(stream, length as u64 - 1) as usize;
        let second = first + 1 + rng::below(stream, (length - first - 1) as u64) as usize;
        let (word, mark) = if label / 2 == 0 { (first, second) } else { (second, first) };
        tokens[word] = label % 2;
        tokens[mark] = 2;
        Decoded::Tokens(tokens)
    });
    assert!(accuracy > 0.9, "{accuracy}");
}
