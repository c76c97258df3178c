//! A trained model from a checkpoint, and the samples of a split with the logits of each modality.
//!
//! ```text
//! checkpoint ─ head, models ─┐
//! data of each modality ─────┴ Pass (in order of id, chunk by chunk) ─ Join ─ Sample ─┬ eval: Evaluator
//!                                                                                     └ predict: Prediction ─ file
//! ```
//! Memory holds one chunk of logits per modality, however large the data set is. A prediction depends on its sample
//! only, not on chunks or on the order of rows in the files.

mod arguments;
mod error;
mod model;
mod output_file;
mod parquet;
mod prediction;
mod samples;

pub use arguments::{DataPattern, Source};
pub use error::PredictorError;
pub use model::{Labels, Predictor};
pub use output_file::OutputFile;
pub use prediction::{Named, Prediction, Weighed};
pub use samples::{Sample, Samples};

pub(crate) use model::{exit_of, open};
pub(crate) use output_file::write_line;
