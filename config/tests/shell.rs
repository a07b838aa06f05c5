//! The daemon shell against the real system: signals, the service manager's socket, standard error, locks.
//!
//! What changes a whole process (signal handlers, loggers, the environment) happens in a child: this same program, started with
//! `CUSTODY_SHELL_CHILD` naming the part to play.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use custody_config::shell::{
    Clock, DataDir, Exit, Failure, Service, Signal, Signals, StopToken, SystemClock, Watchdog,
    check_clock, finish, logging,
};
use custody_config::{Located, Log, Place};
use custody_event::Timestamp;

const PART: &str = "CUSTODY_SHELL_CHILD";
const LONG: Duration = Duration::from_secs(60);

/// Starts this program again to play `part`.
fn child(part: &str, prepare: impl FnOnce(&mut Command)) -> Child {
    let this = std::env::current_exe().expect("our own path");
    let mut command = Command::new(this);
    command.args(["--exact", "plays_its_part", "--nocapture", "--test-threads=1"]).env(PART, part);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"] {
        command.env_remove(name);
    }
    prepare(&mut command);
    command.spawn().expect("started")
}

/// Not a test of its own: the child's side of the tests below.
#[test]
fn plays_its_part() {
    match std::env::var(PART).as_deref() {
        Ok("signals") => play_signals(),
        Ok("service") => play_service(),
        Ok("log") => play_log(),
        Ok("lock") => play_lock(),
        _ => {}
    }
}

/// One line to the parent, now.
fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}").and_then(|()| out.flush()).expect("the parent listens");
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("sent");
}

fn play_signals() {
    let mut signals = Signals::install().expect("installed");
    say("ready");
    while let Some(signal) = signals.wait_timeout(LONG) {
        say(&format!("{signal:?}"));
        if signal == Signal::Stop {
            break;
        }
    }
    // A drain that hangs.
    std::thread::sleep(LONG);
}

/// The next line of the child that is one of ours (the harness prints its own).
fn next_line(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> String {
    let ours = ["ready", "Stop", "Reload", "locked"];
    let mut found = lines.map(|line| line.expect("text")).filter_map(|line| {
        ours.iter().find(|word| line.ends_with(*word)).map(|word| (*word).to_owned())
    });
    found.next().expect("the child goes on")
}

#[test]
fn hup_reloads_term_stops_and_a_second_interrupt_does_not_wait_for_the_drain() {
    let mut child = child("signals", |_| {});
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert_eq!(next_line(&mut lines), "ready");
    signal(&child, rustix::process::Signal::HUP);
    assert_eq!(next_line(&mut lines), "Reload");
    signal(&child, rustix::process::Signal::HUP);
    assert_eq!(next_line(&mut lines), "Reload");
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(next_line(&mut lines), "Stop");
    // The first one has been taken (it was answered); this is the second.
    signal(&child, rustix::process::Signal::INT);
    let status = child.wait().expect("ended");
    assert_eq!(status.signal(), Some(2), "{status}");
}

#[test]
fn term_is_answered_with_a_stop() {
    let mut child = child("signals", |_| {});
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert_eq!(next_line(&mut lines), "ready");
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(next_line(&mut lines), "Stop");
    child.kill().expect("killed");
    child.wait().expect("ended");
}

fn play_service() {
    let service = Service::from_env();
    let watchdog = Watchdog::start(&service, || true).expect("a thread");
    service.ready("reading 3 files");
    service.reloading();
    service.status("two\nlines");
    service.stopping("draining");
    say("ready");
    std::thread::sleep(Duration::from_millis(300));
    drop(watchdog);
}

#[test]
fn the_service_manager_hears_ready_reloading_with_its_time_stopping_and_the_watchdog() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(LONG)).expect("set");
    let mut child = child("service", |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "40000");
    });
    let mut all = Vec::new();
    while !(all.iter().any(|m: &String| m.contains("STOPPING=1"))
        && all.iter().any(|m| m == "WATCHDOG=1\n"))
    {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a message comes");
        all.push(String::from_utf8(buffer[..length].to_vec()).expect("text"));
    }
    // A queue that nobody reads would block the child's next message.
    drop(socket);
    assert!(child.wait().expect("ended").success());
    let told: Vec<_> = all.iter().filter(|m| *m != "WATCHDOG=1\n").collect();
    assert_eq!(told[0], "READY=1\nSTATUS=reading 3 files\n");
    let time = told[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("with its time");
    assert!(time.trim().parse::<u64>().expect("a number") > 0);
    assert_eq!(told[2], "STATUS=two lines\n");
    assert_eq!(told[3], "STOPPING=1\nSTATUS=draining\n");
}

fn play_log() {
    let clock = Arc::new(SystemClock::new());
    logging::init("custody-test", &Log::default(), clock).expect("installed");
    log::info!(target: "custody_test", path = "/a b"; "hello");
    log::debug!(target: "custody_test", "not at this level");
    log::info!(target: "somebody_else", "not ours");
    for n in 0..100 {
        log::warn!(target: "custody_test", n = n; "again");
    }
    logging::flush();
    assert!(logging::init("twice", &Log::default(), Arc::new(SystemClock::new())).is_err());
}

#[test]
fn a_repeated_warning_is_said_five_times_and_then_counted() {
    let mut child = child("log", |_| {});
    let mut text = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
    assert!(child.wait().expect("ended").success());
    let lines: Vec<_> = text.lines().filter(|line| line.contains("Z ")).collect();
    assert_eq!(lines.len(), 7, "{text}");
    assert!(lines[0].ends_with("INFO  hello path=\"/a b\""), "{text}");
    assert!(lines[5].ends_with("WARN  again n=4"), "{text}");
    assert!(lines[6].ends_with("WARN  again (said 95 more times in 60 s)"), "{text}");
    assert!(!text.contains('\x1b'), "no colour where nobody looks");
}

fn at(path: &Path) -> Located<PathBuf> {
    Located::new(path.to_owned(), Place::Option("--data-dir"))
}

fn play_lock() {
    let dir = PathBuf::from(std::env::var_os("CUSTODY_SHELL_DIR").expect("given"));
    let _held = DataDir::open(&at(&dir)).expect("free");
    say("locked");
    std::thread::sleep(LONG);
}

#[test]
fn a_data_directory_in_use_is_refused_with_the_pid_and_free_again_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("deep/data");
    let mut child = child("lock", |command| {
        command.env("CUSTODY_SHELL_DIR", &data);
    });
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert_eq!(next_line(&mut lines), "locked");
    let error = DataDir::open(&at(&data)).expect_err("in use");
    assert_eq!(error.exit(), Exit::Io);
    let expected = format!(
        "--data-dir: another process uses the data directory {}, pid {} (hint: stop that one, or choose another data_dir)",
        data.display(),
        child.id()
    );
    assert_eq!(error.to_string(), expected);
    child.kill().expect("killed");
    child.wait().expect("ended");
    let held = DataDir::open(&at(&data)).expect("free again");
    assert!(DataDir::open(&at(&data)).is_err(), "our own second opening is one too many");
    drop(held);
    DataDir::open(&at(&data)).expect("free when dropped");
}

#[test]
fn a_new_data_directory_is_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let opened = DataDir::open(&at(&data)).expect("made");
    assert_eq!(opened.path(), data);
    assert_eq!(opened.join("spool"), data.join("spool"));
    let mode = std::fs::metadata(&data).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_data_directory_that_cannot_be_made_or_written_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    for path in [file.clone(), file.join("below")] {
        let error = DataDir::open(&at(&path)).expect_err("a file is in the way");
        assert_eq!(error.exit(), Exit::Io);
        let text = error.to_string();
        assert!(text.starts_with("--data-dir: cannot make the data directory"), "{text}");
        assert!(text.contains("(hint: choose another data_dir"), "{text}");
    }
    // A directory that nobody can write to, not even root.
    let error =
        DataDir::open(&at(Path::new("/proc/self"))).expect_err("no files can be made there");
    assert!(error.to_string().contains("cannot write to the data directory /proc/self"), "{error}");
}

struct Stuck(Timestamp);

impl Clock for Stuck {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn a_clock_that_was_never_set_is_refused_before_anything_is_dated() {
    let error = check_clock(&Stuck(Timestamp::from_micros(0))).expect_err("1970");
    assert_eq!(error.exit(), Exit::Config);
    let text = error.to_string();
    assert!(
        text.contains("says 1970-01-01T00:00:00.000000Z") && text.contains("timedatectl"),
        "{text}"
    );
    let last = Timestamp::from_micros(Timestamp::Y2020.micros() - 1);
    assert!(check_clock(&Stuck(last)).is_err());
    assert!(check_clock(&Stuck(Timestamp::Y2020)).is_ok());
    assert!(check_clock(&SystemClock::new()).is_ok());
}

#[test]
fn exit_codes_are_those_that_are_documented() {
    let shown = |exit: Exit| format!("{:?}", ExitCode::from(exit));
    for (exit, code) in [
        (Exit::Good, 0),
        (Exit::No, 1),
        (Exit::Usage, 64),
        (Exit::NoInput, 66),
        (Exit::Io, 74),
        (Exit::Config, 78),
    ] {
        assert_eq!(shown(exit), format!("{:?}", ExitCode::from(code)));
    }
    let ended = finish(
        "custody-test",
        Err(Failure::new(Exit::Config, "the end of a test, no error").into()),
    );
    assert_eq!(format!("{ended:?}"), shown(Exit::Config));
    assert_eq!(format!("{:?}", finish("custody-test", Ok(Exit::No))), shown(Exit::No));
}

#[test]
fn a_token_can_be_stopped_from_another_thread_while_one_waits_for_signals() {
    let stop = StopToken::new();
    let mut signals = Signals::detached(&stop);
    let stopper = std::thread::spawn({
        let stop = stop.clone();
        move || stop.stop()
    });
    assert_eq!(signals.wait_timeout(LONG), Some(Signal::Stop));
    stopper.join().expect("joined");
}
