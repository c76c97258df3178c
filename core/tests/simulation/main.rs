//! The turn machine and the shared head under thousands of random schedules and faults, in virtual time, beside a naive model.
//!
//! ```text
//!   seed ─▶ scenario ─┬─▶ world: clock, events, network, faults, store                                         ─▶ report ─┐
//!                     │          ├─▶ coordinators, one a term: the real TurnMachine and SharedHead                    equal?
//!                     │          └─▶ processes: workers with small encoders that learn                                    │
//!                     └─▶ naive: a plain loop, one modality after the other ───────────────────────────────▶ report ──────┘
//! ```
//!
//! Whatever the schedule and whatever fails, a job must give the bits of the plain loop: each step's loss and head when it is
//! applied, each encoder after every step, taken for the first time or again, each evaluation, each part and each manifest when it
//! comes to the store, the end. What a coordinator's death undoes is done again with the same bits.
//!
//! Faults are ordinary events ([`faults`]): after any of them a worker dies, stops, hangs, loses its connection, is asked to stop
//! or is failed by the store; manifests take long; the coordinator dies, stands still, or is replaced and wakes up in the reign of
//! the next. Somebody asks the job to stop, once or twice, politely or at once, and later to go on. Whatever is on its way over a connection is lost with it. Messages come late, twice and wrong.
//!
//! On the way these are checked, after every transition of the machine or every event:
//!
//! - the machine's own invariants, and that what is refused changes nothing; that what is not wrong is refused only of somebody
//!   who has lost its place, and what is copied, wrong or of an older term always;
//! - a step is applied once, head versions ascend by one, turns end that have begun, nothing is cut or evaluated within a step;
//! - a step is taken again under the head that it was granted with, which is still kept, and heads are kept within their bound;
//! - the store has each checkpoint once, whole, written in the newest term;
//! - a job that has stopped was asked to, names the newest checkpoint, which holds all that it has learnt unless it was to stop at
//!   once, and leaves none half written;
//! - where nothing is to come but the end of a fault, the job says what it waits for, once a worker's silence or standstill could
//!   be seen; where nothing is to come at all, it has ended; a deadline that is heeded is over.
//!
//! A seed that fails says so with its job and how to run it again. It leaves a trace file: the scenario and all that coordinators
//! looked at, a JSON object a line, with the effects that came of it. Fresh machines that look at the same must do the same.
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
