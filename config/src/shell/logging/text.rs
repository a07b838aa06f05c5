//! One record as one line of text.

use std::fmt::Write;

use custody_event::Timestamp;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

/// `2026-11-21T12:00:00.000000Z WARN  message key=value other="two words"` and a line feed.
pub(super) fn line(now: Timestamp, record: &Record<'_>, colour: bool) -> String {
    let level = record.level();
    let mut line = format!("{now} ");
    if colour {
        line.push_str(paint(level));
    }
    push(&mut line, format_args!("{level:<5}"));
    if colour {
        line.push_str("\x1b[0m");
    }
    line.push(' ');
    escape_into(&mut line, &record.args().to_string(), false);
    let mut fields = Fields(&mut line);
    if record.key_values().visit(&mut fields).is_err() {
        line.push_str(" (a field could not be shown)");
    }
    line.push('\n');
    line
}

const fn paint(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[1;31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug | Level::Trace => "\x1b[2m",
    }
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string();
        self.0.push(' ');
        escape_into(self.0, key.as_str(), true);
        self.0.push('=');
        let quoted =
            value.is_empty() || value.contains([' ', '=', '"']) || value.contains(char::is_control);
        if quoted {
            self.0.push('"');
        }
        escape_into(self.0, &value, quoted);
        if quoted {
            self.0.push('"');
        }
        Ok(())
    }
}

/// Control characters become escapes: a value that was read from a log must not begin a line of its own or steer a terminal.
fn escape_into(line: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        if c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}')
            || (quotes && matches!(c, '"' | '\\'))
        {
            push(line, format_args!("{}", c.escape_default()));
        } else {
            line.push(c);
        }
    }
}

fn push(line: &mut String, text: std::fmt::Arguments<'_>) {
    let written = line.write_fmt(text);
    debug_assert!(written.is_ok(), "a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str, fields: &[(&str, &str)], colour: bool) -> String {
        let now = Timestamp::from_micros(1_763_726_400_000_000);
        line(
            now,
            &Record::builder()
                .level(Level::Warn)
                .args(format_args!("{message}"))
                .key_values(&fields)
                .build(),
            colour,
        )
    }

    #[test]
    fn a_line_holds_time_level_message_and_fields() {
        assert_eq!(
            shown("cannot read", &[("path", "/var/log/a.log"), ("error", "No such file")], false),
            "2025-11-21T12:00:00.000000Z WARN  cannot read path=/var/log/a.log error=\"No such file\"\n"
        );
        assert!(shown("x", &[], true).contains("\x1b[33mWARN \x1b[0m x"));
    }

    #[test]
    fn a_value_from_a_log_cannot_forge_a_line_or_steer_a_terminal() {
        let line =
            shown("bad\nERROR forged", &[("user", "a\n2025 ERROR \x1b[2J\"x\" \u{2028}")], false);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\x1b'));
        assert!(line.contains(r#"user="a\n2025 ERROR \u{1b}[2J\"x\" \u{2028}""#), "{line}");
        assert_eq!(
            shown("m", &[("empty", "")], false).trim_end().rsplit(' ').next(),
            Some("empty=\"\"")
        );
    }
}
