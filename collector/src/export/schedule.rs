//! Exports that are made again and again.
//!
//! A run belongs to the instant at which it was due, not to the one at which it was made: what was
//! missed while the collector was down is made up, each run once and with the period that it would
//! have had, at most [`MAX_MISSED`] of a schedule. The runs and the next due time are written
//! together.
//!
//! A schedule outlives the session with which it was made, but not the right: before each run its
//! owner must still be there, enabled, and allowed to export, and no run holds more than they may
//! see then. Otherwise the schedule stops, says why, and does not start again by itself.

use custody_event::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};
use serde::{Deserialize, Serialize};

use super::work::{Desk, act_of, new_id};
use super::{ExportError, Format, Options, Row, Spec, Status, Told, Words, ask};
use crate::access::{Kind, Permission, Principal, Scope};
use crate::query::params;
use crate::query::problem::Problem;

/// Runs that are made up: a month of days.
const MAX_MISSED: usize = 31;
/// Schedules, over all who have made some.
pub(super) const MAX_SCHEDULES: usize = 200;

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Every {
    /// Every day.
    Day,
    /// Every Monday.
    Week,
    /// Every first day of a month.
    Month,
}

/// Which time a run is about, counted from the day on which it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Span {
    /// The day before.
    #[serde(rename = "previous_day")]
    Day,
    /// Monday to Sunday of the week before.
    #[serde(rename = "previous_week")]
    Week,
    /// The month before.
    #[serde(rename = "previous_month")]
    Month,
}

/// What is scheduled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) every: Every,
    /// `02:00`.
    pub(super) at: String,
    /// An IANA name; `UTC` where none is named.
    #[serde(default = "utc")]
    pub(super) timezone: String,
    pub(super) format: Format,
    #[serde(default)]
    pub(super) q: String,
    pub(super) period: Span,
    #[serde(default)]
    pub(super) bom: bool,
    #[serde(default, rename = "form")]
    pub(super) words: Words,
    /// What its maker may see; never read from a request, as all that follows.
    #[serde(default)]
    pub(super) scopes: Vec<Scope>,
    /// What kind of account made it; plans of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<Kind>,
    /// Why it makes no more runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stopped: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A plan with its next run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) created_by: String,
    pub(super) next: Timestamp,
    pub(super) plan: Plan,
}

fn zoned(zone: &TimeZone, time: Timestamp) -> Option<Zoned> {
    jiff::Timestamp::from_microsecond(time.micros()).ok().map(|time| time.to_zoned(zone.clone()))
}

/// A time that the zone skips is the one behind the gap.
fn instant(zone: &TimeZone, date: Date, at: Time) -> Option<Timestamp> {
    let zoned = zone.to_ambiguous_zoned(date.to_datetime(at)).compatible().ok()?;
    Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
}

fn monday(date: Date) -> Option<Date> {
    date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok()
}

impl Plan {
    fn zone(&self) -> Option<TimeZone> {
        if self.timezone == "UTC" {
            Some(TimeZone::UTC)
        } else {
            TimeZone::get(&self.timezone).ok()
        }
    }

    fn at(&self) -> Option<Time> {
        let (hour, minute) = self.at.split_once(':')?;
        let number = |text: &str| (text.len() == 2).then(|| text.parse::<i8>().ok()).flatten();
        Time::new(number(hour)?, number(minute)?, 0, 0).ok()
    }

    /// The first run after this instant.
    pub(super) fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let (zone, at) = (self.zone()?, self.at()?);
        let today = zoned(&zone, time)?.date();
        let (mut date, step) = match self.every {
            Every::Day => (today, 1.day()),
            Every::Week => (monday(today)?, 1.week()),
            Every::Month => (today.first_of_month(), 1.month()),
        };
        loop {
            let due = instant(&zone, date, at)?;
            if due > time {
                return Some(due);
            }
            date = date.checked_add(step).ok()?;
        }
    }

    /// What the run is about that is due at this instant: from, and to before.
    pub(super) fn range(&self, due: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let zone = self.zone()?;
        let today = zoned(&zone, due)?.date();
        let (end, step) = match self.period {
            Span::Day => (today, 1.day()),
            Span::Week => (monday(today)?, 1.week()),
            Span::Month => (today.first_of_month(), 1.month()),
        };
        let first = end.checked_sub(step).ok()?;
        let midnight = Time::midnight();
        Some((instant(&zone, first, midnight)?, instant(&zone, end, midnight)?))
    }

    /// The export of the run that is due at this instant.
    pub(super) fn spec(&self, id: &str, due: Timestamp) -> Option<Spec> {
        let (from, to) = self.range(due)?;
        let day = zoned(&self.zone()?, from)?.date();
        Some(Spec {
            name: format!("{} {day}", self.name),
            format: self.format,
            q: self.q.clone(),
            from: Some(from),
            to: Some(to),
            bom: self.bom,
            words: self.words,
            scopes: self.scopes.clone(),
            schedule: Some(id.to_owned()),
        })
    }

    /// Refuses what can never be made; gives the first run.
    pub(super) fn check(
        &mut self,
        now: Timestamp,
        options: &Options,
        has_log: bool,
        who: &Principal,
    ) -> Result<Timestamp, Problem> {
        self.name = ask::name(&self.name)?;
        if self.zone().is_none() {
            let what = format!("{:?} is no time zone; write UTC or Europe/Berlin", self.timezone);
            return Err(Problem::bad("timezone", what));
        }
        if self.at().is_none() {
            return Err(Problem::bad("at", "write a time of day as 02:00"));
        }
        ask::may_bundle(self.format, has_log, who)?;
        ask::may_say(self.words, self.format)?;
        self.scopes = who.scopes.to_vec();
        (self.owner, self.stopped) = (Some(who.kind), None);
        params::search(&[("q".to_owned(), self.q.clone())], now)?;
        let due = self.next_after(now);
        let spec = due.and_then(|due| self.spec("", due));
        let (Some(due), Some(mut spec)) = (due, spec) else {
            return Err(Problem::bad("at", "there is no such time"));
        };
        ask::quotas(&mut spec, due, options)?;
        Ok(due)
    }
}

/// Makes runs of what is due; says whether there were any.
pub(super) fn run_due(desk: &Desk, now: Timestamp) -> Result<bool, ExportError> {
    let mut any = false;
    for schedule in desk.table.schedules()? {
        if schedule.next <= now && schedule.plan.stopped.is_none() {
            any |= run(desk, &schedule, now)?;
        }
    }
    Ok(any)
}

/// What a run may hold now, or why there is none.
fn allowed(desk: &Desk, schedule: &Schedule) -> Result<Vec<Scope>, String> {
    use Permission::{Export, ViewRaw, ViewSensitive};
    let (plan, who) = (&schedule.plan, &schedule.created_by);
    let mut scopes = plan.scopes.clone();
    if let Some(accounts) = &desk.source.accounts {
        let kinds = plan.owner.map_or(vec![Kind::User, Kind::Token], |kind| vec![kind]);
        let account = |kind: Kind| accounts.account(kind, who, schedule.created);
        let Some(owner) = kinds.into_iter().find_map(account) else {
            return Err(format!("the account {who} is disabled, over, or not there any more"));
        };
        if let Some(missing) =
            [Export, ViewRaw, ViewSensitive].iter().find(|need| !owner.may(**need))
        {
            return Err(format!("{who} has no longer the permission {}", missing.name()));
        }
        let has_log = desk.log().is_some();
        ask::may_bundle(plan.format, has_log, &owner).map_err(|problem| problem.detail)?;
        let narrower = owner.scopes.iter().filter(|scope| !plan.scopes.contains(scope)).cloned();
        scopes.extend(narrower);
    }
    // The bounds may be tighter than when it was made.
    if let Some(mut spec) = plan.spec(&schedule.id, schedule.next) {
        spec.scopes.clone_from(&scopes);
        ask::quotas(&mut spec, schedule.next, &desk.options).map_err(|problem| problem.detail)?;
    }
    Ok(scopes)
}

fn stop(desk: &Desk, schedule: &Schedule, why: String) -> Result<(), ExportError> {
    log::warn!(schedule:% = schedule.plan.name, why = why.as_str(); "a scheduled export was stopped");
    let mut stopped = schedule.clone();
    stopped.plan.stopped = Some(why.clone());
    if desk.table.put_plan(&stopped)? {
        tell_why(desk, schedule, "schedule.stop", "", &why);
    }
    Ok(())
}

fn run(desk: &Desk, schedule: &Schedule, now: Timestamp) -> Result<bool, ExportError> {
    let scopes = match allowed(desk, schedule) {
        Ok(scopes) => scopes,
        Err(why) => return stop(desk, schedule, why).map(|()| false),
    };
    let mut dues = Vec::new();
    let mut next = schedule.next;
    while next <= now {
        dues.push(next);
        let Some(later) = schedule.plan.next_after(next) else { break };
        next = later;
    }
    let skip = dues.len().saturating_sub(MAX_MISSED);
    if skip > 0 {
        log::warn!(
            schedule:% = schedule.plan.name, skipped = skip;
            "more runs of a scheduled export were missed than are made up; the newest are"
        );
    }
    let mut runs = Vec::new();
    for due in dues.into_iter().skip(skip) {
        let Some(mut spec) = schedule.plan.spec(&schedule.id, due) else { continue };
        spec.scopes.clone_from(&scopes);
        runs.push(Row {
            id: new_id()?,
            created: now,
            created_by: schedule.created_by.clone(),
            status: Status::Queued,
            spec,
            told: Told::default(),
        });
    }
    if !desk.table.run_schedule(schedule, &runs, next)? {
        return Ok(false);
    }
    for run in &runs {
        let why =
            format!("a run of the schedule {:?} of {}", schedule.plan.name, schedule.created_by);
        desk.tell(run, "export.request", "pending", "", &why);
    }
    Ok(true)
}

/// Makes it an event.
pub(super) fn tell(desk: &Desk, schedule: &Schedule, action: &'static str, who: &str) {
    tell_why(desk, schedule, action, who, "");
}

fn tell_why(desk: &Desk, schedule: &Schedule, action: &'static str, who: &str, why: &str) {
    let Some(mut spec) = schedule.plan.spec(&schedule.id, schedule.next) else { return };
    (spec.name, spec.from, spec.to) = (schedule.plan.name.clone(), None, None);
    let act = act_of(&spec, action, "success", who, why);
    desk.record(crate::own::ExportAct { id: schedule.id.clone(), ..act });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(every: Every, at: &str, timezone: &str, period: Span) -> Plan {
        Plan {
            name: "daily".to_owned(),
            every,
            at: at.to_owned(),
            timezone: timezone.to_owned(),
            format: Format::Csv,
            q: String::new(),
            period,
            bom: false,
            words: Words::Custody,
            scopes: Vec::new(),
            owner: None,
            stopped: None,
        }
    }

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(&format!("{text}:00.000000Z")).unwrap()
    }

    #[test]
    fn runs_are_due_on_time_and_about_whole_periods() {
        use Every::{Day, Month, Week};
        for (plan, after, due, from, to) in [
            (
                plan(Day, "02:00", "UTC", Span::Day),
                "2026-11-05T01:59",
                "2026-11-05T02:00",
                "2026-11-04T00:00",
                "2026-11-05T00:00",
            ),
            (
                plan(Day, "02:00", "UTC", Span::Day),
                "2026-11-05T02:00",
                "2026-11-06T02:00",
                "2026-11-05T00:00",
                "2026-11-06T00:00",
            ),
            // 5 November 2026 is a Thursday.
            (
                plan(Week, "06:30", "UTC", Span::Week),
                "2026-11-05T12:00",
                "2026-11-09T06:30",
                "2026-11-02T00:00",
                "2026-11-09T00:00",
            ),
            (
                plan(Month, "00:00", "UTC", Span::Month),
                "2026-12-31T23:59",
                "2027-01-01T00:00",
                "2026-12-01T00:00",
                "2027-01-01T00:00",
            ),
            // In Berlin the clocks go forward on 29 March 2026, from 2 to 3: 02:30 is 03:30 there,
            // and the day has 23 hours.
            (
                plan(Day, "02:30", "Europe/Berlin", Span::Day),
                "2026-03-28T12:00",
                "2026-03-29T01:30",
                "2026-03-27T23:00",
                "2026-03-28T23:00",
            ),
            (
                plan(Day, "02:30", "Europe/Berlin", Span::Day),
                "2026-03-29T12:00",
                "2026-03-30T00:30",
                "2026-03-28T23:00",
                "2026-03-29T22:00",
            ),
        ] {
            let next = plan.next_after(time(after)).unwrap();
            assert_eq!(next, time(due), "{plan:?}");
            assert_eq!(plan.range(next), Some((time(from), time(to))), "{plan:?}");
        }
    }

    #[test]
    fn what_can_never_be_due_is_refused() {
        for (at, timezone) in [("2:00", "UTC"), ("24:00", "UTC"), ("x", "UTC"), ("02:00", "Mars/X")]
        {
            let plan = plan(Every::Day, at, timezone, Span::Day);
            assert_eq!(plan.next_after(Timestamp::Y2020), None, "{at} {timezone}");
        }
    }
}
