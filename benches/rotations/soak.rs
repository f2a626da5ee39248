//! Days in small: two daemons with ten thousand targets each, tokens of one minute, an embedded cluster. One is killed
//! with SIGKILL once a minute and started again; the other one runs through, for a kill hides what grows.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::daemon::{Daemon, Host};
use super::process;
use super::report::{Report, Row, mib, milliseconds};
use super::schedule::Wanted;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// Between two kills.
const LIFE: Duration = Duration::from_secs(60);
/// A temporary file that is older is nobody's any more.
const ORPHAN: Duration = Duration::from_secs(30);

/// Threads that file work on one file system has at most; they come with the work and go soon after it.
const LANE: u64 = 64;

/// What a look at a process shows.
#[derive(Clone, Copy)]
struct Look {
    memory: u64,
    descriptors: u64,
    threads: u64,
}

/// Runs it, prints a line for each minute, and judges.
pub fn run(report: &mut Report, minutes: usize, targets: usize) {
    let wanted = |folder: &Path| Wanted { duration: "1m", keep: "keep: 10m, maxSize: 16MiB", ..Wanted::embedded(folder, targets) };
    let (mut killed, mut steady) = (Host::new(wanted), Host::new(wanted));
    let (mut mortal, lasting) = (killed.start(None), steady.start(None));
    killed.tried(targets);
    steady.tried(targets);
    println!(
        "minute  rotations/s        killed each minute: ready, memory, files, threads   runs through: memory, files, threads   expired  orphans"
    );
    let (mut lives, mut looks, mut readies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut expired, mut orphans, mut before) = (0, 0, (killed.rotated(), steady.rotated()));
    let begun = Instant::now();
    for minute in 1..=minutes {
        let end = LIFE * u32::try_from(minute).expect("a number of minutes");
        while begun.elapsed() + LOOK < end {
            std::thread::sleep(LOOK);
            looks.push(look(&lasting));
        }
        std::thread::sleep(end.saturating_sub(begun.elapsed()));
        let (life, last) = (look(&mortal), look(&lasting));
        drop(mortal);
        mortal = killed.start(None);
        let ready = mortal.ready();
        let stale = unusable(&killed, targets) + unusable(&steady, targets);
        let left = orphaned(&killed) + orphaned(&steady);
        let now = (killed.rotated(), steady.rotated());
        let rates = ((now.0 - before.0) as f64 / LIFE.as_secs_f64(), (now.1 - before.1) as f64 / LIFE.as_secs_f64());
        println!(
            "{minute:>6}  {:>5.0} and {:<5.0}  {:>20}, {}   {:>26}   {stale:>18}  {left:>7}",
            rates.0,
            rates.1,
            milliseconds(ready),
            shown(life),
            shown(last)
        );
        (expired, orphans, before) = (expired + stale, orphans + left, now);
        lives.push(life);
        readies.push(ready);
    }
    mortal.stop();
    lasting.stop();
    report.part(&format!("soak of {minutes} minutes, {targets} targets with one-minute tokens in each of two daemons"));
    judge(report, "killed once a minute, at the end of each life", &lives, 1);
    judge(report, "running through", &looks, (LIFE.as_secs() / LOOK.as_secs()) as usize);
    readies.sort_unstable();
    report.add(Row::new("start after a kill, until ready, median", milliseconds(readies[readies.len() / 2])));
    report.add(Row::new("expired, missing or broken tokens in all places, after each kill", expired.to_string()).reach("0", expired == 0));
    for (whose, host) in [("killed", &killed), ("running through", &steady)] {
        let (failed, failure) = host.failed();
        report.add(Row::new(format!("{whose}: rotations that failed or left a place owed"), failed.to_string()).beside(failure));
    }
    report.add(Row::new("temporary files left behind", orphans.to_string()).reach("0", orphans == 0));
    let whole = [&killed, &steady]
        .map(|host| host.command(None, &["records", "verify"]).stdout(Stdio::null()).status().expect("the program starts").success());
    report.add(Row::new("`records verify` of both", format!("{whole:?}")).reach("true", whole == [true, true]));
}

fn look(daemon: &Daemon) -> Look {
    let pid = daemon.pid();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon runs").count() as u64;
    let threads = process::status(pid, "Threads").and_then(|n| n.parse().ok()).expect("the daemon runs");
    Look { memory: daemon.memory("VmRSS"), descriptors, threads }
}

fn shown(look: Look) -> String {
    format!("{}, {}, {}", mib(look.memory), look.descriptors, look.threads)
}

/// Compares the last third of the looks with the first; those before `warm` do not count.
fn judge(report: &mut Report, whose: &str, looks: &[Look], warm: usize) {
    let looks = &looks[warm.min(looks.len() - 1)..];
    let third = looks.len().div_ceil(3);
    let middle = |looks: &[Look], of: fn(&Look) -> u64| {
        let mut values: Vec<u64> = looks.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let mut figure = |what: &str, of: fn(&Look) -> u64, show: &dyn Fn(u64) -> String, slack: u64| {
        let (first, last) = (middle(&looks[..third], of), middle(&looks[looks.len() - third..], of));
        let row = Row::new(format!("{whose}: {what}, last third"), show(last)).beside(format!("first third {}", show(first)));
        report.add(
            row.ratio(format!("{:+.1} %", 100.0 * (last as f64 / first as f64 - 1.0))).reach("flat", last <= first + first / 20 + slack),
        );
    };
    figure("memory", |l| l.memory, &mib, 0);
    figure("descriptors", |l| l.descriptors, &|n| n.to_string(), 2);
    figure("threads", |l| l.threads, &|n| n.to_string(), LANE);
    let slope = slope(looks) / 1024.0;
    report.add(Row::new(format!("{whose}: memory, straight line through all looks"), format!("{slope:+.2} KiB a look")));
}

/// Least squares: bytes of memory from one look to the next.
fn slope(looks: &[Look]) -> f64 {
    let middle = (looks.len() - 1) as f64 / 2.0;
    let mean = looks.iter().map(|l| l.memory as f64).sum::<f64>() / looks.len() as f64;
    let (mut product, mut square) = (0.0, 0.0);
    for (at, look) in looks.iter().enumerate() {
        product += (at as f64 - middle) * (look.memory as f64 - mean);
        square += (at as f64 - middle).powi(2);
    }
    if square == 0.0 { 0.0 } else { product / square }
}

/// Published places without a whole token that is in date.
fn unusable(host: &Host, targets: usize) -> usize {
    let now = Timestamp::now().as_second();
    let place = |i: usize| host.root().join(format!("out/t{i}"));
    (0..targets).filter(|i| std::fs::read_to_string(place(*i)).ok().and_then(|token| ends(&token)).is_none_or(|exp| exp <= now)).count()
}

/// `exp` of a token.
fn ends(token: &str) -> Option<i64> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&claims).ok()?["exp"].as_i64()
}

/// Temporary files that nobody will rename any more.
fn orphaned(host: &Host) -> usize {
    let old = |entry: &std::fs::DirEntry| {
        let made = entry.metadata().and_then(|m| m.modified());
        made.is_ok_and(|made| SystemTime::now().duration_since(made).is_ok_and(|age| age > ORPHAN))
    };
    let entries = std::fs::read_dir(host.root().join("out")).expect("it is there").flatten();
    entries.filter(|e| e.file_name().to_string_lossy().ends_with(".tmp") && old(e)).count()
}
