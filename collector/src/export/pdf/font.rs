//! As much of a TrueType font as it takes to set a line: which glyph a character has, and how
//! wide it is.
//!
//! Characters that the font has not, that show nothing, or that change how others are shown are
//! set as `[U+202E]`: what stands in a log must be seen.

use std::collections::HashMap;

use subsetter::GlyphRemapper;

use super::super::ExportError;

/// DejaVu Sans Condensed: Latin, Greek, Cyrillic, Armenian, Georgian, symbols.
const FONT: &[u8] = include_bytes!("../../../assets/dejavu/DejaVuSansCondensed.ttf");

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, at)?).ok()
}

fn table(tag: &[u8; 4]) -> Option<&'static [u8]> {
    let count = usize::from(u16_at(FONT, 4)?);
    let records = (0..count).map(|number| 12 + 16 * number);
    let record = records.into_iter().find(|at| FONT.get(*at..*at + 4) == Some(tag))?;
    let (at, len) = (usize_at(FONT, record + 8)?, usize_at(FONT, record + 12)?);
    FONT.get(at..at.checked_add(len)?)
}

/// The subtable of characters beyond 16 bits, or the one within.
fn characters() -> Option<&'static [u8]> {
    let cmap = table(b"cmap")?;
    let records: Vec<(u16, usize)> = (0..usize::from(u16_at(cmap, 2)?))
        .filter_map(|number| {
            let at = 4 + 8 * number;
            (u16_at(cmap, at)? == 3).then_some(())?;
            Some((u16_at(cmap, at + 2)?, usize_at(cmap, at + 4)?))
        })
        .collect();
    let wanted = |encoding| records.iter().find(|(known, _)| *known == encoding);
    cmap.get(wanted(10).or_else(|| wanted(1))?.1..)
}

/// Glyph 0 is "missing".
fn glyph_of(characters: &[u8], character: char) -> Option<u16> {
    let code = u32::from(character);
    let glyph = match u16_at(characters, 0)? {
        12 => long_glyph(characters, code)?,
        4 => short_glyph(characters, u16::try_from(code).ok()?)?,
        _ => return None,
    };
    (glyph != 0).then_some(glyph)
}

fn long_glyph(characters: &[u8], code: u32) -> Option<u16> {
    let groups = usize_at(characters, 12)?;
    let group = (0..groups).map(|number| 16 + 12 * number).find(|at| {
        let (first, last) = (u32_at(characters, *at), u32_at(characters, at + 4));
        first.is_some_and(|first| first <= code) && last.is_some_and(|last| code <= last)
    })?;
    let offset = code - u32_at(characters, group)?;
    u16::try_from(u32_at(characters, group + 8)?.checked_add(offset)?).ok()
}

fn short_glyph(characters: &[u8], code: u16) -> Option<u16> {
    let segments = usize::from(u16_at(characters, 6)?);
    let at = (0..segments)
        .step_by(2)
        .find(|at| u16_at(characters, 14 + at).is_some_and(|last| code <= last))?;
    let first = u16_at(characters, 16 + segments + at)?;
    let delta = u16_at(characters, 16 + 2 * segments + at)?;
    let place = 16 + 3 * segments + at;
    let range = usize::from(u16_at(characters, place)?);
    let step = usize::from(code.checked_sub(first)?);
    if range == 0 {
        return Some(code.wrapping_add(delta));
    }
    let glyph = u16_at(characters, place + range + 2 * step)?;
    Some(if glyph == 0 { 0 } else { glyph.wrapping_add(delta) })
}

/// Numbers of the whole font, in thousandths of its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metrics {
    pub(super) ascent: i16,
    pub(super) descent: i16,
    pub(super) bbox: [i16; 4],
}

/// A glyph that is used.
#[derive(Debug, Clone, Copy)]
struct Glyph {
    /// Its number in the subset, which is its code on the page.
    code: u16,
    /// Thousandths of the size.
    width: u16,
}

/// See the module.
pub(super) struct Font {
    characters: &'static [u8],
    widths: &'static [u8],
    wide_glyphs: u16,
    units: u16,
    known: HashMap<char, Glyph>,
    /// The first character of each code, in the order of their first use.
    used: Vec<(char, u16)>,
    subset: GlyphRemapper,
}

impl Font {
    pub(super) fn new() -> Result<Self, ExportError> {
        let read = || {
            Some(Self {
                characters: characters()?,
                widths: table(b"hmtx")?,
                wide_glyphs: u16_at(table(b"hhea")?, 34)?,
                units: u16_at(table(b"head")?, 18)?,
                known: HashMap::new(),
                used: Vec::new(),
                subset: GlyphRemapper::new(),
            })
        };
        read().ok_or_else(|| ExportError::Event("the font of PDF exports is damaged".to_owned()))
    }

    fn thousandths(&self, units: i16) -> i16 {
        let scaled = i32::from(units) * 1_000 / i32::from(self.units.max(1));
        i16::try_from(scaled).unwrap_or(i16::MAX)
    }

    pub(super) fn metrics(&self) -> Option<Metrics> {
        let number = |bytes: &[u8], at| Some(u16_at(bytes, at)?.cast_signed());
        let (head, hhea) = (table(b"head")?, table(b"hhea")?);
        let scaled = |bytes, at| number(bytes, at).map(|units| self.thousandths(units));
        Some(Metrics {
            ascent: scaled(hhea, 4)?,
            descent: scaled(hhea, 6)?,
            bbox: [scaled(head, 36)?, scaled(head, 38)?, scaled(head, 40)?, scaled(head, 42)?],
        })
    }

    fn width_of(&self, glyph: u16) -> u16 {
        let at = usize::from(glyph.min(self.wide_glyphs.saturating_sub(1))) * 4;
        let units = u32::from(u16_at(self.widths, at).unwrap_or_default());
        u16::try_from(units * 1_000 / u32::from(self.units.max(1))).unwrap_or(u16::MAX)
    }

    /// The glyph of a character that the font has; it is used from now on.
    fn glyph(&mut self, character: char) -> Option<Glyph> {
        if let Some(glyph) = self.known.get(&character) {
            return Some(*glyph);
        }
        let number = glyph_of(self.characters, character)?;
        let code = self.subset.remap(number);
        let glyph = Glyph { code, width: self.width_of(number) };
        if usize::from(code) > self.used.len() {
            self.used.push((character, glyph.width));
        }
        self.known.insert(character, glyph);
        Some(glyph)
    }

    /// Does the font show the character as it is?
    pub(super) fn has(&self, character: char) -> bool {
        !hides(character)
            && (self.known.contains_key(&character)
                || glyph_of(self.characters, character).is_some())
    }

    /// How wide a character is, in thousandths of the size.
    pub(super) fn width(&mut self, character: char) -> u16 {
        self.glyph(character).map_or(0, |glyph| glyph.width)
    }

    /// Appends the codes of a text, in hex digits.
    pub(super) fn push_codes(&mut self, text: &str, out: &mut String) {
        for character in text.chars() {
            if let Some(glyph) = self.glyph(character) {
                out.push_str(&format!("{:04x}", glyph.code));
            }
        }
    }

    /// The characters that were used, in the order of their codes from 1 on, and their widths.
    pub(super) fn used(&self) -> &[(char, u16)] {
        &self.used
    }

    /// Goes on with these.
    pub(super) fn reuse(&mut self, characters: &str) {
        for character in characters.chars() {
            self.glyph(character);
        }
    }

    /// The font with the used glyphs alone.
    pub(super) fn embedded(&self) -> Result<Vec<u8>, ExportError> {
        subsetter::subset(FONT, 0, &self.subset)
            .map_err(|error| ExportError::Event(format!("the font of PDF exports: {error}")))
    }
}

/// Control and format characters: they show nothing, or change how others are shown.
fn hides(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_knows_these_and_hides_nothing() {
        let mut font = Font::new().unwrap();
        for character in "aZ09 éßŁΩЖ€→…—✓".chars() {
            assert!(font.has(character), "{character:?}");
            assert!(font.width(character) > 0, "{character:?}");
        }
        for character in ['管', '\u{202e}', '\u{200b}', '\u{feff}', '\n', '\0', '\u{10ffff}'] {
            assert!(!font.has(character), "{character:?}");
        }
        assert!(font.width('W') > font.width('i'));
        let metrics = font.metrics().unwrap();
        assert!(metrics.ascent > 700 && metrics.descent < -100, "{metrics:?}");
        assert!(font.embedded().unwrap().len() < 40_000);
    }

    #[test]
    fn codes_are_given_again_in_the_same_order() {
        let (mut one, mut other) = (Font::new().unwrap(), Font::new().unwrap());
        let (mut codes, mut again) = (String::new(), String::new());
        one.push_codes("hello\u{a0}world", &mut codes);
        let used: String = one.used().iter().map(|(character, _)| *character).collect();
        other.reuse(&used);
        other.push_codes("hello\u{a0}world", &mut again);
        assert_eq!(codes, again);
        assert_eq!(one.embedded().unwrap(), other.embedded().unwrap());
    }
}
