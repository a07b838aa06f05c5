//! One test for each hazard that has lost, doubled or mixed other people's lines.

use super::*;
use custody_event::position::Fingerprint;

#[test]
fn lines_come_whole_and_a_started_one_waits_for_its_end() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "one\ntwo\nthr");
    bench.settle();
    bench.expect(&["one", "two"]);
    bench.scans(5);
    bench.append("a.log", "ee\n");
    bench.settle();
    bench.expect(&["one", "two", "three"]);
    let last = bench.chunks().last().unwrap();
    assert_eq!((last.from.get(), last.after.offset.get()), (8, 14));
    assert_eq!(last.after.tail, Fingerprint::of(b"one\ntwo\nthree\n"));
    assert_eq!(last.after.identity.fingerprint, Fingerprint::of(b"one"));
}

#[test]
fn a_line_split_at_every_byte_is_one_record() {
    let text = "h\u{e4}llo w\u{f6}rld \u{1f980} end\r\nnext\n".as_bytes();
    for split in 0..=text.len() {
        let mut bench = Bench::new("a.log");
        bench.append("a.log", &text[..split]);
        bench.settle();
        bench.append("a.log", &text[split..]);
        bench.settle();
        let bytes: Vec<u8> = bench.chunks().flat_map(|chunk| chunk.bytes.clone()).collect();
        assert_eq!(bytes, text, "split at {split}");
        assert_eq!(bench.lines().len(), 2);
    }
}

#[test]
fn any_bytes_pass_as_they_are() {
    let mut bench = Bench::new("a.log");
    let text = b"\0nul\0\n\xff\xfe\x80 not utf-8\ncr\r\n\r\n\n";
    bench.append("a.log", text);
    bench.settle();
    let bytes: Vec<u8> = bench.chunks().flat_map(|chunk| chunk.bytes.clone()).collect();
    assert_eq!(bytes, text);
}

#[test]
fn a_ten_megabyte_line_comes_in_numbered_pieces_and_the_next_line_is_seen() {
    let mut bench = Bench::new("a.log");
    let long: Vec<u8> = (0..10_000_000_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    bench.append("a.log", "before\n");
    bench.append("a.log", &long);
    bench.settle();
    bench.restart();
    bench.append("a.log", "!\nafter\n");
    bench.settle();
    let mut whole = Vec::new();
    let mut next = 0;
    for chunk in bench.chunks() {
        assert!(chunk.bytes.len() <= MAX_CHUNK_BYTES);
        if let Framing::Segment { number } = chunk.framing {
            assert_eq!(number, next);
            assert_eq!(chunk.from.get(), 7 + u64::try_from(whole.len()).unwrap());
            assert!(!chunk.bytes.is_empty() && chunk.bytes.len() <= 16 * 1024);
            next += 1;
            whole.extend_from_slice(&chunk.bytes);
        }
    }
    assert!(whole == [&long[..], b"!"].concat());
    assert_eq!(bench.lines().last().unwrap(), "after");
    assert_eq!(bench.lines()[0], "before");
}

#[test]
fn an_over_long_first_line_is_read_before_it_ends() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "x".repeat(20_000));
    bench.settle();
    assert_eq!(bench.chunks().count(), 1);
    bench.append("a.log", "y\nz\n");
    bench.settle();
    let kinds: Vec<Framing> = bench.chunks().map(|chunk| chunk.framing).collect();
    assert_eq!(
        kinds,
        [Framing::Segment { number: 0 }, Framing::Segment { number: 1 }, Framing::Lines]
    );
}

#[test]
fn a_chunk_keeps_the_contract_s_limits() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..50_000));
    bench.append("a.log", format!("{}\n", "x".repeat(9_000)).repeat(100));
    bench.settle();
    assert_eq!(bench.lines().len(), 50_100);
    assert_eq!(bench.lines()[..50_000], expected(0..50_000));
    for chunk in bench.chunks() {
        assert!(chunk.bytes.len() <= MAX_CHUNK_BYTES);
        assert!(records(chunk).len() <= MAX_CHUNK_RECORDS);
    }
}

#[test]
fn growth_between_and_during_rounds_is_seen() {
    let mut bench = Bench::new("a.log");
    for n in 0..300 {
        bench.append("a.log", numbered(n * 7..n * 7 + 7));
        bench.tailer.step(&mut bench.sink).unwrap();
        bench.append("a.log", "");
        bench.tailer.read(&mut bench.sink).unwrap();
    }
    bench.settle();
    assert_eq!(bench.lines(), expected(0..2_100));
}

#[test]
fn a_line_written_just_before_a_rename_is_read_before_the_new_file() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "one\n");
    bench.settle();
    bench.append("a.log", "two\n");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "three\n");
    bench.settle();
    bench.append("a.log.1", "late\n");
    bench.settle();
    bench.expect(&["one", "two", "three", "late"]);
    bench.scans(40);
    bench.expect_no_gaps();
    bench.restart();
    bench.settle();
    bench.expect(&["one", "two", "three", "late"]);
}

#[test]
fn the_unfinished_last_line_of_a_renamed_file_is_taken_after_the_grace_time() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "one\ntw");
    bench.settle();
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "three\n");
    bench.scans(8);
    bench.expect(&["one", "three", "tw"]);
    let last = bench.chunks().last().unwrap();
    assert_eq!(last.framing, Framing::Unterminated);
    assert_eq!(last.from.get(), 4);
    bench.scans(40);
    bench.restart();
    bench.scans(8);
    bench.expect(&["one", "three", "tw"]);
}

#[test]
fn a_file_deleted_while_open_is_read_to_its_end_and_forgotten() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", numbered(0..10));
    bench.settle();
    bench.append("a.log", numbered(10..20));
    bench.append("a.log", "rest");
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.scans(60);
    let mut lines = expected(0..20);
    lines.push("rest".into());
    assert_eq!(bench.lines(), lines);
    bench.restart();
    assert!(bench.saved.is_empty(), "{:?}", bench.saved);
    assert_eq!(bench.tailer.state().files, 0);
    bench.expect_no_gaps();
}

#[test]
fn more_rotated_files_than_are_remembered_of_one_path_are_not_read_again_while_they_stand() {
    let mut bench = Bench::new("app.log*");
    for file in 0..80 {
        bench.append("app.log", numbered(file * 3..file * 3 + 3));
        bench.settle();
        bench.rename("app.log", &format!("app.log.{file}"));
    }
    bench.scans(100);
    bench.restart();
    bench.settle();
    bench.scans(20);
    let (mut lines, mut all) = (bench.lines(), expected(0..240));
    lines.sort_unstable();
    all.sort_unstable();
    assert_eq!(lines, all);
    bench.expect_no_gaps();
}

#[test]
fn a_file_with_nothing_but_an_unfinished_line_is_not_lost_when_it_is_deleted() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", "only");
    bench.settle();
    bench.expect(&[]);
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.scans(60);
    bench.expect(&["only"]);
    assert_eq!(bench.chunks().next().unwrap().after.identity.fingerprint, Fingerprint::of(b"only"));
}

#[test]
fn rename_while_the_agent_is_down_is_read_on_by_inode() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..5));
    bench.settle();
    bench.restart();
    bench.append("a.log", numbered(5..8));
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", numbered(8..12));
    bench.settle();
    assert_eq!(bench.lines(), expected(0..12));
    assert_eq!(bench.identities().len(), 2);
    bench.expect_no_gaps();
}

#[test]
fn rotations_that_nobody_saw_are_read_from_their_start_oldest_first() {
    for packed in [false, true] {
        let mut bench = Bench::new("a.log");
        bench.append("a.log", numbered(0..5));
        bench.settle();
        bench.restart();
        bench.append("a.log", numbered(5..8));
        bench.rename("a.log", "a.log.3");
        bench.append("a.log", numbered(8..12));
        std::thread::sleep(Duration::from_millis(10));
        bench.rename("a.log", "a.log.2");
        bench.append("a.log", numbered(12..15));
        std::thread::sleep(Duration::from_millis(10));
        bench.rename("a.log", "a.log.1");
        bench.append("a.log", numbered(15..18));
        if packed {
            bench.gzip("a.log.3", "a.log.3.gz");
            bench.gzip("a.log.2", "a.log.2.gz");
        }
        if packed {
            // Compressing keeps the order of names, and here of times as well.
            let later = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
            File::options()
                .append(true)
                .open(bench.path("a.log.1"))
                .unwrap()
                .set_modified(later)
                .unwrap();
        }
        bench.settle();
        assert_eq!(bench.lines(), expected(0..18), "packed: {packed}");
        bench.scans(40);
        bench.restart();
        bench.scans(10);
        assert_eq!(bench.lines(), expected(0..18), "packed: {packed}");
        bench.expect_no_gaps();
    }
}

#[test]
fn two_rotations_between_two_scans_lose_nothing() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..5));
    bench.settle();
    bench.append("a.log", numbered(5..8));
    bench.rename("a.log", "a.log.2");
    bench.append("a.log", numbered(8..12));
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", numbered(12..15));
    bench.settle();
    assert_eq!(bench.lines(), expected(0..15));
    bench.scans(40);
    bench.restart();
    bench.scans(5);
    assert_eq!(bench.lines(), expected(0..15));
    bench.expect_no_gaps();
}

fn copytruncate(bench: &Bench, from: &str, to: &str) {
    fs::copy(bench.path(from), bench.path(to)).unwrap();
    File::options().write(true).open(bench.path(from)).unwrap().set_len(0).unwrap();
}

#[test]
fn copytruncate_reads_only_the_copy_s_remainder_under_the_first_identity() {
    for pattern in ["a.log", "a.log*"] {
        let mut bench = Bench::new(pattern);
        bench.append("a.log", numbered(0..5));
        bench.settle();
        bench.append("a.log", numbered(5..9));
        copytruncate(&bench, "a.log", "a.log.1");
        bench.append("a.log", numbered(9..12));
        bench.scans(10);
        assert_eq!(bench.lines(), expected(0..12), "{pattern}");
        assert_eq!(bench.identities().len(), 2);
        bench.expect_no_gaps();
        bench.scans(40);
        for _ in 0..2 {
            bench.restart();
            bench.scans(10);
            assert_eq!(bench.lines(), expected(0..12), "{pattern}");
        }
        bench.rename("a.log.1", "a.log.2");
        bench.restart();
        bench.scans(10);
        bench.gzip("a.log.2", "a.log.2.gz");
        bench.restart();
        bench.scans(40);
        assert_eq!(bench.lines(), expected(0..12), "{pattern}");
        bench.expect_no_gaps();
    }
}

#[test]
fn a_copy_that_is_seen_before_the_original_is_emptied_is_not_read() {
    let mut bench = Bench::new("a.log*");
    bench.append("a.log", numbered(0..500));
    bench.settle();
    fs::copy(bench.path("a.log"), bench.path("a.log.1")).unwrap();
    bench.scans(5);
    bench.append("a.log", numbered(500..510));
    bench.append("a.log.1", numbered(500..510));
    File::options().write(true).open(bench.path("a.log")).unwrap().set_len(0).unwrap();
    bench.append("a.log", numbered(510..520));
    bench.scans(10);
    assert_eq!(bench.lines(), expected(0..520));
    bench.expect_no_gaps();
}

#[test]
fn a_half_written_copy_is_not_taken_for_a_new_file() {
    let mut bench = Bench::new("a.log*");
    let text = numbered(0..500);
    bench.append("a.log", &text);
    bench.settle();
    bench.append("a.log.1", &text[..2_000]);
    bench.scans(3);
    bench.append("a.log.1", &text[2_000..]);
    bench.scans(3);
    copytruncate(&bench, "a.log", "a.log.1");
    bench.scans(40);
    assert_eq!(bench.lines(), expected(0..500));
    bench.expect_no_gaps();
}

#[test]
fn copytruncate_and_gzip_while_the_agent_is_down_are_read_on() {
    for pattern in ["a.log", "a.log*"] {
        let mut bench = Bench::new(pattern);
        bench.append("a.log", numbered(0..50));
        bench.settle();
        bench.restart();
        bench.append("a.log", numbered(50..90));
        copytruncate(&bench, "a.log", "a.log.1");
        bench.gzip("a.log.1", "a.log.1.gz");
        bench.append("a.log", numbered(90..200));
        bench.scans(10);
        assert_eq!(bench.lines(), expected(0..200), "{pattern}");
        let first = bench.chunks().next().unwrap().file.identity.clone();
        let last_of_first =
            bench.chunks().filter(|chunk| chunk.file.identity == first).last().unwrap();
        assert_eq!(last_of_first.after.offset.get(), u64::try_from(numbered(0..90).len()).unwrap());
        bench.expect_no_gaps();
        bench.restart();
        bench.scans(40);
        assert_eq!(bench.lines(), expected(0..200), "{pattern}");
    }
}

#[test]
fn a_content_that_is_gone_for_good_is_a_gap_and_the_next_one_is_read() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..5));
    bench.settle();
    bench.restart();
    bench.append("a.log", numbered(5..8));
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.append("a.log", numbered(8..10));
    bench.scans(10);
    let gaps = bench.gaps();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].from.unwrap().get(), 35);
    assert_eq!(gaps[0].bytes, None);
    assert_eq!(bench.lines(), [expected(0..5), expected(8..10)].concat());
    bench.restart();
    bench.scans(40);
    assert_eq!(bench.gaps().len(), 1, "the gap is durable: it is said once");
}

#[test]
fn bytes_that_were_seen_and_then_truncated_away_are_a_gap() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "one\nhalf a li");
    bench.settle();
    fs::write(bench.path("a.log"), "x\n").unwrap();
    bench.scans(6);
    bench.expect(&["one", "x"]);
    assert_eq!(bench.gaps().len(), 1);
    assert_eq!(bench.gaps()[0].code, "truncated_unread");
}

#[test]
fn a_truncation_that_lost_nothing_is_no_gap() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "one\n");
    bench.settle();
    fs::write(bench.path("a.log"), "x\n").unwrap();
    bench.scans(6);
    bench.expect(&["one", "x"]);
    bench.expect_no_gaps();
}

#[test]
fn equal_bytes_at_equal_offsets_after_a_truncation_are_a_new_generation() {
    let mut bench = Bench::new("a.log");
    for round in 0..4 {
        bench.append("a.log", "same\nsame again\n");
        bench.scans(4);
        if round % 2 == 1 {
            bench.restart();
            bench.scans(1);
        }
        assert_eq!(bench.lines().len(), 2 * (round + 1));
        File::options().write(true).open(bench.path("a.log")).unwrap().set_len(0).unwrap();
        bench.scans(4);
    }
    let generations: Vec<u32> =
        bench.identities().iter().map(|identity| identity.generation).collect();
    assert_eq!(generations, [0, 1, 2, 3]);
    bench.expect_no_gaps();
}

#[test]
fn a_truncation_that_has_grown_beyond_the_offset_is_seen_by_its_bytes() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "header\nold 1\nold 2\n");
    bench.settle();
    fs::write(bench.path("a.log"), "header\nnew 1\nnew 2\nnew 3 and more\n").unwrap();
    bench.scans(6);
    bench.expect(&["header", "old 1", "old 2", "header", "new 1", "new 2", "new 3 and more"]);
    let identities = bench.identities();
    assert_eq!(identities[0].fingerprint, identities[1].fingerprint);
    assert_eq!((identities[0].generation, identities[1].generation), (0, 1));
}

#[test]
fn a_reused_inode_is_a_new_file() {
    // The position of another file is given the inode of this one.
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..100));
    bench.settle();
    bench.restart();
    let position = bench.saved.values().next().unwrap().clone();
    let old = FilePosition {
        identity: FileIdentity {
            fingerprint: Fingerprint::of(b"another file"),
            ..position.identity.clone()
        },
        offset: custody_event::Offset(90),
        tail: Fingerprint::of(b"elsewhere"),
        ..position
    };
    bench.tailer = start(&bench.options, &bench.clock, vec![old]);
    bench.past.clear();
    bench.scans(8);
    assert_eq!(bench.lines(), expected(0..100));
    assert_eq!(bench.gaps().len(), 1);
}

#[test]
fn files_with_equal_first_thousand_bytes_are_told_apart() {
    let mut bench = Bench::new("*.log");
    let head = format!("{}\n", "=".repeat(1_000));
    for name in ["a", "b", "c"] {
        bench.append(&format!("{name}.log"), format!("{head}{name} 1\n{name} 2\n"));
    }
    bench.settle();
    assert_eq!(bench.lines().len(), 9);
    bench.restart();
    for name in ["a", "b", "c"] {
        bench.append(&format!("{name}.log"), format!("{name} 3\n"));
    }
    bench.settle();
    let mut lines: Vec<String> =
        bench.lines().into_iter().filter(|line| !line.starts_with('=')).collect();
    lines.sort();
    assert_eq!(lines, ["a 1", "a 2", "a 3", "b 1", "b 2", "b 3", "c 1", "c 2", "c 3"]);
}

#[test]
fn rotated_files_with_the_same_header_are_not_copies_of_each_other() {
    let mut bench = Bench::new("a.log*");
    for round in 0..5 {
        bench.append("a.log", format!("time,user,action\n{round}\n"));
        if round % 2 == 0 {
            bench.settle();
        }
        for old in (1..=round).rev() {
            bench.rename(&format!("a.log.{old}"), &format!("a.log.{}", old + 1));
        }
        bench.rename("a.log", "a.log.1");
    }
    bench.scans(40);
    let lines: Vec<String> = bench.lines();
    assert_eq!(lines.iter().filter(|line| *line == "time,user,action").count(), 5);
    let numbers: Vec<&String> = lines.iter().filter(|line| line.len() == 1).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"]);
    bench.expect_no_gaps();
}

#[test]
fn start_at_the_end_is_for_what_was_there_first_and_is_durable() {
    let mut bench = Bench::with("*.log", |options| options.start = Start::End);
    bench.append("a.log", "old 1\nold 2\n");
    bench.append("b.log", "old\nhalf of an o");
    bench.settle();
    bench.expect(&[]);
    bench.restart();
    bench.append("a.log", "new 1\n");
    bench.append("b.log", "ld line\nnew 2\n");
    bench.append("c.log", "new 3\n");
    bench.settle();
    let mut lines = bench.lines();
    lines.sort();
    assert_eq!(lines, ["new 1", "new 2", "new 3"]);
}

#[test]
fn start_at_the_end_with_no_file_yet_does_not_skip_what_comes_while_the_agent_is_down() {
    let mut bench = Bench::with("*.log", |options| options.start = Start::End);
    bench.settle();
    bench.restart();
    bench.append("a.log", "new 1\n");
    bench.settle();
    bench.expect(&["new 1"]);
}

#[test]
fn relative_offsets_of_every_chunk_follow_one_another() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..30_000));
    bench.settle();
    let mut next = 0;
    for chunk in bench.chunks() {
        assert_eq!(chunk.from.get(), next);
        next = chunk.after.offset.get();
    }
    assert_eq!(next, u64::try_from(numbered(0..30_000).len()).unwrap());
}

#[test]
fn a_long_retention_of_rotated_files_keeps_bounded_positions() {
    let mut bench = Bench::new("a.log");
    for round in 0..12 {
        bench.append("a.log", numbered(round * 3..round * 3 + 3));
        bench.settle();
        fs::remove_file(bench.path("a.log.3")).ok();
        for old in (1..3).rev() {
            fs::rename(
                bench.path(&format!("a.log.{old}")),
                bench.path(&format!("a.log.{}", old + 1)),
            )
            .ok();
        }
        bench.rename("a.log", "a.log.1");
        bench.scans(35);
    }
    assert_eq!(bench.lines(), expected(0..36));
    bench.restart();
    assert!(bench.saved.len() <= 5, "{}", bench.saved.len());
    bench.expect_no_gaps();
}

#[test]
fn the_observed_time_comes_from_the_clock() {
    let before = SystemClock::new().now();
    let mut bench = Bench::new("a.log");
    bench.append("a.log", "one\n");
    bench.settle();
    let chunk = bench.chunks().next().unwrap();
    assert!(chunk.observed >= before);
    assert_eq!(chunk.source, SourceIndex(3));
    assert_eq!(chunk.file.path, bench.path("a.log").to_str().unwrap());
}

#[test]
fn what_may_have_been_written_just_before_a_file_was_emptied_is_a_gap_with_its_place() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..5));
    bench.settle();
    copytruncate(&bench, "a.log", "a.log.1");
    bench.append("a.log", numbered(5..7));
    bench.scans(40);
    assert_eq!(bench.lines(), expected(0..7));
    let [gap] = &bench.gaps()[..] else { panic!("{:?}", bench.gaps()) };
    assert_eq!((gap.code, gap.from.unwrap().get(), gap.bytes), ("emptied", 35, None));
    fs::write(bench.path("a.log"), "never e").unwrap();
    bench.settle();
    fs::write(bench.path("a.log"), "x\n").unwrap();
    bench.scans(40);
    let codes: Vec<&str> = bench.gaps().iter().map(|gap| gap.code).collect();
    assert_eq!(codes, ["emptied", "emptied", "truncated_unread"], "{:?}", bench.gaps());
    assert_eq!(bench.lines().last().unwrap(), "x");
}

#[test]
fn a_rotated_file_half_read_comes_before_the_next_also_after_a_restart() {
    for pattern in ["a.log", "a.log*"] {
        let mut bench = Bench::new(pattern);
        bench.read_at_most(64);
        bench.append("a.log", numbered(0..5));
        bench.settle();
        bench.restart();
        // While nobody looked it was rotated twice.
        fs::remove_file(bench.path("a.log")).unwrap();
        bench.append("a.log.2", numbered(5..200));
        bench.append("a.log.1", numbered(200..300));
        bench.append("a.log", numbered(300..310));
        while bench.lines().len() < 20 {
            bench.scans(1);
        }
        bench.restart();
        bench.scans(100);
        assert_eq!(bench.lines(), expected(0..310), "{pattern}");
    }
}
