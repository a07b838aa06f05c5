//! Lines on pages. Lengths are hundredths of a point, counted from the lower left corner.

use serde::{Deserialize, Serialize};

use super::font::Font;

/// A4, lying.
pub(super) const WIDTH: i64 = 84_200;
pub(super) const HEIGHT: i64 = 59_500;
pub(super) const LEFT: i64 = 3_400;
pub(super) const RIGHT: i64 = WIDTH - LEFT;
/// Below stands what every page ends with.
pub(super) const BOTTOM: i64 = 5_200;
pub(super) const TOP: i64 = HEIGHT - 3_200;

/// How a text is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) size: i64,
    /// Per cent of white.
    pub(super) gray: u8,
}

impl Style {
    pub(super) const fn leading(self) -> i64 {
        self.size * 128 / 100
    }
}

pub(super) const TITLE: Style = Style { size: 1_300, gray: 0 };
pub(super) const BODY: Style = Style { size: 720, gray: 0 };
pub(super) const FACT: Style = Style { size: 800, gray: 20 };
pub(super) const HEAD: Style = Style { size: 700, gray: 35 };
pub(super) const SMALL: Style = Style { size: 600, gray: 42 };

/// What is drawn on a page so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sheet {
    /// The page's content, plain ASCII.
    pub(super) content: String,
    /// The base of the last line.
    pub(super) y: i64,
}

fn points(length: i64) -> String {
    let sign = if length < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", length.abs() / 100, length.abs() % 100)
}

impl Sheet {
    /// Sets a text at this place.
    pub(super) fn text(&mut self, font: &mut Font, at: (i64, i64), style: Style, text: &str) {
        if text.is_empty() {
            return;
        }
        let (size, x, y) = (points(style.size), points(at.0), points(at.1));
        let gray = format!("0.{:02}", style.gray);
        self.content.push_str(&format!("BT {gray} g /F {size} Tf {x} {y} Td <"));
        font.push_codes(text, &mut self.content);
        self.content.push_str("> Tj ET\n");
    }

    /// Draws a thin line over the page's width.
    pub(super) fn rule(&mut self, y: i64, gray: u8) {
        let (left, right, y) = (points(LEFT), points(RIGHT), points(y));
        self.content.push_str(&format!("0.40 w 0.{gray:02} G {left} {y} m {right} {y} l S\n"));
    }
}

/// How wide a text is in this size.
pub(super) fn width(font: &mut Font, style: Style, text: &str) -> i64 {
    text.chars().map(|character| char_width(font, style, character)).sum()
}

fn char_width(font: &mut Font, style: Style, character: char) -> i64 {
    i64::from(font.width(character)) * style.size / 1_000
}

/// The text with everything visible that would not be.
pub(super) fn visible(font: &Font, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if font.has(character) {
            out.push(character);
        } else {
            out.push_str(&format!("[U+{:04X}]", u32::from(character)));
        }
    }
    out
}

/// Cuts a text into lines of at most this width: at spaces, else behind a sign that ends a part,
/// else anywhere. Nothing is left out but the spaces at which it was cut.
pub(super) fn wrap(font: &mut Font, style: Style, room: i64, text: &str) -> Vec<String> {
    let text = visible(font, text);
    let mut lines = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = fitting(font, style, room, rest);
        let (line, after) = rest.split_at(end);
        let cut = if after.is_empty() { end } else { good_cut(line, after) };
        let (line, after) = rest.split_at(cut);
        lines.push(line.trim_end().to_owned());
        rest = after.trim_start_matches(' ');
    }
    lines
}

/// Bytes of the longest beginning that fits; at least one character.
fn fitting(font: &mut Font, style: Style, room: i64, text: &str) -> usize {
    let mut left = room;
    for (at, character) in text.char_indices() {
        left -= char_width(font, style, character);
        if left < 0 && at > 0 {
            return at;
        }
    }
    text.len()
}

fn good_cut(line: &str, after: &str) -> usize {
    if after.starts_with(' ') {
        return line.len();
    }
    if let Some(at) = line.rfind(' ').filter(|at| *at > 0) {
        return at + 1;
    }
    let ends = ['/', '.', ',', ';', ':', '-', '_', '@', '&', '=', '?', ')', ']', '}'];
    match line.rfind(ends) {
        Some(at) if at > line.len() / 3 => at + 1,
        _ => line.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_text_fits_and_loses_nothing() {
        let mut font = Font::new().unwrap();
        let long = "x".repeat(300);
        for text in [
            "one two three four five six seven eight nine ten",
            "https://example.org/a/very/long/path?with=query&and=more#fragment",
            "管理者\u{202e}gnp.exe",
            long.as_str(),
            "a",
            "",
        ] {
            let lines = wrap(&mut font, BODY, 6_000, text);
            for line in &lines {
                assert!(width(&mut font, BODY, line) <= 6_000, "{line:?}");
            }
            let bare = |text: &str| text.replace(' ', "");
            let seen = visible(&font, text);
            assert_eq!(bare(&lines.concat()), bare(&seen), "{text:?}");
        }
        assert!(wrap(&mut font, BODY, 90_000, "\u{202e}x").concat().starts_with("[U+202E]"));
        assert_eq!(wrap(&mut font, BODY, 1, "ab").len(), 2, "no room for one still ends");
    }
}
