//! No core files: the memory of both daemons holds tokens and keys while they are in use, and a core file is a copy of it.
//!
//! Secrets cannot be wiped reliably: TLS and HTTP libraries copy them into buffers of their own. So no copy of the memory is made.
//! What remains is the running process, whose memory root and the service's user can read.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// From now on this process leaves no core file, whatever the limits were that it was started with. A core that the system
/// hands to a program (`kernel.core_pattern` with a `|`) is thrown away by systemd-coredump for the same limit.
///
/// A unit's filter of system calls may refuse this, and has then set the limit itself (`LimitCORE=0`).
pub fn no_core_files() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if getrlimit(Resource::Core) == none {
        return;
    }
    if let Err(error) = setrlimit(Resource::Core, none) {
        log::warn!(error:% = error; "a crash may leave a core file with secrets in it (hint: LimitCORE=0 in the unit, or ulimit -c 0)");
    }
}
