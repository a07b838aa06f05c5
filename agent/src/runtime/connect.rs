//! From configuration to connections: the HTTP client of an output, with its authority, certificate and proxy.

use std::path::Path;
use std::sync::Arc;

use custody_config::agent::CustodyOutputConfig;
use custody_config::shell::x509::Dates;
use custody_event::Timestamp;

use crate::outputs::{CertificateStore, Connect, kept_in};

/// The HTTP client of a custody output; it shows the configured certificate, if there is one.
///
/// # Errors
/// A file that it names cannot be read, or is not what it should be.
pub fn client(output: &CustodyOutputConfig) -> anyhow::Result<reqwest::Client> {
    client_showing(output, None)
}

/// The same; without a configured certificate it shows `kept` (certificate and key, PEM).
fn client_showing(
    output: &CustodyOutputConfig,
    kept: Option<&[u8]>,
) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("custody-agent/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .connect_timeout(output.timeout.duration().min(std::time::Duration::from_secs(10)))
        .timeout(output.timeout.duration());
    builder = match proxy(output)? {
        Some(proxy) => builder.proxy(proxy),
        // What a service's environment holds by chance is no configuration.
        None => builder.no_proxy(),
    };
    if let Some(file) = &output.tls.ca_file {
        let pem = std::fs::read(file.get()).map_err(|error| {
            file.problem(
                format!("{}: {error}", file.get().display()),
                "check the path and its mode",
            )
        })?;
        let certs = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
            file.problem(
                format!("{}: {error}", file.get().display()),
                "PEM certificates are expected",
            )
        })?;
        builder = builder.tls_certs_only(certs);
    }
    if let (Some(cert), Some(key)) = (&output.tls.cert_file, &output.tls.key_file) {
        let mut pem = std::fs::read(cert.get()).map_err(|error| {
            cert.problem(
                format!("{}: {error}", cert.get().display()),
                "check the path and its mode",
            )
        })?;
        pem.push(b'\n');
        pem.extend_from_slice(key.read()?.expose().as_bytes());
        builder = builder.identity(reqwest::Identity::from_pem(&pem)?);
    } else if let Some(pem) = kept {
        builder = builder.identity(reqwest::Identity::from_pem(pem)?);
    }
    Ok(builder.build()?)
}

/// The proxy on the way to an output.
fn proxy(output: &CustodyOutputConfig) -> anyhow::Result<Option<reqwest::Proxy>> {
    let Some(address) = &output.proxy else { return Ok(None) };
    let proxy = reqwest::Proxy::all(address.get().to_string())?;
    let (Some(user), Some(password)) = (&output.proxy_user, &output.proxy_password_file) else {
        return Ok(Some(proxy));
    };
    Ok(Some(proxy.basic_auth(user.get(), password.read()?.expose())))
}

/// Where the certificate is kept that the collector signs for this agent; none where the operator has given one, or
/// nothing is shown under TLS.
pub(super) fn certificates(
    output: &CustodyOutputConfig,
    data_dir: &Path,
) -> Option<CertificateStore> {
    let secure = output.endpoints.iter().any(|endpoint| endpoint.get().is_secure());
    if output.tls.cert_file.is_some() || !secure {
        return None;
    }
    let path = kept_in(data_dir, output.id.get());
    let output = output.clone();
    let connect: Connect =
        Arc::new(move |kept| client_showing(&output, kept).map_err(|error| format!("{error:#}")));
    Some(CertificateStore { path, connect })
}

/// The client of a running output, with the dates of the kept certificate that it shows.
pub(super) fn connection(
    output: &CustodyOutputConfig,
    data_dir: &Path,
    now: Timestamp,
) -> anyhow::Result<(reqwest::Client, Option<Dates>)> {
    match certificates(output, data_dir) {
        Some(store) => store.client(now).map_err(anyhow::Error::msg),
        None => Ok((client(output)?, None)),
    }
}
