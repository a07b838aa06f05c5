//! From when until when a certificate is good: the two dates of RFC 5280 §4.1.2.5, and nothing else of it.
//!
//! Who signed it and for whom is the TLS library's business; people want to know when it ends, before it does.

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
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The dates of a certificate in DER; `None` where it is none.
pub fn dates(der: &[u8]) -> Option<Dates> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut body, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(body, EXPLICIT_VERSION) {
        body = rest;
    }
    let (_, rest) = expect(body, INTEGER)?;
    let (_, rest) = expect(rest, SEQUENCE)?;
    let (_, rest) = expect(rest, SEQUENCE)?;
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some(Dates { not_before, not_after })
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
        for end in 0..der.len() {
            assert_eq!(super::dates(&der[..end]), None, "cut at {end}");
        }
    }
}
