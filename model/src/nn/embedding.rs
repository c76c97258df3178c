//! Tokens and their positions to vectors.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::value::Value;

const NAME: &str = "embedding";

/// The sequences of a batch, one after the other, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// N token ids, where N is the sum of the lengths.
    pub(crate) tokens: Vec<u32>,
    /// B + 1 ascending positions in `tokens`: sequence i is `starts[i] .. starts[i + 1]`.
    pub(crate) starts: Arc<[usize]>,
}

impl Packed {
    /// The sequences of a (B, `longest`) matrix of ids.
    pub(crate) fn new(ids: &[u32], lengths: &[u32], longest: usize) -> Self {
        let (mut tokens, mut starts) = (Vec::with_capacity(ids.len()), vec![0]);
        for (row, length) in lengths.iter().enumerate() {
            tokens.extend_from_slice(&ids[row * longest..][..*length as usize]);
            starts.push(tokens.len());
        }
        Self { tokens, starts: starts.into() }
    }

    /// The position of each token within its sequence.
    fn positions(&self) -> impl Iterator<Item = usize> {
        self.starts.windows(2).flat_map(|pair| 0..pair[1] - pair[0])
    }
}

/// `y[n] = table[token n] + positions[position of n within its sequence] + kinds[0]`: `table` is (V, W), `positions`
/// (L, W), `kinds` (K, W) if there are any, the result (N, W).
///
/// # Errors
/// If a token is not in the table, or a sequence has more tokens than there are positions.
pub(crate) fn embedding(
    table: &Value,
    positions: &Value,
    kinds: Option<&Value>,
    sequences: &Arc<Packed>,
) -> Result<Value> {
    let ((vocabulary, width), (longest, position_width)) = (table.tensor().dims2()?, positions.tensor().dims2()?);
    let token = sequences.tokens.iter().max().map_or(0, |t| *t as usize);
    let length = sequences.positions().max().map_or(0, |p| p + 1);
    if token >= vocabulary || length > longest || width != position_width {
        candle_core::bail!(
            "{NAME}: token {token} and {length} positions in tables of {vocabulary} × {width} and {longest} × \
             {position_width}"
        );
    }
    if kinds.is_some_and(|kinds| !matches!(*kinds.tensor().dims(), [some, own] if some > 0 && own == width)) {
        candle_core::bail!("{NAME}: kinds {:?} for rows of {width}", kinds.map(|kinds| kinds.tensor().dims().to_vec()));
    }
    on_cuda!(table.tensor(), rows::embedding(table, positions, kinds, sequences));
    let operator = Embedding { sequences: Arc::clone(sequences), width, vocabulary, longest };
    let (t, p) = (table.tensor().contiguous()?, positions.tensor().contiguous()?);
    let y = by_number!(t.dtype(), NAME, operator.forward(&t, &p))?;
    let wanted = [table, positions].map(Value::wanted);
    let placed = Value::of(y, [table, positions], move |g| by_number!(g.dtype(), NAME, operator.gradients(g, wanted)));
    let Some(kinds) = kinds else { return Ok(placed) };
    let y = placed.tensor().broadcast_add(&kinds.tensor().narrow(0, 0, 1)?)?;
    let rows = kinds.tensor().dim(0)?;
    let wanted = [&placed, kinds].map(Value::wanted);
    Ok(Value::of(y, [&placed, kinds], move |g| {
        let for_kinds = || g.sum_keepdim(0)?.pad_with_zeros(0, 0, rows - 1);
        Ok([wanted[0].then(|| g.clone()), wanted[1].then(for_kinds).transpose()?])
    }))
}

struct Embedding {
    sequences: Arc<Packed>,
    width: usize,
    vocabulary: usize,
    longest: usize,
}

impl Embedding {
    fn forward<T: Number>(&self, table: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let (t, p) = (Reading::of(table), Reading::of(positions));
        let (rows, positions) = (t.values::<T>(NAME)?, p.values::<T>(NAME)?);
        let mut out = Vec::with_capacity(self.sequences.tokens.len() * self.width);
        for (token, position) in self.sequences.tokens.iter().zip(self.sequences.positions()) {
            let row = &rows[*token as usize * self.width..][..self.width];
            out.extend(row.iter().zip(&positions[position * self.width..]).map(|(t, p)| *t + *p));
        }
        tensor(out, (self.sequences.tokens.len(), self.width), table)
    }

    /// The wanted gradients of the table and the positions.
    fn gradients<T: Number>(&self, gradient: &Tensor, wanted: [bool; 2]) -> Result<[Option<Tensor>; 2]> {
        let tokens = || self.sequences.tokens.iter().map(|token| *token as usize);
        let table = wanted[0].then(|| self.summed::<T>(gradient, self.vocabulary, tokens()));
        let positions = wanted[1].then(|| self.summed::<T>(gradient, self.longest, self.sequences.positions()));
        Ok([table.transpose()?, positions.transpose()?])
    }

    /// A (`rows`, W) matrix. Each row is the sum of the gradients of the tokens that read it.
    fn summed<T: Number>(&self, gradient: &Tensor, rows: usize, read: impl Iterator<Item = usize>) -> Result<Tensor> {
        let reading = Reading::of(gradient);
        let mut sums = vec![T::ZERO; rows * self.width];
        for (row, g) in read.zip(reading.values::<T>(NAME)?.chunks_exact(self.width)) {
            sums[row * self.width..].iter_mut().zip(g).for_each(|(sum, g)| *sum += *g);
        }
        tensor(sums, (rows, self.width), gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{check_gradients, flat, noise};
    use super::*;

    fn sequences() -> Arc<Packed> {
        Arc::new(Packed::new(&[3, 1, 9, 0, 3, 3], &[2, 3], 3))
    }

    #[test]
    fn padding_is_left_behind() {
        assert_eq!(*sequences(), Packed { tokens: vec![3, 1, 0, 3, 3], starts: Arc::new([0, 2, 5]) });
    }

    #[test]
    fn each_row_is_its_token_and_its_place() {
        let (table, positions) = (noise((4, 2), 1), noise((3, 2), 2));
        let (t, p) = (flat(&table), flat(&positions));
        let y = flat(
            embedding(&Value::constant(table), &Value::constant(positions), None, &sequences()).expect("ours").tensor(),
        );
        let expected =
            [(3, 0), (1, 1), (0, 0), (3, 1), (3, 2)].map(|(n, l)| [t[2 * n] + p[2 * l], t[2 * n + 1] + p[2 * l + 1]]);
        assert_eq!(y, expected.concat());
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        check_gradients(&[noise((4, 2), 1), noise((3, 2), 2)], |v| embedding(&v[0], &v[1], None, &sequences()));
        let inputs = [noise((4, 2), 1), noise((3, 2), 2), noise((2, 2), 3)];
        check_gradients(&inputs, |v| embedding(&v[0], &v[1], Some(&v[2]), &sequences()));
    }

    #[test]
    fn an_unknown_token_is_refused() {
        let [table, positions] = [noise((3, 2), 1), noise((3, 2), 2)].map(Value::constant);
        let error = embedding(&table, &positions, None, &sequences()).expect_err("there is no token 3");
        assert!(error.to_string().contains("token 3 and 3 positions in tables of 3 × 2 and 3 × 2"), "{error}");
    }
}
