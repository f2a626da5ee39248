//! G4 and G10 under `kill -9`.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokenferry::record::{Appended, Options, chain, read};

use super::bench::{DEADLINE, durable, finished, opened, rotated, rotations, until, within};

const CHILD: &str = "TOKENFERRY_TEST_RECORDS_CHILD";
const ROUNDS: u64 = 60;
/// Small, so that kills hit roll-overs too.
const SMALL: Options = Options { keep: 400 * 86_400, max_size: 6 << 10 };

/// The killed one: four tasks append and note each line that was acknowledged, until the kill comes.
fn append_until_killed(folder: &Path, round: &str) {
    let end = Instant::now() + DEADLINE;
    let writer = opened(folder, SMALL).writer;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let (writer, round) = (writer.clone(), round.to_owned());
            let mut noted = OpenOptions::new().create(true).append(true).open(folder.with_file_name("acknowledged")).unwrap();
            runtime.spawn(async move {
                for count in 0.. {
                    let jti = format!("{round}-{task}-{count}");
                    if Instant::now() > end || writer.append(vec![rotated(&format!("t{task}"), &jti)]).await != Appended::Durable {
                        return;
                    }
                    noted.write_all(format!("{jti}\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn g4_g10_a_kill_at_any_moment_loses_no_acknowledged_line_and_doubles_none() {
    if let Ok(child) = std::env::var(CHILD) {
        let (round, folder) = child.split_once(' ').unwrap();
        return append_until_killed(Path::new(folder), round);
    }
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("records");
    let noted = around.path().join("acknowledged");
    let length = || fs::metadata(&noted).map_or(0, |metadata| metadata.len());
    let mut random = u64::from(std::process::id()) | 1;
    for round in 0..ROUNDS {
        let before = length();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "records::crash::g4_g10_a_kill_at_any_moment_loses_no_acknowledged_line_and_doubles_none"])
            .env(CHILD, format!("{round} {}", folder.display()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Some die while they open the folder, most while they append.
        if round % 6 != 0 {
            until("the first acknowledged line", || length() > before);
        }
        std::thread::sleep(Duration::from_micros((random >> 33) % 50_000));
        child.kill().unwrap();
        finished(&mut child);

        let opened = opened(&folder, SMALL);
        assert_eq!(read(&folder).unwrap(), opened.state, "round {round}");
        within(async {
            durable(&opened.writer, vec![rotated("after", &format!("after-{round}"))]).await;
            opened.writer.close().await;
        });
        chain::verify(&folder, None).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    let found = rotations(&folder);
    let acknowledged: BTreeSet<String> = fs::read_to_string(&noted).unwrap().lines().map(str::to_owned).collect();
    let missing: Vec<&String> = acknowledged.iter().filter(|jti| !found.contains_key(*jti)).collect();
    let doubled: Vec<&String> = found.iter().filter(|(_, count)| **count > 1).map(|(jti, _)| jti).collect();
    assert_eq!((missing, doubled), (Vec::<&String>::new(), Vec::<&String>::new()));
    assert!(acknowledged.len() as u64 > ROUNDS, "only {} lines were acknowledged", acknowledged.len());
    assert_eq!(found.keys().filter(|jti| jti.starts_with("after-")).count() as u64, ROUNDS);
    assert!(fs::read_dir(&folder).unwrap().count() > 3, "no roll-over was hit");
    println!("{ROUNDS} kills, {} acknowledged lines, {} found", acknowledged.len(), found.len());
}
