//! Erasure of a person's events, by two people.
//!
//! # Life of an erasure
//! Asked (what is sought, why; a look at what would go) → approved by another principal → done on
//! the worker's thread: segments, archive, index, exports → what was sought is forgotten, and the
//! receipt is an event. A crash goes on at the next start. An event that an active hold keeps
//! makes the whole erasure refused, naming the hold.
//!
//! # Why whole events
//! The leaf is the hash of the whole event: a single field cannot go without it. So the event
//! becomes a bare leaf, and a tombstone in the collector's own stream keeps what was not personal in
//! it: action, category, time, host. It is written before the event goes: after a crash in between
//! there may be two of one event, never none; both name the event's id.
//!
//! # What it does not reach
//! Spools of agents and the sources themselves, backups, bundles and exports that were fetched,
//! and the medium below the file system. Of the collector's own events only searches are erased:
//! nobody takes back what was done here.

use std::collections::BTreeMap;
use std::path::Path;

use custody_event::{EventView, Timestamp};
use serde::{Deserialize, Serialize};

use super::holds::{Holds, filter, holds};
use super::scan::{Going, Seen, each_event};
use super::table::{ErasureRow, Status};
use super::{Retain, RetainError, check_text, io};
use crate::access::{Permission, Principal, random_secret};
use crate::index::terms::{Tag, folded_value};
use crate::own::RetainAct;
use crate::query::filter::{Expr, Filter, Findable, Pattern};
use crate::query::keys::Key;
use crate::store::evidence::Segment;

/// Events shown of what would go, at most.
const SAMPLE: usize = 10;

/// An erasure that is asked for: by subject or by search line.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewErasure {
    /// Whose events: `actor.id`, `actor.name`, `email` or `any`, with values; any of them will do.
    #[serde(default)]
    pub subject: Option<BTreeMap<String, String>>,
    /// Which events: a search line.
    #[serde(default)]
    pub q: Option<String>,
    /// Why.
    pub reason: String,
    /// Only look.
    #[serde(default)]
    pub dry_run: bool,
}

/// What would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// Events in the log.
    pub matched: u64,
    /// Events that are in the archive only.
    pub archived: u64,
    /// Holds that keep some of them: while there is one, nothing goes.
    pub held_by: Vec<String>,
    /// Some of them.
    pub sample: Vec<Sample>,
}

/// One of the events that would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Its id.
    pub id: String,
    /// When.
    pub time: String,
    /// What.
    pub action: String,
    /// Where.
    pub host: String,
}

/// What is sought, as it is kept until it is done.
#[derive(Debug, Serialize, Deserialize)]
struct What {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<String>,
}

const ACTOR_ID: &Key = &Key { name: "actor.id", tags: &[Tag::ActorId, Tag::BehalfOf], about: "" };
const ACTOR_NAME: &Key = &Key {
    name: "actor.name",
    tags: &[Tag::ActorName, Tag::ActorDisplay, Tag::BehalfOf],
    about: "",
};
const PERSON: &Key = &Key {
    name: "any",
    tags: &[
        Tag::ActorId,
        Tag::ActorName,
        Tag::ActorDisplay,
        Tag::BehalfOf,
        Tag::TargetId,
        Tag::TargetName,
        Tag::TargetParent,
    ],
    about: "",
};

impl What {
    fn of(new: &NewErasure) -> Result<Self, RetainError> {
        let bad =
            |parameter, what: &str| Err(RetainError::Bad { parameter, what: what.to_owned() });
        match (&new.subject, &new.q) {
            (Some(_), Some(_)) => bad("q", "give either `subject` or `q`"),
            (None, None) => bad("subject", "say whose events: `subject` or `q`"),
            (None, Some(q)) if q.trim().is_empty() => bad("q", "it would erase everything"),
            (Some(subject), None) if subject.is_empty() => bad("subject", "it names nobody"),
            _ => Ok(Self { subject: new.subject.clone(), q: new.q.clone() }),
        }
    }

    /// What is sought, as a filter.
    fn filter(&self, asked: Timestamp) -> Result<Filter, RetainError> {
        if let Some(q) = &self.q {
            let filter = filter(q, None, None, asked)?;
            if filter.expr == Expr::default() {
                let what = "it names no one: give more than a time range".to_owned();
                return Err(RetainError::Bad { parameter: "q", what });
            }
            return Ok(filter);
        }
        let subject = self.subject.iter().flatten();
        let any: Result<Vec<Expr>, RetainError> =
            subject.map(|(key, value)| person(key, value)).collect();
        Ok(Filter { expr: Expr::Any(any?), ..Filter::default() })
    }
}

fn person(key: &str, value: &str) -> Result<Expr, RetainError> {
    if folded_value(value).is_empty() {
        let what = format!("the value of {key:?} is empty");
        return Err(RetainError::Bad { parameter: "subject", what });
    }
    let exact = |key| Expr::Value(key, Pattern::Exact(folded_value(value)));
    Ok(match key {
        "actor.id" => exact(ACTOR_ID),
        "actor.name" => exact(ACTOR_NAME),
        // As an actor, as a target, and wherever the text says it.
        "email" | "any" => Expr::Any(vec![exact(PERSON), Expr::phrase(value)]),
        _ => {
            let what = format!("{key:?} is none of actor.id, actor.name, email, any");
            return Err(RetainError::Bad { parameter: "subject", what });
        }
    })
}

impl Retain {
    /// All erasures.
    ///
    /// # Errors
    /// The database.
    pub fn erasures(&self) -> Result<Vec<ErasureRow>, RetainError> {
        self.table.erasures()
    }

    /// One erasure.
    ///
    /// # Errors
    /// There is none, or the database.
    pub fn erasure(&self, id: i64) -> Result<ErasureRow, RetainError> {
        self.table.erasure(id)?.ok_or(RetainError::NotFound("there is no erasure of this number"))
    }

    /// Looks what would go.
    ///
    /// # Errors
    /// It cannot be understood, or the evidence cannot be read.
    pub fn preview(&self, new: &NewErasure) -> Result<Preview, RetainError> {
        check_text("reason", &new.reason)?;
        let filter = What::of(new)?.filter(self.clock.now())?;
        let _one = self.work();
        self.look(&filter).map(|found| found.preview)
    }

    /// Asks for an erasure: a second person must approve it.
    ///
    /// # Errors
    /// It cannot be understood, a hold keeps some of the events, or the database.
    pub fn ask(&self, new: &NewErasure, by: &str) -> Result<(ErasureRow, Preview), RetainError> {
        let preview = self.preview(new)?;
        if !preview.held_by.is_empty() {
            return Err(RetainError::Conflict(held(&preview.held_by)));
        }
        let text = serde_json::to_string(&What::of(new)?)
            .map_err(|error| RetainError::Bad { parameter: "subject", what: error.to_string() })?;
        let salt = random_secret().map_err(io(Path::new("randomness")))?;
        let salt = custody_event::Digest(salt).to_hex()[..32].to_owned();
        let mut row = ErasureRow {
            id: 0,
            status: Status::Asked,
            what_sha256: custody_event::Digest::of(format!("{salt}{text}").as_bytes()).to_hex(),
            what: Some(text),
            salt,
            reason: new.reason.clone(),
            asked_by: by.to_owned(),
            asked: self.clock.now().to_string(),
            approved_by: None,
            approved: None,
            done: None,
            erased: 0,
            trouble: None,
        };
        row.id = self.table.add_erasure(&row)?;
        let mut act = self.act_of(&row, "erasure.ask", format!("{by} asked to erase events."), by);
        act.count("matched", preview.matched);
        self.tell(act)?;
        Ok((row, preview))
    }

    /// The second person's word. The worker does it.
    ///
    /// # Errors
    /// The same person, not waited for, or the database.
    pub fn approve(&self, id: i64, who: &Principal) -> Result<ErasureRow, RetainError> {
        let row = self.erasure(id)?;
        let by = who.accountable();
        if !who.may_approve(Permission::Erase, &row.asked_by) {
            let what = format!("{by} asked for it: another person must approve it");
            return Err(RetainError::Conflict(what));
        }
        if !self.table.approve(id, by, self.clock.now())? {
            let what = format!("erasure {id} does not wait for approval; `erase list` shows all");
            return Err(RetainError::Conflict(what));
        }
        let row = self.erasure(id)?;
        let message = format!("{by} approved the erasure that {} asked for.", row.asked_by);
        self.tell(self.act_of(&row, "erasure.approve", message, by))?;
        Ok(row)
    }

    /// Takes an erasure back that waits for approval; anybody who may erase may do so.
    ///
    /// # Errors
    /// It does not wait, or the database.
    pub fn withdraw(&self, id: i64, by: &str) -> Result<(), RetainError> {
        let row = self.erasure(id)?;
        if row.status != Status::Asked {
            return Err(RetainError::Conflict(format!("erasure {id} does not wait for approval")));
        }
        self.table.trouble(id, &format!("taken back by {by}"))?;
        self.table.end(id, Status::Refused, self.clock.now())?;
        self.tell(self.act_of(&row, "erasure.withdraw", format!("{by} took it back."), by))
    }

    /// Does every erasure that is approved; one that fails is tried again with the next.
    pub(super) fn erase_approved(&self) -> Result<(), RetainError> {
        for row in self.table.erasures()? {
            if row.status == Status::Approved
                && let Err(error) = self.erase(&row)
            {
                self.table.trouble(row.id, &error.to_string())?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn erase(&self, row: &ErasureRow) -> Result<(), RetainError> {
        let what: What = serde_json::from_str(row.what.as_deref().unwrap_or_default())
            .map_err(|error| RetainError::Conflict(format!("what it sought is lost: {error}")))?;
        let asked = Timestamp::parse(&row.asked).unwrap_or(Timestamp::MIN);
        let filter = what.filter(asked)?;
        let _one = self.work();
        self.clean()?;
        let found = self.look(&filter)?;
        if !found.preview.held_by.is_empty() {
            let why = held(&found.preview.held_by);
            self.table.trouble(row.id, &why)?;
            let mut act =
                self.act_of(row, "erasure.refuse", format!("Nothing was erased: {why}."), "");
            act.outcome = "denied";
            self.tell(act)?;
            return self.table.end(row.id, Status::Refused, self.clock.now());
        }
        for segment in &found.segments {
            self.go_on()?;
            self.erase_in(row, &filter, segment)?;
        }
        self.clean()?;
        let archived = self.erase_in_archive(&|seen| self.is_sought(&filter, seen))?;
        let exports = self.remove_exports()?;
        if !self.table.empty_journal()? {
            log::warn!("the journal of collector.db is in use; it is emptied later");
        }
        let row = self.erasure(row.id)?;
        let message = format!("{} events were erased: {}", row.erased, row.reason);
        let mut act = self.act_of(&row, "erasure.complete", message, "");
        act.count("erased", u64::try_from(row.erased).unwrap_or_default());
        act.count("erased_in_archive", archived);
        act.count("exports_removed", exports);
        // The receipt first: after a crash in between there are two, never none.
        self.tell(act)?;
        self.table.end(row.id, Status::Done, self.clock.now())
    }

    fn erase_in(
        &self,
        row: &ErasureRow,
        filter: &Filter,
        segment: &Segment,
    ) -> Result<(), RetainError> {
        let (mut going, mut tombstones) = (Going::default(), Vec::new());
        each_event(&segment.path, &mut |seen| {
            if self.is_sought(filter, seen) {
                going.put(seen);
                if !seen.held {
                    tombstones.push(tombstone(row, seen));
                }
            }
            Ok(())
        })?;
        if going.count == 0 {
            return Ok(());
        }
        self.tell_all(tombstones)?;
        self.take_out(segment, &going.gone)?;
        self.table.erased(row.id, i64::try_from(going.count).unwrap_or(i64::MAX))
    }

    /// Of the collector's own events only searches: see the module.
    fn is_sought(&self, filter: &Filter, seen: &Seen<'_>) -> bool {
        let Ok(view) = EventView::read(seen.event) else { return false };
        if seen.agent == self.own && view.action.as_deref() != Some("event.search") {
            return false;
        }
        holds(filter, &view, &Findable::of(&view))
    }

    fn look(&self, filter: &Filter) -> Result<Found, RetainError> {
        // So that what came a moment ago is found, and can be written anew.
        self.log.close_segment()?;
        let holds = Holds::of(&self.table.holds()?)?;
        let mut found = Found::default();
        for segment in self.log.closed_segments() {
            self.go_on()?;
            let before = found.preview.matched;
            each_event(&segment.path, &mut |seen| {
                if self.is_sought(filter, seen) {
                    found.preview.matched += 1;
                    found.preview.take(seen, &holds);
                }
                Ok(())
            })?;
            if found.preview.matched > before {
                found.segments.push(segment);
            }
        }
        let in_archive = self.count_in_archive(&mut |seen| {
            let sought = self.is_sought(filter, seen);
            if sought {
                found.preview.take(seen, &holds);
            }
            sought
        })?;
        found.preview.archived = in_archive;
        Ok(found)
    }

    /// Exports may have the events, and nobody can take them out: they are made again on request.
    fn remove_exports(&self) -> Result<u64, RetainError> {
        let folder = self.data_dir.join("exports");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(io(&folder)(error)),
        };
        let mut removed = 0;
        for entry in entries {
            let path = entry.map_err(io(&folder))?.path();
            if path.is_file() {
                std::fs::remove_file(&path).map_err(io(&path))?;
                removed += 1;
            }
        }
        self.table.expire_exports()?;
        Ok(removed)
    }

    fn act_of(
        &self,
        row: &ErasureRow,
        action: &'static str,
        message: String,
        by: &str,
    ) -> RetainAct {
        let mut act = RetainAct::new(action, "delete", message);
        if !by.is_empty() {
            act = act.by(by);
        }
        act.severity = "high";
        act.target = ("erasure", row.id.to_string());
        act.reason.clone_from(&row.reason);
        act.text("asked_by", &row.asked_by);
        act.text("approved_by", row.approved_by.as_deref().unwrap_or_default());
        act.text("what_sha256", &row.what_sha256);
        act.text("salt", &row.salt);
        act
    }
}

#[derive(Default)]
struct Found {
    preview: Preview,
    segments: Vec<Segment>,
}

impl Preview {
    fn take(&mut self, seen: &Seen<'_>, holds: &Holds) {
        if let Some(hold) = holds.holding(seen.event)
            && !self.held_by.iter().any(|name| name == hold)
        {
            self.held_by.push(hold.to_owned());
        }
        if self.sample.len() < SAMPLE
            && let Ok(view) = EventView::read(seen.event)
        {
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            self.sample.push(Sample {
                id: view.id.to_hex(),
                time: view.time.to_string(),
                action: text(view.action.as_deref()),
                host: text(view.host.as_deref()),
            });
        }
    }
}

fn held(names: &[String]) -> String {
    format!("on hold by {}; let the hold go first", names.join(", "))
}

fn tombstone(row: &ErasureRow, seen: &Seen<'_>) -> RetainAct {
    let message = format!("An event was erased (erasure {}).", row.id);
    let mut act = RetainAct::new("event.erase", "delete", message);
    act.target = ("erasure", row.id.to_string());
    if let Ok(view) = EventView::read(seen.event) {
        act.text("erased_event", &view.id.to_hex());
        act.text("erased_time", &view.time.to_string());
        act.text("erased_action", view.action.as_deref().unwrap_or_default());
        act.text("erased_category", view.category.as_deref().unwrap_or_default());
        act.text("erased_host", view.host.as_deref().unwrap_or_default());
    }
    act
}
