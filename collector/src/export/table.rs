//! Exports and schedules as `collector.db` keeps them.
//!
//! A connection of its own: SQLite orders the writers, and what exports write (once in two
//! seconds) keeps nobody waiting.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use custody_event::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::schedule::{Plan, Schedule};
use super::{ExportError, MAX_HISTORY, Progress, Row, Status, Told};
use crate::access;

const COLUMNS: &str = "id, created, created_by, status, spec, told";

/// See the module.
pub(super) struct Table {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// A line of the table before its JSON is read.
type Raw = (String, i64, String, String, String, String);

fn raw(row: &rusqlite::Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, ExportError> {
    serde_json::from_str(text).map_err(|error| ExportError::Table(error.to_string()))
}

fn write(value: &impl Serialize) -> Result<String, ExportError> {
    serde_json::to_string(value).map_err(|error| ExportError::Table(error.to_string()))
}

fn row_of((id, created, created_by, status, spec, told): Raw) -> Result<Row, ExportError> {
    let status = Status::from_name(&status)
        .ok_or_else(|| ExportError::Table(format!("the status {status:?} is not known")))?;
    let created = Timestamp::from_micros(created);
    Ok(Row { id, created, created_by, status, spec: read(&spec)?, told: read(&told)? })
}

fn insert(to: &Connection, row: &Row) -> Result<rusqlite::Result<usize>, ExportError> {
    let (spec, told) = (write(&row.spec)?, write(&row.told)?);
    Ok(to.execute(
        "INSERT INTO exports (id, created, created_by, status, spec, told)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![row.id, row.created.micros(), row.created_by, row.status.name(), spec, told],
    ))
}

impl Table {
    /// In this data directory; the room `access` has made the tables.
    pub(super) fn open(data_dir: &Path) -> Result<Self, ExportError> {
        let path = access::database_in(data_dir);
        let opened = access::connect(&path);
        let failed = |source| ExportError::Database { path: path.clone(), source };
        let connection = Mutex::new(opened.map_err(failed)?);
        Ok(Self { path, connection })
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrap<T>(&self, result: rusqlite::Result<T>) -> Result<T, ExportError> {
        result.map_err(|source| ExportError::Database { path: self.path.clone(), source })
    }

    /// What was being made when the process ended waits again.
    pub(super) fn reopen(&self) -> Result<usize, ExportError> {
        let changed =
            self.db().execute("UPDATE exports SET status = 'queued' WHERE status = 'running'", []);
        self.wrap(changed)
    }

    pub(super) fn add(&self, row: &Row) -> Result<(), ExportError> {
        let added = insert(&self.db(), row)?;
        self.wrap(added).map(|_| ())
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> Result<u64, ExportError> {
        let count = self.db().query_row(
            "SELECT count(*) FROM exports WHERE status = 'queued'",
            [],
            |row| row.get::<_, i64>(0),
        );
        self.wrap(count).map(|count| u64::try_from(count).unwrap_or_default())
    }

    /// Takes the one that has waited longest.
    pub(super) fn claim(&self) -> Result<Option<(Row, Option<Progress>)>, ExportError> {
        let db = self.db();
        let found = db
            .query_row(
                "UPDATE exports SET status = 'running' WHERE id =
                     (SELECT id FROM exports WHERE status = 'queued' ORDER BY created, id LIMIT 1)
                 RETURNING id, created, created_by, status, spec, told, progress",
                [],
                |row| Ok((raw(row)?, row.get::<_, Option<String>>(6)?)),
            )
            .optional();
        drop(db);
        let Some((found, progress)) = self.wrap(found)? else { return Ok(None) };
        // Progress that cannot be read is none: the export begins again.
        let progress = progress.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Some((row_of(found)?, progress)))
    }

    /// Writes down how far it is; `false` where somebody has deleted it.
    pub(super) fn progress(
        &self,
        id: &str,
        told: &Told,
        progress: Option<&Progress>,
    ) -> Result<bool, ExportError> {
        let (told, progress) = (write(told)?, progress.map(write).transpose()?);
        let changed = self.db().execute(
            "UPDATE exports SET told = ?2, progress = coalesce(?3, progress) WHERE id = ?1",
            params![id, told, progress],
        );
        Ok(self.wrap(changed)? == 1)
    }

    /// Writes down what came of it; `false` where somebody has deleted it.
    pub(super) fn finish(&self, row: &Row) -> Result<bool, ExportError> {
        let told = write(&row.told)?;
        let changed = self.db().execute(
            "UPDATE exports SET status = ?2, told = ?3, progress = NULL WHERE id = ?1",
            params![row.id, row.status.name(), told],
        );
        Ok(self.wrap(changed)? == 1)
    }

    /// It waits again, with its progress.
    pub(super) fn put_back(&self, id: &str) -> Result<(), ExportError> {
        let changed = self.db().execute("UPDATE exports SET status = 'queued' WHERE id = ?1", [id]);
        self.wrap(changed).map(|_| ())
    }

    pub(super) fn get(&self, id: &str) -> Result<Option<Row>, ExportError> {
        let text = format!("SELECT {COLUMNS} FROM exports WHERE id = ?1");
        let found = self.db().query_row(&text, [id], raw).optional();
        self.wrap(found)?.map(row_of).transpose()
    }

    /// The newest before this place; of one person, or (`None`) of all.
    pub(super) fn list(
        &self,
        whose: Option<&str>,
        before: Option<(Timestamp, &str)>,
        limit: usize,
    ) -> Result<Vec<Row>, ExportError> {
        let (at, id) = before.unwrap_or((Timestamp::MAX, "~"));
        let text = format!(
            "SELECT {COLUMNS} FROM exports
             WHERE (?1 IS NULL OR created_by = ?1) AND (created, id) < (?2, ?3)
             ORDER BY created DESC, id DESC LIMIT ?4"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let db = self.db();
        let read = || -> rusqlite::Result<Vec<Raw>> {
            let mut select = db.prepare_cached(&text)?;
            select.query_map(params![whose, at.micros(), id, limit], raw)?.collect()
        };
        let found = read();
        drop(db);
        self.wrap(found)?.into_iter().map(row_of).collect()
    }

    /// Completed ones.
    pub(super) fn completed(&self) -> Result<Vec<Row>, ExportError> {
        let text = format!("SELECT {COLUMNS} FROM exports WHERE status = 'completed'");
        let db = self.db();
        let read = || -> rusqlite::Result<Vec<Raw>> {
            db.prepare_cached(&text)?.query_map([], raw)?.collect()
        };
        let found = read();
        drop(db);
        self.wrap(found)?.into_iter().map(row_of).collect()
    }

    pub(super) fn remove(&self, id: &str) -> Result<bool, ExportError> {
        let changed = self.db().execute("DELETE FROM exports WHERE id = ?1", [id]);
        Ok(self.wrap(changed)? == 1)
    }

    /// Forgets the oldest that have no file.
    pub(super) fn prune(&self) -> Result<usize, ExportError> {
        let keep = i64::try_from(MAX_HISTORY).unwrap_or(i64::MAX);
        let changed = self.db().execute(
            "DELETE FROM exports WHERE status IN ('failed', 'expired') AND id IN
                 (SELECT id FROM exports ORDER BY created DESC, id DESC LIMIT -1 OFFSET ?1)",
            [keep],
        );
        self.wrap(changed)
    }

    /// Which of these ids are not in the table.
    pub(super) fn knows(&self, id: &str) -> Result<bool, ExportError> {
        let found =
            self.db().query_row("SELECT 1 FROM exports WHERE id = ?1", [id], |_| Ok(())).optional();
        Ok(self.wrap(found)?.is_some())
    }

    pub(super) fn add_schedule(&self, schedule: &Schedule) -> Result<(), ExportError> {
        let plan = write(&schedule.plan)?;
        let added = self.db().execute(
            "INSERT INTO schedules (id, created, created_by, next, spec) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                schedule.id,
                schedule.created.micros(),
                schedule.created_by,
                schedule.next.micros(),
                plan
            ],
        );
        self.wrap(added).map(|_| ())
    }

    pub(super) fn schedules(&self) -> Result<Vec<Schedule>, ExportError> {
        type Line = (String, i64, String, i64, String);
        let db = self.db();
        let read = || -> rusqlite::Result<Vec<Line>> {
            let mut select = db.prepare_cached(
                "SELECT id, created, created_by, next, spec FROM schedules ORDER BY created, id",
            )?;
            let line = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            select.query_map([], line)?.collect()
        };
        let found = read();
        drop(db);
        let schedule = |(id, created, created_by, next, plan): Line| {
            let plan: Plan = self::read(&plan)?;
            let (created, next) = (Timestamp::from_micros(created), Timestamp::from_micros(next));
            Ok(Schedule { id, created, created_by, next, plan })
        };
        self.wrap(found)?.into_iter().map(schedule).collect()
    }

    /// Writes a schedule's plan down; `false` where the schedule is gone.
    pub(super) fn put_plan(&self, schedule: &Schedule) -> Result<bool, ExportError> {
        let plan = write(&schedule.plan)?;
        let changed = self
            .db()
            .execute("UPDATE schedules SET spec = ?2 WHERE id = ?1", params![schedule.id, plan]);
        Ok(self.wrap(changed)? == 1)
    }

    pub(super) fn remove_schedule(&self, id: &str) -> Result<bool, ExportError> {
        let changed = self.db().execute("DELETE FROM schedules WHERE id = ?1", [id]);
        Ok(self.wrap(changed)? == 1)
    }

    /// Runs of a schedule and when it is due next, both or neither; nothing where the schedule
    /// is gone or was run by another.
    pub(super) fn run_schedule(
        &self,
        schedule: &Schedule,
        runs: &[Row],
        next: Timestamp,
    ) -> Result<bool, ExportError> {
        let mut db = self.db();
        let begun = db.transaction();
        let all: Transaction<'_> = self.wrap(begun)?;
        let moved = all.execute(
            "UPDATE schedules SET next = ?3 WHERE id = ?1 AND next = ?2",
            params![schedule.id, schedule.next.micros(), next.micros()],
        );
        if self.wrap(moved)? == 0 {
            return Ok(false);
        }
        for run in runs {
            let added = insert(&all, run)?;
            self.wrap(added)?;
        }
        let done = all.commit();
        self.wrap(done).map(|()| true)
    }
}
