//! Signals, taken by one thread of their own.
//!
//! SIGTERM and SIGINT ask to stop and drain. A second SIGINT is a person who does not want to wait: the process ends at once,
//! by that signal. SIGHUP asks to reload; several that come close together may be one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::stop::{Asked, Notice, StopToken};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop: drain and end. Asked once, it stays asked.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Where signals arrive. A clone sees every reload for itself, from where its original stood.
#[derive(Clone)]
pub struct Signals {
    notice: Arc<Notice>,
    /// Reloads that this receiver has handed out.
    seen: u64,
}

impl Signals {
    /// Takes SIGTERM, SIGINT and SIGHUP over for the whole process. Call it once, before threads are started.
    ///
    /// # Errors
    /// The system refuses a handler or a thread.
    pub fn install() -> io::Result<Self> {
        let mut incoming = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let signals = Self { notice: Arc::default(), seen: 0 };
        let notice = Arc::clone(&signals.notice);
        let listen = move || {
            let mut interrupts = 0_u32;
            for signal in incoming.forever() {
                match signal {
                    SIGHUP => notice.change(|asked| asked.reloads += 1),
                    SIGINT if interrupts > 0 => end_now(),
                    other => {
                        interrupts += u32::from(other == SIGINT);
                        notice.change(|asked| asked.stop = true);
                    }
                }
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
        Ok(signals)
    }

    /// A receiver that no signal reaches, for tests and commands: whoever holds the token stops it.
    pub fn detached(stop: &StopToken) -> Self {
        Self { notice: Arc::clone(&stop.0), seen: 0 }
    }

    /// The token that is set when the process shall stop.
    pub fn stop_token(&self) -> StopToken {
        StopToken(Arc::clone(&self.notice))
    }

    /// Asks for a reload, as SIGHUP does.
    pub fn ask_reload(&self) {
        self.notice.change(|asked| asked.reloads += 1);
    }

    /// Blocks until something is asked; `None` after `timeout`. Stop comes before reload.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Signal> {
        let seen = &mut self.seen;
        self.notice.wait(Some(timeout), |asked| next(asked, seen))
    }

    /// Completes when something is asked. Cancel-safe: a reload is handed out only with the result.
    pub fn recv(&mut self) -> impl Future<Output = Signal> + Send + '_ {
        Next { signals: self, id: None }
    }
}

fn next(asked: &Asked, seen: &mut u64) -> Option<Signal> {
    if asked.stop {
        return Some(Signal::Stop);
    }
    if asked.reloads > *seen {
        *seen = asked.reloads;
        return Some(Signal::Reload);
    }
    None
}

/// Ends the process as if SIGINT had never been taken over. What is durable stays durable; nothing else is waited for.
fn end_now() {
    if signal_hook::low_level::emulate_default_handler(SIGINT).is_err() {
        std::process::abort();
    }
}

struct Next<'a> {
    signals: &'a mut Signals,
    id: Option<u64>,
}

impl Future for Next<'_> {
    type Output = Signal;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Signal> {
        let this = &mut *self;
        let seen = &mut this.signals.seen;
        this.signals.notice.poll(&mut this.id, context, |asked| next(asked, seen))
    }
}

impl Drop for Next<'_> {
    fn drop(&mut self) {
        self.signals.notice.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_receiver_sees_a_reload_once_and_a_stop_for_ever() {
        let stop = StopToken::new();
        let mut a = Signals::detached(&stop);
        let mut b = a.clone();
        let soon = Duration::from_millis(1);
        assert_eq!(a.wait_timeout(soon), None);
        a.ask_reload();
        assert_eq!(a.wait_timeout(soon), Some(Signal::Reload));
        assert_eq!(a.wait_timeout(soon), None);
        assert_eq!(b.wait_timeout(soon), Some(Signal::Reload));
        b.ask_reload();
        stop.stop();
        assert_eq!(a.wait_timeout(soon), Some(Signal::Stop));
        assert_eq!(a.wait_timeout(soon), Some(Signal::Stop));
    }
}
