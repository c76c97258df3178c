//! The options of an encoder in a job file: `encoder: {kind: tcn, options: {channels: 32}}`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::spec::OptionValue;

/// An option with a wrong type or value, or one that the encoder does not have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OptionError {
    /// The option has the wrong type.
    #[error("option `{name}` is {found}, not {wanted}")]
    Type {
        /// The option.
        name: String,
        /// What the job gives.
        found: OptionValue,
        /// The type that the encoder reads.
        wanted: &'static str,
    },
    /// The encoder does not accept the value.
    #[error("option `{name}` is {found}: {rule}")]
    Value {
        /// The option.
        name: String,
        /// What the job gives.
        found: OptionValue,
        /// The rule for its values.
        rule: String,
    },
    /// The encoder has no such option.
    #[error("`{name}` is not an option; {known}")]
    Unknown {
        /// What the job gives.
        name: String,
        /// The options of the encoder, as text.
        known: String,
    },
}

/// Options by name. After the encoder is built, options that it has not read are refused.
#[derive(Debug)]
pub struct Options<'a> {
    given: &'a BTreeMap<String, OptionValue>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Options<'a> {
    pub(super) fn new(given: &'a BTreeMap<String, OptionValue>) -> Self {
        Self { given, read: RefCell::default() }
    }

    /// A whole number from 1, or `default`.
    ///
    /// # Errors
    /// The job gives something else.
    pub fn size(&self, name: &str, default: usize) -> Result<usize, OptionError> {
        self.get(name, default, "a whole number from 1", size)
    }

    /// A list of whole numbers from 1, or `default`.
    ///
    /// # Errors
    /// The job gives something else.
    pub fn sizes(&self, name: &str, default: &[usize]) -> Result<Vec<usize>, OptionError> {
        self.get(name, default.to_vec(), "a list of whole numbers from 1", |value| match value {
            OptionValue::List(values) => values.iter().map(size).collect(),
            _ => None,
        })
    }

    /// A number, or `default`.
    ///
    /// # Errors
    /// The job gives something else.
    pub fn number(&self, name: &str, default: f64) -> Result<f64, OptionError> {
        self.get(name, default, "a number", |value| match value {
            OptionValue::Number(number) => Some(*number),
            OptionValue::Whole(number) => Some(*number as f64),
            _ => None,
        })
    }

    /// A fraction from 0 to below 1, such as a dropout, or `default`.
    ///
    /// # Errors
    /// The job gives something else.
    pub fn share(&self, name: &str, default: f64) -> Result<f64, OptionError> {
        let share = self.number(name, default)?;
        if (0.0..1.0).contains(&share) { Ok(share) } else { Err(self.refuse(name, "use a number from 0 to below 1")) }
    }

    /// `true` or `false`, or `default`.
    ///
    /// # Errors
    /// The job gives something else.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, OptionError> {
        self.get(name, default, "true or false", |value| match value {
            OptionValue::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// Text, or `default`.
    ///
    /// # Errors
    /// The job gives something else.
    pub fn text(&self, name: &str, default: &str) -> Result<String, OptionError> {
        self.get(name, default.to_owned(), "text", |value| match value {
            OptionValue::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// The error for a value that the encoder does not accept. `rule` says which values it accepts.
    pub fn refuse(&self, name: &str, rule: impl Into<String>) -> OptionError {
        let found = self.given.get(name).cloned().unwrap_or_else(|| OptionValue::Text("its default".to_owned()));
        OptionError::Value { name: name.to_owned(), found, rule: rule.into() }
    }

    fn get<T>(
        &self,
        name: &str,
        default: T,
        wanted: &'static str,
        read: impl FnOnce(&OptionValue) -> Option<T>,
    ) -> Result<T, OptionError> {
        self.read.borrow_mut().insert(name.to_owned());
        match self.given.get(name) {
            None => Ok(default),
            Some(value) => {
                read(value).ok_or_else(|| OptionError::Type { name: name.to_owned(), found: value.clone(), wanted })
            }
        }
    }

    /// Whether every option was read.
    pub(super) fn check_all_read(&self) -> Result<(), OptionError> {
        let read = self.read.borrow();
        let Some(name) = self.given.keys().find(|name| !read.contains(*name)) else { return Ok(()) };
        let names: Vec<String> = read.iter().map(|name| format!("`{name}`")).collect();
        let known = match names.as_slice() {
            [] => "the encoder has no options".to_owned(),
            names => format!("the options are {}", names.join(", ")),
        };
        Err(OptionError::Unknown { name: name.clone(), known })
    }
}

fn size(value: &OptionValue) -> Option<usize> {
    match value {
        OptionValue::Whole(number @ 1..) => usize::try_from(*number).ok(),
        _ => None,
    }
}
