//! `custody-agent top`: the running agent, live. Asks the admin socket once a second and draws; q ends it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use custody_config::shell::{Exit, Failure};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Table};

use super::{ConfigArgs, print, status};
use crate::status::Status;

const EVERY: Duration = Duration::from_secs(1);

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sudo custody-agent top\n\nKeys: q ends it.")]
pub(super) struct TopArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The agent's socket (default: as the configuration says).
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// What is drawn.
#[derive(Debug, Default)]
struct Screen {
    now: Option<Status>,
    /// The answer before, for speeds.
    before: Option<Status>,
    /// Why there is no newer answer.
    trouble: Option<String>,
}

pub(super) fn run(args: &TopArgs) -> anyhow::Result<Exit> {
    let socket = status::socket(args.socket.as_ref(), &args.config)?;
    let mut screen = Screen::default();
    screen.take(status::ask(&socket));
    if let (None, Some(why)) = (&screen.now, &screen.trouble) {
        let what = format!(
            "no agent answers at {} (is it running? systemctl status custody-agent)",
            socket.display()
        );
        return Err(Failure::because(Exit::Io, what, why.clone()).into());
    }
    let mut terminal = ratatui::try_init()?;
    let ended = (|| -> std::io::Result<()> {
        loop {
            terminal.draw(|frame| screen.draw(frame))?;
            if event::poll(EVERY)? {
                if is_end(&event::read()?) {
                    return Ok(());
                }
                continue;
            }
            screen.take(status::ask(&socket));
        }
    })();
    ratatui::try_restore()?;
    ended?;
    Ok(Exit::Good)
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

impl Screen {
    fn take(&mut self, answer: std::io::Result<String>) {
        let read = answer.map_err(|error| error.to_string()).and_then(|text| {
            serde_json::from_str::<Status>(&text).map_err(|error| error.to_string())
        });
        match read {
            Ok(status) => {
                self.before = self.now.replace(status);
                self.trouble = None;
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let Some(status) = &self.now else { return };
        let troubles = self.troubles(status);
        let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).saturating_add(3);
        let [head, sources, spool, outputs, below] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(rows(status.sources.len())),
            Constraint::Length(3),
            Constraint::Length(rows(status.outputs.len())),
            Constraint::Min(1),
        ])
        .areas(frame.area());
        let first = format!(
            "custody-agent {}  {}  on {}  since {}  config {:.12}",
            status.version, status.state, status.host, status.started, status.config_sha256
        );
        frame.render_widget(Paragraph::new(first).style(bold()), head);
        self.sources(status, frame, sources);
        spool_gauge(status, frame, spool);
        outputs_table(status, frame, outputs);
        let lines: Vec<Line<'_>> = troubles.iter().map(|line| Line::raw(line.as_str())).collect();
        frame.render_widget(Paragraph::new(lines).style(Style::new().fg(Color::Yellow)), below);
    }

    fn troubles(&self, status: &Status) -> Vec<String> {
        let mut lines: Vec<String> =
            self.trouble.iter().map(|why| format!("no answer: {why}")).collect();
        lines.extend(status.config_trouble.iter().map(|why| format!("reload refused: {why}")));
        lines.extend(status.spool.waiting.iter().map(|why| format!("spool: {why}")));
        for source in &status.sources {
            lines.extend(source.trouble.iter().map(|why| format!("{}: {why}", source.id)));
        }
        for output in &status.outputs {
            lines.extend(output.trouble.iter().map(|why| format!("{}: {why}", output.id)));
        }
        lines
    }

    /// Records a second, by source; none before there are two answers of one run.
    fn speeds(&self, status: &Status) -> HashMap<String, u64> {
        let Some(before) = self.before.as_ref().filter(|before| before.started == status.started)
        else {
            return HashMap::new();
        };
        let micros = u64::try_from(status.now.micros() - before.now.micros()).unwrap_or(0).max(1);
        let earlier = |id: &str| before.sources.iter().find(|source| source.id == id);
        let speed = |source: &crate::status::SourceStatus| {
            let read =
                source.since_start.read.saturating_sub(earlier(&source.id)?.since_start.read);
            Some((source.id.clone(), read.saturating_mul(1_000_000) / micros))
        };
        status.sources.iter().filter_map(speed).collect()
    }

    fn sources(&self, status: &Status, frame: &mut Frame<'_>, area: Rect) {
        let speeds = self.speeds(status);
        let rows = status.sources.iter().map(|source| {
            let counts = source.since_start;
            let speed = speeds.get(&source.id).map_or_else(|| "-".to_owned(), u64::to_string);
            let row = Row::new([
                source.id.clone(),
                source.kind.clone(),
                speed,
                counts.read.to_string(),
                counts.stored.to_string(),
                counts.filtered.to_string(),
                counts.unmatched.to_string(),
                counts.gaps.to_string(),
                print::bytes(source.behind_bytes),
            ]);
            if source.trouble.is_some() { row.style(Style::new().fg(Color::Yellow)) } else { row }
        });
        let widths = [16, 8, 9, 12, 12, 10, 10, 6, 11].map(Constraint::Length);
        let head = [
            "source",
            "type",
            "read/s",
            "read",
            "stored",
            "filtered",
            "unmatched",
            "gaps",
            "behind",
        ];
        frame.render_widget(table(rows, widths, head, "sources"), area);
    }
}

fn outputs_table(status: &Status, frame: &mut Frame<'_>, area: Rect) {
    let rows = status.outputs.iter().map(|output| {
        let colour = match output.state.as_str() {
            "delivering" => Color::Green,
            "refused" => Color::Red,
            _ => Color::Yellow,
        };
        Row::new([
            Cell::from(output.id.clone()),
            Cell::from(output.state.clone()).style(Style::new().fg(colour)),
            Cell::from(output.lag_blocks.to_string()),
            Cell::from(output.next_seq.to_string()),
            Cell::from(output.failures.to_string()),
            Cell::from(output.last_ack.map_or_else(|| "never".to_owned(), |at| at.to_string())),
            Cell::from(output.endpoint.clone()),
        ])
    });
    let widths = [16, 11, 8, 10, 9, 28, 40].map(Constraint::Length);
    let head = ["output", "state", "behind", "next", "failures", "last acknowledged", "endpoint"];
    frame.render_widget(table(rows, widths, head, "outputs"), area);
}

fn table<'a, const N: usize>(
    rows: impl Iterator<Item = Row<'a>>,
    widths: [Constraint; N],
    head: [&'a str; N],
    title: &'a str,
) -> Table<'a> {
    Table::new(rows, widths)
        .header(Row::new(head).style(bold()))
        .block(Block::bordered().title(title))
}

fn spool_gauge(status: &Status, frame: &mut Frame<'_>, area: Rect) {
    let spool = &status.spool;
    let percent =
        spool.bytes.saturating_mul(100).checked_div(spool.max_bytes).unwrap_or(0).min(100);
    let label = format!(
        "{} blocks, {} of {}; {} free on disk",
        spool.blocks,
        print::bytes(spool.bytes),
        print::bytes(spool.max_bytes),
        print::bytes(spool.free_bytes)
    );
    let colour = if spool.waiting.is_some() { Color::Red } else { Color::Blue };
    let gauge = Gauge::default()
        .block(Block::bordered().title("spool"))
        .gauge_style(Style::new().fg(colour))
        .percent(u16::try_from(percent).unwrap_or(100))
        .label(label);
    frame.render_widget(gauge, area);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn status(second: u32, read: u64) -> String {
        serde_json::json!({
            "version": "1", "agent": "a", "host": "web1", "host_id": "h", "stream": "s", "pid": 1,
            "started": "2026-01-01T00:00:00.000000Z", "now": format!("2026-01-01T00:00:{second:02}.000000Z"),
            "state": "running", "config_path": "/etc/x", "config_sha256": "00", "in_flight_bytes": 0,
            "sources": [{"id": "auth", "type": "file", "files": 1, "behind_bytes": 2048,
                "since_start": {"read": read, "stored": read, "filtered": 0, "unmatched": 0, "gaps": 0},
                "book": custody_event::SourceBook::default(), "trouble": "cannot read /var/log/x"}],
            "spool": crate::status::SpoolStatus { bytes: 1 << 20, max_bytes: 1 << 22, blocks: 3, ..Default::default() },
            "outputs": [{"id": "central", "state": "waiting", "endpoint": "https://c", "next_seq": 1, "lag_blocks": 2,
                "last_ack": null, "trouble": "connection refused", "retry_at": null, "failures": 7}],
        })
        .to_string()
    }

    #[test]
    fn the_screen_shows_speeds_troubles_and_how_full_the_spool_is() {
        let mut screen = Screen::default();
        screen.take(Ok(status(1, 100)));
        screen.take(Ok(status(3, 700)));
        screen.take(Err(std::io::Error::other("gone")));
        let mut terminal = Terminal::new(TestBackend::new(120, 24)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let shown = terminal.backend().to_string();
        for part in [
            "300",
            "700",
            "2.0 KiB",
            "3 blocks, 1.0 MiB of 4.0 MiB",
            "waiting",
            "no answer: gone",
            "central: connection refused",
            "auth: cannot read /var/log/x",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}
