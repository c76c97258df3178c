//! Whether what went wrong may go well if it is tried again.

use std::io::ErrorKind;

use antiphon_store::checkpoints::CheckpointError;

use crate::data::DataError;

/// The coordinator took a message of this worker as it is not for what it is.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator refused this worker's message: {message}")]
pub(crate) struct Refused {
    pub(crate) message: String,
    /// It came too late, say; a message that is malformed would be so again.
    pub(crate) again: bool,
}

/// A panic, which may be this machine's.
#[derive(Debug, thiserror::Error)]
#[error("the worker panicked: {0}")]
pub(crate) struct Panicked(pub(crate) String);

/// Whether another try may go well, by this worker or another: a store did not answer, a message came too late, a device or
/// a disk failed. What is wrong with data, a specification or the numbers would be wrong again.
pub(crate) fn may_pass(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refused.again;
        }
        match cause.downcast_ref::<CheckpointError>() {
            // One that was there when this worker was told of it may have made room for a newer one.
            Some(CheckpointError::Request { .. } | CheckpointError::NoCheckpoint { .. }) => return true,
            Some(_) => return false,
            None => {}
        }
        if let Some(DataError::Unreachable { passing, .. }) = cause.downcast_ref::<DataError>() {
            return *passing;
        }
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::InvalidData);
        }
        // Another worker has another device, and other memory.
        cause.is::<Panicked>()
            || cause.is::<candle_core::Error>()
            || matches!(
                cause.downcast_ref::<object_store::Error>(),
                Some(object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
            )
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn stores_and_late_messages_may_do_better_and_data_not() {
        let store = || object_store::Error::Generic { store: "S3", source: "503".into() };
        let missing = || object_store::Error::NotFound { path: "x".to_owned(), source: "404".into() };
        let request = |source| CheckpointError::Request { doing: "read", url: "u".to_owned(), source };
        let passes = |error: anyhow::Error| may_pass(&error.context("on the way"));
        assert!(passes(store().into()));
        assert!(passes(request(missing()).into()));
        assert!(passes(Refused { message: "late".to_owned(), again: true }.into()));
        assert!(!passes(Refused { message: "not a number".to_owned(), again: false }.into()));
        assert!(passes(Panicked("out of memory".to_owned()).into()));
        assert!(passes(std::io::Error::from(ErrorKind::StorageFull).into()));
        let data = |passing| DataError::Unreachable { url: "u".to_owned(), reason: String::new(), remedy: "", passing };
        assert!(passes(data(true).into()));
        assert!(!passes(data(false).into()));
        assert!(!passes(missing().into()));
        assert!(!passes(anyhow!("the column is missing")));
        assert!(passes(Err::<(), _>(store()).context("part").expect_err("it is one")));
    }
}
