//! The keys that the log on disk vouches for: for `custody-collector verify`, beside a running
//! collector.

use std::collections::HashMap;
use std::path::Path;

use custody_event::{AgentId, KeyId};
use custody_evidence::note::VerifierKey;
use custody_evidence::tlog::{FileTiles, Kind, TILE_WIDTH, Tile, TileRead, bundle_entries};
use custody_evidence::{Checkpoint, Entry, PublicKey};

use super::TlogError;

/// Every key of every agent that the log in `folder` has ever named; none where there is no log.
///
/// # Errors
/// A file cannot be read, or is not what it should be.
pub fn named(folder: &Path) -> Result<HashMap<(AgentId, KeyId), PublicKey>, TlogError> {
    let mut keys = HashMap::new();
    let (Some(vkey), Some(note)) = (text(&folder.join("vkey"))?, text(&folder.join("checkpoint"))?)
    else {
        return Ok(keys);
    };
    let vkey: VerifierKey = vkey.trim_end().parse()?;
    let size = Checkpoint::open(&note, &vkey)?.head.size;
    let tiles = FileTiles::new(folder);
    for number in 0..size.div_ceil(TILE_WIDTH) {
        let Some(tile) = Tile::in_tree(Kind::Entries, number, size) else { break };
        let bundle = tiles.read_tile(&tile)?;
        for entry in bundle_entries(&bundle).unwrap_or_default() {
            // Blocks name no keys, and reading their headers is the dear part.
            if entry.first() != Some(&1) {
                note_keys(&Entry::decode(entry)?, &mut keys);
            }
        }
    }
    Ok(keys)
}

fn note_keys(entry: &Entry, keys: &mut HashMap<(AgentId, KeyId), PublicKey>) {
    let (agent, key) = match entry {
        Entry::Enrolled(signed) => (signed.body.agent, &signed.body.key),
        Entry::Rotated(signed) => (signed.body.agent, &signed.body.new),
        Entry::Block(_) | Entry::Revoked(_) | Entry::ForkAccepted(_) => return,
    };
    keys.insert((agent, key.id()), key.clone());
}

fn text(path: &Path) -> Result<Option<String>, TlogError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TlogError::Io { path: path.to_owned(), source }),
    }
}
