//! The source on its own thread, with notifications.

use std::sync::Mutex;
use std::time::Instant;

use super::super::FileSource;
use super::*;
use crate::sources::SharedSourceState;

#[derive(Clone, Default)]
struct Shared {
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Outlet for Shared {
    fn put(&mut self, item: Item) -> Result<(), Stopped> {
        if let Item::Records(chunk) = item {
            let now = Instant::now();
            let lines =
                records(&chunk).into_iter().map(|line| (now, String::from_utf8(line).unwrap()));
            self.seen.lock().unwrap().extend(lines);
        }
        Ok(())
    }
    fn is_stopped(&self) -> bool {
        self.stop.load(std::sync::atomic::Ordering::Acquire)
    }
    fn is_stopped_after(&self, wait: Duration) -> bool {
        std::thread::sleep(wait);
        self.is_stopped()
    }
}

fn run(
    options: FileOptions,
) -> (Shared, Arc<SharedSourceState>, std::thread::JoinHandle<()>, super::super::Waker) {
    let shared = Shared::default();
    let state = Arc::new(SharedSourceState::default());
    let source = FileSource::new(options, SourceIndex(0), Arc::new(SystemClock::new())).unwrap();
    let waker = source.waker();
    let (mut outlet, shown) = (shared.clone(), Arc::clone(&state));
    let thread = std::thread::spawn(move || source.run(Vec::new(), &mut outlet, &shown).unwrap());
    (shared, state, thread, waker)
}

fn wait_for(shared: &Shared, count: usize) {
    let until = Instant::now() + Duration::from_secs(20);
    while shared.seen.lock().unwrap().len() < count {
        assert!(Instant::now() < until, "{} of {count} lines", shared.seen.lock().unwrap().len());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stop(shared: &Shared, thread: std::thread::JoinHandle<()>, waker: &super::super::Waker) {
    shared.stop.store(true, std::sync::atomic::Ordering::Release);
    waker.wake();
    thread.join().unwrap();
}

#[test]
fn lines_are_seen_by_notification_long_before_the_next_scan() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), "*.log");
    options.scan_interval = Duration::from_secs(600);
    append(&dir.path().join("a.log"), b"first\n");
    let (shared, state, thread, waker) = run(options);
    wait_for(&shared, 1);
    // The watch is set after the first scan: from its first effect on, it must wake us.
    std::thread::sleep(Duration::from_millis(100));
    for n in 0..20 {
        append(&dir.path().join("a.log"), format!("line {n}\n").as_bytes());
        wait_for(&shared, n + 2);
    }
    append(&dir.path().join("b.log"), b"new file\n");
    wait_for(&shared, 22);
    fs::rename(dir.path().join("a.log"), dir.path().join("a.log.1")).unwrap();
    append(&dir.path().join("a.log"), b"after rename\n");
    wait_for(&shared, 23);
    assert_eq!(state.lock().unwrap().trouble, None);
    stop(&shared, thread, &waker);
}

#[test]
fn without_notifications_the_scan_alone_sees_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), "*.log");
    options.scan_interval = Duration::from_millis(20);
    options.notifications = false;
    let (shared, _state, thread, waker) = run(options);
    for n in 0..10 {
        append(&dir.path().join("a.log"), format!("line {n}\n").as_bytes());
        wait_for(&shared, n + 1);
    }
    stop(&shared, thread, &waker);
}

#[test]
fn bad_patterns_and_limits_are_refused_with_a_reason() {
    let make = |change: &dyn Fn(&mut FileOptions)| {
        let mut options =
            FileOptions { paths: vec!["/var/log/*.log".into()], ..FileOptions::default() };
        change(&mut options);
        FileSource::new(options, SourceIndex(0), Arc::new(SystemClock::new()))
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(make(&|_| {}), None);
    assert!(make(&|options| options.paths[0] = "/x/[a".into()).unwrap().contains("[a"));
    assert!(make(&|options| options.max_line_bytes = 10).unwrap().contains("1024"));
}
