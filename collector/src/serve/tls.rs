//! TLS from files: rustls with ring, TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
//!
//! Where a client CA is configured, agents must show a certificate that leads to it; people and
//! programs that read with a token need none.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

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

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| file_error(path, error))?.collect();
    let found = found.map_err(|error| file_error(path, error))?;
    if found.is_empty() {
        return Err(file_error(path, "no certificate in it (PEM expected)"));
    }
    Ok(found)
}

/// Builds the server's side. `key_pem` is the text of the key's file, `key_path` its name.
///
/// # Errors
/// A file cannot be read or is not what it should be.
pub fn server_config(
    cert: &Path,
    key_path: &Path,
    key_pem: &str,
    client_ca: Option<&Path>,
) -> Result<ServerConfig, TlsError> {
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| file_error(key_path, format!("no private key (PEM expected): {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |source| TlsError::Config { cert: cert.display().to_string(), source };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for ca in certificates(path)? {
                roots.add(ca).map_err(|error| file_error(path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| file_error(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
