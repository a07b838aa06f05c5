//! One flag for "stop" and one counter for "reload", on which threads block and tasks await.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What has been asked of the process so far.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) stop: bool,
    /// How many reloads were asked for.
    pub(super) reloads: u64,
    /// Tasks that wait, by the number of their future.
    wakers: HashMap<u64, Waker>,
    next_waker: u64,
}

/// The state that tokens share.
#[derive(Default)]
pub(super) struct Notice {
    asked: Mutex<Asked>,
    changed: Condvar,
    /// A copy of `asked.stop` for hot loops.
    stopped: AtomicBool,
}

impl Notice {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        // A panic elsewhere leaves flags and counters whole.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Asked)) {
        let wakers = {
            let mut asked = self.lock();
            change(&mut asked);
            self.stopped.store(asked.stop, Ordering::Release);
            std::mem::take(&mut asked.wakers)
        };
        self.changed.notify_all();
        wakers.into_values().for_each(Waker::wake);
    }

    /// Blocks until `done` gives something, or for `timeout` (for ever without one).
    pub(super) fn wait<T>(
        &self,
        timeout: Option<Duration>,
        mut done: impl FnMut(&mut Asked) -> Option<T>,
    ) -> Option<T> {
        let mut found = None;
        let pending = |asked: &mut Asked| {
            found = done(asked);
            found.is_none()
        };
        let guard = self.lock();
        match timeout {
            Some(timeout) => {
                drop(
                    self.changed
                        .wait_timeout_while(guard, timeout, pending)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
            None => drop(
                self.changed.wait_while(guard, pending).unwrap_or_else(PoisonError::into_inner),
            ),
        }
        found
    }

    /// The task's side of `wait`: `id` is the future's number once it has waited.
    pub(super) fn poll<T>(
        &self,
        id: &mut Option<u64>,
        context: &Context<'_>,
        done: impl FnOnce(&mut Asked) -> Option<T>,
    ) -> Poll<T> {
        let mut asked = self.lock();
        if let Some(found) = done(&mut asked) {
            return Poll::Ready(found);
        }
        let id = *id.get_or_insert_with(|| {
            asked.next_waker += 1;
            asked.next_waker
        });
        asked.wakers.insert(id, context.waker().clone());
        Poll::Pending
    }

    pub(super) fn forget(&self, id: Option<u64>) {
        if let Some(id) = id {
            self.lock().wakers.remove(&id);
        }
    }
}

/// Says whether the process, or a part of it, shall stop. Clones share one flag; once set it stays set.
#[derive(Clone, Default)]
pub struct StopToken(pub(super) Arc<Notice>);

impl StopToken {
    /// A token that nobody has set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag and wakes everyone who waits for it.
    pub fn stop(&self) {
        self.0.change(|asked| asked.stop = true);
    }

    /// Whether the flag is set; costs one atomic load.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Blocks until the flag is set, at most for `timeout`; true if it is set.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.0.wait(Some(timeout), |asked| asked.stop.then_some(())).is_some()
    }

    /// Blocks until the flag is set.
    pub fn wait(&self) {
        self.0.wait(None, |asked| asked.stop.then_some(()));
    }

    /// Completes when the flag is set. Dropping the future loses nothing.
    pub fn stopped(&self) -> Stopped {
        Stopped { notice: Arc::clone(&self.0), id: None }
    }
}

impl fmt::Debug for StopToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StopToken").field(&self.is_stopped()).finish()
    }
}

/// Completes when its token is set.
pub struct Stopped {
    notice: Arc<Notice>,
    id: Option<u64>,
}

impl Future for Stopped {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.notice.poll(&mut this.id, context, |asked| asked.stop.then_some(()))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.notice.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;
    use std::thread::Thread;

    use super::*;

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// The smallest executor: parks the thread until woken.
    pub(in crate::shell) fn block_on<F: Future>(future: F) -> F::Output {
        let mut future = Box::pin(future);
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = Context::from_waker(&waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    #[test]
    fn a_stop_reaches_threads_and_tasks_that_wait() {
        let token = StopToken::new();
        let blocked = std::thread::spawn({
            let token = token.clone();
            move || token.wait()
        });
        let timed = std::thread::spawn({
            let token = token.clone();
            move || token.wait_timeout(Duration::from_secs(60))
        });
        let task = std::thread::spawn({
            let token = token.clone();
            move || block_on(token.stopped())
        });
        token.stop();
        blocked.join().expect("woken");
        assert!(timed.join().expect("woken"));
        task.join().expect("woken");
        assert!(token.is_stopped());
        block_on(token.stopped());
    }

    #[test]
    fn a_wait_that_times_out_says_so() {
        assert!(!StopToken::new().wait_timeout(Duration::from_millis(1)));
    }

    #[test]
    fn a_future_that_is_dropped_leaves_no_waker_behind() {
        let token = StopToken::new();
        let waker = Waker::noop();
        for _ in 0..1000 {
            let mut future = Box::pin(token.stopped());
            assert!(future.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        }
        assert!(token.0.lock().wakers.is_empty());
    }
}
