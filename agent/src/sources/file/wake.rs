//! Notifications: a hint that something has changed, never the truth.
//!
//! The callback rings a bell that holds one ring. Whatever goes wrong here (no inotify, no
//! watches left, an overflow, a network file system) costs time until the next scan and nothing
//! else.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Paths that were written to are remembered, at most so many between two looks; then all count.
const MAX_TOUCHED: usize = 4_096;
/// File systems that others write to without our kernel's knowledge, or that tell little of it
/// (statfs(2)): NFS, AFS, SMB, CIFS, SMB2, 9P, FUSE, Ceph, Lustre, GFS2, OCFS2.
const REMOTE: [u64; 11] = [
    0x6969,
    0x5346_414f,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x6573_5546,
    0x00c3_6400,
    0x0bd0_0bd0,
    0x0116_1970,
    0x7461_636f,
];

/// Rings the bell of a running source.
#[derive(Debug, Clone)]
pub struct Waker {
    ring: Sender<()>,
    structure: Arc<AtomicBool>,
    touched: Arc<Mutex<Touched>>,
}

/// Waits for rings.
pub(super) struct Bell {
    rung: Receiver<()>,
    structure: Arc<AtomicBool>,
    touched: Arc<Mutex<Touched>>,
}

/// What was written to.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) paths: HashSet<PathBuf>,
    /// More than could be remembered.
    pub(super) all: bool,
}

pub(super) fn bell() -> (Waker, Bell) {
    let (ring, rung) = bounded(1);
    let structure = Arc::new(AtomicBool::new(false));
    let touched = Arc::new(Mutex::new(Touched::default()));
    let waker = Waker { ring, structure: Arc::clone(&structure), touched: Arc::clone(&touched) };
    (waker, Bell { rung, structure, touched })
}

impl Waker {
    /// Wakes the source; does nothing if it is awake or over.
    pub fn wake(&self) {
        match self.ring.try_send(()) {
            // Full means that a ring waits already; closed means that nobody listens any more.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    fn wake_to_read(&self, paths: &[PathBuf]) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths {
            if touched.paths.len() >= MAX_TOUCHED {
                touched.all = true;
            } else if !touched.paths.contains(path) {
                touched.paths.insert(path.clone());
            }
        }
        drop(touched);
        self.wake();
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

    /// What has been written to since the last call.
    pub(super) fn take_touched(&self) -> Touched {
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner))
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
    /// Those of them from which notifications need not come.
    remote: BTreeSet<PathBuf>,
    trouble: Option<String>,
}

impl Watch {
    pub(super) fn new(waker: &Waker, wanted: bool) -> Self {
        let mut watch =
            Self { watcher: None, dirs: BTreeSet::new(), remote: BTreeSet::new(), trouble: None };
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
        self.remote.retain(|dir| wanted.contains(dir));
        for dir in wanted {
            if self.dirs.contains(&dir) {
                continue;
            }
            match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    if is_remote(&dir) {
                        log::info!(dir:% = dir.display(); "no notifications are to be had from this file system; scanning alone finds what is new there");
                        self.remote.insert(dir.clone());
                    }
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

    /// Does every change in the directories ring the bell?
    pub(super) fn is_whole(&self) -> bool {
        self.watcher.is_some() && self.remote.is_empty() && self.trouble.is_none()
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

fn is_remote(dir: &Path) -> bool {
    // What cannot be asked is looked at as if it were.
    let kind = rustix::fs::statfs(dir).map(|found| u64::try_from(found.f_type).unwrap_or(0));
    kind.map_or(true, |kind| REMOTE.contains(&kind))
}

fn heard(waker: &Waker, event: &notify::Result<notify::Event>) {
    match event {
        Ok(event) if event.need_rescan() => waker.wake_to_scan(),
        Ok(event) => match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => waker.wake_to_read(&event.paths),
            // Opening and closing are what we do ourselves.
            EventKind::Access(_) => {}
            _ => waker.wake_to_scan(),
        },
        Err(_) => waker.wake_to_scan(),
    }
}
