//! The space on the disk of the data directory.
//!
//! Exports go first: their files can be made again. Below what is needed ([`Retain::reserve`]) the
//! oldest of them are removed until there is room, before anything is done to evidence; those that
//! are being made end by themselves.
//!
//! Below `space.archive_below` closed segments are archived at once, oldest first, and what is in
//! the archive leaves the log until there is room again: archived earlier rather than stopped.
//! Events on hold stay. Below `space.stop_below` blocks of agents are refused with 503 and
//! Retry-After, and kept by the agents: the last bytes are for the database, the log's tiles and
//! segments that are written anew. That look waits for nothing: neither for segments that are being
//! written nor for an archive that cannot be had.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use custody_config::ByteSize;

use super::holds::Holds;
use super::scan::{Going, each_event};
use super::table::EMPTY;
use super::tries::Tries;
use super::{Retain, RetainError, io};
use crate::own::{Act, RetainAct};
use crate::store::evidence::Segment;

/// Bytes that are free where this stands.
pub(super) fn free_at(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Files of exports that are made, the oldest first.
fn exports_in(folder: &Path) -> Result<Vec<(SystemTime, PathBuf)>, RetainError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(io(folder))?.path();
        let is_part = path.extension().is_some_and(|extension| extension == "part");
        let made = std::fs::metadata(&path).and_then(|meta| meta.modified());
        match made {
            Ok(made) if !is_part => found.push((made, path)),
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}

impl Retain {
    fn free(&self) -> Result<ByteSize, RetainError> {
        let free = (self.hooks.free)(&self.data_dir).map_err(io(&self.data_dir))?;
        Ok(ByteSize::from_bytes(free))
    }

    /// Is there room to write this segment anew beside itself?
    pub(super) fn see_room(&self, segment: &Segment) -> Result<(), RetainError> {
        let (free, needed) = (self.free()?, ByteSize::from_bytes(segment.len));
        if free >= needed {
            return Ok(());
        }
        let what = format!("{needed} are needed to write it anew, {free} are free; make room");
        let error = std::io::Error::new(std::io::ErrorKind::StorageFull, what);
        Err(io(&segment.path)(error))
    }

    /// Looks at the free space and does what it asks for.
    pub(super) fn look_at_space(&self) -> Result<(), RetainError> {
        self.hold_back_if_full()?;
        if self.shelf.is_none() || self.free()? >= self.space.archive_below {
            return Ok(());
        }
        let offloaded = self.offload();
        self.hold_back_if_full()?;
        offloaded
    }

    /// Below this something is done to evidence for want of space: without an archive only that
    /// blocks are refused.
    fn reserve(&self) -> ByteSize {
        let archives = self.shelf.as_ref().map(|_| self.space.archive_below);
        archives.unwrap_or(self.space.stop_below).max(self.space.stop_below)
    }

    /// Removes the oldest files of exports until there is the room that evidence needs.
    fn give_up_exports(&self) -> Result<(), RetainError> {
        let mut removed = 0;
        for (_, path) in exports_in(&self.data_dir.join("exports"))? {
            if self.free()? >= self.reserve() {
                break;
            }
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = name.split('.').next().unwrap_or_default();
            if !self.table.give_up_export(id)? {
                continue;
            }
            match std::fs::remove_file(&path) {
                Ok(()) => removed += 1,
                // Expired, or removed by the other thread that looks.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(&path)(error)),
            }
        }
        if removed > 0 {
            log::warn!(exports = removed; "the disk was nearly full: files of exports were removed");
            let message = format!("The disk was nearly full: {removed} exports were removed.");
            let mut act = RetainAct::new("export.expire", "delete", message);
            act.target = ("export", "files".to_owned());
            act.count("exports", removed);
            if let Some(acts) = &self.acts {
                // Nothing waits here, not even for its own words.
                acts.record(Act::Retained(Box::new(act)));
            }
        }
        Ok(())
    }

    /// Gives up exports, and refuses blocks while the disk is nearly full all the same. Waits for
    /// nothing.
    pub(super) fn hold_back_if_full(&self) -> Result<(), RetainError> {
        if self.free()? < self.reserve()
            && let Err(error) = self.give_up_exports()
        {
            log::error!(error:% = error; "exports cannot be removed from the full disk");
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
        let mut tries = Tries::new("the free space");
        let (mut segments, mut events) = (0, 0);
        for segment in self.log.closed_segments() {
            self.go_on()?;
            if self.free()? >= self.space.archive_below {
                break;
            }
            let empty = self.table.due(segment.number, &policy)? == Some(EMPTY);
            if empty || restored.contains(&segment.number) {
                continue;
            }
            let went = tries.one(self.offload_segment(&segment, &policy))?.unwrap_or_default();
            segments += u64::from(went > 0);
            events += went;
            // The index of these days is the larger part of what becomes free.
            tries.one(self.clean())?;
        }
        self.tell_offloaded(segments, events)?;
        tries.end()
    }

    /// Takes everything out of the segment that no hold keeps; gives how many events.
    fn offload_segment(&self, segment: &Segment, policy: &str) -> Result<u64, RetainError> {
        let _deciding = self.deciding.take();
        self.see_archived(segment)?;
        let holds = Holds::of(&self.table.holds()?)?;
        let mut going = Going::default();
        each_event(&segment.path, &mut |seen| {
            if holds.holding(seen.event).is_none() {
                going.put(seen);
            }
            Ok(())
        })?;
        if going.count > 0 {
            self.take_out(segment, &going.gone)?;
        }
        // A hold that is let go clears this.
        self.table.set_due(segment.number, policy, EMPTY)?;
        Ok(going.count)
    }

    fn tell_offloaded(&self, segments: u64, events: u64) -> Result<(), RetainError> {
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
