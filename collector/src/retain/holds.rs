//! Legal holds: what a hold matches is neither expired nor erased while it is active.
//!
//! A hold is a search line with a time range. Words that count from now (`24h`) count from when
//! the hold was made, for ever.

use custody_event::{EventView, Timestamp};
use serde::Deserialize;

use super::table::HoldRow;
use super::{Retain, RetainError};
use crate::own::RetainAct;
use crate::query::filter::{Filter, Findable};
use crate::query::{line, when};

/// A hold that is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewHold {
    /// For people.
    pub name: String,
    /// A search line; empty: everything in the range.
    #[serde(default)]
    pub q: String,
    /// Events at or after this time.
    pub from: Option<String>,
    /// Events before this time.
    pub to: Option<String>,
    /// Why.
    pub reason: String,
}

/// Holds that are active, ready to be asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds(Vec<(String, Filter)>);

impl Holds {
    pub(super) fn of(rows: &[HoldRow]) -> Result<Self, RetainError> {
        let active = rows.iter().filter(|row| row.released.is_none());
        let holds = active.map(|row| {
            let created = Timestamp::parse(&row.created).unwrap_or(Timestamp::MIN);
            let filter = filter(&row.q, row.from.as_deref(), row.to.as_deref(), created)?;
            Ok((row.name.clone(), filter))
        });
        holds.collect::<Result<_, RetainError>>().map(Self)
    }

    /// The name of a hold that holds this event. One that cannot be read is held by any.
    pub(super) fn holding(&self, event: &[u8]) -> Option<&str> {
        let (first, _) = self.0.first()?;
        let Ok(view) = EventView::read(event) else { return Some(first) };
        let findable = Findable::of(&view);
        let found = self.0.iter().find(|(_, filter)| holds(filter, &view, &findable));
        found.map(|(name, _)| name.as_str())
    }
}

impl Holds {
    /// # Errors
    /// A hold holds this event.
    pub(super) fn refuse(&self, event: &[u8]) -> Result<(), RetainError> {
        self.holding(event).map_or(Ok(()), |name| Err(RetainError::Held(name.to_owned())))
    }
}

/// Is the event what the filter seeks?
pub(super) fn holds(filter: &Filter, view: &EventView<'_>, findable: &Findable) -> bool {
    filter.from.is_none_or(|from| view.time >= from)
        && filter.to.is_none_or(|to| view.time < to)
        && filter.expr.matches(findable)
}

/// Reads a search line with a range beside it.
pub(super) fn filter(
    q: &str,
    from: Option<&str>,
    to: Option<&str>,
    now: Timestamp,
) -> Result<Filter, RetainError> {
    let mut filter = line::parse(q, now)
        .map_err(|error| RetainError::Bad { parameter: "q", what: error.to_string() })?;
    let time = |parameter, text: &str| {
        when::parse(text, now)
            .map_err(|error| RetainError::Bad { parameter, what: error.to_string() })
    };
    if let Some(from) = from.filter(|text| !text.is_empty()) {
        filter.from = Some(time("from", from)?);
    }
    if let Some(to) = to.filter(|text| !text.is_empty()) {
        filter.to = Some(time("to", to)?);
    }
    Ok(filter)
}

impl Retain {
    /// All holds, also those let go.
    ///
    /// # Errors
    /// The database.
    pub fn holds(&self) -> Result<Vec<HoldRow>, RetainError> {
        self.table.holds()
    }

    /// Makes a hold.
    ///
    /// # Errors
    /// It cannot be understood, or the database.
    pub fn hold(&self, new: &NewHold, by: &str) -> Result<HoldRow, RetainError> {
        super::check_text("name", &new.name)?;
        super::check_text("reason", &new.reason)?;
        let now = self.clock.now();
        filter(&new.q, new.from.as_deref(), new.to.as_deref(), now)?;
        let mut row = HoldRow {
            id: 0,
            name: new.name.clone(),
            q: new.q.clone(),
            from: new.from.clone(),
            to: new.to.clone(),
            reason: new.reason.clone(),
            by: by.to_owned(),
            created: now.to_string(),
            released: None,
            released_by: None,
        };
        // A segment that is losing events is waited for: what is answered holds.
        row.id = {
            let _deciding = self.deciding.take();
            self.table.add_hold(&row)?
        };
        let message = format!("{by} put events on hold: {}.", row.name);
        let mut act = RetainAct::new("hold.create", "create", message).by(by);
        act.target = ("hold", row.id.to_string());
        act.reason.clone_from(&row.reason);
        self.tell(act)?;
        Ok(row)
    }

    /// Lets a hold go.
    ///
    /// # Errors
    /// There is none of this number that holds, or the database.
    pub fn release(&self, id: i64, by: &str, reason: &str) -> Result<(), RetainError> {
        let held = {
            let _deciding = self.deciding.take();
            self.table.release(id, by, self.clock.now())?
        };
        if !held {
            return Err(RetainError::NotFound("there is no active hold of this number"));
        }
        let message = format!("{by} let hold {id} go.");
        let mut act = RetainAct::new("hold.release", "delete", message).by(by);
        act.target = ("hold", id.to_string());
        reason.clone_into(&mut act.reason);
        self.tell(act)
    }
}
