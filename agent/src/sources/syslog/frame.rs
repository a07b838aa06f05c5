//! A byte stream cut into syslog messages (RFC 6587), for each message anew: `LEN SP <…` counts
//! octets, everything else is a line.
//!
//! **Limits.** Never more than the longest message is held. A longer one comes as numbered pieces
//! of that length, so that a sender who never ends a message holds no memory and loses nothing.

/// Digits of a length, at most: 999,999,999 octets.
const MAX_LEN_DIGITS: usize = 9;

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Before a message.
    Start,
    /// Within a message of which so many octets are to come.
    Counted { left: usize, piece: u32 },
    /// Within a line.
    Line { piece: u32 },
}

/// Cuts one connection's bytes.
#[derive(Debug)]
pub(crate) struct Framer {
    max_bytes: usize,
    mode: Mode,
    held: Vec<u8>,
}

/// How a message begins.
enum Begin {
    Counted { head: usize, len: usize },
    Line,
    Unclear,
}

impl Framer {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes: max_bytes.max(1), mode: Mode::Start, held: Vec::new() }
    }

    /// Takes bytes in and gives the messages that they end, with the piece's number where a message
    /// had to be cut.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut give: impl FnMut(&[u8], Option<u32>)) {
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(used) = self.step(at, &mut give) {
            at += used;
        }
        self.held.drain(..at);
    }

    /// One step from `at` on; `None` where more bytes are needed.
    fn step(&mut self, at: usize, give: &mut impl FnMut(&[u8], Option<u32>)) -> Option<usize> {
        let held = &self.held[at..];
        match self.mode {
            Mode::Start => match begin(held)? {
                (blank, Begin::Unclear) => (blank > 0).then_some(blank),
                (blank, Begin::Line) => {
                    self.mode = Mode::Line { piece: 0 };
                    Some(blank)
                }
                (blank, Begin::Counted { head, len }) => {
                    self.mode = Mode::Counted { left: len, piece: 0 };
                    Some(blank + head)
                }
            },
            Mode::Counted { left, piece } => {
                let take = left.min(self.max_bytes);
                let message = held.get(..take)?;
                if left > take {
                    give(message, Some(piece));
                    self.mode = Mode::Counted { left: left - take, piece: piece + 1 };
                } else {
                    give(without_end(message), (piece > 0).then_some(piece));
                    self.mode = Mode::Start;
                }
                Some(take)
            }
            Mode::Line { piece } => {
                let end = memchr::memchr(b'\n', &held[..held.len().min(self.max_bytes + 1)]);
                if let Some(end) = end {
                    give(without_end(&held[..end]), (piece > 0).then_some(piece));
                    self.mode = Mode::Start;
                    return Some(end + 1);
                }
                let message = held.get(..self.max_bytes).filter(|_| held.len() > self.max_bytes)?;
                give(message, Some(piece));
                self.mode = Mode::Line { piece: piece + 1 };
                Some(self.max_bytes)
            }
        }
    }

    /// The stream has ended: gives what is left, and says how many octets of a counted message
    /// never came.
    pub(crate) fn end(mut self, mut give: impl FnMut(&[u8], Option<u32>)) -> usize {
        let (missing, piece) = match self.mode {
            Mode::Start => (0, 0),
            Mode::Counted { left, piece } => (left.saturating_sub(self.held.len()), piece),
            Mode::Line { piece } => (0, piece),
        };
        let rest = std::mem::take(&mut self.held);
        if !without_end(&rest).is_empty() {
            give(without_end(&rest), (piece > 0).then_some(piece));
        }
        missing
    }
}

/// How the next message begins, and how many line ends stand before it; `None` where there is none.
fn begin(held: &[u8]) -> Option<(usize, Begin)> {
    let blank = held.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | 0)).count();
    let held = &held[blank..];
    if held.is_empty() {
        return (blank > 0).then_some((blank, Begin::Unclear));
    }
    let digits = held.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > MAX_LEN_DIGITS || held[0] == b'0' {
        return Some((blank, Begin::Line));
    }
    match (held.get(digits), held.get(digits + 1)) {
        (Some(b' '), Some(b'<')) => {
            let len = held[..digits]
                .iter()
                .fold(0_usize, |len, digit| len * 10 + usize::from(digit - b'0'));
            Some((blank, Begin::Counted { head: digits + 1, len }))
        }
        (None, _) | (Some(b' '), None) => Some((blank, Begin::Unclear)),
        _ => Some((blank, Begin::Line)),
    }
}

/// Some senders count a line end in, or write `\r\n` or NUL.
fn without_end(message: &[u8]) -> &[u8] {
    let end = message
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0))
        .map_or(0, |last| last + 1);
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Message = (String, Option<u32>);

    fn cut(max: usize, parts: &[&[u8]]) -> (Vec<Message>, usize) {
        let mut framer = Framer::new(max);
        let mut found = Vec::new();
        let mut give = |message: &[u8], piece| {
            found.push((String::from_utf8(message.to_vec()).unwrap(), piece));
        };
        for part in parts {
            framer.feed(part, &mut give);
        }
        let missing = framer.end(&mut give);
        (found, missing)
    }

    fn whole(texts: &[&str]) -> Vec<Message> {
        texts.iter().map(|text| ((*text).to_owned(), None)).collect()
    }

    #[test]
    fn both_framings_may_stand_in_one_stream() {
        let stream = b"<13>one\n11 <14>two\nmor5 <15>x<16>last\r\n\n2023-11-14 no priority\n";
        let expected =
            whole(&["<13>one", "<14>two\nmor", "<15>x", "<16>last", "2023-11-14 no priority"]);
        assert_eq!(cut(100, &[stream]), (expected.clone(), 0));
        let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(cut(100, &bytewise), (expected, 0));
    }

    #[test]
    fn a_message_that_is_too_long_comes_in_numbered_pieces() {
        let piece = |text: &str, number| (text.to_owned(), Some(number));
        let (found, missing) = cut(4, &[b"<1>aaaabb\n12 <2>ccccccccd<3>e\n"]);
        assert_eq!(missing, 0);
        assert_eq!(
            found,
            [
                piece("<1>a", 0),
                piece("aaab", 1),
                piece("b", 2),
                piece("<2>c", 0),
                piece("cccc", 1),
                piece("cccd", 2),
                ("<3>e".to_owned(), None),
            ]
        );
    }

    #[test]
    fn what_a_broken_connection_leaves_is_given_and_what_it_lacks_is_told() {
        assert_eq!(cut(100, &[b"<1>half"]), (whole(&["<1>half"]), 0));
        assert_eq!(cut(100, &[b"10 <1>half"]), (whole(&["<1>half"]), 3));
        assert_eq!(cut(100, &[b"10"]), (whole(&["10"]), 0));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_wherever_the_stream_is_torn(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'<'), Just(b'\n'), Just(b' '), b'0'..=b'9', b'a'..=b'f'], 0..200),
            max in 1_usize..20, at in 0_usize..200,
        ) {
            let at = at.min(bytes.len());
            let (left, right) = bytes.split_at(at);
            let torn = cut(max, &[left, right]);
            prop_assert_eq!(&torn, &cut(max, &[&bytes]));
            let letters = |text: &[u8]| text.iter().filter(|b| b.is_ascii_lowercase()).count();
            let given: usize = torn.0.iter().map(|(text, _)| letters(text.as_bytes())).sum();
            prop_assert_eq!(given, letters(&bytes));
            prop_assert!(torn.0.iter().all(|(text, _)| text.len() <= max.max(10)));
        }
    }
}
