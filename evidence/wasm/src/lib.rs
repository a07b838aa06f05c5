//! `custody-verify` for the browser: the same library, without files.
//!
//! # Interface
//! Plain exports of WebAssembly, no generated glue; `custody-verify.mjs` beside this crate calls
//! them. `input(len)` and `trust(len)` give the address of as many bytes, to be filled by the
//! caller; `verify()` judges the input and gives 0 verified, 1 tampered, 2 unreadable, 64 the trust
//! cannot be read, as the program's exit codes; `output()` and `output_len()` are the report (JSON), or for 2
//! and 64 a sentence. Everything is kept until the next call of the same kind.
//!
//! The trust is text: one key a line (a log's or a witness's verifier key, an agent's 64 hex
//! digits), then, after an empty line, an older checkpoint; both may be missing.
//!
//! # Limits
//! The input is held whole in memory, the verification itself needs a few MiB.

use std::cell::RefCell;

use custody_evidence::verify::{Trust, verify_bundle};

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static TRUST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn reserve(buffer: &RefCell<Vec<u8>>, len: usize) -> *mut u8 {
    let mut bytes = buffer.borrow_mut();
    bytes.clear();
    bytes.resize(len, 0);
    bytes.as_mut_ptr()
}

/// Room for the bundle.
#[expect(unsafe_code, reason = "an exported name")]
#[unsafe(no_mangle)]
pub extern "C" fn input(len: usize) -> *mut u8 {
    INPUT.with(|buffer| reserve(buffer, len))
}

/// Room for what is trusted.
#[expect(unsafe_code, reason = "an exported name")]
#[unsafe(no_mangle)]
pub extern "C" fn trust(len: usize) -> *mut u8 {
    TRUST.with(|buffer| reserve(buffer, len))
}

/// Judges the input.
#[expect(unsafe_code, reason = "an exported name")]
#[unsafe(no_mangle)]
pub extern "C" fn verify() -> u32 {
    let (code, said) =
        INPUT.with_borrow(|bundle| TRUST.with_borrow(|trusted| judge(bundle, trusted)));
    OUTPUT.set(said);
    code
}

/// Where the answer is.
#[expect(unsafe_code, reason = "an exported name")]
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    OUTPUT.with_borrow(|said| said.as_ptr())
}

/// How long it is.
#[expect(unsafe_code, reason = "an exported name")]
#[unsafe(no_mangle)]
pub extern "C" fn output_len() -> usize {
    OUTPUT.with_borrow(String::len)
}

fn judge(bundle: &[u8], trusted: &[u8]) -> (u32, String) {
    let trust = match read_trust(trusted) {
        Ok(trust) => trust,
        Err(why) => return (64, why),
    };
    let report = match verify_bundle(bundle, "bundle", &trust) {
        Ok(report) => report,
        Err(error) => return (2, error.to_string()),
    };
    match report.to_json() {
        Ok(json) => (u32::from(!report.verified), json),
        Err(error) => (2, error.to_string()),
    }
}

fn read_trust(bytes: &[u8]) -> Result<Trust, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let (keys, checkpoint) = match text.split_once("\n\n") {
        Some((keys, checkpoint)) => (keys, Some(checkpoint.to_owned())),
        None => (text, None),
    };
    let mut trust = Trust { checkpoint, ..Trust::default() };
    for key in keys.lines().filter(|line| !line.trim().is_empty()) {
        trust.add_key(key).map_err(|error| error.to_string())?;
    }
    Ok(trust)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLE: &[u8] = include_bytes!("../../tests/golden/log-v1.custody");

    #[test]
    fn a_bundle_is_judged_as_by_the_program_and_a_changed_one_is_not_believed() {
        let (code, said) = judge(BUNDLE, b"");
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("\"verified\": true"));
        let mut changed = BUNDLE.to_vec();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        assert_eq!(judge(&changed, b"").0, 1);
        assert_eq!(judge(b"something else", b"").0, 2);
        assert_eq!(judge(BUNDLE, b"no key").0, 64);
        let other = custody_evidence::AgentKey::from_secret(&[1; 32]).public().to_hex();
        assert_ne!(
            judge(BUNDLE, b"PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").0,
            0
        );
        assert_eq!(
            judge(BUNDLE, other.as_bytes()).0,
            0,
            "an agent's key says nothing of a log's bundle"
        );
    }
}
