//! Against a real journald in namespaces of its own. Where that cannot run: skipped, and said.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of this is test code")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use custody_journal::{
    Access, ChildOptions, Entry, EntryReader, Follower, FollowerOptions, JournalError, Library,
    LibraryReader, Mark, Missing, Pulse, Seek, Step, Target, Wake, Way, Why, files, open,
};
use support::PrivateJournald;

macro_rules! or_skip {
    ($started:expr) => {
        match $started {
            Ok(value) => value,
            Err(why) => {
                println!("skipped: no journald of our own here: {why}");
                return;
            }
        }
    };
}

fn both() -> Vec<Access> {
    let mut ways = vec![Access::Journalctl];
    match Library::get() {
        Ok(_) => ways.push(Access::Library),
        Err(error) => println!("skipped: {error}"),
    }
    ways
}

fn options(dir: &Path, access: Access) -> FollowerOptions {
    FollowerOptions {
        target: Target::Directory(dir.into()),
        access,
        child: ChildOptions::default(),
    }
}

fn follow(dir: &Path, access: Access, kept: Vec<Mark>) -> Follower {
    Follower::open(options(dir, access), kept, false, Arc::new(Pulse::default())).unwrap()
}

/// Reads to the end, with an audit.
fn drain<W: Way>(follower: &mut Follower<W>) -> (Vec<Entry>, Vec<Missing>) {
    let (mut entries, mut lost) = (Vec::new(), Vec::new());
    follower.audit().unwrap();
    loop {
        let mut entry = Entry::default();
        match follower.next(&mut entry).unwrap() {
            Step::Entry => entries.push(entry),
            Step::Missing(missing) => lost.push(missing),
            Step::End => return (entries, lost),
        }
    }
}

fn messages(entries: &[Entry], prefix: &str) -> Vec<u64> {
    let texts = entries.iter().filter_map(|entry| entry.text("MESSAGE"));
    texts.filter_map(|text| text.strip_prefix(prefix)?.parse().ok()).collect()
}

/// Nothing is written before journald has taken the connection: it ends a line where the sender that
/// the kernel names changes.
fn write(journald: &mut PrivateJournald, tag: &str, from: u64, to: u64) {
    let seq = format!("seq -f '{tag} %.0f' {from} {to}");
    journald.run(&format!("systemd-cat -t {tag} -p info sh -c \"journalctl --sync; exec {seq}\""));
    journald.sync();
}

#[test]
fn both_ways_give_the_same_bytes_binary_and_long_fields_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    journald.run(
        "logger -t sshd -p auth.info 'Accepted publickey for eva from 192.0.2.7 port 22 ssh2'",
    );
    let long = vec![b'y'; 60_000];
    journald.send(&[
        ("MESSAGE", b"binary"),
        ("BLOB", &[0, 10, 255, 61]),
        ("TWICE", b"a"),
        ("TWICE", b"b"),
    ]);
    journald.send(&[("MESSAGE", "two\nlines \u{e4}".as_bytes()), ("LONG", &long), ("EMPTY", b"")]);
    journald.sync();
    let mut seen: Vec<Vec<Vec<u8>>> = Vec::new();
    for access in both() {
        let (entries, lost) = drain(&mut follow(dir.path(), access, Vec::new()));
        assert_eq!(lost, []);
        let find =
            |text: &str| entries.iter().find(|entry| entry.text("MESSAGE") == Some(text)).unwrap();
        let binary = find("binary");
        assert_eq!(binary.get("BLOB"), Some(&[0, 10, 255, 61][..]));
        assert_eq!(binary.all("TWICE").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(find("two\nlines \u{e4}").get("LONG") == Some(&long[..]));
        assert_eq!(find("two\nlines \u{e4}").get("EMPTY"), Some(&b""[..]));
        seen.push(
            entries
                .iter()
                .map(|entry| {
                    let mut out = Vec::new();
                    entry.write_json(&mut out);
                    out
                })
                .collect(),
        );
    }
    assert!(seen.iter().all(|bytes| *bytes == seen[0]));
    // And what journalctl itself makes of it.
    let theirs = journald.run("journalctl -o json --all BLOB=$'\\xff' + MESSAGE=binary");
    let theirs: serde_json::Value = serde_json::from_str(theirs.trim()).unwrap();
    let ours =
        seen[0].iter().map(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).unwrap());
    let ours = ours.filter(|entry| entry["MESSAGE"] == "binary").collect::<Vec<_>>();
    let sorted = |value: &serde_json::Value| {
        value
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    let (mut ours, mut theirs) = (sorted(&ours[0]), sorted(&theirs));
    // journalctl keeps repeated values in the order of the file.
    assert!(ours.remove("TWICE").is_some() && theirs.remove("TWICE").is_some());
    assert_eq!(ours, theirs);
}

#[test]
fn rotation_and_vacuum_while_reading_lose_nothing_that_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    for access in both() {
        let tag = format!("turn{access:?}");
        let mut follower = follow(dir.path(), access, Vec::new());
        let (mut got, mut lost) = (Vec::new(), Vec::new());
        for round in 0..6 {
            write(&mut journald, &tag, round * 400, round * 400 + 399);
            let (entries, missing) = drain(&mut follower);
            got.extend(messages(&entries, &format!("{tag} ")));
            lost.extend(missing);
            journald.run("journalctl --rotate");
            if round % 2 == 1 {
                journald.run("journalctl --vacuum-files=1 2>/dev/null");
            }
        }
        let (entries, missing) = drain(&mut follower);
        got.extend(messages(&entries, &format!("{tag} ")));
        lost.extend(missing);
        assert_eq!(got, (0..2_400).collect::<Vec<_>>());
        assert_eq!(lost, []);
    }
}

#[test]
fn what_was_vacuumed_unread_is_told_with_its_exact_range() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    write(&mut journald, "early", 0, 99);
    let mut first = follow(dir.path(), Access::Auto, Vec::new());
    let (entries, _) = drain(&mut first);
    assert_eq!(messages(&entries, "early "), (0..100).collect::<Vec<_>>());
    let kept: Vec<Mark> = first.seen().marks().cloned().collect();
    drop(first);
    write(&mut journald, "lost", 0, 499);
    journald.run("journalctl --rotate");
    write(&mut journald, "late", 0, 99);
    journald.run("journalctl --vacuum-files=1 2>/dev/null");
    for access in both() {
        let mut second = follow(dir.path(), access, kept.clone());
        let (entries, lost) = drain(&mut second);
        assert_eq!(messages(&entries, "late "), (0..100).collect::<Vec<_>>());
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert_eq!((lost[0].why, lost[0].from), (Why::Vacuumed, kept[0].seqnum + 1));
        assert!(lost[0].count().unwrap() >= 500);
        let next = entries.first().unwrap().cursor().seqnum;
        assert_eq!(lost[0].to, Some(next - 1), "{}", lost[0].text());
    }
}

#[test]
fn a_restart_at_any_entry_gives_every_entry_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    write(&mut journald, "again", 0, 149);
    journald.run("journalctl --rotate");
    write(&mut journald, "again", 150, 299);
    for access in both() {
        let (mut kept, mut got) = (Vec::new(), Vec::new());
        for stop_after in [0, 1, 7, 150, 1, 90, 1_000] {
            let mut follower = follow(dir.path(), access.clone(), kept);
            let mut entry = Entry::default();
            for _ in 0..stop_after {
                match follower.next(&mut entry).unwrap() {
                    Step::Entry => got.extend(messages(std::slice::from_ref(&entry), "again ")),
                    Step::Missing(missing) => panic!("{}", missing.text()),
                    Step::End => break,
                }
            }
            kept = follower.seen().marks().cloned().collect();
        }
        assert_eq!(got, (0..300).collect::<Vec<_>>(), "{access:?}");
    }
}

/// Three files: what the first and the last hold is read, whatever happens to the second.
fn three_files(journald: &mut PrivateJournald) -> Vec<std::path::PathBuf> {
    for file in 0..3 {
        write(journald, "part", file * 1_000, file * 1_000 + 999);
        if file < 2 {
            journald.run("journalctl --rotate");
        }
    }
    let target = Target::Directory(journald.files_dir());
    let mut good = files::look(&target).unwrap().good;
    good.sort_by_key(|head| head.head_seqnum);
    good.into_iter().map(|head| head.path).collect()
}

#[test]
fn a_file_that_cannot_be_opened_is_a_gap_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    let paths = three_files(&mut journald);
    std::fs::OpenOptions::new().write(true).open(&paths[1]).unwrap().write_at(&[0; 64], 0).unwrap();
    // journalctl leaves such a file out as the library does.
    for access in both() {
        let (entries, lost) = drain(&mut follow(dir.path(), access, Vec::new()));
        let expected: Vec<u64> = (0..1_000).chain(2_000..3_000).collect();
        assert_eq!(messages(&entries, "part "), expected);
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert_eq!((lost[0].why, &lost[0].files), (Why::Unreadable, &vec![paths[1].clone()]));
        assert!(lost[0].count().unwrap() >= 1_000);
    }
}

#[test]
fn a_file_that_is_damaged_within_gives_what_can_be_read_and_names_itself_for_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    let paths = three_files(&mut journald);
    let size = std::fs::metadata(&paths[1]).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&paths[1]).unwrap();
    file.write_at(&vec![0xa5; 64 * 1024], size / 2).unwrap();
    if !both().contains(&Access::Library) {
        return;
    }
    let (entries, lost) = drain(&mut follow(dir.path(), Access::Library, Vec::new()));
    let got = messages(&entries, "part ");
    let mut sorted = got.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(got.len(), sorted.len(), "nothing twice");
    assert!((0..1_000).chain(2_000..3_000).all(|n| sorted.binary_search(&n).is_ok()));
    println!("read {} of 3000; {lost:?}", got.len());
    assert!(lost.iter().all(|lost| lost.files.contains(&paths[1])), "{lost:?}");
    // Every number is an entry or in a gap.
    let numbers = entries.len()
        + usize::try_from(lost.iter().filter_map(Missing::count).sum::<u64>()).unwrap();
    let last = entries.iter().map(|entry| entry.cursor().seqnum).max().unwrap();
    let first = entries.iter().map(|entry| entry.cursor().seqnum).min().unwrap();
    assert_eq!(u64::try_from(numbers).unwrap(), last - first + 1);
}

#[test]
fn entries_that_arrive_behind_the_reader_are_given_all_the_same() {
    // Files of two machines in one folder: the second arrives when the first has been read.
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let remote = tempfile::tempdir().unwrap();
    let mut old = or_skip!(PrivateJournald::start(one.path()));
    write(&mut old, "old", 0, 199);
    let mut new = PrivateJournald::start(two.path()).unwrap();
    write(&mut new, "new", 0, 199);
    let copy = |from: &PrivateJournald, name: &str| {
        std::fs::copy(from.files_dir().join("system.journal"), remote.path().join(name)).unwrap();
    };
    for access in both() {
        copy(&new, "remote-b.journal");
        let mut follower = follow(remote.path(), access, Vec::new());
        let (entries, lost) = drain(&mut follower);
        assert_eq!(messages(&entries, "new "), (0..200).collect::<Vec<_>>());
        copy(&old, "remote-a.journal");
        let (entries, more) = drain(&mut follower);
        assert_eq!(messages(&entries, "old "), (0..200).collect::<Vec<_>>());
        assert_eq!((lost, more), (vec![], vec![]));
        std::fs::remove_file(remote.path().join("remote-a.journal")).unwrap();
    }
}

/// Entries of a user, which journald keeps in a file of his own.
fn write_as(journald: &mut PrivateJournald, uid: u32, tag: &str, from: u64, to: u64) {
    let user = format!("setpriv --reuid={uid} --regid={uid} --clear-groups");
    journald.run(&format!("seq -f '{tag} %.0f' {from} {to} | {user} systemd-cat -t {tag} -p info"));
    journald.sync();
}

/// systemd before 254 counts the entries of all files with one counter, and gives each user's files
/// a sequence id of their own: every sequence has holes, and nothing is lost.
#[test]
fn users_entries_between_the_systems_are_no_holes_in_either() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    let mut round = 0;
    let mut more = |journald: &mut PrivateJournald| {
        write(journald, "sys", round * 10, round * 10 + 9);
        write_as(journald, 1001, "eva", round * 10, round * 10 + 9);
        if round % 3 == 2 {
            write_as(journald, 1002, "tom", round, round);
            journald.run("journalctl --rotate");
        }
        round += 1;
        round
    };
    while more(&mut journald) < 4 {}
    for access in both() {
        let (mut kept, mut entries) = (Vec::new(), Vec::new());
        let mut rounds = 0;
        for step in 0..9 {
            let mut follower = follow(dir.path(), access.clone(), kept);
            let (got, lost) = drain(&mut follower);
            assert_eq!(lost, []);
            entries.extend(got);
            rounds = more(&mut journald);
            if step % 2 == 0 {
                let (got, lost) = drain(&mut follower);
                assert_eq!(lost, []);
                entries.extend(got);
                rounds = more(&mut journald);
            }
            kept = follower.seen().marks().cloned().collect();
        }
        let (got, lost) = drain(&mut follow(dir.path(), access, kept));
        assert_eq!(lost, []);
        entries.extend(got);
        assert_eq!(messages(&entries, "sys "), (0..rounds * 10).collect::<Vec<_>>());
        assert_eq!(messages(&entries, "eva "), (0..rounds * 10).collect::<Vec<_>>());
        let toms: Vec<u64> = (0..rounds).filter(|round| round % 3 == 2).collect();
        assert_eq!(messages(&entries, "tom "), toms);
    }
}

#[test]
fn a_user_who_was_quiet_while_the_systems_files_were_vacuumed_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    write_as(&mut journald, 1001, "eva", 0, 0);
    write(&mut journald, "sys", 0, 9);
    let (mut kept, mut count) = (Vec::new(), 1);
    for access in both() {
        let mut follower = follow(dir.path(), access, kept);
        assert_eq!(drain(&mut follower).1, []);
        for round in 0..3 {
            write(&mut journald, "sys", round * 10, round * 10 + 9);
            journald.run("journalctl --rotate");
            assert_eq!(drain(&mut follower).1, []);
        }
        for entry in std::fs::read_dir(journald.files_dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("system@") {
                std::fs::remove_file(path).unwrap();
            }
        }
        kept = follower.seen().marks().cloned().collect();
        write_as(&mut journald, 1001, "eva", count, count);
        for follower in [&mut follower, &mut follow(dir.path(), Access::Auto, kept.clone())] {
            let (entries, lost) = drain(follower);
            assert_eq!((messages(&entries, "eva "), lost), (vec![count], vec![]));
        }
        count += 1;
        kept = follower.seen().marks().cloned().collect();
    }
}

/// What is lost is told although others have numbers between, and nothing more than that.
#[test]
fn a_damaged_file_of_a_user_is_a_gap_and_the_systems_entries_between_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    let mut read = follow(dir.path(), Access::Auto, Vec::new());
    drain(&mut read);
    let kept: Vec<Mark> = read.seen().marks().cloned().collect();
    for round in 0..20 {
        write(&mut journald, "sys", round * 50, round * 50 + 49);
        write_as(&mut journald, 1001, "eva", round * 50, round * 50 + 49);
    }
    let path = journald.files_dir().join("user-1001.journal");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let size = file.metadata().unwrap().len();
    // journald gives files room for more than they hold.
    let used = files::look(&Target::Directory(journald.files_dir())).unwrap();
    let used = used.good.iter().find(|head| head.path == path).unwrap().entries * 500;
    file.write_at(&[0xa5; 4 * 1024], (size / 2).min(used)).unwrap();
    for (round, access) in both().into_iter().enumerate() {
        let mut follower = follow(dir.path(), access, kept.clone());
        let (entries, lost) = drain(&mut follower);
        assert_eq!(messages(&entries, "sys "), (0..1_000).collect::<Vec<_>>());
        let evas = messages(&entries, "eva ");
        let told: u64 = lost.iter().filter_map(Missing::count).sum();
        println!("{round}: {} of 1000 of the user; {lost:?}", evas.len());
        assert!(lost.iter().all(|lost| lost.files.contains(&path)), "{lost:?}");
        assert!(evas.is_sorted() && u64::try_from(evas.len()).unwrap() + told == 1_000);
    }
}

#[test]
fn what_a_user_wrote_and_was_vacuumed_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    write_as(&mut journald, 1001, "eva", 0, 9);
    write(&mut journald, "sys", 0, 9);
    let mut read = follow(dir.path(), Access::Auto, Vec::new());
    drain(&mut read);
    let kept: Vec<Mark> = read.seen().marks().cloned().collect();
    write(&mut journald, "sys", 10, 19);
    write_as(&mut journald, 1001, "eva", 10, 19);
    write(&mut journald, "sys", 20, 29);
    journald.run("journalctl --rotate");
    for entry in std::fs::read_dir(journald.files_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("user-1001@") {
            std::fs::remove_file(path).unwrap();
        }
    }
    write(&mut journald, "sys", 30, 39);
    // The system's entries are read, and only after a restart one of the user shows that some are lost.
    let mut read = follow(dir.path(), Access::Auto, kept);
    let (entries, lost) = drain(&mut read);
    assert_eq!((messages(&entries, "sys "), lost), ((10..40).collect(), vec![]));
    let kept: Vec<Mark> = read.seen().marks().cloned().collect();
    write_as(&mut journald, 1001, "eva", 20, 29);
    for access in both() {
        let (entries, lost) = drain(&mut follow(dir.path(), access, kept.clone()));
        assert_eq!(messages(&entries, "eva "), (20..30).collect::<Vec<_>>());
        let told: u64 = lost.iter().filter_map(Missing::count).sum();
        assert!(lost.iter().all(|lost| lost.why == Why::Vacuumed), "{lost:?}");
        assert_eq!(told, 10, "{lost:?}");
    }
}

#[test]
fn a_start_at_the_end_gives_what_comes_and_nothing_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    write(&mut journald, "before", 0, 99);
    for access in both() {
        let tag = format!("after{access:?}");
        let options = options(dir.path(), access);
        let mut follower = Follower::open(options, Vec::new(), true, Arc::default()).unwrap();
        write(&mut journald, &tag, 0, 99);
        let (entries, lost) = drain(&mut follower);
        assert_eq!(messages(&entries, &format!("{tag} ")), (0..100).collect::<Vec<_>>());
        assert!(messages(&entries, "before ").is_empty());
        assert_eq!(lost, []);
    }
}

#[test]
fn a_wait_ends_when_something_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    for access in both() {
        let mut follower = follow(dir.path(), access, Vec::new());
        drain(&mut follower);
        while follower.wait(Duration::from_millis(20)).unwrap() != Wake::Nothing {
            drain(&mut follower);
        }
        journald.run("logger -t wake hello");
        let mut got = 0;
        for _ in 0..100 {
            follower.wait(Duration::from_millis(100)).unwrap();
            got += drain(&mut follower)
                .0
                .iter()
                .filter(|e| e.text("MESSAGE") == Some("hello"))
                .count();
            if got > 0 {
                break;
            }
        }
        assert_eq!(got, 1);
    }
}

#[test]
fn a_journal_set_back_to_a_copy_is_told_and_what_is_newer_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    write(&mut journald, "kept", 0, 99);
    let files = journald.files_dir();
    let copy = tempfile::tempdir().unwrap();
    drop(journald);
    std::fs::copy(files.join("system.journal"), copy.path().join("system.journal")).unwrap();
    let mut journald = PrivateJournald::start(dir.path()).unwrap();
    write(&mut journald, "undone", 0, 99);
    let mut follower = follow(dir.path(), Access::Auto, Vec::new());
    drain(&mut follower);
    let kept: Vec<Mark> = follower.seen().marks().cloned().collect();
    drop((follower, journald));
    for entry in std::fs::read_dir(&files).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    std::fs::copy(copy.path().join("system.journal"), files.join("system.journal")).unwrap();
    let mut journald = PrivateJournald::start(dir.path()).unwrap();
    write(&mut journald, "newer", 0, 9);
    for access in both() {
        let mut follower = follow(dir.path(), access, kept.clone());
        let (entries, lost) = drain(&mut follower);
        assert_eq!(messages(&entries, "newer "), (0..10).collect::<Vec<_>>());
        assert!(messages(&entries, "kept ").is_empty());
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert_eq!(lost[0].why, Why::SetBack);
        assert_eq!(follower.seen().newest().unwrap().generation, 1);
    }
}

#[test]
fn matches_and_cursors_of_the_library_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    write(&mut journald, "one", 0, 9);
    write(&mut journald, "two", 0, 9);
    let Ok(library) = Library::get() else {
        println!("skipped: no library");
        return;
    };
    let target = Target::Directory(dir.path().into());
    let mut reader = LibraryReader::open(library, &target).unwrap();
    reader.add_match(b"SYSLOG_IDENTIFIER=two").unwrap();
    reader.seek(&Seek::Head).unwrap();
    let (mut entry, mut got) = (Entry::default(), Vec::new());
    while reader.next(&mut entry).unwrap() {
        got.push(entry.clone());
    }
    assert_eq!(messages(&got, "two "), (0..10).collect::<Vec<_>>());
    assert_eq!(got.len(), 10);
    reader.flush_matches();
    reader.seek(&Seek::At(got[3].cursor_text().into())).unwrap();
    assert!(reader.next(&mut entry).unwrap());
    assert!(reader.test_cursor(got[3].cursor_text()).unwrap());
    assert!(!reader.test_cursor(got[4].cursor_text()).unwrap());
    assert_eq!(entry, got[3]);
    assert!(matches!(
        reader.seek(&Seek::At("nonsense".into())),
        Err(JournalError::Call { call: "sd_journal_seek_cursor", .. })
    ));
    let nowhere = ChildOptions { program: "/nowhere/journalctl".into(), ..ChildOptions::default() };
    assert!(open(&target, &Access::Auto, &nowhere).unwrap().about().contains("libsystemd"));
}

/// Short here; `CUSTODY_LONG=1 cargo test --release -p custody-journal --test live speed -- --nocapture`
/// reads a million.
#[test]
fn speed_of_following_and_no_number_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut journald = or_skip!(PrivateJournald::start(dir.path()));
    let count: u64 = if std::env::var_os("CUSTODY_LONG").is_some() { 1_000_000 } else { 20_000 };
    // journald's socket is slower than any reader: in parts, with rotations.
    for from in (0..count).step_by(200_000) {
        let to = (from + 200_000).min(count) - 1;
        write(&mut journald, "speed", from, to);
        journald.run("journalctl --rotate");
    }
    for access in both() {
        let mut follower = follow(dir.path(), access.clone(), Vec::new());
        let (mut entry, mut json, mut next, mut bytes) = (Entry::default(), Vec::new(), 0, 0);
        let begun = std::time::Instant::now();
        loop {
            match follower.next(&mut entry).unwrap() {
                Step::Entry => {}
                Step::Missing(missing) => panic!("{}", missing.text()),
                Step::End => break,
            }
            json.clear();
            entry.write_json(&mut json);
            bytes += json.len();
            if let Some(number) = entry.text("MESSAGE").and_then(|text| text.strip_prefix("speed "))
            {
                assert_eq!(number.parse::<u64>().unwrap(), next);
                next += 1;
            }
        }
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(next, count);
        println!("{access:?}: {count} entries, {bytes} bytes of JSON in {took:.2} s");
    }
}
