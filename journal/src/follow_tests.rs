//! Following a journal that is played: damaged headers, and entries that cannot be read.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::files::{Head, Look};
use crate::{
    Entry, EntryReader, Follower, Id128, JournalError, Missing, Pulse, Seek, Step, Target, Wake,
    Way, Why,
};

const ID: Id128 = Id128([7; 16]);

/// A journal of one file.
#[derive(Default)]
struct Played {
    numbers: Vec<u64>,
    /// What the header says.
    tail: u64,
    /// Reading this one fails.
    bad: Option<u64>,
    /// Entries that the header counts and that are not given.
    lacks: u64,
}

#[derive(Clone, Default)]
struct PlayedWay(Rc<RefCell<Played>>);

struct PlayedReader(Rc<RefCell<Played>>, u64);

impl Way for PlayedWay {
    fn open(&self, _: &Target) -> Result<Box<dyn EntryReader>, JournalError> {
        Ok(Box::new(PlayedReader(Rc::clone(&self.0), 0)))
    }

    fn look(&self) -> Result<Look, JournalError> {
        let played = self.0.borrow();
        let head = Head {
            path: PathBuf::from("/played"),
            seqnum_id: ID,
            head_seqnum: 1,
            tail_seqnum: played.tail,
            entries: u64::try_from(played.numbers.len()).unwrap() + played.lacks,
            head_realtime_us: 0,
            tail_realtime_us: played.tail,
            has_common_id: false,
        };
        Ok(Look { good: vec![head], bad: Vec::new() })
    }

    fn target(&self) -> Target {
        Target::Local
    }
}

impl EntryReader for PlayedReader {
    fn seek(&mut self, to: &Seek) -> Result<(), JournalError> {
        self.1 = match to {
            Seek::Head => 0,
            Seek::At(cursor) => {
                let number = cursor.split(';').find_map(|part| part.strip_prefix("i="));
                u64::from_str_radix(number.unwrap(), 16).unwrap()
            }
        };
        Ok(())
    }

    fn next(&mut self, entry: &mut Entry) -> Result<bool, JournalError> {
        let played = self.0.borrow();
        let Some(number) = played.numbers.iter().copied().find(|number| *number >= self.1) else {
            return Ok(false);
        };
        if played.bad == Some(number) {
            let error = std::io::Error::other("bad message");
            return Err(JournalError::Io { what: "reading".into(), error });
        }
        self.1 = number + 1;
        entry.begin(&format!("s={ID};i={number:x};b={ID};m={number:x};t={number:x};x=1"))?;
        Ok(true)
    }

    fn wait(&mut self, _: Duration) -> Result<Wake, JournalError> {
        Ok(Wake::Nothing)
    }

    fn about(&self) -> String {
        "played".into()
    }
}

fn follow(way: &PlayedWay) -> Follower<PlayedWay> {
    Follower::open(way.clone(), Vec::new(), false, Arc::new(Pulse::default())).unwrap()
}

/// Reads to the end; an error is what ends it too.
fn drain(follower: &mut Follower<PlayedWay>) -> (Vec<u64>, Vec<Missing>, Result<(), JournalError>) {
    let (mut numbers, mut lost) = (Vec::new(), Vec::new());
    loop {
        let mut entry = Entry::default();
        match follower.next(&mut entry) {
            Ok(Step::Entry) => numbers.push(entry.cursor().seqnum),
            Ok(Step::Missing(missing)) => lost.push(missing),
            Ok(Step::End) => return (numbers, lost, Ok(())),
            Err(error) => return (numbers, lost, Err(error)),
        }
    }
}

fn audited(follower: &mut Follower<PlayedWay>) -> (Vec<u64>, Vec<Missing>) {
    follower.audit().unwrap();
    let (numbers, lost, ended) = drain(follower);
    ended.unwrap();
    (numbers, lost)
}

#[test]
fn a_header_that_names_numbers_that_never_were_does_not_silence_what_comes() {
    let way = PlayedWay::default();
    way.0.replace(Played { numbers: (1..=3).collect(), tail: 1_000_000, ..Played::default() });
    let mut follower = follow(&way);
    let (numbers, lost) = audited(&mut follower);
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(lost.len(), 1);
    assert_eq!((lost[0].from, lost[0].count()), (4, None));
    assert!(lost[0].text().contains("up to 1000000"), "{}", lost[0].text());
    assert_eq!(follower.seen().of(ID).unwrap().seqnum, 3);
    // It is told once, and what journald goes on to write is read.
    assert_eq!(audited(&mut follower), (vec![], vec![]));
    way.0.borrow_mut().numbers.extend([4, 5]);
    assert_eq!(audited(&mut follower), (vec![4, 5], vec![]));
    // Numbers that were there after all and are not are counted once an entry behind them is read.
    way.0.borrow_mut().numbers.push(9);
    way.0.borrow_mut().lacks = 2;
    let (numbers, lost) = audited(&mut follower);
    assert_eq!(numbers, [9]);
    assert_eq!((lost.len(), lost[0].from, lost[0].to), (1, 6, Some(8)));
    // The file gives as many entries as it should hold: 10 to 11 never were in it.
    way.0.borrow_mut().numbers.push(12);
    way.0.borrow_mut().lacks = 0;
    assert_eq!(audited(&mut follower), (vec![12], vec![]));
}

#[test]
fn an_entry_that_cannot_be_read_is_stepped_over_and_told() {
    let way = PlayedWay::default();
    way.0.replace(Played { numbers: (1..=6).collect(), tail: 6, bad: Some(4), lacks: 0 });
    let mut follower = follow(&way);
    let (numbers, _, ended) = drain(&mut follower);
    assert_eq!(numbers, [1, 2, 3]);
    ended.unwrap_err();
    follower.reopen().unwrap();
    assert!(drain(&mut follower).2.is_err(), "it fails there for ever");
    follower.reopen().unwrap();
    follower.step_over().unwrap();
    let (mut numbers, mut lost) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (more, missing, ended) = drain(&mut follower);
        numbers.extend(more);
        lost.extend(missing);
        if ended.is_ok() {
            break;
        }
        follower.reopen().unwrap();
    }
    assert_eq!(numbers, [5, 6]);
    assert_eq!(lost.len(), 1);
    assert_eq!((lost[0].from, lost[0].to, lost[0].why), (4, Some(4), Why::Corrupt));
    assert_eq!(follower.seen().of(ID).unwrap().seqnum, 6);
}
