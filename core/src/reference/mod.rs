//! What the reference pages say of the JSON objects that people and programs read: one table per object.
//!
//! The pages are written from these tables, and a test of the command line holds the tables against objects as they are
//! serialised: every field that occurs is here, and every field here occurs.

mod events;

pub use events::{EVALUATION_REPORT, JOB_EVENTS, SCORES};

/// A JSON object.
#[derive(Debug)]
pub struct Object {
    /// What `event` says of an object that is printed; else what the reference calls an object that is part of another.
    pub name: &'static str,
    /// When it is printed, or what it describes.
    pub meaning: &'static str,
    /// Its fields, in the order in which they are serialised.
    pub fields: &'static [Field],
    /// Another object whose fields it has as well.
    pub also: Option<&'static Object>,
}

impl Object {
    /// An object of these fields.
    #[must_use]
    pub const fn new(name: &'static str, meaning: &'static str, fields: &'static [Field]) -> Self {
        Self { name, meaning, fields, also: None }
    }

    /// The same with the fields of another object beside its own.
    #[must_use]
    pub const fn with(mut self, also: &'static Object) -> Self {
        self.also = Some(also);
        self
    }

    /// All its fields.
    pub fn all_fields(&self) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().chain(self.also.iter().flat_map(|also| also.fields))
    }
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// Its key.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What it means, and its unit.
    pub meaning: &'static str,
    /// Whether it is always there.
    pub presence: Presence,
}

impl Field {
    /// A field that is always there.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, meaning: &'static str) -> Self {
        Self { name, kind, meaning, presence: Presence::Always }
    }

    /// The same, null where there is no value.
    #[must_use]
    pub const fn or_null(mut self) -> Self {
        self.presence = Presence::Nullable;
        self
    }

    /// The same, left out where there is no value.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.presence = Presence::Optional;
        self
    }
}

/// Whether a field is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In every object, with a value.
    Always,
    /// In every object, null where there is no value.
    Nullable,
    /// Left out where there is no value.
    Optional,
}

/// What a value is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A string.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A whole number, 0 or above.
    Whole,
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// An object.
    Object(&'static Object),
    /// An object with one key for each of something, and a value of this kind under each.
    Map(&'static str, &'static Kind),
    /// A list of values of this kind.
    List(&'static Kind),
    /// Any JSON, as its meaning describes it.
    Any,
}
