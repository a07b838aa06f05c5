//! Enrolment: the agent shows a token once and, by a signature, that it has its key; it gets a token of its own, and a
//! certificate where the collector signs such. No secret of the agent's leaves the host.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use custody_config::{Secret, SecretFile};
use custody_evidence::claim::Proof;
use custody_evidence::whole::{PRIVATE, write_whole};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};

use super::certificate::{CertificateStore, NewKey, proof};
use super::custody::Identity;
use super::request::{explain, said_in};
use crate::rotation::Rotations;

#[derive(Serialize)]
struct Request<'a> {
    agent: String,
    host: &'a str,
    hostname: &'a str,
    key: String,
    version: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tls_key: &'a str,
    proof: Proof,
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    certificate: Option<String>,
}

/// With what an agent enrols, beside the token.
#[derive(Debug, Clone, Copy)]
pub struct Bringing<'a> {
    /// Who it is.
    pub identity: &'a Identity,
    /// By which key the collector knows it.
    pub keys: &'a Rotations,
    /// The output.
    pub output: &'a str,
    /// Where the certificate is kept that the collector signs, if one is wanted.
    pub certificates: Option<&'a CertificateStore>,
}

/// Why an agent was not enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotEnrolled {
    /// The collector does not see from what was sent that the key is the agent's: it knows an older one.
    pub key_unknown: bool,
    /// For people.
    pub why: String,
}

impl From<String> for NotEnrolled {
    fn from(why: String) -> Self {
        Self { key_unknown: false, why }
    }
}

/// The token of one output: named in the configuration, or kept after enrolment.
#[derive(Debug, Clone)]
pub struct TokenStore {
    /// `token_file` of the configuration.
    pub configured: Option<SecretFile>,
    /// `enroll_token_file` of the configuration.
    pub enroll: Option<SecretFile>,
    /// Where the token is kept after enrolment.
    pub kept: PathBuf,
}

impl TokenStore {
    /// The token to use, if there is one already.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub fn current(&self) -> Result<Option<Arc<str>>, String> {
        if let Some(file) = &self.configured {
            return file
                .read()
                .map(|secret| Some(secret.expose().into()))
                .map_err(|e| e.to_string());
        }
        match File::open(&self.kept) {
            Ok(file) => {
                let mut text = String::new();
                file.take(4096)
                    .read_to_string(&mut text)
                    .map_err(|error| format!("{}: {error}", self.kept.display()))?;
                Ok(Some(text.trim().into()).filter(|text: &Arc<str>| !text.is_empty()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", self.kept.display())),
        }
    }

    /// Asks `endpoint` for a token and keeps it (mode 0600, durably), and the certificate before it. The enrolment token is
    /// `token`, or else the configured one.
    ///
    /// # Errors
    /// There is no enrolment token, the collector cannot be reached or refuses, or the token
    /// cannot be kept.
    pub async fn enroll(
        &self,
        client: &Client,
        endpoint: &str,
        bringing: Bringing<'_>,
        token: Option<&Secret>,
    ) -> Result<Arc<str>, NotEnrolled> {
        let (secret, from) = self.enrolment_token(token)?;
        // Only what is shown under TLS is worth a certificate.
        let wanted = bringing.certificates.filter(|_| endpoint.starts_with("https:"));
        let new_key = wanted.map(|_| NewKey::make()).transpose()?;
        let body = request(bringing, secret.expose(), new_key.as_ref())?;
        let response = client
            .post(format!("{endpoint}/v1/enroll"))
            .bearer_auth(secret.expose())
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .map_err(|error| explain(&error))?;
        let status = response.status();
        let text = response.bytes().await.map_err(|error| explain(&error))?;
        if status != StatusCode::OK {
            return Err(refusal(status, &text, &from));
        }
        let granted: Granted = serde_json::from_slice(&text)
            .map_err(|error| format!("the enrolment's answer cannot be read: {error}"))?;
        if let (Some(store), Some(pem), Some(key)) = (wanted, &granted.certificate, &new_key) {
            store.keep(pem, key)?;
        }
        let line = format!("{}\n", granted.token);
        write_whole(&self.kept, line.as_bytes(), PRIVATE).map_err(|error| {
            format!("cannot keep the token in {}: {error}", self.kept.display())
        })?;
        Ok(granted.token.into())
    }

    /// The token to enrol with, and where it is from.
    fn enrolment_token(&self, given: Option<&Secret>) -> Result<(Secret, String), String> {
        match (given, &self.enroll) {
            (Some(token), _) => Ok((token.clone(), "what was given".to_owned())),
            (None, Some(file)) => {
                let secret = file.read().map_err(|error| error.to_string())?;
                Ok((secret, file.path().display().to_string()))
            }
            (None, None) => {
                Err("the collector does not know this agent and no enroll_token_file is \
                    configured; custody-agent enroll, or name one under outputs, or a token_file"
                    .into())
            }
        }
    }
}

fn request(
    bringing: Bringing<'_>,
    token: &str,
    new_key: Option<&NewKey>,
) -> Result<Vec<u8>, String> {
    let Bringing { identity, keys, output, .. } = bringing;
    let tls_key = new_key.map_or("", |key| key.public.as_str());
    let known = keys.known_key(output);
    let request = Request {
        agent: identity.who.agent.to_hex(),
        host: &identity.who.host_id,
        hostname: &identity.hostname,
        key: known.unwrap_or_else(|| identity.who.key.public().to_hex()),
        version: env!("CARGO_PKG_VERSION"),
        tls_key,
        proof: proof(identity, token, tls_key, keys, output),
    };
    serde_json::to_vec(&request).map_err(|error| error.to_string())
}

fn refusal(status: StatusCode, text: &[u8], token: &str) -> NotEnrolled {
    let (code, detail) = said_in(text);
    NotEnrolled {
        key_unknown: code.as_deref() == Some("key_unknown"),
        why: format!("enrolment refused ({status}: {detail}); check the token in {token}"),
    }
}
