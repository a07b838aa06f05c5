//! Writing for people and programs: locked, buffered, errors returned.

use std::io::{BufWriter, StdoutLock};

/// Standard output. Flush it before leaving: an error in a drop is lost.
pub(super) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(std::io::stdout().lock())
}

/// 1536 → `1.5 KiB`, rounded to the nearest tenth.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut size, mut shown) = (1u128, String::new());
    for unit in UNITS {
        size *= 1024;
        let tenths = (u128::from(count) * 10 + size / 2) / size;
        shown = format!("{}.{} {unit}", tenths / 10, tenths % 10);
        if tenths < 10_240 {
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_shown_for_people() {
        for (count, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(super::bytes(count), shown);
        }
    }
}
