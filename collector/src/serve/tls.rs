//! TLS from files: rustls with ring, TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
//!
//! Agents show a certificate that leads to the authority of agents, where they are asked for one; people and programs that
//! read with a token need none. A certificate that has ended, that is by another authority, or that is of a revoked agent
//! ends the handshake. No session is resumed where certificates are asked for: each connection shows its own, and time and
//! revocations hold for all.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use custody_config::shell::Clock;
use custody_event::{AgentId, Timestamp};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::TlsAcceptor;

use crate::authority::agent_of;

/// The certificates in force: new ones can take their place while connections are served with the old.
pub struct Certificates {
    acceptor: RwLock<TlsAcceptor>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// These.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self { acceptor: RwLock::new(TlsAcceptor::from(Arc::new(config))) }
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the next connection on.
    pub fn replace(&self, config: ServerConfig) {
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) =
            TlsAcceptor::from(Arc::new(config));
    }
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// The authority of agents.
    #[error("tls.client_ca_file: {0} (hint: the certificates of authorities, PEM, are expected)")]
    Clients(VerifierBuilderError),
    /// What rustls says to the whole.
    #[error("certificate {cert} and its key do not make a server: {source}")]
    Config {
        /// The certificate's file.
        cert: String,
        /// Why.
        source: rustls::Error,
    },
}

fn file_error(path: &Path, what: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.display().to_string(), what: what.to_string() }
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| file_error(path, error))?.collect();
    let found = found.map_err(|error| file_error(path, error))?;
    if found.is_empty() {
        return Err(file_error(path, "no certificate in it (PEM expected)"));
    }
    Ok(found)
}

/// Is this agent revoked?
pub type IsRevoked = Arc<dyn Fn(&AgentId) -> bool + Send + Sync>;

/// Which certificates of agents are good.
#[derive(Clone)]
pub struct Clients {
    /// They lead to one of these.
    pub roots: Vec<CertificateDer<'static>>,
    /// And are not of one of those.
    pub is_revoked: IsRevoked,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

/// An instant as rustls has it; what is before 1970 is 1970.
#[must_use]
pub fn unix_time(at: Timestamp) -> UnixTime {
    let seconds = u64::try_from(at.seconds()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// What judges certificates that lead to one of these.
///
/// # Errors
/// One of them is no authority's certificate.
pub fn verifier(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let mut store = RootCertStore::empty();
    // One that cannot be added leaves the store empty, which the builder refuses.
    store.add_parsable_certificates(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .allow_unauthenticated()
        .build()
}

/// The library's judgement, and that no revoked agent is let in.
struct Agents {
    inner: Arc<dyn ClientCertVerifier>,
    is_revoked: IsRevoked,
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Agents {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        match agent_of(end_entity) {
            Some(agent) if (self.is_revoked)(&agent) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::Revoked))
            }
            _ => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }
}

/// The collector's clock judges certificates as it judges everything else.
struct Now(Arc<dyn Clock>);

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Now").finish_non_exhaustive()
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

/// Builds the server's side. `key_pem` is the text of the key's file, `key_path` its name; agents are asked for a certificate
/// where it is said which are good.
///
/// # Errors
/// A file cannot be read or is not what it should be.
pub fn server_config(
    cert: &Path,
    key_path: &Path,
    key_pem: &str,
    clients: Option<Clients>,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, TlsError> {
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| file_error(key_path, format!("no private key (PEM expected): {error}")))?;
    let failed = |source| TlsError::Config { cert: cert.display().to_string(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_details(provider, Arc::new(Now(clock)))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let asks = clients.is_some();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(Clients { roots, is_revoked }) => {
            let inner = verifier(roots).map_err(TlsError::Clients)?;
            builder.with_client_cert_verifier(Arc::new(Agents { inner, is_revoked }))
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if asks {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}
