//! Takes away what has reached its age.
//!
//! Each closed segment is looked at when something in it may expire, not before: what was worked
//! out stands in the table until the policy changes or a hold is let go. Where an archive is
//! configured, a segment is copied there before it loses anything.

use custody_event::Timestamp;
use serde::Serialize;

use super::holds::Holds;
use super::scan::{Going, each_event};
use super::table::{EMPTY, KEPT};
use super::tries::Tries;
use super::{Retain, RetainError};
use crate::own::RetainAct;
use crate::store::evidence::Segment;
use crate::store::{BlockSource, LogCursor};

/// What a run did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Was nothing changed?
    pub dry_run: bool,
    /// Closed segments.
    pub segments: u64,
    /// Segments that were read.
    pub read: u64,
    /// Segments that lost events.
    pub rewritten: u64,
    /// Events that went.
    pub expired: u64,
    /// Events past their age that a hold keeps.
    pub held: u64,
}

impl Retain {
    /// Takes away what has reached its age; with `dry_run` only counts it.
    ///
    /// # Errors
    /// A segment, the index or the database; what was done until then stays done.
    pub fn sweep(&self, dry_run: bool) -> Result<Swept, RetainError> {
        let _one = self.work();
        let mut tries = Tries::new("retention");
        if !dry_run {
            tries.one(self.clean())?;
            tries.one(self.close_old())?;
        }
        let (now, policy) = (self.clock.now(), self.policy.digest());
        let restored = self.table.restored()?;
        let mut swept = Swept { dry_run, ..Swept::default() };
        for segment in self.log.closed_segments() {
            swept.segments += 1;
            self.go_on()?;
            let due = self.table.due(segment.number, &policy)?;
            if restored.contains(&segment.number) || due.is_some_and(|due| due > now.micros()) {
                continue;
            }
            tries.one(self.sweep_segment(&segment, now, &mut swept))?;
        }
        if !dry_run {
            tries.one(self.clean())?;
            if swept.expired > 0 {
                self.tell(told(&swept))?;
            }
        }
        tries.end().map(|()| swept)
    }

    fn sweep_segment(
        &self,
        segment: &Segment,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<(), RetainError> {
        swept.read += 1;
        let _deciding = self.deciding.take();
        let holds = Holds::of(&self.table.holds()?)?;
        let (going, due, held) = self.expired(segment, now, &holds)?;
        swept.held += held;
        if going.count > 0 && !swept.dry_run {
            self.see_archived(segment)?;
            self.take_out(segment, &going.gone)?;
            swept.rewritten += 1;
        }
        swept.expired += going.count;
        if swept.dry_run {
            return Ok(());
        }
        self.table.set_due(segment.number, &self.policy.digest(), due)
    }

    /// What of the segment goes now, when the next goes ([`KEPT`] where there is something, but no
    /// age takes it), and how much a hold keeps.
    fn expired(
        &self,
        segment: &Segment,
        now: Timestamp,
        holds: &Holds,
    ) -> Result<(Going, i64, u64), RetainError> {
        let (mut going, mut due, mut held) = (Going::default(), EMPTY, 0);
        each_event(&segment.path, &mut |seen| {
            match self.policy.until(seen.received, seen.event) {
                None => due = due.min(KEPT),
                Some(until) if until > now => due = due.min(until.micros()),
                Some(_) if holds.holding(seen.event).is_some() => {
                    held += 1;
                    // A hold that is let go clears what was worked out.
                    due = due.min(KEPT);
                }
                Some(_) => going.put(seen),
            }
            Ok(())
        })?;
        Ok((going, due, held))
    }

    /// Where nothing comes any more the last segment stays open: it ends when its first block has
    /// reached the least age.
    fn close_old(&self) -> Result<(), RetainError> {
        let end = *self.log.durable_end().borrow();
        let begin = LogCursor { segment: end.segment, offset: 0 };
        let first = self.log.next_from(begin)?;
        let old = first
            .and_then(|stored| self.policy.earliest(stored.receipt.received))
            .is_some_and(|until| until <= self.clock.now());
        if old { Ok(self.log.close_segment()?) } else { Ok(()) }
    }
}

fn told(swept: &Swept) -> RetainAct {
    let message = format!("{} events have reached their age and are gone.", swept.expired);
    let mut act = RetainAct::new("retention.expire", "delete", message);
    act.target = ("log", "evidence".to_owned());
    act.count("expired", swept.expired);
    act.count("held", swept.held);
    act.count("segments", swept.rewritten);
    act
}
