//! Rotated files that are packed: read once, wherever they stand, damaged or still being written.

use super::*;

/// Big enough for several chunks.
fn big(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line {n}{}\n", " and more of it".repeat(800))).collect()
}

/// Killed after any chunk, with the packed file standing where it stood or renamed since, seen by
/// the patterns or not.
#[test]
fn a_packed_file_is_read_on_after_a_kill_wherever_it_stands_then() {
    let name = "a.log.1.gz";
    let text = big(5..95);
    let all = 5..98;
    let begin = |pattern: &str| {
        let mut bench = Bench::new(pattern);
        bench.append("a.log", numbered(1_000..1_005));
        bench.settle();
        bench.restart();
        bench.rename("a.log", "a.log.2");
        fs::write(bench.path(name), packed(&[&text])).unwrap();
        bench.append("a.log", numbered(95..98));
        bench.settle();
        bench.scans(5);
        bench
    };
    for pattern in ["a.log", "a.log*"] {
        let items = begin(pattern).sink.items.len();
        assert!(items >= 5, "several chunks: {items}");
        for keep in 0..=items {
            for moved in [false, true] {
                let mut bench = begin(pattern);
                bench.restart_with(keep);
                if moved {
                    bench.rename("a.log.2", "a.log.3");
                    bench.rename(name, "a.log.2.gz");
                }
                bench.scans(60);
                let lines = bench.new_lines();
                let mut numbers: Vec<&str> =
                    lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
                numbers.sort_by_key(|number| (number.len(), *number));
                let wanted: Vec<String> = all.clone().map(|n| n.to_string()).collect();
                assert_eq!(numbers, wanted, "{pattern} keep {keep} moved {moved}");
                assert!(bench.gaps().is_empty(), "{keep} {moved}: {:?}", bench.gaps());
            }
        }
    }
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
fn a_packed_file_beside_a_numbered_one_is_found_although_nothing_stands_at_their_base() {
    let mut bench = Bench::new("a.log*");
    bench.append("a.log", numbered(0..5));
    bench.settle();
    bench.restart();
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.scans(3);
    assert_eq!(bench.gaps().len(), 1, "what stood at the base is given up");
    bench.append("a.log.2", numbered(5..10));
    bench.gzip("a.log.2", "a.log.2.gz");
    bench.append("a.log.1", numbered(10..15));
    bench.scans(5);
    assert_eq!(bench.lines(), expected(0..15));
}

/// A header line alone was read; what stood behind it, and the next file, have both been rotated.
#[test]
fn two_rotated_files_that_begin_with_the_same_line_are_both_read_packed_or_not() {
    for (older, newer) in
        [("a.log.2", "a.log.1"), ("a.log.2.gz", "a.log.1"), ("a.log.2.gz", "a.log.1.gz")]
    {
        let mut bench = Bench::new("a.log");
        bench.append("a.log", "# header\n");
        bench.settle();
        bench.restart();
        fs::remove_file(bench.path("a.log")).unwrap();
        for (name, lines) in [(older, 0..20), (newer, 20..40)] {
            let text = format!("# header\n{}", numbered(lines));
            match name.ends_with(".gz") {
                true => fs::write(bench.path(name), packed(&[&text])).unwrap(),
                false => bench.append(name, text),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bench.append("a.log", format!("# header\n{}", numbered(40..45)));
        bench.scans(60);
        let mut lines = bench.lines();
        lines.retain(|line| line != "# header");
        assert_eq!(lines, expected(0..45), "{older}, {newer}");
    }
}

#[test]
fn what_was_left_out_at_the_first_start_is_not_found_beside_a_later_file() {
    let mut bench = Bench::with("job*", |options| options.start = Start::End);
    bench.append("job.1001", numbered(0..5));
    std::thread::sleep(Duration::from_millis(20));
    fs::write(bench.path("job.1002.gz"), packed(&[&numbered(5..10)])).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    bench.restart();
    bench.scans(10);
    bench.append("job.1003", numbered(10..15));
    bench.scans(10);
    assert_eq!(bench.lines(), expected(10..15));
}
