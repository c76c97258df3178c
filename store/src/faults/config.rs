//! The configuration of faults.

use std::fmt;
use std::str::FromStr;

/// The environment variable that enables faults.
pub const VARIABLE: &str = "ANTIPHON_STORE_FAULTS";

/// How often a store fails, and how. Shares are fractions of requests, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// The seed, which determines the requests that fail.
    pub seed: u64,
    /// The share of requests that fail without being carried out.
    pub errors: f64,
    /// The share of requests that are carried out but answered with an error.
    pub lost: f64,
    /// The share of requests that are delayed.
    pub slow: f64,
    /// The mean delay in milliseconds. Delays are uniform between zero and twice the mean.
    pub slow_ms: u64,
    /// The share of reads and lists of which only the first half arrives.
    pub truncated: f64,
}

/// An entry that names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` is not a fault; write seed=NUMBER, slow_ms=MILLISECONDS, or errors=SHARE, lost=SHARE, slow=SHARE and \
     truncated=SHARE with shares from 0 to 1, as in seed=7,errors=0.1,slow=0.2"
)]
pub struct BadFaults {
    /// The entry.
    pub entry: String,
}

/// A value of [`VARIABLE`] that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}: {0}")]
pub struct BadVariable(#[from] BadFaults);

impl FromStr for Faults {
    type Err = BadFaults;

    fn from_str(text: &str) -> Result<Self, BadFaults> {
        let mut faults = Self { seed: 0, errors: 0.0, lost: 0.0, slow: 0.0, slow_ms: 100, truncated: 0.0 };
        for entry in text.split(',') {
            let bad = || BadFaults { entry: entry.to_owned() };
            let (key, value) = entry.trim().split_once('=').ok_or_else(bad)?;
            let number = || value.parse::<u64>().map_err(|_| bad());
            let share = || value.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(bad);
            match key {
                "seed" => faults.seed = number()?,
                "errors" => faults.errors = share()?,
                "lost" => faults.lost = share()?,
                "slow" => faults.slow = share()?,
                "slow_ms" => faults.slow_ms = number()?,
                "truncated" => faults.truncated = share()?,
                _ => return Err(bad()),
            }
        }
        Ok(faults)
    }
}

impl Faults {
    /// The faults in the environment variable [`VARIABLE`]. None if it is not set.
    ///
    /// # Errors
    /// If the variable's value cannot be parsed.
    pub fn from_environment() -> Result<Option<Self>, BadVariable> {
        match std::env::var_os(VARIABLE) {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text.to_string_lossy().parse().map(Some).map_err(BadVariable),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, errors, lost, slow, slow_ms, truncated } = self;
        write!(f, "seed={seed},errors={errors},lost={lost},slow={slow},slow_ms={slow_ms},truncated={truncated}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Faults {
        text.parse().expect(text)
    }

    #[test]
    fn faults_are_read_and_written() {
        let text = "seed=7,errors=0.1,lost=0.05,slow=0.2,slow_ms=300,truncated=0.05";
        let expected = Faults { seed: 7, errors: 0.1, lost: 0.05, slow: 0.2, slow_ms: 300, truncated: 0.05 };
        assert_eq!((faults(text), faults(text).to_string().as_str()), (expected, text));
        for bad in ["", "errors", "errors=1.5", "errors=-0", "seed=x", "slow=NaN", "seed=1,,errors=0.1", "losst=0.1"] {
            let error = Faults::from_str(bad).map(|faults| faults.to_string());
            assert!(error.is_err() || bad == "errors=-0", "{bad}: {error:?}");
        }
        let error = Faults::from_str("seed=1,losst=0.1").expect_err("a misprint").to_string();
        assert!(error.starts_with("`losst=0.1` is not a fault; write seed=NUMBER"), "{error}");
    }
}
