//! Looks up, gathers and sums rows. The lists of rows are made in main memory, in the order of the sums.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::columns::row_sums;
use super::launch::{Card, arguments};
use crate::nn::embedding::Packed;
use crate::nn::value::Value;

/// For each target, the rows that are summed into it, with their weights.
struct Sums {
    targets: Tensor,
    /// The start of each target's sources, then the number of sources.
    starts: Tensor,
    sources: Tensor,
    shares: Option<Tensor>,
    count: usize,
}

impl Sums {
    /// Source n is added to `targets[n]`, in order.
    fn by_target(card: &Card, targets: &[u32]) -> Result<Self> {
        let mut sources: Vec<u32> = (0..targets.len() as u32).collect();
        sources.sort_by_key(|source| targets[*source as usize]);
        let same = sources.chunk_by(|a, b| targets[*a as usize] == targets[*b as usize]);
        let (mut found, mut starts) = (Vec::new(), vec![0]);
        for run in same {
            found.push(targets[run[0] as usize]);
            starts.push(starts[starts.len() - 1] + run.len() as u32);
        }
        Self::listed(card, found, starts, sources, None)
    }

    fn listed(
        card: &Card,
        targets: Vec<u32>,
        starts: Vec<u32>,
        sources: Vec<u32>,
        shares: Option<Vec<f64>>,
    ) -> Result<Self> {
        let count = targets.len();
        let shares = shares.map(|shares| match card.computed() {
            DType::F64 => card.upload(shares),
            _ => card.upload(shares.into_iter().map(|share| share as f32).collect()),
        });
        let [targets, starts, sources] = [card.upload(targets)?, card.upload(starts)?, card.upload(sources)?];
        Ok(Self { targets, starts, sources, shares: shares.transpose()?, count })
    }

    /// The sums as a matrix (rows, width), with zeros elsewhere.
    fn of(&self, card: &Card, x: &Tensor, (rows, width): (usize, usize)) -> Result<Tensor> {
        let out = card.zeros((rows, width))?;
        let n = self.count * width;
        let own = arguments![x, &self.targets, &self.starts, &self.sources, self.shares.as_ref(), width, &out, n];
        card.each("gathered_sums", n, &own)?;
        Ok(out)
    }
}

/// See [`crate::nn::segment_mean::segment_mean`].
pub(crate) fn segment_mean(input: &Value, segments: &[Range<usize>]) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (rows, width) = x.dims2()?;
    let card = Card::of(&x)?;
    let share = |segment: &Range<usize>| 1.0 / segment.len().max(1) as f64;
    let (mut starts, mut sources, mut shares) = (vec![0], Vec::new(), Vec::new());
    let mut segments_of_row = vec![Vec::new(); rows];
    for (number, segment) in segments.iter().enumerate() {
        sources.extend(segment.clone().map(|row| row as u32));
        shares.extend(segment.clone().map(|_| share(segment)));
        starts.push(sources.len() as u32);
        segment.clone().for_each(|row| segments_of_row[row].push(number));
    }
    let count = segments.len();
    let means = Sums::listed(&card, (0..count as u32).collect(), starts, sources, Some(shares))?;
    let y = means.of(&card, &x, (count, width))?;
    let (mut starts, mut sources, mut shares) = (vec![0], Vec::new(), Vec::new());
    for numbers in segments_of_row {
        sources.extend(numbers.iter().map(|number| *number as u32));
        shares.extend(numbers.iter().map(|number| share(&segments[*number])));
        starts.push(sources.len() as u32);
    }
    Ok(Value::of(y, [input], move |g| {
        let spread = Sums::listed(&card, (0..rows as u32).collect(), starts, sources, Some(shares))?;
        Ok([Some(spread.of(&card, g, (rows, width))?)])
    }))
}

/// See [`crate::nn::embedding::embedding`].
pub(crate) fn embedding(
    table: &Value,
    positions: &Value,
    kinds: Option<&Value>,
    sequences: &Arc<Packed>,
) -> Result<Value> {
    let (rows, at_positions) = (table.tensor().contiguous()?, positions.tensor().contiguous()?);
    let ((vocabulary, width), longest, n) =
        (rows.dims2()?, at_positions.dim(0)?, sequences.tokens.len() * rows.dim(1)?);
    let card = Card::of(&rows)?;
    let kind = kinds.map(|kinds| kinds.tensor().contiguous()).transpose()?;
    let within: Vec<u32> = sequences.starts.windows(2).flat_map(|pair| 0..(pair[1] - pair[0]) as u32).collect();
    let (tokens, at) = (card.upload(sequences.tokens.clone())?, card.upload(within.clone())?);
    let y = card.empty((sequences.tokens.len(), width))?;
    card.each("embedding", n, &arguments![&rows, &at_positions, kind.as_ref(), &tokens, &at, width, &y, n])?;
    let sequences = Arc::clone(sequences);
    let kind_rows = kinds.filter(|kinds| kinds.wanted()).map(|kinds| kinds.tensor().dim(0)).transpose()?;
    let wanted = [table, positions].map(Value::wanted);
    let gradients = move |g: &Tensor| -> Result<[Option<Tensor>; 3]> {
        let summed = |targets: &[u32], shape| Sums::by_target(&card, targets)?.of(&card, g, shape);
        let for_table = wanted[0].then(|| summed(&sequences.tokens, (vocabulary, width))).transpose()?;
        let for_positions = wanted[1].then(|| summed(&within, (longest, width))).transpose()?;
        let for_kinds = kind_rows.map(|rows| first_row(&card, &row_sums(&card, g, (g.dim(0)?, width))?, rows));
        Ok([for_table, for_positions, for_kinds.transpose()?])
    };
    let Some(kinds) = kinds else {
        return Ok(Value::of(y, [table, positions], move |g| {
            let [table, positions, _] = gradients(g)?;
            Ok([table, positions])
        }));
    };
    Ok(Value::of(y, [table, positions, kinds], gradients))
}

/// A matrix of `rows` rows with this first one and zeros below.
fn first_row(card: &Card, row: &Tensor, rows: usize) -> Result<Tensor> {
    let width = row.elem_count();
    let out = card.zeros((rows, width))?;
    card.each("copy", width, &arguments![row, &out, width])?;
    Ok(out)
}

/// See [`crate::nn::sequence::with_class_token`].
pub(crate) fn with_class_token(patches: &Value, bias: &Value, class: &Value, positions: &Value) -> Result<Value> {
    let x = patches.tensor().contiguous()?;
    let (samples, count, width) = x.dims3()?;
    let card = Card::of(&x)?;
    let rest = [bias, class, positions].map(|value| value.tensor().contiguous());
    let [b, c, p] = rest;
    let (b, c, p) = (b?, c?, p?);
    let y = card.empty((samples * (1 + count), width))?;
    let n = y.elem_count();
    card.each("with_class_token", n, &arguments![&x, &b, &c, &p, count, width, &y, n])?;
    let wanted = [patches, bias, class, positions].map(Value::wanted);
    Ok(Value::of(y, [patches, bias, class, positions], move |g| {
        class_token_gradients(&card, g, (samples, count, width), wanted)
    }))
}

/// The wanted gradients of patches, bias, class token and positions.
fn class_token_gradients(
    card: &Card,
    g: &Tensor,
    (samples, count, width): (usize, usize, usize),
    [patches, bias, class, positions]: [bool; 4],
) -> Result<[Option<Tensor>; 4]> {
    let (mut for_patches, mut for_bias, mut for_class, mut for_positions) = (None, None, None, None);
    if patches || bias {
        let (rows, n) = (card.empty((samples, count, width))?, samples * count * width);
        card.each("without_class_token", n, &arguments![g, count, width, &rows, n])?;
        for_bias = bias.then(|| row_sums(card, &rows, (samples * count, width))).transpose()?;
        for_patches = patches.then_some(rows);
    }
    if class || positions {
        let sums = row_sums(card, g, (samples, (1 + count) * width))?.reshape((1, 1 + count, width))?;
        // The sums at position 0 contain every class token.
        for_class = class.then(|| sums.narrow(1, 0, 1)).transpose()?;
        for_positions = positions.then_some(sums);
    }
    Ok([for_patches, for_bias, for_class, for_positions])
}
