//! Notifications: a hint that something has changed, never the truth.
//!
//! The callback rings a bell that holds one ring. Whatever goes wrong here (no inotify, no
//! watches left, an overflow, a network file system) costs time until the next scan and nothing
//! else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Rings the bell of a running source.
#[derive(Debug, Clone)]
pub struct Waker {
    ring: Sender<()>,
    structure: Arc<AtomicBool>,
}

/// Waits for rings.
pub(super) struct Bell {
    rung: Receiver<()>,
    structure: Arc<AtomicBool>,
}

pub(super) fn bell() -> (Waker, Bell) {
    let (ring, rung) = bounded(1);
    let structure = Arc::new(AtomicBool::new(false));
    (Waker { ring, structure: Arc::clone(&structure) }, Bell { rung, structure })
}

impl Waker {
    /// Wakes the source; does nothing if it is awake or over.
    pub fn wake(&self) {
        match self.ring.try_send(()) {
            // Full means that a ring waits already; closed means that nobody listens any more.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    fn wake_to_scan(&self) {
        self.structure.store(true, Ordering::Release);
        self.wake();
    }
}

impl Bell {
    /// True if it rang within the time.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        self.rung.recv_timeout(at_most).is_ok()
    }

    /// Have files come, gone or been renamed since the last call?
    pub(super) fn take_structure(&self) -> bool {
        self.structure.swap(false, Ordering::AcqRel)
    }
}

/// The watches on the directories.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    dirs: BTreeSet<PathBuf>,
    trouble: Option<String>,
}

impl Watch {
    pub(super) fn new(waker: &Waker, wanted: bool) -> Self {
        let mut watch = Self { watcher: None, dirs: BTreeSet::new(), trouble: None };
        if !wanted {
            return watch;
        }
        let waker = waker.clone();
        match notify::recommended_watcher(move |event| heard(&waker, &event)) {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.complain(&error),
        }
        watch
    }

    /// Watches exactly these directories, as far as that is possible.
    pub(super) fn follow<'a>(&mut self, dirs: impl Iterator<Item = &'a Path>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = dirs.map(Path::to_path_buf).collect();
        let mut failed = None;
        for gone in self.dirs.difference(&wanted) {
            // A directory that was removed has lost its watch already.
            drop(watcher.unwatch(gone));
        }
        self.dirs.retain(|dir| wanted.contains(dir));
        for dir in wanted {
            if self.dirs.contains(&dir) {
                continue;
            }
            match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.dirs.insert(dir);
                }
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => self.complain(&error),
            None => self.trouble = None,
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    fn complain(&mut self, error: &notify::Error) {
        let text = format!(
            "no notifications from the kernel for some directories ({error}): lines there are seen at the next scan; raise fs.inotify.max_user_watches or max_user_instances"
        );
        if self.trouble.as_ref() != Some(&text) {
            log::warn!(error:% = error; "no notifications for some directories; scanning instead");
            self.trouble = Some(text);
        }
    }
}

fn heard(waker: &Waker, event: &notify::Result<notify::Event>) {
    match event {
        Ok(event) if event.need_rescan() => waker.wake_to_scan(),
        Ok(event) => match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => waker.wake(),
            // Opening and closing are what we do ourselves.
            EventKind::Access(_) => {}
            _ => waker.wake_to_scan(),
        },
        Err(_) => waker.wake_to_scan(),
    }
}
