//! A block's body is one zstd frame. On machines the C library makes and reads it; in a browser,
//! where there is no C compiler's output, a decoder in Rust, several times slower.

use std::io;

#[cfg(not(target_arch = "wasm32"))]
pub(super) use with_c::{BeginUnpacker, Packer, Unpacker};
#[cfg(target_arch = "wasm32")]
pub(super) use without_c::{BeginUnpacker, Packer, Unpacker};

#[cfg(not(target_arch = "wasm32"))]
mod with_c {
    use zstd::stream::raw::{Decoder, Operation};
    use zstd::zstd_safe::{self, CParameter, DParameter, InBuffer, OutBuffer};

    use super::io;

    /// zstd's fastest ordinary level: log text shrinks to a fifth at about 600 MB/s.
    const ZSTD_LEVEL: i32 = 1;
    /// log₂ of its table's entries: 16 KiB stay in a core's first cache, which takes a seventh off
    /// the time, and events are so much alike that a larger table finds nothing more.
    const ZSTD_HASH_LOG: u32 = 12;

    /// Keeps zstd's working space.
    pub(in super::super) struct Packer(zstd::bulk::Compressor<'static>);

    impl Packer {
        pub(in super::super) fn new() -> io::Result<Self> {
            let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
            zstd.set_parameter(CParameter::HashLog(ZSTD_HASH_LOG))?;
            Ok(Self(zstd))
        }

        pub(in super::super) fn pack(&mut self, text: &[u8]) -> io::Result<Vec<u8>> {
            self.0.compress(text)
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
        /// Puts what comes out in the place of what is in `text`; more than `len` bytes are an error, or come out and
        /// are too many.
        pub(in super::super) fn unpack(
            &mut self,
            body: &[u8],
            len: usize,
            text: &mut Vec<u8>,
        ) -> io::Result<()> {
            let zstd = match &mut self.0 {
                Some(zstd) => zstd,
                none => none.insert(zstd::bulk::Decompressor::new()?),
            };
            // The library would read several frames, and skip what is none; the other decoder does not.
            if zstd_safe::find_frame_compressed_size(body) != Ok(body.len())
                || !body.starts_with(MAGIC)
            {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not one zstd frame"));
            }
            text.clear();
            text.reserve(len);
            zstd.decompress_to_buffer(body, text).map(|_| ())
        }
    }

    /// How a frame begins (RFC 8878 §3.1.1).
    const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

    /// log₂ of the longest window that a beginning is unpacked with: bodies have at most 8 MiB.
    const MAX_WINDOW_LOG: u32 = 23;
    /// What is unpacked before it is asked whether that is enough: zstd's own blocks have at most so many bytes.
    const STEP_BYTES: usize = 128 * 1024;

    /// Keeps zstd's working space, as much as the longest window so far, once there has been something to unpack.
    #[derive(Default)]
    pub(in super::super) struct BeginUnpacker(Option<Decoder<'static>>);

    impl std::fmt::Debug for BeginUnpacker {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("BeginUnpacker").finish_non_exhaustive()
        }
    }

    impl BeginUnpacker {
        /// Puts the beginning of what comes out in the place of what is in `text`, until `is_enough` says so of each
        /// further piece, or all of it, `len` bytes at most.
        pub(in super::super) fn unpack_until(
            &mut self,
            body: &[u8],
            len: usize,
            text: &mut Vec<u8>,
            mut is_enough: impl FnMut(&[u8]) -> bool,
        ) -> io::Result<()> {
            let zstd = match &mut self.0 {
                Some(zstd) => zstd,
                none => {
                    let mut zstd = Decoder::new()?;
                    zstd.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
                    none.insert(zstd)
                }
            };
            zstd.reinit()?;
            text.clear();
            let mut packed = InBuffer::around(body);
            while text.len() < len {
                let before = text.len();
                text.resize(len.min(before + STEP_BYTES), 0);
                let mut room = OutBuffer::around(&mut text[before..]);
                let ran = zstd.run(&mut packed, &mut room);
                let came = room.pos();
                text.truncate(before + came);
                let is_whole = ran? == 0;
                if is_enough(&text[before..]) || is_whole {
                    return Ok(());
                }
                if came == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(())
        }
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

        pub(in super::super) fn pack(&mut self, text: &[u8]) -> io::Result<Vec<u8>> {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            Ok(ruzstd::encoding::compress_to_vec(text, level))
        }
    }

    #[derive(Debug, Default)]
    pub(in super::super) struct Unpacker;

    impl Unpacker {
        /// Puts what comes out in the place of what is in `text`, one byte more than `len` at most.
        pub(in super::super) fn unpack(
            &mut self,
            body: &[u8],
            len: usize,
            text: &mut Vec<u8>,
        ) -> io::Result<()> {
            let decoder =
                ruzstd::decoding::StreamingDecoder::new(body).map_err(io::Error::other)?;
            let limit = u64::try_from(len).unwrap_or(u64::MAX).saturating_add(1);
            text.clear();
            decoder.take(limit).read_to_end(text)?;
            Ok(())
        }
    }

    #[derive(Debug, Default)]
    pub(in super::super) struct BeginUnpacker;

    impl BeginUnpacker {
        /// All of it: nobody here asks for the beginning alone.
        pub(in super::super) fn unpack_until(
            &mut self,
            body: &[u8],
            len: usize,
            text: &mut Vec<u8>,
            mut is_enough: impl FnMut(&[u8]) -> bool,
        ) -> io::Result<()> {
            Unpacker.unpack(body, len, text)?;
            is_enough(text);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{with_c, without_c};

    /// What comes out where `len` bytes are named, if it is so many.
    type Unpack = fn(&[u8], usize) -> Option<Vec<u8>>;

    fn c(body: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        with_c::Unpacker::default().unpack(body, len, &mut text).ok()?;
        (text.len() == len).then_some(text)
    }

    fn rust(body: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        without_c::Unpacker.unpack(body, len, &mut text).ok()?;
        (text.len() == len).then_some(text)
    }

    #[test]
    fn each_implementation_reads_what_the_other_wrote_and_bounds_it() {
        let text = b"{\"action\":\"contact.update\",\"v\":1}\n".repeat(900);
        let by_c = with_c::Packer::new().unwrap().pack(&text).unwrap();
        let by_rust = without_c::Packer::new().unwrap().pack(&text).unwrap();
        for body in [&by_c, &by_rust] {
            for unpack in [c as Unpack, rust] {
                assert_eq!(unpack(body, text.len()).as_deref(), Some(&text[..]));
                assert_eq!(unpack(body, text.len() - 1), None);
                assert_eq!(unpack(body, text.len() + 1), None);
                assert_eq!(unpack(&body[..body.len() / 2], text.len()), None);
            }
        }
    }

    #[test]
    fn what_was_unpacked_before_leaves_no_trace() {
        let (long, short) = (vec![b'a'; 100_000], b"short\n".to_vec());
        let mut packer = with_c::Packer::new().unwrap();
        let bodies = [&long, &short].map(|text| packer.pack(text).unwrap());
        let (mut unpacker, mut text) = (with_c::Unpacker::default(), Vec::new());
        for _ in 0..2 {
            for (body, wanted) in bodies.iter().zip([&long, &short]) {
                unpacker.unpack(body, wanted.len(), &mut text).unwrap();
                assert_eq!(&text, wanted);
            }
            assert!(unpacker.unpack(&bodies[0][..9], long.len(), &mut text).is_err());
        }
    }

    #[test]
    fn a_beginning_is_as_long_as_is_asked_for() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let body = with_c::Packer::new().unwrap().pack(&text).unwrap();
        for wanted in [0, 1, 100_000, 300_000, text.len()] {
            let (mut got, mut seen) = (b"before".to_vec(), 0);
            let enough = |more: &[u8]| {
                seen += more.len();
                seen >= wanted
            };
            with_c::BeginUnpacker::default()
                .unpack_until(&body, text.len(), &mut got, enough)
                .unwrap();
            assert!(text.starts_with(&got) && got.len() >= wanted, "{wanted}");
            assert!(got.len() < wanted + 128 * 1024 + 1, "{wanted}: {}", got.len());
            let mut rust = Vec::new();
            without_c::BeginUnpacker.unpack_until(&body, text.len(), &mut rust, |_| true).unwrap();
            assert_eq!(rust, text);
        }
    }
}
