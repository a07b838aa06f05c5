//! TLS for sources that listen: rustls with ring, TLS 1.2 and 1.3, certificate and key from files.
//!
//! Where a client CA is configured, every sender must show a certificate that leads to it.

use std::path::Path;
use std::sync::Arc;

use custody_config::agent::ServerTls;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Builds the server's side. `protocols` are offered by ALPN.
///
/// # Errors
/// A file cannot be read or is not what it should be: with its name.
pub fn server_config(tls: &ServerTls, protocols: &[&str]) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = certificates(tls.cert_file.get())?;
    let key_path = tls.key_file.path().display();
    let key = tls.key_file.read()?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|error| anyhow::anyhow!("{key_path}: no private key (PEM expected): {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for ca in certificates(path.get())? {
                roots.add(ca)?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        anyhow::anyhow!(
            "{} and its key do not make a server: {error}",
            tls.cert_file.get().display()
        )
    })?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let named = |error| anyhow::anyhow!("{}: {error}", path.display());
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(named)?.collect();
    let found = found.map_err(named)?;
    anyhow::ensure!(!found.is_empty(), "{}: no certificate in it (PEM expected)", path.display());
    Ok(found)
}
