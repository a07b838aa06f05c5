use super::*;
use crate::ids::Offset;
use crate::position::{FileIdentity, Fingerprint};
use proptest::prelude::*;

fn text(count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..count {
        out.extend_from_slice(format!("{{\"n\":{number}}}\n").as_bytes());
    }
    out
}

fn placement(seq: u64, prev: Digest) -> Placement {
    Placement {
        agent: AgentId([1; 16]),
        host: "ab".repeat(16),
        key: KeyId([2; 8]),
        stream: StreamId([3; 16]),
        seq: Seq(seq),
        prev,
        sealed: Timestamp::from_micros(1_700_000_000_000_000),
    }
}

fn accounts() -> Accounts {
    Accounts {
        coverage: vec![Coverage {
            file: FileIdentity {
                born_ns: 9,
                dev: 1,
                fingerprint: Fingerprint([4; 16]),
                generation: 0,
                ino: 5,
            },
            from: Offset(0),
            path: "/var/log/auth.log".into(),
            records: 3,
            source: "auth".into(),
            to: Offset(300),
        }],
        books: [("auth".to_owned(), SourceBook { filtered: 0, gap: 0, read: 3, stored: 3 })].into(),
    }
}

fn block(count: usize) -> Block {
    let times = (Timestamp::Y2020, Timestamp::Y2020.plus_micros(5));
    let sealed = Sealer::new().unwrap().seal(&text(count), times, [7; 32]).unwrap();
    let mut block = sealed.place(placement(0, Digest::ZERO), accounts());
    block.sign([8; 64]);
    block
}

#[test]
fn a_block_reads_back_as_it_was_written() {
    for count in [0, 1, 2, 3, 1000, MAX_BLOCK_EVENTS] {
        let block = block(count);
        let read = Block::decode(&block.encode().unwrap()).unwrap();
        assert_eq!(read, block);
        assert_eq!(read.coverage().unwrap(), accounts().coverage);
        let opened = read.open().unwrap();
        assert_eq!(opened.len(), count);
        for (index, event) in opened.events() {
            assert_eq!(event, format!("{{\"n\":{index}}}").as_bytes());
        }
    }
}

#[test]
fn one_event_too_many_is_refused() {
    let times = (Timestamp::Y2020, Timestamp::Y2020);
    assert!(Sealer::new().unwrap().seal(&text(MAX_BLOCK_EVENTS + 1), times, [7; 32]).is_err());
}

/// The format, byte for byte. If this fails, the format has changed and needs a new version.
#[test]
fn the_format_has_not_changed() {
    let golden = include_bytes!("../../tests/golden/block-v1.bin");
    let read = Block::decode(golden).unwrap();
    assert_eq!(read.encode().unwrap(), golden);
    assert_eq!(read.header, block(3).header);
    assert_eq!(read.hash().to_string(), include_str!("../../tests/golden/block-v1.hash").trim());
    let opened = read.open().unwrap();
    assert_eq!(opened.events().count(), 3);
    let sparse = Block::decode(include_bytes!("../../tests/golden/block-v1-sparse.bin")).unwrap();
    assert_eq!(sparse.header, read.header);
    assert_eq!(sparse.open().unwrap().events().count(), 1);
}

#[test]
fn a_sparse_block_keeps_its_header_and_shows_only_what_it_keeps() {
    let full = block(10);
    let sparse = full.to_sparse(|index, _| index == 4).unwrap();
    let bytes = sparse.encode().unwrap();
    let read = Block::decode(&bytes).unwrap();
    assert_eq!(read.hash(), full.hash());
    let opened = read.open().unwrap();
    assert_eq!(opened.len(), 10);
    assert_eq!(opened.events().collect::<Vec<_>>(), [(4, &b"{\"n\":4}"[..])]);
    let none = read.to_sparse(|_, _| false).unwrap();
    assert_eq!(none.open().unwrap().events().count(), 0);
}

#[test]
fn moving_a_block_changes_its_place_and_nothing_that_it_says() {
    let full = block(10);
    let moved = full.moved_to(placement(5, Digest::of(b"x")));
    assert_eq!(moved.header.root, full.header.root);
    assert_eq!(moved.header.seq, Seq(5));
    assert_eq!(moved.signature(), None);
    assert_eq!(
        Block::decode(&moved.encode().unwrap()).unwrap().open().unwrap(),
        full.open().unwrap()
    );
}

#[test]
fn a_header_that_lies_is_refused() {
    let good = block(3);
    let lies: [fn(&mut Header); 6] = [
        |header| header.count = 4,
        |header| header.root = Digest::of(b"other"),
        |header| header.positions = Digest::of(b"other"),
        |header| header.prev = Digest::of(b"other"),
        |header| header.first_time = header.last_time.plus_micros(1),
        |header| header.books.values_mut().for_each(|book| book.read += 1),
    ];
    for lie in lies {
        let mut header = good.header.clone();
        lie(&mut header);
        let block = Block { header_bytes: header.to_bytes(), header, ..good.clone() };
        let refused = Block::decode(&block.encode().unwrap())
            .and_then(|block| block.coverage().map(|_| block))
            .and_then(|block| block.open());
        assert!(refused.is_err());
    }
}

#[test]
fn a_header_in_other_words_is_refused() {
    let block = block(3);
    let spaced =
        String::from_utf8(block.header_bytes.clone()).unwrap().replace(",\"v\"", ", \"v\"");
    assert!(Header::from_bytes(spaced.as_bytes()).is_err());
    let more = String::from_utf8(block.header_bytes.clone())
        .unwrap()
        .replace(",\"v\":1", ",\"v\":1,\"w\":1");
    assert!(Header::from_bytes(more.as_bytes()).is_err());
    assert!(Header::from_bytes(&block.header_bytes).is_ok());
}

#[test]
fn a_body_that_would_unpack_without_end_is_refused_by_its_bound() {
    let huge = zstd::bulk::compress(&vec![b'\n'; 64 * 1024 * 1024], 1).unwrap();
    let block = Block { body: huge, text_len: 10, ..block(3) };
    let read = Block::decode(&block.encode().unwrap()).unwrap();
    assert!(read.open().is_err());
    let block = Block { text_len: u32::MAX, ..block };
    assert!(Block::decode(&block.encode().unwrap()).unwrap().open().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_anywhere_is_found(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut bytes = block(5).encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Block::decode(&bytes).is_err());
    }

    #[test]
    fn a_change_with_a_mended_checksum_is_found_by_the_hashes(
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let original = block(5);
        let mut bytes = original.encode().unwrap();
        let end = bytes.len() - 4;
        let at = at.index(end);
        bytes[at] ^= flip;
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        let found = match Block::decode(&bytes) {
            Err(_) => true,
            // Header and signature are what the signature and the chain are for.
            Ok(block) if block.hash() != original.hash() => true,
            Ok(block) if block.signature() != original.signature() => true,
            Ok(block) => block.coverage().is_err()
                || block.open().map_or(true, |opened| opened == original.open().unwrap()),
        };
        prop_assert!(found);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Block::decode(&bytes).is_err());
    }
}

/// Writes the golden files anew. Run by hand when a new format version is made:
/// `CUSTODY_WRITE_GOLDEN=1 cargo test -p custody-event golden`.
#[test]
fn golden_files_are_written_on_demand() {
    if std::env::var_os("CUSTODY_WRITE_GOLDEN").is_none() {
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::create_dir_all(&folder).unwrap();
    let full = block(3);
    std::fs::write(folder.join("block-v1.bin"), full.encode().unwrap()).unwrap();
    std::fs::write(folder.join("block-v1.hash"), format!("{}\n", full.hash())).unwrap();
    let sparse = full.to_sparse(|index, _| index == 1).unwrap();
    std::fs::write(folder.join("block-v1-sparse.bin"), sparse.encode().unwrap()).unwrap();
}
