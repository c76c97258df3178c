//! Building blocks of encoders.
