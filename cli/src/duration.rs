//! Durations on the command line.

use std::time::Duration;

/// The longest duration: a year.
const LONGEST: f64 = 365.0 * 86_400.0;

/// Parses `2s`, `500ms`, `1.5 s`, `10 min` or `1h`, as in job files. A number without a unit is in seconds.
///
/// # Errors
/// `text` is not a duration, is not above zero, or is longer than a year.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let plain = text.trim();
    let units = [("ms", 1e-3), ("min", 60.0), ("s", 1.0), ("h", 3600.0)];
    let unit = units.into_iter().find_map(|(unit, seconds)| Some((plain.strip_suffix(unit)?, seconds)));
    let (number, unit) = unit.unwrap_or((plain, 1.0));
    let digits = number.trim_end();
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = digits.parse::<f64>().ok().filter(|_| is_number).map(|number| number * unit);
    let seconds = seconds.filter(|seconds| *seconds > 0.0 && *seconds <= LONGEST);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("`{text}` is not a duration; write 2s, 500ms or 10min"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        let cases =
            [("2s", 2000), ("500ms", 500), ("1.5 s", 1500), ("0.25", 250), ("10min", 600_000), ("1h", 3_600_000)];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "0s", "-1s", "1e3", "inf", "2 weeks", "1.2.3", "9999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
