//! The log, judged by an implementation that is not ours and in another language (`tests/foreign`).
//!
//! `CUSTODY_FOREIGN_PYTHON` names a Python that has the package; without it: skipped, and said.

use std::path::Path;
use std::process::{Command, Output};

use custody_evidence::note::cosign;
use custody_evidence::{KeyType, NoteKey};

use crate::common::World;

fn judge(python: &str, log: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/verify_tlog.py");
    Command::new(python).arg(script).arg(log).output().unwrap()
}

/// A log with full and partial tiles on two levels, and a checkpoint that a witness has cosigned.
fn write_log(root: &Path) {
    let world = World::new(11, 2, 600);
    world.write_dir(root, 100);
    let witness = NoteKey::new("custody-agent/01", &[9; 32]).unwrap();
    let note = world.checkpoint();
    let line = cosign(&note, &witness, 1_790_000_000).unwrap();
    std::fs::write(root.join("tlog/checkpoint"), format!("{note}{line}")).unwrap();
    let key = witness.verifier(KeyType::Cosignature);
    std::fs::write(root.join("tlog/witness.vkey"), format!("{key}\n")).unwrap();
}

#[test]
fn a_foreign_implementation_verifies_the_log_and_refuses_a_changed_one() {
    let Ok(python) = std::env::var("CUSTODY_FOREIGN_PYTHON") else {
        println!("skipped: CUSTODY_FOREIGN_PYTHON names no Python with the foreign verifier");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    write_log(folder.path());
    let log = folder.path().join("tlog");
    let judged = judge(&python, &log);
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(said.contains("1 witnesses verified"), "{said}");

    for changed in ["checkpoint", "tile/0/001", "tile/entries/000", "witness.vkey"] {
        let path = log.join(changed);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(!judge(&python, &log).status.success(), "{changed}");
        std::fs::write(&path, &good).unwrap();
    }
    assert!(judge(&python, &log).status.success());
}
