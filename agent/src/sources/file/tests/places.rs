//! Where files stand: links, directories, permissions, and limits on how many are open.

use super::*;
use std::os::unix::fs::{PermissionsExt as _, symlink};

#[test]
fn two_names_of_one_inode_are_read_once() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", numbered(0..3));
    fs::hard_link(bench.path("a.log"), bench.path("b.log")).unwrap();
    symlink(bench.path("a.log"), bench.path("c.log")).unwrap();
    bench.settle();
    bench.append("b.log", numbered(3..5));
    bench.settle();
    bench.restart();
    bench.settle();
    assert_eq!(bench.lines(), expected(0..5));
}

#[test]
fn a_link_that_is_turned_to_a_new_file_is_followed_after_the_old_one_is_read() {
    let mut bench = Bench::new("current.log");
    bench.append("data-1", numbered(0..3));
    symlink(bench.path("data-1"), bench.path("current.log")).unwrap();
    bench.settle();
    bench.append("data-1", numbered(3..5));
    bench.append("data-2", numbered(5..8));
    fs::remove_file(bench.path("current.log")).unwrap();
    symlink(bench.path("data-2"), bench.path("current.log")).unwrap();
    bench.settle();
    assert_eq!(bench.lines(), expected(0..8));
}

#[test]
fn directories_that_appear_later_are_searched_and_excluded_names_are_not_read() {
    let mut bench = Bench::with("logs/**/*.log", |options| options.exclude = vec!["debug*".into()]);
    bench.settle();
    fs::create_dir_all(bench.path("logs/x/y")).unwrap();
    bench.append("logs/top.log", "top\n");
    bench.append("logs/x/y/deep.log", "deep\n");
    bench.append("logs/x/y/debug.log", "no\n");
    bench.settle();
    let mut lines = bench.lines();
    lines.sort();
    assert_eq!(lines, ["deep", "top"]);
}

#[test]
fn a_file_without_permission_is_trouble_with_a_remedy_and_is_read_when_it_may_be() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", "one\n");
    let set = |mode| {
        fs::set_permissions(bench.dir.path().join("a.log"), fs::Permissions::from_mode(mode))
            .unwrap()
    };
    set(0o000);
    if File::open(bench.path("a.log")).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    bench.scans(3);
    bench.expect(&[]);
    assert!(bench.tailer.state().trouble.unwrap().contains("setfacl"));
    let set = |mode| {
        fs::set_permissions(bench.dir.path().join("a.log"), fs::Permissions::from_mode(mode))
            .unwrap()
    };
    set(0o644);
    bench.scans(3);
    bench.expect(&["one"]);
    assert_eq!(bench.tailer.state().trouble, None);
    bench.expect_no_gaps();
}

#[test]
fn what_cannot_be_listed_is_trouble_and_its_files_are_not_taken_for_gone() {
    let mut bench = Bench::new("logs/*.log");
    fs::create_dir(bench.path("logs")).unwrap();
    bench.append("logs/a.log", "one\nha");
    bench.settle();
    fs::rename(bench.path("logs"), bench.path("away")).unwrap();
    // A link onto itself cannot be looked at.
    symlink(bench.path("logs"), bench.path("logs")).unwrap();
    bench.scans(50);
    bench.expect(&["one"]);
    assert!(bench.tailer.state().trouble.is_some());
    fs::remove_file(bench.path("logs")).unwrap();
    fs::rename(bench.path("away"), bench.path("logs")).unwrap();
    bench.append("logs/a.log", "lf\n");
    bench.settle();
    bench.expect(&["one", "half"]);
    assert_eq!(bench.tailer.state().trouble, None);
}

#[test]
fn two_thousand_files_are_read_with_few_descriptors() {
    let mut bench = Bench::with("*.log", |options| options.max_open_files = 64);
    for round in 0..3 {
        for n in 0..2_000 {
            bench.append(&format!("worker-{n}.log"), format!("{n} {round}\n"));
        }
        bench.settle();
        let open = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(Result::ok)
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter(|target| target.starts_with(bench.dir.path()))
            .count();
        assert!(open <= 64, "{open} open");
        if round == 1 {
            bench.restart();
        }
    }
    let mut lines = bench.lines();
    assert_eq!(lines.len(), 6_000);
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 6_000);
}

#[test]
fn one_big_file_does_not_keep_the_others_waiting() {
    let mut bench = Bench::new("*.log");
    bench.append("a.log", numbered(0..400_000));
    bench.append("b.log", "small\n");
    bench.tailer.step(&mut bench.sink).unwrap();
    assert!(bench.lines().contains(&"small".to_owned()));
    assert!(bench.tailer.state().behind_bytes > 1_000_000);
}

#[test]
fn a_closed_file_that_is_renamed_and_written_is_found_again() {
    let mut bench = Bench::with("a*.log", |options| options.max_open_files = 0);
    bench.append("a.log", numbered(0..3));
    bench.settle();
    bench.append("a.log", numbered(3..5));
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", numbered(5..7));
    bench.scans(5);
    assert_eq!(bench.lines(), expected(0..7));
    bench.expect_no_gaps();
}

#[test]
fn loops_of_links_end_and_a_changed_target_is_read_from_its_first_byte() {
    let mut bench = Bench::new("logs/**/*.log");
    fs::create_dir_all(bench.path("logs/x")).unwrap();
    symlink(bench.path("logs"), bench.path("logs/x/up")).unwrap();
    symlink(bench.path("logs/x"), bench.path("logs/x/self")).unwrap();
    symlink(bench.path("logs/nowhere"), bench.path("logs/dangling.log")).unwrap();
    bench.append("logs/x/a.log", numbered(0..3));
    bench.settle();
    assert_eq!(bench.lines(), expected(0..3), "read once, by whichever name");
    assert!(bench.tailer.found.files.len() < 100, "{}", bench.tailer.found.files.len());
    fs::create_dir(bench.path("release-1")).unwrap();
    fs::create_dir(bench.path("release-2")).unwrap();
    bench.append("release-1/b.log", numbered(3..5));
    bench.append("release-2/b.log", numbered(5..8));
    symlink(bench.path("release-1"), bench.path("logs/current")).unwrap();
    bench.settle();
    fs::remove_file(bench.path("logs/current")).unwrap();
    symlink(bench.path("release-2"), bench.path("logs/current")).unwrap();
    bench.scans(40);
    assert_eq!(bench.lines(), expected(0..8));
    bench.expect_no_gaps();
}

#[test]
fn a_closed_file_whose_permission_is_lost_waits_and_goes_on_without_a_gap() {
    let mut bench = Bench::with("*.log", |options| options.max_open_files = 0);
    bench.append("a.log", numbered(0..3));
    bench.settle();
    let path = bench.path("a.log");
    let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    bench.append("a.log", numbered(3..5));
    set(0o000);
    if File::open(&path).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    bench.scans(30);
    assert_eq!(bench.lines(), expected(0..3));
    let state = bench.tailer.state();
    assert!(state.trouble.unwrap().contains("setfacl"));
    assert!(state.behind_bytes > 0);
    bench.restart();
    bench.scans(10);
    assert!(bench.tailer.state().trouble.is_some());
    set(0o644);
    bench.scans(100);
    assert_eq!(bench.lines(), expected(0..5));
    assert_eq!(bench.tailer.state().trouble, None);
    bench.expect_no_gaps();
}

#[test]
fn no_more_files_are_open_at_once_than_allowed_not_even_at_the_first_look() {
    let mut bench = Bench::with("*.log", |options| options.max_open_files = 80);
    for n in 0..300 {
        bench.append(&format!("worker-{n}.log"), format!("{n}\n"));
    }
    let open = |bench: &Bench| bench.tailer.open_files();
    bench.tailer.scan(&mut bench.sink).unwrap();
    assert!(open(&bench) <= 80, "{}", open(&bench));
    bench.tailer.round(None, &mut bench.sink).unwrap();
    assert!(open(&bench) <= 80, "{}", open(&bench));
    bench.settle();
    assert_eq!(bench.lines().len(), 300);
}

#[test]
fn a_notification_reads_the_file_that_it_names_open_or_closed_and_by_any_name() {
    for max_open in [0, 512] {
        let mut bench = Bench::with("logs/*.log", |options| options.max_open_files = max_open);
        fs::create_dir(bench.path("logs")).unwrap();
        for name in ["a", "b"] {
            bench.append(&format!("logs/{name}.log"), format!("{name} 1\n"));
        }
        bench.append("far", "far 1\n");
        symlink(bench.path("far"), bench.path("logs/c.log")).unwrap();
        fs::hard_link(bench.path("logs/b.log"), bench.path("logs/d.log")).unwrap();
        bench.settle();
        for (written, named) in
            [("logs/a.log", "logs/a.log"), ("logs/b.log", "logs/d.log"), ("far", "far")]
        {
            bench.append(written, "2\n");
            let before = bench.lines().len();
            let path = fs::canonicalize(bench.path(named)).unwrap();
            let touched = std::collections::HashSet::from([path]);
            let (_, known) = bench.tailer.read_touched(&touched, &mut bench.sink).unwrap();
            assert!(known);
            assert_eq!(bench.lines().len(), before + 1, "{written} {max_open}");
        }
        let stranger = std::collections::HashSet::from([bench.path("logs/x.txt")]);
        assert!(!bench.tailer.read_touched(&stranger, &mut bench.sink).unwrap().1);
    }
}

#[test]
fn a_rotated_log_that_may_not_be_read_does_not_keep_the_live_one_waiting() {
    let mut bench = Bench::new("a.log*");
    let old = "a.log-20260101";
    bench.append(old, numbered(0..5));
    bench.append("a.log", numbered(5..10));
    bench.settle();
    bench.restart();
    fs::set_permissions(bench.path(old), fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(bench.path(old)).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.append("a.log", numbered(10..15));
    bench.scans(10);
    assert_eq!(bench.lines(), expected(0..15));
    assert!(bench.tailer.state().trouble.is_some());
}

#[test]
fn a_thousand_rotated_files_of_one_log_come_in_order() {
    let mut bench = Bench::with("a.log*", |options| options.max_open_files = 64);
    for n in 0..1_000 {
        let name = format!("a.log-{}", 20_260_000 + n);
        bench.append(&name, format!("line {n}\n"));
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000 + n);
        let file = File::options().append(true).open(bench.path(&name)).unwrap();
        file.set_modified(time).unwrap();
    }
    bench.append("a.log", "line 1000\n");
    bench.settle();
    bench.restart();
    bench.append("a.log", "line 1001\n");
    bench.scans(2);
    bench.append("a.log-30000000", "line 1002\n");
    bench.scans(4);
    assert_eq!(bench.lines(), expected(0..1_003));
}
