//! `oidc`: an identity provider (OpenID Connect Core 1.0, authorization code flow with PKCE).

use std::path::Path;

use serde::Serialize;

use crate::endpoint::Endpoint;
use crate::place::Located;
use crate::secret::{SecretFile, secret_file};
use crate::section::Section;
use crate::units::UnitError;

/// The identity provider that users of the page may log in with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OidcConfig {
    /// Its issuer identifier, to which `/.well-known/openid-configuration` is added.
    pub issuer: Located<String>,
    /// Who the collector is to it.
    pub client_id: Located<String>,
    /// The secret that goes with it.
    pub client_secret_file: SecretFile,
    /// The collector's own address as browsers see it, ending in `/oidc/callback`.
    pub redirect_url: Located<String>,
    /// Which claim of the ID token is the user's name here.
    pub claim: Located<String>,
}

pub(super) fn oidc(mut section: Section<'_>, credentials: Option<&Path>) -> Option<OidcConfig> {
    for key in ["issuer", "client_id", "client_secret_file", "redirect_url"] {
        section.must_have(key);
    }
    let issuer = section.parsed("issuer", url);
    let client_id = section.text("client_id");
    let client_secret_file = secret_file(&mut section, "client_secret_file", credentials);
    let redirect_url = section.parsed("redirect_url", callback);
    let claim = section.text("claim");
    section.finish();
    Some(OidcConfig {
        issuer: issuer?,
        client_id: client_id?,
        client_secret_file: client_secret_file?,
        redirect_url: redirect_url?,
        claim: claim.unwrap_or_else(|| Located::default_of("email".to_owned())),
    })
}

/// An address whose answers can be believed: https, or this machine.
pub(super) fn url(text: &str) -> Result<String, UnitError> {
    let wrong = |what: String, hint: &str| UnitError { what, hint: hint.to_owned() };
    let shown = text.escape_debug();
    let after = text.find("://").map_or(0, |at| at + 3);
    let path = text[after..].find('/').map_or(text.len(), |at| after + at);
    if text.contains(['?', '#']) || text.contains(char::is_whitespace) {
        let what = format!("`{shown}` has more than a path");
        return Err(wrong(what, "write https://id.example.org/path"));
    }
    let endpoint = Endpoint::parse(&text[..path])?;
    if endpoint.is_secure() || endpoint.is_loopback() {
        return Ok(text.to_owned());
    }
    Err(wrong(format!("`{shown}` could be read and changed on the way"), "write https://"))
}

fn callback(text: &str) -> Result<String, UnitError> {
    let text = url(text)?;
    if text.ends_with("/oidc/callback") {
        return Ok(text);
    }
    Err(UnitError {
        what: format!("`{}` is not where the collector waits", text.escape_debug()),
        hint: "write https://collector.example.org:8600/oidc/callback".to_owned(),
    })
}
