//! Runs jobs on this machine and injects faults, for `bench`, `chaos` and `verify --replay`.
//!
//! | module | what it owns |
//! |---|---|
//! | `cluster` | a coordinator and its workers in this process |
//! | `local_job` | one job on such a cluster, its state in a temporary folder |
//! | `lifeline`, `child_process` | this program as a child process, which ends with its parent |
//! | `restartable`, `processes` | the processes of a job, which can be killed, stopped and restarted |
//! | `proxy`, `fault` | connections that can be closed, and a schedule of faults that is a function of a seed |
//! | `cores`, `statistics` | processor cores to bind processes to, and quantiles of measurements |
//!
//! Commands parse, call this module, and print; it does not depend on them.

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
