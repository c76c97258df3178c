//! A trained model out of a checkpoint, and the samples of a split with what each modality says of them.
//!
//! ```text
//! checkpoint ─ head, models ─┐
//! data of each modality ─────┴ Pass (in order of id, chunk by chunk) ─ Join ─ Sample ─┬ eval: Evaluator
//!                                                                                     └ predict: Prediction ─ file
//! ```
//! Memory holds one chunk of logits per modality, however large the data. Every answer is a function of one sample alone:
//! neither the chunks nor the order of rows in the files have a part in it.

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
