//! Who asks, and what of the events they get to see.

use std::sync::Arc;

use custody_event::{EventView, Timestamp};
use serde::{Deserialize, Serialize};

use super::pace::TooMany;
use super::permission::{Permission, Permissions};
use super::scope::Scope;
use super::sight::Sight;
use crate::query::filter::{Expr, Filter};

/// What kind of account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A person.
    User,
    /// A program, or a person with a token.
    Token,
}

/// A person or program that reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user's or the token's name, for the record of what was done.
    pub name: String,
    /// What they may do.
    pub permissions: Permissions,
    /// User or token.
    pub kind: Kind,
    /// The user who answers for it: of a token, the one who made it.
    pub owner: Option<String>,
    /// The role's name.
    pub role: String,
    /// What they see; an event must be within all of these.
    pub scopes: Arc<[Scope]>,
    /// When the token or session ends.
    pub expires: Option<Timestamp>,
    /// Since when the account stands as it is: when the user was made, or the password set last;
    /// of a token without an owner, when it was made.
    pub since: Timestamp,
}

impl Principal {
    /// A token with these permissions and no bound on what it sees.
    #[must_use]
    pub fn new(name: impl Into<String>, permissions: Permissions) -> Self {
        Self {
            name: name.into(),
            permissions,
            kind: Kind::Token,
            owner: None,
            role: String::new(),
            scopes: Arc::new([]),
            expires: None,
            since: Timestamp::MIN,
        }
    }

    /// May they do this?
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.has(permission)
    }

    /// Do they see all events, of every tenant, host and category?
    #[must_use]
    pub fn sees_all(&self) -> bool {
        self.scopes.iter().all(Scope::is_all)
    }

    /// Which parts of an event they see.
    #[must_use]
    pub fn sight(&self) -> Sight {
        Sight { raw: self.may(Permission::ViewRaw), sensitive: self.may(Permission::ViewSensitive) }
    }

    /// The filter, narrowed to what they may see. Every question to the index goes through this.
    #[must_use]
    pub fn narrow(&self, filter: Filter) -> Filter {
        let mut all: Vec<Expr> = self.scopes.iter().filter_map(Scope::expr).collect();
        let expr = if all.is_empty() {
            filter.expr
        } else {
            all.push(filter.expr);
            Expr::All(all)
        };
        Filter { expr, sight: filter.sight.and(self.sight()), ..filter }
    }

    /// Is this event within what they may see?
    #[must_use]
    pub fn sees(&self, event: &EventView<'_>) -> bool {
        self.scopes.iter().all(|scope| scope.sees(event))
    }

    /// Who is accountable: two principals with one name here are one person.
    #[must_use]
    pub fn accountable(&self) -> &str {
        self.owner.as_deref().unwrap_or(&self.name)
    }

    /// May they approve what `requester` (an [`Self::accountable`]) has asked for? Nobody approves
    /// their own request, by whichever of their tokens, whatever their role. Removing a person's
    /// data goes through this.
    #[must_use]
    pub fn may_approve(&self, permission: Permission, requester: &str) -> bool {
        self.may(permission) && !self.accountable().eq_ignore_ascii_case(requester)
    }
}

/// Why a token or session that is known is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its user is disabled or gone.
    Disabled,
}

impl Lapse {
    /// As it is written in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
        }
    }
}

/// What a shown token is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is this reader's.
    Good(Principal),
    /// It was this account's.
    Lapsed(String, Lapse),
    /// It is nobody's, or that of an agent or for enrolment.
    Unknown,
}

/// Knows the bearers of tokens and sessions that read.
pub trait Authenticator: Send + Sync + 'static {
    /// Whose token this is (without `Bearer `); `None` for unknown, expired and revoked ones, and
    /// for tokens of agents and for enrolment.
    fn check(&self, bearer: &str) -> Option<Principal>;

    /// The same, with why a known one is not good: for the record, never for the answer.
    fn judge(&self, bearer: &str) -> Standing {
        self.check(bearer).map_or(Standing::Unknown, Standing::Good)
    }

    /// The account of this kind and name, if it was there at this time and is good now: for what is
    /// done in its name while nobody shows a token.
    fn account(&self, _kind: Kind, _name: &str, _at: Timestamp) -> Option<Principal> {
        None
    }

    /// Counts a request of somebody who is known.
    ///
    /// # Errors
    /// They have made too many.
    fn spend(&self, _who: &Principal) -> Result<(), TooMany> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_approves_their_own_request_by_whichever_token() {
        let user = Principal {
            owner: Some("ann".into()),
            kind: Kind::User,
            ..Principal::new("ann", Permissions::ALL)
        };
        let script =
            Principal { owner: Some("ann".into()), ..Principal::new("s", Permissions::ALL) };
        let other = Principal::new("other", Permissions::ALL);
        for (requester, approver, may) in [
            (&user, &user, false),
            (&user, &script, false),
            (&script, &user, false),
            (&script, &script, false),
            (&user, &other, true),
            (&other, &script, true),
            (&other, &other, false),
        ] {
            let asked = requester.accountable();
            assert_eq!(approver.may_approve(Permission::Erase, asked), may, "{asked}");
        }
        let viewer = Principal::new("v", Permissions::of(&[Permission::Search]));
        assert!(!viewer.may_approve(Permission::Erase, "ann"));
    }
}
