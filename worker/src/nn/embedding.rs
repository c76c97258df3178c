//! Tokens and their places to vectors.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::number::{Number, Reading, by_number, dtype, values};

const NAME: &str = "embedding";

/// Texts of a batch, one after the other, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// N ids, N being the sum of the lengths.
    pub(crate) tokens: Vec<u32>,
    /// B + 1 ascending positions in `tokens`: text i is `starts[i] .. starts[i + 1]`.
    pub(crate) starts: Vec<usize>,
}

impl Packed {
    /// The texts of a (B, `longest`) matrix of ids.
    pub(crate) fn new(ids: &[u32], lengths: &[u32], longest: usize) -> Self {
        let mut packed = Self { tokens: Vec::with_capacity(ids.len()), starts: vec![0] };
        for (row, length) in lengths.iter().enumerate() {
            packed.tokens.extend_from_slice(&ids[row * longest..][..*length as usize]);
            packed.starts.push(packed.tokens.len());
        }
        packed
    }

    /// Of each token, its place within its text.
    fn places(&self) -> impl Iterator<Item = usize> {
        self.starts.windows(2).flat_map(|pair| 0..pair[1] - pair[0])
    }
}

/// `y[n] = table[token n] + places[place of n within its text]`: `table` is (V, W), `places` (L, W), the result (N, W).
///
/// # Errors
/// When a token is not in the table or a text is longer than there are places.
pub(crate) fn embedding(table: &Tensor, places: &Tensor, texts: &Arc<Packed>) -> Result<Tensor> {
    let ((vocabulary, width), (longest, place_width)) = (table.dims2()?, places.dims2()?);
    let token = texts.tokens.iter().max().map_or(0, |t| *t as usize);
    let length = texts.places().max().map_or(0, |p| p + 1);
    if token >= vocabulary || length > longest || width != place_width {
        candle_core::bail!(
            "{NAME}: token {token} and {length} places in tables of {vocabulary} × {width} and {longest} × {place_width}"
        );
    }
    table.contiguous()?.apply_op2(&places.contiguous()?, Embedding { texts: Arc::clone(texts), width })
}

struct Embedding {
    texts: Arc<Packed>,
    width: usize,
}

impl Embedding {
    fn run<T: Number>(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<CpuStorage> {
        let (table, places) = (values::<T>(s1, l1, NAME)?, values::<T>(s2, l2, NAME)?);
        let mut out = Vec::with_capacity(self.texts.tokens.len() * self.width);
        for (token, place) in self.texts.tokens.iter().zip(self.texts.places()) {
            let row = &table[*token as usize * self.width..][..self.width];
            out.extend(row.iter().zip(&places[place * self.width..]).map(|(t, p)| *t + *p));
        }
        Ok(T::to_cpu_storage_owned(out))
    }

    fn gradients<T: Number>(&self, table: &Tensor, places: &Tensor, gradient: &Tensor) -> Result<[Tensor; 2]> {
        let reading = Reading::of(gradient);
        let mut for_table = vec![T::ZERO; table.elem_count()];
        let mut for_places = vec![T::ZERO; places.elem_count()];
        let rows = reading.values::<T>(NAME)?.chunks_exact(self.width);
        for ((token, place), g) in self.texts.tokens.iter().zip(self.texts.places()).zip(rows) {
            for_table[*token as usize * self.width..].iter_mut().zip(g).for_each(|(t, g)| *t += *g);
            for_places[place * self.width..].iter_mut().zip(g).for_each(|(p, g)| *p += *g);
        }
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
        Ok([tensor(for_table, table)?, tensor(for_places, places)?])
    }
}

impl CustomOp2 for Embedding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = by_number!(dtype(s1), NAME, self.run(s1, l1, s2, l2))?;
        Ok((out, (self.texts.tokens.len(), self.width).into()))
    }

    fn bwd(
        &self,
        table: &Tensor,
        places: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [table, places] = by_number!(table.dtype(), NAME, self.gradients(table, places, &g.contiguous()?))?;
        Ok((Some(table), Some(places)))
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
        assert_eq!(*texts(), Packed { tokens: vec![3, 1, 0, 3, 3], starts: vec![0, 2, 5] });
    }

    #[test]
    fn each_row_is_its_token_and_its_place() {
        let (table, places) = (noise((4, 2), 1), noise((3, 2), 2));
        let (t, p) = (flat(&table), flat(&places));
        let y = flat(&embedding(&table, &places, &texts()).expect("ours"));
        let expected =
            [(3, 0), (1, 1), (0, 0), (3, 1), (3, 2)].map(|(n, l)| [t[2 * n] + p[2 * l], t[2 * n + 1] + p[2 * l + 1]]);
        assert_eq!(y, expected.concat());
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        check_gradients(&[noise((4, 2), 1), noise((3, 2), 2)], |v| embedding(&v[0], &v[1], &texts()));
    }

    #[test]
    fn an_unknown_token_is_refused() {
        let error = embedding(&noise((3, 2), 1), &noise((3, 2), 2), &texts()).expect_err("there is no token 3");
        assert!(error.to_string().contains("token 3 and 3 places in tables of 3 × 2 and 3 × 2"), "{error}");
    }
}
