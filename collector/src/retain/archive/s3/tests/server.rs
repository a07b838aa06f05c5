//! A server that speaks S3 as far as an archive needs it, and fails where it is told to. It believes no
//! signature: each is made again from what arrived.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use custody_event::{Digest, Timestamp};
use custody_evidence::base64;

use super::super::sign;

pub(super) const ID: &str = "AKIDEXAMPLE";
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(super) const BUCKET: &str = "audit";
/// Objects of a page of a list: few, so that there are many pages.
const PAGE: usize = 2;

/// What goes wrong.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// This status with this code, and these headers.
    Says(u16, &'static str, &'static str),
    /// The answer breaks off in the middle.
    Cut,
    /// There is no answer.
    Silence,
    /// The object is taken, its lock is not.
    Unlocked,
}

#[derive(Debug, Clone)]
pub(super) struct Version {
    id: String,
    pub(super) bytes: Vec<u8>,
    headers: HashMap<String, String>,
}

/// The object, its headers, and the parts.
type Upload = (String, HashMap<String, String>, BTreeMap<usize, Vec<u8>>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, Vec<Version>>,
    uploads: BTreeMap<String, Upload>,
    count: u64,
    /// The next request that holds the words has the fault.
    pub(super) faults: VecDeque<(&'static str, Fault)>,
    /// `GET /audit/key?query`, one after the other.
    pub(super) log: Vec<String>,
    /// Was the bucket made with Object Lock?
    pub(super) locks: bool,
}

impl State {
    pub(super) fn asked(&self, words: &str) -> usize {
        self.log.iter().filter(|line| line.contains(words)).count()
    }

    /// Uploads that were begun and not ended.
    pub(super) fn open_uploads(&self) -> usize {
        self.uploads.len()
    }

    pub(super) fn end_uploads(&mut self) {
        self.uploads.clear();
    }

    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("v{}", self.count)
    }
}

pub(super) struct Server {
    pub(super) endpoint: String,
    state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    /// Without the bucket.
    key: String,
    path: String,
    query: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn parameter(&self, name: &str) -> Option<String> {
        let found = self.query.split('&').find_map(|pair| {
            pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value)
        });
        found.map(|value| value.replace("%2F", "/").replace("%2f", "/"))
    }
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn good(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into() }
    }

    fn bad(status: u16, code: &str) -> Self {
        // As Amazon does: what was signed stands in the answer, and must not be shown.
        let text = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no &lt;{code}&gt;</Message><StringToSign>{SECRET}</StringToSign></Error>"
        );
        Self { status, headers: Vec::new(), body: text.into_bytes() }
    }
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_with(None)
    }

    pub(super) fn start_with(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State { locks: true, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), state, tls) = (stream, Arc::clone(&shared), tls.clone()) else {
                    return;
                };
                std::thread::spawn(move || match tls {
                    Some(tls) => {
                        let connection = rustls::ServerConnection::new(tls).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &state);
                    }
                    None => serve(stream, &state),
                });
            }
        });
        Self { endpoint, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn fail(&self, words: &'static str, fault: Fault) {
        self.state().faults.push_back((words, fault));
    }
}

/// One request for each connection.
fn serve<S: Read + Write + Ends>(stream: S, state: &Mutex<State>) {
    let mut stream = BufReader::new(stream);
    // Whoever does not say anything, or breaks off, gets no answer.
    let Some(request) = read(&mut stream) else { return };
    let line = format!("{} {}?{}", request.method, request.path, request.query);
    let mut state = state.lock().unwrap();
    state.log.push(line.clone());
    let at = state.faults.iter().position(|(words, _)| line.contains(words));
    let fault = at.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault);
    let reply = match &fault {
        Some(Fault::Says(status, code, headers)) => {
            let mut reply = Reply::bad(*status, code);
            let pairs = headers.split_terminator(';').filter_map(|pair| pair.split_once('='));
            reply.headers.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
            reply
        }
        Some(Fault::Silence) => {
            drop(state);
            std::thread::sleep(Duration::from_secs(20));
            return;
        }
        fault => trusted(&request).map_or_else(
            || answer(&mut state, &request, fault.as_ref()),
            |code| Reply::bad(403, code),
        ),
    };
    drop(state);
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    let is_head = request.method == "HEAD";
    if !is_head {
        head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = if is_head { &[][..] } else { &reply.body };
    let half = if matches!(fault, Some(Fault::Cut)) { body.len() / 2 } else { body.len() };
    let out = stream.get_mut();
    // A client that has gone is none of the server's business.
    let _gone = out.write_all(format!("{head}\r\n").as_bytes());
    let _gone = out.write_all(&body[..half]);
    let _gone = out.flush();
    out.end();
}

/// Ends a connection as it should be ended.
trait Ends {
    fn end(&mut self);
}

impl Ends for TcpStream {
    fn end(&mut self) {
        let _gone = self.shutdown(Shutdown::Write);
    }
}

impl Ends for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    fn end(&mut self) {
        self.conn.send_close_notify();
        let _gone = self.flush();
        let _gone = self.sock.shutdown(Shutdown::Write);
    }
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path.strip_prefix(&format!("/{BUCKET}")).unwrap_or(path).trim_start_matches('/');
    let (key, path, query) = (key.to_owned(), path.to_owned(), query.to_owned());
    Some(Request { method, key, path, query, headers, body })
}

/// What is wrong with the signature, if anything is.
fn trusted(request: &Request) -> Option<&'static str> {
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let authorization = header("authorization");
    let Some((_, names)) = authorization.split_once("SignedHeaders=") else {
        return Some("AccessDenied");
    };
    let names = names.split(',').next().unwrap_or_default().to_owned();
    let signed: Vec<(String, String)> =
        names.split(';').map(|name| (name.to_owned(), header(name))).collect();
    let is_signed = |name: &String| name.starts_with("x-amz-") && !names.contains(name.as_str());
    if request.headers.keys().any(is_signed) {
        return Some("AccessDenied");
    }
    let payload = header("x-amz-content-sha256");
    let scope = sign::Scope { region: "eu-central-1", service: "s3", time: time(request) };
    let of = sign::Request {
        method: &request.method,
        path: &request.path,
        query: &request.query,
        headers: &signed,
        payload: &payload,
    };
    let keys = sign::Keys { id: ID, secret: SECRET };
    if sign::authorization(keys, scope, &of) != authorization {
        return Some("SignatureDoesNotMatch");
    }
    let digest = Digest::of(&request.body);
    let sum = request.headers.get("x-amz-checksum-sha256");
    if payload != digest.to_hex() || sum.is_some_and(|sum| *sum != base64::encode(&digest.0)) {
        return Some("BadDigest");
    }
    None
}

/// The request's own time.
fn time(request: &Request) -> Timestamp {
    let date = &request.headers["x-amz-date"];
    let [year, month, day] = [&date[..4], &date[4..6], &date[6..8]];
    let [hour, minute, second] = [&date[9..11], &date[11..13], &date[13..15]];
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}.000000Z");
    Timestamp::parse(&text).unwrap()
}

fn answer(state: &mut State, request: &Request, fault: Option<&Fault>) -> Reply {
    let has = |name: &str| request.parameter(name);
    match (request.method.as_str(), request.key.is_empty()) {
        ("GET", true) if has("list-type").is_some() => list(state, request),
        ("GET", true) if has("versions").is_some() => {
            let key = has("prefix").unwrap();
            let versions: String = state
                .objects
                .get(&key)
                .into_iter()
                .flatten()
                .map(|version| {
                    format!(
                        "<Version><Key>{key}</Key><VersionId>{}</VersionId></Version>",
                        version.id
                    )
                })
                .collect();
            Reply::good(format!("<ListVersionsResult xmlns=\"x\">{versions}</ListVersionsResult>"))
        }
        ("GET", true) => {
            let all: String = state
                .uploads
                .iter()
                .map(|(id, (key, ..))| {
                    format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>")
                })
                .collect();
            Reply::good(format!("<ListMultipartUploadsResult>{all}</ListMultipartUploadsResult>"))
        }
        ("POST", _) if has("uploads").is_some() => {
            let id = state.fresh();
            let upload = (request.key.clone(), request.headers.clone(), BTreeMap::new());
            state.uploads.insert(id.clone(), upload);
            Reply::good(format!("<I xmlns=\"x\"><UploadId>{id}</UploadId></I>"))
        }
        ("PUT", _) if has("uploadId").is_some() => {
            let Some(upload) = state.uploads.get_mut(&has("uploadId").unwrap()) else {
                return Reply::bad(404, "NoSuchUpload");
            };
            upload.2.insert(has("partNumber").unwrap().parse().unwrap(), request.body.clone());
            let mut reply = Reply::good("");
            let tag = format!("\"{}\"", Digest::of(&request.body));
            reply.headers.push(("etag".to_owned(), tag));
            reply
        }
        ("POST", _) => {
            let reply = complete(state, request);
            if let (Some(Fault::Unlocked), Some(versions)) =
                (fault, state.objects.get_mut(&request.key))
            {
                versions.last_mut().unwrap().headers.clear();
            }
            reply
        }
        ("DELETE", _) if has("uploadId").is_some() => {
            state.uploads.remove(&has("uploadId").unwrap());
            Reply { status: 204, headers: Vec::new(), body: Vec::new() }
        }
        ("PUT", _) if has("retention").is_some() => {
            let text = String::from_utf8(request.body.clone()).unwrap();
            let of = |name: &str| super::xml::text(&text, name).unwrap();
            let headers = HashMap::from([
                ("x-amz-object-lock-mode".to_owned(), of("Mode")),
                ("x-amz-object-lock-retain-until-date".to_owned(), of("RetainUntilDate")),
            ]);
            let versions = state.objects.get_mut(&request.key).unwrap();
            versions.last_mut().unwrap().headers = headers;
            Reply::good("")
        }
        ("PUT", _) => {
            let locked = request.headers.contains_key("x-amz-object-lock-mode");
            if locked && !state.locks {
                return Reply::bad(400, "InvalidRequest");
            }
            let mut headers = request.headers.clone();
            if matches!(fault, Some(Fault::Unlocked)) {
                headers.retain(|name, _| !name.contains("lock"));
            }
            put(state, &request.key, request.body.clone(), headers);
            Reply::good("")
        }
        ("DELETE", _) => delete(state, request),
        _ => get(state, request),
    }
}

fn put(state: &mut State, key: &str, bytes: Vec<u8>, mut headers: HashMap<String, String>) {
    headers.retain(|name, _| name.starts_with("x-amz-object-lock"));
    let version = Version { id: state.fresh(), bytes, headers };
    state.objects.entry(key.to_owned()).or_default().push(version);
}

fn list(state: &State, request: &Request) -> Reply {
    let prefix = request.parameter("prefix").unwrap();
    let after = request.parameter("continuation-token").unwrap_or_default();
    let mut left =
        state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
    let mut text = "<ListBucketResult xmlns=\"x\">".to_owned();
    let mut last = String::new();
    for (key, versions) in left.by_ref().take(PAGE) {
        let len = versions.last().unwrap().bytes.len();
        text.push_str(&format!("<Contents><Key>{key}</Key><LastModified>2026-11-22T00:00:00.000Z</LastModified><Size>{len}</Size></Contents>"));
        last.clone_from(key);
    }
    if left.next().is_some() {
        text.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
    }
    Reply::good(text + "</ListBucketResult>")
}

fn complete(state: &mut State, request: &Request) -> Reply {
    let Some((key, headers, parts)) = state.uploads.remove(&request.parameter("uploadId").unwrap())
    else {
        return Reply::bad(404, "NoSuchUpload");
    };
    let text = String::from_utf8(request.body.clone()).unwrap();
    for (number, bytes) in &parts {
        let digest = Digest::of(bytes);
        let part = format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>\"{digest}\"</ETag><ChecksumSHA256>{}</ChecksumSHA256></Part>",
            base64::encode(&digest.0)
        );
        assert!(text.contains(&part), "{text}");
    }
    put(state, &key, parts.into_values().flatten().collect(), headers);
    Reply::good("<CompleteMultipartUploadResult/>")
}

fn delete(state: &mut State, request: &Request) -> Reply {
    let id = request.parameter("versionId");
    let now = time(request).to_string();
    let Some(versions) = state.objects.get_mut(&request.key) else {
        return Reply::bad(404, "NoSuchKey");
    };
    let is = |version: &Version| id.as_ref().is_none_or(|id| *id == version.id);
    let until = |version: &Version| {
        // What stands behind the seconds does not matter.
        let end = version.headers.get("x-amz-object-lock-retain-until-date");
        end.is_some_and(|end| end[..19] > now[..19])
    };
    if versions.iter().any(|version| is(version) && until(version)) {
        return Reply::bad(403, "AccessDenied");
    }
    versions.retain(|version| !is(version));
    if versions.is_empty() {
        state.objects.remove(&request.key);
    }
    Reply { status: 204, headers: Vec::new(), body: Vec::new() }
}

fn get(state: &State, request: &Request) -> Reply {
    let id = request.parameter("versionId");
    let found = state.objects.get(&request.key).and_then(|versions| {
        versions.iter().rev().find(|version| id.as_ref().is_none_or(|id| *id == version.id))
    });
    let Some(version) = found else { return Reply::bad(404, "NoSuchKey") };
    let mut reply = Reply::good(version.bytes.clone());
    reply.headers.extend(version.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    let tag = format!("\"{}\"", Digest::of(&version.bytes));
    reply.headers.push(("etag".to_owned(), tag.clone()));
    if request.method == "HEAD" {
        reply.headers.push(("content-length".to_owned(), version.bytes.len().to_string()));
    }
    if let Some(range) = request.headers.get("range") {
        let from =
            range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse::<usize>().unwrap();
        assert_eq!(request.headers["if-match"], tag, "a part of the same object is asked for");
        reply.status = 206;
        reply.body.drain(..from);
    }
    reply
}
