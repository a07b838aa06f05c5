//! What this agent knows of the blocks in its spool: are they what it has signed?
//!
//! The spool's checksums find damage. Somebody who may write into the spool's folder makes them
//! anew; the agent's keys he has not, they lie elsewhere. So at each opening the chain of blocks
//! must lead to one that this agent has signed ([`Judge`]), and no block goes into a new stream
//! (which the agent signs anew) before its signature and its events have been checked: nothing that
//! was put in gets the agent's signature.
//!
//! # Keys
//! The one that signs, and all that the statements about rotations name. While a new identity is
//! being taken on after a crash, and where the key was lost and made anew, the agent cannot know
//! what it had signed before: then the events must make the root, and the signature is not asked
//! for.

mod export;

use std::sync::{Mutex, PoisonError};

use custody_event::{AgentId, Block, Digest, Header};
use custody_evidence::PublicKey;

pub use export::{ExportError, Exported, export, identity_in};

use crate::identity::AgentIdentity;
use crate::rotation::Rotations;
use crate::spool::{Judge, Link};

/// See the module.
#[derive(Debug)]
pub struct Ours {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    keys: Vec<(AgentId, PublicKey)>,
    /// What had signed before is not known.
    forgot: bool,
}

impl Ours {
    /// The keys of this identity; `forgot`: others may have signed what is in the spool.
    #[must_use]
    pub fn new(identity: &AgentIdentity, rotations: &Rotations, forgot: bool) -> Self {
        let mut keys = vec![(identity.agent, identity.key.public())];
        keys.extend(rotations.keys().into_iter().map(|key| (identity.agent, key)));
        Self { known: Mutex::new(Known { keys, forgot }) }
    }

    /// From now on this identity signs as well.
    pub fn add(&self, identity: &AgentIdentity) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.keys.push((identity.agent, identity.key.public()));
    }

    /// Everything in the spool is signed by keys that are known.
    pub fn all_known(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).forgot = false;
    }

    /// May others have signed what is in the spool?
    #[must_use]
    pub fn forgot(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).forgot
    }

    /// Is the block what this agent has signed, header and events?
    ///
    /// # Errors
    /// Says what is not.
    pub fn check(&self, block: &Block) -> Result<(), String> {
        let header = &block.header;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = known
            .keys
            .iter()
            .find(|(agent, key)| *agent == header.agent && key.id() == header.key)
            .map(|(_, key)| key.clone());
        let forgot = known.forgot;
        drop(known);
        match key {
            Some(key) => key.verify(block).map_err(|error| error.to_string())?,
            None if forgot => {}
            None => {
                return Err(format!(
                    "it is signed by key {} of agent {}, which was never this agent's",
                    header.key, header.agent
                ));
            }
        }
        block.coverage().map_err(|error| error.to_string())?;
        block.open().map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Judge for Ours {
    fn link(&self, seq: u64, bytes: &[u8]) -> Result<Link, String> {
        let signed = Block::signed_header_in(bytes).map_err(|error| error.to_string())?;
        let (header_bytes, _) = signed.ok_or_else(|| "it is not signed".to_owned())?;
        let header = Header::from_bytes(header_bytes).map_err(|error| error.to_string())?;
        if header.seq.get() != seq {
            return Err(format!("it says of itself that it is block {}", header.seq));
        }
        Ok(Link { before: header.prev.0, this: Digest::of(header_bytes).0 })
    }

    fn sealed(&self, bytes: &[u8]) -> Result<(), String> {
        let block = Block::decode(bytes).map_err(|error| error.to_string())?;
        self.check(&block)
    }
}
