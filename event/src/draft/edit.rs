//! Changing what a draft holds already: for redaction, which comes when the event is filled.

use std::borrow::Cow;

use super::{Change, Detail, Draft, SINGLES, Target, Value, bit};
use crate::field::{Field, Kind};

impl<'a> Draft<'a> {
    /// Edits a field's text, or each of its list; where `edit` says false it is taken out. A number
    /// or a truth value is shown as text and can only be taken out.
    pub fn edit(&mut self, field: Field, edit: &mut dyn FnMut(&mut Cow<'a, str>) -> bool) {
        match field.kind() {
            Kind::Text | Kind::Int | Kind::Bool => self.edit_single(field, edit),
            Kind::Texts => {
                if self.has(field) {
                    self.leave_base();
                }
                let mut left = false;
                self.texts.retain(|(of, text)| {
                    let stays = *of != field || edit(text);
                    left |= stays && *of == field;
                    stays
                });
                if !left {
                    self.present &= !bit(field);
                }
            }
            Kind::Targets | Kind::Changes | Kind::Details => {}
        }
    }

    fn edit_single(&mut self, field: Field, edit: &mut dyn FnMut(&mut Cow<'a, str>) -> bool) {
        let mut text: Cow<'a, str> = match self.value(field) {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Int(value)) => Cow::Owned(value.to_string()),
            Some(Value::Bool(value)) => Cow::Owned(value.to_string()),
            Some(Value::Time(_) | Value::Id(_) | Value::Hex(_) | Value::Base64(_)) | None => return,
        };
        let stays = edit(&mut text);
        if !stays || text.is_empty() {
            self.remove(field);
        } else if field.kind() == Kind::Text {
            self.put(field, Value::Text(text));
        }
    }

    /// Edits each target.
    pub fn edit_targets(&mut self, edit: &mut dyn FnMut(&mut Target<'a>)) {
        self.targets.iter_mut().for_each(edit);
    }

    /// Edits each change.
    pub fn edit_changes(&mut self, edit: &mut dyn FnMut(&mut Change<'a>)) {
        self.changes.iter_mut().for_each(edit);
    }

    /// Edits each of `details`; where `keep` says false it is taken out.
    pub fn edit_details(&mut self, keep: &mut dyn FnMut(&str, &mut Detail<'a>) -> bool) {
        self.details.retain(|(key, value)| keep(key, value));
        if self.details.is_empty() {
            self.present &= !bit(Field::Details);
        }
    }

    /// Shows every text that the draft itself holds and that a record may have given: neither those
    /// of its base, nor words of closed lists, nor the raw record.
    pub fn each_text(&mut self, look: &mut dyn FnMut(&mut Cow<'a, str>)) {
        const CLOSED: u128 = bit(Field::Action)
            | bit(Field::Category)
            | bit(Field::Op)
            | bit(Field::Outcome)
            | bit(Field::Severity)
            | bit(Field::ActorType)
            | bit(Field::BehalfType)
            | bit(Field::TimeBasis)
            | bit(Field::OriginRaw);
        let mut left = self.present & SINGLES & !CLOSED;
        while left != 0 {
            let index = usize::try_from(left.trailing_zeros()).unwrap_or_default();
            left &= left - 1;
            let slot = usize::from(self.slot_of[index]);
            if let Some(Value::Text(text)) = self.values.get_mut(slot) {
                look(text);
            }
        }
        self.texts.iter_mut().for_each(|(_, text)| look(text));
        for target in &mut self.targets {
            let parts = [&mut target.kind, &mut target.id, &mut target.name, &mut target.parent];
            parts.into_iter().flatten().for_each(&mut *look);
        }
        for change in &mut self.changes {
            look(&mut change.field);
            let values = [&mut change.before, &mut change.after];
            values.into_iter().flatten().for_each(|value| each_of(value, look));
        }
        self.details.iter_mut().for_each(|(_, value)| each_of(value, look));
    }
}

fn each_of<'a>(value: &mut Detail<'a>, look: &mut dyn FnMut(&mut Cow<'a, str>)) {
    match value {
        Detail::Text(text) => look(text),
        Detail::List(items) => items.iter_mut().for_each(|item| each_of(item, look)),
        Detail::Map(map) => map.iter_mut().for_each(|(_, value)| each_of(value, look)),
        Detail::Null | Detail::Bool(_) | Detail::Int(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::Base;

    #[test]
    fn what_is_edited_or_taken_out_is_so_in_the_event_also_where_it_came_from_a_base() {
        let mut first = Draft::new();
        first.text(Field::ActorName, "eva");
        first.tag("env:test");
        let base = Base::of(&first).unwrap();
        let mut draft = Draft::on(&base);
        draft.text(Field::ActorId, "7");
        draft.int(Field::SourcePort, 22);
        draft.detail("a", Detail::Map(vec![("b".into(), Detail::Text("secret".into()))]));
        draft.edit(Field::ActorName, &mut |text| {
            *text = Cow::Owned(format!("<{text}>"));
            true
        });
        draft.edit(Field::ActorId, &mut |_| false);
        draft.edit(Field::SourcePort, &mut |_| false);
        draft.edit(Field::Tags, &mut |_| false);
        draft.each_text(&mut |text| *text = Cow::Owned(text.replace("secret", "***")));
        let mut out = Vec::new();
        draft.finish(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, r#"{"actor":{"name":"<eva>"},"details":{"a":{"b":"***"}},"v":1}"#);
        let mut other = Draft::on(&base);
        other.detail("a", Detail::Int(1));
        other.edit_details(&mut |_, _| false);
        assert!(!other.has(Field::Details));
    }
}
