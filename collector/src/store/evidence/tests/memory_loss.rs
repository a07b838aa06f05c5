use super::*;
use crate::testing::TestFile;

/// Stores the stream's next block, with these records.
fn put(
    log: &EvidenceLog,
    stream: &mut TestStream,
    file: &TestFile,
    at: u64,
    lines: &[&str],
) -> u64 {
    let end = stream.records(file, at, lines);
    store(log, &stream.seal());
    end
}

/// The messages that are not held, over the whole log.
fn visible(log: &EvidenceLog) -> Vec<String> {
    let mut found = Vec::new();
    for stored in all(log) {
        let opened = stored.block.open().unwrap();
        for (index, event) in opened.events() {
            if !stored.receipt.is_held(index) {
                let event: serde_json::Value = serde_json::from_slice(event).unwrap();
                found.push(event["message"].as_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn held(log: &EvidenceLog, stream: &TestStream) -> u64 {
    log.with_ledger(|ledger| {
        ledger.stream(&(stream.agent, stream.stream)).unwrap().held.values().sum()
    })
}

/// Runs a story, then says the same again from a log that was made again from its segments.
fn tell(story: impl Fn(&EvidenceLog)) -> Vec<String> {
    let mut told = Vec::new();
    for segment_bytes in [LARGE, TINY] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("evidence");
        let log = open(&root, segment_bytes);
        story(&log);
        told.push(visible(&log));
        let before = log.with_ledger(|ledger| format!("{ledger:?}").len());
        drop(log);
        for path in segments(&root) {
            let sidecar = path.with_extension("idx");
            if sidecar.is_file() {
                std::fs::remove_file(sidecar).unwrap();
            }
        }
        let log = open(&root, segment_bytes);
        assert_eq!(log.with_ledger(|ledger| format!("{ledger:?}").len()), before);
        drop(log);
        let log = open(&root, segment_bytes);
        assert_eq!(log.with_ledger(|ledger| format!("{ledger:?}").len()), before, "sidecars");
    }
    assert_eq!(told[0], told[1]);
    told.remove(0)
}

#[test]
fn a_file_read_again_after_memory_loss_is_counted_once() {
    let file = TestFile::new(1, "a");
    let told = tell(|log| {
        let mut old = TestStream::new(1, 1, "aa");
        let at = put(log, &mut old, &file, 0, &["a", "b"]);
        put(log, &mut old, &file, at, &["c"]);
        let mut new = TestStream::new(1, 2, "aa");
        // Other block borders, and one record more.
        let at = put(log, &mut new, &file, 0, &["a"]);
        let at = put(log, &mut new, &file, at, &["b", "c", "d"]);
        put(log, &mut new, &file, at, &["e"]);
        assert_eq!(held(log, &new), 3);
        assert_eq!(held(log, &old), 0);
    });
    assert_eq!(told, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_new_agent_id_on_the_same_host_makes_no_difference_but_another_host_does() {
    let file = TestFile::new(1, "a");
    let told = tell(|log| {
        put(log, &mut TestStream::new(1, 1, "aa"), &file, 0, &["a", "b"]);
        put(log, &mut TestStream::new(2, 2, "aa"), &file, 0, &["a", "b"]);
        put(log, &mut TestStream::new(3, 3, "bb"), &file, 0, &["a", "b"]);
    });
    assert_eq!(told, ["a", "b", "a", "b"]);
}

#[test]
fn other_bytes_at_an_equal_offset_are_never_held() {
    let file = TestFile::new(1, "banner");
    let told = tell(|log| {
        put(log, &mut TestStream::new(1, 1, "aa"), &file, 0, &["banner", "one", "two"]);
        // The file was emptied and begun again while the agent lost its memory.
        put(log, &mut TestStream::new(1, 2, "aa"), &file, 0, &["banner", "eno", "owt"]);
    });
    assert_eq!(told, ["banner", "one", "two", "banner", "eno", "owt"]);
}

#[test]
fn equal_bytes_at_equal_offsets_after_a_truncation_are_new_records() {
    let file = TestFile::new(1, "tick");
    let ticks = ["tick", "tick", "tick"];
    let told = tell(|log| {
        put(log, &mut TestStream::new(1, 1, "aa"), &file, 0, &ticks);
        let mut new = TestStream::new(1, 2, "aa");
        // The same content: read again. Then the file is emptied and written again.
        put(log, &mut new, &file, 0, &ticks);
        put(log, &mut new, &file.generation(1), 0, &ticks);
        assert_eq!(held(log, &new), 3);
    });
    assert_eq!(told.len(), 6);
}

#[test]
fn a_truncation_within_one_block_is_seen() {
    let file = TestFile::new(1, "tick");
    let told = tell(|log| {
        put(log, &mut TestStream::new(1, 1, "aa"), &file, 0, &["tick", "tick"]);
        let mut new = TestStream::new(1, 2, "aa");
        new.records(&file, 0, &["tick", "tick"]);
        new.records(&file.generation(1), 0, &["tick", "tick"]);
        store(log, &new.seal());
        assert_eq!(held(log, &new), 2);
    });
    assert_eq!(told.len(), 4);
}

#[test]
fn a_fresh_count_of_generations_meets_the_newest_content() {
    let file = TestFile::new(1, "tick");
    let told = tell(|log| {
        let mut old = TestStream::new(1, 1, "aa");
        put(log, &mut old, &file, 0, &["tick", "a", "b"]);
        put(log, &mut old, &file.generation(1), 0, &["tick", "c"]);
        let mut new = TestStream::new(1, 2, "aa");
        // What it calls 0 is what the old one called 1; then the next content.
        put(log, &mut new, &file, 0, &["tick", "c", "d"]);
        put(log, &mut new, &file.generation(1), 0, &["tick", "c"]);
        assert_eq!(held(log, &new), 2);
    });
    assert_eq!(told, ["tick", "a", "b", "tick", "c", "d", "tick", "c"]);
}

#[test]
fn a_long_old_content_does_not_swallow_a_short_new_one_that_grows() {
    let file = TestFile::new(1, "tick");
    let told = tell(|log| {
        let mut old = TestStream::new(1, 1, "aa");
        put(log, &mut old, &file, 0, &["tick"; 8]);
        put(log, &mut old, &file.generation(1), 0, &["tick"; 2]);
        let mut new = TestStream::new(1, 2, "aa");
        let at = put(log, &mut new, &file, 0, &["tick"; 2]);
        put(log, &mut new, &file, at, &["tick"; 3]);
        assert_eq!(held(log, &new), 2);
    });
    assert_eq!(told.len(), 13);
}

#[test]
fn an_agent_put_back_from_a_backup_meets_what_it_had_sent_since() {
    let file = TestFile::new(1, "a");
    let told = tell(|log| {
        let mut old = TestStream::new(1, 1, "aa");
        let backup = put(log, &mut old, &file, 0, &["a", "b"]);
        put(log, &mut old, &file, backup, &["c", "d"]);
        put(log, &mut old, &file.generation(1), 0, &["a", "x"]);
        // It goes on where the backup stood, in a new stream, with its count of generations.
        let mut new = TestStream::new(1, 2, "aa");
        put(log, &mut new, &file, backup, &["c", "d"]);
        put(log, &mut new, &file.generation(1), 0, &["a", "x", "y"]);
        assert_eq!(held(log, &new), 4);
    });
    assert_eq!(told, ["a", "b", "c", "d", "a", "x", "y"]);
}

#[test]
fn three_lives_of_an_agent_with_ranges_that_overlap_in_parts() {
    let file = TestFile::new(1, "a");
    let lines = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let told = tell(|log| {
        let mut first = TestStream::new(1, 1, "aa");
        put(log, &mut first, &file, 0, &lines[..3]);
        // The second life begins in the middle, and goes further.
        let mut second = TestStream::new(1, 2, "aa");
        put(log, &mut second, &file, 4, &lines[2..6]);
        assert_eq!(held(log, &second), 1);
        // The third reads all, in blocks that match neither.
        let mut third = TestStream::new(1, 3, "aa");
        let at = put(log, &mut third, &file, 0, &lines[..2]);
        let at = put(log, &mut third, &file, at, &lines[2..7]);
        put(log, &mut third, &file, at, &lines[7..]);
        assert_eq!(held(log, &third), 6);
    });
    assert_eq!(told, lines);
}

#[test]
fn nothing_is_held_within_one_stream_nor_from_a_younger_one() {
    let file = TestFile::new(1, "a");
    let told = tell(|log| {
        let mut old = TestStream::new(1, 1, "aa");
        let mut new = TestStream::new(1, 2, "aa");
        old.own_event("start");
        store(log, &old.seal());
        put(log, &mut new, &file, 0, &["a"]);
        put(log, &mut new, &file, 0, &["a"]);
        put(log, &mut old, &file, 0, &["a"]);
        assert_eq!((held(log, &old), held(log, &new)), (0, 0));
    });
    assert_eq!(told, ["start", "a", "a", "a"]);
}

#[test]
fn an_agents_own_events_are_never_held() {
    let told = tell(|log| {
        for number in 1..4 {
            let mut stream = TestStream::new(1, number, "aa");
            stream.own_event("agent.start");
            store(log, &stream.seal());
        }
    });
    assert_eq!(told.len(), 3);
}

#[test]
fn a_replay_under_way_beside_its_original_is_decided_by_the_logs_order() {
    let file = TestFile::new(1, "0");
    let lines: Vec<String> = (0..400).map(|number| number.to_string()).collect();
    let blocks = |number: u8| {
        let mut stream = TestStream::new(1, number, "aa");
        let mut at = 0;
        let sealed: Vec<Block> = lines
            .chunks(10)
            .map(|chunk| {
                let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
                at = stream.records(&file, at, &chunk);
                stream.seal()
            })
            .collect();
        sealed
    };
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("evidence"), LARGE);
    let (old, new) = (blocks(1), blocks(2));
    store(&log, &old[0]);
    std::thread::scope(|scope| {
        scope.spawn(|| old[1..].iter().for_each(|block| store(&log, block)));
        scope.spawn(|| new.iter().for_each(|block| store(&log, block)));
    });
    // Held is exactly what stands before in the log.
    let mut seen = std::collections::HashSet::new();
    for stored in all(&log) {
        let is_new = stored.block.header.stream.0[0] == 2;
        for (index, event) in stored.block.open().unwrap().events() {
            let event: serde_json::Value = serde_json::from_slice(event).unwrap();
            let id = event["id"].as_str().unwrap().to_owned();
            assert_eq!(stored.receipt.is_held(index), is_new && seen.contains(&id));
            if !is_new {
                seen.insert(id);
            }
        }
    }
}
