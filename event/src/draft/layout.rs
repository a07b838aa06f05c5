//! Where the values of a draft go in the text of its base, for drafts that set the same fields.
//!
//! The events of one rule mostly set the same fields. What stands between their values, keys and braces and what the
//! base says, is then the same too: it is put together once, and writing an event is copying pieces and values in turn.

use super::{Base, Objects, bit, ends};
use crate::field::Field;

/// The pieces of one set of fields.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The draft's own fields.
    pub(super) own: u128,
    text: Vec<u8>,
    /// Where the piece before each field ends in the text.
    steps: Vec<(usize, Field)>,
}

impl Layout {
    /// For drafts on `base` that set `own`.
    pub(super) fn of(base: &Base, own: u128) -> Self {
        let mut layout = Self { own, text: vec![b'{'], steps: Vec::new() };
        let mut objects = Objects::new();
        walk(base.present(), own, |run| match run {
            Next::Common(first, last) => base.write(first, last, &mut objects, &mut layout.text),
            Next::Own(field) => {
                let place = field.place();
                objects.key(place.parents, place.label, &mut layout.text);
                layout.steps.push((layout.text.len(), field));
            }
        });
        objects.close(&mut layout.text);
        layout.text.push(b'}');
        layout
    }

    /// Appends the pieces, and between them what `value` does for each field.
    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>, mut value: impl FnMut(Field, &mut Vec<u8>)) {
        let mut from = 0;
        for (to, field) in &self.steps {
            out.extend_from_slice(&self.text[from..*to]);
            value(*field, out);
            from = *to;
        }
        out.extend_from_slice(&self.text[from..]);
    }
}

/// A step of the walk along a base's and a draft's fields.
pub(super) enum Next {
    /// All of the base's fields from one to the other.
    Common(Field, Field),
    /// A field of the draft's own.
    Own(Field),
}

/// Goes along the fields in canonical order.
pub(super) fn walk(base: u128, own: u128, mut step: impl FnMut(Next)) {
    let mut own = own;
    let mut common = base & !own;
    while own | common != 0 {
        let next = own & own.wrapping_neg();
        // All of the base's fields before the draft's next one; all that are left at the end.
        let run = common & next.wrapping_sub(1);
        if let Some((first, last)) = ends(run) {
            step(Next::Common(first, last));
            common &= !run;
            continue;
        }
        own &= !next;
        if let Some((field, _)) = ends(next) {
            debug_assert_eq!(bit(field), next);
            step(Next::Own(field));
        }
    }
}
