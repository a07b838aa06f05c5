//! Numbers for Prometheus: a table of metrics, each with how it is filled, written in the text exposition format (0.0.4).
//!
//! One table gives the page that is scraped and the page of the reference: a metric that is not described does not exist.
//! Values are whole numbers or exact fractions of a second; there is no floating point here.

use std::fmt::Write;

/// The content type of [`page`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a number may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and begins anew with the process.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A metric and how it is filled from `T`.
pub struct Metric<T: ?Sized> {
    /// `custody_agent_…`, with its unit last; counters end in `_total`.
    pub name: &'static str,
    /// What it may do.
    pub kind: Kind,
    /// One sentence without a full stop.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Writes its samples.
    pub fill: fn(&T, &mut Samples<'_>),
}

/// One row of a table of metrics.
pub const fn row<T: ?Sized>(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    fill: fn(&T, &mut Samples<'_>),
) -> Metric<T> {
    Metric { name, kind, help, labels, fill }
}

/// Where the samples of one metric are written.
pub struct Samples<'a> {
    out: &'a mut String,
    name: &'static str,
    labels: &'static [&'static str],
}

impl Samples<'_> {
    /// A whole number. `values` are those of the labels, in their order.
    pub fn whole(&mut self, values: &[&str], number: u64) {
        self.line(values, |out| write!(out, "{number}"));
    }

    /// A time or a span of time, in microseconds; shown in seconds.
    pub fn seconds(&mut self, values: &[&str], micros: i64) {
        let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
        let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
        self.line(values, |out| write!(out, "{sign}{whole}.{rest:06}"));
    }

    /// One or nought.
    pub fn yes(&mut self, values: &[&str], yes: bool) {
        self.whole(values, u64::from(yes));
    }

    fn line(&mut self, values: &[&str], value: impl FnOnce(&mut String) -> std::fmt::Result) {
        self.out.push_str(self.name);
        for (number, (label, text)) in self.labels.iter().zip(values).enumerate() {
            self.out.push(if number == 0 { '{' } else { ',' });
            self.out.push_str(label);
            self.out.push_str("=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
        }
        if !self.labels.is_empty() && !values.is_empty() {
            self.out.push('}');
        }
        self.out.push(' ');
        if value(self.out).is_err() {
            // Writing into a text does not fail.
            self.out.push('0');
        }
        self.out.push('\n');
    }
}

/// The page that Prometheus reads.
pub fn page<T: ?Sized>(table: &[Metric<T>], from: &T) -> String {
    let mut out = String::with_capacity(8192);
    for metric in table {
        let (name, kind) = (metric.name, metric.kind.word());
        for part in ["# HELP ", name, " ", metric.help, "\n# TYPE ", name, " ", kind, "\n"] {
            out.push_str(part);
        }
        (metric.fill)(from, &mut Samples { out: &mut out, name, labels: metric.labels });
    }
    out
}

/// The rows of the reference: name, kind, labels, meaning.
pub fn reference<T: ?Sized>(table: &[Metric<T>]) -> String {
    let mut out = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in table {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = [
            "| `",
            metric.name,
            "` | ",
            metric.kind.word(),
            " | ",
            &labels.join(", "),
            " | ",
            metric.help,
            " |\n",
        ];
        out.push_str(&row.concat());
    }
    out
}

/// What the kernel says of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Resident memory.
    pub resident_bytes: u64,
    /// Processor time, user and system.
    pub cpu_micros: i64,
    /// Open file descriptors.
    pub open_fds: u64,
}

impl Process {
    /// Now; noughts where `/proc` cannot be read.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = resident
            .and_then(|text| text.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            resident_bytes: kib.saturating_mul(1024),
            cpu_micros: cpu_micros(&stat).unwrap_or_default(),
            open_fds: u64::try_from(open).unwrap_or(u64::MAX),
        }
    }
}

/// Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second on every Linux; the second field may hold spaces.
fn cpu_micros(stat: &str) -> Option<i64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: i64 = fields.next()?.parse().ok()?;
    let system: i64 = fields.next()?.parse().ok()?;
    user.checked_add(system)?.checked_mul(10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Metric<(u64, &str)>] = &[
        Metric {
            name: "x_total",
            kind: Kind::Counter,
            help: "Things",
            labels: &["of"],
            fill: |(count, name), samples| samples.whole(&[name], *count),
        },
        Metric {
            name: "x_seconds",
            kind: Kind::Gauge,
            help: "How long",
            labels: &[],
            fill: |_, samples| samples.seconds(&[], -1_500_000),
        },
    ];

    #[test]
    fn labels_cannot_break_out_of_their_line() {
        let page = page(TABLE, &(7, "a\"b\\c\nd"));
        assert_eq!(
            page,
            "# HELP x_total Things\n# TYPE x_total counter\nx_total{of=\"a\\\"b\\\\c\\nd\"} 7\n\
             # HELP x_seconds How long\n# TYPE x_seconds gauge\nx_seconds -1.500000\n"
        );
        assert!(reference(TABLE).contains("| `x_total` | counter | `of` | Things |"));
    }

    #[test]
    fn the_kernel_s_numbers_are_read_past_any_program_name() {
        let stat = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0";
        assert_eq!(cpu_micros(stat), Some(2_000_000));
        let now = Process::now();
        assert!(now.resident_bytes > 0 && now.open_fds > 0, "{now:?}");
    }
}
