//! What an agent signs to show that it is who it says: when it enrols, and when it asks for a
//! certificate.
//!
//! The signature covers the token that is shown (its hash), so that it is good with no other; the
//! agent's id and host; and the key that a certificate is asked for. It is made by the agent's key
//! of now. A collector may know an older one, of which the secret is gone: then the statements by
//! which each key named the next lead from the one that it knows to the one that signs.
//!
//! # Limits
//! [`MAX_ROTATIONS`] statements, about 700 bytes each.

use custody_event::{AgentId, Digest};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::base64;
use crate::entry::Entry;
use crate::keys::{AgentKey, PublicKey};

/// More than an agent keeps.
pub const MAX_ROTATIONS: usize = 1_000;

const CONTEXT: &str = "custody agent claim v1";

/// What is claimed. No field can hold a line end: ids and keys are hex.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Who.
    pub agent: AgentId,
    /// SHA-256 of the token that is shown with it.
    pub bearer: Digest,
    /// The host's id, hex.
    pub host: &'a str,
    /// The public key that a certificate is asked for, hex; empty where none is.
    pub tls_key: &'a str,
}

/// The signature under a claim, with what leads to the key that made it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The key that signs.
    pub by: PublicKey,
    /// Base 64.
    pub signature: String,
    /// Statements by which keys named the next, base 64, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<String>,
}

/// Why a claim does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClaimError {
    /// The signature.
    #[error(
        "the signature under the claim does not hold: whoever sent it does not have the agent's key"
    )]
    Signature,
    /// A statement.
    #[error("statement {0} of the claim is not one by which this agent's key named the next")]
    Statement(usize),
    /// Nothing leads from the known key to the one that signed.
    #[error(
        "key {by} is not the known key {known} of agent {agent}, and no statement leads from that one to it"
    )]
    Unlinked {
        /// Who.
        agent: AgentId,
        /// The key that signed.
        by: custody_event::KeyId,
        /// The key that is known.
        known: custody_event::KeyId,
    },
    /// Too many statements.
    #[error("more than {MAX_ROTATIONS} statements")]
    TooMany,
}

impl Claim<'_> {
    fn bytes(&self) -> Vec<u8> {
        let Self { agent, bearer, host, tls_key } = self;
        format!("{CONTEXT}\n{agent}\n{bearer}\n{host}\n{tls_key}\n").into_bytes()
    }

    /// The proof of it; `rotations` are encoded statements, the oldest first.
    #[must_use]
    pub fn prove(&self, key: &AgentKey, rotations: &[Vec<u8>]) -> Proof {
        Proof {
            by: key.public(),
            signature: base64::encode(&key.sign_bytes(&self.bytes())),
            rotations: rotations.iter().map(|entry| base64::encode(entry)).collect(),
        }
    }
}

impl Proof {
    /// Was the claim made by whoever holds the key that `known` is, or has become?
    ///
    /// # Errors
    /// It was not, or that cannot be seen from it.
    pub fn check(&self, claim: &Claim<'_>, known: &PublicKey) -> Result<(), ClaimError> {
        if self.rotations.len() > MAX_ROTATIONS {
            return Err(ClaimError::TooMany);
        }
        let mut holder = known.clone();
        for (number, text) in self.rotations.iter().enumerate() {
            let wrong = ClaimError::Statement(number);
            let entry = base64::decode(text).and_then(|bytes| Entry::decode(&bytes).ok());
            let Some(Entry::Rotated(signed)) = entry else { return Err(wrong) };
            if signed.body.agent != claim.agent {
                return Err(wrong);
            }
            // Those before the known key say nothing new.
            if signed.body.old == holder.id() {
                if !signed.is_by(&holder) {
                    return Err(wrong);
                }
                holder = signed.body.new.clone();
            }
        }
        if holder != self.by {
            let (by, known) = (self.by.id(), known.id());
            return Err(ClaimError::Unlinked { agent: claim.agent, by, known });
        }
        let signature: Option<[u8; 64]> =
            base64::decode(&self.signature).and_then(|bytes| bytes.try_into().ok());
        match signature {
            Some(signature) if self.by.holds(&claim.bytes(), &signature) => Ok(()),
            _ => Err(ClaimError::Signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Rotated, Signed};
    use custody_event::{Seq, StreamId, Timestamp};

    const AGENT: AgentId = AgentId([1; 16]);

    fn key(secret: u8) -> AgentKey {
        AgentKey::from_secret(&[secret; 32])
    }

    fn claim(token: &[u8]) -> Claim<'static> {
        Claim { agent: AGENT, bearer: Digest::of(token), host: "77", tls_key: "04ab" }
    }

    /// `old` names `new`, as `signer` signs it.
    fn named(old: u8, new: u8, signer: u8, agent: AgentId) -> Vec<u8> {
        let body = Rotated {
            agent,
            at: Timestamp::Y2020,
            from_seq: Seq(0),
            new: key(new).public(),
            old: key(old).id(),
            stream: StreamId([2; 16]),
            v: 1,
        };
        Entry::Rotated(Signed::sign(body, &key(signer)).unwrap()).encode()
    }

    #[test]
    fn a_claim_is_good_for_one_token_one_agent_and_one_key() {
        let proof = claim(b"token").prove(&key(1), &[]);
        assert_eq!(proof.check(&claim(b"token"), &key(1).public()), Ok(()));
        assert_eq!(
            proof.check(&claim(b"stolen"), &key(1).public()),
            Err(ClaimError::Signature),
            "a claim that was overheard is worth nothing with another token"
        );
        let other = Claim { tls_key: "04ac", ..claim(b"token") };
        assert_eq!(proof.check(&other, &key(1).public()), Err(ClaimError::Signature));
        let other = Claim { agent: AgentId([2; 16]), ..claim(b"token") };
        assert_eq!(proof.check(&other, &key(1).public()), Err(ClaimError::Signature));
        let unlinked = proof.check(&claim(b"token"), &key(2).public());
        assert!(matches!(unlinked, Err(ClaimError::Unlinked { .. })));
        let mut forged = claim(b"token").prove(&key(2), &[]);
        forged.by = key(1).public();
        let checked = forged.check(&claim(b"token"), &key(1).public());
        assert_eq!(checked, Err(ClaimError::Signature));
    }

    #[test]
    fn a_replaced_key_is_proved_by_the_statements_that_replaced_it_and_by_no_others() {
        let chain = [named(1, 2, 1, AGENT), named(2, 3, 2, AGENT)];
        let proof = claim(b"t").prove(&key(3), &chain);
        for known in [1, 2, 3] {
            assert_eq!(proof.check(&claim(b"t"), &key(known).public()), Ok(()), "{known}");
        }
        let unlinked = proof.check(&claim(b"t"), &key(9).public());
        assert!(matches!(unlinked, Err(ClaimError::Unlinked { .. })));
        // A thief names a key of their own in the old key's name.
        let forged = claim(b"t").prove(&key(6), &[named(1, 6, 6, AGENT)]);
        let checked = forged.check(&claim(b"t"), &key(1).public());
        assert_eq!(checked, Err(ClaimError::Statement(0)));
        let foreign = claim(b"t").prove(&key(2), &[named(1, 2, 1, AgentId([8; 16]))]);
        let checked = foreign.check(&claim(b"t"), &key(1).public());
        assert_eq!(checked, Err(ClaimError::Statement(0)));
        // The old key's thief cannot speak once the collector knows its successor.
        let late = claim(b"t").prove(&key(6), &[named(1, 6, 1, AGENT)]);
        let checked = late.check(&claim(b"t"), &key(2).public());
        assert!(matches!(checked, Err(ClaimError::Unlinked { .. })));
    }
}
