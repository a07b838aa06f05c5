//! Datagrams (RFC 5426): one message each.
//!
//! The kernel counts what it drops for a socket whose buffer is full, in the last column of
//! `/proc/net/udp`; the socket is found there by its inode. What an address sends beyond its limit
//! is dropped here and counted. Both become gaps, at most one of each in ten seconds.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::RecvFlags;

use super::limit::Rate;
use super::{LOOK_EVERY, Shared, way_of};
use crate::sources::{Item, Notice, Outlet, RecordBatch, Stopped};

/// The receive buffer that is asked for; the kernel gives at most `net.core.rmem_max`.
pub(super) const RECEIVE_BYTES: usize = 8 * 1024 * 1024;
/// No datagram is longer.
const MAX_DATAGRAM_BYTES: usize = 65_536;
/// Addresses whose rates are remembered at once; when there are more, all begin anew.
const MAX_PEERS: usize = 10_000;
/// How long what has arrived is read at the end, at most.
const LAST_READ: Duration = Duration::from_secs(1);
/// How often losses are looked for and told.
const TELL_EVERY: Duration = Duration::from_secs(10);

pub(super) fn bind(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(listen)?;
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BYTES)?;
    Ok(socket)
}

struct Receiver<'a> {
    shared: &'a Shared,
    socket: &'a UdpSocket,
    inode: Option<u64>,
    rates: HashMap<IpAddr, Rate>,
    /// Drops of the kernel that were told.
    told_drops: u64,
    over_limit: (u64, u64),
    looked: Duration,
}

/// Receives until it is told to stop; then what has arrived already.
pub(super) fn run(
    shared: &Shared,
    socket: &UdpSocket,
    outlet: &mut dyn Outlet,
) -> Result<(), Stopped> {
    let inode = rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino);
    if inode.and_then(drops_of).is_none() {
        log::warn!("the kernel does not say what it drops of {}", shared.endpoint);
    }
    let mut receiver = Receiver {
        shared,
        socket,
        inode,
        rates: HashMap::new(),
        told_drops: 0,
        over_limit: (0, 0),
        looked: shared.clock.monotonic(),
    };
    receiver.run(outlet)
}

impl Receiver<'_> {
    fn run(&mut self, outlet: &mut dyn Outlet) -> Result<(), Stopped> {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        let mut batch = self.shared.batch();
        loop {
            let stopping = outlet.is_stopped();
            if stopping {
                self.read_last(&mut buffer, &mut batch, outlet)?;
                self.shared.put(&mut batch, outlet)?;
                return self.tell(outlet, true);
            }
            match self.socket.recv_from(&mut buffer) {
                Ok((len, peer)) => {
                    self.take(&buffer[..len], peer, &mut batch, outlet)?;
                    let _more_comes_next = self.drain(&mut buffer, &mut batch, outlet)?;
                }
                Err(error) if would_block(&error) => {}
                Err(error) => self.shared.trouble(Some(format!("receiving failed: {error}"))),
            }
            self.shared.put(&mut batch, outlet)?;
            self.tell(outlet, false)?;
        }
    }

    /// Takes all that has arrived: after this the kernel throws it away without counting it.
    fn read_last(
        &mut self,
        buffer: &mut [u8],
        batch: &mut RecordBatch,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let until = self.shared.clock.monotonic() + LAST_READ;
        while self.drain(buffer, batch, outlet)? && self.shared.clock.monotonic() < until {}
        Ok(())
    }

    /// Takes what is there without waiting for more; true if there may be more.
    fn drain(
        &mut self,
        buffer: &mut [u8],
        batch: &mut RecordBatch,
        outlet: &mut dyn Outlet,
    ) -> Result<bool, Stopped> {
        for _ in 0..crate::sources::MAX_CHUNK_RECORDS {
            let received = rustix::net::recvfrom(self.socket, &mut *buffer, RecvFlags::DONTWAIT);
            let Ok((_, len, Some(peer))) = received else { return Ok(false) };
            let Ok(peer) = SocketAddr::try_from(peer) else { continue };
            self.take(&buffer[..len], peer, batch, outlet)?;
        }
        Ok(true)
    }

    fn take(
        &mut self,
        datagram: &[u8],
        peer: SocketAddr,
        batch: &mut RecordBatch,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Stopped> {
        let options = &self.shared.options;
        let now = self.shared.clock.monotonic();
        if options.max_bytes_per_second > 0 {
            if self.rates.len() >= MAX_PEERS && !self.rates.contains_key(&peer.ip()) {
                self.rates.clear();
            }
            let new = || Rate::new(options.max_bytes_per_second, now);
            if !self.rates.entry(peer.ip()).or_insert_with(new).allows(datagram.len(), now) {
                self.over_limit.0 += 1;
                self.over_limit.1 += u64::try_from(datagram.len()).unwrap_or(u64::MAX);
                self.shared.refuse("too_much", "A sender is beyond its limit of bytes.", peer);
                return Ok(());
            }
        }
        let end = datagram.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0));
        let message = &datagram[..end.map_or(0, |last| last + 1)];
        let way = way_of(peer);
        if message.len() <= options.max_message_bytes {
            return match message {
                [] => Ok(()),
                message => self.shared.add(batch, (message, None), &way, outlet),
            };
        }
        for (number, piece) in (0..).zip(message.chunks(options.max_message_bytes)) {
            self.shared.add(batch, (piece, Some(number)), &way, outlet)?;
        }
        Ok(())
    }

    /// Tells what was lost since the last time.
    fn tell(&mut self, outlet: &mut dyn Outlet, now: bool) -> Result<(), Stopped> {
        let monotonic = self.shared.clock.monotonic();
        if !now && monotonic.saturating_sub(self.looked) < TELL_EVERY {
            return Ok(());
        }
        self.looked = monotonic;
        let drops = self.inode.and_then(drops_of).unwrap_or(self.told_drops);
        let lost = drops.saturating_sub(self.told_drops);
        self.told_drops = drops;
        if lost > 0 {
            let text = format!(
                "The kernel dropped {lost} datagrams for {}, for they came faster than they were taken.",
                self.shared.endpoint
            );
            let gap = self.shared.gap("udp_dropped", text);
            outlet.put(Item::Gap(Notice { records: Some(lost), ..gap }))?;
        }
        let (records, bytes) = std::mem::take(&mut self.over_limit);
        if records > 0 {
            let text = format!(
                "{records} datagrams for {} were dropped, for their senders were beyond `max_bytes_per_second`.",
                self.shared.endpoint
            );
            let gap = self.shared.gap("udp_over_limit", text);
            outlet.put(Item::Gap(Notice { records: Some(records), bytes: Some(bytes), ..gap }))?;
        }
        self.shared.tell_refusals(outlet, false)
    }
}

fn would_block(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// What the kernel has dropped of the socket with this inode.
fn drops_of(inode: u64) -> Option<u64> {
    ["/proc/net/udp", "/proc/net/udp6"].iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| drops_in(line, inode))
    })
}

/// The columns: sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode, references,
/// pointer, drops.
fn drops_in(line: &str, inode: u64) -> Option<u64> {
    let mut columns = line.split_ascii_whitespace();
    let found: u64 = columns.nth(9)?.parse().ok()?;
    if found != inode {
        return None;
    }
    columns.nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_found_by_the_sockets_inode() {
        let line = " 2087: 0100007F:158A 00000000:0000 07 00000000:00000300 00:00000000 00000000  1000        0 81235 2 0000000000000000 42";
        assert_eq!(drops_in(line, 81_235), Some(42));
        assert_eq!(drops_in(line, 1), None);
        assert_eq!(drops_in("", 1), None);
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        assert_eq!(drops_of(rustix::fs::fstat(&socket).unwrap().st_ino), Some(0));
    }
}
