use super::*;
use custody_event::Seq;

#[test]
fn blocks_that_come_in_any_order_are_stored_in_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("evidence"), LARGE);
    let blocks = stream(1, 1, 8);
    for group in [[3, 1, 2, 0], [4, 7, 6, 5]] {
        let waiting: Vec<_> =
            group.iter().map(|at| (at, log.submit(&checked(&blocks[*at])).unwrap())).collect();
        for (at, outcome) in waiting {
            let next_seq = blocks[*at].header.seq.next();
            assert_eq!(outcome.blocking_recv().unwrap(), Outcome::Stored { next_seq });
        }
    }
    let found: Vec<Seq> = all(&log).iter().map(|stored| stored.block.header.seq).collect();
    assert_eq!(found, (0..8).map(Seq).collect::<Vec<_>>());
}

#[test]
fn a_block_too_early_is_told_which_one_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("evidence"), LARGE);
    let blocks = stream(1, 1, 40);
    store(&log, &blocks[0]);
    let early = offer(&log, &blocks[2]);
    assert_eq!(early, Outcome::Later { expected_seq: Seq(1) });
    let crowd: Vec<_> =
        blocks[2..].iter().map(|block| log.submit(&checked(block)).unwrap()).collect();
    for outcome in crowd {
        let outcome = outcome.blocking_recv().unwrap();
        assert_eq!(outcome, Outcome::Later { expected_seq: Seq(1) });
    }
    store(&log, &blocks[1]);
    store(&log, &blocks[2]);
}

#[test]
fn the_same_block_twice_under_way_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("evidence"), LARGE);
    let blocks = stream(1, 1, 50);
    for block in &blocks {
        let outcomes = [checked(block), checked(block), checked(block)]
            .map(|checked| log.submit(&checked).unwrap())
            .map(|outcome| outcome.blocking_recv().unwrap());
        let stored = outcomes.iter().filter(|o| matches!(o, Outcome::Stored { .. })).count();
        assert_eq!(stored, 1, "{outcomes:?}");
        assert!(outcomes.iter().all(|outcome| matches!(
            outcome,
            Outcome::Stored { .. } | Outcome::Again { .. } | Outcome::Recheck
        )));
    }
    assert_eq!(all(&log).len(), 50);
}

#[test]
fn a_known_block_is_known_by_its_hash_however_old() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("evidence");
    let blocks = stream(1, 1, 100);
    let log = open(&root, LARGE);
    blocks.iter().for_each(|block| store(&log, block));
    drop(log);
    let log = open(&root, LARGE);
    for block in &blocks {
        assert_eq!(log.known(block).unwrap(), Known::Same);
    }
    let mut more = TestStream::new(1, 1, "aa");
    more.own_event("another first event");
    assert_eq!(log.known(&more.seal()).unwrap(), Known::Another);
    let further = stream(1, 1, 102);
    assert_eq!(log.known(&further[100]).unwrap(), Known::No);
    assert_eq!(log.known(&further[101]).unwrap(), Known::No);
}

#[test]
fn another_past_is_a_fork() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("evidence"), LARGE);
    let blocks = stream(1, 1, 2);
    let mut other = TestStream::new(1, 1, "aa");
    other.own_event("something else");
    other.seal();
    other.own_event("and more");
    store(&log, &blocks[0]);
    assert_eq!(offer(&log, &other.peek()), Outcome::Forked { expected_seq: Seq(1) });
    store(&log, &blocks[1]);
}

#[test]
fn streams_of_two_agents_with_one_id_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("evidence"), LARGE);
    for block in stream(1, 9, 2).iter().chain(&stream(2, 9, 2)) {
        store(&log, block);
    }
    assert_eq!(all(&log).len(), 4);
}
