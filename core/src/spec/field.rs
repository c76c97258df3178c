//! The description of a field of a job file. Reading, checking and explaining share it.

use std::fmt;
use std::ops::Bound;

/// A field of a job file.
#[derive(Debug)]
pub(super) struct Field {
    /// The key in its mapping.
    pub(super) key: &'static str,
    /// The values that it accepts.
    pub(super) kind: Kind,
    /// The default, as a job file writes it. None if the field is required, or if the default depends on the rest of
    /// the job.
    pub(super) default: Option<&'static str>,
    /// The unit, such as `epochs`. Empty if the field has none.
    pub(super) unit: &'static str,
    /// The purpose of the field.
    pub(super) meaning: &'static str,
    /// An example value, as a job file writes it.
    pub(super) example: &'static str,
}

impl Field {
    pub(super) const fn new(key: &'static str, kind: Kind, example: &'static str, meaning: &'static str) -> Self {
        Self { key, kind, default: None, unit: "", meaning, example }
    }

    #[must_use]
    pub(super) const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    #[must_use]
    pub(super) const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }
}

/// The values that a field accepts. Its text completes "is not ...".
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A DNS label.
    Name,
    /// Text that is not empty.
    Text,
    /// A path or URL, or a list of them.
    Paths,
    /// True or false.
    Flag,
    /// A whole number between two bounds, both included.
    Whole(u64, u64),
    /// A list of whole numbers: the bounds of its length and of each number.
    Wholes { count: (usize, usize), each: (u64, u64) },
    /// A finite number.
    Number(Bound<f64>, Bound<f64>),
    /// A fraction from 0 to below 1.
    Share,
    /// Seconds, above 0 and at most an hour.
    Seconds,
    /// `1 epoch`, `500 turns` or `end`.
    Period,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A mapping with its own keys.
    Section,
    /// A value with its own rules, which this text describes.
    Other(&'static str),
}

/// A number above this bound.
pub(super) const fn above(low: f64) -> Kind {
    Kind::Number(Bound::Excluded(low), Bound::Unbounded)
}

/// A number of at least this bound.
pub(super) const fn at_least(low: f64) -> Kind {
    Kind::Number(Bound::Included(low), Bound::Unbounded)
}

/// A number from 0 to below 1.
pub(super) const BELOW_ONE: Kind = Kind::Number(Bound::Included(0.0), Bound::Excluded(1.0));

/// A number from 0 to 1.
pub(super) const UP_TO_ONE: Kind = Kind::Number(Bound::Included(0.0), Bound::Included(1.0));

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Name => {
                f.write_str("a name of 1 to 63 lower-case letters, digits and hyphens, beginning with a letter")
            }
            Self::Text => f.write_str("text"),
            Self::Paths => f.write_str("a path or URL, or a list of them"),
            Self::Flag => f.write_str("true or false"),
            Self::Whole(low, high) => whole(f, "a whole number", low, high),
            Self::Wholes { count: (least, most), each: (low, high) } => {
                write!(f, "a list of {least} to {most} whole numbers, each from {low} to {high}")
            }
            Self::Number(low, high) => number(f, low, high),
            Self::Share => f.write_str("a share from 0 up to, but not including, 1, such as 0.1 or 10%"),
            Self::Seconds => f.write_str("a time above 0 and at most an hour, such as `1.5 s` or `250 ms`"),
            Self::Period => f.write_str("`1 epoch`, `500 turns` or `end`"),
            Self::OneOf(words) => {
                let words: Vec<_> = words.iter().map(|w| format!("`{w}`")).collect();
                write!(f, "one of {}", words.join(", "))
            }
            Self::Section => f.write_str("a mapping"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

fn whole(f: &mut fmt::Formatter<'_>, what: &str, low: u64, high: u64) -> fmt::Result {
    match (low, high) {
        (low, u64::MAX) => write!(f, "{what} from {low}"),
        (low, high) => write!(f, "{what} from {low} to {high}"),
    }
}

fn number(f: &mut fmt::Formatter<'_>, low: Bound<f64>, high: Bound<f64>) -> fmt::Result {
    match low {
        Bound::Included(low) if high == Bound::Unbounded => write!(f, "a number of {low} or more")?,
        Bound::Included(low) => write!(f, "a number from {low}")?,
        Bound::Excluded(low) => write!(f, "a number above {low}")?,
        Bound::Unbounded => f.write_str("a number")?,
    }
    match high {
        Bound::Included(high) => write!(f, " to {high}"),
        Bound::Excluded(high) => write!(f, " up to, but not including, {high}"),
        Bound::Unbounded => Ok(()),
    }
}
