//! The errors of a received message, and their codes.

use antiphon_core::head::ContributionError;
use antiphon_core::ids::BadName;

use crate::service_error::{self, ServiceError, ServiceErrorCode};

/// Why a received message was rejected. Every variant names the path of the field, as the `.proto` files spell it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WireError {
    /// A contribution that the head cannot use.
    #[error(transparent)]
    Contribution(#[from] ContributionError),
    /// A required field or oneof is missing.
    #[error("`{field}` is missing")]
    Missing {
        /// Path of the field.
        field: String,
    },
    /// An invalid name.
    #[error("`{field}`: {source}")]
    Name {
        /// Path of the field.
        field: String,
        /// What was given, and the rule.
        source: BadName,
    },
    /// A number without an enum value, or the value "unspecified".
    #[error("`{field}` is {value}, which is not a {kind} of antiphon.v1")]
    UnknownEnum {
        /// Path of the field.
        field: String,
        /// Name of the enum.
        kind: &'static str,
        /// The number.
        value: i32,
    },
    /// A tensor with the wrong element type.
    #[error("`{field}` holds {given} elements, expected {expected}")]
    DataType {
        /// Path of the tensor.
        field: String,
        /// The element type expected.
        expected: &'static str,
        /// The element type received.
        given: &'static str,
    },
    /// A tensor with the wrong shape.
    #[error("`{field}` has shape {given}, expected {expected}")]
    Shape {
        /// Path of the tensor.
        field: String,
        /// The shape expected, as text: `(10, at most 64)`.
        expected: String,
        /// The shape received, as text.
        given: String,
    },
    /// A tensor with more or fewer bytes than its shape needs.
    #[error("`{field}` of shape {shape} needs {expected} bytes, but has {given}")]
    ByteLength {
        /// Path of the tensor.
        field: String,
        /// Its shape, as text.
        shape: String,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes received.
        given: usize,
    },
    /// A tensor whose shape needs more bytes than allowed, or overflows.
    #[error("`{field}` of shape {shape} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Path of the tensor.
        field: String,
        /// Its shape, as text.
        shape: String,
        /// Bytes allowed.
        limit: usize,
    },
    /// A tensor or number that is NaN or infinite.
    #[error("`{field}` holds {value} at element {index}, expected finite numbers only")]
    NotFinite {
        /// Path of the tensor or number.
        field: String,
        /// The position in row-major order; 0 for a single number.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// A value outside its range.
    #[error("`{field}` is {value}, expected {rule}")]
    OutOfRange {
        /// Path of the field.
        field: String,
        /// The value, as text.
        value: String,
        /// The rule that it breaks.
        rule: String,
    },
}

impl ServiceError for WireError {
    /// No error is `Unavailable`, because a repeated message would be rejected again.
    fn code(&self) -> ServiceErrorCode {
        match self {
            Self::TooLarge { .. } => ServiceErrorCode::ResourceExhausted,
            Self::Missing { .. }
            | Self::Name { .. }
            | Self::UnknownEnum { .. }
            | Self::DataType { .. }
            | Self::Shape { .. }
            | Self::ByteLength { .. }
            | Self::NotFinite { .. }
            | Self::Contribution(_)
            | Self::OutOfRange { .. } => ServiceErrorCode::InvalidArgument,
        }
    }
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        service_error::status(error)
    }
}

/// `value`, or the error that `field` is missing.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| WireError::Missing { field: field.to_owned() })
}

/// The error that `value` breaks `rule`.
pub(crate) fn out_of_range(field: &str, value: impl ToString, rule: impl Into<String>) -> WireError {
    WireError::OutOfRange { field: field.to_owned(), value: value.to_string(), rule: rule.into() }
}
