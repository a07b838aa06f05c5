//! From when until when a certificate is good, and whom it names: the two dates and the two names of RFC 5280 §4.1.2, and
//! nothing else of it.
//!
//! Whether it is to be trusted is the TLS library's business; people want to know when it ends, before it does.

use custody_event::Timestamp;

/// The span in which a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dates {
    /// From here on.
    pub not_before: Timestamp,
    /// Until here.
    pub not_after: Timestamp,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const EXPLICIT_VERSION: u8 = 0xa0;
const OID: u8 = 0x06;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// What stands in a certificate, as far as it is read.
struct Fields<'a> {
    /// The content of the issuer's name.
    issuer: &'a [u8],
    /// The content of the two dates.
    validity: &'a [u8],
    /// The content of the subject's name.
    subject: &'a [u8],
}

fn fields(der: &[u8]) -> Option<Fields<'_>> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut body, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(body, EXPLICIT_VERSION) {
        body = rest;
    }
    let (_, rest) = expect(body, INTEGER)?;
    let (_, rest) = expect(rest, SEQUENCE)?;
    let (issuer, rest) = expect(rest, SEQUENCE)?;
    let (validity, rest) = expect(rest, SEQUENCE)?;
    let (subject, _) = expect(rest, SEQUENCE)?;
    Some(Fields { issuer, validity, subject })
}

/// The dates of a certificate in DER; `None` where it is none.
pub fn dates(der: &[u8]) -> Option<Dates> {
    let (not_before, rest) = time(fields(der)?.validity)?;
    let (not_after, _) = time(rest)?;
    Some(Dates { not_before, not_after })
}

/// Does the second certificate name the first as its issuer, byte for byte? Says nothing of signatures.
pub fn is_named_by(authority: &[u8], certificate: &[u8]) -> bool {
    let named = || Some(fields(authority)?.subject == fields(certificate)?.issuer);
    named().unwrap_or(false)
}

/// One part of a name: the number of its kind (`2.5.4.3` is the common name), the tag of its text, and the text's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePart {
    /// The arcs of the object identifier.
    pub kind: Vec<u64>,
    /// The tag of the string (X.680 §8.6): 12 is UTF-8, 19 printable.
    pub tag: u8,
    /// The string's bytes.
    pub text: Vec<u8>,
}

/// The parts of a certificate's subject in order; `None` where it is no certificate, or a part has several values.
pub fn subject(der: &[u8]) -> Option<Vec<NamePart>> {
    let mut rest = fields(der)?.subject;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (set, after) = expect(rest, SET)?;
        let (pair, others) = expect(set, SEQUENCE)?;
        let (oid, string) = expect(pair, OID)?;
        let (tag, text, end) = value(string)?;
        if !others.is_empty() || !end.is_empty() {
            return None;
        }
        parts.push(NamePart { kind: arcs(oid)?, tag, text: text.to_vec() });
        rest = after;
    }
    Some(parts)
}

/// The arcs of an object identifier (X.690 §8.19).
fn arcs(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut found = Vec::new();
    let mut arc: u64 = 0;
    for byte in bytes {
        arc = arc.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            found.push(std::mem::take(&mut arc));
        }
    }
    let first = *found.first()?;
    let top = (first / 40).min(2);
    found.splice(..1, [top, first - top * 40]);
    (bytes.last()? & 0x80 == 0).then_some(found)
}

/// The content of the value in front if it has this tag, and what follows.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = value(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and what follows; lengths of up to four bytes (X.690 §8.1.3).
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(*first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (digits, rest) = rest.split_at(count);
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let content = rest.get(..length)?;
    Some((*tag, content, &rest[length..]))
}

/// `YYMMDDHHMMSSZ` (50 and more is of the last century) or `YYYYMMDDHHMMSSZ`.
fn time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, content, rest) = value(bytes)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let full = match (tag, text.len()) {
        (UTC_TIME, 12) if text.as_bytes()[0] >= b'5' => format!("19{text}"),
        (UTC_TIME, 12) => format!("20{text}"),
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to).unwrap_or_default();
    let zulu = format!(
        "{}-{}-{}T{}:{}:{}.000000Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    );
    Some((Timestamp::parse(&zulu).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's frame around a validity.
    fn framed(validity: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let mut out = vec![tag, u8::try_from(content.len()).unwrap()];
            out.extend_from_slice(content);
            out
        };
        let body = [
            wrap(EXPLICIT_VERSION, &[INTEGER, 1, 2]),
            vec![INTEGER, 1, 7],
            wrap(SEQUENCE, &[]),
            wrap(SEQUENCE, &[]),
            wrap(SEQUENCE, validity),
            wrap(SEQUENCE, b"\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03abc"),
        ];
        wrap(SEQUENCE, &wrap(SEQUENCE, &body.concat()))
    }

    #[test]
    fn both_forms_of_time_are_read_and_cut_ones_are_not() {
        let mut validity = vec![UTC_TIME, 13];
        validity.extend_from_slice(b"491231235959Z");
        validity.extend_from_slice(&[GENERALIZED_TIME, 15]);
        validity.extend_from_slice(b"20500101000000Z");
        let der = framed(&validity);
        let dates = dates(&der).unwrap();
        assert_eq!(dates.not_before.to_string(), "2049-12-31T23:59:59.000000Z");
        assert_eq!(dates.not_after.to_string(), "2050-01-01T00:00:00.000000Z");
        let name = NamePart { kind: vec![2, 5, 4, 3], tag: 12, text: b"abc".to_vec() };
        assert_eq!(subject(&der), Some(vec![name]));
        assert!(!is_named_by(&der, &der), "its issuer has no name");
        for end in 0..der.len() {
            assert_eq!(super::dates(&der[..end]), None, "cut at {end}");
            assert_eq!(super::subject(&der[..end]), None, "cut at {end}");
        }
    }
}
