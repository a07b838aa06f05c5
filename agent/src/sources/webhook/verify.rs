//! Who sent it: the vendors' schemes and general ones. Pure: a request in, a judgement out.
//!
//! Signatures are compared in constant time, with every secret that is configured; tokens by their
//! digests. Where a scheme signs a time, it must be within the tolerance of ours. Where it signs a
//! time and names no delivery, the signature itself names it, so that the same request does not
//! count twice within that time.

use custody_config::agent::{Encoding, Scheme, VerifyConfig};
use http::HeaderMap;
use ring::{hmac, signature};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::body::{form, from_base64, percent_decoded};

/// What is asked about a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What stands behind the `?` of its URL.
    pub query: Option<&'a str>,
    /// Its body, as it came.
    pub body: &'a [u8],
    /// Is it a GET?
    pub is_get: bool,
    /// Now, in seconds since 1970.
    pub now_s: i64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// The sender is who it says.
    Accepted {
        /// Its id for the delivery, if it has one.
        delivery: Option<String>,
        /// Its name for what happened, where that is not in the body.
        event: Option<String>,
    },
    /// A handshake: answer this, store nothing.
    Challenge {
        /// Of the answer.
        content_type: &'static str,
        /// The answer.
        body: String,
    },
    /// It is not.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// For machines.
    pub code: &'static str,
    /// For people.
    pub text: &'static str,
}

const UNSIGNED: Refusal =
    Refusal { code: "no_signature", text: "A request had no signature or token." };
const FORGED: Refusal =
    Refusal { code: "bad_signature", text: "A request's signature or token was not right." };
const STALE: Refusal = Refusal {
    code: "outside_window",
    text: "A request was signed too long ago, or too far ahead.",
};

enum Key {
    Hmac(hmac::Key),
    Token([u8; 32]),
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
}

/// Recognises the senders of one endpoint.
pub struct Verifier {
    config: VerifyConfig,
    keys: Vec<Key>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({:?}, {} secrets)", self.config.scheme, self.keys.len())
    }
}

impl Verifier {
    /// With the secrets of its files.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what the scheme needs.
    pub fn from_config(config: &VerifyConfig) -> anyhow::Result<Self> {
        let mut keys = Vec::new();
        for file in &config.secret_files {
            let secret = file.read()?;
            keys.push(key(config.scheme, secret.expose()).map_err(|what| {
                anyhow::Error::from(file.located().problem(
                    format!("{} {what}", file.path().display()),
                    "write the secret as the sender shows it",
                ))
            })?);
        }
        Ok(Self { config: config.clone(), keys })
    }

    /// With these secrets.
    ///
    /// # Errors
    /// One is not what the scheme needs.
    pub fn new(config: &VerifyConfig, secrets: &[&str]) -> Result<Self, &'static str> {
        let keys: Result<_, _> = secrets.iter().map(|secret| key(config.scheme, secret)).collect();
        Ok(Self { config: config.clone(), keys: keys? })
    }

    /// What events say of a request that was accepted.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self.config.scheme {
            Scheme::None => "unverified".to_owned(),
            scheme => format!("verified:{}", word(scheme)),
        }
    }

    /// Does the endpoint answer a GET?
    #[must_use]
    pub fn takes_get(&self) -> bool {
        self.config.scheme == Scheme::Okta
    }

    /// Judges a request.
    #[must_use]
    pub fn judge(&self, asked: &Asked<'_>) -> Judged {
        if let Some(challenge) = self.handshake(asked) {
            return challenge;
        }
        let found = match self.config.scheme {
            Scheme::Basic | Scheme::Bearer | Scheme::Okta => self.token(asked),
            Scheme::Github => self.hmac_header(asked, "x-hub-signature-256", "sha256=", from_hex),
            Scheme::Gitlab => self.gitlab(asked),
            Scheme::Hmac => self.generic(asked),
            Scheme::MicrosoftGraph => self.microsoft_graph(asked),
            Scheme::None => Ok(()),
            Scheme::Pagerduty => self.pagerduty(asked),
            Scheme::Sendgrid => self.sendgrid(asked),
            Scheme::Shopify => self.hmac_header(asked, "x-shopify-hmac-sha256", "", from_base64),
            Scheme::Slack => self.slack(asked),
            Scheme::StandardWebhooks => self.standard(asked),
            Scheme::Stripe => self.stripe(asked),
            Scheme::Twilio => self.twilio(asked),
        };
        match found {
            Err(refusal) => Judged::Refused(refusal),
            Ok(()) => self.accepted(asked),
        }
    }

    fn accepted(&self, asked: &Asked<'_>) -> Judged {
        if self.config.scheme == Scheme::Slack
            && let Ok(slack) = serde_json::from_slice::<Slack>(asked.body)
            && slack.kind.as_deref() == Some("url_verification")
            && let Some(body) = slack.challenge
        {
            return Judged::Challenge { content_type: "text/plain", body };
        }
        Judged::Accepted { delivery: self.delivery(asked), event: self.event(asked) }
    }

    /// Handshakes that come before anything is signed.
    fn handshake(&self, asked: &Asked<'_>) -> Option<Judged> {
        match self.config.scheme {
            Scheme::Okta if asked.is_get => {
                let challenge = text(asked, "x-okta-verification-challenge")?;
                let body = serde_json::json!({ "verification": challenge }).to_string();
                Some(Judged::Challenge { content_type: "application/json", body })
            }
            Scheme::MicrosoftGraph => {
                let token = asked.query?.split('&').find_map(|pair| {
                    pair.strip_prefix("validationToken=").map(|token| percent_decoded(token, true))
                })??;
                Some(Judged::Challenge { content_type: "text/plain", body: token })
            }
            _ => None,
        }
    }

    /// Is one of the tags that of the message, with one of the secrets? All are tried.
    fn signed(&self, message: &[u8], tags: &[Vec<u8>]) -> Result<(), Refusal> {
        let mut good = false;
        for key in &self.keys {
            let Key::Hmac(key) = key else { continue };
            for tag in tags {
                good |= hmac::verify(key, message, tag).is_ok();
            }
        }
        if good { Ok(()) } else { Err(FORGED) }
    }

    fn knows_token(&self, token: &[u8]) -> bool {
        let digest = Sha256::digest(token);
        let mut good = false;
        for key in &self.keys {
            if let Key::Token(known) = key {
                good |= bool::from(known.as_slice().ct_eq(digest.as_slice()));
            }
        }
        good
    }

    fn fresh(&self, written: &str, asked: &Asked<'_>) -> Result<(), Refusal> {
        let signed_s: i64 = written.parse().map_err(|_| STALE)?;
        let tolerance_s = i64::try_from(self.config.tolerance.duration().as_secs()).unwrap_or(300);
        match asked.now_s.checked_sub(signed_s).and_then(i64::checked_abs) {
            Some(apart) if apart <= tolerance_s => Ok(()),
            _ => Err(STALE),
        }
    }

    fn hmac_header(
        &self,
        asked: &Asked<'_>,
        header: &str,
        prefix: &str,
        decode: fn(&str) -> Option<Vec<u8>>,
    ) -> Result<(), Refusal> {
        let written = text(asked, header).ok_or(UNSIGNED)?;
        let tag = written.strip_prefix(prefix).and_then(decode).ok_or(FORGED)?;
        self.signed(asked.body, &[tag])
    }

    fn generic(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let decode = match self.config.encoding {
            Encoding::Hex => from_hex,
            Encoding::Base64 => from_base64,
        };
        self.hmac_header(asked, &self.config.header, &self.config.prefix, decode)
    }

    fn token(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let own = !self.config.header.is_empty() && self.config.scheme == Scheme::Bearer;
        let header = if own { self.config.header.as_str() } else { "authorization" };
        let written = text(asked, header).ok_or(UNSIGNED)?;
        let token = match self.config.scheme {
            Scheme::Basic => word_after(written, "basic").and_then(from_base64).ok_or(FORGED)?,
            Scheme::Bearer if !own => {
                word_after(written, "bearer").ok_or(FORGED)?.as_bytes().to_vec()
            }
            _ => written.as_bytes().to_vec(),
        };
        if self.knows_token(&token) { Ok(()) } else { Err(FORGED) }
    }

    fn gitlab(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        if asked.headers.contains_key("webhook-signature")
            && self.keys.iter().any(|key| matches!(key, Key::Hmac(_)))
        {
            return self.standard(asked);
        }
        let token = text(asked, "x-gitlab-token").ok_or(UNSIGNED)?;
        if self.knows_token(token.as_bytes()) { Ok(()) } else { Err(FORGED) }
    }

    fn pagerduty(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let written = text(asked, "x-pagerduty-signature").ok_or(UNSIGNED)?;
        let tags: Vec<_> = written
            .split(',')
            .filter_map(|part| part.trim().strip_prefix("v1=").and_then(from_hex))
            .collect();
        self.signed(asked.body, &tags)
    }

    fn slack(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let written = text(asked, "x-slack-signature").ok_or(UNSIGNED)?;
        let at = text(asked, "x-slack-request-timestamp").ok_or(UNSIGNED)?;
        let tag = written.strip_prefix("v0=").and_then(from_hex).ok_or(FORGED)?;
        let message = [b"v0:", at.as_bytes(), b":", asked.body].concat();
        self.signed(&message, &[tag])?;
        self.fresh(at, asked)
    }

    fn stripe(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let written = text(asked, "stripe-signature").ok_or(UNSIGNED)?;
        let (mut at, mut tags) = (None, Vec::new());
        for (key, value) in written.split(',').filter_map(|part| part.trim().split_once('=')) {
            match key {
                "t" => at = Some(value),
                "v1" => tags.extend(from_hex(value)),
                _ => {}
            }
        }
        let at = at.ok_or(FORGED)?;
        self.signed(&[at.as_bytes(), b".", asked.body].concat(), &tags)?;
        self.fresh(at, asked)
    }

    /// <https://www.standardwebhooks.com>: `v1` is HMAC-SHA256, `v1a` Ed25519.
    fn standard(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let name = |word: &str| {
            text(asked, &format!("webhook-{word}")).or_else(|| text(asked, &format!("svix-{word}")))
        };
        let (Some(id), Some(at), Some(written)) =
            (name("id"), name("timestamp"), name("signature"))
        else {
            return Err(UNSIGNED);
        };
        let message = [id.as_bytes(), b".", at.as_bytes(), b".", asked.body].concat();
        let (mut tags, mut signatures) = (Vec::new(), Vec::new());
        for part in written.split(' ') {
            match part.split_once(',') {
                Some(("v1", tag)) => tags.extend(from_base64(tag)),
                Some(("v1a", signature)) => signatures.extend(from_base64(signature)),
                _ => {}
            }
        }
        if self.signed(&message, &tags).is_err() && !self.publicly_signed(&message, &signatures) {
            return Err(FORGED);
        }
        self.fresh(at, asked)
    }

    fn publicly_signed(&self, message: &[u8], signatures: &[Vec<u8>]) -> bool {
        self.keys.iter().any(|key| {
            let (algorithm, key): (&dyn signature::VerificationAlgorithm, _) = match key {
                Key::Ed25519(key) => (&signature::ED25519, key),
                Key::P256(key) => (&signature::ECDSA_P256_SHA256_ASN1, key),
                Key::Hmac(_) | Key::Token(_) => return false,
            };
            let key = signature::UnparsedPublicKey::new(algorithm, key);
            signatures.iter().any(|signature| key.verify(message, signature).is_ok())
        })
    }

    fn sendgrid(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let written = text(asked, SENDGRID_SIGNATURE).ok_or(UNSIGNED)?;
        let at = text(asked, "x-twilio-email-event-webhook-timestamp").ok_or(UNSIGNED)?;
        let signature = from_base64(written).ok_or(FORGED)?;
        if !self.publicly_signed(&[at.as_bytes(), asked.body].concat(), &[signature]) {
            return Err(FORGED);
        }
        self.fresh(at, asked)
    }

    fn twilio(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let tag = text(asked, "x-twilio-signature").ok_or(UNSIGNED)?;
        let tag = from_base64(tag).ok_or(FORGED)?;
        let mut message = self.config.url.clone();
        if let Some(query) = asked.query.filter(|query| !query.is_empty()) {
            message.push('?');
            message.push_str(query);
        }
        if is_form(asked) {
            let mut fields = form(asked.body).ok_or(FORGED)?;
            fields.sort();
            fields.dedup();
            for (key, value) in fields {
                message.push_str(&key);
                message.push_str(&value);
            }
        } else if !asked.body.is_empty() && !has_body_digest(asked) {
            return Err(FORGED);
        }
        self.signed(message.as_bytes(), &[tag])
    }

    fn microsoft_graph(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let graph: Graph = serde_json::from_slice(asked.body).map_err(|_| UNSIGNED)?;
        let mut good = !graph.value.is_empty();
        for change in &graph.value {
            good &= self.knows_token(change.client_state.as_deref().unwrap_or_default().as_bytes());
        }
        if good { Ok(()) } else { Err(FORGED) }
    }

    fn delivery(&self, asked: &Asked<'_>) -> Option<String> {
        let own = |name: &str| text(asked, name).map(str::to_owned);
        if !self.config.id_header.is_empty()
            && let Some(id) = own(&self.config.id_header)
        {
            return Some(id);
        }
        let signature = |name: &str| own(name).map(|text| format!("signature {text}"));
        match self.config.scheme {
            Scheme::Github => own("x-github-delivery"),
            Scheme::Gitlab => own("webhook-id").or_else(|| own("idempotency-key")),
            Scheme::Shopify => own("x-shopify-webhook-id"),
            Scheme::StandardWebhooks => own("webhook-id").or_else(|| own("svix-id")),
            Scheme::Slack => serde_json::from_slice::<Slack>(asked.body)
                .ok()
                .and_then(|slack| slack.event_id)
                .or_else(|| signature("x-slack-signature")),
            Scheme::Stripe => body_id(asked.body).or_else(|| signature("stripe-signature")),
            Scheme::Pagerduty => {
                serde_json::from_slice::<PagerDuty>(asked.body).ok().map(|body| body.event.id)
            }
            Scheme::Okta => serde_json::from_slice::<Okta>(asked.body).ok().map(|okta| okta.id),
            Scheme::Twilio => own("i-twilio-idempotency-token"),
            Scheme::Sendgrid => signature(SENDGRID_SIGNATURE),
            Scheme::Basic
            | Scheme::Bearer
            | Scheme::Hmac
            | Scheme::MicrosoftGraph
            | Scheme::None => None,
        }
    }

    fn event(&self, asked: &Asked<'_>) -> Option<String> {
        let header = match self.config.scheme {
            Scheme::Github => "x-github-event",
            Scheme::Gitlab => "x-gitlab-event",
            Scheme::Shopify => "x-shopify-topic",
            _ => return None,
        };
        text(asked, header).map(str::to_owned)
    }
}

const SENDGRID_SIGNATURE: &str = "x-twilio-email-event-webhook-signature";

#[derive(Deserialize)]
struct Slack {
    #[serde(rename = "type")]
    kind: Option<String>,
    challenge: Option<String>,
    event_id: Option<String>,
}

#[derive(Deserialize)]
struct WithId {
    id: String,
}

#[derive(Deserialize)]
struct PagerDuty {
    event: WithId,
}

#[derive(Deserialize)]
struct Okta {
    #[serde(rename = "eventId")]
    id: String,
}

#[derive(Deserialize)]
struct Graph {
    value: Vec<GraphChange>,
}

#[derive(Deserialize)]
struct GraphChange {
    #[serde(rename = "clientState")]
    client_state: Option<String>,
}

fn body_id(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<WithId>(body).ok().map(|body| body.id)
}

fn text<'a>(asked: &Asked<'a>, name: &str) -> Option<&'a str> {
    let mut values = asked.headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    // Which of two would be the right one?
    values.next().is_none().then_some(first)
}

fn word_after<'a>(written: &'a str, scheme: &str) -> Option<&'a str> {
    let (word, rest) = written.split_once(' ')?;
    word.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

pub(super) fn is_form(asked: &Asked<'_>) -> bool {
    text(asked, "content-type")
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

/// Twilio signs a body that is no form by its digest in the URL.
fn has_body_digest(asked: &Asked<'_>) -> bool {
    let mut hex = Vec::new();
    custody_event::ids::push_hex(&Sha256::digest(asked.body), &mut hex);
    asked
        .query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.strip_prefix("bodySHA256="))
        .any(|written| written.as_bytes() == hex)
}

fn from_hex(written: &str) -> Option<Vec<u8>> {
    custody_event::ids::parse_hex::<32>(written).map(|tag| tag.to_vec())
}

fn key(scheme: Scheme, secret: &str) -> Result<Key, &'static str> {
    let hmac256 = |bytes: &[u8]| Key::Hmac(hmac::Key::new(hmac::HMAC_SHA256, bytes));
    Ok(match scheme {
        Scheme::Basic | Scheme::Bearer | Scheme::MicrosoftGraph | Scheme::None | Scheme::Okta => {
            Key::Token(Sha256::digest(secret.as_bytes()).into())
        }
        Scheme::Gitlab if !secret.starts_with("whsec_") => {
            Key::Token(Sha256::digest(secret.as_bytes()).into())
        }
        Scheme::Gitlab | Scheme::StandardWebhooks => match secret.strip_prefix("whpk_") {
            Some(public) => Key::Ed25519(from_base64(public).ok_or("is not base64")?),
            None => {
                let secret = secret.strip_prefix("whsec_").unwrap_or(secret);
                hmac256(&from_base64(secret).ok_or("is not base64 after `whsec_`")?)
            }
        },
        Scheme::Sendgrid => Key::P256(p256_point(secret).ok_or("is not a P-256 public key")?),
        Scheme::Twilio => {
            Key::Hmac(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes()))
        }
        Scheme::Github
        | Scheme::Hmac
        | Scheme::Pagerduty
        | Scheme::Shopify
        | Scheme::Slack
        | Scheme::Stripe => hmac256(secret.as_bytes()),
    })
}

/// The point at the end of a SubjectPublicKeyInfo (RFC 5480) for P-256, whose DER is always 91 bytes.
fn p256_point(written: &str) -> Option<Vec<u8>> {
    const HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08,
        0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let der = from_base64(written)?;
    let point = der.strip_prefix(&HEAD)?;
    (point.len() == 65).then(|| point.to_vec())
}

const fn word(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Basic => "basic",
        Scheme::Bearer => "bearer",
        Scheme::Github => "github",
        Scheme::Gitlab => "gitlab",
        Scheme::Hmac => "hmac",
        Scheme::MicrosoftGraph => "microsoft_graph",
        Scheme::None => "none",
        Scheme::Okta => "okta",
        Scheme::Pagerduty => "pagerduty",
        Scheme::Sendgrid => "sendgrid",
        Scheme::Shopify => "shopify",
        Scheme::Slack => "slack",
        Scheme::StandardWebhooks => "standard_webhooks",
        Scheme::Stripe => "stripe",
        Scheme::Twilio => "twilio",
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
