//! Matrix product with bias and activation.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::number::{Number, Reading, by_number, dtype, values};
use super::parallel::{each_chunk, sum_of_groups};
use super::product::{View, multiply};

const NAME: &str = "linear";

/// Rows that are multiplied at once; fewer are filled up with zeros, so that a row's bits never depend on how many there are.
const ROWS: usize = 64;

/// Rows whose weight gradients are summed before the sums are added up. Bits depend on it.
const ROWS_PER_GROUP: usize = 512;

/// What follows the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Identity,
    Relu,
}

/// `y = activation(x Wᵀ + b)`: `input` is (N, I), `weight` (O, I), `bias` (O), the result (N, O).
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn linear(input: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let ((rows, inputs), (outputs, weight_inputs)) = (input.dims2()?, weight.dims2()?);
    if weight_inputs != inputs || bias.dims1()? != outputs {
        candle_core::bail!("{NAME}: input {:?}, weight {:?}, bias {:?}", input.dims(), weight.dims(), bias.dims());
    }
    let operator = Linear { rows, inputs, outputs, activation };
    input.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, operator)
}

#[derive(Debug, Clone, Copy)]
struct Linear {
    rows: usize,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

impl Linear {
    fn forward<T: Number>(&self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let mut out = vec![T::ZERO; self.rows * self.outputs];
        let weight = View::new(weight, self.outputs, self.inputs).transposed();
        each_chunk(
            &mut out,
            ROWS * self.outputs,
            || (),
            |(), block, out| {
                let rows = out.len() / self.outputs;
                let x = &x[block * ROWS * self.inputs..][..rows * self.inputs];
                if rows == ROWS {
                    multiply(out, false, View::new(x, ROWS, self.inputs), weight);
                } else {
                    let (mut filled, mut product) = (x.to_vec(), vec![T::ZERO; ROWS * self.outputs]);
                    filled.resize(ROWS * self.inputs, T::ZERO);
                    multiply(&mut product, false, View::new(&filled, ROWS, self.inputs), weight);
                    out.copy_from_slice(&product[..out.len()]);
                }
                self.finish(out, bias);
            },
        );
        out
    }

    fn finish<T: Number>(&self, out: &mut [T], bias: &[T]) {
        for row in out.chunks_exact_mut(self.outputs) {
            match self.activation {
                Activation::Identity => row.iter_mut().zip(bias).for_each(|(y, b)| *y += *b),
                Activation::Relu => row.iter_mut().zip(bias).for_each(|(y, b)| {
                    let z = *y + *b;
                    *y = if z > T::ZERO { z } else { T::ZERO };
                }),
            }
        }
    }

    fn input_gradient<T: Number>(&self, weight: &[T], gradient: &[T]) -> Vec<T> {
        let mut out = vec![T::ZERO; self.rows * self.inputs];
        let weight = View::new(weight, self.outputs, self.inputs);
        each_chunk(
            &mut out,
            ROWS * self.inputs,
            || (),
            |(), block, out| {
                let rows = out.len() / self.inputs;
                let gradient = &gradient[block * ROWS * self.outputs..][..rows * self.outputs];
                multiply(out, false, View::new(gradient, rows, self.outputs), weight);
            },
        );
        out
    }

    /// dW (O, I), then db (O).
    fn weight_gradients<T: Number>(&self, x: &[T], gradient: &[T]) -> Vec<T> {
        let size = self.outputs * self.inputs;
        sum_of_groups(self.rows.div_ceil(ROWS_PER_GROUP), size + self.outputs, |group, sum| {
            let first = group * ROWS_PER_GROUP;
            let rows = ROWS_PER_GROUP.min(self.rows - first);
            let x = &x[first * self.inputs..][..rows * self.inputs];
            let gradient = &gradient[first * self.outputs..][..rows * self.outputs];
            let (for_weight, for_bias) = sum.split_at_mut(size);
            let left = View::new(gradient, rows, self.outputs).transposed();
            multiply(for_weight, false, left, View::new(x, rows, self.inputs));
            for row in gradient.chunks_exact(self.outputs) {
                for_bias.iter_mut().zip(row).for_each(|(b, g)| *b += *g);
            }
        })
    }

    fn run<T: Number>(&self, [x, weight, bias]: [(&CpuStorage, &Layout); 3]) -> Result<CpuStorage> {
        let read = |(storage, layout)| values::<T>(storage, layout, NAME);
        Ok(T::to_cpu_storage_owned(self.forward(read(x)?, read(weight)?, read(bias)?)))
    }

    /// Only what came through the activation goes back.
    fn activated<T: Number>(&self, y: &[T], gradient: &[T]) -> Vec<T> {
        let pairs = y.iter().zip(gradient);
        pairs.map(|(y, g)| if *y > T::ZERO { *g } else { T::ZERO }).collect()
    }

    fn gradients<T: Number>(&self, [x, weight, y, gradient]: [&Tensor; 4]) -> Result<(Option<Tensor>, Tensor, Tensor)> {
        let (x_read, w_read, y_read, g_read) =
            (Reading::of(x), Reading::of(weight), Reading::of(y), Reading::of(gradient));
        let masked = match self.activation {
            Activation::Identity => None,
            Activation::Relu => Some(self.activated::<T>(y_read.values(NAME)?, g_read.values(NAME)?)),
        };
        let g = match &masked {
            Some(masked) => masked.as_slice(),
            None => g_read.values(NAME)?,
        };
        let for_input = match x.track_op() {
            true => Some(Tensor::from_vec(self.input_gradient(w_read.values(NAME)?, g), x.shape(), x.device())?),
            false => None,
        };
        let mut for_weight = self.weight_gradients(x_read.values(NAME)?, g);
        let for_bias = for_weight.split_off(self.outputs * self.inputs);
        let for_weight = Tensor::from_vec(for_weight, weight.shape(), x.device())?;
        Ok((for_input, for_weight, Tensor::from_vec(for_bias, self.outputs, x.device())?))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = by_number!(dtype(s1), NAME, self.run([(s1, l1), (s2, l2), (s3, l3)]))?;
        Ok((out, (self.rows, self.outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, weight, bias) = by_number!(x.dtype(), NAME, self.gradients([x, weight, y, &g.contiguous()?]))?;
        Ok((x, Some(weight), Some(bias)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, flat, noise};
    use super::*;

    #[test]
    fn it_is_the_product_of_candle() {
        for rows in [1, 64, 65, 600] {
            let (x, w, b) = (noise((rows, 9), 1), noise((6, 9), 2), noise(6, 3));
            let expected = x.matmul(&w.t().expect("transposed")).and_then(|y| y.broadcast_add(&b)).expect("candle's");
            assert_close(&linear(&x, &w, &b, Activation::Identity).expect("ours"), &expected, 1e-13);
            assert_close(&linear(&x, &w, &b, Activation::Relu).expect("ours"), &expected.relu().expect("relu"), 1e-13);
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
    fn weight_gradients_of_many_rows_are_those_of_one_product() {
        let (x, g) = (noise((1200, 3), 1), noise((1200, 2), 2));
        let operator = Linear { rows: 1200, inputs: 3, outputs: 2, activation: Activation::Identity };
        let sum = operator.weight_gradients(&flat(&x), &flat(&g));
        let expected = g.t().and_then(|g| g.matmul(&x)).expect("a product");
        assert_close(&Tensor::from_slice(&sum[..6], (2, 3), x.device()).expect("six values"), &expected, 1e-12);
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_it_is_with() {
        let single = |t: Tensor| t.to_dtype(candle_core::DType::F32).expect("f32");
        let (x, w, b) = (single(noise((150, 37), 1)), single(noise((21, 37), 2)), single(noise(21, 3)));
        let all = flat(&linear(&x, &w, &b, Activation::Relu).expect("all rows"));
        for (first, count) in [(0, 1), (5, 30), (60, 90), (149, 1)] {
            let some = x.narrow(0, first, count).expect("some rows");
            let some = flat(&linear(&some, &w, &b, Activation::Relu).expect("some rows"));
            assert_eq!(some, all[first * 21..(first + count) * 21]);
        }
    }
}
