//! Is a line a canonical event? One walk over its bytes, without building anything.
//!
//! Checked: RFC 8785 text (sorted ASCII keys, each once; the shortest escapes; integers within
//! ±(2^53 − 1) without sign or zeros in front; no white space; valid UTF-8), at most
//! [`crate::MAX_EVENT_BYTES`], depth bounded, and an object at the top.

use crate::MAX_EVENT_BYTES;
use crate::json::MAX_SAFE_INT;

/// Objects and lists nested in an event, at most: the schema's own and [`crate::draft::MAX_DEPTH`].
const MAX_NESTING: usize = 20;

/// Why a line is not a canonical event, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not canonical at byte {at}: {what}")]
pub struct NotCanonical {
    /// Byte offset in the event.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Checks one event (without its newline).
///
/// # Errors
/// The first thing that is not canonical.
pub fn check(event: &[u8]) -> Result<(), NotCanonical> {
    walk(event, |_, _| {})
}

/// As [`check`]; also tells of each text, number and word that stands as a value, in their order, where it begins and
/// where it has ended.
///
/// # Errors
/// As for [`check`].
pub fn check_noting(event: &[u8], note: impl FnMut(usize, usize)) -> Result<(), NotCanonical> {
    walk(event, note)
}

/// Where the text, number or word has ended that begins at `at`; `None` where there is none, or not as it must be.
/// The whole must be UTF-8.
#[must_use]
pub fn scalar_end(event: &[u8], at: usize) -> Option<usize> {
    let mut walk = Walk { bytes: event, at, note: |_, _| {} };
    walk.scalar().ok().map(|()| walk.at)
}

/// Is it UTF-8? Asked of a whole block at once it costs a tenth of asking for each event.
#[must_use]
pub fn is_utf8(text: &[u8]) -> bool {
    simdutf8::basic::from_utf8(text).is_ok()
}

fn walk(event: &[u8], note: impl FnMut(usize, usize)) -> Result<(), NotCanonical> {
    if event.len() > MAX_EVENT_BYTES {
        return Err(NotCanonical { at: MAX_EVENT_BYTES, what: "longer than 60 KiB" });
    }
    if let Err(error) = simdutf8::compat::from_utf8(event) {
        return Err(NotCanonical { at: error.valid_up_to(), what: "not UTF-8" });
    }
    let mut walk = Walk { bytes: event, at: 0, note };
    if walk.peek() != Some(b'{') {
        return walk.fail("an event is an object");
    }
    walk.value(0)?;
    if walk.at == event.len() { Ok(()) } else { walk.fail("bytes after the object") }
}

/// A string between its quotes.
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    escaped: bool,
}

impl Text<'_> {
    /// Does it come before `other`, compared as the characters that the escapes stand for?
    fn comes_before(self, other: Text<'_>) -> bool {
        if self.escaped || other.escaped {
            unescaped(self.bytes) < unescaped(other.bytes)
        } else {
            self.bytes < other.bytes
        }
    }
}

struct Walk<'a, N> {
    bytes: &'a [u8],
    at: usize,
    /// Told of each value that is no list and no object.
    note: N,
}

type Step<T = ()> = Result<T, NotCanonical>;

impl<'a, N: FnMut(usize, usize)> Walk<'a, N> {
    fn fail<T>(&self, what: &'static str) -> Step<T> {
        Err(NotCanonical { at: self.at, what })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8, what: &'static str) -> Step {
        if self.peek() != Some(byte) {
            return self.fail(what);
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Step {
        match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_NESTING => self.fail("nested too deeply"),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            _ => {
                let begin = self.at;
                self.scalar()?;
                (self.note)(begin, self.at);
                Ok(())
            }
        }
    }

    fn scalar(&mut self) -> Step {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.integer(),
            _ => self.fail("a value is missing, or there is white space"),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Step {
        if !self.bytes[self.at..].starts_with(word) {
            return self.fail("not true, false or null");
        }
        self.at += word.len();
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Step {
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut last: Option<Text<'a>> = None;
        loop {
            let before = self.at;
            let key = self.string()?;
            if !key.bytes.is_ascii() || last.is_some_and(|last| !last.comes_before(key)) {
                self.at = before;
                return self.fail("keys must be ASCII, sorted, and each once");
            }
            last = Some(key);
            self.eat(b':', "expected ':'")?;
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.fail("expected ',' or '}'"),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Step {
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.fail("expected ',' or ']'"),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// A string's bytes between its quotes, escapes as they are.
    fn string(&mut self) -> Step<Text<'a>> {
        self.eat(b'"', "expected a string")?;
        let start = self.at;
        let mut escaped = false;
        loop {
            match crate::json::find_special(&self.bytes[self.at..]) {
                None => return self.fail("a string without an end"),
                Some(run) => self.at += run,
            }
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.fail("a control character that is not escaped"),
            }
        }
        self.at += 1;
        Ok(Text { bytes: &self.bytes[start..self.at - 1], escaped })
    }

    fn escape(&mut self) -> Step {
        let rest = &self.bytes[self.at + 1..];
        match rest.first() {
            Some(b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') if is_canonical_unicode_escape(rest) => {
                self.at += 6;
                Ok(())
            }
            _ => self.fail("not the canonical escape"),
        }
    }

    fn integer(&mut self) -> Step {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let digits = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let first = self.peek();
        self.at += digits;
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        let safe = text
            .parse::<i64>()
            .is_ok_and(|value| value.unsigned_abs() <= MAX_SAFE_INT.unsigned_abs());
        let zero_first = first == Some(b'0') && (digits > 1 || self.at - start > digits);
        if !safe || zero_first || matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            self.at = start;
            return self.fail("numbers are integers within ±(2^53 − 1), written plainly");
        }
        Ok(())
    }
}

/// `u00xx` in lower case for a control character that has no short escape.
fn is_canonical_unicode_escape(rest: &[u8]) -> bool {
    let Some(digits) = rest.get(1..5) else { return false };
    let low = match digits[3] {
        digit @ b'0'..=b'9' => digit - b'0',
        digit @ b'a'..=b'f' => digit - b'a' + 10,
        _ => return false,
    };
    digits.starts_with(b"00")
        && matches!(digits[2], b'0' | b'1')
        && !matches!((digits[2], low), (b'0', 8 | 9 | 10 | 12 | 13))
}

fn unescaped(key: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(key.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(key);
    quoted.push(b'"');
    serde_json::from_slice::<String>(&quoted).map(String::into_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_lines_pass() {
        for good in [
            r#"{}"#,
            r#"{"a":1,"b":-9007199254740991,"c":[],"d":{},"e":null,"f":"é\u0000\n\"\\/"}"#,
            r#"{"\n":1,"a":{"b":[{"c":true},false]}}"#,
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
    }

    #[test]
    fn everything_that_could_be_written_in_two_ways_is_refused() {
        for bad in [
            "",
            "[]",
            "{",
            "{}x",
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a": 1}"#,
            r#"{"a":01}"#,
            r#"{"a":-0}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":"\u000A"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\u000a"}"#,
            r#"{"a":"\u001F"}"#,
            "{\"a\":\"\n\"}",
            r#"{"é":1}"#,
            r#"{"a":tru}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":-}"#,
            r#"{"a":"x}"#,
            r#"{"a":"\"#,
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(30), "]".repeat(30));
        assert!(check(deep.as_bytes()).is_err());
    }
}
