//! Checks events by those before them in the same block.
//!
//! A block's events are much alike: the same keys in the same order, and other values. Of an event
//! that has been checked whole ([`canon::check`], [`Envelope::read`]) it is known where its values
//! stand that are no lists and no objects. What can come after such a value does not depend on
//! the value. So an event that differs from a checked one only in such values is canonical if
//! each of those is, and says the same of itself everywhere else. Bytes that are the same are
//! compared and not read; a value that differs is read ([`canon::scalar_end`]), and where the
//! envelope needs it, taken.
//!
//! Where an event differs in anything else, another checked one that is the same up to there is
//! gone on with; where there is none, the event is checked whole, and is one more to compare with.
//! Nothing is refused here.
//!
//! # Limits
//! [`MAX_SHAPES`] events to compare with, all of one block.

use custody_event::{MAX_EVENT_BYTES, canon};

use super::content::{Envelope, Places};

/// An event kind has a handful of shapes, by the fields that are absent.
const MAX_SHAPES: usize = 32;

/// A checked event.
struct Shape<'t> {
    event: &'t [u8],
    /// Where its values begin and have ended.
    scalars: Vec<(usize, usize)>,
    envelope: Envelope,
    fields: Fields,
    /// With each shape before it: how many values they share the place of, that is what stands before them.
    shared: Vec<usize>,
}

/// Which of the values the envelope is read from.
#[derive(Clone, Copy)]
struct Fields {
    id: usize,
    time: usize,
    observed: usize,
    v: usize,
}

/// What has been read so far.
#[derive(Default)]
struct Found {
    id: Option<[u8; 16]>,
    time: Option<custody_event::Timestamp>,
}

/// How far an event has been compared with a shape: what the next byte may be is the same in both.
#[derive(Clone, Copy)]
struct Stand {
    shape: usize,
    /// In the event, and in the shape.
    event: usize,
    other: usize,
    /// The shape's next value.
    value: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Alike<'t> {
    shapes: Vec<Shape<'t>>,
    last: usize,
}

impl<'t> Alike<'t> {
    /// The envelope of an event that is as good as one before it; `None` where it must be checked whole.
    pub(super) fn read(&mut self, event: &[u8]) -> Option<Envelope> {
        if event.len() > MAX_EVENT_BYTES {
            return None;
        }
        let mut at = Stand { shape: self.last, event: 0, other: 0, value: 0 };
        let (mut found, mut tried) = (Found::default(), 0_u32);
        loop {
            let shape = self.shapes.get(at.shape)?;
            let run = common(&event[at.event..], &shape.event[at.other..]);
            let (here, there) = (at.event + run, at.other + run);
            if here == event.len() && there == shape.event.len() {
                found.fill(shape, usize::MAX);
                self.last = at.shape;
                return Some(Envelope { id: found.id?, time: found.time? });
            }
            // A number may go on where the shape's has ended.
            let behind = &shape.scalars[at.value..];
            at.value += behind.iter().take_while(|(_, end)| *end < there).count();
            match shape.scalars.get(at.value) {
                Some((begin, end)) if *begin <= there => {
                    let begin = here - (there - begin);
                    at.event = canon::scalar_end(event, begin)?;
                    found.take(shape.fields, at.value, &event[begin..at.event])?;
                    at.other = *end;
                    at.value += 1;
                    tried = 0;
                }
                _ => {
                    found.fill(shape, at.value);
                    let since = there - shape.end_before(at.value);
                    tried |= 1 << at.shape;
                    at.shape = self.other(at, tried)?;
                    at.event = here - since;
                    at.other = self.shapes[at.shape].end_before(at.value);
                }
            }
        }
    }

    /// A shape that is the same up to this value and has something else before it.
    fn other(&self, at: Stand, tried: u32) -> Option<usize> {
        (0..self.shapes.len())
            .find(|other| tried & 1 << other == 0 && self.shared(at.shape, *other) == at.value)
    }

    fn shared(&self, one: usize, other: usize) -> usize {
        let (less, more) = (one.min(other), one.max(other));
        self.shapes[more].shared.get(less).copied().unwrap_or(usize::MAX)
    }

    /// Checks the event whole, and keeps it to compare with.
    pub(super) fn check(&mut self, event: &'t [u8]) -> Result<Envelope, String> {
        let mut scalars = Vec::new();
        canon::check_noting(event, |begin, end| scalars.push((begin, end)))
            .map_err(|error| error.to_string())?;
        let mut places = Places::default();
        let envelope = Envelope::read(event, &mut places)?;
        let index = |begin: usize| scalars.binary_search_by_key(&begin, |(begin, _)| *begin).ok();
        let fields =
            (index(places.id), index(places.time), index(places.observed), index(places.v));
        if let (Some(id), Some(time), Some(observed), Some(v)) = fields
            && self.shapes.len() < MAX_SHAPES
        {
            let fields = Fields { id, time, observed, v };
            let mut shape = Shape { event, scalars, envelope, fields, shared: Vec::new() };
            shape.shared = self.shapes.iter().map(|other| shape.shared_with(other)).collect();
            self.last = self.shapes.len();
            self.shapes.push(shape);
        }
        Ok(envelope)
    }
}

impl Shape<'_> {
    /// Where the value before this one has ended.
    fn end_before(&self, value: usize) -> usize {
        value.checked_sub(1).map_or(0, |before| self.scalars[before].1)
    }

    /// What stands before this value, from the one before it on.
    fn before(&self, value: usize) -> &[u8] {
        &self.event[self.end_before(value)..self.scalars[value].0]
    }

    fn shared_with(&self, other: &Shape<'_>) -> usize {
        let both = 0..self.scalars.len().min(other.scalars.len());
        both.take_while(|value| self.before(*value) == other.before(*value)).count()
    }
}

impl Found {
    /// Takes what the envelope needs of a value that differs. `None` where it is not what it should be, which is to
    /// be said by whoever checks the event whole.
    fn take(&mut self, fields: Fields, value: usize, text: &[u8]) -> Option<()> {
        if value == fields.id {
            self.id = Some(Envelope::id(text)?);
        } else if value == fields.time {
            self.time = Some(Envelope::time(text)?);
        } else if value == fields.observed {
            Envelope::time(text)?;
        } else if value == fields.v {
            return None;
        }
        Some(())
    }

    /// Of the values before this one those that have not been read are the shape's.
    fn fill(&mut self, shape: &Shape<'_>, before: usize) {
        if shape.fields.id < before {
            self.id.get_or_insert(shape.envelope.id);
        }
        if shape.fields.time < before {
            self.time.get_or_insert(shape.envelope.time);
        }
    }
}

/// How many bytes are the same from the beginning on.
fn common(one: &[u8], other: &[u8]) -> usize {
    let len = one.len().min(other.len());
    let ((ones, _), (others, _)) = (one[..len].as_chunks::<16>(), other[..len].as_chunks::<16>());
    let mut at = 0;
    for (one, other) in ones.iter().zip(others) {
        let differ = u128::from_le_bytes(*one) ^ u128::from_le_bytes(*other);
        if differ != 0 {
            return at + usize::try_from(differ.trailing_zeros() / 8).unwrap_or_default();
        }
        at += 16;
    }
    at + one[at..len].iter().zip(&other[at..len]).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What each event is, checked by itself.
    fn alone(event: &[u8]) -> Result<Envelope, String> {
        canon::check(event).map_err(|error| error.to_string())?;
        Envelope::read(event, &mut Places::default())
    }

    fn whole(texts: &[String]) -> Vec<Result<Envelope, String>> {
        let mut alike = Alike::default();
        texts
            .iter()
            .map(|text| match alike.read(text.as_bytes()) {
                Some(envelope) => Ok(envelope),
                None => alike.check(text.as_bytes()),
            })
            .collect()
    }

    /// An event of a few shapes, sometimes with something wrong in it.
    fn event() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            Just("1".to_owned()),
            Just("12".to_owned()),
            Just("123".to_owned()),
            Just("-0".to_owned()),
            Just("\"a\"".to_owned()),
            Just("\"\\n\"".to_owned()),
            Just("\"\\u000a\"".to_owned()),
            Just("\"a\\\"\"".to_owned()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just("{}".to_owned()),
            Just("[1,\"b\"]".to_owned()),
            Just("{\"k\":1}".to_owned()),
            Just("01".to_owned()),
            Just("\"a\"x".to_owned()),
            Just("nul".to_owned()),
            "\"[a-c\\\\\"{},]{0,20}\"",
        ];
        let time = prop_oneof![
            8 => (10..60_u32).prop_map(|s| format!("\"2026-01-31T23:59:{s}.000000Z\"")),
            1 => Just("\"2026-01-31\"".to_owned()),
            1 => Just("7".to_owned()),
        ];
        let id = prop_oneof![
            9 => "\"[0-9a-f]{32}\"",
            1 => Just("\"xyz\"".to_owned()),
        ];
        let v = prop_oneof![9 => Just("1".to_owned()), 1 => Just("2".to_owned()), 1 => Just("10".to_owned())];
        let some = proptest::option::of(value);
        (
            (some.clone(), some.clone(), some.clone(), some),
            id,
            (time.clone(), time),
            v,
            proptest::sample::select(vec![
                "{}",
                "{\"agent\":\"x\"}",
                "{\"agent\":\"y\",\"rule\":3}",
                "1",
            ]),
            0..24_usize,
        )
            .prop_map(
                |((action, actor, details, strange), id, (observed, time), v, origin, odd)| {
                    let mut parts = Vec::new();
                    let mut put = |key: &str, value: &str| parts.push(format!("\"{key}\":{value}"));
                    for (key, value) in [("action", action), ("actor", actor), ("details", details)]
                    {
                        if let Some(value) = value {
                            put(key, &value);
                        }
                    }
                    put("id", &id);
                    put("observed", &observed);
                    put("origin", origin);
                    if let Some(strange) = strange.filter(|_| odd == 2) {
                        put("strange", &strange);
                    }
                    put("time", &time);
                    put("v", &v);
                    let mut text = format!("{{{}}}", parts.join(","));
                    match odd {
                        0 => text.push('x'),
                        1 => text.truncate(text.len() / 2),
                        _ => {}
                    }
                    text
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn beside_others_an_event_is_judged_as_it_is_alone(
            texts in proptest::collection::vec(event(), 1..40)
        ) {
            let alone: Vec<_> = texts.iter().map(|text| alone(text.as_bytes())).collect();
            prop_assert_eq!(whole(&texts), alone);
        }

        #[test]
        fn a_changed_byte_is_judged_as_it_is_alone(
            text in event(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut changed = text.clone().into_bytes();
            let at = at.index(changed.len());
            if cut { changed.remove(at); } else { changed[at] = byte; }
            // What is not UTF-8 is never compared.
            if let Ok(changed) = String::from_utf8(changed) {
                let texts = [text, changed];
                let alone: Vec<_> = texts.iter().map(|text| alone(text.as_bytes())).collect();
                prop_assert_eq!(whole(&texts).to_vec(), alone);
            }
        }

        #[test]
        fn the_first_difference_is_found(
            one in proptest::collection::vec(0_u8..3, 0..80), other in proptest::collection::vec(0_u8..3, 0..80),
            both in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let (one, other) = ([&both[..], &one].concat(), [&both[..], &other].concat());
            let same = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
            prop_assert_eq!(common(&one, &other), same);
        }
    }

    #[test]
    fn events_of_a_known_shape_are_not_read_whole() {
        let event = |id: u8, user: &str, more: &str| {
            format!(
                "{{\"actor\":{{\"name\":\"{user}\"}},\"id\":\"{id:032x}\"{more},\"observed\":\
                 \"2026-01-31T23:59:59.000000Z\",\"origin\":{{}},\"time\":\"2026-01-31T23:59:{}.000000Z\",\"v\":1}}",
                10 + id
            )
        };
        let known = [
            event(1, "jane", ""),
            event(2, "jo", ",\"message\":\"m\""),
            event(3, "x", ",\"justification\":\"j\""),
        ];
        let mut alike = Alike::default();
        for text in &known {
            assert_eq!(alike.read(text.as_bytes()), None);
            alike.check(text.as_bytes()).unwrap();
        }
        for (number, more) in
            ["", ",\"message\":\"other\"", ",\"justification\":\"k\"", ""].iter().enumerate()
        {
            let text = event(u8::try_from(number).unwrap() + 20, "somebody \\\" else", more);
            assert_eq!(alike.read(text.as_bytes()), alone(text.as_bytes()).ok());
        }
        assert_eq!(alike.read(event(1, "jane", ",\"irreversible\":true").as_bytes()), None);
    }
}
