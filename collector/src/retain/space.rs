//! The space on the disk of the data directory.
//!
//! Below `space.archive_below` closed segments are archived at once, oldest first, and what is in
//! the archive leaves the log until there is room again: archived earlier rather than stopped.
//! Events on hold stay. Below `space.stop_below` blocks of agents are refused with 503 and
//! Retry-After, and kept by the agents: the last bytes are for the database, the log's tiles and
//! segments that are written anew.

use custody_config::ByteSize;

use super::holds::Holds;
use super::scan::{Going, each_event};
use super::{Retain, RetainError, io};
use crate::own::RetainAct;

impl Retain {
    fn free(&self) -> Result<ByteSize, RetainError> {
        let stat = rustix::fs::statvfs(&self.data_dir)
            .map_err(|error| io(&self.data_dir)(error.into()))?;
        Ok(ByteSize::from_bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Looks at the free space and does what it asks for.
    pub(super) fn look_at_space(&self) -> Result<(), RetainError> {
        if self.free()? < self.space.archive_below && self.archive.is_some() {
            self.offload()?;
        }
        let free = self.free()?;
        let reason = (free < self.space.stop_below).then(|| {
            format!(
                "the disk is nearly full: {free} are free, less than `space.stop_below` ({})",
                self.space.stop_below
            )
        });
        self.log.hold_back(reason);
        Ok(())
    }

    /// Archives the oldest segments and empties them, until there is room.
    fn offload(&self) -> Result<(), RetainError> {
        let _one = self.work();
        let (policy, restored) = (self.policy.digest(), self.table.restored()?);
        let (mut segments, mut events) = (0, 0);
        for segment in self.log.closed_segments() {
            self.go_on()?;
            if self.free()? >= self.space.archive_below {
                break;
            }
            let empty = self.table.due(segment.number, &policy)? == Some(i64::MAX);
            if empty || restored.contains(&segment.number) {
                continue;
            }
            self.archive_segment(&segment)?;
            let holds = Holds::of(&self.table.holds()?)?;
            let mut going = Going::default();
            each_event(&segment.path, &mut |seen| {
                if holds.holding(seen.event).is_none() {
                    going.put(seen);
                }
                Ok(())
            })?;
            if going.count > 0 {
                self.take_out(&segment, &going.gone)?;
                segments += 1;
                events += going.count;
            }
            self.table.set_due(segment.number, &policy, i64::MAX)?;
            // The index of these days is the larger part of what becomes free.
            self.clean()?;
        }
        if segments == 0 {
            return Ok(());
        }
        log::warn!(segments = segments, events = events;
            "the disk was nearly full: segments were archived before their time");
        let message = format!("The disk was nearly full: {events} events are in the archive only.");
        let mut act = RetainAct::new("archive.offload", "other", message);
        act.severity = "medium";
        act.target = ("log", "evidence".to_owned());
        act.count("events", events);
        act.count("segments", segments);
        self.tell(act)
    }
}
