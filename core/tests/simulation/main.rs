//! The turn machine and the shared head under thousands of random schedules and faults, in virtual time, compared with
//! a naive model.
//!
//! ```text
//!   seed ─▶ scenario ─┬─▶ world: clock, events, network, faults, store                                         ─▶ report ─┐
//!                     │          ├─▶ coordinators, one a term: the real TurnMachine and SharedHead                    equal?
//!                     │          └─▶ processes: workers with small encoders that learn                                    │
//!                     └─▶ naive: a plain loop, one modality after the other ───────────────────────────────▶ report ──────┘
//! ```
//!
//! Whatever the schedule and whatever fails, a job must give the bits of the plain loop: each step's loss and head when
//! it is applied, each encoder after every step and every replayed step, each evaluation, each file and each manifest
//! when it reaches the store, and the end. Work that a coordinator's death undoes is repeated with the same bits.
//!
//! Faults are ordinary events ([`faults`]). After any of them a worker dies, stops, hangs, loses its connection, is
//! asked to stop or gets errors from the store; manifests take long; the coordinator dies, stalls, or is replaced and
//! wakes up in the term of the next. The user asks the job to stop, once or twice, gracefully or at once, and later to
//! resume. Messages in transit over a lost connection are lost. Messages come late, twice and wrong.
//!
//! The simulation checks after every transition of the machine or every event:
//!
//! - the machine's own invariants, and that a rejected input changes nothing; a correct message is rejected only if its
//!   sender has lost its slot; a copied, wrong or old message is always rejected;
//! - a step is applied once, head versions ascend by one, every turn that starts also ends, and no checkpoint or
//!   evaluation starts within a step;
//! - a step is replayed under the head that it was granted with, which is still in the replay buffer, and the buffer
//!   stays within its bound;
//! - the store has each checkpoint once, complete, written in the newest term;
//! - a stopped job was asked to stop and leaves no incomplete checkpoint; the newest one, which it names, holds all
//!   that it has learned, unless it had to stop at once;
//! - if only the end of a fault can change anything, the job reports what it waits for as soon as a silent or stalled
//!   worker can be noticed; if nothing can change anything, the job has ended; a processed deadline is in the past.
//!
//! A failing seed prints its job and how to repeat it. It leaves a trace file: the scenario and all inputs of
//! coordinators with their effects, one JSON object per line. Fresh machines must react to the same inputs in the same
//! way.
//!
//! ```text
//! ANTIPHON_SIMULATION_SEED=123 cargo test -p antiphon-core --test simulation -- --nocapture every_schedule
//! ANTIPHON_SIMULATION_SEED=123 ANTIPHON_SIMULATION_TRACE=trace.jsonl cargo test …    writes its trace
//! ANTIPHON_SIMULATION_TRACE=trace.jsonl cargo test -p antiphon-core --test simulation trace_file    plays one back
//! ANTIPHON_SIMULATIONS=100000 cargo test -p antiphon-core --test simulation
//! ```

mod bugs;
mod coordinator;
mod delays;
mod effects;
mod evaluation;
mod event;
mod faults;
mod learner;
mod naive;
mod noise;
mod pace;
mod playback;
mod pool;
mod process;
mod recorded;
mod report;
mod scenario;
mod schedules;
mod stop;
mod store;
mod trace;
mod worker;
mod world;
