//! A request's body: unpacked, and cut into records.
//!
//! A body is kept as it came wherever that can be: one record, or each element of a list as it is
//! written. A form becomes the JSON in its field `payload`, or one JSON object of its fields, so
//! that packs can read it. What is neither stays one record of its bytes: a sender who proved who
//! it is loses nothing for bad syntax.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

use custody_evidence::base64;
use serde_json::value::RawValue;

use crate::sources::MAX_CHUNK_RECORDS;

/// Why a body is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untaken {
    /// It is larger than the limit once it is unpacked.
    TooLarge,
    /// It is not gzip, or is cut off.
    NotGzip,
    /// It holds more records than one batch.
    TooMany,
    /// It is empty.
    Empty,
}

/// All members of a gzip body.
pub(crate) fn unpacked(packed: &[u8], max_bytes: usize) -> Result<Vec<u8>, Untaken> {
    let mut body = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    let read = flate2::read::MultiGzDecoder::new(packed).take(limit).read_to_end(&mut body);
    if body.len() > max_bytes {
        return Err(Untaken::TooLarge);
    }
    read.map(|_| body).map_err(|_| Untaken::NotGzip)
}

/// The records of a body; `split` names the list whose elements are records.
pub(crate) fn records<'a>(
    body: &'a [u8],
    is_form: bool,
    split: &str,
) -> Result<Vec<Cow<'a, [u8]>>, Untaken> {
    if body.is_empty() {
        return Err(Untaken::Empty);
    }
    if is_form && let Some(text) = form_as_json(body) {
        let owned = |record: Cow<'_, [u8]>| Cow::Owned(record.into_owned());
        return Ok(cut(text.as_bytes(), split)?.into_iter().map(owned).collect());
    }
    cut(body, split)
}

fn cut<'a>(body: &'a [u8], split: &str) -> Result<Vec<Cow<'a, [u8]>>, Untaken> {
    let Some(elements) = elements(body, split) else { return Ok(vec![Cow::Borrowed(body)]) };
    match elements.len() {
        0 => Ok(vec![Cow::Borrowed(body)]),
        count if count > MAX_CHUNK_RECORDS => Err(Untaken::TooMany),
        _ => Ok(elements.iter().map(|raw| Cow::Borrowed(raw.get().as_bytes())).collect()),
    }
}

fn elements<'a>(body: &'a [u8], split: &str) -> Option<Vec<&'a RawValue>> {
    let mut raw: &RawValue = serde_json::from_slice(body).ok()?;
    if !raw.get().starts_with('[') {
        for name in split.split('.') {
            let members: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(raw.get()).ok()?;
            raw = members.get(name)?;
        }
    }
    serde_json::from_str(raw.get()).ok()
}

fn form_as_json(body: &[u8]) -> Option<String> {
    let fields = form(body)?;
    if let Some((_, payload)) = fields.iter().find(|(key, _)| key == "payload") {
        let is_json = serde_json::from_str::<&RawValue>(payload).is_ok();
        return is_json.then(|| payload.clone());
    }
    let mut object = serde_json::Map::new();
    for (key, value) in fields {
        let value = serde_json::Value::String(value);
        match object.get_mut(&key) {
            None => drop(object.insert(key, value)),
            Some(serde_json::Value::Array(list)) => list.push(value),
            Some(first) => {
                let both = vec![first.take(), value];
                *first = serde_json::Value::Array(both);
            }
        }
    }
    Some(serde_json::Value::Object(object).to_string())
}

/// The fields of `application/x-www-form-urlencoded`; `None` where one is not UTF-8.
pub(crate) fn form(body: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(body).ok()?;
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decoded(key, true)?, percent_decoded(value, true)?))
        })
        .collect()
}

/// `%41` is `A`, and where `plus` is set `+` a space.
pub(crate) fn percent_decoded(text: &str, plus: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let decoded = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?.to_ascii_lowercase();
            custody_event::ids::parse_hex::<1>(&digits)
        });
        match decoded {
            Some([decoded]) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(if plus && *byte == b'+' { b' ' } else { *byte });
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// Base64 (RFC 4648 §4), padded or not; `None` for anything else.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            bits = bits << 6 | base64::value(*digit)?;
        }
        let missing = u32::try_from(4 - group.len()).ok()?;
        let [_, a, b, c] = (bits << (6 * missing)).to_be_bytes();
        out.extend_from_slice(&[a, b, c][..group.len() - 1]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn texts(body: &str, is_form: bool, split: &str) -> Result<Vec<String>, Untaken> {
        let found = records(body.as_bytes(), is_form, split)?;
        Ok(found.iter().map(|record| String::from_utf8(record.to_vec()).unwrap()).collect())
    }

    #[test]
    fn lists_are_cut_and_their_elements_stay_as_they_are_written() {
        assert_eq!(texts("[{\"a\": 1.0}, 2]", false, "").unwrap(), ["{\"a\": 1.0}", "2"]);
        let okta = "{\"data\":{\"events\":[{\"u\":1},{\"u\":2}]}}";
        assert_eq!(texts(okta, false, "data.events").unwrap(), ["{\"u\":1}", "{\"u\":2}"]);
        for whole in [okta, "{}", "[]", "not json", "{\"data\":5}", "[1,"] {
            assert_eq!(texts(whole, false, "").unwrap(), [whole]);
        }
        assert_eq!(texts("", false, ""), Err(Untaken::Empty));
        let many = format!("[{}1]", "1,".repeat(MAX_CHUNK_RECORDS));
        assert_eq!(texts(&many, false, ""), Err(Untaken::TooMany));
    }

    #[test]
    fn a_form_becomes_json() {
        assert_eq!(texts("payload=%7B%22a%22%3A+1%7D", true, "").unwrap(), ["{\"a\": 1}"]);
        assert_eq!(
            texts("b=x%20y&a=%C3%A9&b=2&c", true, "").unwrap(),
            ["{\"a\":\"é\",\"b\":[\"x y\",\"2\"],\"c\":\"\"}"]
        );
        assert_eq!(texts("a=%ff", true, "").unwrap(), ["a=%ff"]);
    }

    #[test]
    fn gzip_is_unpacked_to_its_last_member_and_to_the_limit() {
        let member = |bytes: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(bytes).unwrap();
            packer.finish().unwrap()
        };
        let two = [member(b"one "), member(b"two")].concat();
        assert_eq!(unpacked(&two, 7).unwrap(), b"one two");
        assert_eq!(unpacked(&two, 6), Err(Untaken::TooLarge));
        assert_eq!(unpacked(&member(&vec![0; 1 << 20]), 1000), Err(Untaken::TooLarge));
        assert_eq!(unpacked(&two[..10], 7), Err(Untaken::NotGzip));
        assert_eq!(unpacked(b"{}", 7), Err(Untaken::NotGzip));
    }

    #[test]
    fn base64_is_read_as_it_is_written() {
        for bytes in [&b""[..], b"f", b"fo", b"foo", b"foob", b"\xff\xfe\xfd\xfc\xfb"] {
            let mut text = Vec::new();
            custody_event::json::push_base64(bytes, &mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(from_base64(&text).unwrap(), bytes);
            assert_eq!(from_base64(text.trim_end_matches('=')).unwrap(), bytes);
        }
        for wrong in ["a", "Zg===", "Z g=", "Zg=a", "_w=="] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic(bytes in proptest::collection::vec(
            proptest::sample::select(&b"{}[]\",:%=&+a1 \xff"[..]), 0..64), is_form: bool) {
            let found = records(&bytes, is_form, "a.a");
            proptest::prop_assert!(bytes.is_empty() == found.is_err());
            let _ = unpacked(&bytes, 10);
        }
    }
}
