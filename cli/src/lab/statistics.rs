//! What is told of many measurements.

use serde::Serialize;

/// Of many times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) most: f64,
}

impl Quantiles {
    /// Of one time or more: p50 is no more than half of them exceed, p99 what no more than one in a hundred does.
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        assert!(!times.is_empty(), "something was measured");
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((share * times.len() as f64).ceil() as usize).clamp(1, times.len()) - 1];
        Self {
            mean: times.iter().sum::<f64>() / times.len() as f64,
            p50: at(0.5),
            p99: at(0.99),
            most: times[times.len() - 1],
        }
    }
}

/// The middle of one number or more, or between the two there.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let of = Quantiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(of, Quantiles { mean: 100.5, p50: 100.0, p99: 198.0, most: 200.0 });
        assert_eq!(Quantiles::of(vec![3.0]), Quantiles { mean: 3.0, p50: 3.0, p99: 3.0, most: 3.0 });
    }
}
