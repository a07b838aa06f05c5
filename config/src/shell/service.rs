//! What the service manager is told (sd_notify(3)), where there is one.
//!
//! A message that cannot be sent is logged and never stops the daemon: the manager's own time-outs speak then.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

use super::stop::StopToken;

/// The line to the service manager; silent where the process was started by hand.
#[derive(Clone, Debug)]
pub struct Service {
    managed: bool,
    watchdog: Option<Duration>,
}

impl Service {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub fn from_env() -> Self {
        Self {
            managed: std::env::var_os("NOTIFY_SOCKET").is_some(),
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// The start is over and work has begun.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(&one_line(status))]);
    }

    /// The configuration is being read again; [`Service::ready`] must follow, whether it was good or not.
    pub fn reloading(&self) {
        // systemd 253 and later insist on the time, with which they order the messages.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => {
                log::warn!(error:% = error; "cannot read the monotonic clock for the service manager")
            }
        }
    }

    /// The end has begun.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// Asks for more time: a long recovery at the start, or a long drain at the end.
    pub fn extend_timeout(&self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// How often the watchdog wants to hear from us: half of its limit. `None` where there is no watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Tells the watchdog that the daemon lives.
    pub fn ping(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    fn send(&self, state: &[NotifyState<'_>]) {
        if !self.managed {
            return;
        }
        if let Err(error) = sd_notify::notify(state) {
            log::warn!(error:% = error; "cannot tell the service manager");
        }
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A thread that tells the watchdog that the daemon lives, for as long as it does.
#[derive(Debug)]
pub struct Watchdog {
    end: StopToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread where a watchdog wants to be told. `alive` is asked before each message; while it says no, the
    /// watchdog hears nothing and ends the daemon after its limit. It goes on through the drain and ends when dropped.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(service: &Service, alive: impl Fn() -> bool + Send + 'static) -> io::Result<Self> {
        let end = StopToken::new();
        let Some(every) = service.watchdog_interval() else {
            return Ok(Self { end, thread: None });
        };
        let (service, ended) = (service.clone(), end.clone());
        let watch = move || {
            while !ended.wait_timeout(every) {
                if alive() {
                    service.ping();
                } else {
                    log::error!(
                        "the daemon makes no progress: the watchdog is not told that it lives"
                    );
                }
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch)?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.end.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the watchdog thread panicked");
        }
    }
}
