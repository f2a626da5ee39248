//! Files of the folder: who may write them, what a torn or foreign one does, when the next one begins.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokenferry::record::query::{self, Query};
use tokenferry::record::{OpenError, Options, chain, open, read};

use super::bench::{ROOMY, durable, finished, opened, root_or_not_run, rotated, rotations, within};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn newest(folder: &Path) -> PathBuf {
    folder.join(names(folder).into_iter().rfind(|name| name.ends_with(".jsonl")).unwrap())
}

/// Appends that many rotations, one commit each, and closes.
fn fill(folder: &Path, options: Options, count: u64) {
    let opened = opened(folder, options);
    within(async {
        for number in 0..count {
            durable(&opened.writer, vec![rotated(&format!("t{}", number % 3), &format!("{}-{number}", opened.state.seq))]).await;
        }
        opened.writer.close().await;
    });
}

#[test]
fn a_fresh_folder_is_private_and_opens_with_an_empty_checkpoint() {
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("state/records");
    let opened = opened(&folder, ROOMY);
    assert_eq!((opened.state.seq, opened.state.targets.len(), opened.notes), (1, 0, Vec::new()));
    assert_eq!(names(&folder), ["lock", "records-000000000001.jsonl"]);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(names(&folder).iter().all(|name| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777 == 0o600));
    assert_eq!(chain::verify(&folder, None).unwrap().lines, 1);
}

#[test]
fn a_second_writer_is_refused_and_told_which_process_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = opened(folder.path(), ROOMY);
    let error = open(folder.path(), ROOMY).unwrap_err();
    assert!(matches!(error, OpenError::Busy { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    fs::remove_file(folder.path().join("lock")).unwrap();
    assert!(matches!(open(folder.path(), ROOMY), Err(OpenError::Busy { .. })), "removing the lock file frees nothing");
    within(first.writer.close());
    open(folder.path(), ROOMY).expect("free again");
}

#[test]
fn g4_the_state_after_a_restart_is_the_state_before_it() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), ROOMY, 7);
    let before = read(folder.path()).unwrap();
    let after = opened(folder.path(), ROOMY);
    assert_eq!((after.state, after.notes), (before, Vec::new()));
    assert_eq!(names(folder.path()).len(), 2, "a restart begins no new file");
}

#[test]
fn records_are_read_beside_the_writer_without_a_lock() {
    let folder = tempfile::tempdir().unwrap();
    let writer = opened(folder.path(), ROOMY).writer;
    within(async { durable(&writer, vec![rotated("a", "1")]).await });
    let state = read(folder.path()).unwrap();
    assert_eq!((state.targets["a"].jti.clone(), &state.head), (Some("1".into()), &writer.health().head));
}

#[test]
fn g4_a_torn_last_line_is_cut_off_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for rest in [&b"{\"version\":1,\"time\":\"2026"[..], b"\0\0\0\0\0\0", b"{\"version\":1}\n", b"\0\0\0\n{\"ver"] {
        fill(folder.path(), ROOMY, 2);
        let before = read(folder.path()).unwrap();
        fs::OpenOptions::new().append(true).open(newest(folder.path())).unwrap().write_all(rest).unwrap();
        let opened = opened(folder.path(), ROOMY);
        assert_eq!((opened.state, opened.notes.len()), (before, 1), "{:?}", opened.notes);
        within(opened.writer.close());
        fill(folder.path(), ROOMY, 1);
        chain::verify(folder.path(), None).unwrap();
    }
    assert_eq!(names(folder.path()).len(), 2);
}

#[test]
fn g4_a_file_without_a_whole_checkpoint_is_put_aside_for_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), ROOMY, 3);
    let before = read(folder.path()).unwrap();
    let first = fs::read_to_string(newest(folder.path())).unwrap().lines().nth(1).unwrap().to_owned();
    for content in ["", "{\"vers", &format!("{}\n", first.replace("rotated", "checkpoint"))] {
        let name = format!("records-{:012}.jsonl", before.seq + 1);
        fs::write(folder.path().join(&name), content).unwrap();
        assert_eq!(read(folder.path()).unwrap(), before);
        let opened = opened(folder.path(), ROOMY);
        assert_eq!((opened.state, opened.notes.len()), (before.clone(), 1), "{:?}", opened.notes);
        within(opened.writer.close());
        fs::remove_file(folder.path().join(format!("{name}.ignored"))).unwrap();
    }
    fill(folder.path(), ROOMY, 1);
    assert_eq!(chain::verify(folder.path(), None).unwrap().seq, before.seq + 1);
}

#[test]
fn g4_what_a_kill_left_unfinished_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("records-000000000001.jsonl.new"), "half").unwrap();
    fill(folder.path(), ROOMY, 1);
    assert_eq!(names(folder.path()), ["lock", "records-000000000001.jsonl"]);
}

#[test]
fn damage_in_the_middle_is_kept_as_evidence_and_a_new_file_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), ROOMY, 5);
    let damaged = newest(folder.path());
    let text = fs::read_to_string(&damaged).unwrap().replacen("/run/tokens", "/run/tokenz", 1);
    fs::write(&damaged, &text).unwrap();
    let opened = opened(folder.path(), ROOMY);
    assert!(opened.notes[0].contains("records-000000000001.jsonl:2: damaged"), "{:?}", opened.notes);
    within(opened.writer.close());
    assert_eq!(fs::read_to_string(&damaged).unwrap(), text);
    assert_eq!(names(folder.path()).len(), 3);
    fs::remove_file(&damaged).unwrap();
    chain::verify(folder.path(), None).expect("what was begun after it is sound");
}

#[test]
fn records_of_a_newer_program_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), ROOMY, 1);
    let file = newest(folder.path());
    let text = fs::read_to_string(&file).unwrap().replace("\"version\":1,", "\"version\":2,");
    fs::write(&file, text).unwrap();
    let error = open(folder.path(), ROOMY).unwrap_err().to_string();
    assert!(error.contains(":1: record of version 2"), "{error}");
}

#[test]
fn a_grown_file_is_followed_by_one_with_a_checkpoint_and_old_ones_go_by_age() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), Options { max_size: 2048, ..ROOMY }, 40);
    let before = read(folder.path()).unwrap();
    assert!(names(folder.path()).len() > 3, "{:?}", names(folder.path()));
    assert_eq!(rotations(folder.path()).len(), 40);
    assert_eq!(chain::verify(folder.path(), None).unwrap().anchor, chain::GENESIS);
    fill(folder.path(), Options { keep: 0, max_size: 2048 }, 0);
    assert_eq!(names(folder.path()).len(), 2, "the newest is never removed");
    assert_eq!(read(folder.path()).unwrap(), before);
    assert_ne!(chain::verify(folder.path(), Some(&before.head)).unwrap().anchor, chain::GENESIS);
}

#[test]
fn following_goes_on_over_a_roll_over() {
    let folder = tempfile::tempdir().unwrap();
    let writer = opened(folder.path(), Options { max_size: 1024, ..ROOMY }).writer;
    let mut lines = query::lines(folder.path(), Query::default()).unwrap();
    for number in 0..12 {
        assert!(lines.next().is_none());
        within(async { durable(&writer, vec![rotated("a", &number.to_string()), rotated("a", "second")]).await });
        assert_eq!(lines.next().unwrap().unwrap().jti, Some(number.to_string()));
        assert_eq!(lines.next().unwrap().unwrap().jti.as_deref(), Some("second"));
    }
    assert!(names(folder.path()).len() > 3);
}

#[test]
fn anyone_can_check_a_line_with_sed_and_sha256sum() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), ROOMY, 2);
    let file = newest(folder.path());
    let script = r#"sed -n 3p "$1" | sed -E 's/,"hash":"[0-9a-f]{64}"\}$/}/' | tr -d '\n' | sha256sum"#;
    let mut child = Command::new("sh").args(["-c", script, "sh"]).arg(&file).stdout(Stdio::piped()).spawn().unwrap();
    assert!(finished(&mut child).success());
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with(&read(folder.path()).unwrap().head));
}

#[test]
fn what_root_writes_belongs_to_the_owner_of_the_folder() {
    if !root_or_not_run("what_root_writes_belongs_to_the_owner_of_the_folder") {
        return;
    }
    let around = tempfile::tempdir().unwrap();
    chown(around.path(), Some(4711), Some(4712)).unwrap();
    let folder = around.path().join("records");
    fill(&folder, Options { max_size: 1024, ..ROOMY }, 6);
    assert!(names(&folder).len() > 2);
    for path in names(&folder).iter().map(|name| folder.join(name)).chain([folder.clone()]) {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712), "{}", path.display());
    }
}
