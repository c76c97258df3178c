//! Loads and saves a modality's files of a checkpoint.

use antiphon_core::ids::ModalityName;
use antiphon_proto::files::CheckpointFile;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, write_file};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use bytes::Bytes;

use crate::trainer::{encoder_file, state_file};

/// The file of the encoder and that of its training state, both checked against the manifest.
///
/// # Errors
/// If there is no such checkpoint, a file is missing or damaged, or the store fails until retries end.
pub async fn load(
    url: &str,
    modality: &ModalityName,
    stores: &StoreOptions,
    retry: &RetryPolicy,
) -> Result<(Bytes, Bytes), CheckpointError> {
    let checkpoint = Checkpoint::open_with(url, stores, retry).await?;
    let encoder = checkpoint.file(&encoder_file(modality)).await?;
    let state = checkpoint.file(&state_file(modality)).await?;
    Ok((encoder, state))
}

/// Writes files into a checkpoint's folder. They count when the coordinator's manifest names them.
///
/// # Errors
/// If the store fails until retries end.
pub async fn save(
    url: &str,
    files: Vec<(String, Bytes)>,
    stores: &StoreOptions,
    retry: &RetryPolicy,
) -> Result<Vec<CheckpointFile>, CheckpointError> {
    let folder = stores.open(url)?;
    let mut saved = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let entry = write_file(&folder, &name, bytes, retry).await?;
        saved.push(CheckpointFile { name, size: entry.size, sha256: entry.sha256.0 });
    }
    Ok(saved)
}
