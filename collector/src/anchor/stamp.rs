//! Time-stamps of RFC 3161: the request, and what of the answer is looked at here.
//!
//! The answer is kept as it came. Who verifies it needs the authority's certificate and a program
//! for CMS: `openssl ts -verify -data NOTE -in TSR -CAfile CA.pem`. Here it is only looked at
//! whether the authority granted it, and whether it speaks of what was sent: an answer that would
//! be worthless later is refused now.

use custody_event::Digest;

/// SEQUENCE { OBJECT IDENTIFIER sha256, NULL }.
const SHA256: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00];
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// DER: tag, length (below 128), content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len()).unwrap_or(u8::MAX).min(127);
    let mut out = vec![tag, len];
    out.extend_from_slice(&content[..usize::from(len)]);
    out
}

/// A positive INTEGER of exactly eight bytes.
fn positive(mut nonce: [u8; 8]) -> [u8; 8] {
    nonce[0] = nonce[0] & 0x7f | 0x40;
    nonce
}

/// `TimeStampReq` for the SHA-256 `digest`, with this nonce, asking for the certificate as well.
pub(super) fn request(digest: &Digest, nonce: [u8; 8]) -> Vec<u8> {
    let imprint = der(SEQUENCE, &[&SHA256[..], &der(0x04, &digest.0)].concat());
    let parts = [
        der(INTEGER, &[1]),
        imprint,
        der(INTEGER, &positive(nonce)),
        // certReq: TRUE.
        vec![0x01, 0x01, 0xff],
    ];
    der(SEQUENCE, &parts.concat())
}

/// The content of the element that begins here, if it has this tag.
fn content(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let [found, len, rest @ ..] = bytes else { return None };
    if *found != tag {
        return None;
    }
    let digits = usize::from(*len & 0x7f);
    if *len < 0x80 {
        return rest.get(..digits);
    }
    // A length of up to four bytes; without digits it would be an unbounded one, which DER has not.
    let (len, rest) = rest.split_at_checked(digits).filter(|_| (1..=4).contains(&digits))?;
    rest.get(..len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// Is `TimeStampResp` a granted stamp of what was asked?
///
/// # Errors
/// Says what it is not.
pub(super) fn check(answer: &[u8], digest: &Digest, nonce: [u8; 8]) -> Result<(), String> {
    let status = content(answer, SEQUENCE)
        .and_then(|response| content(response, SEQUENCE))
        .and_then(|info| content(info, INTEGER))
        .ok_or("the answer is no time-stamp of RFC 3161")?;
    // 0 granted, 1 granted with modifications.
    if !matches!(status, [0 | 1]) {
        return Err(format!("the authority refuses, status {status:?}"));
    }
    let holds = |what: &[u8]| memchr::memmem::find(answer, what).is_some();
    if !holds(&der(0x04, &digest.0)) || !holds(&der(INTEGER, &positive(nonce))) {
        return Err("the time-stamp is not of what was sent".to_owned());
    }
    Ok(())
}
