//! Which entries are wanted.
//!
//! The choice is made here and not by the library's matches, so that every entry's number is seen
//! and a missing one is noticed whatever was asked for.

use crate::{BootId, Entry, Id128};

/// All kinds that are given must be met; of one kind, one is enough. An empty kind is met by all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Units as `systemctl` names them (`ssh.service`; without a suffix a service is meant), with
    /// `*` and `?`. As `journalctl -u`: what the unit's processes said, what systemd said of the
    /// unit, and the core dumps of its processes.
    pub units: Vec<String>,
    /// `SYSLOG_IDENTIFIER`s.
    pub identifiers: Vec<String>,
    /// Highest `PRIORITY` number (7 is debug, 0 an emergency). Entries without one count as 6.
    pub priority_max: Option<u8>,
    /// Boots.
    pub boots: Vec<BootId>,
}

/// Fields that hold a unit's name and may be written only by journald.
const TRUSTED_UNIT: &str = "_SYSTEMD_UNIT";
/// Fields in which systemd and its helpers, as root, name the unit that they speak of.
const SPOKEN_UNITS: [&str; 3] = ["UNIT", "OBJECT_SYSTEMD_UNIT", "COREDUMP_UNIT"];
/// Of an entry without a priority, as journald's other readers have it.
const DEFAULT_PRIORITY: u8 = 6;

impl Filter {
    /// Are all entries wanted?
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Is this entry wanted?
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        (self.boots.is_empty() || self.boots.contains(&entry.cursor().boot))
            && self.priority_max.is_none_or(|max| priority(entry) <= max)
            && (self.identifiers.is_empty() || self.wants_identifier(entry))
            && (self.units.is_empty() || self.wants_unit(entry))
    }

    fn wants_identifier(&self, entry: &Entry) -> bool {
        entry.all("SYSLOG_IDENTIFIER").any(|value| {
            self.identifiers.iter().any(|identifier| glob(identifier.as_bytes(), value))
        })
    }

    fn wants_unit(&self, entry: &Entry) -> bool {
        let wanted = |value: &[u8]| self.units.iter().any(|unit| unit_matches(unit, value));
        if entry.all(TRUSTED_UNIT).any(wanted) {
            return true;
        }
        // Anybody can write these fields; they count only from root, as for journalctl.
        entry.get("_UID") == Some(b"0")
            && SPOKEN_UNITS.iter().any(|name| entry.all(name).any(wanted))
    }
}

fn unit_matches(wanted: &str, unit: &[u8]) -> bool {
    if wanted.contains('.') || wanted.ends_with('*') {
        return glob(wanted.as_bytes(), unit);
    }
    unit.strip_suffix(b".service").is_some_and(|unit| glob(wanted.as_bytes(), unit))
}

fn priority(entry: &Entry) -> u8 {
    match entry.get("PRIORITY") {
        Some([digit @ b'0'..=b'7']) => digit - b'0',
        _ => DEFAULT_PRIORITY,
    }
}

/// `*` is any run of bytes, `?` any byte. Takes time in proportion to both lengths at most.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// A boot as the configuration names it: 32 hexadecimal digits, or `current`.
///
/// # Errors
/// It is neither, or the kernel does not say which boot this is.
pub(crate) fn boot(text: &str) -> Result<BootId, String> {
    let text = match text {
        "current" => std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| format!("the kernel does not say which boot this is: {error}"))?,
        other => other.to_owned(),
    };
    Id128::parse(text.trim()).ok_or_else(|| {
        format!("{text:?} is no boot: write `current` or the 32 digits that `journalctl --list-boots` shows")
    })
}

impl Filter {
    /// Adds a boot: `current`, or 32 hexadecimal digits.
    ///
    /// # Errors
    /// It is neither, or the kernel does not say which boot this is.
    pub fn add_boot(&mut self, text: &str) -> Result<(), String> {
        self.boots.push(boot(text)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::CURSOR;
    use proptest::prelude::*;

    fn entry(fields: &[&str]) -> Entry {
        let mut entry = Entry::default();
        entry.begin(CURSOR).unwrap();
        for field in fields {
            entry.add(field.as_bytes());
        }
        entry.finish();
        entry
    }

    #[test]
    fn a_units_entries_are_its_processes_and_what_root_says_of_it() {
        let filter = Filter { units: vec!["ssh".into()], ..Filter::default() };
        for (fields, is_wanted) in [
            (&["_SYSTEMD_UNIT=ssh.service"][..], true),
            (&["_SYSTEMD_UNIT=ssh.socket"], false),
            (&["UNIT=ssh.service", "_UID=0", "_SYSTEMD_UNIT=init.scope"], true),
            (&["UNIT=ssh.service", "_UID=1000", "_SYSTEMD_UNIT=user@1000.service"], false),
            (&["MESSAGE=ssh.service"], false),
        ] {
            assert_eq!(filter.wants(&entry(fields)), is_wanted, "{fields:?}");
        }
    }

    #[test]
    fn kinds_are_joined_by_and_values_by_or() {
        let filter = Filter {
            units: vec!["web@*.service".into(), "db.service".into()],
            identifiers: vec!["nginx".into()],
            priority_max: Some(4),
            ..Filter::default()
        };
        let wants = |fields: &[&str]| filter.wants(&entry(fields));
        assert!(wants(&["_SYSTEMD_UNIT=web@1.service", "SYSLOG_IDENTIFIER=nginx", "PRIORITY=4"]));
        assert!(!wants(&["_SYSTEMD_UNIT=web@1.service", "SYSLOG_IDENTIFIER=nginx", "PRIORITY=5"]));
        assert!(!wants(&["_SYSTEMD_UNIT=web@1.service", "SYSLOG_IDENTIFIER=nginx"]));
        assert!(!wants(&["_SYSTEMD_UNIT=web.service", "SYSLOG_IDENTIFIER=nginx", "PRIORITY=0"]));
        assert!(!wants(&["_SYSTEMD_UNIT=db.service", "SYSLOG_IDENTIFIER=x", "PRIORITY=0"]));
    }

    #[test]
    fn boots_are_told_apart() {
        let mut filter = Filter::default();
        filter.add_boot("11669cd1-0105-4595-abaf-a3633fe713c1").unwrap();
        assert!(filter.wants(&entry(&[])));
        filter.boots = vec![boot("current").unwrap()];
        assert!(!filter.wants(&entry(&[])));
        assert!(boot("-1").unwrap_err().contains("list-boots"));
    }

    proptest! {
        #[test]
        fn glob_is_what_a_regex_would_say(pattern in "[ab*?]{0,6}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => slow(rest, text) || (!text.is_empty() && slow(pattern, &text[1..])),
                    (Some((p, rest)), Some((t, more))) => (*p == b'?' || p == t) && slow(rest, more),
                    _ => false,
                }
            }
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
