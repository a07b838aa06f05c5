//! A block's body is made of zstd frames. On machines the C library makes and reads them; in a
//! browser, where there is no C compiler's output, a decoder in Rust, several times slower.

use std::io;

use super::MAX_SPARSE_TEXT_BYTES;

#[cfg(not(target_arch = "wasm32"))]
pub(super) use with_c::{Packer, Unpacker, skip_frame};
#[cfg(target_arch = "wasm32")]
pub(super) use without_c::{Packer, Unpacker, skip_frame};

#[cfg(not(target_arch = "wasm32"))]
mod with_c {
    use std::io::Cursor;

    use zstd::zstd_safe::{self, CParameter};

    use super::io;

    /// zstd's fastest ordinary level: log text shrinks to a fifth at about 600 MB/s.
    const ZSTD_LEVEL: i32 = 1;
    /// log₂ of its table's entries: 16 KiB stay in a core's first cache, which takes a seventh off
    /// the time, and events are so much alike that a larger table finds nothing more.
    const ZSTD_HASH_LOG: u32 = 12;
    /// As the level has it for texts of over 256 KiB. For a frame's it would look for shorter matches
    /// as well, which costs a seventh of the time and saves 0.3 % of the length.
    const ZSTD_MIN_MATCH: u32 = 7;

    /// Keeps zstd's working space.
    pub(in super::super) struct Packer {
        zstd: zstd::bulk::Compressor<'static>,
        frame: Vec<u8>,
    }

    impl Packer {
        pub(in super::super) fn new() -> io::Result<Self> {
            let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
            zstd.set_parameter(CParameter::HashLog(ZSTD_HASH_LOG))?;
            zstd.set_parameter(CParameter::MinMatch(ZSTD_MIN_MATCH))?;
            Ok(Self { zstd, frame: Vec::new() })
        }

        /// Appends one frame with this text to the body.
        pub(in super::super) fn pack_frame(
            &mut self,
            text: &[u8],
            body: &mut Vec<u8>,
        ) -> io::Result<()> {
            self.frame.clear();
            self.frame.shrink_to(super::super::body::KEPT_BYTES);
            self.frame.reserve(zstd_safe::compress_bound(text.len()));
            self.zstd.compress_to_buffer(text, &mut self.frame)?;
            body.extend_from_slice(&self.frame);
            Ok(())
        }
    }

    /// Keeps zstd's working space, about 100 KiB, once there has been something to unpack.
    #[derive(Default)]
    pub(in super::super) struct Unpacker(Option<zstd::bulk::Decompressor<'static>>);

    impl std::fmt::Debug for Unpacker {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Unpacker").finish_non_exhaustive()
        }
    }

    impl Unpacker {
        /// Appends what the first frame of `body` unpacks to, and gives what follows the frame. More than `len` bytes
        /// are an error, or come out and are too many.
        pub(in super::super) fn unpack_frame<'body>(
            &mut self,
            body: &'body [u8],
            len: usize,
            text: &mut Vec<u8>,
        ) -> io::Result<&'body [u8]> {
            let zstd = match &mut self.0 {
                Some(zstd) => zstd,
                none => none.insert(zstd::bulk::Decompressor::new()?),
            };
            let (frame, rest) = split_frame(body)?;
            text.reserve(len);
            let end = u64::try_from(text.len()).map_err(io::Error::other)?;
            let mut behind = Cursor::new(std::mem::take(text));
            behind.set_position(end);
            let unpacked = zstd.decompress_to_buffer(frame, &mut behind);
            *text = behind.into_inner();
            unpacked.map(|_| rest)
        }
    }

    /// What follows the first frame of `body`.
    pub(in super::super) fn skip_frame(body: &[u8]) -> io::Result<&[u8]> {
        split_frame(body).map(|(_, rest)| rest)
    }

    fn split_frame(body: &[u8]) -> io::Result<(&[u8], &[u8])> {
        super::check_frame(body)?;
        let len = zstd_safe::find_frame_compressed_size(body).ok();
        len.and_then(|len| body.split_at_checked(len)).ok_or_else(super::no_frame)
    }
}

#[cfg(any(test, target_arch = "wasm32"))]
mod without_c {
    use super::io::{self, Read};

    pub(in super::super) struct Packer;

    impl Packer {
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Appends one frame with this text to the body.
        pub(in super::super) fn pack_frame(
            &mut self,
            text: &[u8],
            body: &mut Vec<u8>,
        ) -> io::Result<()> {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            body.append(&mut ruzstd::encoding::compress_to_vec(text, level));
            Ok(())
        }
    }

    #[derive(Debug, Default)]
    pub(in super::super) struct Unpacker;

    impl Unpacker {
        /// Appends what the first frame of `body` unpacks to, and gives what follows the frame. More than `len` bytes
        /// are an error, or one byte too many comes out.
        pub(in super::super) fn unpack_frame<'body>(
            &mut self,
            mut body: &'body [u8],
            len: usize,
            text: &mut Vec<u8>,
        ) -> io::Result<&'body [u8]> {
            super::check_frame(body)?;
            let decoder =
                ruzstd::decoding::StreamingDecoder::new(&mut body).map_err(io::Error::other)?;
            let limit = u64::try_from(len).unwrap_or(u64::MAX).saturating_add(1);
            decoder.take(limit).read_to_end(text)?;
            Ok(body)
        }
    }

    /// What follows the first frame of `body`: it has to be unpacked.
    pub(in super::super) fn skip_frame(body: &[u8]) -> io::Result<&[u8]> {
        Unpacker.unpack_frame(body, super::MAX_SPARSE_TEXT_BYTES, &mut Vec::new())
    }
}

/// How a frame begins (RFC 8878 §3.1.1).
const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Does `body` begin with a frame that needs no larger window than a body's text is long?
///
/// The C library would pass over frames that may be skipped by the standard, the other decoder
/// not; that one would keep whatever window the frame asks for, the C library not.
fn check_frame(body: &[u8]) -> io::Result<()> {
    let header = body.strip_prefix(MAGIC).ok_or_else(no_frame)?;
    let window = window_bytes(header).ok_or_else(no_frame)?;
    if usize::try_from(window).is_ok_and(|window| window <= MAX_SPARSE_TEXT_BYTES) {
        return Ok(());
    }
    let text = format!("a frame asks for a window of {window} bytes");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

fn no_frame() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not made of zstd frames")
}

/// Bytes that a decoder has to keep (RFC 8878 §3.1.1.1): those that the window's descriptor says, or
/// all of a frame that is one segment.
fn window_bytes(header: &[u8]) -> Option<u64> {
    let (descriptor, rest) = header.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let behind_dictionary = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    let size = |len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(behind_dictionary.get(..len)?);
        Some(u64::from_le_bytes(bytes))
    };
    match descriptor >> 6 {
        0 => size(1),
        1 => size(2).map(|size| size + 256),
        2 => size(4),
        _ => size(8),
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SPARSE_TEXT_BYTES, window_bytes, with_c, without_c};

    /// What comes out of the only frame where `len` bytes are named, if it is so many.
    type Unpack = fn(&[u8], usize) -> Option<Vec<u8>>;

    fn c(body: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let rest = with_c::Unpacker::default().unpack_frame(body, len, &mut text).ok()?;
        (rest.is_empty() && text.len() == len).then_some(text)
    }

    fn rust(body: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let rest = without_c::Unpacker.unpack_frame(body, len, &mut text).ok()?;
        (rest.is_empty() && text.len() == len).then_some(text)
    }

    fn by_c(text: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        with_c::Packer::new().unwrap().pack_frame(text, &mut body).unwrap();
        body
    }

    fn by_rust(text: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        without_c::Packer::new().unwrap().pack_frame(text, &mut body).unwrap();
        body
    }

    #[test]
    fn each_implementation_reads_what_the_other_wrote_and_bounds_it() {
        let text = b"{\"action\":\"contact.update\",\"v\":1}\n".repeat(900);
        for body in [by_c(&text), by_rust(&text)] {
            for unpack in [c as Unpack, rust] {
                assert_eq!(unpack(&body, text.len()).as_deref(), Some(&text[..]));
                assert_eq!(unpack(&body, text.len() - 1), None);
                assert_eq!(unpack(&body, text.len() + 1), None);
                assert_eq!(unpack(&body[..body.len() / 2], text.len()), None);
            }
        }
    }

    #[test]
    fn frames_are_read_and_skipped_one_after_the_other() {
        let texts = [b"one\n".repeat(50_000), Vec::new(), b"three\n".to_vec()];
        for pack in [by_c as fn(&[u8]) -> Vec<u8>, by_rust] {
            let body: Vec<u8> = texts.iter().flat_map(|text| pack(text)).collect();
            let (mut c, mut rust) = (with_c::Unpacker::default(), without_c::Unpacker);
            let (mut by_c, mut by_rust) = (b"before".to_vec(), b"before".to_vec());
            let mut rest = &body[..];
            for text in &texts {
                let after = c.unpack_frame(rest, text.len(), &mut by_c).unwrap();
                assert!(by_c.ends_with(text));
                assert_eq!(rust.unpack_frame(rest, text.len(), &mut by_rust).unwrap(), after);
                assert_eq!(by_rust, by_c);
                assert_eq!(with_c::skip_frame(rest).unwrap(), after);
                assert_eq!(without_c::skip_frame(rest).unwrap(), after);
                rest = after;
            }
            assert_eq!(by_c, [&b"before"[..], &texts.concat()].concat());
            assert!(
                rest.is_empty()
                    && with_c::skip_frame(rest).is_err()
                    && without_c::skip_frame(rest).is_err()
            );
        }
    }

    #[test]
    fn a_frames_window_is_what_its_header_says() {
        for (header, window) in [
            (&[0x00, 0x00][..], Some(1 << 10)),
            (&[0x00, (9 << 3) | 3], Some((1 << 19) + (3 << 16))),
            (&[0x00, 0xff], Some((1 << 41) / 8 * 15)),
            (&[0x20, 7], Some(7)),
            (&[0x60, 1, 1], Some(257 + 256)),
            (&[0xa1, 9, 1, 0, 0, 1], Some((1 << 24) + 1)),
            (&[0xe3, 9, 9, 9, 9, 1, 0, 0, 0, 0, 0, 0, 1], Some((1 << 56) + 1)),
            (&[0xe0, 1, 0, 0, 0, 0, 0, 0], None),
            (&[0x00], None),
            (&[], None),
        ] {
            assert_eq!(window_bytes(header), window, "{header:?}");
        }
    }

    /// One block of a repeated byte takes four bytes and gives 128 KiB: without the bound a decoder
    /// that keeps its window would keep all of it.
    #[test]
    fn a_frame_with_a_larger_window_than_any_text_is_refused_by_both() {
        let frame = |window_log: u8| {
            let run = (128 * 1024_u32) << 3 | 0b010;
            let last = 1_u32 << 3 | 0b011;
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
            for block in [run, run, last] {
                frame.extend_from_slice(&block.to_le_bytes()[..3]);
                frame.push(b'a');
            }
            frame
        };
        let len = 2 * 128 * 1024 + 1;
        for unpack in [c as Unpack, rust] {
            assert_eq!(unpack(&frame(20), len), Some(vec![b'a'; len]));
            assert_eq!(unpack(&frame(23), len), Some(vec![b'a'; len]));
            assert_eq!(unpack(&frame(24), len), None);
            assert_eq!(unpack(&frame(41), len), None);
        }
        const { assert!(MAX_SPARSE_TEXT_BYTES < 1 << 24) };
    }

    #[test]
    fn what_was_unpacked_before_leaves_no_trace() {
        let (long, short) = (vec![b'a'; 100_000], b"short\n".to_vec());
        let (mut unpacker, mut text) = (with_c::Unpacker::default(), Vec::new());
        for _ in 0..2 {
            for wanted in [&long, &short] {
                text.clear();
                unpacker.unpack_frame(&by_c(wanted), wanted.len(), &mut text).unwrap();
                assert_eq!(&text, wanted);
            }
            assert!(unpacker.unpack_frame(&by_c(&long)[..9], long.len(), &mut text).is_err());
        }
    }
}
