//! One name of data: which store it is in, and the segments of its path.

use std::sync::{Arc, Once};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::super::error::DataError;

const CONNECT: Duration = Duration::from_secs(3);

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
        install_crypto_provider();
        let root = format!("{scheme}://{authority}");
        let store = remote(scheme, &root).map_err(|reason| bad(name, &reason))?;
        Ok(Self {
            store,
            root,
            segments: cut(path),
            lists: !scheme.starts_with("http"),
        })
    }

    fn local(path: &str, name: &str) -> Result<Self, DataError> {
        let absolute = std::path::absolute(path).map_err(|error| bad(name, &format!("{error}; write a path")))?;
        let Some(text) = absolute.to_str() else {
            return Err(bad(name, "the path is not UTF-8; rename its folders"));
        };
        let mut segments = Vec::new();
        for segment in cut(text) {
            if segment == ".." {
                drop(segments.pop())
            } else {
                segments.push(segment)
            }
        }
        Ok(Self {
            store: Arc::new(LocalFileSystem::new()),
            root: String::new(),
            segments,
            lists: true,
        })
    }
}

fn cut(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|segment| !segment.is_empty() && *segment != ".")
        .map(str::to_owned)
        .collect()
}

fn bad(name: &str, reason: &str) -> DataError {
    DataError::Location {
        location: name.to_owned(),
        reason: reason.to_owned(),
    }
}

/// TLS needs its provider named once in a process; another part may have done so already.
fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    }
}

fn remote(scheme: &str, root: &str) -> Result<Arc<dyn ObjectStore>, String> {
    let connect = format!("{} seconds", CONNECT.as_secs());
    let store: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
        "s3" | "s3a" => AmazonS3Builder::from_env()
            .with_url(root)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), connect)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as _),
        "gs" => GoogleCloudStorageBuilder::from_env()
            .with_url(root)
            .with_config(GoogleConfigKey::Client(ClientConfigKey::ConnectTimeout), connect)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as _),
        "az" | "azure" | "abfs" | "abfss" => MicrosoftAzureBuilder::from_env()
            .with_url(root)
            .with_config(AzureConfigKey::Client(ClientConfigKey::ConnectTimeout), connect)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as _),
        "http" | "https" => HttpBuilder::new()
            .with_url(root)
            .with_client_options(ClientOptions::new().with_allow_http(true).with_connect_timeout(CONNECT))
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as _),
        other => {
            return Err(format!(
                "`{other}` is not a scheme that can be read; use a path, file, s3, gs, az, http or https"
            ));
        }
    };
    store.map_err(|error| {
        format!(
            "{}; check the URL and this store's environment variables",
            super::innermost(&error)
        )
    })
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
        assert_eq!(
            of("http://host:81/x/y.parquet"),
            ("http://host:81".to_owned(), "x|y.parquet".to_owned())
        );
    }

    #[test]
    fn names_that_cannot_be_read_say_why() {
        for (name, part) in [("ftp://host/x", "`ftp` is not a scheme"), ("s3:///x", "missing")] {
            let message = Location::parse(name).expect_err(name).to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
