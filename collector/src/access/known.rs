//! All accounts in memory, and what a shown token is worth.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use custody_event::{AgentId, Digest, Timestamp};
use subtle::ConstantTimeEq;

use super::db::{AgentRow, Db, Roles, SessionRow, TokenRow, UserRow};
use super::principal::{Kind, Lapse, Principal};
use super::{AccessError, Permissions, Role};

/// What was shown.
#[derive(Debug, Clone)]
enum Bearer {
    Agent(Arc<AgentRow>),
    Token(Arc<TokenRow>),
    Session(Arc<SessionRow>),
}

/// What it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Worth {
    Agent(Arc<AgentRow>),
    /// The hash of the token.
    Enroller(Digest),
    Reader(Principal),
    Lapsed(String, Lapse),
    Unknown,
}

/// Bearers by the first bytes of their hash.
#[derive(Default)]
pub(super) struct Known {
    pub(super) data_version: i64,
    by_hash: HashMap<[u8; 8], Vec<(Digest, Bearer)>>,
    users: HashMap<String, UserRow>,
    revoked: HashSet<AgentId>,
    roles: Roles,
}

impl Known {
    pub(super) fn read(db: &Db, now: Timestamp) -> Result<Self, AccessError> {
        let tables = db.tables();
        let mut known = Self {
            data_version: db.data_version()?,
            by_hash: HashMap::new(),
            users: tables.users()?.into_iter().map(|user| (user.name.clone(), user)).collect(),
            roles: tables.roles()?,
            revoked: HashSet::new(),
        };
        for agent in db.agents()? {
            if agent.revoked.is_some() {
                known.revoked.insert(agent.id);
            } else {
                known.add(agent.token_hash, Bearer::Agent(Arc::new(agent)));
            }
        }
        // Revoked ones too: that somebody still shows one is worth a line.
        for token in tables.tokens()? {
            known.add(token.hash, Bearer::Token(Arc::new(token)));
        }
        for session in tables.sessions(now)? {
            known.add(session.hash, Bearer::Session(Arc::new(session)));
        }
        Ok(known)
    }

    fn add(&mut self, hash: Digest, bearer: Bearer) {
        self.by_hash.entry(head(&hash)).or_default().push((hash, bearer));
    }

    pub(super) fn remove(&mut self, hash: &Digest) {
        if let Some(alike) = self.by_hash.get_mut(&head(hash)) {
            alike.retain(|(known, _)| known != hash);
        }
    }

    fn find(&self, hash: &Digest) -> Option<&Bearer> {
        self.by_hash
            .get(&head(hash))?
            .iter()
            .find(|(known, _)| bool::from(known.0.ct_eq(&hash.0)))
            .map(|(_, bearer)| bearer)
    }

    pub(super) fn is_revoked(&self, agent: &AgentId) -> bool {
        self.revoked.contains(agent)
    }

    pub(super) fn is_session(&self, hash: &Digest) -> bool {
        matches!(self.find(hash), Some(Bearer::Session(_)))
    }

    /// What the token or session of this hash is worth now.
    pub(super) fn worth(&self, hash: &Digest, now: Timestamp) -> Worth {
        match self.find(hash) {
            None => Worth::Unknown,
            Some(Bearer::Agent(agent)) => Worth::Agent(Arc::clone(agent)),
            Some(Bearer::Token(token)) => self.token(token, now),
            Some(Bearer::Session(session)) => self.session(session, now),
        }
    }

    fn session(&self, session: &SessionRow, now: Timestamp) -> Worth {
        let worth = match (&session.user, &session.token) {
            (Some(user), _) => self.reader(user),
            (None, Some(hash)) => match self.find(hash) {
                Some(Bearer::Token(token)) => self.token(token, now),
                _ => Worth::Unknown,
            },
            (None, None) => Worth::Unknown,
        };
        let Worth::Reader(mut principal) = worth else { return worth };
        if session.expires <= now {
            return Worth::Lapsed(principal.name, Lapse::Expired);
        }
        principal.expires =
            Some(principal.expires.map_or(session.expires, |end| end.min(session.expires)));
        Worth::Reader(principal)
    }

    fn reader(&self, name: &str) -> Worth {
        match self.principal(name) {
            Some(principal) => Worth::Reader(principal),
            None => Worth::Lapsed(name.to_owned(), Lapse::Disabled),
        }
    }

    /// The user, unless disabled or gone.
    pub(super) fn principal(&self, name: &str) -> Option<Principal> {
        let user = self.users.get(name).filter(|user| user.disabled.is_none())?;
        Some(Principal {
            kind: Kind::User,
            owner: Some(user.name.clone()),
            role: user.role.clone(),
            scopes: Arc::new([user.scope.clone()]),
            since: user.created.max(user.password_set),
            ..Principal::new(user.name.clone(), self.permissions(&user.role))
        })
    }

    /// The account of this kind and name, if it was there at `at` and is good now. A name may have been
    /// given anew since.
    pub(super) fn account(
        &self,
        kind: Kind,
        name: &str,
        at: Timestamp,
        now: Timestamp,
    ) -> Option<Principal> {
        if kind == Kind::User {
            let was_there = self.users.get(name).is_some_and(|user| user.created <= at);
            return self.principal(name).filter(|_| was_there);
        }
        self.by_hash.values().flatten().find_map(|(_, bearer)| match bearer {
            Bearer::Token(token) if token.name == name && token.created <= at => {
                match self.token(token, now) {
                    Worth::Reader(principal) => Some(principal),
                    _ => None,
                }
            }
            _ => None,
        })
    }

    fn permissions(&self, role: &str) -> Permissions {
        // A role that is gone allows nothing.
        self.roles.permissions(role).unwrap_or_default()
    }

    /// A token is worth what its role says, and no more than its owner is now.
    fn token(&self, token: &TokenRow, now: Timestamp) -> Worth {
        let lapsed = |lapse| Worth::Lapsed(token.name.clone(), lapse);
        if token.revoked.is_some() {
            return lapsed(Lapse::Revoked);
        }
        if !token.is_live(now) {
            return lapsed(Lapse::Expired);
        }
        let mut permissions = self.permissions(&token.role);
        let (mut scopes, mut since) = (vec![token.scope.clone()], token.created);
        if let Some(owner) = &token.owner {
            let Some(owner) = self.principal(owner) else { return lapsed(Lapse::Disabled) };
            permissions = permissions.and(owner.permissions);
            scopes.extend(owner.scopes.iter().cloned());
            since = owner.since;
        }
        if token.role == Role::Enroll.name() {
            return Worth::Enroller(token.hash);
        }
        Worth::Reader(Principal {
            owner: token.owner.clone(),
            role: token.role.clone(),
            scopes: scopes.into(),
            expires: token.expires,
            since,
            ..Principal::new(token.name.clone(), permissions)
        })
    }
}

fn head(hash: &Digest) -> [u8; 8] {
    let mut head = [0; 8];
    head.copy_from_slice(&hash.0[..8]);
    head
}
