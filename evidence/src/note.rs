//! Signed notes and checkpoints: C2SP signed-note, tlog-checkpoint, tlog-cosignature.
//!
//! A note is a text, an empty line, and signature lines `— <name> <base 64 of key id ‖ signature>`.
//! Two kinds of key are known: Ed25519 over the text (type 1: the log itself) and
//! `cosignature/v1` over the text with a time (type 4: a witness). A key's id is the first four
//! bytes of SHA-256(name ‖ `\n` ‖ type ‖ public key); its text form is
//! `<name>+<id, 8 hex digits>+<base 64 of type ‖ public key>`.
//!
//! # Limits
//! A note has at most [`MAX_NOTE_BYTES`] and 100 signatures. Signatures of keys that the reader
//! does not know are ignored, as the specification asks; one of a known key that does not hold
//! refuses the whole note.

use std::fmt;
use std::str::FromStr;

use custody_event::Digest;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;

use crate::base64;
use crate::tlog::{MAX_SIZE, TreeHead};

/// A note longer than this is not read.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
const MAX_SIGNATURES: usize = 100;
const MAX_NAME_BYTES: usize = 255;

/// Why a note, a checkpoint or a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoteError {
    /// It has not the form of a signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// It has not the form of a checkpoint.
    #[error("not a checkpoint: {0}")]
    NotACheckpoint(&'static str),
    /// It has not the form of a verifier key.
    #[error("not a verifier key (name+id+base 64 expected): {0}")]
    NotAKey(&'static str),
    /// The key's signature is not there.
    #[error("the note is not signed by {0}")]
    Unsigned(String),
    /// The key's signature does not hold.
    #[error("the signature of {0} does not hold: the note was altered or signed by another key")]
    Wrong(String),
}

/// What a key signs, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// The text itself.
    Ed25519 = 1,
    /// The text after `cosignature/v1` and a time.
    Cosignature = 4,
}

impl KeyType {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Cosignature => 4,
        }
    }
}

/// A key that a reader trusts to sign notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: KeyType,
    key: VerifyingKey,
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

fn id_of(name: &str, kind: KeyType, key: &[u8; 32]) -> [u8; 4] {
    let mut input = Vec::with_capacity(name.len() + 34);
    input.extend_from_slice(name.as_bytes());
    input.extend_from_slice(&[b'\n', kind.byte()]);
    input.extend_from_slice(key);
    let hash = Digest::of(&input).0;
    [hash[0], hash[1], hash[2], hash[3]]
}

impl VerifierKey {
    /// `name` is a good one.
    pub(crate) fn of(name: String, kind: KeyType, key: VerifyingKey) -> Self {
        Self { name, kind, key }
    }

    /// From a name and a public key of 32 bytes.
    ///
    /// # Errors
    /// The name has white space or a `+`, or the key is none.
    pub fn new(name: &str, kind: KeyType, key: &[u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::NotAKey(
                "a name has no white space and no +, and 1 to 255 bytes",
            ));
        }
        let key = VerifyingKey::from_bytes(key)
            .map_err(|_| NoteError::NotAKey("not an Ed25519 public key"))?;
        Ok(Self { name: name.to_owned(), kind, key })
    }

    /// The key's name: for a log its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub fn kind(&self) -> KeyType {
        self.kind
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        id_of(&self.name, self.kind, self.key.as_bytes())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> crate::PublicKey {
        crate::PublicKey::from(self.key)
    }

    fn check(&self, text: &str, signature: &[u8]) -> Option<Option<u64>> {
        let (time, message, signature) = match self.kind {
            KeyType::Ed25519 => (None, text.as_bytes().to_vec(), signature),
            KeyType::Cosignature => {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                let time = u64::from_be_bytes(*time);
                (Some(time), cosigned(text, time), signature)
            }
        };
        let signature = Signature::from_slice(signature).ok()?;
        self.key.verify_strict(&message, &signature).ok().map(|()| time)
    }
}

fn cosigned(text: &str, time: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.kind.byte()];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), base64::encode(&bytes))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::NotAKey("two + are missing"));
        };
        let bytes = base64::decode(key).ok_or(NoteError::NotAKey("not base 64"))?;
        let (kind, key) = match bytes.split_first() {
            Some((1, key)) => (KeyType::Ed25519, key),
            Some((4, key)) => (KeyType::Cosignature, key),
            _ => return Err(NoteError::NotAKey("only the types 1 and 4 are known")),
        };
        let key = key.try_into().map_err(|_| NoteError::NotAKey("a key has 32 bytes"))?;
        let key = Self::new(name, kind, key)?;
        if format!("{:08x}", u32::from_be_bytes(key.id())) != id {
            return Err(NoteError::NotAKey("its id is not that of the name and the key"));
        }
        Ok(key)
    }
}

/// A key that signs notes. Its secret half is never shown.
pub struct NoteKey {
    name: String,
    key: SigningKey,
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteKey({})", self.name)
    }
}

impl NoteKey {
    /// From a name and 32 secret bytes.
    ///
    /// # Errors
    /// The name has white space or a `+`.
    pub fn new(name: &str, secret: &[u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::NotAKey(
                "a name has no white space and no +, and 1 to 255 bytes",
            ));
        }
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(secret) })
    }

    /// `name` is a good one.
    pub(crate) fn of(name: String, key: SigningKey) -> Self {
        Self { name, key }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a reader needs, as a signer of this kind.
    #[must_use]
    pub fn verifier(&self, kind: KeyType) -> VerifierKey {
        VerifierKey { name: self.name.clone(), kind, key: self.key.verifying_key() }
    }

    /// Signs bytes that are no note (a log's statement; its context keeps the two apart).
    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }

    fn line(&self, kind: KeyType, body: &[u8]) -> String {
        let mut bytes = id_of(&self.name, kind, self.key.verifying_key().as_bytes()).to_vec();
        bytes.extend_from_slice(body);
        format!("\u{2014} {} {}\n", self.name, base64::encode(&bytes))
    }
}

/// A note, taken apart; nothing in it is believed before [`Self::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    id: [u8; 4],
    signature: Vec<u8>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// It has not the form of one, or is too long.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::Malformed("longer than 64 KiB"));
        }
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return Err(NoteError::Malformed("it has control characters"));
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Malformed("it has no signatures"))?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("its end is cut off"))?;
        let signatures = lines.split('\n').map(signature_line).collect::<Option<Vec<_>>>();
        let signatures = signatures.ok_or(NoteError::Malformed("a signature line is not one"))?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::Malformed("more than 100 signatures"));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The signed text, with its last line end.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Checks this key's signature; gives a cosignature's time (seconds since 1970).
    ///
    /// # Errors
    /// There is none, or it does not hold.
    pub fn verify(&self, key: &VerifierKey) -> Result<Option<u64>, NoteError> {
        let mut verified = None;
        for line in self.signatures.iter().filter(|s| s.name == key.name && s.id == key.id()) {
            let time = key
                .check(&self.text, &line.signature)
                .ok_or_else(|| NoteError::Wrong(key.name.clone()))?;
            verified = verified.or(Some(time));
        }
        verified.ok_or_else(|| NoteError::Unsigned(key.name.clone()))
    }

    /// The names of those who claim to have signed.
    pub fn signers(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|line| line.name.as_str())
    }
}

fn signature_line(line: &str) -> Option<NoteSignature> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = base64::decode(signature)?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    (is_name(name) && !signature.is_empty()).then(|| NoteSignature {
        name: name.to_owned(),
        id: *id,
        signature: signature.to_vec(),
    })
}

/// A log's statement of how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// Size and root.
    pub head: TreeHead,
    /// Further lines that the log signed.
    pub extension: Vec<String>,
}

impl Checkpoint {
    /// Of a log at this head.
    #[must_use]
    pub fn new(origin: &str, head: TreeHead) -> Self {
        Self { origin: origin.to_owned(), head, extension: Vec::new() }
    }

    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let root = base64::encode(&self.head.root.0);
        let mut text = format!("{}\n{}\n{root}\n", self.origin, self.head.size);
        for line in &self.extension {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Reads a checkpoint's text.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let body =
            text.strip_suffix('\n').ok_or(NoteError::NotACheckpoint("its end is cut off"))?;
        let mut lines = body.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty());
        let origin = origin.ok_or(NoteError::NotACheckpoint("it has no origin"))?;
        let size = lines.next().unwrap_or_default();
        let size: u64 = size
            .parse()
            .ok()
            .filter(|number: &u64| number.to_string() == size && *number <= MAX_SIZE)
            .ok_or(NoteError::NotACheckpoint("its second line is not a size"))?;
        let root = lines.next().and_then(base64::decode).and_then(|root| root.try_into().ok());
        let root = root.ok_or(NoteError::NotACheckpoint("its third line is not a root"))?;
        let extension: Vec<String> = lines.map(str::to_owned).collect();
        if extension.iter().any(String::is_empty) {
            return Err(NoteError::NotACheckpoint("it has an empty line"));
        }
        let head = TreeHead { root: Digest(root), size };
        if size == 0 && head != TreeHead::empty() {
            return Err(NoteError::NotACheckpoint("an empty log has the root of nothing"));
        }
        Ok(Self { origin: origin.to_owned(), head, extension })
    }

    /// Signs it: a note.
    #[must_use]
    pub fn sign(&self, key: &NoteKey) -> String {
        let text = self.text();
        let signature = key.sign_bytes(text.as_bytes());
        format!("{text}\n{}", key.line(KeyType::Ed25519, &signature))
    }

    /// Reads a checkpoint that `key` has signed under its own name.
    ///
    /// # Errors
    /// It is none, is another log's, or is not signed by the key.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        let checkpoint = Self::parse(note.text())?;
        if checkpoint.origin != key.name {
            return Err(NoteError::NotACheckpoint("its origin is not the key's name"));
        }
        Ok(checkpoint)
    }
}

/// A witness's line for a checkpoint that it has verified, to be put at the note's end.
///
/// # Errors
/// The note is none.
pub fn cosign(note: &str, key: &NoteKey, seconds: u64) -> Result<String, NoteError> {
    let note = Note::parse(note)?;
    Checkpoint::parse(note.text())?;
    let mut body = seconds.to_be_bytes().to_vec();
    body.extend_from_slice(&key.sign_bytes(&cosigned(note.text(), seconds)));
    Ok(key.line(KeyType::Cosignature, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the signed-note specification.
    const EXAMPLE_KEY: &str =
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    /// The example of the note package of the Go checksum database, with its published secret.
    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_SECRET: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const GO_LINE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn go_key() -> NoteKey {
        let secret: [u8; 32] = base64::decode(GO_SECRET).unwrap()[1..].try_into().unwrap();
        NoteKey::new("PeterNeumann", &secret).unwrap()
    }

    #[test]
    fn published_notes_verify_and_are_signed_alike() {
        let example: VerifierKey = EXAMPLE_KEY.parse().unwrap();
        assert_eq!(Note::parse(EXAMPLE).unwrap().verify(&example), Ok(None));
        let go: VerifierKey = GO_KEY.parse().unwrap();
        let note = Note::parse(&format!("{GO_TEXT}\n{GO_LINE}")).unwrap();
        assert_eq!(note.verify(&go), Ok(None));
        assert_eq!(note.text(), GO_TEXT);
        assert_eq!(note.verify(&example), Err(NoteError::Unsigned("example.com/foo".into())));
        let line = go_key().line(KeyType::Ed25519, &go_key().sign_bytes(GO_TEXT.as_bytes()));
        assert_eq!(line, GO_LINE);
    }

    #[test]
    fn published_verifier_keys_read_and_are_written_alike() {
        for text in [
            EXAMPLE_KEY,
            GO_KEY,
            "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
            "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6",
            "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        ] {
            let key: VerifierKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
        }
        let swapped = GO_KEY.replace("c74f20a3", "c74f20a4");
        for bad in ["", "a", "a+b", "a+b+c", "a+00000000+", &swapped, &GO_KEY.to_uppercase()] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
        }
        assert!(NoteKey::new("with space", &[1; 32]).is_err());
        assert!(NoteKey::new("with+plus", &[1; 32]).is_err());
        assert!(NoteKey::new("", &[1; 32]).is_err());
    }

    #[test]
    fn a_checkpoint_reads_back_and_no_flipped_byte_passes() {
        let key = NoteKey::new("log.example.org/custody", &[3; 32]).unwrap();
        let verifier = key.verifier(KeyType::Ed25519);
        let head = TreeHead { root: Digest([9; 32]), size: 1_234 };
        let checkpoint = Checkpoint::new("log.example.org/custody", head);
        let note = checkpoint.sign(&key);
        assert_eq!(Checkpoint::open(&note, &verifier), Ok(checkpoint));
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(Checkpoint::open(&changed, &verifier).is_err(), "byte {at}: {changed}");
        }
        for end in 0..note.len() {
            if note.is_char_boundary(end) {
                assert!(Checkpoint::open(&note[..end], &verifier).is_err());
            }
        }
        let other = NoteKey::new("log.example.org/custody", &[4; 32]).unwrap();
        assert!(Checkpoint::open(&note, &other.verifier(KeyType::Ed25519)).is_err());
        let foreign = Checkpoint::new("another.example.org", head).sign(&key);
        assert!(matches!(Checkpoint::open(&foreign, &verifier), Err(NoteError::NotACheckpoint(_))));
    }

    #[test]
    fn a_checkpoint_has_one_text_only() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        assert!(Checkpoint::parse(&format!("example.com/x\n20852163\n{root}\n")).is_ok());
        for bad in [
            format!("example.com/x\n020852163\n{root}\n"),
            format!("example.com/x\n+1\n{root}\n"),
            format!("example.com/x\n0\n{root}\n"),
            format!("\n1\n{root}\n"),
            format!("example.com/x\n1\n{root}"),
            format!("example.com/x\n1\n{root}\n\n"),
            "example.com/x\n1\nAA==\n".to_owned(),
            format!("example.com/x\n99999999999999999999\n{root}\n"),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cosignature_holds_for_its_time_and_its_checkpoint_only() {
        let log = NoteKey::new("log.example.org", &[3; 32]).unwrap();
        let witness = NoteKey::new("agent.example.org/7", &[5; 32]).unwrap();
        let verifier = witness.verifier(KeyType::Cosignature);
        let note = Checkpoint::new("log.example.org", TreeHead::empty()).sign(&log);
        let line = cosign(&note, &witness, 1_679_315_147).unwrap();
        let both = Note::parse(&format!("{note}{line}")).unwrap();
        assert_eq!(both.verify(&verifier), Ok(Some(1_679_315_147)));
        assert_eq!(both.verify(&log.verifier(KeyType::Ed25519)), Ok(None));
        assert_eq!(both.signers().count(), 2);
        // The same key as type 1 is another key.
        assert!(both.verify(&witness.verifier(KeyType::Ed25519)).is_err());
        let head = TreeHead { root: Digest([1; 32]), size: 1 };
        let other = Checkpoint::new("log.example.org", head).sign(&log);
        let moved = Note::parse(&format!("{other}{line}")).unwrap();
        assert_eq!(
            moved.verify(&verifier),
            Err(NoteError::Wrong("agent.example.org/7".to_owned()))
        );
        assert!(cosign("no note", &witness, 0).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "[\u{2014} a-c+\n0-9=/]{0,120}") {
            let _ = Note::parse(&text);
            let _ = Checkpoint::parse(&text);
            let _ = text.parse::<VerifierKey>();
        }
    }
}
