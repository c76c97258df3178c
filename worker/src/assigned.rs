//! A job as the coordinator assigns it, parsed once.

use antiphon_core::ids::{JobId, ModalityName, Term};
use antiphon_core::spec::JobSpec;
use antiphon_proto::{ids, v1};

use crate::failure::Failure;

/// The job and term that failures are reported under, as the coordinator sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Under {
    pub(crate) job: String,
    pub(crate) term: u64,
}

/// An assigned job.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) job: JobId,
    pub(crate) term: Term,
    pub(crate) modality: ModalityName,
    pub(crate) spec: JobSpec,
    /// The canonical JSON of `spec`. A job with other JSON is another job.
    pub(crate) specification: String,
    /// The URL of the checkpoint to restore. None starts from the first step.
    pub(crate) restore: Option<String>,
}

impl Assigned {
    pub(crate) fn decode(message: v1::Assign) -> Result<Self, Failure> {
        Ok(Self {
            job: ids::name("assign.job", &message.job)?,
            term: Term(message.term),
            modality: ids::name("assign.modality", &message.modality)?,
            spec: JobSpec::from_json(&message.specification).map_err(Failure::Specification)?,
            specification: message.specification,
            restore: message.restore,
        })
    }
}
