//! Logins by an identity provider: OpenID Connect Core 1.0, authorization code flow with PKCE
//! (RFC 7636), for users who have been made here.
//!
//! # Life of a login
//! `GET /oidc/login` makes a state, a nonce and a verifier, seals them into a cookie ([`pending`]),
//! and sends the browser to the provider with the state. `GET /oidc/callback` takes it back once:
//! the browser must show the cookie, the code is exchanged for an ID token over the provider's own
//! address, and its signature, issuer, audience, times and nonce are checked. The claim that the
//! configuration names is the user's name; the user must be here and enabled. What the provider
//! says decides who somebody is, never what they may.
//!
//! # Limits
//! A login that is under way takes no memory here, and ends after [`pending::PENDING`]; an answer of the provider has at most
//! 256 KiB and 10 s; its addresses must be https, or this machine's. Its keys are read again when a
//! token names one that is not known, at most once a minute.

mod jws;
mod pending;
mod provider;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use custody_config::collector::OidcConfig;
use custody_event::Digest;
use http::StatusCode;
use reqwest::Url;
use serde::Deserialize;

use super::login::{LoggedIn, Logins};
use super::{random_secret, token_text, user_name};
use crate::query::problem::Problem;
use jws::JwsError;
use pending::{Pending, Pendings};
use provider::Provider;

/// How far the provider's clock may be from ours.
const SKEW_S: i64 = 60;
const VIA: &str = "sso";

/// Why a login by the provider came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// It cannot be reached, or its answer is not what it should be.
    #[error("the identity provider: {0}")]
    Provider(String),
    /// The way back is not that of a login which was begun here, in this browser.
    #[error("this login was not begun in this browser, or took too long; begin again")]
    State,
    /// The ID token is not believed.
    #[error("the identity provider's token is not believed: {0}")]
    Token(String),
    /// Nobody here has this name, or the user is disabled.
    #[error("the identity provider knows you, but you are no user here; ask an administrator")]
    NoUser,
    /// The provider or the user said no.
    #[error("the identity provider did not log you in")]
    Refused,
}

impl OidcError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Provider(_) => "provider",
            Self::State => "state",
            Self::Token(_) => "token",
            Self::NoUser => "no_user",
            Self::Refused => "refused",
        }
    }
}

impl From<&OidcError> for Problem {
    fn from(error: &OidcError) -> Self {
        let said = error.to_string();
        match error {
            OidcError::Provider(_) => Self::new(
                StatusCode::BAD_GATEWAY,
                "/problems/identity-provider",
                "Identity provider",
                said,
            ),
            _ => {
                Self::new(StatusCode::UNAUTHORIZED, "/problems/login-failed", "Login failed", said)
            }
        }
    }
}

/// Where a browser is sent.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The provider's page.
    pub url: String,
    /// The cookie's text.
    pub cookie: String,
}

/// See the module.
pub struct Oidc {
    config: OidcConfig,
    provider: Provider,
    pending: Pendings,
}

impl Oidc {
    /// With the provider that the configuration names, and the secret that goes with it.
    ///
    /// # Errors
    /// No HTTP client can be made, or the system gives no random numbers.
    pub fn new(config: OidcConfig, secret: String) -> anyhow::Result<Self> {
        let provider = Provider::new(&config, secret)?;
        Ok(Self { config, provider, pending: Pendings::new()? })
    }

    /// The provider's name for people: its host.
    #[must_use]
    pub fn name(&self) -> String {
        let issuer = Url::parse(self.config.issuer.get()).ok();
        issuer.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Begins a login that comes back to `next`.
    ///
    /// # Errors
    /// The provider cannot be asked.
    pub async fn begin(&self, next: &str, now: Duration) -> Result<Begun, OidcError> {
        let metadata = self.provider.metadata(now).await?;
        let fresh = || random_secret().map(|secret| token_text(&secret));
        let no_random = || OidcError::Provider("no random numbers".to_owned());
        let secrets = match (fresh(), fresh(), fresh()) {
            (Ok(state), Ok(nonce), Ok(verifier)) => [state, nonce, verifier],
            _ => return Err(no_random()),
        };
        let login = Pending::begin(secrets, next, now);
        let challenge = jws::encode(&Digest::of(login.verifier.as_bytes()).0);
        let mut url = metadata.authorization()?;
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", self.config.client_id.get()),
            ("redirect_uri", self.config.redirect_url.get()),
            ("scope", "openid email profile"),
            ("state", &login.state),
            ("nonce", &login.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let cookie = self.pending.seal(&login).ok_or_else(no_random)?;
        Ok(Begun { url: url.into(), cookie })
    }

    /// The user's name that the provider vouches for.
    async fn name_of(
        &self,
        code: &str,
        login: &Pending,
        (now, now_s): (Duration, i64),
    ) -> Result<String, OidcError> {
        let redirect = self.config.redirect_url.get();
        let token = self.provider.exchange(code, &login.verifier, redirect, now).await?;
        let keys = self.provider.keys(now, false).await?;
        let said = match jws::verified(&token, &keys) {
            Err(JwsError::NoKey) => jws::verified(&token, &self.provider.keys(now, true).await?),
            other => other,
        };
        let said = said.map_err(|error| OidcError::Token(error.to_string()))?;
        let claims: Claims = serde_json::from_slice(&said)
            .map_err(|error| OidcError::Token(format!("its claims: {error}")))?;
        claims.check(self.config.issuer.get(), self.config.client_id.get(), &login.nonce, now_s)?;
        claims.name(self.config.claim.get())
    }
}

impl Logins {
    /// Goes on with a login that has come back: `cookie` is what the browser shows of it. Gives the
    /// session, and where to go.
    ///
    /// # Errors
    /// 401, or 502 where the provider is at fault.
    pub async fn came_back(
        &self,
        code: Option<&str>,
        (state, cookie): (&str, Option<&str>),
        from: IpAddr,
    ) -> Result<(LoggedIn, String), Problem> {
        let Some(oidc) = &self.oidc else {
            return Err(Problem::not_found("no identity provider is configured"));
        };
        let now = self.clock.monotonic();
        let done = async {
            let login = cookie.and_then(|cookie| oidc.pending.take(cookie, state, now));
            let login = login.ok_or(OidcError::State)?;
            let code = code.ok_or(OidcError::Refused)?;
            let times = (now, self.clock.now().seconds());
            let name = oidc.name_of(code, &login, times).await?;
            let name = user_name(&name).map_err(|_| OidcError::NoUser)?;
            Ok((name, login.next))
        };
        let (name, next) =
            done.await.map_err(|error: OidcError| self.came_to_nothing(&error, from))?;
        match self.principal(&name).await? {
            Some(who) => Ok((self.session(who, None, from, VIA).await?, next)),
            None => Err(self.came_to_nothing(&OidcError::NoUser, from)),
        }
    }

    fn came_to_nothing(&self, error: &OidcError, from: IpAddr) -> Problem {
        log::warn!(error:% = error; "a login by the identity provider came to nothing");
        self.failed(None, from, VIA, error.reason());
        error.into()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What an ID token says (OpenID Connect Core 1.0, section 2).
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    azp: Option<String>,
    exp: i64,
    iat: i64,
    nonce: Option<String>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

impl Claims {
    /// Section 3.1.3.7.
    fn check(&self, issuer: &str, client: &str, nonce: &str, now_s: i64) -> Result<(), OidcError> {
        let for_us = match &self.aud {
            Audience::One(one) => one == client,
            Audience::Many(many) => many.iter().any(|one| one == client),
        };
        let many = matches!(&self.aud, Audience::Many(many) if many.len() > 1);
        let party = match &self.azp {
            Some(azp) => azp == client,
            None => !many,
        };
        let wrong = if self.iss != issuer {
            "it is of another issuer"
        } else if !for_us || !party {
            "it is for somebody else"
        } else if self.exp.saturating_add(SKEW_S) <= now_s {
            "its time is over"
        } else if self.iat.saturating_sub(SKEW_S) > now_s {
            "it comes from the future: check the clocks"
        } else if self.nonce.as_deref() != Some(nonce) {
            "it belongs to another login"
        } else {
            return Ok(());
        };
        Err(OidcError::Token(wrong.to_owned()))
    }

    fn name(&self, claim: &str) -> Result<String, OidcError> {
        let verified = self.others.get("email_verified");
        let verified = verified.is_some_and(|is| is == true || is == "true");
        if claim == "email" && !verified {
            return Err(OidcError::Token("its e-mail address is not verified".to_owned()));
        }
        let name = self.others.get(claim).and_then(serde_json::Value::as_str);
        name.map(str::to_owned)
            .ok_or_else(|| OidcError::Token(format!("it has no claim {claim:?}")))
    }
}
