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
    let golden = include_bytes!("../../tests/golden/block-v1-slim.bin");
    let slim = Block::decode(golden).unwrap();
    assert_eq!(slim.encode().unwrap(), golden);
    assert_eq!(slim.open().unwrap(), slim_block().open().unwrap());
    let golden = include_bytes!("../../tests/golden/block-v1-framed.bin");
    let framed = Block::decode(golden).unwrap();
    assert!(framed.body.is_framed);
    assert_eq!(framed.encode().unwrap(), golden);
    assert_eq!(framed.open().unwrap(), block(300).open().unwrap());
}

/// A block of three events, two of them with the hash of their record.
fn slim_block() -> Block {
    let event = |raw: &str| {
        format!("{{\"raw\":\"{raw}\",\"raw_sha256\":\"{}\"}}\n", Digest::of(raw.as_bytes()))
    };
    let text = [event("Käse"), "{\"n\":1}\n".to_owned(), event("")].concat();
    let times = (Timestamp::Y2020, Timestamp::Y2020.plus_micros(5));
    let sealed = Sealer::new().unwrap().seal(text.as_bytes(), times, [7; 32]).unwrap();
    let mut block = sealed.place(placement(0, Digest::ZERO), accounts());
    block.sign([8; 64]);
    block
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
fn hashes_that_are_left_out_are_there_again_when_a_block_is_opened() {
    let (whole, events) = long_block(true, false);
    let bytes = whole.encode().unwrap();
    let read = Block::decode(&bytes).unwrap();
    assert_eq!(read, whole);
    let opened = read.open().unwrap();
    assert!(opened.events().map(|(_, event)| event).eq(events.iter().map(Vec::as_slice)));
    assert_eq!(read.open_unverified().unwrap(), opened);
    assert_eq!(read.leaves().unwrap().len(), events.len());
    let sparse = read.to_sparse(|index, _| index == 7).unwrap();
    let sparse = Block::decode(&sparse.encode().unwrap()).unwrap();
    assert_eq!(sparse.open().unwrap().events().collect::<Vec<_>>(), [(7, &events[7][..])]);
    let mut lie = bytes;
    lie[6] = 0;
    let crc = crc32fast::hash(&lie[..lie.len() - 4]).to_le_bytes();
    let end = lie.len() - 4;
    lie[end..].copy_from_slice(&crc);
    assert!(Block::decode(&lie).unwrap().open().is_err());
}

/// As long as a block may be, and packed so well that packing it again makes it longer than an agent
/// may send.
fn packed_well() -> Block {
    let record = |number: u64| {
        let digests = (0..128).map(|part| Digest::of(&(number * 128 + part).to_le_bytes()));
        digests.map(|digest| digest.to_string()).collect::<String>()[..8 * 1024 - 18].to_owned()
    };
    let text: String = (0..MAX_BLOCK_EVENTS as u64)
        .map(|number| format!("{{\"n\":{number:04},\"r\":\"{}\"}}\n", record(number % 128)))
        .collect();
    assert_eq!(text.len(), MAX_BLOCK_RAW_BYTES);
    let times = (Timestamp::Y2020, Timestamp::Y2020.plus_micros(5));
    let mut sealed = Sealer::new().unwrap().seal(text.as_bytes(), times, [7; 32]).unwrap();
    let bytes = zstd::bulk::compress(text.as_bytes(), 6).unwrap();
    sealed.body = Body { bytes, is_framed: false, ..sealed.body };
    sealed.place(placement(0, Digest::ZERO), accounts())
}

#[test]
fn any_block_that_an_agent_may_send_can_be_made_sparse() {
    let full = packed_well();
    assert!(full.encode().unwrap().len() < MAX_BLOCK_BYTES);
    let opened = full.open().unwrap();
    for keep in [1, 2, 2_000] {
        let sparse = full.to_sparse(|index, _| index % keep == 0).unwrap();
        let bytes = sparse.encode().unwrap();
        assert!(keep > 1 || bytes.len() > MAX_BLOCK_BYTES);
        let read = Block::decode(&bytes).unwrap();
        let shown = read.open().unwrap();
        assert_eq!(shown.event(0), opened.event(0));
        assert_eq!(shown.events().count(), MAX_BLOCK_EVENTS.div_ceil(keep as usize));
        assert!(read.to_sparse(|_, _| false).unwrap().encode().unwrap().len() < MAX_BLOCK_BYTES);
    }
    let long = Block { content: full.content.clone(), ..full.to_sparse(|_, _| true).unwrap() };
    assert!(long.encode().is_err(), "what is not sparse may not be so long");
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
    for is_slim in [false, true] {
        for text_len in [10, u32::MAX] {
            for is_framed in [false, true] {
                let body = Body { bytes: huge.clone(), is_slim, is_framed, text_len };
                let block = Block { body, ..block(3) };
                let read = Block::decode(&block.encode().unwrap()).unwrap();
                assert!(read.open().is_err());
                assert!(pick(&mut FrameReader::default(), &read, &[0]).is_err());
            }
        }
    }
    // Every record of the slim text swells when its hash comes back.
    let slim = b"\"raw\":\"\",\"raw_sha256\":\"\"\n".repeat(100);
    let bytes = zstd::bulk::compress(&slim, 1).unwrap();
    let text_len = u32::try_from(slim.len()).unwrap();
    let body = Body { bytes, is_slim: true, is_framed: false, text_len };
    assert!(Block { body, ..block(3) }.open().is_err());
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
    std::fs::write(folder.join("block-v1-slim.bin"), slim_block().encode().unwrap()).unwrap();
    std::fs::write(folder.join("block-v1-framed.bin"), block(300).encode().unwrap()).unwrap();
}

/// Events of different lengths, some frames of them, with the
/// hashes of their records or without.
fn long_block(hashes: bool, sparse: bool) -> (Block, Vec<Vec<u8>>) {
    let events: Vec<Vec<u8>> = (0..1_000_usize)
        .map(|number| {
            let raw = "abc\t".repeat(number % 900).replace('\t', "\\t");
            let bytes = raw.replace("\\t", "\t");
            let hash =
                if hashes { Digest::of(bytes.as_bytes()).to_string() } else { String::new() };
            let hash = if hashes { format!(",\"raw_sha256\":\"{hash}\"") } else { hash };
            format!("{{\"n\":{number},\"raw\":\"{raw}\"{hash}}}").into_bytes()
        })
        .collect();
    let text: Vec<u8> = events.iter().flat_map(|event| [event, &b"\n"[..]].concat()).collect();
    let times = (Timestamp::Y2020, Timestamp::Y2020.plus_micros(5));
    let sealed = Sealer::new().unwrap().seal(&text, times, [7; 32]).unwrap();
    let block = sealed.place(placement(0, Digest::ZERO), accounts());
    (if sparse { block.to_sparse(|index, _| index % 3 != 0).unwrap() } else { block }, events)
}

/// The events at these indices, each out of its frame.
fn pick(
    reader: &mut FrameReader,
    block: &Block,
    indices: &[u32],
) -> Result<Vec<Option<Vec<u8>>>, Malformed> {
    indices.iter().map(|index| reader.read(block, EventFrame::of(*index))?.event(*index)).collect()
}

#[test]
fn single_events_are_picked_as_the_whole_block_has_them() {
    let mut reader = FrameReader::default();
    for (hashes, sparse) in [(false, false), (false, true), (true, false), (true, true)] {
        let (block, events) = long_block(hashes, sparse);
        assert_eq!((block.body.is_slim, block.body.is_framed), (hashes, true));
        let opened = block.open().unwrap();
        let every: Vec<u32> = (0..1_000).collect();
        let borders = [127, 128, 255, 256, 895, 896];
        for indices in [
            &[][..],
            &[0],
            &[1],
            &[999],
            &[5, 6, 700, 998],
            &borders,
            &every,
            &[1_000],
            &[1_023, 1_024],
            &[1, u32::MAX],
        ] {
            let whole: Vec<_> =
                indices.iter().map(|index| opened.event(*index).map(<[u8]>::to_vec)).collect();
            assert_eq!(
                pick(&mut reader, &block, indices).unwrap(),
                whole,
                "{sparse} {}",
                indices.len()
            );
        }
        assert_eq!(pick(&mut reader, &block, &[1]).unwrap(), [Some(events[1].clone())]);
    }
}

#[test]
fn a_body_has_as_many_frames_as_its_events_fill() {
    let mut reader = FrameReader::default();
    for (count, frames) in [(1, 1), (127, 1), (128, 1), (129, 2), (256, 2), (257, 3), (1_000, 8)] {
        let block = block(count);
        assert_eq!(block.body.is_framed, frames > 1);
        assert_eq!(frames_of(&block.body.bytes).len(), frames);
        let read = Block::decode(&block.encode().unwrap()).unwrap();
        assert_eq!(read, block);
        let opened = read.open().unwrap();
        for index in [0, count / 2, count - 1, count] {
            let index = u32::try_from(index).unwrap();
            let event = opened.event(index).map(<[u8]>::to_vec);
            assert_eq!(pick(&mut reader, &read, &[index]).unwrap(), [event]);
        }
    }
}

fn frames_of(mut body: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let len = zstd::zstd_safe::find_frame_compressed_size(body).unwrap();
        let (frame, rest) = body.split_at(len);
        frames.push(frame);
        body = rest;
    }
    frames
}

#[test]
fn frames_of_other_lengths_are_refused_where_they_are_met() {
    let block = block(300);
    let body = |frames: &[&[u8]]| {
        let bytes = frames.concat();
        Block { body: Body { bytes, ..block.body.clone() }, ..block.clone() }
    };
    let frames = frames_of(&block.body.bytes);
    let text = block.unpack().unwrap();
    let ends: Vec<usize> = memchr::memchr_iter(b'\n', &text).map(|at| at + 1).collect();
    let frame = |events: std::ops::Range<usize>| {
        let begin = events.start.checked_sub(1).map_or(0, |before| ends[before]);
        zstd::bulk::compress(&text[begin..ends[events.end - 1]], 1).unwrap()
    };
    let mut reader = FrameReader::default();
    let again = body(&[&frame(0..128), &frame(128..256), &frame(256..300)]);
    assert_eq!(again.open().unwrap(), block.open().unwrap());
    let other = [
        body(&[&frame(0..127), &frame(127..255), &frame(255..300)]),
        body(&[&frame(0..129), &frame(129..257), &frame(257..300)]),
        body(&[&frame(0..300)]),
        body(&[&frame(0..128), &frame(128..300)]),
    ];
    for wrong in &other {
        assert!(wrong.open().is_err());
        assert!(wrong.open_unverified().is_err());
        assert!(pick(&mut reader, wrong, &[0, 130]).is_err());
    }
    let empty = zstd::bulk::compress(b"", 1).unwrap();
    let cut = &frames[2][..frames[2].len() - 1];
    for wrong in [
        body(&[frames[0], frames[1], frames[2], &empty]),
        body(&[frames[0], frames[1], cut]),
        body(&[frames[0], frames[1], b"no frame at all"]),
        body(&[]),
    ] {
        assert!(wrong.open().is_err());
        assert!(pick(&mut reader, &wrong, &[299]).is_err());
    }
    assert!(body(&[frames[0], frames[1]]).open().is_err());
}

#[test]
fn what_is_picked_is_what_is_opened_however_the_body_was_packed() {
    let text = text(4);
    let (half, rest) = text.split_at(text.len() / 2);
    let frame = |text: &[u8]| zstd::bulk::compress(text, 1).unwrap();
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &frame(&text)].concat();
    // A frame of one raw block that names a window of 2^28 bytes, and one of 2^41.
    let windowed = |window: u8| {
        let size = u32::try_from(text.len()).unwrap() << 3 | 1;
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0, window];
        [&head[..], &size.to_le_bytes()[..3], &text].concat()
    };
    let bodies = [
        [frame(half), frame(rest)].concat(),
        skipped,
        [frame(b""), frame(&text)].concat(),
        windowed((28 - 10) << 3),
        windowed(31 << 3),
        frame(&text),
    ];
    let mut reader = FrameReader::default();
    let mut good = 0;
    for (bytes, is_framed) in bodies.iter().flat_map(|bytes| [(bytes, false), (bytes, true)]) {
        let text_len = u32::try_from(text.len()).unwrap();
        let body = Body { bytes: bytes.clone(), is_slim: false, is_framed, text_len };
        let block = Block { body, ..block(4) };
        let whole = block
            .open_unverified()
            .map(|opened| [0, 3].map(|index| opened.event(index).map(<[u8]>::to_vec)).to_vec());
        good += u32::from(whole.is_ok());
        assert_eq!(pick(&mut reader, &block, &[0, 3]).ok(), whole.ok());
    }
    assert!(good >= 2);
}

#[test]
fn a_sparse_line_that_is_too_short_is_no_event() {
    for line in [&b"e\n"[..], b"\n", b"e00 {}\n"] {
        let bytes = zstd::bulk::compress(line, 1).unwrap();
        let text_len = u32::try_from(line.len()).unwrap();
        let body = Body { bytes, is_slim: false, is_framed: false, text_len };
        let block = Block { content: Content::Sparse, body, ..block(1) };
        assert!(block.open().is_err());
        assert_eq!(block.open_unverified().unwrap().event(0), None);
        assert_eq!(pick(&mut FrameReader::default(), &block, &[0]).unwrap(), [None]);
    }
}

#[test]
fn picking_from_a_body_that_is_too_short_or_damaged_fails_where_it_is_met() {
    let (block, _) = long_block(false, false);
    let with = |bytes| Body { bytes, ..block.body.clone() };
    let mut reader = FrameReader::default();
    let short = Block {
        body: with(block.body.bytes[..block.body.bytes.len() / 2].to_vec()),
        ..block.clone()
    };
    assert!(pick(&mut reader, &short, &[999]).is_err());
    let none = Block { body: with(Vec::new()), ..block.clone() };
    assert!(pick(&mut reader, &none, &[0]).is_err());
    let other = Block { body: with(b"no frame at all".to_vec()), ..block.clone() };
    assert!(pick(&mut reader, &other, &[0]).is_err());
    assert!(
        pick(&mut reader, &block, &[0]).unwrap()[0].is_some(),
        "the reader is good for the next"
    );
}
