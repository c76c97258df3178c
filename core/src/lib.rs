//! The pure part of Antiphon: the mathematics of the shared head and its projector, fusion, the job specification, the
//! turn machine, and which job gets which worker.
//!
//! Nothing here knows of a runtime, a network, a device, a clock or ambient randomness: time and seeds are arguments,
//! state is ordered plain data, and the same calls give the same bits.

pub mod backoff;
pub mod digest;
pub mod event;
pub mod files;
pub mod fusion;
pub mod head;
pub mod ids;
pub mod join;
pub mod learning_rate;
pub mod linalg;
pub mod metrics;
pub mod numerics;
pub mod optimizer;
pub mod placement;
pub mod projector;
pub mod reference;
pub mod rng;
pub mod spec;
pub mod time;
pub mod times;
pub mod turn;
