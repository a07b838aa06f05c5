//! What nobody has touched is never accused.

use custody_evidence::verify::{Trust, verify_bundle, verify_dir};

use crate::common::{GAP, World};

fn trust(world: &World) -> Trust {
    Trust { log: Some(world.vkey()), ..Trust::default() }
}

#[test]
fn untouched_evidence_in_every_form_is_never_accused() {
    for seed in 0..60 {
        let agents = 1 + usize::try_from(seed % 4).unwrap();
        let blocks = 3 + usize::try_from(seed * 7 % 90).unwrap();
        let world = World::new(seed, agents, blocks);
        let size = world.log.size();
        for (name, bytes, whole) in [
            ("log", world.log_bundle(0, size, |_| true), true),
            ("half", world.log_bundle(size / 2, size, |_| true), false),
            ("filtered", world.log_bundle(0, size, |event| event[event.len() / 2] % 3 == 0), true),
            ("empty", world.log_bundle(size / 3, size / 3, |_| true), false),
            ("streams", world.streams_bundle(), true),
        ] {
            for trust in [trust(&world), Trust::default()] {
                let report = verify_bundle(&bytes[..], name, &trust).unwrap();
                assert!(report.verified, "{name} of {seed}: {}", report.to_text());
                if whole {
                    assert_eq!(report.events + report.withheld, world.events());
                }
            }
        }
        let who = usize::try_from(seed).unwrap() % agents;
        let spool = world.spool_bundle(who);
        if who > 0 {
            let agent = Some(world.agents[who].first_key.public());
            let report = verify_bundle(&spool[..], "spool", &Trust { agent, ..Trust::default() });
            let report = report.unwrap();
            assert!(report.verified, "spool of {seed}: {}", report.to_text());
        }
        let folder = tempfile::tempdir().unwrap();
        world.write_dir(folder.path(), 1 + usize::try_from(seed).unwrap() % 11);
        for trust in [trust(&world), Trust::default()] {
            let report = verify_dir(folder.path(), &trust).unwrap();
            assert!(report.verified, "directory of {seed}: {}", report.to_text());
            assert_eq!(report.events, world.events());
        }
    }
}

#[test]
fn the_report_says_what_is_complete_what_the_agent_missed_and_what_is_not_known() {
    let world = World::new(7, 2, 40);
    let bytes =
        world.log_bundle(0, world.log.size(), |event| !event.starts_with(b"{\"action\":\"c"));
    let report = verify_bundle(&bytes[..], "bundle", &Trust::default()).unwrap();
    assert!(report.verified);
    assert!(report.withheld > 0 && report.events > 0 && report.gap_count == report.events);
    assert!(report.streams.iter().all(|stream| stream.complete));
    let text = report.to_text();
    for part in
        ["VERIFIED", GAP, "complete", "not known: whether log.example.org", "--key", "filtered by"]
    {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(json["verified"], true);
    assert_eq!(json["gaps"][0]["message"], GAP);
}

#[test]
fn an_older_checkpoint_is_continued_or_the_rewriting_is_told() {
    let world = World::new(11, 2, 60);
    let size = world.log.size();
    let folder = tempfile::tempdir().unwrap();
    world.write_dir(folder.path(), 10);
    let bundle = world.log_bundle(0, size, |_| true);
    let part = world.log_bundle(size - 5, size, |_| true);
    for old in [1, size / 2, size - 1, size] {
        let checkpoint = Some(world.checkpoint_at(old));
        let trust = Trust { log: Some(world.vkey()), checkpoint, ..Trust::default() };
        let report = verify_dir(folder.path(), &trust).unwrap();
        assert!(report.verified && report.notes.iter().any(|note| note.contains("continues")));
        let report = verify_bundle(&bundle[..], "bundle", &trust).unwrap();
        assert!(report.verified && report.notes.iter().any(|note| note.contains("continues")));
        let report = verify_bundle(&part[..], "part", &trust).unwrap();
        let continued = report.notes.iter().any(|note| note.contains("continues"));
        assert!(report.verified && continued == (old == size / 2 || old == size), "{old}");
    }
    // The same keys, another history: only the older checkpoint tells.
    let other = World::new(11, 2, 61);
    let checkpoint = Some(other.checkpoint());
    let trust = Trust { log: Some(world.vkey()), checkpoint, ..Trust::default() };
    assert!(!verify_dir(folder.path(), &trust).unwrap().verified);
}

#[test]
fn blocks_that_retention_has_made_sparse_still_verify_and_are_counted() {
    let mut world = World::new(13, 2, 60);
    let mut gone = 0;
    for (at, block) in &mut world.blocks {
        let before = u64::from(block.header.count);
        let sparse = block.to_sparse(|index, _| at % 3 == 0 && index % 2 == 0).unwrap();
        let kept = sparse.open().unwrap().events().count();
        gone += before - u64::try_from(kept).unwrap();
        *block = sparse;
    }
    let folder = tempfile::tempdir().unwrap();
    world.write_dir(folder.path(), 9);
    let report = verify_dir(folder.path(), &trust(&world)).unwrap();
    assert!(report.verified, "{}", report.to_text());
    assert_eq!((report.events + report.withheld, report.withheld), (world.events(), gone));
    let bundle = world.log_bundle(0, world.log.size(), |event| event[60] % 2 == 0);
    let report = verify_bundle(&bundle[..], "bundle", &trust(&world)).unwrap();
    assert!(report.verified && report.withheld > gone, "{}", report.to_text());
}

#[test]
fn a_witness_that_has_cosigned_is_named_and_one_that_has_not() {
    use custody_evidence::{KeyType, NoteKey};
    let world = World::new(14, 1, 9);
    let folder = tempfile::tempdir().unwrap();
    world.write_dir(folder.path(), 9);
    let (one, two) =
        (NoteKey::new("one", &[1; 32]).unwrap(), NoteKey::new("two", &[2; 32]).unwrap());
    let note = world.checkpoint();
    let line = custody_evidence::note::cosign(&note, &one, 1_790_000_000).unwrap();
    std::fs::write(folder.path().join("tlog/checkpoint"), format!("{note}{line}")).unwrap();
    let witnesses = vec![one.verifier(KeyType::Cosignature), two.verifier(KeyType::Cosignature)];
    let report = verify_dir(folder.path(), &Trust { witnesses, ..trust(&world) }).unwrap();
    assert!(report.verified, "{}", report.to_text());
    assert!(report.notes.iter().any(|note| note.starts_with("one has cosigned")));
    assert!(report.unknown.iter().any(|unknown| unknown.contains("two was shown")));
}
