//! What of an event somebody may see, and the event without the rest.
//!
//! - Without `view_raw`: no record (`origin.raw`, `raw_base64`), nor its hash, from which a short
//!   record could be guessed; no `message` that only repeats the record.
//! - Without `view_sensitive`: no values of masked `changes`, no `details.sensitive`, and of an
//!   event that has such no record either: the record is where they came from.
//!
//! A search by somebody with less than the whole sight means the event as they see it
//! ([`Filter::holds`](crate::query::filter::Filter::holds)), so that a word of the hidden part
//! finds nothing, and excluding it hides nothing.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Which parts are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// The record.
    pub raw: bool,
    /// What packs have marked.
    pub sensitive: bool,
}

impl Default for Sight {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl Sight {
    /// Everything.
    pub const WHOLE: Self = Self { raw: true, sensitive: true };

    /// Is everything shown?
    #[must_use]
    pub fn is_whole(self) -> bool {
        self == Self::WHOLE
    }

    /// What both show.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { raw: self.raw && other.raw, sensitive: self.sensitive && other.sensitive }
    }

    /// The event as it is shown; borrowed where nothing had to be left out.
    #[must_use]
    pub fn show(self, event: &[u8]) -> Cow<'_, [u8]> {
        if self.is_whole() {
            return Cow::Borrowed(event);
        }
        // What cannot be read cannot be judged: nothing of it is shown.
        let Ok(Value::Object(mut map)) = serde_json::from_slice(event) else {
            return Cow::Owned(b"{}".to_vec());
        };
        if !self.hide(&mut map) {
            return Cow::Borrowed(event);
        }
        Cow::Owned(Value::Object(map).to_string().into_bytes())
    }

    /// Takes out what is not shown; says whether there was any.
    fn hide(self, event: &mut Map<String, Value>) -> bool {
        let marked = !self.sensitive && hide_marked(event);
        let record = (!self.raw || marked) && hide_record(event);
        marked || record
    }
}

fn hide_marked(event: &mut Map<String, Value>) -> bool {
    let mut found = false;
    if let Some(Value::Array(changes)) = event.get_mut("changes") {
        for change in changes.iter_mut().filter_map(Value::as_object_mut) {
            if change.get("masked") == Some(&Value::Bool(true)) {
                let both = [change.remove("before"), change.remove("after")];
                found |= both.iter().any(Option::is_some);
            }
        }
    }
    if let Some(Value::Object(details)) = event.get_mut("details") {
        found |= details.remove("sensitive").is_some();
    }
    found
}

fn hide_record(event: &mut Map<String, Value>) -> bool {
    let Some(Value::Object(origin)) = event.get_mut("origin") else { return false };
    let raw = origin.remove("raw");
    let parts = [origin.remove("raw_base64"), origin.remove("raw_sha256")];
    let found = raw.is_some() || parts.iter().any(Option::is_some);
    if raw.is_some() && event.get("message") == raw.as_ref() {
        event.remove("message");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"changes":[{"after":"b","before":"a","field":"x"},{"after":"S1","before":"S2","field":"pin","masked":true}],"details":{"plain":1,"sensitive":{"ssn":"S3"}},"id":"00","message":"RAW S1","origin":{"agent":"a1","raw":"RAW S1","raw_sha256":"HASH"}}"#;

    fn shown(raw: bool, sensitive: bool) -> String {
        let sight = Sight { raw, sensitive };
        String::from_utf8(sight.show(EVENT.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn each_permission_shows_its_parts_and_no_others() {
        assert_eq!(shown(true, true), EVENT);
        let no_raw = shown(false, true);
        assert!(!no_raw.contains("RAW") && !no_raw.contains("HASH"), "{no_raw}");
        assert!(no_raw.contains("\"S2\"") && no_raw.contains("S3"));
        for raw in [true, false] {
            let neither = shown(raw, false);
            for hidden in ["S1", "S2", "S3", "RAW", "HASH"] {
                assert!(!neither.contains(hidden), "{hidden}: {neither}");
            }
            assert!(neither.contains(r#"{"after":"b","before":"a","field":"x"}"#), "{neither}");
            assert!(
                neither.contains(r#"{"field":"pin","masked":true}"#) && neither.contains("plain")
            );
        }
    }

    #[test]
    fn an_event_without_hidden_parts_stays_byte_for_byte() {
        let plain = br#"{"id":"00","origin":{"agent":"a","raw":"line"}}"#;
        let sight = Sight { raw: true, sensitive: false };
        assert!(matches!(sight.show(plain), Cow::Borrowed(bytes) if bytes == plain));
        assert_eq!(&*sight.show(b"not json"), b"{}", "what cannot be judged is not shown");
    }
}
