//! What is wrong with a job, where, and what to do.

use std::fmt;

/// A position in a job. Positions in the file come before overrides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// In the job file.
    File {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
    },
    /// In an override.
    Override {
        /// Its position among the overrides, from 0.
        index: usize,
        /// `key=value`, as it was given.
        text: String,
    },
}

impl Location {
    /// The beginning of a job file.
    pub const START: Self = Self::File { line: 1, column: 1 };
}

/// One thing that is wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// Where the wrong value or key is.
    pub location: Location,
    /// The full path of the key, such as `modalities.audio.encoder.kind`. Empty if there is no key.
    pub key: String,
    /// The rejected value, shortened. None if there is no value.
    pub value: Option<String>,
    /// The rule and what to do: the rest of a sentence that begins with the value.
    pub rule: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, "`{value}` ")?;
        }
        f.write_str(&self.rule)
    }
}

/// Everything that is wrong with a job, in the order of the file, overrides last. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors {
    /// What messages call the job file.
    pub file: String,
    /// Sorted by position, without duplicates.
    pub errors: Vec<SpecError>,
}

/// The largest number of errors in a message.
const MOST: usize = 100;

impl SpecErrors {
    pub(super) fn new(file: &str, mut errors: Vec<SpecError>) -> Self {
        errors.sort_by(|a, b| a.location.cmp(&b.location));
        let mut kept: Vec<SpecError> = Vec::new();
        for error in errors {
            if kept.len() < MOST && !kept.contains(&error) {
                kept.push(error);
            }
        }
        Self { file: file.to_owned(), errors: kept }
    }

    /// The location of an error as messages show it: `job.yaml:12:9` or `--set batch=0`.
    #[must_use]
    pub fn locate(&self, error: &SpecError) -> String {
        match &error.location {
            Location::File { line, column } => format!("{}:{line}:{column}", self.file),
            Location::Override { text, .. } => format!("--set {}", shorten(text)),
        }
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: {error}", self.locate(error))?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

/// Text for one line of a message: control characters are escaped, and the text is truncated after 60 characters.
pub(super) fn shorten(text: &str) -> String {
    const LENGTH: usize = 60;
    let mut short = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == LENGTH {
            short.push('…');
            break;
        }
        if c.is_control() { short.extend(c.escape_default()) } else { short.push(c) }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_unprintable_values_stay_on_one_line() {
        assert_eq!(shorten("a\nb\u{7}"), "a\\nb\\u{7}");
        assert_eq!(shorten(&"é".repeat(100)).chars().count(), 61);
    }

    #[test]
    fn errors_come_in_order_and_once() {
        let at = |location: Location| SpecError { location, key: "k".into(), value: None, rule: "r".into() };
        let late = at(Location::File { line: 9, column: 1 });
        let early = at(Location::File { line: 2, column: 30 });
        let set = at(Location::Override { index: 0, text: "k=1".into() });
        let all = SpecErrors::new("j", vec![set.clone(), late.clone(), early.clone(), late.clone()]);
        assert_eq!(all.errors, [early, late, set]);
        assert_eq!(all.to_string(), "j:2:30: k: r\nj:9:1: k: r\n--set k=1: k: r");
    }
}
