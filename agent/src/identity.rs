//! Who this agent is: its id and key (made once, kept in the data directory) and its host's id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use custody_event::ids::{parse_hex, push_hex};
use custody_event::{AgentId, Digest};
use custody_evidence::AgentKey;
use custody_evidence::whole::{PUBLIC, write_whole};

use crate::pipeline::random_secret;

/// Where the operating system keeps the machine's id (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// Who this agent is.
#[derive(Debug)]
pub struct AgentIdentity {
    /// Its id.
    pub agent: AgentId,
    /// Its signing key.
    pub key: AgentKey,
    /// The host's durable id: 32 hex digits that do not give the machine id away.
    pub host_id: String,
}

impl AgentIdentity {
    /// Reads the identity from `data_dir`, making what is not there yet.
    ///
    /// # Errors
    /// A file cannot be read or written, or is not what it should be.
    pub fn load_or_create(data_dir: &Path, hostname: &str) -> anyhow::Result<Self> {
        let agent = load_or_create_id(&data_dir.join("agent.id"))?;
        let key = AgentKey::load_or_create(&data_dir.join("agent.key"), &random_secret()?)?;
        Ok(Self { agent, key, host_id: host_id(Path::new(MACHINE_ID), hostname)? })
    }
}

impl AgentIdentity {
    /// The same agent with another key.
    #[must_use]
    pub fn with_key(&self, key: AgentKey) -> Self {
        Self { agent: self.agent, key, host_id: self.host_id.clone() }
    }
}

/// A new identity that is being taken on: id and secret, until the stream is of it.
fn renewal(data_dir: &Path) -> PathBuf {
    data_dir.join("agent.renewal")
}

/// Makes a new identity, or goes on with one that a crash has left half taken on: id and key are
/// new, tokens, certificates and statements about the old keys are gone. Ends with [`renewed`].
///
/// # Errors
/// A file cannot be read or written.
pub fn renew(data_dir: &Path) -> anyhow::Result<()> {
    let path = renewal(data_dir);
    // 32 bytes of secret; the id is made of them.
    let secret = custody_evidence::keys::load_or_create_secret(&path, &random_secret()?)?;
    let derived = Digest::of(&[&b"custody agent id v1\0"[..], &secret].concat());
    let mut id = [0; 16];
    id.copy_from_slice(&derived.0[..16]);
    for entry in fs::read_dir(data_dir).with_context(|| data_dir.display().to_string())? {
        let entry = entry.with_context(|| data_dir.display().to_string())?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("token-")
            || name.starts_with("tls-")
            || name == "rotations"
            || name == "agent.key.next"
        {
            fs::remove_file(entry.path()).with_context(|| entry.path().display().to_string())?;
        }
    }
    let key = data_dir.join("agent.key");
    match fs::remove_file(&key) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| key.display().to_string());
        }
        _ => {}
    }
    AgentKey::load_or_create(&key, &secret)?;
    let id_path = data_dir.join("agent.id");
    write_id(&id_path, &AgentId(id)).with_context(|| id_path.display().to_string())
}

/// Are id and key there, as an earlier start has made them?
///
/// # Errors
/// The folder cannot be read.
pub fn is_whole(data_dir: &Path) -> anyhow::Result<bool> {
    for name in ["agent.id", "agent.key"] {
        let path = data_dir.join(name);
        if !path.try_exists().with_context(|| path.display().to_string())? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Is a new identity being taken on?
///
/// # Errors
/// The folder cannot be read.
pub fn is_renewing(data_dir: &Path) -> anyhow::Result<bool> {
    let path = renewal(data_dir);
    path.try_exists().with_context(|| path.display().to_string())
}

/// The stream is of the new identity.
///
/// # Errors
/// The file cannot be removed.
pub fn renewed(data_dir: &Path) -> anyhow::Result<()> {
    let path = renewal(data_dir);
    fs::remove_file(&path).with_context(|| path.display().to_string())
}

fn load_or_create_id(path: &Path) -> anyhow::Result<AgentId> {
    match fs::read_to_string(path) {
        Ok(text) => match parse_hex(text.trim_end()) {
            Some(id) => Ok(AgentId(id)),
            None => bail!(
                "{}: not an agent id (32 hex digits expected); remove the file to have a new one made",
                path.display()
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut id = [0; 16];
            id.copy_from_slice(&random_secret()?[..16]);
            write_id(path, &AgentId(id)).with_context(|| path.display().to_string())?;
            Ok(AgentId(id))
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn write_id(path: &Path, id: &AgentId) -> io::Result<()> {
    write_whole(path, format!("{id}\n").as_bytes(), PUBLIC)
}

/// A digest of the machine id, as machine-id(5) asks of programs that show it to others. A host
/// without one is known by its name.
fn host_id(machine_id: &Path, hostname: &str) -> anyhow::Result<String> {
    let id = match fs::read_to_string(machine_id) {
        Ok(text) if !text.trim().is_empty() => format!("machine {}", text.trim()),
        Ok(_) => format!("name {hostname}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("name {hostname}"),
        Err(error) => return Err(error).with_context(|| machine_id.display().to_string()),
    };
    let hash = Digest::of(format!("custody host v1\0{id}").as_bytes());
    let mut hex = Vec::with_capacity(32);
    push_hex(&hash.0[..16], &mut hex);
    Ok(String::from_utf8_lossy(&hex).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = AgentIdentity::load_or_create(folder.path(), "web1").unwrap();
        let second = AgentIdentity::load_or_create(folder.path(), "web1").unwrap();
        assert_eq!(first.agent, second.agent);
        assert_eq!(first.key.id(), second.key.id());
        assert_eq!(first.host_id, second.host_id);
        fs::write(folder.path().join("agent.id"), "x").unwrap();
        assert!(AgentIdentity::load_or_create(folder.path(), "web1").is_err());
    }

    #[test]
    fn a_host_is_known_by_its_machine_id_and_not_by_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine-id");
        assert_eq!(host_id(&path, "a").unwrap(), host_id(&path, "a").unwrap());
        assert_ne!(host_id(&path, "a").unwrap(), host_id(&path, "b").unwrap());
        fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(host_id(&path, "a").unwrap(), host_id(&path, "b").unwrap());
        assert!(!host_id(&path, "a").unwrap().contains("0123456789"));
    }
}
