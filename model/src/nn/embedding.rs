//! Tokens and their places to vectors.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::value::Value;

const NAME: &str = "embedding";

/// Texts of a batch, one after the other, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// N ids, N being the sum of the lengths.
    pub(crate) tokens: Vec<u32>,
    /// B + 1 ascending positions in `tokens`: text i is `starts[i] .. starts[i + 1]`.
    pub(crate) starts: Arc<[usize]>,
}

impl Packed {
    /// The texts of a (B, `longest`) matrix of ids.
    pub(crate) fn new(ids: &[u32], lengths: &[u32], longest: usize) -> Self {
        let (mut tokens, mut starts) = (Vec::with_capacity(ids.len()), vec![0]);
        for (row, length) in lengths.iter().enumerate() {
            tokens.extend_from_slice(&ids[row * longest..][..*length as usize]);
            starts.push(tokens.len());
        }
        Self { tokens, starts: starts.into() }
    }

    /// Of each token, its place within its text.
    fn places(&self) -> impl Iterator<Item = usize> {
        self.starts.windows(2).flat_map(|pair| 0..pair[1] - pair[0])
    }
}

/// `y[n] = table[token n] + places[place of n within its text] + kinds[0]`: `table` is (V, W), `places` (L, W), `kinds` (K, W) if there are any,
/// the result (N, W).
///
/// # Errors
/// When a token is not in the table or a text is longer than there are places.
pub(crate) fn embedding(table: &Value, places: &Value, kinds: Option<&Value>, texts: &Arc<Packed>) -> Result<Value> {
    let ((vocabulary, width), (longest, place_width)) = (table.tensor().dims2()?, places.tensor().dims2()?);
    let token = texts.tokens.iter().max().map_or(0, |t| *t as usize);
    let length = texts.places().max().map_or(0, |p| p + 1);
    if token >= vocabulary || length > longest || width != place_width {
        candle_core::bail!(
            "{NAME}: token {token} and {length} places in tables of {vocabulary} × {width} and {longest} × {place_width}"
        );
    }
    if kinds.is_some_and(|kinds| !matches!(*kinds.tensor().dims(), [some, own] if some > 0 && own == width)) {
        candle_core::bail!("{NAME}: kinds {:?} for rows of {width}", kinds.map(|kinds| kinds.tensor().dims().to_vec()));
    }
    on_cuda!(table.tensor(), rows::embedding(table, places, kinds, texts));
    let operator = Embedding { texts: Arc::clone(texts), width, vocabulary, longest };
    let (t, p) = (table.tensor().contiguous()?, places.tensor().contiguous()?);
    let y = by_number!(t.dtype(), NAME, operator.forward(&t, &p))?;
    let wanted = [table, places].map(Value::wanted);
    let placed = Value::of(y, [table, places], move |g| by_number!(g.dtype(), NAME, operator.gradients(g, wanted)));
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
    texts: Arc<Packed>,
    width: usize,
    vocabulary: usize,
    longest: usize,
}

impl Embedding {
    fn forward<T: Number>(&self, table: &Tensor, places: &Tensor) -> Result<Tensor> {
        let (t, p) = (Reading::of(table), Reading::of(places));
        let (rows, places) = (t.values::<T>(NAME)?, p.values::<T>(NAME)?);
        let mut out = Vec::with_capacity(self.texts.tokens.len() * self.width);
        for (token, place) in self.texts.tokens.iter().zip(self.texts.places()) {
            let row = &rows[*token as usize * self.width..][..self.width];
            out.extend(row.iter().zip(&places[place * self.width..]).map(|(t, p)| *t + *p));
        }
        tensor(out, (self.texts.tokens.len(), self.width), table)
    }

    /// Of the table and the places, as far as they are wanted.
    fn gradients<T: Number>(&self, gradient: &Tensor, wanted: [bool; 2]) -> Result<[Option<Tensor>; 2]> {
        let tokens = || self.texts.tokens.iter().map(|token| *token as usize);
        let table = wanted[0].then(|| self.summed::<T>(gradient, self.vocabulary, tokens()));
        let places = wanted[1].then(|| self.summed::<T>(gradient, self.longest, self.texts.places()));
        Ok([table.transpose()?, places.transpose()?])
    }

    /// (`rows`, W), into each row of which the gradients of the tokens that read it are summed.
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

    fn texts() -> Arc<Packed> {
        Arc::new(Packed::new(&[3, 1, 9, 0, 3, 3], &[2, 3], 3))
    }

    #[test]
    fn padding_is_left_behind() {
        assert_eq!(*texts(), Packed { tokens: vec![3, 1, 0, 3, 3], starts: Arc::new([0, 2, 5]) });
    }

    #[test]
    fn each_row_is_its_token_and_its_place() {
        let (table, places) = (noise((4, 2), 1), noise((3, 2), 2));
        let (t, p) = (flat(&table), flat(&places));
        let y =
            flat(embedding(&Value::constant(table), &Value::constant(places), None, &texts()).expect("ours").tensor());
        let expected =
            [(3, 0), (1, 1), (0, 0), (3, 1), (3, 2)].map(|(n, l)| [t[2 * n] + p[2 * l], t[2 * n + 1] + p[2 * l + 1]]);
        assert_eq!(y, expected.concat());
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        check_gradients(&[noise((4, 2), 1), noise((3, 2), 2)], |v| embedding(&v[0], &v[1], None, &texts()));
        let inputs = [noise((4, 2), 1), noise((3, 2), 2), noise((2, 2), 3)];
        check_gradients(&inputs, |v| embedding(&v[0], &v[1], Some(&v[2]), &texts()));
    }

    #[test]
    fn an_unknown_token_is_refused() {
        let [table, places] = [noise((3, 2), 1), noise((3, 2), 2)].map(Value::constant);
        let error = embedding(&table, &places, None, &texts()).expect_err("there is no token 3");
        assert!(error.to_string().contains("token 3 and 3 places in tables of 3 × 2 and 3 × 2"), "{error}");
    }
}
