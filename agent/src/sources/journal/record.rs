//! An entry's envelope: what its fields say of who said it.
//!
//! Fields that begin with an underscore are written by journald itself and cannot be forged;
//! `SYSLOG_IDENTIFIER`, by which packs are chosen, is what the program calls itself (any user can
//! call himself `sshd`). So what journald knows goes into the details: `journal_uid`,
//! `journal_comm`, `journal_exe`, `journal_transport`.

use custody_event::Timestamp;
use custody_journal::{Entry, Filter};

use crate::sources::batch::{Known, SaidBy, Way};

/// Detail, and the trusted field that it is taken from.
const TRUSTED: [(&str, &str); 4] = [
    ("journal_uid", "_UID"),
    ("journal_comm", "_COMM"),
    ("journal_exe", "_EXE"),
    ("journal_transport", "_TRANSPORT"),
];

/// What is known of an entry beside its record.
pub(super) fn envelope(entry: &Entry, mark: Vec<u8>) -> (Way, Known) {
    let text = |name: &str| entry.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let service = text("SYSLOG_IDENTIFIER").or_else(|| text("_COMM"));
    let details = TRUSTED.iter().filter_map(|(key, field)| Some(((*key).to_owned(), text(field)?)));
    let way = Way {
        unit: text("_SYSTEMD_UNIT"),
        service: service.clone(),
        details: details.collect(),
        ..Way::default()
    };
    let message = entry.get("MESSAGE").unwrap_or_default();
    let said = SaidBy {
        // The record has the bytes as they are.
        message: String::from_utf8_lossy(message).into_owned(),
        kind: text("MESSAGE_ID"),
        time: Some(time(entry)),
        host: text("_HOSTNAME"),
        service,
        pid: text("_PID").or_else(|| text("SYSLOG_PID")),
        priority: priority(entry),
    };
    let known = Known {
        delivery: None,
        cursor: Some(entry.cursor_text().to_owned()),
        said: Some(said),
        mark: Some(mark),
    };
    (way, known)
}

/// When it was sent, as the kernel or journald noted it; else when journald received it.
fn time(entry: &Entry) -> Timestamp {
    let sent = entry.text("_SOURCE_REALTIME_TIMESTAMP").and_then(|text| text.parse().ok());
    Timestamp::from_micros(
        sent.unwrap_or_else(|| i64::try_from(entry.cursor().realtime_us).unwrap_or(i64::MAX)),
    )
}

/// Facility × 8 + severity, where both are known.
fn priority(entry: &Entry) -> Option<u8> {
    let facility: u8 = entry.text("SYSLOG_FACILITY")?.parse().ok()?;
    let severity: u8 = entry.text("PRIORITY")?.parse().ok()?;
    (facility < 24 && severity < 8).then_some(facility * 8 + severity)
}

/// A filter in words that are the same for the same choice.
pub(super) fn choice(filter: &Filter) -> String {
    let mut lists = [filter.units.clone(), filter.identifiers.clone()];
    lists.iter_mut().for_each(|list| list.sort());
    let mut boots = filter.boots.clone();
    boots.sort();
    format!("{lists:?} {:?} {boots:?}", filter.priority_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: &str =
        "s=89faf26c707845e7a3d23e6cffabb835;i=1f;b=11669cd101054595abafa3633fe713c1;m=5;t=7;x=85";

    fn entry(fields: &[&str]) -> Entry {
        let mut entry = Entry::default();
        entry.begin(CURSOR).unwrap();
        fields.iter().for_each(|field| entry.add(field.as_bytes()));
        entry.finish();
        entry
    }

    #[test]
    fn the_envelope_is_what_the_fields_say() {
        let entry = entry(&[
            "MESSAGE=hello",
            "SYSLOG_IDENTIFIER=sshd",
            "_COMM=sshd-session",
            "_PID=12",
            "SYSLOG_PID=99",
            "_HOSTNAME=web1",
            "_SYSTEMD_UNIT=ssh.service",
            "PRIORITY=6",
            "SYSLOG_FACILITY=4",
            "_SOURCE_REALTIME_TIMESTAMP=1000",
            "_UID=0",
        ]);
        let (way, known) = envelope(&entry, b"m".to_vec());
        assert_eq!(
            (way.unit.as_deref(), way.service.as_deref()),
            (Some("ssh.service"), Some("sshd"))
        );
        assert!(way.details.contains(&("journal_comm".into(), "sshd-session".into())));
        let said = known.said.unwrap();
        assert_eq!((said.message.as_str(), said.pid.as_deref()), ("hello", Some("12")));
        assert_eq!((said.host.as_deref(), said.priority), (Some("web1"), Some(38)));
        assert_eq!(said.time, Some(Timestamp::from_micros(1_000)));
        assert_eq!(known.cursor.as_deref(), Some(CURSOR));
    }

    #[test]
    fn a_native_entry_without_syslogs_fields_is_named_by_its_process() {
        let (way, known) = envelope(&entry(&["_COMM=app", "MESSAGE=x"]), Vec::new());
        let said = known.said.unwrap();
        assert_eq!((way.service.as_deref(), said.priority), (Some("app"), None));
        assert_eq!(said.time, Some(Timestamp::from_micros(7)));
    }

    #[test]
    fn the_same_choice_in_another_order_is_the_same() {
        let filter = |units: &[&str]| Filter {
            units: units.iter().map(|unit| (*unit).to_owned()).collect(),
            ..Filter::default()
        };
        assert_eq!(choice(&filter(&["a", "b"])), choice(&filter(&["b", "a"])));
        assert_ne!(choice(&filter(&["a"])), choice(&filter(&["b"])));
    }
}
