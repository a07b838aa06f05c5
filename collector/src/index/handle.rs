//! How the runner's thread is ended.
//!
//! Told to stop, it waits for nothing any more: neither until it may try again what failed, nor for
//! blocks. What remains is what it is at: a block, a commit, the check of one day's files. If even that
//! does not end ([`END_WAIT`]: a disk that hangs), the thread is left behind and ends with the process;
//! nothing is lost by that, for the next start reads the log from where the last commit stands.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::embedded::Shared;

/// How long the thread's end is waited for: a commit of all that may be pending takes seconds, on a
/// slow disk some more.
const END_WAIT: Duration = Duration::from_secs(30);

/// What the runner is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Doing {
    /// It looks for blocks, or waits for them.
    #[default]
    ReadingTheLog,
    Indexing,
    Committing,
    CheckingFiles,
    PuttingADayInPlace,
    WaitingToTryAgain,
}

impl Doing {
    const fn said(self) -> &'static str {
        match self {
            Self::ReadingTheLog => "reading the evidence log",
            Self::Indexing => "indexing a block",
            Self::Committing => "committing",
            Self::CheckingFiles => "checking its files",
            Self::PuttingADayInPlace => "putting a day that was made anew in its place",
            Self::WaitingToTryAgain => "waiting to try again what failed",
        }
    }
}

/// Stops the thread; dropping it does so too.
pub struct RunnerHandle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Says nothing; its other end goes with the thread.
    ended: Receiver<()>,
}

impl std::fmt::Debug for RunnerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunnerHandle").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl RunnerHandle {
    pub(super) fn new(shared: Arc<Shared>, thread: JoinHandle<()>, ended: Receiver<()>) -> Self {
        Self { shared, thread: Some(thread), ended }
    }

    /// Commits what is pending and ends the thread. Blocks, but not for ever.
    pub fn stop(mut self) {
        self.end(END_WAIT);
    }

    /// Has it ended in time?
    pub(super) fn end(&mut self, limit: Duration) -> bool {
        self.shared.stop.cancel();
        let Some(thread) = self.thread.take() else { return true };
        if self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            let at = *self.shared.searchable.borrow();
            log::error!(
                doing = self.shared.doing().said(), waited_s = limit.as_secs(),
                segment = at.segment, offset = at.offset;
                "the index does not end and is left as it is; the next start reads the log from here"
            );
            return false;
        }
        if thread.join().is_err() {
            log::error!("the index thread panicked");
        }
        true
    }
}

impl Drop for RunnerHandle {
    fn drop(&mut self) {
        self.end(END_WAIT);
    }
}
