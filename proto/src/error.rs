//! What can be wrong with a message, and its gRPC status.

use antiphon_core::head::ContributionError;
use antiphon_core::ids::BadName;

/// Why a message was rejected when it was received. Every kind names the path of the field as the `.proto` files spell
/// it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WireError {
    /// A contribution that the head cannot take.
    #[error(transparent)]
    Contribution(#[from] ContributionError),
    /// A required field or oneof is missing.
    #[error("`{field}` is missing")]
    Missing {
        /// Path of the field.
        field: String,
    },
    /// A bad name.
    #[error("`{field}`: {source}")]
    Name {
        /// Path of the field.
        field: String,
        /// What was given, and the rule.
        source: BadName,
    },
    /// A number that the enum does not have, or "unspecified".
    #[error("`{field}` is {value}, which is no {kind} of antiphon.v1")]
    UnknownEnum {
        /// Path of the field.
        field: String,
        /// Name of the enum.
        kind: &'static str,
        /// The number.
        value: i32,
    },
    /// A tensor of another element type than the one expected.
    #[error("`{field}` holds {given} elements, expected {expected}")]
    DataType {
        /// Path of the tensor.
        field: String,
        /// The element type expected.
        expected: &'static str,
        /// The element type received.
        given: &'static str,
    },
    /// A tensor of another shape than the one expected.
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
    #[error("`{field}` of shape {shape} needs {expected} bytes, but {given} came")]
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
        /// Where, in row-major order; 0 for a single number.
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

impl From<WireError> for tonic::Status {
    /// Oversize is `RESOURCE_EXHAUSTED`, everything else `INVALID_ARGUMENT`: a repeated message would be rejected
    /// again.
    fn from(error: WireError) -> Self {
        let message = error.to_string();
        match error {
            WireError::TooLarge { .. } => Self::resource_exhausted(message),
            WireError::Missing { .. }
            | WireError::Name { .. }
            | WireError::UnknownEnum { .. }
            | WireError::DataType { .. }
            | WireError::Shape { .. }
            | WireError::ByteLength { .. }
            | WireError::NotFinite { .. }
            | WireError::Contribution(_)
            | WireError::OutOfRange { .. } => Self::invalid_argument(message),
        }
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
