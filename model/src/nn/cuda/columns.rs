//! Sums over the rows of a matrix, in one order: groups of rows first, then the groups.

use candle_core::{DType, Result, Tensor};

use super::launch::{Argument, Card, arguments};

/// Columns of a block; `common.cuh` has the same number.
const TILE: usize = 32;

/// The smallest number of rows per group, the largest number of groups, and the largest number of blocks (unless there
/// are more tiles). Bits depend on them.
const ROWS_PER_GROUP: usize = 64;
const GROUPS: usize = 256;
const BLOCKS: usize = 2048;

/// Two sums for each column, group by group.
pub(super) struct Partial {
    /// (groups, 2, columns)
    sums: Tensor,
    groups: usize,
    columns: usize,
}

/// Computes them by a kernel that ends in `column_sums`. `own` are its arguments before rows, columns, rows per group
/// and the result.
pub(super) fn partial(
    card: &Card,
    kernel: &'static str,
    own: &[Argument<'_>],
    (rows, columns): (usize, usize),
) -> Result<Partial> {
    let tiles = columns.div_ceil(TILE).max(1);
    let groups = rows.div_ceil(ROWS_PER_GROUP).min(BLOCKS.div_ceil(tiles)).clamp(1, GROUPS);
    let rows_per_group = rows.div_ceil(groups).max(1);
    let groups = rows.div_ceil(rows_per_group);
    let sums = card.empty_of(DType::F64, (groups, 2, columns))?;
    let all = [own, &arguments![rows, columns, rows_per_group, &sums]].concat();
    card.blocks(kernel, tiles * groups, &all)?;
    Ok(Partial { sums, groups, columns })
}

impl Partial {
    /// Launches a kernel that begins with `column_totals`; `own` are its arguments after the sums, groups and columns.
    pub(super) fn total(&self, card: &Card, kernel: &'static str, own: &[Argument<'_>]) -> Result<()> {
        let all = [&arguments![&self.sums, self.groups, self.columns], own].concat();
        card.blocks(kernel, self.columns.div_ceil(TILE), &all)
    }

    /// The totals of each of the two sums, (columns), in the type of parameters and their gradients.
    pub(super) fn totals(&self, card: &Card) -> Result<[Tensor; 2]> {
        let out = card.empty_of(card.computed(), (2, self.columns))?;
        self.total(card, "totals", &arguments![&out])?;
        Ok([out.get(0)?, out.get(1)?])
    }
}

/// Σ over the rows of a matrix, in the type of parameters and their gradients.
pub(super) fn row_sums(card: &Card, x: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
    let [sums, _] = partial(card, "row_sums", &arguments![x], (rows, columns))?.totals(card)?;
    Ok(sums)
}
