//! Writes what a decoder finds onto a tape, as one object.
//!
//! A value that is a slice of the message is kept as its place there; only what had to be changed
//! (escapes, hex) is copied. Keys are copied to the tape's store, as those of JSON are.

use super::json::{At, Kind, Node, Span, Tape, index, short};

/// Fields of one record, at most, objects counted too.
pub(crate) const MAX_FIELDS: usize = 1_000;
/// A key is at most this long.
pub(crate) const MAX_KEY_BYTES: usize = 256;

/// Why a decoder gave up; see the limits above.
const TOO_MANY: &str = "more than 1,000 fields";
const LONG_KEY: &str = "a key of more than 256 bytes";
const LONG_TEXT: &str = "a record of more than half a GiB";

/// A tape that is being written.
pub(crate) struct Builder<'t> {
    tape: &'t mut Tape,
    text: &'t str,
}

/// An object that has been opened: where its node is.
#[must_use]
pub(crate) struct Opened(usize);

impl<'t> Builder<'t> {
    /// Empties the tape and opens its one object.
    pub(crate) fn new(tape: &'t mut Tape, text: &'t str) -> Result<Self, &'static str> {
        if text.len() >= index(u32::MAX / 8) {
            return Err(LONG_TEXT);
        }
        tape.clear();
        let root =
            Node { kind: Kind::Object, key: Span::default(), text: Span::default(), next: 0 };
        tape.nodes.push(root);
        Ok(Self { tape, text })
    }

    /// A text under a key; found as a place where it is a slice of the message.
    pub(crate) fn put(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let key = self.key(key)?;
        let text = self.span(value);
        self.push(Kind::Text, key, text)
    }

    /// `put`, under a key of its own: one that is there already gets `prefix` before it.
    pub(crate) fn put_apart(
        &mut self,
        prefix: &str,
        key: &str,
        value: &str,
    ) -> Result<(), &'static str> {
        if !self.has(key) {
            return self.put(key, value);
        }
        let mut longer = String::with_capacity(prefix.len() + key.len());
        longer.push_str(prefix);
        longer.push_str(key);
        self.put(&longer, value)
    }

    /// Opens an object under a key; what is put until [`Builder::close`] is in it.
    pub(crate) fn open(&mut self, key: &str) -> Result<Opened, &'static str> {
        let key = self.key(key)?;
        self.push(Kind::Object, key, Span::default())?;
        Ok(Opened(self.tape.nodes.len() - 1))
    }

    /// Closes an object.
    pub(crate) fn close(&mut self, object: &Opened) {
        let next = short(self.tape.nodes.len());
        if let Some(node) = self.tape.nodes.get_mut(object.0) {
            node.next = next;
        }
    }

    /// Is the object, opened last and not closed, still empty?
    pub(crate) fn is_empty(&self, object: &Opened) -> bool {
        self.tape.nodes.len() == object.0 + 1
    }

    /// Makes an object that has stayed empty a text.
    pub(crate) fn instead(&mut self, object: &Opened, value: &str) {
        let text = self.span(value);
        let next = short(object.0 + 1);
        if let Some(node) = self.tape.nodes.get_mut(object.0) {
            (node.kind, node.text, node.next) = (Kind::Text, text, next);
        }
    }

    /// Has the outermost object this key?
    pub(crate) fn has(&self, key: &str) -> bool {
        self.find(1, short(self.tape.nodes.len()), key).is_some()
    }

    /// The text under a key of the outermost object.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let at = self.find(1, short(self.tape.nodes.len()), key)?;
        self.tape.scalar(at, self.text).map(str::to_owned)
    }

    /// The text under a key of an object in the outermost one.
    pub(crate) fn inner(&self, object: &str, key: &str) -> Option<String> {
        let at = self.find(1, short(self.tape.nodes.len()), object)?;
        let at = self.find(at + 1, self.tape.nodes[index(at)].next, key)?;
        self.tape.scalar(at, self.text).map(str::to_owned)
    }

    fn find(&self, from: At, end: At, key: &str) -> Option<At> {
        let mut at = from;
        while at < end {
            if self.tape.key(at) == key {
                return Some(at);
            }
            // An object that is still open reaches to the end.
            at = self.tape.nodes[index(at)].next.max(at + 1);
        }
        None
    }

    /// Closes the outermost object: the tape can be read.
    pub(crate) fn finish(self) {
        let length = self.tape.nodes.len();
        if let Some(root) = self.tape.nodes.first_mut() {
            root.next = short(length);
        }
        self.tape.ready();
    }

    fn push(&mut self, kind: Kind, key: Span, text: Span) -> Result<(), &'static str> {
        let at = self.tape.nodes.len();
        if at > MAX_FIELDS {
            return Err(TOO_MANY);
        }
        self.tape.nodes.push(Node { kind, key, text, next: short(at + 1) });
        Ok(())
    }

    fn key(&mut self, key: &str) -> Result<Span, &'static str> {
        if key.len() > MAX_KEY_BYTES {
            return Err(LONG_KEY);
        }
        Ok(self.store(key))
    }

    fn store(&mut self, text: &str) -> Span {
        let start = short(self.tape.store.len());
        self.tape.store.push_str(text);
        Span { start, end: short(self.tape.store.len()), stored: true }
    }

    /// The place of a slice of the message; any other text is copied.
    fn span(&mut self, value: &str) -> Span {
        let start = value.as_ptr().addr().wrapping_sub(self.text.as_ptr().addr());
        let end = start.wrapping_add(value.len());
        if start <= end && end <= self.text.len() {
            return Span { start: short(start), end: short(end), stored: false };
        }
        self.store(value)
    }
}

/// Is this a space or a tab?
pub(crate) fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Is this a plain name: letters, digits and the joints that names have?
pub(crate) fn is_name(text: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'@');
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@/:[]".contains(&byte);
    text.bytes().next().is_some_and(first) && text.bytes().all(inner)
}
