//! What the reference pages say about the JSON objects that people and programs read: one table per object.
//!
//! The pages are written from these tables, and a test of the command line compares the tables with serialised objects:
//! every field that occurs is here, and every field here occurs.

mod events;

pub use events::{EVALUATION_REPORT, JOB_EVENTS, SCORES};

/// A JSON object.
#[derive(Debug)]
pub struct Object {
    /// The value of `event`, for an object that is printed. Otherwise the heading of the object in the reference.
    pub name: &'static str,
    /// When it is printed, or what it describes.
    pub meaning: &'static str,
    /// Its fields, in the order in which they are serialised.
    pub fields: &'static [Field],
    /// An object whose fields it has in addition.
    pub also: Option<&'static Object>,
}

impl Object {
    /// An object with these fields.
    #[must_use]
    pub const fn new(name: &'static str, meaning: &'static str, fields: &'static [Field]) -> Self {
        Self { name, meaning, fields, also: None }
    }

    /// The same object with the fields of another one in addition.
    #[must_use]
    pub const fn with(mut self, also: &'static Object) -> Self {
        self.also = Some(also);
        self
    }

    /// Its own fields, then those of `also`.
    pub fn all_fields(&self) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().chain(self.also.iter().flat_map(|also| also.fields))
    }
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// The key in the JSON object.
    pub name: &'static str,
    /// The type of the value.
    pub kind: Kind,
    /// The meaning and the unit, as a sentence of the reference.
    pub meaning: &'static str,
    /// Whether the field is always present.
    pub presence: Presence,
}

impl Field {
    /// A field that is always present.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, meaning: &'static str) -> Self {
        Self { name, kind, meaning, presence: Presence::Always }
    }

    /// The same field, null where there is no value.
    #[must_use]
    pub const fn or_null(mut self) -> Self {
        self.presence = Presence::Nullable;
        self
    }

    /// The same field, omitted where there is no value.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.presence = Presence::Optional;
        self
    }
}

/// Whether a field is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In every object, with a value.
    Always,
    /// In every object, null where there is no value.
    Nullable,
    /// Omitted where there is no value.
    Optional,
}

/// The type of a JSON value.
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
    /// An object with a key for each item of the named kind, and a value of this type under each key.
    Map(&'static str, &'static Kind),
    /// A list of values of this type.
    List(&'static Kind),
    /// Any JSON value; the field's meaning describes it.
    Any,
}
