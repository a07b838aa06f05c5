//! What goes beside a file: its hash, what is in it, and the state of the log that it was made
//! from, signed by the log's key.
//!
//! The signature is Ed25519 over `custody export v1` and a line feed ‖ the canonical JSON without
//! `signature`.

use custody_event::ids::push_hex;
use custody_evidence::entry::Signs;
use serde_json::{Value, json};

use super::{Row, Totals, Words};
use crate::tlog::Tlog;

const CONTEXT: &[u8] = b"custody export v1\n";

/// The proof of a complete export, one line of canonical JSON.
pub(super) fn make(row: &Row, totals: &Totals, log: Option<&Tlog>) -> String {
    let (spec, told) = (&row.spec, &row.told);
    let bound = told.bound.unwrap_or_default();
    let mut proof = json!({
        "bytes": told.bytes,
        "created": row.created.to_string(),
        "created_by": row.created_by,
        "events_sha256": totals.content_sha256,
        "evidence_before": { "offset": bound.offset, "segment": bound.segment },
        "file": row.file_name(),
        "format": spec.format.name(),
        "id": row.id,
        "name": spec.name,
        "order": "oldest_first",
        "q": spec.q,
        "rows": totals.rows,
        "sha256": told.sha256,
        "v": 1,
    });
    if spec.words != Words::Custody {
        proof["form"] = spec.words.name().into();
    }
    let times = [("from", spec.from), ("to", spec.to), ("finished", told.finished)];
    for (key, time) in times {
        if let Some(time) = time {
            proof[key] = time.to_string().into();
        }
    }
    if let Some(log) = log {
        proof["checkpoint"] = told.checkpoint.as_deref().unwrap_or_default().into();
        proof["log_key"] = log.verifier().to_string().into();
        proof["signature"] = sign(&proof, log);
    }
    proof.to_string()
}

fn sign(proof: &Value, log: &Tlog) -> Value {
    let bytes = [CONTEXT, proof.to_string().as_bytes()].concat();
    let mut hex = Vec::with_capacity(128);
    push_hex(&log.key().sign_bytes(&bytes), &mut hex);
    String::from_utf8(hex).unwrap_or_default().into()
}
