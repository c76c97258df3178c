//! Quantiles and medians of measurements.

use serde::Serialize;

/// The distribution of times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    /// Of at least one time. At most half of the times exceed p50, and at most one in a hundred p99.
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        assert!(!times.is_empty(), "at least one time");
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((share * times.len() as f64).ceil() as usize).clamp(1, times.len()) - 1];
        Self {
            mean: times.iter().sum::<f64>() / times.len() as f64,
            p50: at(0.5),
            p99: at(0.99),
            max: times[times.len() - 1],
        }
    }
}

/// The median of at least one number; of an even count, the mean of the two in the middle.
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
    fn quantiles_are_measured_times() {
        let of = Quantiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(of, Quantiles { mean: 100.5, p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Quantiles::of(vec![3.0]), Quantiles { mean: 3.0, p50: 3.0, p99: 3.0, max: 3.0 });
    }
}
