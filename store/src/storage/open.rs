//! Opening stores by their URLs.
//!
//! Credentials and endpoints come from each cloud's usual environment variables (`AWS_ACCESS_KEY_ID`,
//! `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and so on). The clients
//! retry each request for up to half a minute, and give up on a server that is silent for longer than [`Bounds`] allow.

use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};
use url::{Position, Url};

use super::error::StorageError;
use super::memory;
use super::store::{LOCAL, Store};
use crate::bounds::Bounds;
use crate::faults::{BadVariable, Faults};
use crate::multipart::Uploads;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// The options with which a program opens its stores.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreOptions {
    /// The timeouts for servers.
    pub bounds: Bounds,
    /// Injected faults, in every store that is opened for writing.
    pub faults: Option<Faults>,
}

impl StoreOptions {
    /// The options from the environment (`ANTIPHON_STORE_FAULTS`).
    ///
    /// # Errors
    /// If the variable's value cannot be parsed.
    pub fn from_environment() -> Result<Self, BadVariable> {
        Ok(Self { faults: Faults::from_environment()?, ..Self::default() })
    }

    /// Opens `url` for reading and writing. No request is sent yet, so an unreachable server shows at the first
    /// request.
    ///
    /// # Errors
    /// If the URL has no known kind or cannot be written to, or its settings are incomplete.
    pub fn open(&self, url: &str) -> Result<Store, StorageError> {
        if url.starts_with("http://") || url.starts_with("https://") {
            return Err(StorageError::ReadOnly { url: url.to_owned() });
        }
        let store = self.client(url)?;
        Ok(match self.faults {
            None => store,
            Some(faults) => store.with_faults(faults),
        })
    }

    /// As [`Self::open`], for reading only. `http://` and `https://` are accepted too, but cannot list. Faults are
    /// never injected.
    ///
    /// # Errors
    /// If the URL has no known kind, or its settings are incomplete.
    pub fn open_to_read(&self, url: &str) -> Result<Store, StorageError> {
        self.client(url)
    }

    fn client(&self, url: &str) -> Result<Store, StorageError> {
        if !url.contains("://") {
            return local(url, std::path::Path::new(url));
        }
        let parsed = Url::parse(url).map_err(|source| StorageError::Url { url: url.to_owned(), source })?;
        match parsed.scheme() {
            "file" => match parsed.to_file_path() {
                Ok(path) => local(url, &path),
                Err(()) => Err(StorageError::NoBucket { url: url.to_owned() }),
            },
            "memory" | "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" | "http" | "https" => {
                remote(url, &parsed, self.bounds)
            }
            scheme => Err(StorageError::Scheme { url: url.to_owned(), scheme: scheme.to_owned() }),
        }
    }
}

impl Store {
    /// Opens `url` for reading and writing with the default [`StoreOptions`], without faults.
    ///
    /// # Errors
    /// As [`StoreOptions::open`].
    pub fn open(url: &str) -> Result<Self, StorageError> {
        StoreOptions::default().open(url)
    }

    /// Opens `url` for reading with the default [`StoreOptions`].
    ///
    /// # Errors
    /// As [`StoreOptions::open_to_read`].
    pub fn open_to_read(url: &str) -> Result<Self, StorageError> {
        StoreOptions::default().open_to_read(url)
    }
}

/// Installs the only cryptographic provider of this process for TLS. Later calls do nothing.
pub fn install_crypto_provider() {
    // The error means that a provider is installed already, which is fine.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
}

fn local(url: &str, path: &std::path::Path) -> Result<Store, StorageError> {
    let absolute =
        std::path::absolute(path).map_err(|source| StorageError::WorkingFolder { url: url.to_owned(), source })?;
    let prefix = Path::from_absolute_path(without_dots(&absolute))
        .map_err(|source| StorageError::Path { url: url.to_owned(), source })?;
    let objects = LocalFileSystem::new().with_fsync(true).with_automatic_cleanup(true);
    Ok(Store::new(Arc::new(objects), None, prefix, LOCAL.to_owned()))
}

/// Resolves `/a/../b` to `/b`, as URLs do. The folder need not exist yet.
fn without_dots(path: &std::path::Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(component),
        }
    }
    plain
}

fn remote(url: &str, parsed: &Url, bounds: Bounds) -> Result<Store, StorageError> {
    let host = parsed.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| StorageError::NoBucket { url: url.to_owned() })?;
    let prefix =
        Path::from_url_path(parsed.path()).map_err(|source| StorageError::Path { url: url.to_owned(), source })?;
    let root = &parsed[..Position::BeforePath];
    let Client { objects, uploads } = if parsed.scheme() == "memory" {
        let (objects, uploads) = memory::store(host);
        Client { objects, uploads: Some(uploads) }
    } else {
        served(root, parsed.scheme(), bounds)
            .map_err(|source| StorageError::Settings { url: url.to_owned(), source })?
    };
    Ok(Store::new(objects, uploads, prefix, format!("{root}/")))
}

/// An opened client, from which a [`Store`] is made.
struct Client {
    objects: Arc<dyn ObjectStore>,
    uploads: Option<Uploads>,
}

impl Client {
    fn with_uploads(store: impl ObjectStore + MultipartStore) -> Self {
        let store = Arc::new(store);
        let uploads = Arc::clone(&store) as Arc<dyn MultipartStore>;
        Self { objects: store, uploads: Some(Uploads(uploads)) }
    }

    fn without_uploads(store: impl ObjectStore) -> Self {
        Self { objects: Arc::new(store), uploads: None }
    }
}

/// The client of a server's store. `root` is its URL without a path.
fn served(root: &str, scheme: &str, bounds: Bounds) -> object_store::Result<Client> {
    install_crypto_provider();
    let (key, connect) = (ClientConfigKey::ConnectTimeout, format!("{} seconds", CONNECT.as_secs()));
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(30),
    };
    Ok(match scheme {
        "s3" | "s3a" => {
            let store = AmazonS3Builder::from_env().with_url(root).with_retry(retry).with_http_connector(bounds);
            Client::with_uploads(store.with_config(AmazonS3ConfigKey::Client(key), connect).build()?)
        }
        "gs" => {
            let store =
                GoogleCloudStorageBuilder::from_env().with_url(root).with_retry(retry).with_http_connector(bounds);
            Client::with_uploads(store.with_config(GoogleConfigKey::Client(key), connect).build()?)
        }
        "http" | "https" => {
            let options = ClientOptions::new().with_allow_http(true).with_connect_timeout(CONNECT);
            let store = HttpBuilder::new().with_url(root).with_retry(retry).with_client_options(options);
            Client::without_uploads(store.with_http_connector(bounds).build()?)
        }
        _ => {
            let store = MicrosoftAzureBuilder::from_env().with_url(root).with_retry(retry).with_http_connector(bounds);
            Client::without_uploads(store.with_config(AzureConfigKey::Client(key), connect).build()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::error::SCHEMES;
    use super::*;

    #[test]
    fn a_place_has_a_url_that_opens_it_again() {
        for url in ["memory://shared/a/b", "/tmp/runs/my job", "file:///tmp/runs", "/"] {
            let store = Store::open(url).expect(url).child("c");
            let again = Store::open(&store.url()).expect("its own URL opens");
            assert_eq!(again.prefix(), store.prefix(), "{url}");
            assert_eq!(again.url(), store.url(), "{url}");
        }
    }

    #[test]
    fn web_servers_are_opened_to_read() {
        let store = Store::open_to_read("http://host:8080/data/train.parquet").expect("it opens");
        assert_eq!(
            (store.url().as_str(), store.prefix().as_ref()),
            ("http://host:8080/data/train.parquet", "data/train.parquet")
        );
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        let store = Store::open("./runs/../other").expect("a path opens");
        let expected = std::env::current_dir().expect("there is a working folder").join("other");
        assert_eq!(std::path::Path::new(&store.url()), expected);
    }

    #[test]
    fn what_cannot_be_opened_says_what_and_what_to_do() {
        let message = |url: &str| Store::open(url).expect_err(url).to_string();
        assert_eq!(message("ftp://host/x"), format!("`ftp://host/x`: there is no store for `ftp://`; use {SCHEMES}"));
        assert_eq!(message("memory:///x"), format!("`memory:///x` names no bucket, container or store; use {SCHEMES}"));
        assert_eq!(
            message("https://host/x"),
            format!("`https://host/x` can be read but not written to; use {SCHEMES}")
        );
        assert!(message("s3://[").contains("is not a URL"), "{}", message("s3://["));
    }
}
