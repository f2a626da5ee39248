//! Walls around what the daemon may write, by the kernel: it and what it starts reach the folders of its unit and of the
//! plan in force at its start, and no other. A reload that needs more is refused with the way out.

use std::path::Path;
use std::time::Duration;

use landlock::{LandlockStatus, RestrictSelf};
use serde_json::Value;

use crate::support::daemon::{Host, finish};
use crate::support::mute::Mute;
use crate::support::{can_mount, until};

/// A host whose folder is none of the temporary ones, which are always let in; `None` where the kernel has no Landlock.
fn host(targets: &str) -> Option<Host> {
    let asked = RestrictSelf::default().no_new_privs(false).apply().unwrap();
    if !matches!(asked.landlock, LandlockStatus::Available { .. }) {
        println!("NOT RUN: the kernel has no Landlock");
        return None;
    }
    let host = Host::below(Path::new(env!("CARGO_TARGET_TMPDIR")), &schedule(targets));
    std::fs::create_dir(host.path("elsewhere")).unwrap();
    Some(host)
}

fn schedule(targets: &str) -> String {
    format!("clusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 1h}}\ntargets:\n{targets}")
}

const ONE: &str = "- {name: one, serviceAccount: ci/one, deliver: [{file: {path: HERE/out/one}}]}\n";

fn start(host: &mut Host) {
    let state = host.path("state");
    host.start_as_a_service(&state);
}

fn fresh(host: &Host, target: &str) {
    until(&format!("{target} is fresh"), 60, || host.target(target)["state"] == "fresh");
}

fn writes(name: &str, to: &str) -> String {
    format!(
        "- {{name: {name}, serviceAccount: ci/{name}, deliver: [{{command: {{command: [sh, -c, 'cat >/dev/null && echo x >{to}']}}}}], \
         after: [{{exec: {{command: [sh, -c, 'echo x >{to}.hook']}}}}]}}\n"
    )
}

#[test]
fn what_the_daemon_starts_writes_to_its_folders_and_nowhere_else_and_reads_and_runs_as_before() {
    let Some(mut host) = host(&format!("{ONE}{}{}", writes("inside", "HERE/out/c"), writes("outside", "HERE/elsewhere/c"))) else { return };
    start(&mut host);
    fresh(&host, "one");
    until("both commands and the hook ran", 60, || {
        host.path("out/c.hook").exists()
            && !host.records_of("failed", "outside").is_empty()
            && !host.records_of("told", "inside").is_empty()
    });
    let failed = host.records_of("failed", "outside").pop().unwrap();
    let error = failed["sinks"][0]["error"].as_str().unwrap();
    assert!(error.contains("Permission denied") || error.contains("cannot create"), "{error}");
    assert!(host.path("out/c").exists() && !host.path("elsewhere/c").exists());
    // A plain start confines nothing: what was a wall there is none here.
    assert_eq!(host.stop(), Some(0));
    host.start();
    assert_eq!(host.run(&["rotate", "outside"]).code, Some(0));
    until("the hook writes too", 60, || host.path("elsewhere/c.hook").exists());
}

#[test]
fn g5_g9_a_reload_that_needs_a_folder_outside_is_refused_with_its_place_and_a_restart_takes_it_and_mints_nothing_that_is_fresh() {
    let Some(mut host) = host(ONE) else { return };
    start(&mut host);
    fresh(&host, "one");
    let before = host.read("out/one");
    let two = "- name: two\n  serviceAccount: ci/two\n  deliver:\n  - file: {path: HERE/out/two}\n    fallback: [{file: {path: HERE/elsewhere/two}}]\n";
    host.write_schedule(&schedule(&format!("{ONE}{two}")));
    let done = host.run(&["reload"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    let elsewhere = host.path("elsewhere").display().to_string();
    for part in [
        "schedule.yaml:12:30: error: target two: targets[1].deliver[0].fallback[0].file.path: ",
        &elsewhere,
        "tokenferry host --apply",
        "/etc/systemd/system/tokenferry.service.d/50-schedule.conf",
        "systemctl restart tokenferry.service",
    ] {
        assert!(done.stderr.contains(part), "{part}: {done:?}");
    }
    let status = host.json(&["status"]);
    assert_eq!((status["targets"].as_array().unwrap().len(), host.run(&["status"]).code), (1, Some(1)), "{status}");
    assert_eq!(host.records().iter().filter(|line| line["kind"] == "reloadRefused").count(), 1);
    assert_eq!(host.stop(), Some(0));
    start(&mut host);
    fresh(&host, "two");
    assert_eq!((host.records_of("rotated", "one").len(), host.read("out/one")), (1, before), "what was fresh is not minted again");
    // What lies below a folder of the plan that it began with is no other folder.
    std::fs::create_dir(host.path("elsewhere/deep")).unwrap();
    let three = "- {name: three, serviceAccount: ci/three, deliver: [{file: {path: HERE/elsewhere/deep/three}}]}\n";
    host.write_schedule(&schedule(&format!("{ONE}{two}{three}")));
    let done = host.run(&["reload"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    fresh(&host, "three");
}

#[test]
fn a_folder_that_is_another_one_than_at_the_start_is_named_with_the_way_out_and_a_restart_heals_it() {
    let Some(mut host) = host(ONE) else { return };
    start(&mut host);
    fresh(&host, "one");
    std::fs::rename(host.path("out"), host.path("old")).unwrap();
    std::fs::create_dir(host.path("out")).unwrap();
    let done = host.run(&["rotate", "one"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let error = host.target("one")["lastError"].to_string();
    assert!(error.contains("systemctl restart tokenferry"), "{error}");
    assert_eq!(host.stop(), Some(0));
    start(&mut host);
    until("it is there again", 60, || host.path("out/one").exists());
}

#[test]
fn a_missing_folder_is_made_before_the_walls_where_its_sink_would_make_it() {
    let Some(mut host) = host("- {name: deep, serviceAccount: ci/deep, deliver: [{file: {path: HERE/made/deep}}]}\n") else { return };
    // Below a folder of our own only what is not root makes folders; root is told to make it.
    let is_root = rustix::process::geteuid().is_root();
    start(&mut host);
    until("it was tried", 60, || matches!(host.target("deep")["state"].as_str(), Some("fresh" | "retrying")));
    if is_root {
        let error = host.target("deep")["lastError"].to_string();
        assert!(error.contains("does not exist") && host.log().contains("nothing can be written there before the next start"), "{error}");
    } else {
        fresh(&host, "deep");
    }
}

#[test]
fn records_and_keys_outside_of_the_units_folders_are_made_before_the_walls_and_written_inside_them() {
    let Some(mut host) = host(ONE) else { return };
    let unit = host.path("unit");
    // At the second start all of it is there.
    for rotations in [2, 3] {
        host.start_as_a_service(&unit);
        fresh(&host, "one");
        assert_eq!(host.run(&["rotate", "one"]).code, Some(0));
        assert_eq!(host.stop(), Some(0));
        assert_eq!(host.records_of("rotated", "one").len(), rotations);
    }
    assert!(host.path("state/embedded/trial").is_dir());
    assert!(!host.log().contains("ermission denied"), "{}", host.log());
}

#[test]
fn doctor_says_how_they_stand_from_the_daemon_and_from_elsewhere() {
    let Some(mut host) = host(ONE) else { return };
    let walls = |host: &Host, more: &[&str]| -> Value {
        let found = host.json(&[&["doctor", "--all"], more].concat());
        found.as_array().unwrap().iter().find(|finding| finding["check"] == "walls").expect("it is looked at").clone()
    };
    start(&mut host);
    let found = walls(&host, &[]);
    assert_eq!((&found["seenFrom"], &found["verdict"]), (&"daemon".into(), &"good".into()), "{found}");
    assert!(found["evidence"].as_str().unwrap().contains("folders and nowhere else"), "{found}");
    let found = walls(&host, &["--here"]);
    assert!(found["evidence"].as_str().unwrap().contains("the kernel has Landlock"), "{found}");
    assert_eq!(host.stop(), Some(0));
    host.start();
    assert!(walls(&host, &[]).to_string().contains("none: no service manager"), "a plain start has none");
}

#[test]
fn once_is_confined_as_the_daemon_is() {
    let Some(host) = host(&format!("{ONE}{}", writes("outside", "HERE/elsewhere/c"))) else { return };
    let done = finish(host.as_a_service(&["once"], &host.path("state")), Duration::from_secs(60));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(host.path("out/one").exists() && !host.path("elsewhere/c").exists(), "{done:?}");
}

#[test]
fn g6_a_file_system_that_never_answers_does_not_keep_the_daemon_from_its_start_nor_a_reload_from_its_end() {
    if !can_mount("walls beside a hung file system", &["/dev/fuse"]) {
        return;
    }
    let mute_place = "- {name: mute, serviceAccount: ci/mute, deliver: [{file: {path: HERE/mute/below/token}}]}\n";
    let Some(mut host) = host(&format!("{ONE}{mute_place}")) else { return };
    std::fs::create_dir(host.path("mute")).unwrap();
    let mute = Mute::mount(&host.path("mute"));
    start(&mut host);
    fresh(&host, "one");
    assert!(host.log().contains("did not answer within 2 s"), "{}", host.log());
    let two = "- {name: two, serviceAccount: ci/two, deliver: [{file: {path: HERE/out/two}}]}\n";
    // What could not be let in at the start was told then, and refuses no reload.
    host.write_schedule(&schedule(&format!("{ONE}{mute_place}{two}")));
    let done = host.run(&["reload"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    fresh(&host, "two");
    drop(mute);
}
