//! From a job's tree to its specification, one file per section of the job. Rules between fields stand beside the
//! fields.

mod data;
mod encoder;
mod fit;
mod head;
mod input;
mod job;
mod modality;
mod optimizer;
mod schedule;
mod transfer;

pub(super) use job::job;
pub(super) use modality::names_as_keys;
