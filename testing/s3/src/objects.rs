//! The content of the server, and the execution of every request.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use hyper::{Method, StatusCode};

use crate::answer::Answer;
use crate::request::{Asked, Notes, all_between};

/// Number of keys and folders in one page of a list.
const PAGE: usize = 2;
/// The smallest chunk of an upload in bytes, except for the last one.
const SMALLEST_CHUNK: usize = 5 << 20;

/// All objects and open uploads.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// Objects by `bucket/key`.
    objects: BTreeMap<String, Bytes>,
    /// Attributes of objects by `bucket/key`.
    notes: BTreeMap<String, Notes>,
    uploads: BTreeMap<String, Upload>,
    uploads_begun: u64,
}

/// A multipart upload that is neither complete nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// `bucket/key` of the object that the upload creates.
    pub path: String,
    /// Chunks that have arrived, by number.
    pub chunks: usize,
}

#[derive(Debug)]
struct Upload {
    path: String,
    notes: Notes,
    chunks: BTreeMap<u32, Bytes>,
}

impl Objects {
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    pub(crate) fn object(&self, path: &str) -> Option<&Bytes> {
        self.objects.get(path)
    }

    pub(crate) fn set(&mut self, path: &str, content: Bytes) {
        self.objects.insert(path.to_owned(), content);
        self.notes.remove(path);
    }

    pub(crate) fn open_uploads(&self) -> Vec<OpenUpload> {
        let open = self.uploads.values();
        open.map(|upload| OpenUpload { path: upload.path.clone(), chunks: upload.chunks.len() }).collect()
    }

    pub(crate) fn carry_out(&mut self, asked: &Asked) -> Answer {
        let (of_bucket, of_upload) = (asked.is_of_bucket(), asked.query.contains_key("uploadId"));
        match (asked.method.as_str(), of_bucket) {
            ("GET", true) => self.list(asked),
            ("POST", true) if asked.query.contains_key("delete") => self.delete_several(asked),
            ("POST", false) if asked.query.contains_key("uploads") => self.begin_upload(asked),
            ("POST", false) if of_upload => self.complete_upload(asked),
            ("PUT", false) if of_upload => self.put_chunk(asked),
            ("DELETE", false) if of_upload => self.abort_upload(asked),
            ("PUT", false) => self.put(asked, asked.body.clone(), asked.notes.clone()),
            ("GET" | "HEAD", false) => self.read(asked),
            ("DELETE", false) => {
                self.objects.remove(&asked.path);
                Answer::xml(StatusCode::NO_CONTENT, "")
            }
            _ => Answer::error(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        }
    }

    /// Checks the conditions and writes the object, atomically.
    fn put(&mut self, asked: &Asked, content: Bytes, notes: Notes) -> Answer {
        let found = self.objects.get(&asked.path).map(tag);
        let failed = || Answer::error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        match (&asked.if_none_match, &asked.if_match, found) {
            (Some(_), _, Some(_)) => failed(),
            (_, Some(_), None) => Answer::error(StatusCode::NOT_FOUND, "NoSuchKey"),
            (_, Some(expected), Some(found)) if *expected != found => failed(),
            _ => {
                let answer = Answer::described(&tag(&content));
                self.objects.insert(asked.path.clone(), content);
                self.notes.insert(asked.path.clone(), notes);
                answer
            }
        }
    }

    fn read(&self, asked: &Asked) -> Answer {
        let Some(content) = self.objects.get(&asked.path) else {
            return Answer::error(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let (tag, size) = (tag(content), content.len());
        if asked.if_match.as_ref().is_some_and(|expected| *expected != tag) {
            return Answer::error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        if asked.if_none_match.as_ref().is_some_and(|known| *known == tag) {
            return Answer::xml(StatusCode::NOT_MODIFIED, "");
        }
        let described = Answer::described(&tag).with_notes(self.notes.get(&asked.path).unwrap_or(&Notes::new()));
        match asked.range(size) {
            None => described.with_body(content.clone()),
            Some((from, _)) if from >= size && asked.method == Method::GET => {
                Answer::error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange")
            }
            Some((from, to)) => described.with_body(content.slice(from.min(to)..to)).with_range(from, to, size),
        }
    }

    fn list(&self, asked: &Asked) -> Answer {
        let bucket = format!("{}/", asked.path);
        let (prefix, delimiter) = (asked.wanted("prefix"), asked.wanted("delimiter"));
        let after = asked.wanted("continuation-token").max(asked.wanted("start-after"));
        let mut entries: BTreeMap<String, Option<&Bytes>> = BTreeMap::new();
        for (path, content) in &self.objects {
            let Some((key, rest)) = path.strip_prefix(&bucket).and_then(|key| Some((key, key.strip_prefix(prefix)?)))
            else {
                continue;
            };
            match rest.split_once(delimiter).filter(|_| !delimiter.is_empty()) {
                Some((folder, _)) => entries.insert(format!("{prefix}{folder}{delimiter}"), None),
                None => entries.insert(key.to_owned(), Some(content)),
            };
        }
        let mut left = entries.iter().filter(|(name, _)| name.as_str() > after);
        let page: Vec<_> = left.by_ref().take(PAGE).collect();
        let next = match (left.next(), page.last()) {
            (Some(_), Some((last, _))) => format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(last)),
            _ => String::new(),
        };
        let contents: String = page.into_iter().map(|(name, content)| listed(name, *content)).collect();
        let more = !next.is_empty();
        let xml = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{next}{contents}</ListBucketResult>");
        Answer::xml(StatusCode::OK, &xml)
    }

    fn delete_several(&mut self, asked: &Asked) -> Answer {
        let mut deleted = String::new();
        for path in asked.paths_to_delete() {
            self.objects.remove(&path);
            let key = path.split_once('/').map_or("", |(_, key)| key);
            deleted += &format!("<Deleted><Key>{}</Key></Deleted>", escaped(key));
        }
        Answer::xml(StatusCode::OK, &format!("<DeleteResult>{deleted}</DeleteResult>"))
    }

    fn begin_upload(&mut self, asked: &Asked) -> Answer {
        self.uploads_begun += 1;
        let id = format!("upload-{}", self.uploads_begun);
        self.uploads.insert(
            id.clone(),
            Upload { path: asked.path.clone(), notes: asked.notes.clone(), chunks: BTreeMap::new() },
        );
        let xml = format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
        Answer::xml(StatusCode::OK, &xml)
    }

    fn put_chunk(&mut self, asked: &Asked) -> Answer {
        let Ok(number) = asked.wanted("partNumber").parse() else {
            return Answer::error(StatusCode::BAD_REQUEST, "InvalidArgument");
        };
        let upload = self.uploads.get_mut(asked.wanted("uploadId")).filter(|upload| upload.path == asked.path);
        let Some(upload) = upload else { return no_such_upload() };
        upload.chunks.insert(number, asked.body.clone());
        Answer::described(&tag(&asked.body))
    }

    fn complete_upload(&mut self, asked: &Asked) -> Answer {
        let id = asked.wanted("uploadId");
        let Some(upload) = self.uploads.get(id).filter(|upload| upload.path == asked.path) else {
            return no_such_upload();
        };
        let text = String::from_utf8_lossy(&asked.body).into_owned();
        let numbers = all_between(&text, "<PartNumber>", "</PartNumber>");
        let chunks: Option<Vec<&Bytes>> = numbers.map(|number| upload.chunks.get(&number.parse().ok()?)).collect();
        let Some(chunks) = chunks.filter(|chunks| !chunks.is_empty()) else {
            return Answer::error(StatusCode::BAD_REQUEST, "InvalidPart");
        };
        if chunks.iter().rev().skip(1).any(|chunk| chunk.len() < SMALLEST_CHUNK) {
            return Answer::error(StatusCode::BAD_REQUEST, "EntityTooSmall");
        }
        let mut content = BytesMut::new();
        chunks.into_iter().for_each(|chunk| content.extend_from_slice(chunk));
        let content = content.freeze();
        let tag = tag(&content);
        let notes = upload.notes.clone();
        let answer = self.put(asked, content, notes);
        if !answer.is_success() {
            return answer;
        }
        self.uploads.remove(id);
        let xml =
            format!("<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>", escaped(&tag));
        Answer::xml(StatusCode::OK, &xml)
    }

    fn abort_upload(&mut self, asked: &Asked) -> Answer {
        match self.uploads.remove(asked.wanted("uploadId")) {
            Some(_) => Answer::xml(StatusCode::NO_CONTENT, ""),
            None => no_such_upload(),
        }
    }
}

fn no_such_upload() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "NoSuchUpload")
}

/// An object or a folder in a list.
fn listed(name: &str, content: Option<&Bytes>) -> String {
    let name = escaped(name);
    let Some(content) = content else { return format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>") };
    let (size, tag) = (content.len(), escaped(&tag(content)));
    format!(
        "<Contents><Key>{name}</Key><Size>{size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
         <ETag>{tag}</ETag></Contents>"
    )
}

fn tag(content: &Bytes) -> String {
    format!("\"{}\"", antiphon_core::digest::sha256(content))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
