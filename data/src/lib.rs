//! Data of one modality: from object storage to batches of numbers.
//!
//! ```text
//! DataSpec ─ source ─ shard   ─ column ─┐                    ┌ image, audio, text, features ┐
//!            synth ─────────────────────┴ RawRow ─ Dataset ──┴ Preprocessor ────────────────┴ Prefetcher ─ Batch
//!                                                  (payload)                    (Sampler)
//! ```
//!
//! Invariants:
//! 1. Every batch is a function of the data, the specification and the step. Threads, memory bounds and resuming do not
//!    change it.
//! 2. Memory is bounded: by [`OpenOptions::memory`] and one row group for payload, by the prefetcher's depth for
//!    batches. The index of a split (see [`Dataset`]) grows with the number of its samples.
//! 3. Every error in the data is a [`DataError`] that names file, sample and column. Nothing panics, and nothing is
//!    skipped.
//!
//! This crate knows no encoder, turn or coordinator, and no network: the program passes in the [`stores`] to read from.

mod audio;
mod batch;
mod clip;
mod column;
mod dataset;
mod error;
mod gather;
mod image;
pub mod inspect;
mod label;
mod open;
mod payload;
mod prefetch;
mod preprocess;
pub mod row;
mod sampler;
pub mod shard;
pub mod source;
mod standardise;
pub mod stores;
pub mod synth;
mod text;

pub use audio::noise_spectrogram;
pub use batch::{Batch, BatchInput, Decoded, Images, InputShape};
pub use column::ColumnKind;
pub use dataset::{Dataset, OpenOptions, ValueKind};
pub use error::{DataError, SampleError, SampleOrigin};
pub use label::UNLABELLED;
pub use prefetch::{PrefetchOptions, Prefetcher};
pub use preprocess::{Preprocessor, PreprocessorSettings, PreprocessorState};
pub use row::{Frame, RawRow, RawValue};
pub use sampler::Sampler;
