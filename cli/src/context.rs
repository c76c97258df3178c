//! What a command receives in addition to its arguments.

use antiphon_model::custom::Encoders;
use antiphon_store::storage::StoreOptions;

use crate::output::Format;

/// The settings of the program that apply to every command.
#[derive(Debug, Clone)]
pub struct Context {
    /// How results are printed.
    pub format: Format,
    /// How the stores that a command writes to are opened.
    pub stores: StoreOptions,
    /// Encoders that the program registers besides the built-in ones.
    pub encoders: Encoders,
}
