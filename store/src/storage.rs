//! Object stores by URL: a local folder, memory, S3, Google Cloud Storage, Azure Blob Storage; to read only, web servers. This
//! is the one place where stores are opened.
//!
//! Credentials and endpoints come from each cloud's usual environment variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
//! `AWS_ALLOW_HTTP`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and so on). Requests are retried, and given up
//! within a minute if they fail, or when a server is silent for longer than [`Bounds`] allow; [`reason`] says why in a few words.

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

use crate::bounds::Bounds;
use crate::faults::{self, BadFaults, Faults, Faulty, FaultyUploads};
use crate::memory;
use crate::uploads::Uploads;

const SCHEMES: &str = "a path, file://, memory://NAME, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX";

/// What the URL of a local folder begins with.
const LOCAL: &str = "/";

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The text is no URL.
    #[error("`{url}` is not a URL ({source}); use {SCHEMES}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// A URL of a kind that is not served.
    #[error("`{url}`: there is no store for `{scheme}://`; use {SCHEMES}")]
    Scheme {
        /// What was given.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A web server, where something is to be written.
    #[error("`{url}` can be read but not written to; use {SCHEMES}")]
    ReadOnly {
        /// What was given.
        url: String,
    },
    /// A URL without bucket, container or name.
    #[error("`{url}` names no bucket, container or store; use {SCHEMES}")]
    NoBucket {
        /// What was given.
        url: String,
    },
    /// A path that cannot be an object's.
    #[error("`{url}` is not a usable path: {source}")]
    Path {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: object_store::path::Error,
    },
    /// A relative path, and no working folder to begin it.
    #[error("`{url}` is relative, but the working folder cannot be told: {source}")]
    WorkingFolder {
        /// What was given.
        url: String,
        /// What is wrong.
        source: std::io::Error,
    },
    /// Faults that are not understood.
    #[error("{}: {source}", faults::VARIABLE)]
    Faults {
        /// What is wrong with them.
        source: BadFaults,
    },
    /// The store's settings are wrong or missing.
    #[error("`{url}` cannot be opened: {}; check the credentials and endpoint in the environment", innermost(source))]
    Settings {
        /// What was given.
        url: String,
        /// What is wrong.
        source: object_store::Error,
    },
}

/// A place in an object store: everything below a prefix. Clones share the store.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Where somebody has to abort what nobody completes.
    uploads: Option<Uploads>,
    prefix: Path,
    /// Without the prefix, ending in `/`: `s3://bucket/`, `memory://name/`, `/`.
    base: String,
}

impl Store {
    /// Opens `url` to read and write, with the faults that `ANTIPHON_STORE_FAULTS` asks for, if any. Nothing is read or written yet, so an unreachable server shows at the first request.
    ///
    /// # Errors
    /// The URL is of no known kind or cannot be written to, or the settings for it are incomplete, or the faults are not
    /// understood.
    pub fn open(url: &str) -> Result<Self, StorageError> {
        Self::open_within(url, Bounds::default())
    }

    /// As [`Store::open`], of a server that may take so long.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_within(url: &str, bounds: Bounds) -> Result<Self, StorageError> {
        if url.starts_with("http://") || url.starts_with("https://") {
            return Err(StorageError::ReadOnly { url: url.to_owned() });
        }
        let store = Self::opened(url, bounds)?;
        let faults = faults::of_environment().map_err(|source| StorageError::Faults { source })?;
        Ok(match faults {
            None => store,
            Some(faults) => store.with_faults(faults),
        })
    }

    /// The same place, whose requests fail on purpose, as [`Store::open`] makes it where `ANTIPHON_STORE_FAULTS` says so.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        let has_attributes = self.local_folder().is_none();
        let uploads = self.uploads.map(|uploads| Uploads(Arc::new(FaultyUploads::new(uploads, faults))));
        Self { objects: Arc::new(Faulty::new(self.objects, faults, has_attributes)), uploads, ..self }
    }

    /// The same place, whose uploads are known by their ids in another way.
    #[cfg(test)]
    pub(crate) fn with_uploads(self, uploads: Uploads) -> Self {
        Self { uploads: Some(uploads), ..self }
    }

    /// As [`Store::open`], to read only: `http://` and `https://` are taken too, which can list nothing.
    ///
    /// # Errors
    /// The URL is of no known kind, or the settings for it are incomplete.
    pub fn open_to_read(url: &str) -> Result<Self, StorageError> {
        Self::opened(url, Bounds::default())
    }

    fn opened(url: &str, bounds: Bounds) -> Result<Self, StorageError> {
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
                remote(url, &parsed, bounds)
            }
            scheme => Err(StorageError::Scheme { url: url.to_owned(), scheme: scheme.to_owned() }),
        }
    }

    /// The store itself.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The store's uploads by their ids, unless what is left of one goes in another way: files of a folder do with the garbage, and
    /// Azure, which aborts none, throws pieces away when a week old.
    pub(crate) fn uploads(&self) -> Option<&Uploads> {
        self.uploads.as_ref()
    }

    /// Where this place begins in it.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The place called `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self { prefix: self.prefix.clone().join(name), ..self.clone() }
    }

    /// The object called `name` in this place.
    #[must_use]
    pub fn object(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    /// The URL of an object of this store.
    pub(crate) fn url_of(&self, path: &Path) -> String {
        format!("{}{path}", self.base)
    }

    /// The folder of the file system that this place is, if it is one.
    #[must_use]
    pub fn local_folder(&self) -> Option<PathBuf> {
        (self.base == LOCAL).then(|| PathBuf::from(self.url()))
    }

    /// The last name of the prefix.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.prefix.filename()
    }

    /// The URL of this place, which [`Store::open`] takes anywhere (a local folder's is its absolute path).
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(&self.prefix)
    }
}

/// Whether [`Store::open`] will understand the faults that the environment asks for, if any: for whoever opens its first store late.
///
/// # Errors
/// It will not.
pub fn check_environment() -> Result<(), StorageError> {
    faults::of_environment().map(drop).map_err(|source| StorageError::Faults { source })
}

/// Installs the one cryptographic provider of this process for TLS; every call but the first does nothing.
pub fn install_crypto_provider() {
    // The error is that one is installed already, which is what was asked for.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
}

fn local(url: &str, path: &std::path::Path) -> Result<Store, StorageError> {
    let absolute =
        std::path::absolute(path).map_err(|source| StorageError::WorkingFolder { url: url.to_owned(), source })?;
    let prefix = Path::from_absolute_path(without_dots(&absolute))
        .map_err(|source| StorageError::Path { url: url.to_owned(), source })?;
    let objects = LocalFileSystem::new().with_fsync(true).with_automatic_cleanup(true);
    Ok(Store { objects: Arc::new(objects), uploads: None, prefix, base: LOCAL.to_owned() })
}

/// `/a/../b` is `/b`: a URL would say the same, and the folder need not exist yet.
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
    Ok(Store { objects, uploads, prefix, base: format!("{root}/") })
}

/// What [`Store`] makes a place of.
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

/// A store that a server holds; `root` is its URL without a path.
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

/// Why a request to a store failed and what to do, in a few words: `Connection refused (os error 111); check that …` rather
/// than the wrappings of it.
#[must_use]
pub fn reason(error: &object_store::Error) -> String {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => "there is no such object".to_owned(),
        Error::AlreadyExists { .. } | Error::Precondition { .. } => "it exists already".to_owned(),
        Error::PermissionDenied { .. } => "access was denied; give these credentials the right to do it".to_owned(),
        Error::Unauthenticated { .. } => {
            "the credentials were not accepted; set the credentials of this store in the environment".to_owned()
        }
        other => match innermost(other).strip_prefix("Server returned non-2xx status code: ") {
            // A server in trouble: nothing here is to be set right.
            Some(answer) if answer.starts_with('5') => format!("the server answered {answer}"),
            Some(answer) => {
                format!("the server answered {answer}; check the bucket and the credentials in the environment")
            }
            None => {
                format!("{}; check that the address is right and the store can be reached from here", innermost(other))
            }
        },
    }
}

/// The error at the end of the chain of causes.
#[must_use]
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
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
