//! Ports that stay ours while nobody listens on them.
//!
//! They lie below the kernel's range for outgoing connections: a port of that range may become
//! the other end of any connection while a killed collector is down, even of the agent's own.

use std::fs::File;
use std::net::TcpListener;
use std::sync::Mutex;

const FIRST: u16 = 18_000;
const LAST: u16 = 31_999;

static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A free port, held for this process (by a locked file) until it ends.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free() -> u16 {
    let folder = std::env::temp_dir().join("custody-test-ports");
    std::fs::create_dir_all(&folder).unwrap();
    let mut held = HELD.lock().unwrap();
    let start = u16::try_from(std::process::id() % u32::from(LAST - FIRST)).unwrap();
    let ports = (FIRST + start..=LAST).chain(FIRST..FIRST + start);
    for port in ports {
        let lock = File::create(folder.join(port.to_string())).unwrap();
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            held.push(lock);
            return port;
        }
    }
    panic!("no port from {FIRST} to {LAST} is free");
}
