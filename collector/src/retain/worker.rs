//! The thread on which everything runs that changes segments: at start, then daily; erasures as soon
//! as they are approved; room is made as soon as it is needed. A second thread looks at the free
//! space every few seconds, whatever the first one is at, and has blocks refused in time.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Retain, RetainError};

/// How often the free space is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often events are looked at for their age.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// What failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// See the module. Dropped or stopped, the thread ends behind the segment at which it is.
pub struct Worker {
    retain: Arc<Retain>,
    wake: Option<Sender<()>>,
    /// Dropped, it ends the look at the free space.
    watching: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Tells the worker that there is something to do.
#[derive(Debug, Clone)]
pub struct Wake(Sender<()>);

impl Wake {
    pub(super) fn up(&self) {
        // Full: it has been told already. Gone: the next start does it.
        let _told = self.0.try_send(());
    }
}

impl Worker {
    /// Starts the threads.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(retain: Arc<Retain>) -> std::io::Result<(Self, Wake)> {
        let (wake, told) = bounded(1);
        let (watching, ended) = bounded(1);
        let (shared, watched) = (Arc::clone(&retain), Arc::clone(&retain));
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        // Without the other one it ends by itself: nobody has its sender.
        let watcher = named("retain-space").spawn(move || watch(&watched, &ended))?;
        let runner = named("retain").spawn(move || run(&shared, &told))?;
        let (watching, threads) = (Some(watching), vec![runner, watcher]);
        Ok((Self { retain, wake: Some(wake.clone()), watching, threads }, Wake(wake)))
    }

    /// Tells the threads to end.
    pub fn tell(&self) {
        self.retain.stop();
    }

    /// Ends the threads. Blocks.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.tell();
        if let Some(wake) = self.wake.take() {
            let _told = wake.try_send(());
        }
        drop(self.watching.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of retention ended with a panic");
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Looks at the free space until the sender is gone.
fn watch(retain: &Retain, ended: &Receiver<()>) {
    let mut wait = Duration::ZERO;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
        said("the free space", retain.hold_back_if_full());
        wait = LOOK_EVERY;
    }
}

fn run(retain: &Retain, told: &Receiver<()>) {
    let mut next_sweep = retain.clock.monotonic();
    let (mut next_erasures, mut next_room) = (next_sweep, next_sweep);
    let mut wait = Duration::ZERO;
    loop {
        let woken = match told.recv_timeout(wait) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if retain.go_on().is_err() {
            return;
        }
        wait = LOOK_EVERY;
        let now = retain.clock.monotonic();
        if now >= next_room && !said("room on the disk", retain.look_at_space()) {
            next_room = now + AGAIN;
        }
        if woken || now >= next_erasures {
            let good = said("erasures", retain.erase_approved());
            next_erasures = now + if good { SWEEP_EVERY } else { AGAIN };
        }
        if now >= next_sweep {
            let archived = said("the archive", retain.archive_due());
            let good = said("retention", retain.sweep(false)) && archived;
            next_sweep = now + if good { SWEEP_EVERY } else { AGAIN };
        }
    }
}

fn said<T>(what: &'static str, done: Result<T, RetainError>) -> bool {
    match done {
        Ok(_) | Err(RetainError::Stopping) => true,
        Err(error) => {
            log::error!(what = what, error:% = error; "retention cannot do its work; it is tried again");
            false
        }
    }
}
