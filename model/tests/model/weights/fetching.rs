//! Remote files are fetched once, verified and cached.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use antiphon_core::digest::sha256;
use antiphon_core::spec::WeightsSpec;
use antiphon_model::weights::Cache;

use super::super::stores::stores;
use super::support::{check, from};

/// A web server of one file that counts its requests.
struct Server {
    url: String,
    content: Arc<Mutex<Vec<u8>>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start(content: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/models/file.pth", listener.local_addr().expect("it is bound"));
        let (content, requests) = (Arc::new(Mutex::new(content.to_vec())), Arc::new(AtomicUsize::new(0)));
        let (served, counted) = (Arc::clone(&content), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, counted) = (Arc::clone(&served), Arc::clone(&counted));
                std::thread::spawn(move || answer(&stream, &served, &counted));
            }
        });
        Self { url, content, requests }
    }

    fn weights(&self, expected: Option<&[u8]>) -> WeightsSpec {
        let sha256 = expected.map(|bytes| sha256(bytes).to_string());
        WeightsSpec { from: self.url.clone(), sha256, strict: true }
    }

    fn asked(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }

    fn replace(&self, content: &[u8]) {
        *self.content.lock().expect("no thread panics") = content.to_vec();
    }
}

/// Answers HEAD and GET, with and without ranges, until the client closes the connection.
fn answer(stream: &TcpStream, content: &Mutex<Vec<u8>>, requests: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let request = lines.next()?.ok()?;
        let mut range = None;
        for line in lines.by_ref() {
            let line = line.ok()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
                range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?));
            }
        }
        requests.fetch_add(1, Ordering::SeqCst);
        let content = content.lock().ok()?.clone();
        let (status, content_range, body) = match range {
            Some((from, to)) => {
                let to = to.min(content.len() - 1);
                let content_range = format!("Content-Range: bytes {from}-{to}/{}\r\n", content.len());
                ("206 Partial Content", content_range, content[from..=to].to_vec())
            }
            None => ("200 OK", String::new(), content),
        };
        let head = format!("HTTP/1.1 {status}\r\n{content_range}Content-Length: {}\r\n\r\n", body.len());
        let mut writer = stream;
        writer.write_all(head.as_bytes()).ok()?;
        if !request.starts_with("HEAD") {
            writer.write_all(&body).ok()?;
        }
    }
}

/// Content larger than one request, with different bytes everywhere.
fn content(seed: u32) -> Vec<u8> {
    (0..5_000_000_u32 / 4).flat_map(|i| (i.wrapping_mul(2_654_435_761) ^ seed).to_le_bytes()).collect()
}

/// The files in the folder, without the notes of their hashes.
fn kept(folder: &Path) -> usize {
    let note = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("it can be listed").path().extension().is_some_and(|extension| extension == "sha256")
    };
    std::fs::read_dir(folder).map_or(0, |entries| entries.filter_map(|entry| (!note(entry)).then_some(())).count())
}

#[tokio::test]
async fn a_file_is_fetched_once_and_read_from_the_folder_then() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = Cache::at(folder.path().join("not/yet/there"), stores());
    let (bytes, other) = (content(1), content(2));
    let server = Server::start(&bytes);
    for expected in [None, Some(bytes.as_slice())] {
        let weights = server.weights(expected);
        let path = cache.fetch(&weights).await.expect("it is served");
        assert_eq!(std::fs::read(&path).expect("it is kept"), bytes);
        assert!(server.asked() > 0);
        assert_eq!(cache.fetch(&weights).await.expect("it is kept"), path);
        assert_eq!(server.asked(), 0, "the network is not needed");
    }
    // A different hash means a different file, even from the same address.
    server.replace(&other);
    let path = cache.fetch(&server.weights(Some(&other))).await.expect("it is served");
    assert_eq!(std::fs::read(path).expect("it is kept"), other);
    assert_eq!(kept(&folder.path().join("not/yet/there")), 3);
}

#[tokio::test]
async fn a_damaged_file_in_the_cache_is_fetched_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = Cache::at(folder.path().to_owned(), stores());
    let bytes = content(3);
    let server = Server::start(&bytes);
    for expected in [None, Some(bytes.as_slice())] {
        let weights = server.weights(expected);
        let path = cache.fetch(&weights).await.expect("it is served");
        let mut damaged = bytes.clone();
        damaged[70_000] ^= 1;
        for damaged in [&damaged[..], &bytes[..1000]] {
            std::fs::write(&path, damaged).expect("it can be damaged");
            server.asked();
            assert_eq!(cache.fetch(&weights).await.expect("it is served again"), path);
            assert!(server.asked() > 0);
            assert_eq!(std::fs::read(&path).expect("it is whole"), bytes);
        }
    }
}

#[tokio::test]
async fn another_file_than_expected_is_refused_and_not_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = Cache::at(folder.path().to_owned(), stores());
    let server = Server::start(b"something else");
    let weights = server.weights(Some(b"what was meant"));
    let message = cache.fetch(&weights).await.expect_err("another hash").to_string();
    check("digest-fetched", &message.replace(&server.url, "URL"));
    assert_eq!(kept(folder.path()), 0);

    let local = folder.path().join("local");
    std::fs::write(&local, b"something else").expect("the folder is writable");
    for name in [local.display().to_string(), format!("file://{}", local.display())] {
        let weights = WeightsSpec { from: name, ..weights.clone() };
        let message = cache.fetch(&weights).await.expect_err("another hash").to_string();
        check("digest-local", &message.replace(&weights.from, "PATH"));
    }
}

#[tokio::test]
async fn a_local_file_is_read_where_it_lies() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let local = folder.path().join("local");
    std::fs::write(&local, b"weights").expect("the folder is writable");
    let cache = Cache::at(folder.path().join("cache"), stores());
    let weights = WeightsSpec { sha256: Some(sha256(b"weights").to_string()), ..from(&local) };
    assert_eq!(cache.fetch(&weights).await.expect("it is there"), local);
    assert_eq!(kept(&folder.path().join("cache")), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_fetch_at_once_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bytes = content(4);
    let server = Server::start(&bytes);
    let fetches = (0..4).map(|_| {
        let (cache, weights) = (Cache::at(folder.path().to_owned(), stores()), server.weights(Some(&bytes)));
        tokio::spawn(async move { cache.fetch(&weights).await })
    });
    for fetch in fetches.collect::<Vec<_>>() {
        let path = fetch.await.expect("no panic").expect("it is served");
        assert_eq!(std::fs::read(path).expect("it is whole"), bytes);
    }
    assert_eq!(kept(folder.path()), 1, "what was begun is gone");
}

#[tokio::test]
async fn locations_that_cannot_be_read_or_written_say_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let occupied = folder.path().join("file");
    std::fs::write(&occupied, b"").expect("the folder is writable");
    let server = Server::start(b"weights");
    let mut messages = Vec::new();
    let cases = [
        ("no store", "ftp://host/file", folder.path()),
        ("several", "http://host/*.pth", folder.path()),
        ("folder is a file", server.url.as_str(), occupied.as_path()),
    ];
    for (what, url, cache) in cases {
        let weights = WeightsSpec { from: url.to_owned(), ..server.weights(None) };
        let error = Cache::at(cache.to_owned(), stores()).fetch(&weights).await.expect_err(what);
        messages.push(format!("{what}: {error}").replace(&folder.path().display().to_string(), "FOLDER"));
    }
    check("locations", &messages.join("\n"));
}
