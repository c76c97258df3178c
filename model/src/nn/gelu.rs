//! The Gaussian error linear unit (Hendrycks & Gimpel 2016): with Φ itself, not with the tanh approximation.

use candle_core::{Result, Tensor};

use super::buffer::unwritten;
use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::parallel::each_chunk;
use super::value::Value;
use super::vector::vectorised;

const NAME: &str = "gelu";

/// Numbers per task.
const AT_ONCE: usize = 1 << 14;

/// `y = x · Φ(x)`, Φ the normal distribution's cumulative function.
///
/// # Errors
/// If the input is not a tensor of real numbers.
pub(crate) fn gelu(input: &Value) -> Result<Value> {
    on_cuda!(input.tensor(), elementwise::gelu(input));
    let x = input.tensor().contiguous()?;
    let y = by_number!(x.dtype(), NAME, forward(&x))?;
    Ok(Value::of(y, [input], move |g| Ok([Some(by_number!(g.dtype(), NAME, gradient(&x, g))?)])))
}

fn forward<T: Number>(input: &Tensor) -> Result<Tensor> {
    let reading = Reading::of(input);
    let x = reading.values::<T>(NAME)?;
    let out = mapped(
        x,
        x,
        #[inline(always)]
        |x, _| x * x.normal().0,
    );
    tensor(out, input.shape(), input)
}

/// `dx = g · (Φ(x) + x φ(x))`, φ the normal density.
fn gradient<T: Number>(input: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let (x, g) = (Reading::of(input), Reading::of(gradient));
    let (x, g) = (x.values::<T>(NAME)?, g.values::<T>(NAME)?);
    let out = mapped(
        x,
        g,
        #[inline(always)]
        |x, g| {
            let (cumulative, density) = x.normal();
            g * (cumulative + x * density)
        },
    );
    tensor(out, input.shape(), input)
}

/// `function(xᵢ, gᵢ)` for each i.
fn mapped<T: Number>(x: &[T], g: &[T], function: impl Fn(T, T) -> T + Sync + Send) -> Vec<T> {
    let mut out = unwritten(x.len());
    each_chunk(
        &mut out,
        AT_ONCE,
        || (),
        |(), block, out| {
            let first = block * AT_ONCE;
            vectorised(
                #[inline(always)]
                || {
                    for ((y, x), g) in out.iter_mut().zip(&x[first..]).zip(&g[first..]) {
                        *y = function(*x, *g);
                    }
                },
            );
        },
    );
    out
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    #[test]
    fn it_is_that_of_candle() {
        let x = (noise(5000, 1) * 6.0).expect("scaled");
        let expected = x.gelu_erf().expect("candle's");
        assert_close(gelu(&Value::constant(x.clone())).expect("ours").tensor(), &expected, 1e-14);
        let single = x.to_dtype(DType::F32).expect("f32");
        assert_close(gelu(&Value::constant(single)).expect("ours").tensor(), &expected, 5e-7);
    }

    #[test]
    fn its_gradient_is_that_of_finite_differences() {
        check_gradients(&[(noise(40, 2) * 4.0).expect("scaled")], |v| gelu(&v[0]));
    }
}
