//! Records of several lines, and files that are not UTF-8.

use super::super::{FileEncoding, Multiline, MultilineRule};
use super::*;
use crate::sources::Encoding;

const FLUSH: Duration = Duration::from_secs(1);

fn several(rule: MultilineRule) -> impl FnOnce(&mut FileOptions) {
    move |options| {
        options.multiline = Some(Multiline { rule, max_bytes: 1024, flush: FLUSH });
    }
}

fn stamped() -> Bench {
    Bench::with("a.log", several(MultilineRule::Start("^[0-9]+ ".into())))
}

fn encoded(encoding: FileEncoding) -> Bench {
    Bench::with("a.log*", |options| options.encoding = encoding)
}

impl Bench {
    /// As long as nothing is added to a file.
    fn silence(&mut self) {
        self.clock.go(FLUSH);
        self.settle();
    }

    /// The records' texts with their offsets.
    fn placed(&self) -> Vec<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        for chunk in self.chunks() {
            let from = chunk.from.get();
            match chunk.framing {
                Framing::Spans => out.extend(chunk.spans.iter().map(|span| {
                    let text = chunk.bytes[span.begin..span.text_end].to_vec();
                    (from + u64::try_from(span.begin).unwrap(), text)
                })),
                _ => out.extend(records(chunk).into_iter().map(|text| (from, text))),
            }
        }
        out
    }
}

#[test]
fn a_record_of_several_lines_is_one_and_its_offset_is_its_first_byte() {
    let mut bench = stamped();
    bench.append("a.log", "1 one\n  at a\n  at b\n2 two\n3 thr");
    bench.settle();
    bench.expect(&["1 one\n  at a\n  at b"]);
    bench.append("a.log", "ee\n");
    bench.settle();
    bench.expect(&["1 one\n  at a\n  at b", "2 two"]);
    bench.silence();
    let placed: Vec<u64> = bench.placed().iter().map(|(at, _)| *at).collect();
    assert_eq!(placed, [0, 20, 26]);
    assert_eq!(bench.chunks().last().unwrap().after.offset.get(), 34);
}

#[test]
fn a_kill_between_any_two_bytes_of_a_record_neither_splits_nor_doubles_it() {
    let text = "1 one\n  at a\n  at b\n2 two\n\tmore\n3 end\n";
    for split in 0..=text.len() {
        let mut bench = stamped();
        bench.append("a.log", &text[..split]);
        bench.settle();
        bench.restart();
        bench.settle();
        bench.append("a.log", &text[split..]);
        bench.settle();
        bench.restart();
        bench.settle();
        bench.silence();
        assert_eq!(bench.lines(), ["1 one\n  at a\n  at b", "2 two\n\tmore", "3 end"], "{split}");
        bench.expect_no_gaps();
    }
}

#[test]
fn the_last_record_is_taken_after_silence_and_what_comes_later_is_a_record_of_its_own() {
    let mut bench = stamped();
    bench.append("a.log", "1 one\n  at a\n");
    bench.settle();
    bench.expect(&[]);
    bench.clock.go(FLUSH / 2);
    bench.append("a.log", "  at b\n  half a li");
    bench.settle();
    bench.clock.go(FLUSH / 2);
    bench.settle();
    bench.expect(&[]);
    bench.clock.go(FLUSH / 2);
    bench.settle();
    bench.expect(&["1 one\n  at a\n  at b"]);
    bench.append("a.log", "ne\n2 two\n");
    bench.settle();
    bench.expect(&["1 one\n  at a\n  at b", "  half a line"]);
    bench.silence();
    bench.restart();
    bench.silence();
    bench.expect(&["1 one\n  at a\n  at b", "  half a line", "2 two"]);
}

#[test]
fn a_record_at_the_end_of_a_rotated_file_ends_there_and_comes_before_the_new_file() {
    for how in ["rename", "copytruncate", "gzip", "delete"] {
        let mut bench = stamped();
        bench.append("a.log", "0 zero\n1 one\n  at a\n");
        bench.settle();
        match how {
            "rename" => bench.rename("a.log", "a.log.1"),
            "copytruncate" => {
                fs::copy(bench.path("a.log"), bench.path("a.log.1")).unwrap();
                File::options().write(true).open(bench.path("a.log")).unwrap().set_len(0).unwrap();
            }
            "gzip" => {
                bench.restart();
                bench.gzip("a.log", "a.log.1.gz");
            }
            _ => fs::remove_file(bench.path("a.log")).unwrap(),
        }
        bench.append("a.log", "  stray\n2 two\n");
        for _ in 0..6 {
            bench.silence();
        }
        bench.expect(&["0 zero", "1 one\n  at a", "  stray", "2 two"]);
        bench.restart();
        for _ in 0..40 {
            bench.silence();
        }
        bench.expect(&["0 zero", "1 one\n  at a", "  stray", "2 two"]);
    }
}

#[test]
fn blank_lines_at_the_end_of_a_file_hold_nothing_up() {
    let mut bench = Bench::with("a.log", several(MultilineRule::BlankLine));
    bench.append("a.log", "a\nb\n\n\n\n");
    bench.settle();
    bench.expect(&["a\nb"]);
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "c\n\n");
    for _ in 0..40 {
        bench.silence();
    }
    bench.expect(&["a\nb", "c"]);
    bench.restart();
    assert_eq!(bench.tailer.state().behind_bytes, 0);
}

#[test]
fn an_over_long_record_comes_in_numbered_pieces_over_a_restart() {
    let mut bench = stamped();
    let body: String =
        (0..100).map(|n| format!("  at frame {n:03} {}\n", "x".repeat(20))).collect();
    bench.append("a.log", format!("1 one\n{body}"));
    bench.settle();
    bench.restart();
    bench.append("a.log", "  and the last\n2 two\n");
    bench.settle();
    bench.silence();
    let mut numbers = Vec::new();
    let mut whole = Vec::new();
    for chunk in bench.chunks() {
        if let Framing::Segment { number } = chunk.framing {
            numbers.push(number);
            whole.push(String::from_utf8(chunk.bytes.clone()).unwrap());
            assert!(chunk.bytes.len() <= 1024);
        }
    }
    assert!(
        numbers.len() > 3 && (0..).zip(&numbers).all(|(at, number)| at == *number),
        "{numbers:?}"
    );
    assert_eq!(whole.join("\n"), format!("1 one\n{body}  and the last"));
    assert_eq!(bench.lines().last().unwrap(), "2 two");
}

#[test]
fn utf16_is_cut_at_its_own_line_ends_whatever_was_there_when() {
    let text = "\u{feff}erste \u{a0a} Zeile\r\n\u{1f980} zwei\ndrei\n";
    for (encoding, written) in [
        (FileEncoding::Fixed(Encoding::Utf16Le), Encoding::Utf16Le),
        (FileEncoding::Fixed(Encoding::Utf16Be), Encoding::Utf16Be),
        (FileEncoding::Utf16, Encoding::Utf16Le),
        (FileEncoding::Utf16, Encoding::Utf16Be),
    ] {
        let bytes = written.encode(text).unwrap();
        for split in (0..bytes.len()).step_by(3) {
            let mut bench = encoded(encoding);
            bench.append("a.log", &bytes[..split]);
            bench.settle();
            bench.restart();
            bench.append("a.log", &bytes[split..]);
            bench.settle();
            let found = bench.placed();
            let expected: Vec<(u64, Vec<u8>)> =
                [(0, "\u{feff}erste \u{a0a} Zeile"), (32, "\u{1f980} zwei"), (48, "drei")]
                    .map(|(at, line)| (at, written.encode(line).unwrap()))
                    .to_vec();
            assert_eq!(found, expected, "{encoding:?} at {split}");
            assert!(bench.chunks().all(|chunk| chunk.encoding == written));
        }
    }
}

#[test]
fn utf16_is_read_on_after_rotation_in_the_order_that_its_file_says() {
    let mut bench = encoded(FileEncoding::Utf16);
    let be = |text: &str| Encoding::Utf16Be.encode(text).unwrap();
    bench.append("a.log", be("\u{feff}one\ntwo\n"));
    bench.settle();
    bench.restart();
    bench.append("a.log", be("three\nrest"));
    bench.gzip("a.log", "a.log.1.gz");
    bench.append("a.log", Encoding::Utf16Le.encode("\u{feff}four\n").unwrap());
    bench.scans(10);
    let mut texts = Vec::new();
    for chunk in bench.chunks() {
        for record in records(chunk) {
            let mut text = String::new();
            assert!(chunk.encoding.decode(&record, &mut text));
            texts.push(text);
        }
    }
    assert_eq!(texts, ["\u{feff}one", "two", "three", "rest", "\u{feff}four"]);
    bench.expect_no_gaps();
}

#[test]
fn utf16_of_several_lines_is_judged_as_text() {
    let mut bench = Bench::with("a.log", |options| {
        several(MultilineRule::Start("^\\d+ \u{e9}".into()))(options);
        options.encoding = FileEncoding::Fixed(Encoding::Utf16Le);
    });
    bench.append("a.log", Encoding::Utf16Le.encode("1 \u{e9}\n x\n2 no\n3 \u{e9}\n").unwrap());
    bench.settle();
    bench.silence();
    let expected: Vec<Vec<u8>> = ["1 \u{e9}\n x\n2 no", "3 \u{e9}"]
        .map(|text| Encoding::Utf16Le.encode(text).unwrap())
        .to_vec();
    assert_eq!(bench.placed().into_iter().map(|(_, text)| text).collect::<Vec<_>>(), expected);
}

#[test]
fn a_start_at_the_end_of_a_utf16_file_begins_at_a_whole_line() {
    let mut bench = Bench::with("a.log", |options| {
        options.start = Start::End;
        options.encoding = FileEncoding::Fixed(Encoding::Utf16Le);
    });
    let text = Encoding::Utf16Le.encode("old\nhalf\nnew\n").unwrap();
    bench.append("a.log", &text[..13]);
    bench.settle();
    bench.append("a.log", &text[13..]);
    bench.settle();
    assert_eq!(bench.placed(), [(18, Encoding::Utf16Le.encode("new").unwrap())]);
}

#[test]
fn a_log_that_goes_on_and_on_keeps_no_other_waiting_whose_name_it_seems_to_be_rotated_from() {
    let mut bench = Bench::with("*.log", several(MultilineRule::Start("^[0-9]+ ".into())));
    bench.append("access.log", "1 one\n");
    bench.append("access-8443.log", "1 other\n");
    bench.silence();
    bench.restart();
    for number in 2..20 {
        bench.append("access.log", format!("{number} one\n"));
        bench.append("access-8443.log", format!("{number} other\n"));
        bench.scans(1);
    }
    // The last record always waits for what comes after it.
    let of_one = bench.lines().iter().filter(|line| line.ends_with(" one")).count();
    assert!(of_one >= 17, "{of_one} of 19");
}
