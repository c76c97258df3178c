//! What `bench`, `chaos`, `verify --replay` and the tests of a machine share: ways to run a job here, and to disturb it.
//!
//! | module | what it owns |
//! |---|---|
//! | `cluster` | a coordinator and its workers in this process |
//! | `local_job` | one job on such a cluster, its state in a temporary folder |
//! | `lifeline`, `child_process` | this program as a child process that ends with its parent |
//! | `restartable`, `processes` | the processes of a job, which can be killed, stopped and started again |
//! | `proxy`, `fault` | connections that can be closed, and a schedule of faults that is a function of a seed |
//! | `cores`, `statistics` | processor cores to hold a process to, and quantiles of what was measured |
//!
//! It knows no command: commands parse, call this, and print.

pub(crate) mod child_process;
pub(crate) mod cluster;
pub(crate) mod cores;
pub(crate) mod fault;
pub(crate) mod lifeline;
pub(crate) mod local_job;
pub(crate) mod processes;
pub(crate) mod proxy;
mod restartable;
pub(crate) mod statistics;
