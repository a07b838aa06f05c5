//! Which packs a record is shown to, in which turn.
//!
//! Where a source names its packs there is one turn. `packs: auto` takes three: the packs that are
//! chosen by path, unit, endpoint or program; then those that would have been chosen elsewhere, for the
//! content may say what the place does not (a file of many programs, an unusual name); then the
//! general ones. A record whose program is known is not shown to packs of other programs. What a
//! record becomes depends on it and its place alone, never on the records before it.

use std::cell::OnceCell;

use super::{Envelope, Group, Parser};
use crate::matcher::{Asked, BUCKETS, PackAt, Plan, bucket};

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
    sets: Sets,
    /// The groups that are asked in each turn.
    groups: [Vec<usize>; 3],
    /// By set and by the matcher's number; made when they are first needed.
    plans: Vec<OnceCell<Box<Plan>>>,
    /// By turn, by whether a record is JSON and by its first byte; made when they are first needed.
    hopeful: Vec<OnceCell<Box<[usize]>>>,
    matchers: usize,
    /// The path, unit and endpoint that this is of.
    place: Option<[Option<String>; 3]>,
}

/// Which packs are asked when.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sets {
    chosen: Vec<bool>,
    elsewhere: Vec<bool>,
    /// Those that are looked for in a record that is JSON as a whole, though they read texts: chosen by their place, or
    /// an operator's own.
    in_json: Vec<bool>,
    /// Of those the ones that name no program.
    elsewhere_nameless: Vec<bool>,
    general: Vec<bool>,
}

const SETS: usize = 4;

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
        let mut sets = Sets::default();
        for PackAt { pack, .. } in &parser.packs {
            let fits = pack.select.fits(envelope.path, envelope.unit, envelope.endpoint);
            let general = !parser.by_name && pack.name.starts_with("generic-");
            let elsewhere = !fits && !general;
            let by_place = fits && !pack.select.fits(None, None, None);
            sets.in_json.push(by_place || !pack.is_builtin());
            sets.chosen.push(parser.by_name || (fits && !general));
            sets.elsewhere.push(elsewhere);
            sets.elsewhere_nameless.push(elsewhere && pack.select.services.is_empty());
            sets.general.push(general && fits);
        }
        let place = Some(now.map(|text| text.map(str::to_owned)));
        // Another file of the same kind: the same packs, and so the same plans.
        if self.place.is_some() && sets == self.sets {
            self.place = place;
            return;
        }
        let asked = |turn: Turn| {
            let groups = parser.groups.iter().enumerate();
            groups.filter(|(_, group)| sets.concern(turn, group)).map(|(at, _)| at).collect()
        };
        let groups = [asked(Turn::Chosen), asked(Turn::Elsewhere), asked(Turn::General)];
        let matchers = parser.matchers;
        let plans = (0..SETS * matchers).map(|_| OnceCell::new()).collect();
        let hopeful = (0..groups.len() * 2 * BUCKETS).map(|_| OnceCell::new()).collect();
        *self = Self { sets, groups, plans, hopeful, matchers, place };
    }

    /// The groups of which any pack is asked in this turn.
    pub(super) fn groups(&self, turn: Turn) -> &[usize] {
        match turn {
            Turn::Chosen => &self.groups[0],
            Turn::Elsewhere => &self.groups[1],
            Turn::General => &self.groups[2],
        }
    }

    /// The same without the groups of which no rule could know a record that begins so. For records that have no
    /// envelope and whose program nobody names: whatever a group's chain is, the record is its message.
    ///
    /// What is JSON as a whole (`is_json`) is no text that an unknown program has written: built-in packs that read texts
    /// are shown it where their place chooses them.
    pub(super) fn hopeful(
        &self,
        parser: &Parser,
        turn: Turn,
        record: &str,
        is_json: bool,
    ) -> &[usize] {
        let all = self.groups(turn);
        let list = (turn as usize * 2 + usize::from(is_json)) * BUCKETS + bucket(record.as_bytes());
        let Some(list) = self.hopeful.get(list) else { return all };
        list.get_or_init(|| {
            let is_hopeful = |number: &usize| {
                let group = &parser.groups[*number];
                let reads_texts = group.reader.is_none();
                if is_json
                    && reads_texts
                    && !group.packs.iter().any(|pack| self.sets.in_json[*pack])
                {
                    return false;
                }
                let Some(later) = group.matchers.first() else { return false };
                let (asked, plan) = self.plan(turn, false, later.number);
                !group.needs_envelope() && plan.hopes(later.get(&parser.packs), record, &asked)
            };
            // What the last group finds wrong is told, so it is always asked.
            let last = all.last().filter(|_| parser.turns().last() == Some(&turn));
            let is_asked = |number: &usize| last == Some(number) || is_hopeful(number);
            all.iter().copied().filter(is_asked).collect()
        })
    }

    /// Which packs a record of this program is shown to in this turn, and the matcher's rules of theirs.
    pub(super) fn plan(&self, turn: Turn, service: bool, matcher: usize) -> (Asked<'_>, &Plan) {
        let (set, packs) = match (turn, service) {
            (Turn::Chosen, _) => (0, &self.sets.chosen),
            (Turn::Elsewhere, false) => (1, &self.sets.elsewhere),
            (Turn::Elsewhere, true) => (2, &self.sets.elsewhere_nameless),
            (Turn::General, _) => (3, &self.sets.general),
        };
        let plan = self.plans[set * self.matchers + matcher].get_or_init(Box::default);
        (Asked { packs, by_service: turn == Turn::Chosen }, plan)
    }
}

impl Sets {
    /// Is any pack of the group asked in this turn?
    fn concern(&self, turn: Turn, group: &Group) -> bool {
        let packs = match turn {
            Turn::Chosen if group.by_service => return true,
            Turn::Chosen => &self.chosen,
            Turn::Elsewhere => &self.elsewhere,
            Turn::General => &self.general,
        };
        group.packs.iter().any(|pack| packs[*pack])
    }
}
