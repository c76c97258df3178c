//! Batch normalisation. Its statistics stay on the GPU until they are committed.

use candle_core::{DType, Result, Tensor};

use super::columns::{partial, row_sums};
use super::elementwise::through;
use super::launch::{Card, arguments};
use crate::nn::activation::Activation;
use crate::nn::batch_norm::{ChannelStatistics, Origin};
use crate::nn::value::Value;

/// Rows and channels of a tensor whose channels come last.
fn matrix(x: &Tensor) -> (usize, usize) {
    let channels = x.dims().last().copied().unwrap_or(1);
    (x.elem_count() / channels.max(1), channels)
}

/// Means, then variances of channels, (2, C) in double precision.
#[derive(Debug, Clone)]
pub(crate) struct DeviceStatistics(Tensor);

impl PartialEq for DeviceStatistics {
    fn eq(&self, other: &Self) -> bool {
        let numbers = |of: &Self| of.0.flatten_all().and_then(|flat| flat.to_vec1::<f64>()).ok();
        numbers(self).is_some_and(|own| numbers(other).is_some_and(|others| own == others))
    }
}

/// See [`ChannelStatistics::of`].
pub(crate) fn statistics(input: &Tensor) -> Result<ChannelStatistics> {
    let card = Card::of(input)?;
    let (rows, channels) = matrix(input);
    let out = card.empty_of(DType::F64, (2, channels))?;
    partial(&card, "moments", &arguments![input], (rows, channels))?.total(
        &card,
        "statistics",
        &arguments![rows, &out],
    )?;
    let device = Some(DeviceStatistics(out));
    Ok(ChannelStatistics { mean: Vec::new(), variance: Vec::new(), count: rows, device })
}

/// Copies the statistics that are on the GPU to main memory, in one transfer.
pub(crate) fn in_memory(mut all: Vec<ChannelStatistics>) -> Result<Vec<ChannelStatistics>> {
    let on_card: Vec<Tensor> = all.iter().filter_map(|one| one.device.as_ref()).map(|one| one.0.clone()).collect();
    let Some(first) = on_card.first() else { return Ok(all) };
    let card = Card { dtype: DType::F64, ..Card::of(first)? };
    let together = card.empty(on_card.iter().map(Tensor::elem_count).sum::<usize>())?;
    let mut start = 0;
    for tensor in &on_card {
        let (slice, n) = (together.narrow(0, start, tensor.elem_count())?, tensor.elem_count());
        card.each("copy", n, &arguments![tensor, &slice, n])?;
        start += n;
    }
    let mut numbers = together.to_vec1::<f64>()?.into_iter();
    for one in &mut all {
        if let Some(DeviceStatistics(tensor)) = one.device.take() {
            let channels = tensor.dim(1)?;
            one.mean = numbers.by_ref().take(channels).collect();
            one.variance = numbers.by_ref().take(channels).collect();
        }
    }
    Ok(all)
}

/// What a forward pass stores for the backward pass.
struct BatchNorm {
    card: Card,
    /// (2, C): means and variances.
    statistics: Tensor,
    /// (3, C): 1 / √(variance + ε), scale / √(variance + ε), shift − mean · that.
    coefficients: Tensor,
    constants: bool,
    rows: usize,
    channels: usize,
    relu: bool,
}

/// See [`crate::nn::batch_norm::batch_norm`].
pub(crate) fn batch_norm(
    input: &Value,
    (scale, shift): (&Value, &Value),
    (statistics, origin): (&ChannelStatistics, Origin),
    residual: Option<&Value>,
    activation: Activation,
) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let card = Card::of(&x)?;
    let (rows, channels) = matrix(&x);
    let statistics = match &statistics.device {
        Some(DeviceStatistics(tensor)) => tensor.clone(),
        None => card.upload([statistics.mean.clone(), statistics.variance.clone()].concat())?,
    };
    let coefficients = card.empty_of(DType::F64, (3, channels))?;
    let (scale_tensor, shift_tensor) = (scale.tensor().contiguous()?, shift.tensor().contiguous()?);
    let own = arguments![&statistics, &scale_tensor, &shift_tensor, channels, &coefficients];
    card.each("batch_norm_coefficients", channels, &own)?;
    let (constants, relu) = (origin == Origin::Running, activation == Activation::Relu);
    let operator = BatchNorm { card, statistics, coefficients, constants, rows, channels, relu };
    let y = operator.forward(&x, residual.map(Value::tensor))?;
    let wanted = [input.wanted(), scale.wanted(), shift.wanted(), residual.is_some_and(Value::wanted)];
    // The gradients of shift and residual depend only on the result's gradient. Only the gradient of ReLU needs the
    // output.
    let before = Before { x: (wanted[0] || wanted[1]).then_some(x), y: relu.then(|| y.clone()) };
    let Some(residual) = residual else {
        return Ok(Value::of(y, [input, scale, shift], move |g| {
            let [x, scale, shift, _] = operator.gradients(&before, g, wanted)?;
            Ok([x, scale, shift])
        }));
    };
    Ok(Value::of(y, [input, scale, shift, residual], move |g| operator.gradients(&before, g, wanted)))
}

/// Input and result, as far as the backward pass needs them.
struct Before {
    x: Option<Tensor>,
    y: Option<Tensor>,
}

impl BatchNorm {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let residual = residual.map(Tensor::contiguous).transpose()?;
        let (out, n) = (self.card.empty(x.shape())?, x.elem_count());
        let own = arguments![x, residual.as_ref(), &self.coefficients, self.channels, self.relu, &out, n];
        self.card.numbers("batch_norm", n, &own)?;
        Ok(out)
    }

    /// The wanted gradients of input, scale, shift and residual.
    fn gradients(&self, before: &Before, g: &Tensor, wanted: [bool; 4]) -> Result<[Option<Tensor>; 4]> {
        let [input_wanted, scale_wanted, shift_wanted, residual_wanted] = wanted;
        let size = (self.rows, self.channels);
        let through_relu = || before.y.as_ref().map_or_else(|| Ok(g.clone()), |y| through(y, g));
        let Some(x) = &before.x else {
            let passed = through_relu()?;
            let for_shift = shift_wanted.then(|| row_sums(&self.card, &passed, size)).transpose()?;
            return Ok([None, None, for_shift, residual_wanted.then_some(passed)]);
        };
        let slopes = self.card.zeros_of(DType::F64, (2, self.channels))?;
        let (mut for_scale, mut for_shift) = (None, None);
        if !self.constants || scale_wanted || shift_wanted {
            let own = arguments![x, before.y.as_ref(), g, &self.statistics, &self.coefficients];
            let sums = partial(&self.card, "batch_norm_sums", &own, size)?;
            let gradients = self.card.empty_of(self.card.computed(), (2, self.channels))?;
            let own = arguments![&self.statistics, &self.coefficients, self.rows, self.constants, &gradients, &slopes];
            sums.total(&self.card, "batch_norm_slopes", &own)?;
            for_shift = shift_wanted.then(|| gradients.get(0)).transpose()?;
            for_scale = scale_wanted.then(|| gradients.get(1)).transpose()?;
        }
        if !input_wanted {
            return Ok([None, for_scale, for_shift, residual_wanted.then(through_relu).transpose()?]);
        }
        let [for_input, for_residual] = self.input_gradient((x, before.y.as_ref()), g, &slopes, residual_wanted)?;
        Ok([for_input, for_scale, for_shift, for_residual])
    }

    /// The gradient of the input, and of the residual if it is wanted.
    fn input_gradient(
        &self,
        (x, y): (&Tensor, Option<&Tensor>),
        g: &Tensor,
        slopes: &Tensor,
        residual_wanted: bool,
    ) -> Result<[Option<Tensor>; 2]> {
        let (card, n) = (&self.card, x.elem_count());
        let out = card.empty(x.shape())?;
        let of_residual = || if self.relu { card.empty(x.shape()) } else { Ok(g.clone()) };
        let for_residual = residual_wanted.then(of_residual).transpose()?;
        let passed = for_residual.as_ref().filter(|_| self.relu);
        let own = arguments![x, y, g, &self.coefficients, slopes, self.channels, &out, passed, n];
        card.numbers("batch_norm_gradient", n, &own)?;
        Ok([Some(out), for_residual])
    }
}
