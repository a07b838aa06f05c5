//! What many events have in common, written once: what a rule says whatever the record is, and
//! what the source gives to all of its events.
//!
//! The fields of a base stand in one text in canonical order, with the keys and braces between
//! them. A draft on a base copies whole runs of it, from one field of its own to the next.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::layout::Layout;
use super::{Draft, Objects, Value, bit};
use crate::field::{Field, Kind};

/// Fields to begin drafts with. A draft's own value takes the place of the base's.
#[derive(Debug, Clone)]
pub struct Base {
    pub(super) fields: Draft<'static>,
    text: Vec<u8>,
    /// Where each field's value begins and ends in the text.
    spans: Vec<(u32, u32)>,
    layouts: [OnceLock<Layout>; LAYOUTS],
}

/// For so many sets of fields a layout is kept; those that come later are written field by field.
const LAYOUTS: usize = 8;

impl Base {
    /// The draft's single values and lists of texts. Targets, changes and details are not taken:
    /// records add to them. `None` if a text is so long that it would be cut.
    #[must_use]
    pub fn of(draft: &Draft<'_>) -> Option<Self> {
        let mut fields = owned(draft);
        let mut base = Self {
            fields: fields.clone(),
            text: Vec::new(),
            spans: vec![(0, 0); Field::ALL.len()],
            layouts: Default::default(),
        };
        let mut objects = Objects::new();
        let present = fields.present;
        for field in Field::ALL.iter().filter(|field| present & bit(**field) != 0) {
            let place = field.place();
            objects.key(place.parents, place.label, &mut base.text);
            let from = base.text.len();
            if fields.write_field(*field, &mut base.text) {
                return None;
            }
            let span = (u32::try_from(from).ok()?, u32::try_from(base.text.len()).ok()?);
            base.spans[field.index()] = span;
        }
        Some(base)
    }

    /// Is the field set?
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        self.fields.has(field)
    }

    /// A draft of its own values, without a base.
    pub(super) fn draft(&self) -> Draft<'_> {
        let mut draft = Draft::empty(None);
        draft.present = self.fields.present;
        draft.slot_of = self.fields.slot_of;
        draft.values.extend(self.fields.values.iter().cloned());
        let texts = self.fields.texts.iter();
        draft.texts.extend(texts.map(|(field, text)| (*field, Cow::Borrowed(&**text))));
        draft
    }

    pub(super) fn present(&self) -> u128 {
        self.fields.present
    }

    /// The layout of drafts that set these fields.
    pub(super) fn layout(&self, own: u128) -> Option<&Layout> {
        let layouts =
            self.layouts.iter().map(|layout| layout.get_or_init(|| Layout::of(self, own)));
        layouts.into_iter().find(|layout| layout.own == own)
    }

    /// Appends the base's fields from `first` to `last`, between which the draft has none of its
    /// own.
    pub(super) fn write(
        &self,
        first: Field,
        last: Field,
        objects: &mut Objects,
        out: &mut Vec<u8>,
    ) {
        let place = first.place();
        objects.key(place.parents, place.label, out);
        let (from, _) = self.spans[first.index()];
        let (_, to) = self.spans[last.index()];
        let span =
            usize::try_from(from).unwrap_or_default()..usize::try_from(to).unwrap_or_default();
        out.extend_from_slice(&self.text[span]);
        objects.open = last.place().parents;
    }
}

/// A draft of the same values that borrows nothing.
fn owned(draft: &Draft<'_>) -> Draft<'static> {
    let mut fields = Draft::empty(None);
    for field in Field::ALL.iter().filter(|field| draft.present & bit(**field) != 0) {
        match field.kind() {
            Kind::Texts => {
                let texts = draft.texts.iter().filter(|(of, _)| of == field);
                for (_, text) in texts {
                    fields.text(*field, text.clone().into_owned());
                }
            }
            Kind::Text | Kind::Int | Kind::Bool => {
                let value = match draft.value(*field) {
                    Some(Value::Text(text)) => Value::Text(Cow::Owned(text.clone().into_owned())),
                    Some(Value::Int(value)) => Value::Int(*value),
                    Some(Value::Bool(value)) => Value::Bool(*value),
                    Some(Value::Time(time)) => Value::Time(*time),
                    // Of one record each: never common to many.
                    Some(Value::Id(_) | Value::Hex(_) | Value::Base64(_)) | None => continue,
                };
                fields.put(*field, value);
            }
            Kind::Targets | Kind::Changes | Kind::Details => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_EVENT_BYTES;
    use crate::draft::{CUT_TAG, Detail, MAX_TEXT_BYTES, Target};
    use proptest::prelude::*;

    /// Sets a field of any kind from one text.
    fn set(draft: &mut Draft<'_>, field: Field, text: &str) {
        match field.kind() {
            Kind::Int => draft.int(field, i64::try_from(text.len()).unwrap()),
            Kind::Bool => draft.flag(field, text.len().is_multiple_of(2)),
            Kind::Text | Kind::Texts => draft.text(field, text.to_owned()),
            Kind::Targets => {
                draft.target(Target { name: Some(text.to_owned().into()), ..Target::default() });
            }
            Kind::Changes | Kind::Details => {
                draft.detail("key", Detail::Text(text.to_owned().into()));
            }
        }
    }

    fn written(mut draft: Draft<'_>) -> String {
        let mut out = Vec::new();
        draft.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn a_draft_on_a_base_is_written_as_one_that_was_told_everything(
            common in prop::collection::vec((0..Field::ALL.len(), "\\PC{0,12}"), 0..40),
            own in prop::collection::vec((0..Field::ALL.len(), "\\PC{0,12}"), 0..40),
            removed in prop::collection::vec(0..Field::ALL.len(), 0..2),
        ) {
            let mut first = Draft::new();
            let mut whole = Draft::new();
            for (field, text) in &common {
                let field = Field::ALL[*field];
                if !matches!(field.kind(), Kind::Targets | Kind::Changes | Kind::Details) {
                    set(&mut first, field, text);
                    set(&mut whole, field, text);
                }
            }
            let base = Base::of(&first).unwrap();
            let mut draft = Draft::on(&base);
            for (field, text) in &own {
                set(&mut draft, Field::ALL[*field], text);
                set(&mut whole, Field::ALL[*field], text);
            }
            for field in &removed {
                draft.remove(Field::ALL[*field]);
                whole.remove(Field::ALL[*field]);
            }
            for field in Field::ALL {
                prop_assert_eq!(draft.has(*field), whole.has(*field), "{:?}", field);
                prop_assert_eq!(draft.text_of(*field), whole.text_of(*field));
            }
            prop_assert_eq!(written(draft), written(whole));
        }
    }

    #[test]
    fn an_event_on_a_base_that_is_too_long_is_cut_like_any_other() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let big = vec![b'r'; crate::MAX_RAW_BYTES];
        let mut first = Draft::new();
        first.text(Field::Action, "a.b");
        first.tag("env:test");
        let base = Base::of(&first).unwrap();
        let fill = |draft: &mut Draft<'_>| {
            draft.text(Field::Message, long.clone());
            for number in 0..20 {
                draft.detail(format!("k{number}"), Detail::Text(long.clone().into()));
            }
        };
        let mut draft = Draft::on(&base);
        fill(&mut draft);
        draft.raw(&big);
        let mut whole = first.clone();
        fill(&mut whole);
        whole.raw(&big);
        let text = written(draft);
        assert_eq!(text, written(whole));
        assert!(
            text.len() <= MAX_EVENT_BYTES && text.contains(CUT_TAG) && text.contains("env:test")
        );
    }

    #[test]
    fn what_would_be_cut_is_no_base() {
        let mut draft = Draft::new();
        draft.text(Field::Message, "x".repeat(MAX_TEXT_BYTES + 1));
        assert!(Base::of(&draft).is_none());
    }
}
