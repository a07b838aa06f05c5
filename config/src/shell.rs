//! What a daemon needs around its work.
//!
//! - [`Exit`], [`Failure`], [`finish`]: how a process ends, and the paragraph that it leaves behind.
//! - [`StopToken`], [`Signals`]: SIGTERM and SIGINT ask to stop, a second SIGINT ends the process at once, SIGHUP asks to reload.
//! - [`logging`]: the journal under systemd, readable text otherwise; repeated warnings are counted, not repeated.
//! - [`metrics`]: tables of numbers for Prometheus.
//! - [`x509`]: when certificates end.
//! - [`Service`]: what the service manager is told.
//! - [`DataDir`]: the data directory, ours alone.
//! - [`no_core_files`]: the memory holds secrets, and no copy of it is left.
//! - [`check_clock`]: a host whose clock was never set must not date evidence.
//!
//! Nothing here needs a runtime: threads block, tasks await, on the same tokens.

mod core_files;
mod datadir;
mod exit;
pub mod logging;
pub mod metrics;
mod service;
mod signals;
mod stop;
pub mod x509;

pub use core_files::no_core_files;
pub use custody_event::{Clock, SystemClock};
pub use datadir::DataDir;
pub use exit::{Exit, Failure, OrExit, finish};
pub use service::{Service, Watchdog};
pub use signals::{Signal, Signals};
pub use stop::{StopToken, Stopped};

use custody_event::Timestamp;

/// Refuses a clock that says less than 2020-01-01: a board without a battery starts in 1970, and what it dates is no evidence.
///
/// # Errors
/// Exit 78, with what the clock says and what to do.
pub fn check_clock(clock: &dyn Clock) -> Result<(), Failure> {
    let now = clock.now();
    if now >= Timestamp::Y2020 {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Config,
        format!(
            "the clock of this host says {now}, which cannot be: events would carry wrong times \
             (hint: set the clock, for example with `timedatectl set-ntp true`, then start again; \
             under systemd let the unit come after time-sync.target)"
        ),
    ))
}
