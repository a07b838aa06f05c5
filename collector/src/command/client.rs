//! Asking a running collector: where it is, with which token, and what its refusals mean.

use std::path::{Path, PathBuf};

use clap::Args;
use custody_config::Endpoint;
use custody_config::shell::{Exit, Failure};
use reqwest::{Method, Response, Url};
use serde::Deserialize;

use super::ConfigArgs;

/// Which collector is asked, and as whom.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The collector's address; without it, where the configuration says that it listens
    #[arg(long, value_name = "URL")]
    collector: Option<String>,
    /// The collector's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file that holds a token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The collector's data directory, where its admin.token is
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Trust only the certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// A collector that can be asked.
pub(crate) struct Client {
    base: Url,
    token: String,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl Client {
    /// The one that the arguments name.
    ///
    /// # Errors
    /// The configuration, the URL, the token or the certificates cannot be read.
    pub(crate) fn of(args: &ClientArgs) -> anyhow::Result<Self> {
        let whom = Whom::of(args)?;
        let base = Url::parse(&whom.url)
            .map_err(|error| Failure::because(Exit::Usage, "--collector is not a URL", error))?;
        Ok(Self { base, token: read_token(&whom.token_file)?, http: http(args)? })
    }

    /// The answer to `method path?pairs`, if it is a good one.
    ///
    /// # Errors
    /// The collector cannot be reached or refuses, with what to do.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        pairs: &[(&str, &str)],
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<Response> {
        let mut url = self
            .base
            .join(path)
            .map_err(|error| Failure::because(Exit::Usage, "--collector is not a URL", error))?;
        url.query_pairs_mut().extend_pairs(pairs);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    /// The answer to `GET path` with these headers, if it is a good one.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub(crate) async fn fetch(
        &self,
        path: &str,
        headers: &[(http::HeaderName, &str)],
    ) -> anyhow::Result<Response> {
        let url = self
            .base
            .join(path)
            .map_err(|error| Failure::because(Exit::Usage, "--collector is not a URL", error))?;
        let mut request = self.http.get(url).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = request.send().await?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    async fn refusal(&self, answer: Response) -> anyhow::Error {
        let status = answer.status();
        let exit = if status.as_u16() == 400 { Exit::Usage } else { Exit::Io };
        let text = match answer.text().await {
            Ok(text) => text,
            Err(error) => return self.unreachable(error).into(),
        };
        let said = serde_json::from_str::<Problem>(&text)
            .ok()
            .and_then(|problem| problem.detail.or(problem.title))
            .unwrap_or(text);
        Failure::new(exit, format!("{status}: {said}")).into()
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let what =
            format!("no collector answers at {} (is it running? is the URL right?)", self.base);
        Failure::because(Exit::Io, what, error)
    }
}

/// Where to ask, and with which token.
struct Whom {
    url: String,
    token_file: PathBuf,
}

impl Whom {
    fn of(args: &ClientArgs) -> Result<Self, Failure> {
        if let (Some(url), Some(token_file)) = (&args.collector, &args.token_file) {
            keeps_the_token(url)?;
            return Ok(Self { url: url.clone(), token_file: token_file.clone() });
        }
        let here = ConfigArgs {
            config: args.config.clone(),
            data_dir: args.data_dir.clone(),
            ..ConfigArgs::default()
        };
        let config = here.load()?.value;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let url =
            args.collector.clone().unwrap_or_else(|| format!("{scheme}://{}", config.listen.get()));
        keeps_the_token(&url)?;
        let token_file =
            args.token_file.clone().unwrap_or_else(|| config.data_dir.get().join("admin.token"));
        Ok(Self { url, token_file })
    }
}

/// The token goes out in the clear over plain HTTP: only to this machine.
fn keeps_the_token(url: &str) -> Result<(), Failure> {
    let endpoint = Endpoint::parse(url).map_err(|error| {
        Failure::new(Exit::Usage, format!("--collector {} (hint: {})", error.what, error.hint))
    })?;
    if endpoint.is_secure() || endpoint.is_loopback() {
        return Ok(());
    }
    let what =
        format!("--collector {url} would show the token to the network (hint: write https://)");
    Err(Failure::new(Exit::Usage, what))
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let what = format!(
            "cannot read the token {} (name one with --token-file or --data-dir)",
            path.display()
        );
        Failure::because(Exit::NoInput, what, error)
    })?;
    Ok(text.trim().to_owned())
}

fn http(args: &ClientArgs) -> anyhow::Result<reqwest::Client> {
    // Another part of the process may have been there first; then it is the same provider.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &args.ca_file {
        let pem = std::fs::read(path).map_err(|error| {
            Failure::because(Exit::NoInput, format!("cannot read {}", path.display()), error)
        })?;
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_nowhere_in_the_clear() {
        for good in ["http://127.0.0.1:8600", "http://localhost:1", "https://collector.example"] {
            keeps_the_token(good).unwrap();
        }
        for bad in ["http://collector.example:8600", "http://10.0.0.1", "ftp://localhost", "x"] {
            assert!(keeps_the_token(bad).is_err(), "{bad}");
        }
    }
}
