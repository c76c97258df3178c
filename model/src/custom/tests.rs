use std::collections::BTreeMap;

use antiphon_core::ids::{EncoderName, MicroShard, ModalityName};
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{EncoderSpec, LearningRateSchedule, OptimizerRule, OptimizerSpec, OptionValue, Precision};
use antiphon_data::{BatchInput, Decoded, InputShape};
use candle_core::{Device, Module, ModuleT, Result, Tensor};
use candle_nn::{Conv1dConfig, Init, LayerNorm, Linear, VarBuilder};

use super::{Blueprint, BuildError, Conv1d, Dropout, Encoders, Setting, conv1d};
use crate::encoder::{DropoutKey, Encoder, EncoderError, Frozen, Gradients, Mode, backward};
use crate::nn::check::flat;
use crate::optimizer::Optimizer;

const WIDTH: usize = 5;
const SHAPE: InputShape = InputShape::Grid { channels: 1, height: 6, width: 9 };

/// A convolution along the columns, dropout, and the mean over the steps.
struct Tcn {
    convolution: Conv1d,
    dropout: Dropout,
}

impl Tcn {
    fn new(blueprint: &Blueprint<'_>, variables: VarBuilder<'_>) -> std::result::Result<Self, BuildError> {
        let InputShape::Grid { height, .. } = *blueprint.input else {
            return Err(BuildError::refused("it reads spectrograms"));
        };
        let channels = blueprint.options.size("channels", 8)?;
        let dropout = blueprint.dropout("out", blueprint.options.share("dropout", 0.0)?);
        let config = Conv1dConfig { padding: 1, ..Conv1dConfig::default() };
        let convolution = conv1d(height, channels, 3, config, variables.pp("convolution"))?;
        Ok(Self { convolution, dropout })
    }
}

impl ModuleT for Tcn {
    fn forward_t(&self, batch: &Tensor, train: bool) -> Result<Tensor> {
        let hidden = self.convolution.forward(&batch.squeeze(1)?)?.relu()?;
        self.dropout.forward_t(&hidden.mean(2)?, train)
    }
}

fn encoders() -> Encoders {
    Encoders::new().register("tcn", Tcn::new)
}

fn modality() -> ModalityName {
    ModalityName::try_from("m").expect("a name")
}

fn spec(name: &str, options: &[(&str, OptionValue)]) -> EncoderSpec {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    EncoderSpec::Custom { name: EncoderName::try_from(name).expect("a name"), options }
}

fn build(
    encoders: &Encoders,
    spec: &EncoderSpec,
    shape: &InputShape,
    seed: u64,
) -> std::result::Result<Box<dyn Encoder>, EncoderError> {
    let (precision, modality) = (Precision::F32, &modality());
    encoders.build(spec, &Setting { precision, shape, width: WIDTH, seed, modality, device: &Device::Cpu })
}

fn built_of(encoders: &Encoders, spec: &EncoderSpec) -> std::result::Result<Box<dyn Encoder>, EncoderError> {
    build(encoders, spec, &SHAPE, 7)
}

fn built(options: &[(&str, OptionValue)]) -> Box<dyn Encoder> {
    built_of(&encoders(), &spec("tcn", options)).expect("it is built")
}

fn batch(samples: usize) -> BatchInput {
    let value = |i: usize| ((i * 37 % 101) as f32 / 50.0) - 1.0;
    let sample = |n: usize| Decoded::Dense((0..SHAPE.size()).map(|i| value(n * SHAPE.size() + i)).collect());
    BatchInput::stack(&SHAPE, (0..samples).map(sample).collect())
}

fn training(step: u64) -> Mode {
    Mode::Train(DropoutKey { seed: 7, modality: modality(), step, shard: MicroShard::WHOLE }, Frozen::none())
}

fn upstream(samples: usize) -> Matrix<f32> {
    Matrix::from_vec(samples, WIDTH, (0..samples * WIDTH).map(|i| (i % 7) as f32 - 3.0).collect()).expect("as many")
}

fn gradients(encoder: &dyn Encoder, mode: &Mode) -> std::result::Result<Gradients, EncoderError> {
    backward(encoder, &encoder.forward(&batch(4), mode)?, &upstream(4))
}

fn values(encoder: &dyn Encoder) -> BTreeMap<String, Vec<f64>> {
    encoder.parameters().iter().map(|(name, variable)| (name.clone(), flat(variable))).collect()
}

#[test]
fn parameters_are_named_in_order_and_seeded_by_name() {
    let (encoder, again) = (built(&[]), built(&[]));
    let names: Vec<&str> = encoder.parameters().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["adapter.bias", "adapter.weight", "convolution.bias", "convolution.weight"]);
    assert_eq!(values(encoder.as_ref()), values(again.as_ref()));
    let other = build(&encoders(), &spec("tcn", &[]), &SHAPE, 8).expect("it is built");
    assert_ne!(values(encoder.as_ref()), values(other.as_ref()));
}

#[test]
fn a_network_that_ends_in_the_width_of_the_head_has_no_adapter() {
    let encoder = built(&[("channels", OptionValue::Whole(WIDTH as u64))]);
    assert_eq!(encoder.parameters().len(), 2);
}

#[test]
fn hints_of_layers_are_honoured() {
    fn bare(_: &Blueprint<'_>, variables: VarBuilder<'_>) -> std::result::Result<Bare, BuildError> {
        for (name, init) in [
            ("half", Init::Const(0.5)),
            ("between", Init::Uniform { lo: 2.0, up: 3.0 }),
            ("around", Init::Randn { mean: 10.0, stdev: 0.5 }),
            ("kaiming", candle_nn::init::DEFAULT_KAIMING_UNIFORM),
        ] {
            variables.get_with_hints((40, 24), name, init)?;
        }
        Ok(Bare)
    }
    let encoder = built_of(&Encoders::new().register("bare", bare), &spec("bare", &[])).expect("it is built");
    let values = values(encoder.as_ref());
    let mean = |name: &str| values[name].iter().sum::<f64>() / values[name].len() as f64;
    assert!(values["half"].iter().all(|value| *value == 0.5));
    assert!(values["between"].iter().all(|value| (2.0..=3.0).contains(value)) && (mean("between") - 2.5).abs() < 0.05);
    assert!((mean("around") - 10.0).abs() < 0.1);
    let bound = (3.0 * 2.0 / 24.0_f64).sqrt();
    assert!(values["kaiming"].iter().all(|value| value.abs() <= bound * (1.0 + 1e-6)));
    assert!(values["kaiming"].iter().any(|value| value.abs() > 0.95 * bound));
}

/// Uses none of its parameters.
struct Bare;

impl Module for Bare {
    fn forward(&self, batch: &Tensor) -> Result<Tensor> {
        batch.flatten_from(1)
    }
}

#[test]
fn a_gradient_is_that_of_finite_differences() {
    let encoder = built(&[]);
    let gradients = gradients(encoder.as_ref(), &training(0)).expect("gradients");
    let loss = || {
        let features = encoder.forward(&batch(4), &training(0)).and_then(|forward| forward.matrix()).expect("features");
        let products = features.as_slice().iter().zip(upstream(4).into_vec());
        products.map(|(feature, weight)| f64::from(*feature) * f64::from(weight)).sum::<f64>()
    };
    for ((name, variable), gradient) in encoder.parameters().iter().zip(gradients.tensors()) {
        let (before, gradient) = (variable.copy().expect("a copy"), flat(gradient.as_ref().expect("trained")));
        let (mut moved, step) = (flat(variable), 1e-2);
        moved[0] += step;
        let moved = moved.into_iter().map(|value| value as f32).collect::<Vec<_>>();
        variable.set(&Tensor::from_vec(moved, before.shape(), &Device::Cpu).expect("as many")).expect("the same shape");
        let above = loss();
        variable.set(&before).expect("the same shape");
        let slope = (above - loss()) / step;
        assert!((slope - gradient[0]).abs() < 0.02 * (1.0 + gradient[0].abs()), "{name}: {slope} {}", gradient[0]);
    }
}

/// Bits of the parameters after some steps on this many threads.
fn trained_on(threads: usize, options: &[(&str, OptionValue)]) -> BTreeMap<String, Vec<f64>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(|| {
        let encoder = built(options);
        let rule = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
        let schedule = LearningRateSchedule::Constant { warmup: 0.0 };
        let spec = OptimizerSpec { rule, lr: 0.01, schedule, clip: Some(1.0) };
        let mut optimizer = Optimizer::new(&spec, encoder.parameters()).expect("an optimizer");
        for step in 0..3 {
            let gradients = gradients(encoder.as_ref(), &training(step)).expect("gradients");
            optimizer.step(encoder.parameters(), &gradients, 0.01).expect("finite");
        }
        values(encoder.as_ref())
    })
}

#[test]
fn bits_do_not_depend_on_threads() {
    let options = [("channels", OptionValue::Whole(96)), ("dropout", OptionValue::Number(0.3))];
    let one = trained_on(1, &options);
    assert_eq!(one, trained_on(2, &options));
    assert_eq!(one, trained_on(3, &options));
    assert_ne!(one, values(built(&options).as_ref()), "it has learnt something");
}

#[test]
fn what_is_frozen_gets_no_gradient() {
    let encoder = built(&[]);
    let frozen = encoder.parameters().iter().filter(|(name, _)| name.starts_with("convolution")).map(|(_, var)| var);
    let Mode::Train(key, _) = training(0) else { unreachable!("it is training") };
    let mode = Mode::Train(key, Frozen::new(frozen));
    let gradients = gradients(encoder.as_ref(), &mode).expect("gradients");
    let there: Vec<bool> = gradients.tensors().iter().map(Option::is_some).collect();
    assert_eq!(there, [true, true, false, false]);
}

#[test]
fn a_gradient_that_candle_cuts_is_an_error() {
    struct Severed(LayerNorm, Linear);
    impl Module for Severed {
        fn forward(&self, batch: &Tensor) -> Result<Tensor> {
            self.1.forward(&self.0.forward(&batch.flatten_from(1)?)?)
        }
    }
    let encoders = Encoders::new().register("cut", |blueprint, variables| {
        let size = blueprint.input.size();
        let norm = candle_nn::layer_norm(size, 1e-5, variables.pp("norm"))?;
        Ok(Severed(norm, candle_nn::linear(size, blueprint.width, variables.pp("out"))?))
    });
    let encoder = built_of(&encoders, &spec("cut", &[])).expect("it is built");
    let error = gradients(encoder.as_ref(), &training(0)).expect_err("it is cut");
    assert!(error.to_string().starts_with("parameter `norm.bias` got no gradient"), "{error}");
}

/// candle's convolution, whose backward pass reads the kernel in the wrong order.
struct Misread(candle_nn::Conv1d);

impl Module for Misread {
    fn forward(&self, batch: &Tensor) -> Result<Tensor> {
        self.0.forward(&batch.squeeze(1)?)?.relu()?.mean(2)
    }
}

fn misread(blueprint: &Blueprint<'_>, variables: VarBuilder<'_>) -> std::result::Result<Misread, BuildError> {
    let config = Conv1dConfig { padding: 1, ..Conv1dConfig::default() };
    if blueprint.options.flag("skip", false)? {
        blueprint.skip_gradient_check();
    }
    Ok(Misread(candle_nn::conv1d(6, 8, 3, config, variables)?))
}

#[test]
fn a_gradient_that_is_not_the_derivative_is_an_error() {
    let encoders = Encoders::new().register("misread", misread);
    let encoder = built_of(&encoders, &spec("misread", &[])).expect("it is built");
    let before = values(encoder.as_ref());
    let error = encoder.forward(&batch(4), &training(0)).expect_err("its gradient is wrong");
    assert!(error.to_string().contains("gradient of parameter `weight` is wrong"), "{error}");
    assert_eq!(values(encoder.as_ref()), before, "parameters are moved, and put back");

    let skipping = built_of(&encoders, &spec("misread", &[("skip", OptionValue::Flag(true))])).expect("it is built");
    gradients(skipping.as_ref(), &training(0)).expect("it is not looked at");
}

#[test]
fn gradients_that_are_right_pass() {
    /// Layers with kinks, curvature, or parameters without effect.
    struct Deep(Vec<Linear>, candle_nn::GroupNorm);
    impl Module for Deep {
        fn forward(&self, batch: &Tensor) -> Result<Tensor> {
            let mut x = batch.flatten_from(1)?;
            for layer in &self.0 {
                x = layer.forward(&x)?.relu()?;
            }
            // A bias before a norm has no effect: its gradient is rounding.
            let x = self.1.forward(&x.unsqueeze(2)?)?.squeeze(2)?;
            candle_nn::ops::softmax(&(x.gelu()?.tanh()? * 3.0)?, 1)
        }
    }
    let encoders = Encoders::new().register("deep", |blueprint, variables| {
        let mut inputs = blueprint.input.size();
        let mut layers = Vec::new();
        for n in 0..6 {
            layers.push(candle_nn::linear(inputs, 32, variables.pp(n))?);
            inputs = 32;
        }
        Ok(Deep(layers, candle_nn::group_norm(1, 32, 1e-5, variables.pp("norm"))?))
    });
    for seed in 0..20 {
        let encoder = build(&encoders, &spec("deep", &[]), &SHAPE, seed).expect("it is built");
        let result = gradients(encoder.as_ref(), &training(0));
        assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
}

/// For black images bias and threshold cancel: every unit of the first layer is on the kink of its ReLU. The gate has a
/// weaker effect on the features than the other parameters.
#[test]
fn gradients_on_kinks_and_of_weak_gates_pass() {
    struct Gated(Linear, Tensor, Tensor, Linear);
    impl Module for Gated {
        fn forward(&self, batch: &Tensor) -> Result<Tensor> {
            let hidden = self.0.forward(&batch.flatten_from(1)?)?.broadcast_sub(&self.1)?.relu()?;
            let gate = (self.2.exp()? * 1e-2)?.broadcast_as(hidden.shape())?;
            self.3.forward(&(&hidden + (hidden.sqr()? * gate)?)?)
        }
    }
    let encoders = Encoders::new().register("gated", |blueprint, variables| {
        let size = blueprint.input.size();
        let weight = variables.get_with_hints((16, size), "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
        let bias = variables.get_with_hints(16, "bias", Init::Const(1.0))?;
        let threshold = variables.get_with_hints(16, "threshold", Init::Const(1.0))?;
        let gate = variables.get_with_hints(1, "gate", Init::Const(0.0))?;
        let out = candle_nn::linear(16, WIDTH, variables.pp("out"))?;
        Ok(Gated(Linear::new(weight, Some(bias)), threshold, gate, out))
    });
    for seed in 0..20 {
        let encoder = build(&encoders, &spec("gated", &[]), &SHAPE, seed).expect("it is built");
        let black = (0..4).map(|_| Decoded::Dense(vec![0.0; SHAPE.size()])).collect();
        let passed = encoder.forward(&BatchInput::stack(&SHAPE, black), &training(0));
        assert!(passed.is_ok(), "seed {seed}: {passed:?}");
        let result =
            gradients(build(&encoders, &spec("gated", &[]), &SHAPE, seed).expect("built").as_ref(), &training(0));
        assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
}

#[test]
fn a_wrong_gradient_of_a_zero_parameter_is_an_error() {
    /// Uses its parameter twice, of which candle sees one.
    struct Half(Tensor);
    impl Module for Half {
        fn forward(&self, batch: &Tensor) -> Result<Tensor> {
            batch.flatten_from(1)?.broadcast_add(&self.0)?.broadcast_add(&self.0.detach())
        }
    }
    let encoders = Encoders::new().register("half", |blueprint, variables| {
        Ok(Half(variables.get_with_hints(blueprint.input.size(), "shift", Init::Const(0.0))?))
    });
    let encoder = built_of(&encoders, &spec("half", &[])).expect("it is built");
    let error = encoder.forward(&batch(4), &training(0)).expect_err("half of the gradient is missing");
    assert!(error.to_string().contains("`shift`") && error.to_string().contains("2.00"), "{error}");
}

#[test]
fn a_network_that_draws_from_elsewhere_is_an_error() {
    struct Drawn(candle_nn::Dropout);
    impl ModuleT for Drawn {
        fn forward_t(&self, batch: &Tensor, train: bool) -> Result<Tensor> {
            self.0.forward_t(&batch.flatten_from(1)?, train)
        }
    }
    let encoders = Encoders::new().register("drawn", |_, _| Ok(Drawn(candle_nn::Dropout::new(0.5))));
    let encoder = built_of(&encoders, &spec("drawn", &[])).expect("it is built");
    encoder.forward(&batch(4), &Mode::Evaluate).expect("nothing is dropped");
    let error = encoder.forward(&batch(4), &training(0)).expect_err("other masks");
    assert!(error.to_string().contains("the same batch"), "{error}");
}

#[test]
fn masks_are_those_of_the_step() {
    let options = [("channels", OptionValue::Whole(64)), ("dropout", OptionValue::Number(0.5))];
    let encoder = built(&options);
    let features =
        |mode: &Mode| encoder.forward(&batch(2), mode).and_then(|forward| forward.matrix()).expect("features");
    assert_eq!(features(&training(3)), features(&training(3)));
    assert_ne!(features(&training(3)), features(&training(4)));
    assert_ne!(features(&training(3)), features(&Mode::Evaluate));
}

#[test]
fn what_cannot_be_built_says_why() {
    let message = |spec: &EncoderSpec| built_of(&encoders(), spec).err().expect("it is refused").to_string();
    let text = |text: &str| OptionValue::Text(text.to_owned());
    for (spec, wanted) in [
        (spec("lstm", &[]), "encoder `lstm` is not built into this program, which registers `tcn`"),
        (spec("tcn", &[("channels", text("many"))]), "option `channels` is `many`, not a whole number from 1"),
        (
            spec("tcn", &[("channles", OptionValue::Whole(8))]),
            "`channles` is not an option; the options are `channels`, `dropout`",
        ),
        (
            spec("tcn", &[("dropout", OptionValue::Number(1.5))]),
            "option `dropout` is 1.5: use a number from 0 to below 1",
        ),
    ] {
        let message = message(&spec);
        assert!(message.contains(wanted), "{message}");
    }
    let features = InputShape::Features { width: 4 };
    let built = build(&encoders(), &spec("tcn", &[]), &features, 7);
    assert_eq!(built.err().expect("refused").to_string(), "encoder `tcn` cannot be built: it reads spectrograms");
    let statistics = Encoders::new().register("statistics", |_, variables| {
        candle_nn::batch_norm(3, 1e-5, variables.pp("norm"))?;
        Ok(Bare)
    });
    let message = built_of(&statistics, &spec("statistics", &[])).err().expect("refused").to_string();
    assert!(message.contains("`norm.running_mean` looks like a running statistic"), "{message}");
}
