//! Lets requests in, or records that it did not.

use http::HeaderMap;

use super::permission::Permission;
use super::principal::{Authenticator, Principal, Standing};
use crate::own::{Act, Acts};
use crate::query::problem::Problem;

/// The token of an `Authorization` header.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who is known, and where it is told.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// Knows tokens.
    pub auth: &'a dyn Authenticator,
    /// Takes what was refused.
    pub acts: Option<&'a Acts>,
}

impl Gate<'_> {
    /// Who asks, whatever they may do; counted as one request of theirs.
    ///
    /// # Errors
    /// 429 where the account has asked too much, recorded once a minute. 401; a token that is over,
    /// revoked or a disabled user's is answered like an unknown one, and recorded by its name.
    pub fn known(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let principal = self.bearer_of(headers)?;
        if let Err(too_many) = self.auth.spend(&principal) {
            if too_many.first {
                self.denied(&principal, "too_many_requests");
            }
            return Err(Problem::too_fast(&too_many));
        }
        Ok(principal)
    }

    fn bearer_of(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let standing = bearer(headers).map(|token| self.auth.judge(token));
        match standing {
            Some(Standing::Good(principal)) => Ok(principal),
            Some(Standing::Lapsed(who, why)) => {
                self.tell(Act::Denied { who: Some(who), what: why.name().to_owned() });
                Err(Problem::unauthenticated())
            }
            Some(Standing::Unknown) => {
                self.tell(Act::Denied { who: None, what: "unknown_token".to_owned() });
                Err(Problem::unauthenticated())
            }
            None => Err(Problem::unauthenticated()),
        }
    }

    /// Who asks, if they may do this.
    ///
    /// # Errors
    /// 401, 403 or 429.
    pub fn admit(&self, headers: &HeaderMap, to: Permission) -> Result<Principal, Problem> {
        self.admit_all(headers, &[to])
    }

    /// Who asks, if they may do all of this.
    ///
    /// # Errors
    /// 401, 403 for the first that they may not, or 429.
    pub fn admit_all(&self, headers: &HeaderMap, to: &[Permission]) -> Result<Principal, Problem> {
        self.may(self.known(headers)?, to)
    }

    /// Who asked, if they still may do this: for an answer that goes on. It is no new request.
    ///
    /// # Errors
    /// 401 or 403.
    pub fn still(&self, headers: &HeaderMap, to: Permission) -> Result<Principal, Problem> {
        self.may(self.bearer_of(headers)?, &[to])
    }

    fn may(&self, principal: Principal, to: &[Permission]) -> Result<Principal, Problem> {
        match to.iter().find(|permission| !principal.may(**permission)) {
            None => Ok(principal),
            Some(missing) => {
                self.denied(&principal, missing.name());
                Err(Problem::forbidden(&principal.name, *missing))
            }
        }
    }

    /// Writes down that somebody who is known was refused something.
    pub fn denied(&self, who: &Principal, what: &str) {
        self.tell(Act::Denied { who: Some(who.name.clone()), what: what.to_owned() });
    }

    fn tell(&self, act: Act) {
        if let Some(acts) = self.acts {
            acts.record(act);
        }
    }
}
