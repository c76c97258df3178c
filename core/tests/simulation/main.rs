//! The turn machine and the shared head under thousands of random schedules and faults, in virtual time, beside a naive
//! model.
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
//! when it reaches the store, and the end. What a coordinator's death undoes is done again with the same bits.
//!
//! Faults are ordinary events ([`faults`]). After any of them a worker dies, stops, hangs, loses its connection, is
//! asked to stop or gets errors from the store; manifests take long; the coordinator dies, stalls, or is replaced and
//! wakes up in the term of the next. The user asks the job to stop, once or twice, politely or at once, and later to
//! resume. Whatever is on its way over a lost connection is lost with it. Messages come late, twice and wrong.
//!
//! These are checked after every transition of the machine or every event:
//!
//! - the machine's own invariants, and that a rejected input changes nothing; a correct message is rejected only if its
//!   sender has lost its slot, and one that is copied, wrong or of an older term always is;
//! - a step is applied once, head versions ascend by one, turns end that have begun, no checkpoint or evaluation begins
//!   within a step;
//! - a step is replayed under the head that it was granted with, which is still in the replay buffer, and the buffer
//!   stays within its bound;
//! - the store has each checkpoint once, complete, written in the newest term;
//! - a job that has stopped was asked to, names the newest checkpoint, which holds all that it has learned unless it
//!   was to stop at once, and leaves none incomplete;
//! - where only the end of a fault can change anything, the job says what it waits for, once a worker's silence or
//!   stall could be seen; where nothing can change anything, it has ended; a deadline that was heeded is over.
//!
//! A seed that fails says so with its job and how to run it again. It leaves a trace file: the scenario and all that
//! coordinators looked at, a JSON object a line, with the effects that came of it. Fresh machines that look at the same
//! must do the same.
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
