//! The one door to object storage: names of data to files that can be read by range.
//!
//! A name is a local path, or a URL of scheme `file`, `s3`, `gs`, `az`, `http` or `https`; credentials and endpoints come from
//! the environment variables that the AWS, Google and Azure tools read. `*` and `?` are wildcards within any segment of the
//! path, except over HTTP, which cannot list. The files of a split are sorted by name, so that shards have one order.
//!
//! Stores are opened by [`Stores`]. Requests are retried a few times; nothing waits without bound.

mod file;
mod glob;
mod store;

use bytes::Bytes;

use super::error::DataError;
use super::stores::Stores;
use store::Location;

pub use file::Source;

/// All files that the names stand for, sorted by name, each once.
///
/// # Errors
/// Names that cannot be parsed, stores that do not answer, and names that no file has.
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
/// As [`resolve`]; and a file that is longer.
pub async fn read_small(name: &str, limit: u64, stores: &Stores) -> Result<Bytes, DataError> {
    let files = resolve(&[name.to_owned()], stores).await?;
    let [file] = files.as_slice() else {
        let reason = format!("it stands for {} files; name one", files.len());
        return Err(DataError::Location { location: name.to_owned(), reason });
    };
    if file.size > limit {
        return Err(DataError::File {
            file: file.url.clone(),
            reason: format!("it has {} bytes, more than the {limit} that can be of use here", file.size),
            remedy: "check that it is the right file".to_owned(),
        });
    }
    file.read(0..file.size).await
}
