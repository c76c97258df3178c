//! Sums over the rows of a matrix, in one order: groups of rows first, then the groups.

use candle_core::{DType, Result, Tensor};

use super::launch::{Argument, Card, arguments};

/// Columns of a block; `common.cuh` has the same number.
const TILE: usize = 32;

/// Rows that are summed before the sums are added up, at least, and the most groups there are. Bits depend on both.
const ROWS_PER_GROUP: usize = 64;
const GROUPS: usize = 256;

/// Two sums for each column, group by group.
pub(super) struct Partial {
    sums: Tensor,
    groups: usize,
    width: usize,
}

/// By a kernel that ends in `column_sums`; `own` are its arguments before rows, columns, rows of a group and the result.
pub(super) fn partial(
    card: &Card,
    kernel: &str,
    own: &[Argument<'_>],
    (rows, columns): (usize, usize),
) -> Result<Partial> {
    let groups = rows.div_ceil(ROWS_PER_GROUP).clamp(1, GROUPS);
    let rows_per_group = rows.div_ceil(groups).max(1);
    let groups = rows.div_ceil(rows_per_group);
    let sums = card.empty_of(DType::F64, (groups, 2, columns))?;
    let all = [own, &arguments![rows, columns, rows_per_group, &sums]].concat();
    card.blocks(kernel, columns.div_ceil(TILE) * groups, &all)?;
    Ok(Partial { sums, groups, width: 2 * columns })
}

impl Partial {
    /// (2, columns), in double precision.
    pub(super) fn wide(&self, card: &Card) -> Result<Tensor> {
        let out = card.empty_of(DType::F64, (2, self.width / 2))?;
        self.total(card, Some(&out), None)?;
        Ok(out)
    }

    /// Of each of the two kinds, (columns), as parameters and their gradients are.
    pub(super) fn narrow(&self, card: &Card) -> Result<[Tensor; 2]> {
        let out = card.empty_of(card.computed(), (2, self.width / 2))?;
        self.total(card, None, Some(&out))?;
        Ok([out.get(0)?, out.get(1)?])
    }

    fn total(&self, card: &Card, wide: Option<&Tensor>, narrow: Option<&Tensor>) -> Result<()> {
        card.each("totals", self.width, &arguments![&self.sums, self.groups, self.width, wide, narrow])
    }
}

/// Σ over the rows of a matrix, as parameters and their gradients are.
pub(super) fn row_sums(card: &Card, x: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
    let [sums, _] = partial(card, "row_sums", &arguments![x], (rows, columns))?.narrow(card)?;
    Ok(sums)
}
