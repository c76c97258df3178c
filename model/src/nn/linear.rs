//! Matrix product with bias and activation.

use candle_core::{Result, Tensor};

use super::activation::{Activation, at_least, through};
use super::buffer::unwritten;
use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::parallel::{block_for_threads, each_chunk, sum_of_rows};
use super::product::{Panels, View, multiply_panels, transposed_product};
use super::value::Value;
use super::vector::vectorised;

const NAME: &str = "linear";

/// `y = activation(x Wᵀ + b)`: `input` is (N, I), `weight` (O, I), `bias` (O), the result (N, O).
///
/// # Errors
/// If the shapes do not fit.
pub(crate) fn linear(input: &Value, weight: &Value, bias: &Value, activation: Activation) -> Result<Value> {
    let (x, w, b) = (input.tensor().contiguous()?, weight.tensor().contiguous()?, bias.tensor().contiguous()?);
    let ((rows, inputs), (outputs, weight_inputs)) = (x.dims2()?, w.dims2()?);
    if weight_inputs != inputs || b.dims1()? != outputs {
        candle_core::bail!("{NAME}: input {:?}, weight {:?}, bias {:?}", x.dims(), w.dims(), b.dims());
    }
    on_cuda!(x, linear::linear(input, weight, bias, activation));
    let operator = Linear { rows, inputs, outputs, activation };
    let y = by_number!(x.dtype(), NAME, operator.forward([&x, &w, &b]))?;
    let bias_wanted = bias.wanted();
    let (x, w) = (weight.wanted().then_some(x), input.wanted().then_some(w));
    // Only the gradient of ReLU needs the output.
    let output = (activation == Activation::Relu).then(|| y.clone());
    Ok(Value::of(y, [input, weight, bias], move |g| {
        let g = match &output {
            Some(y) => by_number!(g.dtype(), NAME, through(y, g))?,
            None => g.clone(),
        };
        let for_input = w.map(|w| by_number!(g.dtype(), NAME, operator.input_gradient(&w, &g))).transpose()?;
        let for_weight = x.map(|x| by_number!(g.dtype(), NAME, operator.weight_gradient(&x, &g))).transpose()?;
        let for_bias = if bias_wanted { Some(by_number!(g.dtype(), NAME, operator.bias_gradient(&g))?) } else { None };
        Ok([for_input, for_weight, for_bias])
    }))
}

#[derive(Debug, Clone, Copy)]
struct Linear {
    rows: usize,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

/// `out (N, O) = x (N, I) · panels`, then `finish` on each block of rows.
fn product<T: Number>(x: &[T], rows: usize, panels: &Panels<T>, finish: impl Fn(&mut [T]) + Sync + Send) -> Vec<T> {
    let (inputs, outputs) = (x.len() / rows.max(1), panels.columns());
    let mut out = unwritten(rows * outputs);
    let at_once = block_for_threads(rows, 4, 8).clamp(16, 256);
    each_chunk(
        &mut out,
        at_once * outputs,
        || (),
        |(), block, out| {
            let rows = out.len() / outputs;
            let x = View::new(&x[block * at_once * inputs..][..rows * inputs], rows, inputs);
            multiply_panels(out, false, x, panels);
            finish(out);
        },
    );
    out
}

impl Linear {
    fn forward<T: Number>(&self, [input, weight, bias]: [&Tensor; 3]) -> Result<Tensor> {
        let readings = [input, weight, bias].map(Reading::of);
        let [x, w, b] = [0, 1, 2].map(|n: usize| readings[n].values::<T>(NAME));
        let (x, w, b) = (x?, w?, b?);
        let panels = Panels::of(View::new(w, self.outputs, self.inputs).transposed());
        let floor = match self.activation {
            Activation::Identity => T::NEGATIVE_INFINITY,
            Activation::Relu => T::ZERO,
        };
        let out = product(x, self.rows, &panels, |out| {
            vectorised(
                #[inline(always)]
                || {
                    for row in out.chunks_exact_mut(self.outputs) {
                        for (y, b) in row.iter_mut().zip(b) {
                            *y = at_least(floor, *y + *b);
                        }
                    }
                },
            );
        });
        tensor(out, (self.rows, self.outputs), input)
    }

    fn input_gradient<T: Number>(&self, weight: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let (w, g) = (Reading::of(weight), Reading::of(gradient));
        let panels = Panels::of(View::new(w.values::<T>(NAME)?, self.outputs, self.inputs));
        tensor(product(g.values(NAME)?, self.rows, &panels, |_| ()), (self.rows, self.inputs), gradient)
    }

    /// dW (O, I).
    fn weight_gradient<T: Number>(&self, input: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let (x, g) = (Reading::of(input), Reading::of(gradient));
        let (x, g) = (x.values::<T>(NAME)?, g.values::<T>(NAME)?);
        let for_weight = transposed_product(g, (self.rows, self.outputs, self.inputs), |rows| {
            Panels::of(View::new(&x[rows.start * self.inputs..rows.end * self.inputs], rows.len(), self.inputs))
        });
        tensor(for_weight, (self.outputs, self.inputs), input)
    }

    /// db (O).
    fn bias_gradient<T: Number>(&self, gradient: &Tensor) -> Result<Tensor> {
        let reading = Reading::of(gradient);
        let for_bias = sum_of_rows(reading.values::<T>(NAME)?, self.outputs);
        tensor(for_bias.into_iter().map(T::from_f64).collect(), self.outputs, gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, flat, noise};
    use super::*;

    fn ours(x: &Tensor, w: &Tensor, b: &Tensor, activation: Activation) -> Tensor {
        let [x, w, b] = [x, w, b].map(|t| Value::constant(t.clone()));
        linear(&x, &w, &b, activation).expect("ours").tensor().clone()
    }

    #[test]
    fn it_is_the_product_of_candle() {
        for rows in [1, 64, 65, 600] {
            let (x, w, b) = (noise((rows, 9), 1), noise((6, 9), 2), noise(6, 3));
            let expected = x.matmul(&w.t().expect("transposed")).and_then(|y| y.broadcast_add(&b)).expect("candle's");
            assert_close(&ours(&x, &w, &b, Activation::Identity), &expected, 1e-13);
            assert_close(&ours(&x, &w, &b, Activation::Relu), &expected.relu().expect("relu"), 1e-13);
        }
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        for (rows, activation) in [(3, Activation::Identity), (70, Activation::Identity), (5, Activation::Relu)] {
            let inputs = [noise((rows, 4), 1), noise((3, 4), 2), noise(3, 3)];
            check_gradients(&inputs, |v| linear(&v[0], &v[1], &v[2], activation));
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let x = Tensor::new(&[[f64::NAN, 1.0], [-1.0, 1.0]], &candle_core::Device::Cpu).expect("a matrix");
        let [w, b] = [noise((3, 2), 2), noise(3, 3)];
        let y = flat(&ours(&x, &w, &b, Activation::Relu));
        assert!(y[..3].iter().all(|y| y.is_nan()) && y[3..].iter().all(|y| *y >= 0.0), "{y:?}");
    }

    #[test]
    fn weight_gradients_of_many_rows_are_those_of_one_product() {
        let (x, g) = (noise((1200, 3), 1), noise((1200, 2), 2));
        let operator = Linear { rows: 1200, inputs: 3, outputs: 2, activation: Activation::Identity };
        let weight = operator.weight_gradient::<f64>(&x, &g).expect("a gradient");
        let bias = operator.bias_gradient::<f64>(&g).expect("a gradient");
        assert_close(&weight, &g.t().and_then(|g| g.matmul(&x)).expect("a product"), 1e-12);
        assert_close(&bias, &g.sum(0).expect("a sum"), 1e-12);
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_it_is_with() {
        let single = |t: Tensor| t.to_dtype(candle_core::DType::F32).expect("f32");
        let (x, w, b) = (single(noise((150, 37), 1)), single(noise((21, 37), 2)), single(noise(21, 3)));
        let all = flat(&ours(&x, &w, &b, Activation::Relu));
        for (first, count) in [(0, 1), (5, 30), (60, 90), (149, 1)] {
            let some = x.narrow(0, first, count).expect("some rows");
            let some = flat(&ours(&some, &w, &b, Activation::Relu));
            assert_eq!(some, all[first * 21..(first + count) * 21]);
        }
    }
}
