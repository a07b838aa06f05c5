//! Holds, erasures and what is known of segments, in `collector.db`.
//!
//! The words of an erasure (whose events are sought) are themselves personal: they are there only
//! until it is done, and SQLite overwrites what is deleted (`secure_delete`).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use custody_event::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::RetainError;
use crate::access;

/// When something of a segment expires next, where nothing is left in it that could go.
pub(super) const EMPTY: i64 = i64::MAX;
/// The same where there is something, but no age takes it: it is kept for ever, or on hold.
pub(super) const KEPT: i64 = i64::MAX - 1;

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldRow {
    /// Its number.
    pub id: i64,
    /// For people.
    pub name: String,
    /// What is held: a search line.
    pub q: String,
    /// Events at or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Events before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub by: String,
    /// When.
    pub created: String,
    /// When it was let go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released_by: Option<String>,
}

/// What becomes of an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for a second person.
    Asked,
    /// It is to be done, or under way.
    Approved,
    /// It is done.
    Done,
    /// It cannot be done: a hold, or it was taken back.
    Refused,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Approved => "approved",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Asked, Self::Approved, Self::Done, Self::Refused]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// An erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErasureRow {
    /// Its number.
    pub id: i64,
    /// Where it stands.
    pub status: Status,
    /// What is sought, as JSON; gone when it is done.
    #[serde(skip)]
    pub what: Option<String>,
    /// The same, for the second person to judge: while that is waited for.
    #[serde(rename = "what", skip_serializing_if = "Option::is_none")]
    pub judged: Option<serde_json::Value>,
    /// Events in the log that it sought when it was asked for. None of them was on hold then.
    pub matched: i64,
    /// Events that were in the archive only then.
    pub archived: i64,
    /// SHA-256 over the salt and what was sought: whoever knows both can see that it was this.
    pub what_sha256: String,
    /// The salt, 32 hex digits.
    pub salt: String,
    /// Why.
    pub reason: String,
    /// Who asked.
    pub asked_by: String,
    /// When.
    pub asked: String,
    /// The second person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved: Option<String>,
    /// When it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// Events that are gone.
    pub erased: i64,
    /// What went wrong last, or why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// See the module.
pub(super) struct Table {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Table {
    /// Opens the tables; [`access::Access`] has made them.
    pub(super) fn open(data_dir: &Path) -> Result<Self, RetainError> {
        let path = access::database_in(data_dir);
        let failed = |source| RetainError::Database { path: path.clone(), source };
        let connection = Mutex::new(access::connect(&path).map_err(failed)?);
        Ok(Self { path, connection })
    }

    fn with<T>(
        &self,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, RetainError> {
        let connection: MutexGuard<'_, Connection> =
            self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&connection).map_err(|source| RetainError::Database { path: self.path.clone(), source })
    }

    pub(super) fn holds(&self) -> Result<Vec<HoldRow>, RetainError> {
        self.with(|db| {
            let mut select = db.prepare_cached(
                "SELECT id, name, q, from_time, to_time, reason, by_whom, created, released,
                 released_by FROM holds ORDER BY id",
            )?;
            select.query_map([], hold_of)?.collect()
        })
    }

    pub(super) fn add_hold(&self, hold: &HoldRow) -> Result<i64, RetainError> {
        self.with(|db| {
            db.execute(
                "INSERT INTO holds (name, q, from_time, to_time, reason, by_whom, created)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![hold.name, hold.q, hold.from, hold.to, hold.reason, hold.by, hold.created],
            )?;
            Ok(db.last_insert_rowid())
        })
    }

    /// Lets a hold go; says whether it held.
    pub(super) fn release(&self, id: i64, by: &str, now: Timestamp) -> Result<bool, RetainError> {
        self.with(|db| {
            let changed = db.execute(
                "UPDATE holds SET released = ?2, released_by = ?3
                 WHERE id = ?1 AND released IS NULL",
                params![id, now.to_string(), by],
            )?;
            // What was held may go now: nothing that was worked out counts any more.
            db.execute("DELETE FROM segments_due", [])?;
            Ok(changed > 0)
        })
    }

    pub(super) fn erasures(&self) -> Result<Vec<ErasureRow>, RetainError> {
        self.with(|db| {
            let mut select = db.prepare_cached(&format!("{ERASURES} ORDER BY id"))?;
            select.query_map([], erasure_of)?.collect()
        })
    }

    pub(super) fn erasure(&self, id: i64) -> Result<Option<ErasureRow>, RetainError> {
        self.with(|db| {
            db.query_row(&format!("{ERASURES} WHERE id = ?1"), [id], erasure_of).optional()
        })
    }

    pub(super) fn add_erasure(&self, row: &ErasureRow) -> Result<i64, RetainError> {
        self.with(|db| {
            db.execute(
                "INSERT INTO erasures (status, what, what_sha256, salt, reason, asked_by, asked,
                 matched, archived) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    row.status.name(),
                    row.what,
                    row.what_sha256,
                    row.salt,
                    row.reason,
                    row.asked_by,
                    row.asked,
                    row.matched,
                    row.archived
                ],
            )?;
            Ok(db.last_insert_rowid())
        })
    }

    /// The second person's word; says whether it was waited for.
    pub(super) fn approve(&self, id: i64, by: &str, now: Timestamp) -> Result<bool, RetainError> {
        self.with(|db| {
            db.execute(
                "UPDATE erasures SET status = 'approved', approved_by = ?2, approved = ?3
                 WHERE id = ?1 AND status = 'asked'",
                params![id, by, now.to_string()],
            )
            .map(|changed| changed > 0)
        })
    }

    /// Takes an erasure back; says whether it waited for the second person.
    pub(super) fn withdraw(&self, id: i64, why: &str, now: Timestamp) -> Result<bool, RetainError> {
        self.with(|db| {
            let changed = db.execute(
                "UPDATE erasures SET status = 'refused', what = NULL, done = ?3, trouble = ?2
                 WHERE id = ?1 AND status = 'asked'",
                params![id, why, now.to_string()],
            )?;
            empty_journal(db).map(|_| changed > 0)
        })
    }

    /// So many events of a segment are to be erased; gives how many of them have been told already,
    /// in their order. Where another number stood there, the segment is not what it was.
    pub(super) fn to_erase(&self, id: i64, segment: u64, count: i64) -> Result<i64, RetainError> {
        self.with(|db| {
            db.execute(
                "INSERT INTO erasures_told (erasure, segment, count, told, gone)
                 VALUES (?1, ?2, ?3, 0, 0)
                 ON CONFLICT (erasure, segment) DO UPDATE SET gone = 0, count = excluded.count,
                 told = CASE WHEN count = excluded.count THEN told ELSE 0 END",
                params![id, number(segment), count],
            )?;
            db.query_row(
                "SELECT told FROM erasures_told WHERE erasure = ?1 AND segment = ?2",
                [id, number(segment)],
                |row| row.get(0),
            )
        })
    }

    pub(super) fn set_told(&self, id: i64, segment: u64, told: i64) -> Result<(), RetainError> {
        self.with(|db| {
            db.execute(
                "UPDATE erasures_told SET told = ?3 WHERE erasure = ?1 AND segment = ?2",
                [id, number(segment), told],
            )
            .map(|_| ())
        })
    }

    /// What of the erasure was to go from this segment is gone.
    pub(super) fn set_gone(&self, id: i64, segment: u64) -> Result<(), RetainError> {
        self.with(|db| {
            db.execute(
                "UPDATE erasures_told SET gone = 1 WHERE erasure = ?1 AND segment = ?2",
                [id, number(segment)],
            )
            .map(|_| ())
        })
    }

    /// What was to go is gone from all segments but these, which still have it: a crash may have
    /// come between the segment and the word of it.
    pub(super) fn set_gone_but(&self, id: i64, still: &[u64]) -> Result<(), RetainError> {
        let open: Vec<i64> = self.with(|db| {
            let mut select = db.prepare_cached(
                "SELECT segment FROM erasures_told WHERE erasure = ?1 AND gone = 0",
            )?;
            select.query_map([id], |row| row.get(0))?.collect()
        })?;
        for segment in open.into_iter().filter_map(|segment| u64::try_from(segment).ok()) {
            if !still.contains(&segment) {
                self.set_gone(id, segment)?;
            }
        }
        Ok(())
    }

    /// So many events are about to be erased from the archive's copy of this segment; 0 where none
    /// is left in it: what was noted before is gone then, also where a crash kept the word of it back.
    pub(super) fn erases_archived(
        &self,
        id: i64,
        segment: u64,
        count: u64,
    ) -> Result<(), RetainError> {
        let (segment, count) = (number(segment), i64::try_from(count).unwrap_or(i64::MAX));
        self.with(|db| {
            if count == 0 {
                return db.execute(
                    "UPDATE erasures_archived SET gone = 1 WHERE erasure = ?1 AND segment = ?2",
                    [id, segment],
                );
            }
            db.execute(
                "INSERT INTO erasures_archived (erasure, segment, count, gone)
                 VALUES (?1, ?2, ?3, 0)
                 ON CONFLICT (erasure, segment) DO UPDATE SET gone = 0, count = excluded.count",
                [id, segment, count],
            )
        })
        .map(|_| ())
    }

    /// Events that the erasure took out of copies in the archive, over all of its tries.
    pub(super) fn erased_in_archive(&self, id: i64) -> Result<u64, RetainError> {
        let count: i64 = self.with(|db| {
            db.query_row(
                "SELECT coalesce(sum(count), 0) FROM erasures_archived
                 WHERE erasure = ?1 AND gone = 1",
                [id],
                |row| row.get(0),
            )
        })?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    pub(super) fn trouble(&self, id: i64, what: &str) -> Result<(), RetainError> {
        self.with(|db| {
            db.execute("UPDATE erasures SET trouble = ?2 WHERE id = ?1", params![id, what])
                .map(|_| ())
        })
    }

    /// Ends an erasure, and forgets what was sought.
    pub(super) fn end(&self, id: i64, status: Status, now: Timestamp) -> Result<(), RetainError> {
        self.with(|db| {
            db.execute(
                "UPDATE erasures SET status = ?2, what = NULL, done = ?3,
                 trouble = CASE WHEN ?2 = 'done' THEN NULL ELSE trouble END WHERE id = ?1",
                params![id, status.name(), now.to_string()],
            )?;
            empty_journal(db).map(drop)
        })
    }

    /// Exports may hold what is gone.
    pub(super) fn expire_exports(&self) -> Result<(), RetainError> {
        self.with(|db| {
            let there =
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'exports'";
            let there: i64 = db.query_row(there, [], |row| row.get(0))?;
            if there > 0 {
                db.execute("UPDATE exports SET status = 'expired' WHERE status = 'completed'", [])?;
                // What is being made is begun anew: its file is gone, and what is kept of its stand
                // may hold a page of it.
                db.execute("UPDATE exports SET progress = NULL", [])?;
            }
            Ok(())
        })
    }

    /// The file of a finished export goes; says whether it may: one that is being made has its own end.
    pub(super) fn give_up_export(&self, id: &str) -> Result<bool, RetainError> {
        self.with(|db| {
            db.execute(
                "UPDATE exports SET status = 'expired' WHERE id = ?1 AND status = 'completed'",
                [id],
            )?;
            db.query_row(
                "SELECT count(*) FROM exports WHERE id = ?1 AND status IN ('queued', 'running')",
                [id],
                |row| row.get::<_, i64>(0),
            )
            .map(|under_way| under_way == 0)
        })
    }

    /// Moves what was written into the database and empties its journal: what was overwritten must
    /// not stay there. `false` where somebody reads just then; what comes next empties it.
    pub(super) fn empty_journal(&self) -> Result<bool, RetainError> {
        self.with(empty_journal)
    }

    /// When something of the segment expires next, if that was worked out by this policy.
    pub(super) fn due(&self, segment: u64, policy: &str) -> Result<Option<i64>, RetainError> {
        self.with(|db| {
            db.query_row(
                "SELECT due FROM segments_due WHERE segment = ?1 AND policy = ?2",
                params![number(segment), policy],
                |row| row.get(0),
            )
            .optional()
        })
    }

    pub(super) fn set_due(&self, segment: u64, policy: &str, due: i64) -> Result<(), RetainError> {
        self.with(|db| {
            db.execute(
                "INSERT INTO segments_due (segment, policy, due) VALUES (?1, ?2, ?3)
                 ON CONFLICT (segment) DO UPDATE SET policy = excluded.policy, due = excluded.due",
                params![number(segment), policy, due],
            )
            .map(|_| ())
        })
    }

    /// The segment is about to lose events: until it is clean again, the index may have them.
    pub(super) fn set_dirty(&self, segment: u64) -> Result<(), RetainError> {
        self.with(|db| {
            db.execute(
                "INSERT OR IGNORE INTO segments_dirty (segment) VALUES (?1)",
                [number(segment)],
            )
            .map(|_| ())
        })
    }

    pub(super) fn dirty(&self) -> Result<Vec<u64>, RetainError> {
        self.with(|db| {
            let mut select = db.prepare_cached("SELECT segment FROM segments_dirty")?;
            let rows = select.query_map([], |row| row.get::<_, i64>(0))?;
            rows.map(|row| Ok(u64::try_from(row?).unwrap_or_default())).collect()
        })
    }

    pub(super) fn set_clean(&self, segments: &[u64]) -> Result<(), RetainError> {
        self.with(|db| {
            for segment in segments {
                db.execute("DELETE FROM segments_dirty WHERE segment = ?1", [number(*segment)])?;
            }
            Ok(())
        })
    }

    /// Segments that were restored from the archive: they are not expired until released.
    pub(super) fn restored(&self) -> Result<Vec<u64>, RetainError> {
        self.with(|db| {
            let mut select =
                db.prepare_cached("SELECT segment FROM segments_restored ORDER BY segment")?;
            let rows = select.query_map([], |row| row.get::<_, i64>(0))?;
            rows.map(|row| Ok(u64::try_from(row?).unwrap_or_default())).collect()
        })
    }

    pub(super) fn set_restored(&self, segment: u64, now: Timestamp) -> Result<(), RetainError> {
        self.with(|db| {
            db.execute(
                "INSERT OR REPLACE INTO segments_restored (segment, restored) VALUES (?1, ?2)",
                params![number(segment), now.to_string()],
            )?;
            db.execute("DELETE FROM segments_due WHERE segment = ?1", [number(segment)]).map(|_| ())
        })
    }

    /// Restored segments may expire again; gives how many there were.
    pub(super) fn release_restored(&self) -> Result<usize, RetainError> {
        self.with(|db| db.execute("DELETE FROM segments_restored", []))
    }
}

/// What was erased before it was counted by segments stands in the row itself.
const ERASURES: &str = "SELECT id, status, what, what_sha256, salt, reason, asked_by, asked,
    approved_by, approved, done, erased + (SELECT coalesce(sum(count), 0) FROM erasures_told
    WHERE erasure = id AND gone = 1), trouble, matched, archived FROM erasures";

/// The words must not stay in the write-ahead log either.
fn empty_journal(db: &Connection) -> rusqlite::Result<bool> {
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

fn number(segment: u64) -> i64 {
    i64::try_from(segment).unwrap_or(i64::MAX)
}

fn hold_of(row: &Row<'_>) -> rusqlite::Result<HoldRow> {
    Ok(HoldRow {
        id: row.get(0)?,
        name: row.get(1)?,
        q: row.get(2)?,
        from: row.get(3)?,
        to: row.get(4)?,
        reason: row.get(5)?,
        by: row.get(6)?,
        created: row.get(7)?,
        released: row.get(8)?,
        released_by: row.get(9)?,
    })
}

fn erasure_of(row: &Row<'_>) -> rusqlite::Result<ErasureRow> {
    let status: String = row.get(1)?;
    let status = Status::from_name(&status).ok_or_else(|| {
        let what = format!("the status of an erasure is {status:?}");
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, what.into())
    })?;
    let what: Option<String> = row.get(2)?;
    let judged = what.as_deref().filter(|_| status == Status::Asked);
    Ok(ErasureRow {
        id: row.get(0)?,
        status,
        judged: judged.and_then(|text| serde_json::from_str(text).ok()),
        what,
        what_sha256: row.get(3)?,
        salt: row.get(4)?,
        reason: row.get(5)?,
        asked_by: row.get(6)?,
        asked: row.get(7)?,
        approved_by: row.get(8)?,
        approved: row.get(9)?,
        done: row.get(10)?,
        erased: row.get(11)?,
        trouble: row.get(12)?,
        matched: row.get(13)?,
        archived: row.get(14)?,
    })
}
