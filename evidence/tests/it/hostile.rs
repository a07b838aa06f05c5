//! Bytes from strangers: readers refuse or report, and never panic.

use custody_evidence::bundle::BundleReader;
use custody_evidence::proof::EventProof;
use custody_evidence::segments::Frames;
use custody_evidence::verify::{Trust, verify_bundle};
use custody_evidence::{Checkpoint, Entry, VerifierKey};
use proptest::prelude::*;

use crate::common::World;

/// Everything that decodes bytes, on these bytes.
fn feed(bytes: &[u8]) {
    let _ = Entry::decode(bytes);
    let _ = EventProof::from_json(bytes);
    let _ = verify_bundle(bytes, "bytes", &Trust::default());
    let mut frames = Frames::new(bytes);
    while let Ok(Some(_)) = frames.next_frame() {}
    let mut reader = BundleReader::new(bytes).unwrap();
    while let Ok(Some(_)) = reader.next_item() {}
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<VerifierKey>();
        let _ = Checkpoint::parse(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(0_u8.., 0..400)) {
        feed(&bytes);
        feed(&[b"CUSTBND1", &bytes[..]].concat());
    }

    #[test]
    fn nothing_that_is_nearly_right_makes_a_reader_panic(
        which in 0_usize..3, at in 0_usize.., with in 0_u8.., cut in 0_usize..,
    ) {
        let world = World::new(61, 1, 3);
        let entry = world.entries[which % world.entries.len()].clone();
        let bundle = world.spool_bundle(0);
        for mut bytes in [entry, bundle] {
            let len = bytes.len();
            bytes[at % len] = with;
            feed(&bytes);
            bytes.truncate(cut % len);
            feed(&bytes);
        }
    }
}

#[test]
fn lengths_that_lie_cost_no_memory() {
    // A record that claims 4 GiB, one of the largest that is allowed, and a bundle of nothing else.
    for claimed in [u32::MAX, 7 * 1024 * 1024] {
        let mut bytes = b"CUSTBND1CREC\x08\0\0\0".to_vec();
        bytes.extend_from_slice(&claimed.to_le_bytes());
        bytes.extend_from_slice(&crate::common::crc32(&bytes[8..]).to_le_bytes());
        bytes.extend_from_slice(b"short");
        let report = verify_bundle(&bytes[..], "bytes", &Trust::default()).unwrap();
        assert!(!report.verified);
    }
}
