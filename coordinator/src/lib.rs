//! The coordinator: owns the shared head of every job and hands out turns.

pub mod job;
