//! The certificate by which an agent shows itself to a collector that signs such.
//!
//! **Files.** `tls-<output>.pem` in the data directory, mode 0600: certificate and key together, so that they are always of one
//! pair. The key (P-256) is made here, for each certificate a new one, and goes nowhere.
//!
//! **Life.** Asked for at enrolment, or with the agent's token where it enrolled before the collector signed; shown on every
//! connection; replaced when two thirds of its time are over, while blocks are on their way. What cannot be replaced is used
//! until it ends, and is asked for again and again meanwhile. One that has ended, or that the collector does not take (it has
//! a new authority), is not shown any more, and a new one is asked for without it: the agent's token and key are what counts.
//!
//! **When not.** Plain HTTP; a certificate of the operator's in the configuration; a collector that signs none (404): it is
//! asked again after an hour.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use custody_config::shell::x509::{self, Dates};
use custody_event::ids::push_hex;
use custody_event::{Digest, Timestamp};
use custody_evidence::base64;
use custody_evidence::claim::{Claim, Proof};
use custody_evidence::whole::{PRIVATE, write_whole};
use reqwest::{Client, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::custody::{CustodyOutput, Identity};
use super::request::{explain, said_in};
use crate::rotation::Rotations;

/// A collector that signs none is asked again after this; and so often it is looked whether the time has come, whatever the
/// clock does.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// After a failure the next attempt comes after a tenth of what is left, but not sooner and not later than these.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// PEM lines (RFC 7468).
const PEM_LINE: usize = 64;

/// Makes a client that shows this certificate (with its key, PEM), or none.
pub type Connect = Arc<dyn Fn(Option<&[u8]>) -> Result<Client, String> + Send + Sync>;

/// Where the certificate of one output is kept, and how connections are made that show it.
#[derive(Clone)]
pub struct CertificateStore {
    /// The file.
    pub path: PathBuf,
    /// Makes clients.
    pub connect: Connect,
}

impl std::fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Where an output's certificate is kept.
#[must_use]
pub fn kept_in(data_dir: &Path, output: &str) -> PathBuf {
    data_dir.join(format!("tls-{output}.pem"))
}

/// A key that a certificate is asked for.
pub(super) struct NewKey {
    /// PKCS #8 in PEM.
    pem: String,
    /// The public point, hex.
    pub(super) public: String,
}

impl NewKey {
    pub(super) fn make() -> Result<Self, String> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let failed = |_| "no key for a certificate could be made".to_owned();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)
            .map_err(|error| format!("no key for a certificate could be made: {error}"))?;
        let mut public = Vec::new();
        push_hex(pair.public_key().as_ref(), &mut public);
        Ok(Self {
            pem: pem_of("PRIVATE KEY", pkcs8.as_ref()),
            // Hex is ASCII.
            public: String::from_utf8(public).unwrap_or_default(),
        })
    }
}

fn pem_of(label: &str, bytes: &[u8]) -> String {
    let text = base64::encode(bytes);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(PEM_LINE) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// The dates of the certificate in a kept file.
fn dates_of(pem: &[u8]) -> Option<Dates> {
    x509::dates(&CertificateDer::from_pem_slice(pem).ok()?)
}

impl CertificateStore {
    /// What is kept, if it is whole, with its dates.
    fn read(&self) -> Result<Option<(Vec<u8>, Dates)>, String> {
        match std::fs::read(&self.path) {
            Ok(pem) => {
                let dates = dates_of(&pem);
                if dates.is_none() {
                    log::warn!(
                        "{} holds no certificate: a new one is asked for",
                        self.path.display()
                    );
                }
                Ok(dates.map(|dates| (pem, dates)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }

    /// A client that shows what is kept if it has not ended, and the dates of that.
    ///
    /// # Errors
    /// The file cannot be read, or no client can be made.
    pub fn client(&self, now: Timestamp) -> Result<(Client, Option<Dates>), String> {
        match self.read()?.filter(|(_, dates)| now < dates.not_after) {
            Some((pem, dates)) => Ok(((self.connect)(Some(&pem))?, Some(dates))),
            None => Ok(((self.connect)(None)?, None)),
        }
    }

    /// Keeps a certificate with its key, durably and mode 0600.
    pub(super) fn keep(&self, certificate: &str, key: &NewKey) -> Result<(), String> {
        if dates_of(certificate.as_bytes()).is_none() {
            return Err("the collector sent a certificate that cannot be read".into());
        }
        let both = [certificate.trim_end(), "\n", &key.pem].concat();
        write_whole(&self.path, both.as_bytes(), PRIVATE).map_err(|error| {
            format!("cannot keep the certificate in {}: {error}", self.path.display())
        })
    }
}

/// The claim that the agent makes under a token, by its key of now and the statements that lead to it.
pub(super) fn proof(
    identity: &Identity,
    token: &str,
    tls_key: &str,
    rotations: &Rotations,
    output: &str,
) -> Proof {
    let claim = Claim {
        agent: identity.who.agent,
        bearer: Digest::of(token.as_bytes()),
        host: &identity.who.host_id,
        tls_key,
    };
    claim.prove(&identity.who.key, &rotations.all_pending(output))
}

/// How the certificate that is shown stands.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Those of the one that is shown.
    dates: Option<Dates>,
    /// Before this (monotonic) none is asked for.
    not_before: Option<Duration>,
}

impl Standing {
    pub(super) fn of(dates: Option<Dates>) -> Self {
        Self { dates, not_before: None }
    }

    /// How long it is until one must be asked for.
    fn due_in(&self, now: Timestamp, monotonic: Duration) -> Duration {
        let held_back = self.not_before.map_or(Duration::ZERO, |at| at.saturating_sub(monotonic));
        let due = self.dates.map_or(Duration::ZERO, |dates| {
            let life = dates.not_after.micros() - dates.not_before.micros();
            let left = dates.not_before.micros() + life / 3 * 2 - now.micros();
            Duration::from_micros(u64::try_from(left).unwrap_or_default())
        });
        due.max(held_back).min(LOOK_EVERY)
    }

    fn retry_after(&self, now: Timestamp) -> Duration {
        let left = self.dates.map_or(0, |dates| (dates.not_after.micros() - now.micros()) / 10);
        let wait = Duration::from_micros(u64::try_from(left).unwrap_or_default());
        wait.clamp(RETRY.0, RETRY.1)
    }
}

#[derive(Serialize)]
struct Request<'a> {
    tls_key: &'a str,
    proof: Proof,
}

#[derive(Deserialize)]
struct Granted {
    certificate: String,
}

/// Why there is no new certificate.
enum NotGranted {
    /// This collector signs none.
    None,
    /// It does not know the key that signed the claim.
    KeyUnknown(String),
    /// The collector cannot be reached, which delivery tells better.
    Unreachable(String),
    /// Anything else.
    Failed(String),
}

impl CustodyOutput {
    /// Completes when a certificate must be asked for; never where none is.
    pub(super) async fn certificate_due(&self) {
        // Only what is shown under TLS is worth a certificate.
        if self.settings.certificates.is_none() || !self.endpoint().starts_with("https:") {
            return std::future::pending().await;
        }
        let wait = self.certificate.due_in(self.clock.now(), self.clock.monotonic());
        // At once where the time has come: under load whoever waits for this asks anew with each answer.
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks for a certificate where there is none, or two thirds of its time are over. Delivery goes on with the old one
    /// where that fails.
    pub(super) async fn ensure_certificate(&mut self, token: &str) {
        let Some(store) = self.settings.certificates.clone() else { return };
        let now = self.clock.monotonic();
        if !self.endpoint().starts_with("https:") {
            return;
        }
        if !self.certificate.due_in(self.clock.now(), now).is_zero() {
            return;
        }
        let mut granted = self.ask_for_certificate(&store, token).await;
        if let Err(NotGranted::KeyUnknown(_)) = granted
            && self.settings.keys.rewind(&self.settings.id).is_ok()
        {
            granted = self.ask_for_certificate(&store, token).await;
        }
        let wait = match granted {
            Ok(()) => return self.show_kept(&store),
            Err(NotGranted::None) => LOOK_EVERY,
            Err(NotGranted::Unreachable(why)) => {
                log::debug!("no new certificate: {why}");
                self.certificate.retry_after(self.clock.now())
            }
            Err(NotGranted::KeyUnknown(why) | NotGranted::Failed(why)) => {
                self.trouble("no new certificate of this agent's", &why);
                self.certificate.retry_after(self.clock.now())
            }
        };
        self.certificate.not_before = Some(now + wait);
    }

    /// From the next connection on, what is kept is shown.
    pub(super) fn show_kept(&mut self, store: &CertificateStore) {
        match store.client(self.clock.now()) {
            Ok((client, dates)) => {
                if let Some(dates) = dates {
                    log::info!(output = self.settings.id.as_str(), until:% = dates.not_after; "this agent has a certificate by the collector");
                }
                self.client = client;
                self.certificate = Standing::of(dates);
            }
            Err(why) => self.trouble("the kept certificate cannot be used", &why),
        }
    }

    /// The collector has refused a connection. Was it for the certificate? Then it is not shown any more, unless the agent
    /// is revoked: without it the answer would be the same.
    pub(super) fn heed_refusal(&mut self, said: &str) {
        const ALERTS: [&str; 6] = [
            "UnknownCA",
            "CertificateExpired",
            "CertificateUnknown",
            "BadCertificate",
            "UnsupportedCertificate",
            "DecryptError",
        ];
        let Some(store) = self.settings.certificates.clone() else { return };
        let alert = said.contains("fatal alert") && ALERTS.iter().any(|alert| said.contains(alert));
        if alert && self.certificate.dates.is_some() {
            self.drop_certificate(&store, said);
        }
    }

    /// The collector wants a certificate, or a newer one than this connection has shown.
    pub(super) fn renew_at_once(&mut self, said: &str) {
        if let Some(store) = self.settings.certificates.clone() {
            self.drop_certificate(&store, said);
        }
    }

    fn drop_certificate(&mut self, store: &CertificateStore, said: &str) {
        match (store.connect)(None) {
            Ok(client) => {
                log::warn!(output = self.settings.id.as_str(); "the collector does not take this agent's certificate, a new one is asked for: {said}");
                self.client = client;
                self.certificate = Standing::default();
            }
            Err(why) => self.trouble("no connection can be made", &why),
        }
    }

    async fn ask_for_certificate(
        &self,
        store: &CertificateStore,
        token: &str,
    ) -> Result<(), NotGranted> {
        let key = NewKey::make().map_err(NotGranted::Failed)?;
        let (keys, id) = (&self.settings.keys, &self.settings.id);
        let request = Request {
            tls_key: &key.public,
            proof: proof(&self.identity, token, &key.public, keys, id),
        };
        let failed = |error: &reqwest::Error| NotGranted::Unreachable(explain(error));
        let body = serde_json::to_vec(&request).map_err(|e| NotGranted::Failed(e.to_string()))?;
        let (endpoint, agent) = (self.endpoint(), self.identity.who.agent);
        let response = self
            .client
            .post(format!("{endpoint}/v1/agents/{agent}/certificate"))
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let status = response.status();
        let text = response.bytes().await.map_err(|error| failed(&error))?;
        match status {
            StatusCode::OK => {}
            // An older collector has no such route.
            StatusCode::NOT_FOUND => return Err(NotGranted::None),
            _ => {
                let (code, said) = said_in(&text);
                let said = format!("{status}: {said}");
                return Err(match code.as_deref() {
                    Some("key_unknown") => NotGranted::KeyUnknown(said),
                    _ => NotGranted::Failed(said),
                });
            }
        }
        let granted: Granted = serde_json::from_slice(&text)
            .map_err(|error| NotGranted::Failed(format!("the answer cannot be read: {error}")))?;
        store.keep(&granted.certificate, &key).map_err(NotGranted::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::Y2020.plus_micros(seconds * SECOND)
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_again_and_again_until_it_ends() {
        let dates = Dates { not_before: at(0), not_after: at(900) };
        let standing = Standing::of(Some(dates));
        assert_eq!(standing.due_in(at(0), Duration::ZERO), Duration::from_secs(600));
        assert_eq!(standing.due_in(at(599), Duration::ZERO), Duration::from_secs(1));
        assert_eq!(standing.due_in(at(600), Duration::ZERO), Duration::ZERO);
        assert_eq!(standing.due_in(at(9_000), Duration::ZERO), Duration::ZERO);
        assert_eq!(standing.retry_after(at(600)), Duration::from_secs(30));
        assert_eq!(standing.retry_after(at(899)), Duration::from_secs(1));
        assert_eq!(Standing::default().due_in(at(0), Duration::ZERO), Duration::ZERO);
        let held = Standing { dates: None, not_before: Some(Duration::from_secs(50)) };
        assert_eq!(held.due_in(at(0), Duration::from_secs(20)), Duration::from_secs(30));
        // A clock that was set back by years does not put it off for years.
        assert_eq!(standing.due_in(at(-9_000_000), Duration::ZERO), LOOK_EVERY);
    }

    #[test]
    fn a_key_is_kept_with_its_certificate_for_this_user_alone_and_no_two_are_alike() {
        use std::os::unix::fs::PermissionsExt as _;
        let (one, two) = (NewKey::make().unwrap(), NewKey::make().unwrap());
        assert_ne!(one.public, two.public);
        assert!(one.public.starts_with("04") && one.public.len() == 130);
        let certified = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = CertificateStore {
            path: kept_in(folder.path(), "central"),
            connect: Arc::new(|pem| match pem {
                Some(_) => Err("shown".to_owned()),
                None => Err("none".to_owned()),
            }),
        };
        assert_eq!(store.client(at(0)).err().as_deref(), Some("none"));
        assert!(store.keep("no certificate", &one).is_err());
        store.keep(&certified.cert.pem(), &one).unwrap();
        let mode = std::fs::metadata(&store.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(store.client(at(0)).err().as_deref(), Some("shown"));
        let text = std::fs::read(&store.path).unwrap();
        rustls_pki_types::PrivateKeyDer::from_pem_slice(&text).unwrap();
        // Years later it has ended.
        let late = at(4_000_000_000);
        assert_eq!(store.client(late.max(at(90_000_000_000))).err().as_deref(), Some("none"));
    }
}
