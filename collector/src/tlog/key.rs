//! The log's key and name: made at the first start, kept for ever.

use std::path::Path;

use custody_evidence::keys::load_or_create_secret;
use custody_evidence::note::{KeyType, NoteKey, VerifierKey};

use super::{TlogError, put};

const REMEDY: &str = "put the whole folder tlog/ back from a backup. A log that begins anew is \
                      refused by every agent that has seen the old one; if it must, move tlog/ \
                      away and accept the fork at each agent (custody-agent accept-fork)";

/// Reads key and name, or makes them where there is no log yet. The name that the log began with
/// stays: it is signed into every checkpoint.
pub(super) fn load(folder: &Path, origin: &str, random: &[u8; 32]) -> Result<NoteKey, TlogError> {
    let io_error = |path: &Path, source| TlogError::Io { path: path.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
    let (path, vkey_path) = (folder.join("key"), folder.join("vkey"));
    let contradiction =
        |what: String| TlogError::Contradiction { path: folder.to_owned(), what, remedy: REMEDY };
    let said = match std::fs::read_to_string(&vkey_path) {
        Ok(text) => Some(text.trim_end().parse::<VerifierKey>()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(&vkey_path, error)),
    };
    let began = folder.join("checkpoint").try_exists().map_err(|e| io_error(folder, e))?;
    let has_key = path.try_exists().map_err(|e| io_error(&path, e))?;
    if began && (!has_key || said.is_none()) {
        let missing = if has_key { "vkey" } else { "key" };
        return Err(contradiction(format!(
            "there is a checkpoint, but the file {missing} is gone"
        )));
    }
    let secret = load_or_create_secret(&path, random)?;
    let name = said.as_ref().map_or(origin, VerifierKey::name);
    let key = NoteKey::new(name, &secret)?;
    let verifier = key.verifier(KeyType::Ed25519);
    match said {
        Some(said) if said != verifier => {
            Err(contradiction("the file vkey is not of the key in the file key".to_owned()))
        }
        Some(_) => {
            if name != origin {
                log::warn!(log = name, configured = origin; "the log keeps the name that it began with");
            }
            Ok(key)
        }
        None => put(&vkey_path, &format!("{verifier}\n")).map(|()| key),
    }
}
