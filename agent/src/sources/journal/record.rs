//! An entry's envelope: what its fields say of who said it.
//!
//! Fields that begin with an underscore are written by journald itself and cannot be forged;
//! `SYSLOG_IDENTIFIER`, by which packs are chosen, is what the program calls itself (any user can
//! call himself `sshd`). So what journald knows goes into the details: `journal_uid`,
//! `journal_comm`, `journal_exe`, `journal_transport`.

use custody_event::Timestamp;
use custody_journal::{Entry, Field, Filter};
use custody_parsers::Said;

use crate::sources::batch::{Known, SaidBy, Way};

/// The details that are taken from `_UID`, `_COMM`, `_EXE` and `_TRANSPORT`.
const TRUSTED: [&str; 4] = ["journal_uid", "journal_comm", "journal_exe", "journal_transport"];

/// The fields that make the envelope, found in one pass. Of several values the first counts; what is
/// empty or not text is not there.
#[derive(Debug, Default)]
pub(super) struct Fields<'e> {
    message: &'e [u8],
    unit: Option<&'e str>,
    identifier: Option<&'e str>,
    /// As [`TRUSTED`] names them.
    trusted: [Option<&'e str>; 4],
    kind: Option<&'e str>,
    host: Option<&'e str>,
    pid: Option<&'e str>,
    said_pid: Option<&'e str>,
    sent: Option<&'e str>,
    facility: Option<&'e str>,
    severity: Option<&'e str>,
}

impl<'e> Fields<'e> {
    pub(super) fn of(entry: &'e Entry) -> Self {
        let mut fields = Self::default();
        let mut last: &[u8] = &[];
        for Field { name, value } in entry.fields() {
            // Several values of one name stand one after the other.
            if name != last {
                fields.put(name, value);
                last = name;
            }
        }
        fields
    }

    fn put(&mut self, name: &[u8], value: &'e [u8]) {
        let place = match name {
            b"MESSAGE" => {
                self.message = value;
                return;
            }
            b"_SYSTEMD_UNIT" => &mut self.unit,
            b"SYSLOG_IDENTIFIER" => &mut self.identifier,
            b"_UID" => &mut self.trusted[0],
            b"_COMM" => &mut self.trusted[1],
            b"_EXE" => &mut self.trusted[2],
            b"_TRANSPORT" => &mut self.trusted[3],
            b"MESSAGE_ID" => &mut self.kind,
            b"_HOSTNAME" => &mut self.host,
            b"_PID" => &mut self.pid,
            b"SYSLOG_PID" => &mut self.said_pid,
            b"_SOURCE_REALTIME_TIMESTAMP" => &mut self.sent,
            b"SYSLOG_FACILITY" => &mut self.facility,
            b"PRIORITY" => &mut self.severity,
            _ => return,
        };
        *place = std::str::from_utf8(value).ok().filter(|text| !text.is_empty());
    }

    fn service(&self) -> Option<&'e str> {
        let [_uid, comm, ..] = self.trusted;
        self.identifier.or(comm)
    }

    /// Who spoke, if it is not this one (mostly the same process speaks again and again).
    pub(super) fn other_way(&self, way: &Way) -> Option<Way> {
        let details =
            || TRUSTED.iter().zip(self.trusted).filter_map(|(key, text)| Some((*key, text?)));
        let known = way.details.iter().map(|(key, text)| (key.as_str(), text.as_str()));
        let is_same = way.unit.as_deref() == self.unit
            && way.service.as_deref() == self.service()
            && known.eq(details());
        (!is_same).then(|| Way {
            unit: self.unit.map(str::to_owned),
            service: self.service().map(str::to_owned),
            details: details().map(|(key, text)| (key.to_owned(), text.to_owned())).collect(),
            ..Way::default()
        })
    }

    /// What the entry's own fields say.
    pub(super) fn known(&self, entry: &Entry) -> Known {
        // The record has the bytes as they are.
        let message = String::from_utf8_lossy(self.message);
        let said = SaidBy::of(&Said {
            message: &message,
            kind: self.kind,
            time: Some(self.time(entry)),
            host: self.host,
            service: self.service(),
            pid: self.pid.or(self.said_pid),
            priority: self.priority(),
        });
        Known { cursor: Some(entry.cursor_text().to_owned()), said: Some(said), ..Known::default() }
    }

    /// When it was sent, as the kernel or journald noted it; else when journald received it.
    fn time(&self, entry: &Entry) -> Timestamp {
        let sent = self.sent.and_then(|text| text.parse().ok());
        Timestamp::from_micros(
            sent.unwrap_or_else(|| i64::try_from(entry.cursor().realtime_us).unwrap_or(i64::MAX)),
        )
    }

    /// Facility × 8 + severity, where both are known.
    fn priority(&self) -> Option<u8> {
        let facility: u8 = self.facility?.parse().ok()?;
        let severity: u8 = self.severity?.parse().ok()?;
        (facility < 24 && severity < 8).then_some(facility * 8 + severity)
    }
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
        let fields = Fields::of(&entry);
        let (way, known) = (fields.other_way(&Way::default()).unwrap(), fields.known(&entry));
        assert_eq!(fields.other_way(&way), None);
        assert_eq!(
            (way.unit.as_deref(), way.service.as_deref()),
            (Some("ssh.service"), Some("sshd"))
        );
        assert!(way.details.contains(&("journal_comm".into(), "sshd-session".into())));
        let said = known.said.as_ref().unwrap().said();
        assert_eq!((said.message, said.pid), ("hello", Some("12")));
        assert_eq!((said.host, said.priority), (Some("web1"), Some(38)));
        assert_eq!(said.time, Some(Timestamp::from_micros(1_000)));
        assert_eq!(known.cursor.as_deref(), Some(CURSOR));
    }

    #[test]
    fn a_native_entry_without_syslogs_fields_is_named_by_its_process() {
        let entry = entry(&["_COMM=app", "MESSAGE=x"]);
        let fields = Fields::of(&entry);
        let (way, known) = (fields.other_way(&Way::default()).unwrap(), fields.known(&entry));
        let said = known.said.as_ref().unwrap().said();
        assert_eq!((way.service.as_deref(), said.priority), (Some("app"), None));
        assert_eq!(said.time, Some(Timestamp::from_micros(7)));
    }

    #[test]
    fn of_several_values_the_first_counts_and_what_is_empty_is_not_there() {
        let entry = entry(&["_COMM=", "SYSLOG_IDENTIFIER=b", "SYSLOG_IDENTIFIER=a", "MESSAGE=x"]);
        let way = Fields::of(&entry).other_way(&Way::default()).unwrap();
        assert_eq!((way.service.as_deref(), way.details.len()), (Some("a"), 0));
        // Another process has another way.
        let other = self::entry(&["SYSLOG_IDENTIFIER=a", "_UID=7"]);
        let details = Fields::of(&other).other_way(&way).unwrap().details;
        assert_eq!(details, [("journal_uid".to_owned(), "7".to_owned())]);
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
