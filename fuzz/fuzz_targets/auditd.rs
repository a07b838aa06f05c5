//! See `custody_agent::fuzz::auditd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| custody_agent::fuzz::auditd(data));
