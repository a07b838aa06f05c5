//! See `custody_agent::fuzz::gzip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| custody_agent::fuzz::gzip(data));
