//! Matrix product with bias and activation.

use candle_core::{Result, Tensor};

use super::columns::row_sums;
use super::elementwise::through;
use super::launch::{Card, arguments};
use super::product::{Matrix, multiply};
use crate::nn::activation::Activation;
use crate::nn::value::Value;

/// See [`crate::nn::linear::linear`].
pub(crate) fn linear(input: &Value, weight: &Value, bias: &Value, activation: Activation) -> Result<Value> {
    let (x, w, b) = (input.tensor().contiguous()?, weight.tensor().contiguous()?, bias.tensor().contiguous()?);
    let (rows, inputs) = x.dims2()?;
    let outputs = w.dim(0)?;
    let (card, relu) = (Card::of(&x)?, activation == Activation::Relu);
    let w = card.operand(&w)?;
    let y = card.empty((rows, outputs))?;
    let into = Matrix::of(&card, &y, outputs)?;
    let weights = Matrix::of(&card, &w, inputs)?;
    multiply(&card, (rows, outputs, inputs), Matrix::of(&card, &x, inputs)?, weights.transposed(), into, false)?;
    let n = y.elem_count();
    card.packs("bias_activation", outputs, n, &arguments![&y, &b, outputs, relu, n])?;
    let bias_wanted = bias.wanted();
    let (x, w) = (weight.wanted().then_some(x), input.wanted().then_some(w));
    // Only the gradient of ReLU needs the output.
    let output = relu.then(|| y.clone());
    Ok(Value::of(y, [input, weight, bias], move |g| {
        let g = output.as_ref().map_or_else(|| Ok(g.clone()), |y| through(y, g))?;
        let for_input = w.map(|w| input_gradient(&card, &w, &g)).transpose()?;
        let for_weight = x.map(|x| weight_gradient(&card, &x, &g)).transpose()?;
        let for_bias = bias_wanted.then(|| row_sums(&card, &g, (rows, outputs))).transpose()?;
        Ok([for_input, for_weight, for_bias])
    }))
}

/// `dx = g W`
fn input_gradient(card: &Card, weight: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let (rows, (outputs, inputs)) = (gradient.dim(0)?, weight.dims2()?);
    let out = card.empty((rows, inputs))?;
    let (g, w) = (Matrix::of(card, gradient, outputs)?, Matrix::of(card, weight, inputs)?);
    multiply(card, (rows, inputs, outputs), g, w, Matrix::of(card, &out, inputs)?, false)?;
    Ok(out)
}

/// `dW = gᵀ x`, in the type of parameters.
fn weight_gradient(card: &Card, input: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let ((rows, inputs), outputs) = (input.dims2()?, gradient.dim(1)?);
    if rows == 0 {
        return card.zeros_of(card.computed(), (outputs, inputs));
    }
    let out = card.empty_of(card.computed(), (outputs, inputs))?;
    let (g, x) = (Matrix::of(card, gradient, outputs)?, Matrix::of(card, input, inputs)?);
    multiply(card, (outputs, inputs, rows), g.transposed(), x, Matrix::of(card, &out, inputs)?, false)?;
    Ok(out)
}
