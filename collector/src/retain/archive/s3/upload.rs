//! Putting a file into the bucket: in one request where it is short, else in parts.
//!
//! How far an upload in parts is stands in `<data_dir>/archive/upload.json`, written whole after each
//! part: after a crash at any instant it goes on with the next one. The object's name holds the file's hash, so
//! what goes on is the same file. An upload that nobody goes on with is ended when the bucket is
//! tidied, so that its parts cost nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use custody_event::Digest;
use custody_evidence::base64;
use custody_evidence::whole::{PRIVATE, write_whole};
use http::Method;
use serde::{Deserialize, Serialize};

use super::super::super::{RetainError, io};
use super::client::Ask;
use super::{Archived, Bucket, S3Error, opened, xml};

/// A part: S3 wants 5 MiB at least and 10,000 parts at most; in memory there is one.
pub(super) const PART_BYTES: u64 = 8 * 1024 * 1024;

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    etag: String,
    /// SHA-256, in base 64.
    sha256: String,
}

/// An upload that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Upload {
    key: String,
    id: String,
    part_bytes: u64,
    /// Until when it is locked, as it was said when it was begun.
    until: Option<String>,
    parts: Vec<Part>,
}

fn sha256(bytes: &[u8]) -> String {
    base64::encode(&Digest::of(bytes).0)
}

/// The checksum of a body; for an object under a lock it must be said that there is one.
fn summed(sha256: String) -> [(&'static str, String); 2] {
    [("x-amz-checksum-sha256", sha256), ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned())]
}

impl Bucket {
    /// Puts the file there, durably. Only copies of segments are locked: the sidecars hold nothing that
    /// the segments do not.
    pub(super) fn upload(&self, path: &Path, key: &str) -> Result<(), RetainError> {
        let (file, len) = opened(path)?;
        let until = self.locked_until().filter(|_| key.ends_with(".seg"));
        if len > PART_BYTES {
            let until = self.upload_parts(&file, path, key, len, until)?;
            return match (self.confirm(key, len, until.as_deref()), until) {
                // Some servers forget over the parts what was said at the beginning.
                (Err(RetainError::S3(S3Error::Answer { .. })), Some(until)) => {
                    self.lock_there(key, &until)?;
                    self.confirm(key, len, Some(&until))
                }
                (done, _) => done,
            };
        }
        let mut body = vec![0; usize::try_from(len).unwrap_or_default()];
        file.read_exact_at(&mut body, 0).map_err(io(path))?;
        let mut headers = self.lock_headers(until.as_deref());
        headers.extend(summed(sha256(&body)));
        self.client.ask(&Ask { method: Method::PUT, key, headers, body, ..Ask::default() })?;
        self.confirm(key, len, until.as_deref())
    }

    fn lock_headers(&self, until: Option<&str>) -> Vec<(&'static str, String)> {
        let Some(until) = until else { return Vec::new() };
        vec![
            ("x-amz-object-lock-mode", self.mode().to_owned()),
            ("x-amz-object-lock-retain-until-date", until.to_owned()),
        ]
    }

    /// Locks an object that is there.
    fn lock_there(&self, key: &str, until: &str) -> Result<(), RetainError> {
        let mode = self.mode();
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
        );
        let (body, query) = (body.into_bytes(), vec![("retention", "")]);
        let headers = summed(sha256(&body)).to_vec();
        self.client.ask(&Ask { method: Method::PUT, key, query, headers, body }).map(|_| ())
    }

    fn state_path(&self) -> PathBuf {
        self.folder.join("upload.json")
    }

    /// The upload that was under way; one that cannot be read is none.
    fn state(&self) -> Result<Option<Upload>, RetainError> {
        let path = self.state_path();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(&path)(error)),
        }
    }

    fn keep(&self, upload: &Upload) -> Result<(), RetainError> {
        let path = self.state_path();
        let bytes = serde_json::to_vec(upload)
            .map_err(|error| io(&path)(std::io::Error::other(error.to_string())))?;
        write_whole(&path, &bytes, PRIVATE).map_err(io(&path))
    }

    fn forget(&self) -> Result<(), RetainError> {
        let path = self.state_path();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Gives until when the object is locked.
    fn upload_parts(
        &self,
        file: &std::fs::File,
        path: &Path,
        key: &str,
        len: u64,
        until: Option<String>,
    ) -> Result<Option<String>, RetainError> {
        let known = self.state()?.filter(|known| {
            known.key == key
                && known.part_bytes == PART_BYTES
                && known.until.is_some() == until.is_some()
        });
        let is_known = known.is_some();
        let upload = match known {
            Some(known) => known,
            None => self.begin(key, until.clone())?,
        };
        match self.rest_of(file, path, len, upload) {
            // The server has ended it meanwhile: begin again, once.
            Err(RetainError::S3(S3Error::Missing { .. })) if is_known => {
                self.forget()?;
                let upload = self.begin(key, until)?;
                self.rest_of(file, path, len, upload)
            }
            done => done,
        }
    }

    fn begin(&self, key: &str, until: Option<String>) -> Result<Upload, RetainError> {
        let mut headers = self.lock_headers(until.as_deref());
        headers.push(("x-amz-checksum-algorithm", "SHA256".to_owned()));
        let query = vec![("uploads", "")];
        let ask = Ask { method: Method::POST, key, query, headers, ..Ask::default() };
        let answer = self.client.ask(&ask)?;
        let id = xml::text(answer.text(), "UploadId").filter(|id| !id.is_empty());
        let what = "it names no upload that was begun".to_owned();
        let id = id.ok_or_else(|| S3Error::Answer { at: self.client.place(key), what })?;
        let key = key.to_owned();
        let upload = Upload { key, id, part_bytes: PART_BYTES, until, parts: Vec::new() };
        self.keep(&upload)?;
        Ok(upload)
    }

    fn rest_of(
        &self,
        file: &std::fs::File,
        path: &Path,
        len: u64,
        mut upload: Upload,
    ) -> Result<Option<String>, RetainError> {
        let mut number = upload.parts.len();
        loop {
            let at = u64::try_from(number).unwrap_or(u64::MAX).saturating_mul(PART_BYTES);
            if at >= len {
                break;
            }
            let size = usize::try_from(PART_BYTES.min(len - at)).unwrap_or_default();
            let mut body = vec![0; size];
            file.read_exact_at(&mut body, at).map_err(io(path))?;
            number += 1;
            upload.parts.push(self.part(&upload, number, body)?);
            self.keep(&upload)?;
        }
        self.complete(&upload)?;
        self.forget()?;
        Ok(upload.until)
    }

    fn part(&self, upload: &Upload, number: usize, body: Vec<u8>) -> Result<Part, RetainError> {
        let (number, sha256) = (number.to_string(), sha256(&body));
        let query = vec![("partNumber", number.as_str()), ("uploadId", upload.id.as_str())];
        let headers = summed(sha256.clone()).to_vec();
        let key = upload.key.as_str();
        let answer = self.client.ask(&Ask { method: Method::PUT, key, query, headers, body })?;
        let what = "a part has no ETag".to_owned();
        let etag = answer.header("etag").map(str::to_owned);
        let etag = etag.ok_or_else(|| S3Error::Answer { at: self.client.place(key), what })?;
        Ok(Part { etag, sha256 })
    }

    fn complete(&self, upload: &Upload) -> Result<(), RetainError> {
        let mut body = "<CompleteMultipartUpload>".to_owned();
        for (at, Part { etag, sha256 }) in upload.parts.iter().enumerate() {
            let (number, etag) = (at + 1, etag.replace('&', "&amp;").replace('<', "&lt;"));
            body.push_str(&format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><ChecksumSHA256>{sha256}</ChecksumSHA256></Part>"
            ));
        }
        body.push_str("</CompleteMultipartUpload>");
        let (key, query) = (upload.key.as_str(), vec![("uploadId", upload.id.as_str())]);
        let headers = vec![("content-type", "application/xml".to_owned())];
        let body = body.into_bytes();
        let answer = self.client.ask(&Ask { method: Method::POST, key, query, headers, body })?;
        // A server may begin to answer well, and then find that it cannot.
        if let Some(code) = xml::text(answer.text(), "Code") {
            let what = format!("its parts could not be put together: {}", code.escape_debug());
            return Err(S3Error::Answer { at: self.client.place(key), what }.into());
        }
        Ok(())
    }

    /// Ends uploads that nobody goes on with.
    pub(super) fn end_uploads(&self, copies: &BTreeMap<u64, Archived>) -> Result<(), RetainError> {
        let mut known = self.state()?;
        if known.as_ref().is_some_and(|known| copies.values().any(|copy| copy.file == known.key)) {
            // It was put together just before a crash.
            self.forget()?;
            known = None;
        }
        let query = vec![("prefix", self.prefix.as_str()), ("uploads", "")];
        let answer = match self.client.ask(&Ask { query, ..Ask::default() }) {
            Err(RetainError::S3(S3Error::Refused { status: 405 | 501, .. })) => return Ok(()),
            answer => answer?,
        };
        for upload in xml::all(answer.text(), "Upload") {
            let (key, id) = (xml::text(upload, "Key"), xml::text(upload, "UploadId"));
            let (Some(key), Some(id)) = (key, id) else { continue };
            let is_known = known.as_ref().is_some_and(|known| known.id == id);
            if is_known || !self.is_ours(&key) {
                continue;
            }
            let query = vec![("uploadId", id.as_str())];
            let ask = Ask { method: Method::DELETE, key: &key, query, ..Ask::default() };
            match self.client.ask(&ask) {
                Ok(_) | Err(RetainError::S3(S3Error::Missing { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
