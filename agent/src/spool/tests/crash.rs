//! A writer that is killed, again and again: what it said was durable is there.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use super::*;

const DIR: &str = "CUSTODY_TEST_SPOOL_DIR";

/// Not a test of its own: the child of the one below, which sets the environment.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (spool, opened) = open(Path::new(&dir), &options(64 << 20));
    assert!(opened.quarantined.is_none() && opened.rolled_back.is_none(), "{opened:?}");
    spool.register_outputs(&["a"]).wait().unwrap();
    let mut tickets = std::collections::VecDeque::new();
    let mut out = std::io::stdout().lock();
    for seq in opened.next_seq.. {
        let len = usize::try_from(seq % 7).unwrap() * 30_000;
        tickets.push_back((seq, spool.append(batch(seq, len)).unwrap()));
        if tickets.len() > 6 {
            let (seq, ticket) = tickets.pop_front().unwrap();
            ticket.wait().unwrap();
            writeln!(out, "durable {seq}").unwrap();
            out.flush().unwrap();
            spool.ack("a", 0, seq.saturating_sub(20)).unwrap();
        }
    }
}

#[test]
fn twenty_kills_lose_nothing_that_was_said_to_be_durable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut durable = None;
    for round in 0..20_u64 {
        let mut child =
            child("spool::tests::crash::child_that_appends_until_it_is_killed", &[(DIR, path)])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
        let wanted = durable.map_or(0, |seq| seq + 1) + 3 + round * 7;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            if let Some((_, seq)) = line.unwrap().split_once("durable ") {
                let seq: u64 = seq.parse().unwrap();
                durable = Some(seq);
                if seq >= wanted {
                    break;
                }
            }
        }
        assert!(
            durable.is_some_and(|seq| seq >= wanted),
            "the child ended by itself in round {round}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            durable = line.split_once("durable ").and_then(|(_, seq)| seq.parse().ok()).or(durable);
        }
        let (spool, opened) = open(dir.path(), &options(64 << 20));
        assert!(opened.quarantined.is_none() && opened.rolled_back.is_none(), "{opened:?}");
        assert!(opened.next_seq > durable.unwrap() && position(&spool) == opened.next_seq);
        for seq in opened.first_seq..opened.next_seq {
            let len = usize::try_from(seq % 7).unwrap() * 30_000;
            assert!(spool.read(seq).wait().unwrap().unwrap() == block(seq, 0, len), "block {seq}");
        }
        shut(spool);
    }
}
