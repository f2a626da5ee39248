//! G10: the ability to record is lost and comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokenferry::record::query::{self, Query};
use tokenferry::record::{Appended, Kind, Writer, chain, read};

use super::bench::{ROOMY, durable, finished, opened, root_or_not_run, rotated, rotations, until, within};

/// The targets that are recorded, in order.
fn targets(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = read(folder).unwrap().targets.keys().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

/// A small file system of its own, gone with the value.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path) -> Self {
        fs::create_dir(path).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tokenferry-test"]).arg(path));
        Self(path.to_owned())
    }

    fn remount(&self, options: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn run(command: &mut Command) {
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; install mount"));
    let status = finished(&mut child);
    assert!(status.success(), "{command:?}: {status}; as root this test needs the right to mount a tmpfs (CAP_SYS_ADMIN)");
}

fn recovered(writer: &Writer) {
    until("records written again", || {
        let health = writer.health();
        health.error.is_none() && health.waiting == 0
    });
}

#[test]
fn g10_on_a_full_disk_lines_wait_and_what_did_not_fit_is_counted_in_one_gap() {
    if !root_or_not_run("g10_on_a_full_disk_lines_wait_and_what_did_not_fit_is_counted_in_one_gap") {
        return;
    }
    let around = tempfile::tempdir().unwrap();
    let small = Small::mount(&around.path().join("small"));
    let folder = small.0.join("records");
    let writer = opened(&folder, ROOMY).writer;
    let mut appended = 0;
    let mut batch = |count: usize| {
        (0..count)
            .map(|_| {
                appended += 1;
                rotated(&format!("t{appended}"), &format!("j{appended}"))
            })
            .collect::<Vec<_>>()
    };
    within(async {
        while writer.append(batch(5)).await == Appended::Durable {}
        for _ in 0..110 {
            assert_eq!(writer.append(batch(100)).await, Appended::Waiting);
        }
    });
    let health = writer.health();
    assert!(health.error.as_ref().is_some_and(|error| error.contains("No space left")), "{health:?}");
    assert!(health.waiting <= 10_100 && health.lost >= 900, "{health:?}");
    chain::verify(&folder, Some(&health.head)).expect("what is on the full disk is sound");

    small.remount("size=64m");
    recovered(&writer);
    within(async { durable(&writer, vec![rotated("last", "last")]).await });
    let health = writer.health();
    within(writer.close());
    assert_eq!(chain::verify(&folder, Some(&health.head)).unwrap().seq, health.seq);
    let found = rotations(&folder);
    assert!(found.values().all(|count| *count == 1));
    let gaps: Vec<u64> = query::lines(&folder, Query { kinds: vec![Kind::Gap], ..Query::default() })
        .unwrap()
        .map(|line| line.unwrap().count.unwrap())
        .collect();
    assert_eq!(gaps, [health.lost]);
    assert_eq!(found.len() as u64 + gaps[0], appended as u64 + 1);
    assert_eq!(read(&folder).unwrap().targets.len() as u64, appended as u64 + 1, "the state knows what the lost lines said");
}

#[test]
fn g10_a_read_only_folder_can_be_opened_and_written_once_it_can() {
    if !root_or_not_run("g10_a_read_only_folder_can_be_opened_and_written_once_it_can") {
        return;
    }
    let around = tempfile::tempdir().unwrap();
    let small = Small::mount(&around.path().join("small"));
    let folder = small.0.join("records");
    within(async {
        let writer = opened(&folder, ROOMY).writer;
        durable(&writer, vec![rotated("a", "1")]).await;
        writer.close().await;
    });
    small.remount("ro");
    let opened = opened(&folder, ROOMY);
    assert_eq!(opened.state.targets.len(), 1);
    assert!(opened.notes.iter().any(|note| note.contains("Read-only")), "{:?}", opened.notes);
    within(async { assert_eq!(opened.writer.append(vec![rotated("a", "2")]).await, Appended::Waiting) });
    assert!(opened.writer.health().error.is_some());
    small.remount("rw");
    recovered(&opened.writer);
    within(opened.writer.close());
    assert_eq!(rotations(&folder).len(), 2);
    chain::verify(&folder, None).unwrap();
}

#[test]
fn g10_a_deleted_folder_is_made_again_and_opens_with_a_checkpoint_of_all_that_is_known() {
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("records");
    let writer = opened(&folder, ROOMY).writer;
    within(async { durable(&writer, vec![rotated("a", "1"), rotated("b", "2")]).await });
    let before = writer.health();
    fs::remove_dir_all(&folder).unwrap();
    within(async {
        let _ = writer.append(vec![rotated("c", "3")]).await;
    });
    recovered(&writer);
    let found = chain::verify(&folder, Some(&before.head)).expect("the chain goes on from the head before");
    assert_eq!(found.anchor, before.head);
    within(writer.close());
    assert_eq!(rotations(&folder).into_iter().collect::<Vec<_>>(), [("3".to_owned(), 1)]);
    assert_eq!(targets(&folder), ["a", "b", "c"]);
    assert_eq!(opened(&folder, ROOMY).notes, Vec::<String>::new());
}

#[test]
fn g10_a_file_cut_by_somebody_else_is_left_for_a_new_one() {
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("records");
    let writer = opened(&folder, ROOMY).writer;
    within(async { durable(&writer, vec![rotated("a", "1")]).await });
    let file = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some()).unwrap();
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(0).unwrap();
    within(async {
        let _ = writer.append(vec![rotated("b", "2")]).await;
    });
    recovered(&writer);
    within(writer.close());
    assert_eq!(targets(&folder), ["a", "b"]);
    assert!(chain::verify(&folder, None).is_err(), "a cut is damage");
}
