//! A modality's parts on their way to and from a checkpoint's folder.

use std::time::Duration;

use antiphon_core::ids::ModalityName;
use antiphon_proto::parts::Part;
use antiphon_store::checkpoints::{Checkpoint, write_part};
use antiphon_store::patience::Patience;
use antiphon_store::storage::Store;
use bytes::Bytes;
use tracing::warn;

use crate::trainer::{encoder_part, state_part};

/// How long a store may be in trouble before a part is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// The encoder's part and the state's, both compared with the manifest.
///
/// # Errors
/// There is no such checkpoint, or a part is missing or damaged.
pub async fn load(url: &str, modality: &ModalityName) -> anyhow::Result<(Bytes, Bytes)> {
    let checkpoint = Checkpoint::open_patiently(url, &patience()).await?;
    let encoder = checkpoint.part(&encoder_part(modality)).await?;
    let state = checkpoint.part(&state_part(modality)).await?;
    Ok((encoder, state))
}

/// Writes parts into a checkpoint's folder; they count once the coordinator's manifest names them.
///
/// # Errors
/// The store refuses one.
pub async fn save(url: &str, files: Vec<(String, Bytes)>) -> anyhow::Result<Vec<Part>> {
    let folder = Store::open(url)?;
    let mut parts = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let entry = write_part(&folder, &name, bytes, &patience()).await?;
        parts.push(Part { name, size: entry.size, sha256: entry.sha256.0 });
    }
    Ok(parts)
}

/// The pauses need not differ between workers: the names of their parts do.
fn patience() -> Patience {
    Patience::new(PATIENCE, 0).telling(|setback| warn!("{setback}"))
}
