//! A block's body is one zstd frame. On machines the C library makes and reads it; in a browser,
//! where there is no C compiler's output, a decoder in Rust, several times slower.

use std::io;

#[cfg(not(target_arch = "wasm32"))]
pub(super) use with_c::{Packer, unpack};
#[cfg(target_arch = "wasm32")]
pub(super) use without_c::{Packer, unpack};

#[cfg(not(target_arch = "wasm32"))]
mod with_c {
    use zstd::zstd_safe::CParameter;

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

    /// At most `len` bytes come out.
    pub(in super::super) fn unpack(body: &[u8], len: usize) -> io::Result<Vec<u8>> {
        zstd::bulk::decompress(body, len)
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

    /// At most `len` bytes come out.
    pub(in super::super) fn unpack(body: &[u8], len: usize) -> io::Result<Vec<u8>> {
        let decoder = ruzstd::decoding::StreamingDecoder::new(body).map_err(io::Error::other)?;
        let limit = u64::try_from(len).unwrap_or(u64::MAX).saturating_add(1);
        let mut text = Vec::with_capacity(len.min(1 << 20));
        decoder.take(limit).read_to_end(&mut text)?;
        if text.len() > len {
            return Err(io::Error::other("more text than the block names"));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::{with_c, without_c};

    #[test]
    fn each_implementation_reads_what_the_other_wrote_and_bounds_it() {
        let text = b"{\"action\":\"contact.update\",\"v\":1}\n".repeat(900);
        let by_c = with_c::Packer::new().unwrap().pack(&text).unwrap();
        let by_rust = without_c::Packer::new().unwrap().pack(&text).unwrap();
        for body in [&by_c, &by_rust] {
            assert_eq!(with_c::unpack(body, text.len()).unwrap(), text);
            assert_eq!(without_c::unpack(body, text.len()).unwrap(), text);
            assert!(with_c::unpack(body, text.len() - 1).is_err());
            assert!(without_c::unpack(body, text.len() - 1).is_err());
            assert!(without_c::unpack(&body[..body.len() / 2], text.len()).is_err());
        }
    }
}
