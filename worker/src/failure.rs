//! Why a worker fails its job, and whether a retry may succeed.

use antiphon_core::spec::SpecErrors;
use antiphon_model::numerics::FingerprintError;
use antiphon_proto::WireError;
use antiphon_store::checkpoints::CheckpointError;

use crate::trainer::TrainError;

/// An error that ends a worker's part in a job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The coordinator rejected a message from this worker.
    #[error("the coordinator rejected this worker's message: {message}")]
    Rejected {
        message: String,
        /// Whether the cause may pass, such as a late message. A malformed message would be malformed again.
        transient: bool,
    },
    /// A panic, which may be caused by this machine.
    #[error("the worker panicked: {0}")]
    Panicked(String),
    /// A message that cannot be parsed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A specification that cannot be parsed.
    #[error("the assigned job's specification is invalid")]
    Specification(#[source] SpecErrors),
    /// A checkpoint that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint that does not fit the job.
    #[error("checkpoint `{url}` cannot be restored")]
    Restore { url: String, source: Box<TrainError> },
    /// The numeric fingerprint cannot be measured.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// Training failed.
    #[error(transparent)]
    Train(Box<TrainError>),
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        Self::Train(Box::new(error))
    }
}

impl Failure {
    /// Whether a retry by this worker or another one may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Rejected { transient, .. } => *transient,
            Self::Panicked(_) => true,
            Self::Wire(_) | Self::Specification(_) => false,
            // The checkpoint may have been removed for a newer one since the job was assigned.
            Self::Checkpoint(error) => {
                matches!(error, CheckpointError::Request { .. } | CheckpointError::NoCheckpoint { .. })
            }
            Self::Fingerprint(error) => error.is_transient(),
            Self::Restore { source, .. } | Self::Train(source) => source.is_transient(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use antiphon_data::DataError;
    use antiphon_model::encoder::EncoderError;
    use antiphon_model::weights::WeightsError;

    use super::*;

    #[test]
    fn store_and_device_errors_are_transient_and_data_are_not() {
        let missing = || object_store::Error::NotFound { path: "x".to_owned(), source: "404".into() };
        let request = |source| CheckpointError::Request { doing: "read", url: "u".to_owned(), source };
        let unreachable =
            |passing| DataError::Unreachable { url: "u".to_owned(), reason: String::new(), remedy: "", passing };
        let spool = |kind| DataError::Spool { folder: "f".to_owned(), source: std::io::Error::from(kind) };
        let device = || EncoderError::from(candle_core::Error::Msg("out of memory".to_owned()));
        let within = |source: TrainError| TrainError::Within { context: "step 3".to_owned(), source: Box::new(source) };
        let transient: [Failure; 8] = [
            request(missing()).into(),
            Failure::Rejected { message: "late".to_owned(), transient: true },
            Failure::Panicked("out of memory".to_owned()),
            TrainError::from(spool(ErrorKind::StorageFull)).into(),
            TrainError::from(unreachable(true)).into(),
            within(device().into()).into(),
            TrainError::from(WeightsError::from(unreachable(true))).into(),
            Failure::Restore { url: "u".to_owned(), source: Box::new(within(device().into())) },
        ];
        for failure in transient {
            assert!(failure.is_transient(), "{failure}");
        }
        let lasting: [Failure; 5] = [
            Failure::Rejected { message: "not a number".to_owned(), transient: false },
            TrainError::from(unreachable(false)).into(),
            TrainError::from(spool(ErrorKind::PermissionDenied)).into(),
            within(TrainError::SplitEnded).into(),
            TrainError::from(EncoderError::NoGradient { name: "w".to_owned() }).into(),
        ];
        for failure in lasting {
            assert!(!failure.is_transient(), "{failure}");
        }
    }
}
