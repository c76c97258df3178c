//! A modality's parts on their way to and from a checkpoint's folder.

use antiphon_core::ids::ModalityName;
use antiphon_proto::parts::Part;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, write_part};
use antiphon_store::patience::Patience;
use antiphon_store::storage::Store;
use bytes::Bytes;

use crate::trainer::{encoder_part, state_part};

/// The encoder's part and the state's, both compared with the manifest.
///
/// # Errors
/// There is no such checkpoint, a part is missing or damaged, or the store does not give one for as long as `patience` lasts.
pub async fn load(url: &str, modality: &ModalityName, patience: &Patience) -> Result<(Bytes, Bytes), CheckpointError> {
    let checkpoint = Checkpoint::open_patiently(url, patience).await?;
    let encoder = checkpoint.part(&encoder_part(modality)).await?;
    let state = checkpoint.part(&state_part(modality)).await?;
    Ok((encoder, state))
}

/// Writes parts into a checkpoint's folder; they count once the coordinator's manifest names them.
///
/// # Errors
/// The store refuses one, for longer than `patience` lasts.
pub async fn save(url: &str, files: Vec<(String, Bytes)>, patience: &Patience) -> Result<Vec<Part>, CheckpointError> {
    let folder = Store::open(url)?;
    let mut parts = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let entry = write_part(&folder, &name, bytes, patience).await?;
        parts.push(Part { name, size: entry.size, sha256: entry.sha256.0 });
    }
    Ok(parts)
}
