//! Which packs a record is shown to, in which turn.
//!
//! Where a source names its packs there is one turn. `packs: auto` takes three: the packs that are
//! chosen by path, unit, endpoint or program; then those that would have been chosen elsewhere, for the
//! content may say what the place does not (a file of many programs, an unusual name); then the
//! general ones. A record whose program is known is not shown to packs of other programs. What a
//! record becomes depends on it and its place alone, never on the records before it.

use super::{Envelope, Group, Parser};
use crate::matcher::{PackAt, View};
use crate::value::Facts;

/// When a pack is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is chosen.
    Chosen,
    /// It is chosen by place or program, and this is another.
    Elsewhere,
    /// It is a general one.
    General,
}

/// The packs of each turn, for one path, unit and endpoint.
#[derive(Debug, Default)]
pub(super) struct Choice {
    chosen: Vec<bool>,
    elsewhere: Vec<bool>,
    /// Of those the ones that name no program.
    elsewhere_nameless: Vec<bool>,
    general: Vec<bool>,
    /// The path, unit and endpoint that this is of.
    place: Option<[Option<String>; 3]>,
}

impl Parser {
    pub(super) fn turns(&self) -> &'static [Turn] {
        match self.by_name {
            true => &[Turn::Chosen],
            false => &[Turn::Chosen, Turn::Elsewhere, Turn::General],
        }
    }
}

impl Choice {
    /// Looks at the place; asked once for a run of records.
    pub(super) fn settle(&mut self, parser: &Parser, envelope: &Envelope<'_>) {
        let now = [envelope.path, envelope.unit, envelope.endpoint];
        let same = self.place.as_ref().is_some_and(|before| {
            before.iter().zip(now).all(|(before, now)| before.as_deref() == now)
        });
        if same {
            return;
        }
        *self = Self { place: Some(now.map(|text| text.map(str::to_owned))), ..Self::default() };
        for PackAt { pack, .. } in &parser.packs {
            let fits = pack.select.fits(envelope.path, envelope.unit, envelope.endpoint);
            let general = !parser.by_name && pack.name.starts_with("generic-");
            let elsewhere = !fits && !general;
            self.chosen.push(parser.by_name || (fits && !general));
            self.elsewhere.push(elsewhere);
            self.elsewhere_nameless.push(elsewhere && pack.select.services.is_empty());
            self.general.push(general && fits);
        }
    }

    /// Is any pack of the group asked in this turn?
    pub(super) fn concerns(&self, turn: Turn, group: &Group) -> bool {
        let packs = match turn {
            Turn::Chosen if group.by_service => return true,
            Turn::Chosen => &self.chosen,
            Turn::Elsewhere => &self.elsewhere,
            Turn::General => &self.general,
        };
        group.packs.iter().any(|pack| packs[*pack])
    }

    /// A record as the packs of this turn see it.
    pub(super) fn view<'a>(
        &'a self,
        turn: Turn,
        packs: &'a [PackAt],
        facts: Facts<'a>,
    ) -> View<'a> {
        let allowed = match (turn, facts.service) {
            (Turn::Chosen, _) => &self.chosen,
            (Turn::Elsewhere, None) => &self.elsewhere,
            (Turn::Elsewhere, Some(_)) => &self.elsewhere_nameless,
            (Turn::General, _) => &self.general,
        };
        View { packs, allowed, by_service: turn == Turn::Chosen, facts }
    }
}
