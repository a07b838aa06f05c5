//! Asking the identity provider: what it is (OpenID Connect Discovery 1.0), its keys, and a token
//! for a code (RFC 6749 section 4.1.3).

use std::time::Duration;

use custody_config::Endpoint;
use custody_config::collector::OidcConfig;
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::OidcError;
use super::jws::Jwk;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 256 * 1_024;
/// The provider's description is read again after this time.
const FRESH: Duration = Duration::from_secs(3_600);
/// After it could not be asked, nobody waits for it again within this time.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Keys that are not known are asked for no more often than this.
const KEYS_AGAIN: Duration = Duration::from_secs(60);
/// Keys that are looked at, at most.
const MAX_KEYS: usize = 64;

/// The provider's description of itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Token {
    id_token: String,
}

#[derive(Default)]
struct Kept {
    metadata: Option<(Metadata, Duration)>,
    /// When it could not be asked, last.
    failed: Option<Duration>,
    keys: Option<(Vec<Jwk>, Duration)>,
}

/// See the module.
pub(super) struct Provider {
    issuer: String,
    client_id: String,
    secret: String,
    http: Client,
    kept: Mutex<Kept>,
}

fn fault(what: impl std::fmt::Display) -> OidcError {
    OidcError::Provider(what.to_string())
}

/// An address of the provider whose answers can be believed.
fn address(text: &str) -> Result<Url, OidcError> {
    let url = Url::parse(text).map_err(|error| fault(format!("{text:?}: {error}")))?;
    let origin = url.origin().ascii_serialization();
    let safe = Endpoint::parse(&origin).is_ok_and(|at| at.is_secure() || at.is_loopback());
    if safe { Ok(url) } else { Err(fault(format!("{text:?} is not https"))) }
}

impl Metadata {
    pub(super) fn authorization(&self) -> Result<Url, OidcError> {
        address(&self.authorization_endpoint)
    }

    /// Does the provider want the secret in the body?
    fn wants_post(&self) -> bool {
        let has = |what: &str| self.token_endpoint_auth_methods_supported.iter().any(|m| m == what);
        has("client_secret_post") && !has("client_secret_basic")
    }
}

impl Provider {
    pub(super) fn new(config: &OidcConfig, secret: String) -> anyhow::Result<Self> {
        // Another part of the process may have been there first; then it is the same provider.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            issuer: config.issuer.get().clone(),
            client_id: config.client_id.get().clone(),
            secret,
            http,
            kept: Mutex::default(),
        })
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, OidcError> {
        let mut answer = request.send().await.map_err(|error| fault(error.without_url()))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| fault(error.without_url()))? {
            if bytes.len() + part.len() > MAX_ANSWER_BYTES {
                return Err(fault("its answer is too long"));
            }
            bytes.extend_from_slice(&part);
        }
        if !status.is_success() {
            return Err(fault(format!("it answers {status}")));
        }
        serde_json::from_slice(&bytes).map_err(|error| fault(format!("its answer: {error}")))
    }

    pub(super) async fn metadata(&self, now: Duration) -> Result<Metadata, OidcError> {
        let mut kept = self.kept.lock().await;
        if let Some((metadata, read)) = &kept.metadata
            && now.saturating_sub(*read) < FRESH
        {
            return Ok(metadata.clone());
        }
        if kept.failed.is_some_and(|failed| now.saturating_sub(failed) < ASK_AGAIN) {
            return Err(fault("it could not be asked; try again in a little while"));
        }
        let at = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let read = self.read(self.http.get(address(&at)?)).await;
        kept.failed = read.is_err().then_some(now);
        let metadata: Metadata = read?;
        if metadata.issuer != self.issuer {
            let other = metadata.issuer.escape_debug();
            return Err(fault(format!("it says that it is {other:?}; `oidc.issuer` must say so")));
        }
        kept.metadata = Some((metadata.clone(), now));
        Ok(metadata)
    }

    /// Its keys; `again`: one was not among them.
    pub(super) async fn keys(&self, now: Duration, again: bool) -> Result<Vec<Jwk>, OidcError> {
        let metadata = self.metadata(now).await?;
        let mut kept = self.kept.lock().await;
        let fresh = if again { KEYS_AGAIN } else { FRESH };
        if let Some((keys, read)) = &kept.keys
            && now.saturating_sub(*read) < fresh
        {
            return Ok(keys.clone());
        }
        let said: Keys = self.read(self.http.get(address(&metadata.jwks_uri)?)).await?;
        // A key of a kind that is not known is none, and no reason to do without the others.
        let keys = said.keys.into_iter().take(MAX_KEYS);
        let keys: Vec<Jwk> = keys.filter_map(|key| serde_json::from_value(key).ok()).collect();
        kept.keys = Some((keys.clone(), now));
        Ok(keys)
    }

    /// The ID token for a code.
    pub(super) async fn exchange(
        &self,
        code: &str,
        verifier: &str,
        redirect: &str,
        now: Duration,
    ) -> Result<String, OidcError> {
        let metadata = self.metadata(now).await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
            ("client_id", &self.client_id),
        ];
        let mut request = self.http.post(address(&metadata.token_endpoint)?);
        if metadata.wants_post() {
            form.push(("client_secret", &self.secret));
        } else {
            // Both are written as a form's values are (RFC 6749 section 2.3.1).
            let value = |text: &str| encoded(&[("", text)])[1..].to_owned();
            request = request.basic_auth(value(&self.client_id), Some(value(&self.secret)));
        }
        let request = request
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(http::header::ACCEPT, "application/json")
            .body(encoded(&form));
        self.read::<Token>(request).await.map(|token| token.id_token)
    }
}

/// Pairs as a form's body.
fn encoded(pairs: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("form:") else { return String::new() };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded_and_unsafe_addresses_refused() {
        assert_eq!(encoded(&[("a", "b c&d="), ("é", "")]), "a=b+c%26d%3D&%C3%A9=");
        assert_eq!(&encoded(&[("", "p:w d")])[1..], "p%3Aw+d");
        for good in ["https://id.example/x?y=1", "http://127.0.0.1:1/a", "http://localhost/a"] {
            address(good).unwrap();
        }
        for bad in ["http://id.example/", "ftp://127.0.0.1/", "file:///etc/passwd", "x", ""] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
