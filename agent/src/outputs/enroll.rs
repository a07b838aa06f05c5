//! Enrolment: the agent shows a token once and gets its own; its key never leaves the host.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use custody_config::{Secret, SecretFile};
use custody_evidence::whole::{PRIVATE, write_whole};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};

use super::custody::Identity;
use super::request::explain;

#[derive(Serialize)]
struct Request<'a> {
    agent: String,
    host: &'a str,
    hostname: &'a str,
    key: String,
    version: &'static str,
}

#[derive(Deserialize)]
struct Granted {
    token: String,
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

    /// Asks `endpoint` for a token and keeps it (mode 0600, durably). The enrolment token is `token`, or else the configured
    /// one.
    ///
    /// # Errors
    /// There is no enrolment token, the collector cannot be reached or refuses, or the token
    /// cannot be kept.
    pub async fn enroll(
        &self,
        client: &Client,
        endpoint: &str,
        identity: &Identity,
        token: Option<&Secret>,
    ) -> Result<Arc<str>, String> {
        let (secret, from) = match (token, &self.enroll) {
            (Some(token), _) => (token.clone(), "what was given".to_owned()),
            (None, Some(file)) => {
                (file.read().map_err(|error| error.to_string())?, file.path().display().to_string())
            }
            (None, None) => {
                return Err("the collector does not know this agent and no enroll_token_file is \
                    configured; custody-agent enroll, or name one under outputs, or a token_file"
                    .into());
            }
        };
        let request = Request {
            agent: identity.agent.to_hex(),
            host: &identity.host_id,
            hostname: &identity.hostname,
            key: identity.public_key.clone(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
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
        let line = format!("{}\n", granted.token);
        write_whole(&self.kept, line.as_bytes(), PRIVATE).map_err(|error| {
            format!("cannot keep the token in {}: {error}", self.kept.display())
        })?;
        Ok(granted.token.into())
    }
}

fn refusal(status: StatusCode, text: &[u8], token: &str) -> String {
    let said: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
    let detail = said.get("detail").and_then(|detail| detail.as_str()).unwrap_or("no reason given");
    format!("enrolment refused ({status}: {detail}); check the token in {token}")
}
