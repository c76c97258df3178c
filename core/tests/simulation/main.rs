//! The turn machine and the shared head under thousands of random schedules, in virtual time, beside a naive model.
//!
//! ```text
//!   seed ─▶ scenario ─┬─▶ world: clock, events, network ─▶ coordinator: the real TurnMachine and SharedHead ─▶ report ─┐
//!                     │          └─▶ workers: small encoders that learn                                             equal?
//!                     └─▶ naive: a plain loop, one modality after the other ──────────────────────────────▶ report ─┘
//! ```
//!
//! Every schedule must give the bits of the plain loop: each step's loss and head, each evaluation, each checkpoint, the end.
//! On the way the machine's invariants are checked after every transition, and the simulation's own: one step is granted at a
//! time, each worker is granted the step after its last one and not before it has answered that, head versions ascend by one,
//! turns end that have begun, nothing is saved or evaluated within a step, and what is copied or wrong is refused and changes
//! nothing.
//!
//! A seed that fails says so with its job, its trace and how to run it again:
//!
//! ```text
//! ANTIPHON_SIMULATION_SEED=123 cargo test -p antiphon-core --test simulation -- --nocapture
//! ANTIPHON_SIMULATIONS=20000 cargo test -p antiphon-core --test simulation
//! ```

mod bugs;
mod coordinator;
mod delays;
mod learner;
mod naive;
mod noise;
mod pace;
mod report;
mod scenario;
mod schedules;
mod trace;
mod worker;
mod world;
