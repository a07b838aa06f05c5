use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::sync::Mutex;
use std::time::Instant;

use custody_event::SystemClock;

use super::*;

/// Keeps what is put.
#[derive(Clone, Default)]
struct Kept {
    items: Arc<Mutex<Vec<Item>>>,
    stop: custody_config::shell::StopToken,
}

impl Outlet for Kept {
    fn put(&mut self, item: Item) -> Result<(), Stopped> {
        self.items.lock().unwrap().push(item);
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    fn is_stopped_after(&self, wait: Duration) -> bool {
        self.stop.wait_timeout(wait)
    }
}

impl Kept {
    fn messages(&self) -> Vec<(String, Option<u32>)> {
        let mut found = Vec::new();
        for item in self.items.lock().unwrap().iter() {
            let Item::Batch(batch) = item else { continue };
            let mut from = 0;
            for record in &batch.records {
                let text = std::str::from_utf8(&batch.bytes[from..record.end]).unwrap();
                assert!(batch.ways[record.way].details[0].1.starts_with("127.0.0.1:"));
                found.push((text.to_owned(), record.segment));
                from = record.end;
            }
        }
        found
    }

    fn offsets(&self) -> Vec<u64> {
        let items = self.items.lock().unwrap();
        let batches = items.iter().filter_map(|item| match item {
            Item::Batch(batch) => Some(batch),
            _ => None,
        });
        batches.flat_map(|batch| batch.records.iter().map(|record| record.offset.get())).collect()
    }

    fn has(&self, wanted: impl Fn(&Item) -> bool) -> bool {
        self.items.lock().unwrap().iter().any(wanted)
    }

    fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.messages());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_stop_takes_every_datagram_that_has_arrived_however_many() {
    let socket = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let to = socket.local_addr().unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..4_000 {
        sender.send_to(format!("message {number}").as_bytes(), to).unwrap();
    }
    let clock = Arc::new(SystemClock::new());
    let options = options(Transport::Udp, to);
    let source = SyslogSource::new(options, SourceIndex(0), clock, [7; 16], Arc::default());
    let mut kept = Kept::default();
    kept.stop.stop();
    udp::run(&source.shared, &socket, &mut kept).unwrap();
    let dropped = kept.items.lock().unwrap().iter().fold(0, |sum, item| match item {
        Item::Gap(notice) => sum + usize::try_from(notice.records.unwrap()).unwrap(),
        _ => sum,
    });
    assert_eq!(kept.messages().len() + dropped, 4_000, "{dropped} were dropped");
}

struct Running {
    kept: Kept,
    address: SocketAddr,
    thread: std::thread::JoinHandle<Result<(), Stopped>>,
}

/// Asks the kernel for a free port; the source binds it again at once.
fn free_address(udp: bool) -> SocketAddr {
    if udp {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    } else {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }
}

fn options(transport: Transport, listen: SocketAddr) -> Options {
    Options {
        listen,
        transport,
        max_message_bytes: 1024,
        max_connections: 8,
        max_connections_per_peer: 4,
        max_bytes_per_second: 0,
        idle_timeout: Duration::from_secs(60),
    }
}

fn run(transport: Transport, change: impl FnOnce(&mut Options)) -> Running {
    let listen = free_address(matches!(transport, Transport::Udp));
    let mut options = options(transport, listen);
    change(&mut options);
    let kept = Kept::default();
    let clock = Arc::new(SystemClock::new());
    let source = SyslogSource::new(options, SourceIndex(0), clock, [7; 16], Arc::default());
    let outlet = kept.clone();
    let thread = std::thread::spawn(move || source.run(outlet));
    Running { kept, address: listen, thread }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let begun = Instant::now();
        loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => return stream,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) -> Kept {
        self.kept.stop.stop();
        assert_eq!(self.thread.join().unwrap(), Ok(()));
        self.kept
    }
}

fn whole(text: &str) -> (String, Option<u32>) {
    (text.to_owned(), None)
}

#[test]
fn tcp_takes_both_framings_and_what_had_arrived_when_it_was_stopped() {
    let running = run(Transport::Tcp, |_| {});
    let mut stream = running.connect();
    stream.write_all(b"<13>one\n7 <14>two<15>thr").unwrap();
    running.kept.wait("two messages", |kept| kept.messages().len() == 2);
    stream.write_all(b"ee\n<16>last").unwrap();
    let kept = running.stop();
    assert_eq!(kept.messages(), ["<13>one", "<14>two", "<15>three", "<16>last"].map(whole));
    assert_eq!(kept.offsets(), [0, 1, 2, 3]);
}

#[test]
fn a_long_message_comes_in_segments_and_a_short_one_is_a_gap() {
    let running = run(Transport::Tcp, |options| options.max_message_bytes = 8);
    let mut stream = running.connect();
    stream.write_all(b"<1>34567890\n99 <2>x").unwrap();
    drop(stream);
    running.kept.wait("a gap", |kept| kept.has(|item| matches!(item, Item::Gap(_))));
    let kept = running.stop();
    assert_eq!(
        kept.messages(),
        [("<1>34567".to_owned(), Some(0)), ("890".to_owned(), Some(1)), whole("<2>x")]
    );
    assert!(kept.has(|item| matches!(
        item,
        Item::Gap(Notice { code: "message_cut_short", bytes: Some(95), .. })
    )));
}

#[test]
fn a_peer_with_too_many_connections_is_turned_away_and_told_of() {
    let running = run(Transport::Tcp, |options| options.max_connections_per_peer = 1);
    let mut first = running.connect();
    first.write_all(b"<1>a\n").unwrap();
    running.kept.wait("the first", |kept| kept.messages().len() == 1);
    let _second = running.connect();
    running.kept.wait("the refusal", |kept| {
        kept.has(
            |item| matches!(item, Item::Refused(refused) if refused.code == "too_many_connections"),
        )
    });
    first.write_all(b"<1>b\n").unwrap();
    running.kept.wait("the first goes on", |kept| kept.messages().len() == 2);
    running.stop();
}

#[test]
fn datagrams_are_messages_and_what_is_over_the_limit_is_counted_as_lost() {
    let running = run(Transport::Udp, |options| {
        options.max_message_bytes = 480;
        options.max_bytes_per_second = 1000;
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    // Until the source has bound, nobody takes a datagram.
    while running.kept.messages().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        socket.send_to(b"<1>x", running.address).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = running.kept.messages().len();
    socket.send_to(&[b'y'; 500], running.address).unwrap();
    running.kept.wait("two segments", |kept| kept.messages().len() >= before + 2);
    for _ in 0..5 {
        socket.send_to(&[b'z'; 480], running.address).unwrap();
    }
    running.kept.wait("three more", |kept| {
        kept.messages().iter().filter(|(text, _)| text.starts_with('z')).count() >= 2
    });
    let kept = running.stop();
    let stored = kept.messages().iter().filter(|(text, _)| text.starts_with('z')).count();
    let lost: u64 = kept
        .items
        .lock()
        .unwrap()
        .iter()
        .filter_map(|item| match item {
            Item::Gap(gap) if gap.code == "udp_over_limit" => gap.records,
            _ => None,
        })
        .sum();
    assert_eq!(u64::try_from(stored).unwrap() + lost, 5);
}
