//! The page on the language of packs is whole: it names every key that a pack may have, every
//! decoder, name, test and form that there is.

mod reference;

use custody_event::Field;

use crate::decode::Decoder;
use crate::pack::Format;
use crate::value::Source;
use crate::when;

const PAGE: &str = include_str!("../../docs/pack-language.md");
const KEYS: &str = include_str!("yaml.rs");

/// Does the page hold the word, with no letter, digit or `_` beside it?
fn names(word: &str) -> bool {
    let inner = |sign: char| sign.is_alphanumeric() || sign == '_';
    PAGE.match_indices(word).any(|(at, _)| {
        let (before, after) = (&PAGE[..at], &PAGE[at + word.len()..]);
        !before.ends_with(inner) && !after.starts_with(inner)
    })
}

#[test]
fn every_key_of_a_pack_is_on_the_page() {
    let fields = KEYS.lines().filter_map(|line| {
        let (name, kind) = line.trim().strip_prefix("pub(crate) ")?.split_once(": ")?;
        (!name.contains(' ') && kind.ends_with(',')).then_some(name)
    });
    // `match:` is called otherwise in the code.
    let keys: Vec<&str> =
        fields.map(|name| if name == "pattern" { "match" } else { name }).collect();
    assert!(keys.len() > 30, "{keys:?}");
    let missing: Vec<&&str> = keys.iter().filter(|key| !names(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_decoder_name_test_and_form_is_on_the_page() {
    let lists = [Decoder::NAMES, Source::NAMES, when::Test::NAMES, when::TREES, Format::NAMES];
    let missing: Vec<&&str> = lists.iter().copied().flatten().filter(|name| !names(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_decoder_of_fields_says_how_its_fields_are_called() {
    for name in Decoder::NAMES {
        let gives = Decoder::from_name(name).is_some_and(|decoder| decoder.gives_fields());
        assert!(!gives || PAGE.contains(&format!("`${name}.")), "{name}");
    }
    assert!(Field::from_path("origin.event_name").is_some() && names("origin.event_name"));
}
