//! One test for each hazard that has lost, doubled or mixed other people's lines.

use super::*;
use custody_event::position::Fingerprint;
use std::os::unix::fs::{PermissionsExt as _, symlink};

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
fn a_gzip_file_of_several_members_is_read_to_its_end() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..5));
    bench.settle();
    bench.restart();
    let mut out = Vec::new();
    for range in [0..3, 3..9, 9..20] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(numbered(range).as_bytes()).unwrap();
        out.extend(encoder.finish().unwrap());
    }
    fs::write(bench.path("a.log.1.gz"), out).unwrap();
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.append("a.log", numbered(20..23));
    bench.scans(10);
    assert_eq!(bench.lines(), expected(0..23));
    bench.expect_no_gaps();
}

#[test]
fn a_zstd_copy_is_read_on() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..5));
    bench.settle();
    bench.restart();
    let packed = zstd::stream::encode_all(numbered(0..20).as_bytes(), 1).unwrap();
    fs::write(bench.path("a.log-20260101.zst"), packed).unwrap();
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.append("a.log", numbered(20..23));
    bench.scans(10);
    assert_eq!(bench.lines(), expected(0..23));
    bench.expect_no_gaps();
}

#[test]
fn a_gzip_file_that_is_still_being_written_is_waited_for() {
    let mut bench = Bench::new("a.log");
    bench.append("a.log", numbered(0..500));
    bench.settle();
    bench.restart();
    bench.append("a.log", numbered(500..900));
    bench.rename("a.log", "a.log.1");
    bench.gzip("a.log.1", "a.log.1.gz");
    let whole = fs::read(bench.path("a.log.1.gz")).unwrap();
    fs::write(bench.path("a.log.1.gz"), &whole[..whole.len() / 2]).unwrap();
    bench.append("a.log", numbered(900..950));
    bench.scans(4);
    bench.expect_no_gaps();
    assert_eq!(bench.lines(), expected(0..500), "the new file waits for what came before it");
    fs::write(bench.path("a.log.1.gz"), &whole).unwrap();
    bench.scans(4);
    assert_eq!(bench.lines(), expected(0..950));
    bench.expect_no_gaps();
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
fn compressed_files_are_not_read_as_text() {
    let mut bench = Bench::new("*");
    bench.append("a.log", numbered(0..3));
    bench.append("b.log", numbered(0..3));
    bench.gzip("b.log", "b.log.1.gz");
    bench.append("c.log", numbered(0..3));
    bench.gzip("c.log", "odd-name");
    bench.scans(5);
    assert_eq!(bench.lines(), expected(0..3));
    assert_eq!(bench.tailer.state().behind_bytes, 0);
}

#[test]
fn two_names_of_one_inode_are_read_once() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", numbered(0..3));
    fs::hard_link(bench.path("a.log"), bench.path("b.log")).unwrap();
    symlink(bench.path("a.log"), bench.path("c.log")).unwrap();
    bench.settle();
    bench.append("b.log", numbered(3..5));
    bench.settle();
    bench.restart();
    bench.settle();
    assert_eq!(bench.lines(), expected(0..5));
}

#[test]
fn a_link_that_is_turned_to_a_new_file_is_followed_after_the_old_one_is_read() {
    let mut bench = Bench::new("current.log");
    bench.append("data-1", numbered(0..3));
    symlink(bench.path("data-1"), bench.path("current.log")).unwrap();
    bench.settle();
    bench.append("data-1", numbered(3..5));
    bench.append("data-2", numbered(5..8));
    fs::remove_file(bench.path("current.log")).unwrap();
    symlink(bench.path("data-2"), bench.path("current.log")).unwrap();
    bench.settle();
    assert_eq!(bench.lines(), expected(0..8));
}

#[test]
fn directories_that_appear_later_are_searched_and_excluded_names_are_not_read() {
    let mut bench = Bench::with("logs/**/*.log", |options| options.exclude = vec!["debug*".into()]);
    bench.settle();
    fs::create_dir_all(bench.path("logs/x/y")).unwrap();
    bench.append("logs/top.log", "top\n");
    bench.append("logs/x/y/deep.log", "deep\n");
    bench.append("logs/x/y/debug.log", "no\n");
    bench.settle();
    let mut lines = bench.lines();
    lines.sort();
    assert_eq!(lines, ["deep", "top"]);
}

#[test]
fn a_file_without_permission_is_trouble_with_a_remedy_and_is_read_when_it_may_be() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", "one\n");
    let set = |mode| {
        fs::set_permissions(bench.dir.path().join("a.log"), fs::Permissions::from_mode(mode))
            .unwrap()
    };
    set(0o000);
    if File::open(bench.path("a.log")).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    bench.scans(3);
    bench.expect(&[]);
    assert!(bench.tailer.state().trouble.unwrap().contains("setfacl"));
    let set = |mode| {
        fs::set_permissions(bench.dir.path().join("a.log"), fs::Permissions::from_mode(mode))
            .unwrap()
    };
    set(0o644);
    bench.scans(3);
    bench.expect(&["one"]);
    assert_eq!(bench.tailer.state().trouble, None);
    bench.expect_no_gaps();
}

#[test]
fn what_cannot_be_listed_is_trouble_and_its_files_are_not_taken_for_gone() {
    let mut bench = Bench::new("logs/*.log");
    fs::create_dir(bench.path("logs")).unwrap();
    bench.append("logs/a.log", "one\nha");
    bench.settle();
    fs::rename(bench.path("logs"), bench.path("away")).unwrap();
    // A link onto itself cannot be looked at.
    symlink(bench.path("logs"), bench.path("logs")).unwrap();
    bench.scans(50);
    bench.expect(&["one"]);
    assert!(bench.tailer.state().trouble.is_some());
    fs::remove_file(bench.path("logs")).unwrap();
    fs::rename(bench.path("away"), bench.path("logs")).unwrap();
    bench.append("logs/a.log", "lf\n");
    bench.settle();
    bench.expect(&["one", "half"]);
    assert_eq!(bench.tailer.state().trouble, None);
}

#[test]
fn two_thousand_files_are_read_with_few_descriptors() {
    let mut bench = Bench::with("*.log", |options| options.max_open_files = 64);
    for round in 0..3 {
        for n in 0..2_000 {
            bench.append(&format!("worker-{n}.log"), format!("{n} {round}\n"));
        }
        bench.settle();
        let open = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(Result::ok)
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter(|target| target.starts_with(bench.dir.path()))
            .count();
        assert!(open <= 64, "{open} open");
        if round == 1 {
            bench.restart();
        }
    }
    let mut lines = bench.lines();
    assert_eq!(lines.len(), 6_000);
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 6_000);
}

#[test]
fn one_big_file_does_not_keep_the_others_waiting() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", numbered(0..400_000));
    bench.append("b.log", "small\n");
    bench.tailer.step(&mut bench.sink).unwrap();
    assert!(bench.lines().contains(&"small".to_owned()));
    assert!(bench.tailer.state().behind_bytes > 1_000_000);
}

#[test]
fn a_closed_file_that_is_renamed_and_written_is_found_again() {
    let mut bench = Bench::with("a*.log", |options| options.max_open_files = 0);
    bench.append("a.log", numbered(0..3));
    bench.settle();
    bench.append("a.log", numbered(3..5));
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", numbered(5..7));
    bench.scans(5);
    assert_eq!(bench.lines(), expected(0..7));
    bench.expect_no_gaps();
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

fn packed(parts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part.as_bytes()).unwrap();
        out.extend(encoder.finish().unwrap());
    }
    out
}

/// What is known of a rotated file when it is found packed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Met {
    /// It was read in part.
    InPart,
    /// It was never seen.
    Never,
}

/// A log that was read up to line 5, rotated to a packed file with these bytes, and begun again.
fn rotated(met: Met, name: &str, bytes: &[u8]) -> Bench {
    let mut bench = Bench::new("a.log");
    let read = if met == Met::InPart { 0..5 } else { 1_000..1_005 };
    bench.append("a.log", numbered(read));
    bench.settle();
    bench.restart();
    if met == Met::Never {
        bench.rename("a.log", "a.log.2");
    } else {
        fs::remove_file(bench.path("a.log")).unwrap();
    }
    fs::write(bench.path(name), bytes).unwrap();
    bench.append("a.log", numbered(20..23));
    bench
}

impl Bench {
    fn new_lines(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| !line.starts_with("line 100")).collect()
    }
}

#[test]
fn all_members_and_frames_are_read_and_padding_is_nothing() {
    let texts = [numbered(0..3), String::new(), numbered(3..9), numbered(9..20)];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut padded = packed(&texts);
    padded.extend([0; 100_000]);
    let frames: Vec<u8> = texts
        .iter()
        .flat_map(|text| zstd::stream::encode_all(text.as_bytes(), 1).unwrap())
        // A skippable frame (RFC 8878) between others says nothing.
        .chain([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])
        .chain(zstd::stream::encode_all(&b""[..], 1).unwrap())
        .collect();
    for met in [Met::InPart, Met::Never] {
        for (name, bytes) in [
            ("a.log.1.gz", packed(&texts)),
            ("a.log.1.gz", padded.clone()),
            ("a.log.1.zst", frames.clone()),
        ] {
            let mut bench = rotated(met, name, &bytes);
            bench.scans(20);
            assert_eq!(bench.new_lines(), expected(0..23), "{met:?} {name} {}", bytes.len());
            bench.restart();
            bench.scans(40);
            assert_eq!(bench.new_lines(), expected(0..23), "{met:?} {name} {}", bytes.len());
            bench.expect_no_gaps();
        }
    }
}

#[test]
fn a_damaged_packed_file_is_read_as_far_as_it_goes_and_the_gap_names_it_and_the_place() {
    let text = numbered(0..20);
    let garbage = [packed(&[&text]), b"no member".to_vec()].concat();
    let mut zstd_garbage = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    zstd_garbage.extend(b"no frame");
    let long = numbered(0..200_000);
    let mut cut = packed(&[&long]);
    cut.truncate(cut.len() - 9_000);
    let mut zstd_cut = zstd::stream::encode_all(long.as_bytes(), 1).unwrap();
    zstd_cut.truncate(zstd_cut.len() / 2);
    let mut second = packed(&[&text, &numbered(20..40)]);
    second.truncate(second.len() - 4);
    for met in [Met::InPart, Met::Never] {
        for (name, bytes, whole, what) in [
            ("a.log.1.gz", &garbage, true, "behind its end"),
            ("a.log.1.zst", &zstd_garbage, true, "behind its end"),
            ("a.log.1.gz", &cut, false, "too early"),
            ("a.log.1.zst", &zstd_cut, false, "too early"),
            ("a.log.1.gz", &second, true, "too early"),
        ] {
            let mut bench = rotated(met, name, bytes);
            bench.scans(40);
            let context = format!("{met:?} {name} {what}: {:?}", bench.gaps());
            let gaps: Vec<&Notice> = bench.gaps();
            assert_eq!(gaps.len(), 1, "{context}");
            assert_eq!(gaps[0].code, "compressed_damaged", "{context}");
            assert!(gaps[0].text.contains(what), "{context}");
            assert_eq!(gaps[0].path.as_deref(), bench.path(name).to_str(), "{context}");
            let packed: Vec<&Chunk> = bench
                .chunks()
                .filter(|chunk| {
                    Some(&chunk.after.identity)
                        == gaps[0].after.as_ref().map(|after| &after.identity)
                })
                .collect();
            let end = packed.last().map(|chunk| chunk.after.offset);
            assert_eq!(gaps[0].from, end, "{context}");
            let lines = bench.new_lines();
            if whole {
                assert!(lines.starts_with(&expected(0..20)), "{context} {lines:?}");
            } else {
                assert!(lines.len() > 100, "{context} {}", lines.len());
            }
            assert!(lines.ends_with(&expected(20..23)), "{context}");
            bench.restart();
            bench.scans(40);
            assert_eq!((bench.new_lines(), bench.gaps().len()), (lines, 1), "said once; {context}");
        }
    }
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
fn loops_of_links_end_and_a_changed_target_is_read_from_its_first_byte() {
    let mut bench = Bench::new("logs/**/*.log");
    fs::create_dir_all(bench.path("logs/x")).unwrap();
    symlink(bench.path("logs"), bench.path("logs/x/up")).unwrap();
    symlink(bench.path("logs/x"), bench.path("logs/x/self")).unwrap();
    symlink(bench.path("logs/nowhere"), bench.path("logs/dangling.log")).unwrap();
    bench.append("logs/x/a.log", numbered(0..3));
    bench.settle();
    assert_eq!(bench.lines(), expected(0..3), "read once, by whichever name");
    assert!(bench.tailer.found.files.len() < 100, "{}", bench.tailer.found.files.len());
    fs::create_dir(bench.path("release-1")).unwrap();
    fs::create_dir(bench.path("release-2")).unwrap();
    bench.append("release-1/b.log", numbered(3..5));
    bench.append("release-2/b.log", numbered(5..8));
    symlink(bench.path("release-1"), bench.path("logs/current")).unwrap();
    bench.settle();
    fs::remove_file(bench.path("logs/current")).unwrap();
    symlink(bench.path("release-2"), bench.path("logs/current")).unwrap();
    bench.scans(40);
    assert_eq!(bench.lines(), expected(0..8));
    bench.expect_no_gaps();
}

#[test]
fn a_closed_file_whose_permission_is_lost_waits_and_goes_on_without_a_gap() {
    let mut bench = Bench::with("*.log", |options| options.max_open_files = 0);
    bench.append("a.log", numbered(0..3));
    bench.settle();
    let path = bench.path("a.log");
    let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    bench.append("a.log", numbered(3..5));
    set(0o000);
    if File::open(&path).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    bench.scans(30);
    assert_eq!(bench.lines(), expected(0..3));
    let state = bench.tailer.state();
    assert!(state.trouble.unwrap().contains("setfacl"));
    assert!(state.behind_bytes > 0);
    bench.restart();
    bench.scans(10);
    assert!(bench.tailer.state().trouble.is_some());
    set(0o644);
    bench.scans(100);
    assert_eq!(bench.lines(), expected(0..5));
    assert_eq!(bench.tailer.state().trouble, None);
    bench.expect_no_gaps();
}

#[test]
fn no_more_files_are_open_at_once_than_allowed_not_even_at_the_first_look() {
    let mut bench = Bench::with("*.log", |options| options.max_open_files = 80);
    for n in 0..300 {
        bench.append(&format!("worker-{n}.log"), format!("{n}\n"));
    }
    let open = |bench: &Bench| bench.tailer.open_files();
    bench.tailer.scan(&mut bench.sink).unwrap();
    assert!(open(&bench) <= 80, "{}", open(&bench));
    bench.tailer.round(None, &mut bench.sink).unwrap();
    assert!(open(&bench) <= 80, "{}", open(&bench));
    bench.settle();
    assert_eq!(bench.lines().len(), 300);
}

#[test]
fn a_notification_reads_the_file_that_it_names_open_or_closed_and_by_any_name() {
    for max_open in [0, 512] {
        let mut bench = Bench::with("logs/*.log", |options| options.max_open_files = max_open);
        fs::create_dir(bench.path("logs")).unwrap();
        for name in ["a", "b"] {
            bench.append(&format!("logs/{name}.log"), format!("{name} 1\n"));
        }
        bench.append("far", "far 1\n");
        symlink(bench.path("far"), bench.path("logs/c.log")).unwrap();
        fs::hard_link(bench.path("logs/b.log"), bench.path("logs/d.log")).unwrap();
        bench.settle();
        for (written, named) in
            [("logs/a.log", "logs/a.log"), ("logs/b.log", "logs/d.log"), ("far", "far")]
        {
            bench.append(written, "2\n");
            let before = bench.lines().len();
            let path = fs::canonicalize(bench.path(named)).unwrap();
            let touched = std::collections::HashSet::from([path]);
            let (_, known) = bench.tailer.read_touched(&touched, &mut bench.sink).unwrap();
            assert!(known);
            assert_eq!(bench.lines().len(), before + 1, "{written} {max_open}");
        }
        let stranger = std::collections::HashSet::from([bench.path("logs/x.txt")]);
        assert!(!bench.tailer.read_touched(&stranger, &mut bench.sink).unwrap().1);
    }
}
