//! Erasure of a person's events, by two people.
//!
//! # Life of an erasure
//! Asked (what is sought, why; a look at what would go) → approved by another principal → done on
//! the worker's thread: segments, archive, index, exports → what was sought is forgotten, and the
//! receipt is an event. A crash goes on at the next start. An event that an active hold keeps
//! makes the whole erasure refused, naming the hold; a hold that comes while it is done ends it
//! there. Until it is approved, what is sought is shown to those who may approve it.
//!
//! # Why whole events
//! The leaf is the hash of the whole event: a single field cannot go without it. So the event
//! becomes a bare leaf, and a tombstone in the collector's own stream keeps what was not personal in
//! it: action, category, time, host. It is written before the event goes, and noted then: after a crash in
//! between there may be two of one event, never none; both name the event's id.
//!
//! # What it does not reach
//! Spools of agents and the sources themselves, backups, bundles and exports that were fetched,
//! and the medium below the file system. Of the collector's own events only searches are erased:
//! nobody takes back what was done here.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use custody_event::{EventView, Timestamp};
use serde::{Deserialize, Serialize};

use super::holds::{Holds, filter, holds};
use super::scan::{Going, Seen, each_event};
use super::table::{ErasureRow, Status};
use super::tries::Tries;
use super::{Retain, RetainError, check_text, io};
use crate::access::{Permission, Principal, random_secret};
use crate::index::terms::{Tag, folded_value};
use crate::own::RetainAct;
use crate::query::filter::{Expr, Filter, Findable, Pattern};
use crate::query::keys::Key;
use crate::store::evidence::Segment;

/// Events shown of what would go, at most.
const SAMPLE: usize = 10;
/// Tombstones that are told before it is noted that they are.
const AT_ONCE: usize = 400;

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
            if asks_nothing(&filter.expr) {
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

/// Does every event meet it, because a part of it has nothing to look for?
fn asks_nothing(expr: &Expr) -> bool {
    match expr {
        Expr::All(all) => all.iter().all(asks_nothing),
        Expr::Any(any) => any.iter().any(asks_nothing),
        _ => false,
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
        "email" | "any" => {
            let said = Expr::phrase(value);
            if asks_nothing(&said) {
                let what = format!(
                    "{value:?} has no letters or digits, so that every text would have it; name \
                     actor.id or actor.name"
                );
                return Err(RetainError::Bad { parameter: "subject", what });
            }
            // As an actor, as a target, and wherever the text says it.
            Expr::Any(vec![exact(PERSON), said])
        }
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
            return Err(RetainError::Held(preview.held_by.join(", ")));
        }
        let text = serde_json::to_string(&What::of(new)?)
            .map_err(|error| RetainError::Bad { parameter: "subject", what: error.to_string() })?;
        let salt = random_secret().map_err(io(Path::new("randomness")))?;
        let salt = custody_event::Digest(salt).to_hex()[..32].to_owned();
        let mut row = ErasureRow {
            id: 0,
            status: Status::Asked,
            what_sha256: custody_event::Digest::of(format!("{salt}{text}").as_bytes()).to_hex(),
            judged: serde_json::from_str(&text).ok(),
            what: Some(text),
            matched: i64::try_from(preview.matched).unwrap_or(i64::MAX),
            archived: i64::try_from(preview.archived).unwrap_or(i64::MAX),
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
    /// The same person, or one who was made after it was asked for; not waited for, or the database.
    pub fn approve(&self, id: i64, who: &Principal) -> Result<ErasureRow, RetainError> {
        let row = self.erasure(id)?;
        let by = who.accountable();
        if !who.may_approve(Permission::Erase, &row.asked_by) {
            let what = format!("{by} asked for it: another person must approve it");
            return Err(RetainError::Conflict(what));
        }
        // Whoever asked might have made them for it.
        if !Timestamp::parse(&row.asked).is_ok_and(|asked| who.since < asked) {
            let what = format!(
                "{by} was made, or got a new password, at {}, after it was asked for: somebody \
                 who was there before must approve it",
                who.since
            );
            return Err(RetainError::Conflict(what));
        }
        if !self.table.approve(id, by, self.clock.now())? {
            return Err(does_not_wait(id));
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
        if !self.table.withdraw(id, &format!("taken back by {by}"), self.clock.now())? {
            return Err(does_not_wait(id));
        }
        self.tell(self.act_of(&row, "erasure.withdraw", format!("{by} took it back."), by))
    }

    /// Does every erasure that is approved; one that fails is tried again, and keeps no other.
    pub(super) fn erase_approved(&self) -> Result<(), RetainError> {
        let mut tries = Tries::new("erasures");
        for row in self.table.erasures()? {
            if row.status != Status::Approved {
                continue;
            }
            let done = self.erase(&row);
            if let Err(error) = &done
                && !matches!(error, RetainError::Stopping)
            {
                tries.one(self.table.trouble(row.id, &error.to_string()))?;
            }
            tries.one(done)?;
        }
        tries.end()
    }

    fn erase(&self, row: &ErasureRow) -> Result<(), RetainError> {
        let what: What = serde_json::from_str(row.what.as_deref().unwrap_or_default())
            .map_err(|error| RetainError::Conflict(format!("what it sought is lost: {error}")))?;
        let asked = Timestamp::parse(&row.asked).unwrap_or(Timestamp::MIN);
        let filter = what.filter(asked)?;
        let _one = self.work();
        self.clean()?;
        match self.erase_everywhere(row, &filter) {
            Ok(locked) => self.complete(row.id, locked),
            Err(error @ RetainError::Held(_)) => self.refuse(row.id, &error.to_string()),
            Err(error) => Err(error),
        }
    }

    /// Takes what is sought out of the log and the archive; gives how many copies of segments stay there
    /// because they are locked.
    fn erase_everywhere(&self, row: &ErasureRow, filter: &Filter) -> Result<u64, RetainError> {
        let found = self.look(filter)?;
        let still: Vec<u64> = found.segments.iter().map(|segment| segment.number).collect();
        self.table.set_gone_but(row.id, &still)?;
        if !found.preview.held_by.is_empty() {
            return Err(RetainError::Held(found.preview.held_by.join(", ")));
        }
        let mut tries = Tries::new("an erasure");
        for segment in &found.segments {
            self.go_on()?;
            tries.one(self.erase_in(row, filter, segment))?;
        }
        tries.one(self.clean())?;
        tries.end()?;
        self.erase_in_archive(row.id, &|seen| self.is_sought(filter, seen))
    }

    fn complete(&self, id: i64, locked: u64) -> Result<(), RetainError> {
        let exports = self.remove_exports()?;
        if !self.table.empty_journal()? {
            log::warn!("the journal of collector.db is in use; it is emptied later");
        }
        let row = self.erasure(id)?;
        let mut message = format!("{} events were erased: {}", row.erased, row.reason);
        if locked > 0 {
            message = format!(
                "{message} ({locked} locked copies of segments in the archive go when their lock ends)"
            );
        }
        let mut act = self.act_of(&row, "erasure.complete", message, "");
        act.count("erased", u64::try_from(row.erased).unwrap_or_default());
        act.count("erased_in_archive", self.table.erased_in_archive(id)?);
        act.count("locked_in_archive", locked);
        act.count("exports_removed", exports);
        // The receipt first: after a crash in between there are two, never none.
        self.tell(act)?;
        self.table.end(row.id, Status::Done, self.clock.now())
    }

    /// A hold keeps what is left of it.
    fn refuse(&self, id: i64, why: &str) -> Result<(), RetainError> {
        self.clean()?;
        let row = self.erasure(id)?;
        let gone = u64::try_from(row.erased).unwrap_or_default();
        let archived = self.table.erased_in_archive(id)?;
        let message = if gone == 0 && archived == 0 {
            format!("Nothing was erased: {why}.")
        } else {
            self.remove_exports()?;
            format!(
                "{gone} events had been erased, and {archived} copies in the archive, when a hold \
                 came; no other was: {why}."
            )
        };
        self.table.trouble(id, &message)?;
        let mut act = self.act_of(&row, "erasure.refuse", message, "");
        act.outcome = "denied";
        act.count("erased", gone);
        act.count("erased_in_archive", archived);
        self.tell(act)?;
        self.table.end(id, Status::Refused, self.clock.now())
    }

    fn erase_in(
        &self,
        row: &ErasureRow,
        filter: &Filter,
        segment: &Segment,
    ) -> Result<(), RetainError> {
        let _deciding = self.deciding.take();
        let holds = Holds::of(&self.table.holds()?)?;
        let (mut going, mut tombstones) = (Going::default(), Vec::new());
        each_event(&segment.path, &mut |seen| {
            if self.is_sought(filter, seen) {
                holds.refuse(seen.event)?;
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
        self.see_room(segment)?;
        self.tell_erased(row.id, segment.number, going.count, tombstones)?;
        self.take_out(segment, &going.gone)?;
        self.table.set_gone(row.id, segment.number)
    }

    /// Tells the tombstones of a segment that were not told when it was tried before.
    fn tell_erased(
        &self,
        id: i64,
        segment: u64,
        count: u64,
        mut tombstones: Vec<RetainAct>,
    ) -> Result<(), RetainError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let mut told = self.table.to_erase(id, segment, count)?;
        let before = usize::try_from(told).unwrap_or_default().min(tombstones.len());
        tombstones.drain(..before);
        while !tombstones.is_empty() {
            let later = tombstones.split_off(tombstones.len().min(AT_ONCE));
            told += i64::try_from(tombstones.len()).unwrap_or(i64::MAX);
            self.tell_all(tombstones)?;
            self.table.set_told(id, segment, told)?;
            tombstones = later;
        }
        Ok(())
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
        let (mut found, mut live) = (Found::default(), HashMap::new());
        for segment in self.log.closed_segments() {
            self.go_on()?;
            let mut here = Going::default();
            each_event(&segment.path, &mut |seen| {
                if self.is_sought(filter, seen) {
                    here.put(seen);
                    found.preview.take(seen, &holds);
                }
                Ok(())
            })?;
            if here.count > 0 {
                found.preview.matched += here.count;
                live.insert(segment.number, here);
                found.segments.push(segment);
            }
        }
        found.preview.archived = self.count_in_archive(&mut |seen| {
            let is_live = live.get(&seen.at.segment).is_some_and(|going| going.has(seen));
            let counts = !is_live && self.is_sought(filter, seen);
            if counts {
                found.preview.take(seen, &holds);
            }
            counts
        })?;
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

fn does_not_wait(id: i64) -> RetainError {
    RetainError::Conflict(format!(
        "erasure {id} does not wait for approval; `erase list` shows all"
    ))
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
