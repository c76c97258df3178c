//! From patches to sequences of tokens with a class token.

use candle_core::{Result, Tensor};

use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::value::Value;

const NAME: &str = "sequence";

/// For each sample `class + positions[0]`, then `patch + bias + positions[1 + n]` for each of its patches: `patches` is
/// (B, N, W), `bias` (W), `class` (1, 1, W), `positions` (1, 1 + N, W), the result (B · (1 + N), W).
///
/// # Errors
/// If the shapes do not fit.
pub(crate) fn with_class_token(patches: &Value, bias: &Value, class: &Value, positions: &Value) -> Result<Value> {
    let x = patches.tensor().contiguous()?;
    let (_, count, width) = x.dims3()?;
    let fits = |value: &Value, shape: &[usize]| value.tensor().dims() == shape;
    if !fits(bias, &[width]) || !fits(class, &[1, 1, width]) || !fits(positions, &[1, 1 + count, width]) {
        candle_core::bail!("{NAME}: {:?} with positions {:?}", x.dims(), positions.tensor().dims());
    }
    on_cuda!(x, rows::with_class_token(patches, bias, class, positions));
    let rest = [bias, class, positions].map(|value| value.tensor().clone());
    let y = by_number!(x.dtype(), NAME, forward(&x, &rest))?;
    let shape = x.dims3()?;
    let wanted = [patches, bias, class, positions].map(Value::wanted);
    Ok(Value::of(y, [patches, bias, class, positions], move |g| {
        by_number!(g.dtype(), NAME, gradients(g, shape, wanted))
    }))
}

fn forward<T: Number>(patches: &Tensor, rest: &[Tensor; 3]) -> Result<Tensor> {
    let (samples, count, width) = patches.dims3()?;
    let (x, rest) = (Reading::of(patches), [0, 1, 2].map(|n: usize| Reading::of(&rest[n])));
    let x = x.values::<T>(NAME)?;
    let [bias, class, positions] = [0, 1, 2].map(|n: usize| rest[n].values::<T>(NAME));
    let (bias, class, positions) = (bias?, class?, positions?);
    let mut out = Vec::with_capacity(samples * (1 + count) * width);
    for sample in x.chunks_exact(count * width) {
        let mut positions = positions.chunks_exact(width);
        let first = positions.next().into_iter().flatten();
        out.extend(class.iter().zip(first).map(|(c, p)| *c + *p));
        for (patch, position) in sample.chunks_exact(width).zip(positions) {
            out.extend(patch.iter().zip(bias).zip(position).map(|((x, b), p)| *x + *b + *p));
        }
    }
    tensor(out, (samples * (1 + count), width), patches)
}

/// The wanted gradients.
fn gradients<T: Number>(
    gradient: &Tensor,
    (samples, count, width): (usize, usize, usize),
    wanted: [bool; 4],
) -> Result<[Option<Tensor>; 4]> {
    let reading = Reading::of(gradient);
    let g = reading.values::<T>(NAME)?.chunks_exact((1 + count) * width);
    let patches = wanted[0].then(|| {
        let patches = g.clone().flat_map(|sample| &sample[width..]).copied().collect();
        tensor(patches, (samples, count, width), gradient)
    });
    let patches = patches.transpose()?;
    if !wanted[1..].contains(&true) {
        return Ok([patches, None, None, None]);
    }
    let mut positions = vec![0.0f64; (1 + count) * width];
    for sample in g {
        positions.iter_mut().zip(sample).for_each(|(sum, g)| *sum += g.to_f64());
    }
    let mut bias = vec![0.0f64; width];
    for position in positions[width..].chunks_exact(width) {
        bias.iter_mut().zip(position).for_each(|(sum, g)| *sum += g);
    }
    let narrow = |sums: &[f64]| sums.iter().map(|sum| T::from_f64(*sum)).collect::<Vec<T>>();
    let bias = wanted[1].then(|| tensor(narrow(&bias), width, gradient));
    let class = wanted[2].then(|| tensor(narrow(&positions[..width]), (1, 1, width), gradient));
    let positions = wanted[3].then(|| tensor(narrow(&positions), (1, 1 + count, width), gradient));
    Ok([patches, bias.transpose()?, class.transpose()?, positions.transpose()?])
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    #[test]
    fn the_class_token_comes_first() {
        let [x, bias, class, positions] = [noise((2, 3, 4), 1), noise(4, 2), noise((1, 1, 4), 3), noise((1, 4, 4), 4)];
        let rows = x.broadcast_add(&bias).expect("a sum");
        let all = Tensor::cat(&[&Tensor::cat(&[&class, &class], 0).expect("twice"), &rows], 1).expect("tokens");
        let expected = all.broadcast_add(&positions).and_then(|all| all.reshape((8, 4))).expect("rows");
        let values = [x, bias, class, positions].map(Value::constant);
        let y = with_class_token(&values[0], &values[1], &values[2], &values[3]).expect("ours");
        assert_close(y.tensor(), &expected, 1e-14);
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        let inputs = [noise((2, 3, 4), 1), noise(4, 2), noise((1, 1, 4), 3), noise((1, 4, 4), 4)];
        check_gradients(&inputs, |v| with_class_token(&v[0], &v[1], &v[2], &v[3]));
    }
}
