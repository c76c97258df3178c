//! Optimizers of encoders.
