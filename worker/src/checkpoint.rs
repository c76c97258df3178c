//! A modality's parts on their way to and from a checkpoint's folder.

use antiphon_core::digest::sha256;
use antiphon_core::ids::ModalityName;
use antiphon_proto::parts::Part;
use antiphon_store::checkpoints::Checkpoint;
use antiphon_store::storage::Store;
use anyhow::Context;
use bytes::Bytes;
use object_store::ObjectStoreExt as _;

use crate::trainer::{encoder_part, state_part};

/// The encoder's part and the state's, both compared with the manifest.
///
/// # Errors
/// There is no such checkpoint, or a part is missing or damaged.
pub async fn load(url: &str, modality: &ModalityName) -> anyhow::Result<(Bytes, Bytes)> {
    let checkpoint = Checkpoint::open_url(url).await?;
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
        let part = Part { name, size: bytes.len() as u64, sha256: sha256(&bytes).0 };
        let put = folder.objects().put(&folder.object(&part.name), bytes.into()).await;
        put.with_context(|| format!("cannot write `{}/{}`", folder.url(), part.name))?;
        parts.push(part);
    }
    Ok(parts)
}
