//! What names say: which file a rotation made out of which, what is compressed, and paths as text.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Endings of compressed files.
const COMPRESSED: [&[u8]; 6] = [b".gz", b".zst", b".bz2", b".xz", b".zip", b".lz4"];
/// Rotation suffixes that are words.
const WORDS: [&[u8]; 6] = [b".old", b".bak", b".prev", b".orig", b"~", b".copy"];

pub(crate) fn name_of(path: &Path) -> &[u8] {
    path.file_name().map_or(b"", |name| name.as_bytes())
}

fn without_compression(name: &[u8]) -> (&[u8], bool) {
    for ending in COMPRESSED {
        if let Some(stem) = name.strip_suffix(ending) {
            return (stem, true);
        }
    }
    (name, false)
}

/// Is this the name of a compressed file?
pub(crate) fn is_compressed_name(path: &Path) -> bool {
    without_compression(name_of(path)).1
}

/// Do the first bytes say that this is gzip or zstd, whatever its name?
pub(crate) fn is_compressed_head(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 0x08]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

fn is_suffix(suffix: &[u8]) -> bool {
    if WORDS.contains(&suffix) {
        return true;
    }
    let [first, rest @ ..] = suffix else { return false };
    matches!(first, b'.' | b'-' | b'_')
        && rest.iter().any(u8::is_ascii_digit)
        && rest.iter().all(|byte| byte.is_ascii_digit() || b".-_:TZ@+".contains(byte))
}

/// Is `name` what a rotation makes out of `base`: `base.1`, `base-20260101.gz`, and, for
/// `stem.ext`, `stem-20260101.ext`?
pub(crate) fn is_rotation_of(base: &Path, other: &Path) -> bool {
    if base.parent() != other.parent() {
        return false;
    }
    let base = name_of(base);
    let (name, compressed) = without_compression(name_of(other));
    if name == base {
        return compressed;
    }
    if let Some(suffix) = name.strip_prefix(base) {
        return is_suffix(suffix);
    }
    let Some(dot) = memchr::memrchr(b'.', base).filter(|dot| *dot > 0) else { return false };
    let (stem, ending) = base.split_at(dot);
    name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending)).is_some_and(is_suffix)
}

/// `base`, for `base.1`: where a file with a number was rotated away from, whether it is there or not.
pub(crate) fn numbered_base(path: &Path) -> Option<PathBuf> {
    let (name, _) = without_compression(name_of(path));
    let dot = memchr::memrchr(b'.', name).filter(|dot| *dot > 0)?;
    let number = &name[dot + 1..];
    let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    is_number.then(|| path.with_file_name(OsString::from_vec(name[..dot].to_vec())))
}

/// The uncompressed file that `path` was made from, if it is a compressed one.
pub(crate) fn uncompressed(path: &Path) -> Option<PathBuf> {
    let (name, compressed) = without_compression(name_of(path));
    compressed.then(|| path.with_file_name(OsString::from_vec(name.to_vec())))
}

/// The beginning that all descendants of `path` share.
pub(crate) fn stem(path: &Path) -> &[u8] {
    let name = name_of(path);
    match memchr::memchr(b'.', name) {
        Some(dot) if dot > 0 => &name[..dot],
        _ => name,
    }
}

/// The part of a rotated file's name that its base has too (for an index: files with different
/// keys have nothing to do with each other).
pub(crate) fn family(path: &Path) -> (PathBuf, Vec<u8>) {
    let stem = stem(path);
    let cut = stem.iter().position(|byte| matches!(byte, b'-' | b'_')).filter(|at| *at > 0);
    let key = cut.map_or(stem, |at| &stem[..at]);
    (path.parent().map(Path::to_path_buf).unwrap_or_default(), key.to_vec())
}

/// A path as text. Bytes that are not UTF-8 are written so that they can be read back.
pub(crate) fn path_text(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => format!("b\"{}\"", path.as_os_str().as_bytes().escape_ascii()),
    }
}

/// The path that [`path_text`] wrote.
pub(crate) fn path_from_text(text: &str) -> PathBuf {
    let inner = text.strip_prefix("b\"").and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(escaped) => PathBuf::from(OsString::from_vec(unescape(escaped.as_bytes()))),
        None => PathBuf::from(text),
    }
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let (byte, used) = match (first, tail) {
            (b'\\', [b'x', high, low, ..]) => (hex(*high) << 4 | hex(*low), 3),
            (b'\\', [b'n', ..]) => (b'\n', 1),
            (b'\\', [b't', ..]) => (b'\t', 1),
            (b'\\', [b'r', ..]) => (b'\r', 1),
            (b'\\', [other, ..]) => (*other, 1),
            (byte, _) => (*byte, 0),
        };
        out.push(byte);
        rest = &tail[used..];
    }
    out
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_told_from_neighbours() {
        let base = Path::new("/var/log/app.log");
        for yes in [
            "app.log.1",
            "app.log.2.gz",
            "app.log-20260101",
            "app.log-20260101.gz",
            "app.log.gz",
            "app.log.old",
            "app-2026-01-01.log",
            "app.1.log",
            "app.log.20260101-120000.zst",
        ] {
            assert!(is_rotation_of(base, &Path::new("/var/log").join(yes)), "{yes}");
        }
        for no in [
            "app.log",
            "app.log.errors",
            "apple.log",
            "app.logs",
            "app-debug.log",
            "other.log.1",
            "app.log1x",
        ] {
            assert!(!is_rotation_of(base, &Path::new("/var/log").join(no)), "{no}");
        }
        assert!(!is_rotation_of(base, Path::new("/var/app.log.1")));
        assert!(!is_rotation_of(Path::new("/l/worker-1"), Path::new("/l/worker-10")));
    }

    #[test]
    fn a_path_that_is_not_utf8_reads_back_byte_for_byte() {
        let odd = PathBuf::from(OsString::from_vec(b"/tmp/\xff\"a\\b\n\x01.log".to_vec()));
        assert_eq!(path_from_text(&path_text(&odd)), odd);
        assert_eq!(
            path_from_text(&path_text(Path::new("/tmp/gr\u{fc}n"))),
            Path::new("/tmp/gr\u{fc}n")
        );
    }
}
