//! Which key may sign what, as the log says it.
//!
//! A key comes in by an enrolment that the log's key signed, or by a rotation that the agent's
//! old key signed. It goes by a rotation (in the stream that the rotation names from the block
//! that it names; elsewhere by the order of the log) or by a revocation (by the order of the log).
//! A spool's export has no log: there the agent's first key is given from outside or named by the
//! export itself.
//!
//! # Limits
//! [`MAX_KEYS`] keys, about 200 bytes each.

use std::collections::HashMap;

use custody_event::{AgentId, Header, KeyId, Seq, StreamId};
use thiserror::Error;

use crate::entry::{Enrolled, Entry, Revoked, Rotated, Signed};
use crate::keys::{PublicKey, SignatureError, witness_name};
use crate::note::{Note, NoteError};

/// Keys of all agents together, at most: 250 agents that rotate daily for a year and more.
pub const MAX_KEYS: usize = 100_000;

#[derive(Debug, Clone)]
struct Known {
    key: PublicKey,
    /// The stream and first block that the next key signs, and the rotation's place in the log.
    retired: Option<(StreamId, Seq, Option<u64>)>,
    revoked: Option<Option<u64>>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    agents: HashMap<AgentId, Vec<Known>>,
    count: usize,
}

/// Why a signature or a statement is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// Nobody has vouched for the key.
    #[error("key {key} of agent {agent} is not known: nothing in the log vouches for it")]
    Unknown {
        /// Whose.
        agent: AgentId,
        /// Which.
        key: KeyId,
    },
    /// The key had been rotated away.
    #[error("key {key} of agent {agent} had been replaced before it signed this")]
    Retired {
        /// Whose.
        agent: AgentId,
        /// Which.
        key: KeyId,
    },
    /// The key had been revoked.
    #[error("key {key} of agent {agent} had been revoked before this was taken")]
    Revoked {
        /// Whose.
        agent: AgentId,
        /// Which.
        key: KeyId,
    },
    /// The block's signature does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The statement's signature does not hold.
    #[error("the signature of the {0} does not hold")]
    Statement(&'static str),
    /// More keys than a reader must be ready to hold.
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
}

impl Keyring {
    /// A ring without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a key on trust: the caller has it from elsewhere.
    ///
    /// # Errors
    /// There are too many.
    pub fn trust(&mut self, agent: AgentId, key: PublicKey) -> Result<(), KeyringError> {
        if self.find(&agent, &key.id()).is_some() {
            return Ok(());
        }
        if self.count >= MAX_KEYS {
            return Err(KeyringError::TooMany);
        }
        self.count += 1;
        self.agents.entry(agent).or_default().push(Known { key, retired: None, revoked: None });
        Ok(())
    }

    /// Takes in an entry of the log; `index` is its place there, `log` the log's key. A block's
    /// entry changes nothing.
    ///
    /// # Errors
    /// Its signature does not hold, or the key that signed it may not.
    pub fn apply(
        &mut self,
        index: Option<u64>,
        entry: &Entry,
        log: Option<&PublicKey>,
    ) -> Result<(), KeyringError> {
        match entry {
            Entry::Enrolled(signed) => self.enrol(signed, log),
            Entry::Rotated(signed) => self.rotate(index, signed),
            Entry::Revoked(signed) => self.revoke(index, signed, log),
            Entry::ForkAccepted(signed) if !signed.is_by(&signed.body.by) => {
                Err(KeyringError::Statement("accepted fork"))
            }
            Entry::Block(_) | Entry::ForkAccepted(_) => Ok(()),
        }
    }

    fn enrol(
        &mut self,
        signed: &Signed<Enrolled>,
        log: Option<&PublicKey>,
    ) -> Result<(), KeyringError> {
        if !log.is_some_and(|log| signed.is_by(log)) {
            return Err(KeyringError::Statement("enrolment"));
        }
        self.trust(signed.body.agent, signed.body.key.clone())
    }

    fn rotate(&mut self, index: Option<u64>, signed: &Signed<Rotated>) -> Result<(), KeyringError> {
        let body = &signed.body;
        let (agent, key) = (body.agent, body.old);
        let old = self.find_mut(&agent, &key).ok_or(KeyringError::Unknown { agent, key })?;
        if !signed.is_by(&old.key) {
            return Err(KeyringError::Statement("rotation"));
        }
        if old.revoked.is_some_and(|at| at <= index) {
            return Err(KeyringError::Revoked { agent, key });
        }
        let retired = (body.stream, body.from_seq, index);
        if old.retired.is_some_and(|before| before != retired) {
            return Err(KeyringError::Retired { agent, key });
        }
        old.retired = Some(retired);
        self.trust(agent, body.new.clone())
    }

    fn revoke(
        &mut self,
        index: Option<u64>,
        signed: &Signed<Revoked>,
        log: Option<&PublicKey>,
    ) -> Result<(), KeyringError> {
        let (agent, key) = (signed.body.agent, signed.body.key);
        if !log.is_some_and(|log| signed.is_by(log)) {
            return Err(KeyringError::Statement("revocation"));
        }
        let known = self.find_mut(&agent, &key).ok_or(KeyringError::Unknown { agent, key })?;
        known.revoked.get_or_insert(index);
        Ok(())
    }

    /// Did a key that might sign this header; `index` is its place in the log, if it is in one.
    ///
    /// # Errors
    /// The key is not known, had gone, or its signature does not hold.
    pub fn check(&self, header: &Signed<Header>, index: Option<u64>) -> Result<(), KeyringError> {
        let body = &header.body;
        let (agent, key) = (body.agent, body.key);
        let known = self.find(&agent, &key).ok_or(KeyringError::Unknown { agent, key })?;
        known.key.verify_header(body, header.bytes(), header.signature())?;
        if let Some((stream, from, at)) = known.retired {
            let after = if stream == body.stream { body.seq >= from } else { index > at };
            if after {
                return Err(KeyringError::Retired { agent, key });
            }
        }
        if known.revoked.is_some_and(|at| index.is_none() || index > at) {
            return Err(KeyringError::Revoked { agent, key });
        }
        Ok(())
    }

    /// The key with this id, however it stands.
    #[must_use]
    pub fn key(&self, agent: &AgentId, key: &KeyId) -> Option<&PublicKey> {
        self.find(agent, key).map(|known| &known.key)
    }

    /// Has this agent ever had a key?
    #[must_use]
    pub fn has(&self, agent: &AgentId) -> bool {
        self.agents.contains_key(agent)
    }

    /// When did the agent cosign this note, in seconds since 1970? By any key that it has had: when
    /// it had which is not for a cosignature's time to say.
    ///
    /// # Errors
    /// None of its keys has, or a signature does not hold.
    pub fn cosigned(&self, agent: &AgentId, note: &Note) -> Result<u64, NoteError> {
        for known in self.agents.get(agent).into_iter().flatten() {
            match note.verify(&known.key.witness(agent)) {
                Ok(seconds) => return Ok(seconds.unwrap_or_default()),
                Err(NoteError::Unsigned(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NoteError::Unsigned(witness_name(agent)))
    }

    /// The agent's newest key that is neither replaced nor revoked.
    #[must_use]
    pub fn current(&self, agent: &AgentId) -> Option<&PublicKey> {
        let keys = self.agents.get(agent)?.iter().rev();
        keys.into_iter().find(|k| k.retired.is_none() && k.revoked.is_none()).map(|k| &k.key)
    }

    fn find(&self, agent: &AgentId, key: &KeyId) -> Option<&Known> {
        self.agents.get(agent)?.iter().rev().find(|known| known.key.id() == *key)
    }

    fn find_mut(&mut self, agent: &AgentId, key: &KeyId) -> Option<&mut Known> {
        self.agents.get_mut(agent)?.iter_mut().rev().find(|known| known.key.id() == *key)
    }
}
