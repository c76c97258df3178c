//! Mean and deviation of the training split, accumulated in f64 in the order of the data (Welford 1962).

/// Accumulates mean and variance of each of `width` positions.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    count: u64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

/// A position whose deviation is below this fraction of 1 + |mean| counts as constant. Its deviation is taken as 1, so
/// that noise is not amplified.
const CONSTANT: f64 = 1e-6;

impl Moments {
    pub(super) fn new(width: usize) -> Self {
        Self { count: 0, mean: vec![0.0; width], squares: vec![0.0; width] }
    }

    /// Adds one observation of every position.
    pub(super) fn push(&mut self, values: impl IntoIterator<Item = f32>) {
        self.count += 1;
        let count = self.count as f64;
        for ((mean, squares), value) in self.mean.iter_mut().zip(&mut self.squares).zip(values) {
            let from_old = f64::from(value) - *mean;
            *mean += from_old / count;
            *squares += from_old * (f64::from(value) - *mean);
        }
    }

    pub(super) fn finish(self) -> Standardisation {
        let count = self.count.max(1) as f64;
        let deviation = self.squares.iter().zip(&self.mean).map(|(squares, mean)| {
            let deviation = (squares / count).sqrt();
            if deviation > CONSTANT * (1.0 + mean.abs()) { deviation as f32 } else { 1.0 }
        });
        Standardisation { deviation: deviation.collect(), mean: self.mean.iter().map(|mean| *mean as f32).collect() }
    }
}

/// x ← (x - mean) / deviation, position by position.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standardisation {
    pub(super) mean: Vec<f32>,
    /// The standard deviation of each position. Never 0.
    pub(super) deviation: Vec<f32>,
}

impl Standardisation {
    /// Standardises one value at one position.
    pub(super) fn apply(&self, position: usize, value: f32) -> f32 {
        (value - self.mean[position]) / self.deviation[position]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardised_data_has_mean_0_and_deviation_1() {
        let data: Vec<[f32; 2]> = (0..100).map(|i| [1e6 + i as f32, 3.5]).collect();
        let mut moments = Moments::new(2);
        data.iter().for_each(|row| moments.push(*row));
        let standard = moments.finish();
        let mut again = Moments::new(2);
        data.iter().for_each(|row| again.push([standard.apply(0, row[0]), standard.apply(1, row[1])]));
        assert!(again.mean[0].abs() < 1e-6 && ((again.squares[0] / 100.0).sqrt() - 1.0).abs() < 1e-6);
        assert_eq!((again.mean[1], again.squares[1]), (0.0, 0.0));
    }
}
