//! Requests to the bucket: signed, tried again where that may help, ended where the collector ends.
//!
//! # Failures
//! What may pass (no connection, a time-out, a broken answer, 408, 409, 429, 5xx) is tried
//! [`TRIES`] times with a pause that doubles, jitters and obeys `Retry-After`; then, and for everything else, the
//! request has failed, with what the server said and what to do. The keys stand in no error and no
//! line of the log: of what a server says only its code and message are taken.
//!
//! # Limits
//! Answers of 16 MiB that are read whole; a body of at most one part of an upload; 10 s to connect,
//! 30 s without a byte, two minutes for a request that is no download.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use custody_config::SecretFile;
use custody_config::collector::S3Config;
use custody_event::{Clock, Digest};
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Url;
use tokio::runtime::Runtime;

use super::super::super::{RetainError, io};
use super::{S3Error, sign, xml};
use crate::access::random_secret;

/// How often a request is tried.
pub(super) const TRIES: u32 = 6;
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Of what a server says, so much is shown.
const MAX_SHOWN_CHARS: usize = 300;
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// It is looked so often whether the collector ends.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The first pause.
    pub(super) pause: Duration,
    /// Without a byte.
    pub(super) idle: Duration,
    /// A request that is no download.
    pub(super) whole: Duration,
    /// After a server could not be reached, nobody waits for it again within this time.
    pub(super) rest: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(500),
            idle: Duration::from_secs(30),
            whole: Duration::from_secs(120),
            rest: Duration::from_secs(20),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// The object; empty for the bucket.
    pub(super) key: &'a str,
    pub(super) query: Vec<(&'a str, &'a str)>,
    /// With their names in lower case.
    pub(super) headers: Vec<(&'a str, String)>,
    pub(super) body: Vec<u8>,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as a text; nothing where it is none.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }
}

/// See the module.
pub(super) struct Client {
    /// Scheme, host and port, and the bucket where it stands in the path.
    base: String,
    host: String,
    bucket: String,
    region: String,
    id: SecretFile,
    secret: SecretFile,
    session: Option<SecretFile>,
    http: reqwest::Client,
    /// Always there but while it is dropped.
    runtime: Option<Runtime>,
    clock: Arc<dyn Clock>,
    stopping: Arc<AtomicBool>,
    times: Times,
    /// When the server could not be reached, and why.
    down: Mutex<Option<(Duration, String)>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Also where nobody may wait.
            runtime.shutdown_background();
        }
    }
}

/// Why a try failed, and whether another may do better.
enum Failed {
    /// It may.
    Passing { why: String, wait: Option<Duration> },
    /// It will not.
    Final(RetainError),
}

impl From<S3Error> for Failed {
    fn from(error: S3Error) -> Self {
        Self::Final(error.into())
    }
}

fn broken(error: reqwest::Error) -> Failed {
    let error = error.without_url();
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        why = format!("{why}: {inner}");
        cause = inner.source();
    }
    Failed::Passing { why, wait: None }
}

impl Client {
    pub(super) fn new(
        config: &S3Config,
        clock: Arc<dyn Clock>,
        stopping: Arc<AtomicBool>,
        times: Times,
    ) -> Result<Self, RetainError> {
        // Another part of the process may have been there first; then it is the same provider.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(times.idle);
        let builder = match &config.ca_file {
            Some(path) => builder.tls_certs_only(certificates(path.get())?),
            None => builder,
        };
        let failed = |error: reqwest::Error| S3Error::Setup(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let bucket = config.bucket.get();
        let endpoint = config.endpoint.get().to_string();
        let (scheme, at) = endpoint.split_once("://").unwrap_or(("https", endpoint.as_str()));
        let base = if config.path_style {
            format!("{scheme}://{at}/{bucket}")
        } else {
            format!("{scheme}://{bucket}.{at}")
        };
        let url = Url::parse(&base).map_err(|error| S3Error::Setup(format!("{base}: {error}")))?;
        let name = url.host_str().unwrap_or_default();
        let host = url.port().map_or(name.to_owned(), |port| format!("{name}:{port}"));
        let client = Self {
            base,
            host,
            bucket: bucket.clone(),
            region: config.region.get().clone(),
            id: config.access_key_file.clone(),
            secret: config.secret_key_file.clone(),
            session: config.session_token_file.clone(),
            http: builder.build().map_err(failed)?,
            runtime: Some(runtime.map_err(|error| S3Error::Setup(error.to_string()))?),
            clock,
            stopping,
            times,
            down: Mutex::default(),
        };
        // What cannot be read is said at the start, not when the first segment is old.
        client.signed(&Ask::default(), "/", "")?;
        Ok(client)
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> (&str, &str) {
        (&self.base, &self.host)
    }

    /// How the object is named in what is said.
    pub(super) fn place(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    fn go_on(&self) -> Result<(), RetainError> {
        if self.stopping.load(Ordering::Relaxed) { Err(RetainError::Stopping) } else { Ok(()) }
    }

    /// Asks, and reads the answer whole.
    ///
    /// # Errors
    /// See the module; also where the collector ends.
    pub(super) fn ask(&self, ask: &Ask<'_>) -> Result<Answer, RetainError> {
        self.tried(ask.key, || {
            self.block_on(async {
                let mut answer = self.send(ask, Some(self.times.whole)).await?;
                let headers = std::mem::take(answer.headers_mut());
                let body = read(&mut answer).await?;
                Ok(Answer { headers, body })
            })
        })
    }

    /// Gives the object's bytes as they come. One that breaks off goes on where it stood, and must be the
    /// same object then.
    ///
    /// # Errors
    /// As for [`Self::ask`], and those of `take`.
    pub(super) fn download(
        &self,
        key: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RetainError>,
    ) -> Result<(), RetainError> {
        let (mut at, mut tag) = (0_u64, None);
        loop {
            let before = at;
            let done = self.tried(key, || self.part(key, &mut at, &mut tag, take));
            match done {
                // Something came before it broke off again: it is worth as many tries as before.
                Err(RetainError::S3(S3Error::Unreachable { .. })) if at > before => {}
                done => return done,
            }
        }
    }

    fn part(
        &self,
        key: &str,
        at: &mut u64,
        tag: &mut Option<String>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RetainError>,
    ) -> Result<(), Failed> {
        let mut headers = Vec::new();
        if *at > 0 {
            headers.push(("range", format!("bytes={at}-")));
            headers.extend(tag.iter().map(|tag| ("if-match", tag.clone())));
        }
        let ask = Ask { method: Method::GET, key, headers, ..Ask::default() };
        self.block_on(async {
            let mut answer = self.send(&ask, None).await?;
            if *at > 0 && answer.status() != StatusCode::PARTIAL_CONTENT {
                let what = format!("it answers {} to a range", answer.status());
                return Err(S3Error::Answer { at: self.place(key), what }.into());
            }
            *tag = answer
                .headers()
                .get(header::ETAG)
                .and_then(|tag| tag.to_str().ok())
                .map(str::to_owned);
            while let Some(bytes) = answer.chunk().await.map_err(broken)? {
                self.go_on().map_err(Failed::Final)?;
                take(&bytes).map_err(Failed::Final)?;
                *at += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            }
            Ok(())
        })
    }

    fn block_on<T>(&self, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(async {
                tokio::select! {
                    done = work => done,
                    () = self.ended() => Err(Failed::Final(RetainError::Stopping)),
                }
            }),
            None => Err(Failed::Final(RetainError::Stopping)),
        }
    }

    /// Completes when the collector ends: no transfer keeps it.
    async fn ended(&self) {
        while !self.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tries until it is done or there is no hope.
    fn tried<T>(
        &self,
        key: &str,
        mut once: impl FnMut() -> Result<T, Failed>,
    ) -> Result<T, RetainError> {
        let mut tries = 1;
        let unreachable = |why: String| {
            Err(S3Error::Unreachable { at: self.place(key), tries: TRIES, why }.into())
        };
        if let Some(why) = self.rests() {
            return unreachable(why);
        }
        loop {
            self.go_on()?;
            match once() {
                Ok(done) => return Ok(done),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Passing { why, .. }) if tries == TRIES => {
                    *self.down() = Some((self.clock.monotonic(), why.clone()));
                    return unreachable(why);
                }
                Err(Failed::Passing { why, wait }) => {
                    log::debug!(at:% = self.place(key), why = why.as_str(), tries = tries;
                        "the bucket is asked again");
                    self.pause(tries, wait)?;
                }
            }
            tries += 1;
        }
    }

    fn down(&self) -> MutexGuard<'_, Option<(Duration, String)>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is not asked just now: hundreds of segments must not wait for it one after the other.
    fn rests(&self) -> Option<String> {
        let mut down = self.down();
        let (since, why) = down.clone()?;
        if self.clock.monotonic().saturating_sub(since) < self.times.rest {
            return Some(why);
        }
        *down = None;
        None
    }

    /// Waits: twice as long after each try, a part of it by chance, so that collectors do not come
    /// back all at once.
    fn pause(&self, tries: u32, wait: Option<Duration>) -> Result<(), RetainError> {
        let longest = self.times.pause.saturating_mul(1 << tries.min(10)).min(MAX_PAUSE);
        let chance = random_secret().map_or(128, |secret| secret[0]);
        let own = longest / 2 + longest.mul_f32(f32::from(chance) / 512.0);
        let mut left = wait.map_or(own, |wait| wait.clamp(own, MAX_PAUSE));
        while !left.is_zero() {
            self.go_on()?;
            let step = left.min(LOOK_EVERY);
            std::thread::sleep(step);
            left = left.saturating_sub(step);
        }
        Ok(())
    }

    /// The headers that sign a request.
    fn signed(
        &self,
        ask: &Ask<'_>,
        path: &str,
        query: &str,
    ) -> Result<Vec<(String, String)>, S3Error> {
        let read = |file: &SecretFile| file.read().map_err(|why| S3Error::Keys(why.to_string()));
        let (id, secret) = (read(&self.id)?, read(&self.secret)?);
        let time = self.clock.now();
        let payload = Digest::of(&ask.body).to_hex();
        let mut headers = vec![
            ("host".to_owned(), self.host.clone()),
            ("x-amz-content-sha256".to_owned(), payload.clone()),
            ("x-amz-date".to_owned(), sign::amz_date(time)),
        ];
        if let Some(session) = &self.session {
            let token = read(session)?.expose().to_owned();
            headers.push(("x-amz-security-token".to_owned(), token));
        }
        headers.extend(ask.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let keys = sign::Keys { id: id.expose(), secret: secret.expose() };
        let scope = sign::Scope { region: &self.region, service: "s3", time };
        let request = sign::Request {
            method: ask.method.as_str(),
            path,
            query,
            headers: &headers,
            payload: &payload,
        };
        let authorization = sign::authorization(keys, scope, &request);
        headers.push(("authorization".to_owned(), authorization));
        Ok(headers)
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        whole: Option<Duration>,
    ) -> Result<reqwest::Response, Failed> {
        let query = sign::query(&ask.query);
        let key = sign::encoded(ask.key, true);
        let text = match (query.is_empty(), key.is_empty()) {
            (true, true) => self.base.clone(),
            (true, false) => format!("{}/{key}", self.base),
            (false, true) => format!("{}?{query}", self.base),
            (false, false) => format!("{}/{key}?{query}", self.base),
        };
        let url = Url::parse(&text).map_err(|error| S3Error::Setup(format!("{text}: {error}")))?;
        let headers = self.signed(ask, url.path(), &query)?;
        let mut request = self.http.request(ask.method.clone(), url).body(ask.body.clone());
        for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
            request = request.header(name.as_str(), value.as_str());
        }
        if let Some(whole) = whole {
            request = request.timeout(whole);
        }
        let mut answer = request.send().await.map_err(broken)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let headers = std::mem::take(answer.headers_mut());
        let status = answer.status();
        let body = read(&mut answer).await?;
        Err(self.refused(ask, status, &headers, std::str::from_utf8(&body).unwrap_or_default()))
    }

    fn refused(
        &self,
        ask: &Ask<'_>,
        status: StatusCode,
        headers: &HeaderMap,
        body: &str,
    ) -> Failed {
        let said = |name: &str| {
            let text = xml::text(body, name).unwrap_or_default();
            let text: String = text.chars().take(MAX_SHOWN_CHARS).collect();
            text.escape_debug().to_string()
        };
        let (code, message) = (said("Code"), said("Message"));
        let passing = matches!(status.as_u16(), 408 | 409 | 429 | 500 | 502 | 503 | 504)
            || matches!(code.as_str(), "SlowDown" | "RequestTimeout" | "InternalError");
        if passing {
            let header = |name: header::HeaderName| headers.get(name)?.to_str().ok()?.parse().ok();
            let wait = header(header::RETRY_AFTER).map(Duration::from_secs);
            return Failed::Passing { why: format!("{status} {code}: {message}"), wait };
        }
        let at = self.place(ask.key);
        if status == StatusCode::NOT_FOUND && code != "NoSuchBucket" && !ask.key.is_empty() {
            return S3Error::Missing { at, code }.into();
        }
        let region = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let (method, hint) = (&ask.method, hint(status, &code, region));
        S3Error::Refused {
            status: status.as_u16(),
            what: format!("{method} {at}: {} {code}: {message} (hint: {hint})", status.as_u16()),
        }
        .into()
    }
}

/// What to do about a refusal.
fn hint(status: StatusCode, code: &str, region: Option<&str>) -> String {
    let fixed = match (status.as_u16(), code) {
        (_, "NoSuchBucket") => "make the bucket, or correct `archive.bucket`",
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken") => {
            "look at the files that `archive.access_key_file`, `secret_key_file` and `session_token_file` name"
        }
        (_, "RequestTimeTooSkewed") => "set this machine's clock",
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect")
        | (301 | 302 | 307, _) => {
            return match region {
                Some(region) => format!("write `region: {}`", region.escape_debug()),
                None => "correct `archive.region` or `archive.endpoint`".to_owned(),
            };
        }
        (_, "InvalidBucketState" | "ObjectLockConfigurationNotFoundError") => {
            "Object Lock is switched on where a bucket is made: make another, or remove `archive.lock`"
        }
        (400, "InvalidRequest") => {
            "is Object Lock switched on for the bucket, as `archive.lock` wants it?"
        }
        (501, _) | (_, "NotImplemented") => "this server does not know what is asked",
        (401 | 403, _) => {
            "let the key list the bucket and its versions and uploads, and get, put and delete objects below \
             `archive.prefix`; with `archive.lock` also get and put their retention"
        }
        _ => "look into the server's log",
    };
    fixed.to_owned()
}

/// The body, if it is not too long.
async fn read(answer: &mut reqwest::Response) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(broken)? {
        if body.len() + part.len() > MAX_ANSWER_BYTES {
            let why = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
            return Err(Failed::Passing { why, wait: None });
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, RetainError> {
    let pem = std::fs::read(path).map_err(io(path))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).ok();
    certificates.filter(|all| !all.is_empty()).ok_or_else(|| {
        let what = format!("{} (`archive.ca_file`) holds no certificate (PEM)", path.display());
        S3Error::Setup(what).into()
    })
}
