//! One name of data: which store it is in, and the segments of its path.

use std::sync::Arc;

use antiphon_store::storage::{StorageError, Store, innermost};
use object_store::ObjectStore;

use super::super::error::DataError;

/// A name, parsed.
#[derive(Debug)]
pub(super) struct Location {
    /// Where it is.
    pub(super) store: Arc<dyn ObjectStore>,
    /// What comes before the path in messages: `s3://bucket`, or nothing for local paths.
    pub(super) root: String,
    /// The path, cut at `/`, wildcards and all.
    pub(super) segments: Vec<String>,
    /// Whether names can be listed.
    pub(super) lists: bool,
}

impl Location {
    /// Reads a path or URL, and opens its store. Nothing is asked of the store yet.
    pub(super) fn parse(name: &str) -> Result<Self, DataError> {
        let Some((scheme, rest)) = name.split_once("://") else {
            return Self::local(name, name);
        };
        if scheme == "file" {
            return Self::local(rest, name);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(bad(
                name,
                "the part after `://` is missing; write for example `s3://bucket/folder/train-*.parquet`",
            ));
        }
        let root = format!("{scheme}://{authority}");
        Ok(Self { store: open(name, &root)?, root, segments: cut(path), lists: !scheme.starts_with("http") })
    }

    fn local(path: &str, name: &str) -> Result<Self, DataError> {
        let absolute = std::path::absolute(path).map_err(|error| bad(name, &format!("{error}; write a path")))?;
        let Some(text) = absolute.to_str() else {
            return Err(bad(name, "the path is not UTF-8; rename its folders"));
        };
        let mut segments = Vec::new();
        for segment in cut(text) {
            if segment == ".." { drop(segments.pop()) } else { segments.push(segment) }
        }
        Ok(Self { store: open(name, "/")?, root: String::new(), segments, lists: true })
    }
}

fn cut(path: &str) -> Vec<String> {
    path.split('/').filter(|segment| !segment.is_empty() && *segment != ".").map(str::to_owned).collect()
}

fn bad(name: &str, reason: &str) -> DataError {
    DataError::Location { location: name.to_owned(), reason: reason.to_owned() }
}

fn open(name: &str, root: &str) -> Result<Arc<dyn ObjectStore>, DataError> {
    let opened = Store::open_to_read(root).map_err(|error| match error {
        StorageError::Scheme { scheme, .. } => bad(
            name,
            &format!("`{scheme}` is not a scheme that can be read; use a path, file, s3, gs, az, http or https"),
        ),
        StorageError::Settings { source, .. } => {
            bad(name, &format!("{}; check the URL and this store's environment variables", innermost(&source)))
        }
        other => bad(name, &other.to_string()),
    })?;
    Ok(Arc::clone(opened.objects()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_into_store_and_segments() {
        let of = |name: &str| {
            let location = Location::parse(name).expect(name);
            (location.root, location.segments.join("|"))
        };
        assert_eq!(of("/a//b/./c-*.parquet"), (String::new(), "a|b|c-*.parquet".to_owned()));
        assert_eq!(of("file:///a/../b"), (String::new(), "b".to_owned()));
        assert_eq!(of("http://host:81/x/y.parquet"), ("http://host:81".to_owned(), "x|y.parquet".to_owned()));
    }

    #[test]
    fn names_that_cannot_be_read_say_why() {
        for (name, part) in [("ftp://host/x", "`ftp` is not a scheme"), ("s3:///x", "missing")] {
            let message = Location::parse(name).expect_err(name).to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
