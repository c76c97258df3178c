//! Tests of the program. Each starts `antiphon` and reads its output.
//!
//! They are one binary, because each binary links every crate. There is one module per subject:
//!
//! | module | what it tests |
//! |---|---|
//! | `same_bits` | `run` against a plain loop bit for bit, on any number of threads, stopped and resumed |
//! | `schedules` | pipelined against sequential turns, in every order of modalities |
//! | `data`, `clips` | `data synth` and `data inspect`; jobs on clips |
//! | `bf16` | encoders in bf16: refused on the CPU, trained on a GPU |
//! | `predictions` | `eval` and `predict` |
//! | `verify` | checkpoints that are sound, damaged, replayed or unreadable |
//! | `bench` | what each bench prints |
//! | `jobs`, `submit` | `jobs`, `stop`, `submit` and `follow`, with an unreachable coordinator |
//! | `processes`, `restart` | a coordinator and workers as processes that are killed and restarted |
//! | `chaos`, `chaos_itself` | `chaos` with faults of every kind, and without any |
//! | `crash_points` | processes that are killed at each request that writes a checkpoint |
//! | `checkpoint_stalls` | the stall time in the events of checkpoints |
//! | `silent_stores`, `worker_store` | stores that do not answer or answer with errors, for the coordinator and for a worker |
//! | `coordinator_memory` | the memory of a coordinator that receives too much |
//! | `reference` | the generated pages of the book |
//! | `docs` | the code blocks of README and book |
//! | `support` | a small job, and the program as a process |
//!
//! `cargo test -p antiphon --test cli submit::` runs one module. No test changes the environment, the working folder or
//! the allocator of this process: tests that change any of these do so in a child process.

mod bench;
mod bf16;
mod chaos;
mod chaos_itself;
mod checkpoint_stalls;
mod clips;
mod coordinator_memory;
mod crash_points;
mod data;
mod docs;
mod jobs;
mod predictions;
mod processes;
mod reference;
mod restart;
mod same_bits;
mod schedules;
mod silent_stores;
mod submit;
mod support;
mod verify;
mod worker_store;
