//! What is done with exports, as events of the category `export`.

use custody_event::{Detail, Draft, Field};

use super::describe::Say;

/// Something that was done with an export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportAct {
    /// `export.request`, `export.complete`, `export.download`, `export.delete`, `export.expire`,
    /// `export.proof`, `schedule.create`, `schedule.delete`, `schedule.stop`.
    pub action: &'static str,
    /// `success`, `pending`, `failure`.
    pub outcome: &'static str,
    /// Who did it; empty for the collector itself.
    pub who: String,
    /// The export's or the schedule's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its format.
    pub format: &'static str,
    /// In whose words, where they are not our own.
    pub form: &'static str,
    /// What was asked for.
    pub query: String,
    /// From when, RFC 3339; empty for no bound.
    pub from: String,
    /// Until when.
    pub to: String,
    /// Events in it, where that is known.
    pub records: Option<u64>,
    /// Bytes of the file, or of the part that was fetched.
    pub bytes: Option<u64>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Why it failed, or what is special.
    pub reason: String,
}

pub(super) fn describe<'a>(act: &'a ExportAct, draft: &mut Draft<'a>) -> Say<'a> {
    draft.text(Field::Category, "export");
    draft.text(Field::DataName, act.name.as_str());
    draft.text(Field::DataFormat, act.format);
    draft.text(Field::DataFrom, act.from.as_str());
    draft.text(Field::DataTo, act.to.as_str());
    draft.text(Field::DataVia, "api");
    draft.text(Field::ReasonText, act.reason.as_str());
    for (field, number) in [(Field::DataRecords, act.records), (Field::DataBytes, act.bytes)] {
        if let Some(number) = number {
            draft.int(field, i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
    for (key, text) in
        [("form", act.form), ("query", act.query.as_str()), ("sha256", act.sha256.as_str())]
    {
        if !text.is_empty() {
            draft.detail(key, Detail::Text(text.into()));
        }
    }
    let (op, done) = words(act);
    let who = if act.who.is_empty() { "The collector" } else { &act.who };
    let kind = if act.action.starts_with("schedule") { "schedule" } else { "export" };
    let message = format!("{who} {done} {:?}.", act.name);
    Say {
        outcome: act.outcome,
        severity: if op == "download" { "low" } else { "info" },
        who: (!act.who.is_empty()).then_some(act.who.as_str()),
        target: Some((kind, &act.id)),
        ..Say::new(act.action, op, message)
    }
}

fn words(act: &ExportAct) -> (&'static str, &'static str) {
    match act.action {
        "export.request" => ("export", "asked for the export"),
        "export.complete" if act.outcome == "success" => ("export", "completed the export"),
        "export.complete" => ("export", "could not complete the export"),
        "export.download" => ("download", "fetched the export"),
        "export.proof" => ("download", "fetched the proof of the export"),
        "export.delete" => ("delete", "deleted the export"),
        "export.expire" => ("delete", "removed the file of the expired export"),
        "schedule.create" => ("create", "scheduled the export"),
        "schedule.delete" => ("delete", "ended the scheduled export"),
        "schedule.stop" => ("disable", "stopped the scheduled export"),
        _ => ("other", "did something with the export"),
    }
}
