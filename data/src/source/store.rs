//! A name of data: its store, and the segments of its path.

use std::sync::Arc;

use object_store::ObjectStore;

use super::super::error::DataError;
use super::super::stores::Stores;

/// The URL schemes of supported stores.
const SCHEMES: [&str; 10] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "http", "https", "memory"];

/// A name, parsed.
#[derive(Debug)]
pub(super) struct Location {
    /// The stores that opened it.
    pub(super) stores: Stores,
    /// The store of the name.
    pub(super) store: Arc<dyn ObjectStore>,
    /// The prefix of the path in messages: `s3://bucket`, or nothing for local paths.
    pub(super) root: String,
    /// The segments of the path, including wildcards.
    pub(super) segments: Vec<String>,
    /// Whether the store can list names.
    pub(super) lists: bool,
}

impl Location {
    /// Parses a path or URL, and opens its store. No request is sent yet.
    pub(super) fn parse(name: &str, stores: &Stores) -> Result<Self, DataError> {
        let Some((scheme, rest)) = name.split_once("://") else {
            return Self::local(name, name, stores);
        };
        if scheme == "file" {
            return Self::local(rest, name, stores);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(bad(
                name,
                "the part after `://` is missing; write for example `s3://bucket/folder/train-*.parquet`",
            ));
        }
        if !SCHEMES.contains(&scheme) {
            let reason = "is not a supported scheme; use a path, file, s3, gs, az, http or https";
            return Err(bad(name, &format!("`{scheme}` {reason}")));
        }
        let root = format!("{scheme}://{authority}");
        let store = open(name, &root, stores)?;
        Ok(Self {
            stores: Stores::clone(stores),
            store,
            root,
            segments: segments_of(path),
            lists: !scheme.starts_with("http"),
        })
    }

    fn local(path: &str, name: &str, stores: &Stores) -> Result<Self, DataError> {
        let absolute = std::path::absolute(path).map_err(|error| bad(name, &format!("{error}; write a path")))?;
        let Some(text) = absolute.to_str() else {
            return Err(bad(name, "the path is not UTF-8; rename its folders"));
        };
        let mut kept = Vec::new();
        for segment in segments_of(text) {
            if segment == ".." { drop(kept.pop()) } else { kept.push(segment) }
        }
        let store = open(name, "/", stores)?;
        Ok(Self { stores: Stores::clone(stores), store, root: String::new(), segments: kept, lists: true })
    }
}

fn segments_of(path: &str) -> Vec<String> {
    path.split('/').filter(|segment| !segment.is_empty() && *segment != ".").map(str::to_owned).collect()
}

fn bad(name: &str, reason: &str) -> DataError {
    DataError::Location { location: name.to_owned(), reason: reason.to_owned() }
}

fn open(name: &str, root: &str, stores: &Stores) -> Result<Arc<dyn ObjectStore>, DataError> {
    stores.open(root).map_err(|reason| bad(name, &reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::LocalStores;

    #[test]
    fn names_are_split_into_store_and_segments() {
        let of = |name: &str| {
            let location = Location::parse(name, &LocalStores::shared()).expect(name);
            (location.root, location.segments.join("|"))
        };
        assert_eq!(of("/a//b/./c-*.parquet"), (String::new(), "a|b|c-*.parquet".to_owned()));
        assert_eq!(of("file:///a/../b"), (String::new(), "b".to_owned()));
    }

    #[test]
    fn names_that_cannot_be_read_say_why() {
        for (name, expected) in [("ftp://host/x", "`ftp` is not a supported scheme"), ("s3:///x", "missing")] {
            let message = Location::parse(name, &LocalStores::shared()).expect_err(name).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
