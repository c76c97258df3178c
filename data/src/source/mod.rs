//! The only access to object storage: from names of data to files that can be read by range.
//!
//! A name is a local path, or a URL of scheme `file`, `s3`, `gs`, `az`, `http` or `https`; credentials and endpoints
//! come from the environment variables that the AWS, Google and Azure tools read. `*` and `?` are wildcards within any
//! segment of the path, except over HTTP, which cannot list. The files of a split are sorted by name, so the order of
//! shards is fixed.
//!
//! [`Stores`] opens the stores. Requests are retried a few times, and every wait is bounded.

mod file;
mod glob;
mod store;

use bytes::Bytes;

use super::error::DataError;
use super::stores::Stores;
use store::Location;

pub use file::Source;

/// All files that match the names, sorted by name, each once.
///
/// # Errors
/// If a name cannot be parsed, a store does not answer, or a name matches no file.
pub async fn resolve(names: &[String], stores: &Stores) -> Result<Vec<Source>, DataError> {
    let mut found = Vec::new();
    for name in names {
        found.extend(glob::expand(&Location::parse(name, stores)?, name).await?);
    }
    found.sort_by(|a, b| a.url.cmp(&b.url));
    found.dedup_by(|a, b| a.url == b.url);
    Ok(found)
}

/// The whole content of one file of at most `limit` bytes.
///
/// # Errors
/// As [`resolve`], and if the file is longer.
pub async fn read_small(name: &str, limit: u64, stores: &Stores) -> Result<Bytes, DataError> {
    let files = resolve(&[name.to_owned()], stores).await?;
    let [file] = files.as_slice() else {
        let reason = format!("it matches {} files; name one", files.len());
        return Err(DataError::Location { location: name.to_owned(), reason });
    };
    if file.size > limit {
        return Err(DataError::File {
            file: file.url.clone(),
            reason: format!("it has {} bytes, more than the limit of {limit}", file.size),
            remedy: "check that it is the right file".to_owned(),
        });
    }
    file.read(0..file.size).await
}
