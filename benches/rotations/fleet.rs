//! A hundred thousand targets of an embedded cluster: start, rest, reload, `get`, CPU per rotation.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::daemon::{self, Again, Daemon, Host};
use super::options::Options;
use super::pulse::Pulse;
use super::report::{Report, Row, mib, milliseconds};
use super::schedule::Wanted;

/// Targets that the CPU time of a rotation is compared with.
const FEW: usize = 1_000;
/// Rotations that the few have in all.
const ROTATIONS: usize = 20_000;
/// Included files.
const INCLUDED: usize = 100;
/// How often `get` is asked.
const GETS: usize = 21;
/// How long the loop is watched with nothing to do, to see what this machine's own scheduler adds.
const STILL: Duration = Duration::from_secs(2);

/// Measures all of it.
pub fn run(report: &mut Report, options: &Options) {
    let targets = options.fleet;
    report.part(&format!("{targets} targets of an embedded cluster"));
    let few = cpu_of_few(options);
    let mut wanted = None;
    let mut host = Host::new(|folder| wanted.insert(Wanted::embedded(folder, targets)).clone());
    let mut wanted = wanted.expect("the host asked for it");
    first(report, &mut host, targets);

    let (daemon, again) = daemon::start_again(&mut host);
    start_rows(report, "one file", &again, 3.0);
    rest(report, &daemon, options);
    get(report, &host, targets);
    reload(report, &host, "one file", || wanted.change_one("1", host.root(), 0));
    let each = rotate(&daemon, &mut host, targets, 1);
    daemon.stop();
    let ratio = each.as_secs_f64() / few.as_secs_f64();
    let row = Row::new("CPU per rotation, `rotate --all`, signature included", milliseconds(each));
    let row = row.beside(format!("{} targets: {}", FEW.min(targets), milliseconds(few))).ratio(format!("{ratio:.2} times"));
    report.add(row.reach("≤ 1.2 times", ratio <= 1.2));

    wanted.write(host.root(), INCLUDED);
    let (daemon, again) = daemon::start_again(&mut host);
    start_rows(report, &format!("{INCLUDED} included files"), &again, 2.0);
    reload(report, &host, &format!("{INCLUDED} included files"), || wanted.change_one("2", host.root(), INCLUDED));
    daemon.stop();
}

fn cpu_of_few(options: &Options) -> Duration {
    let few = FEW.min(options.fleet);
    let mut host = Host::new(|folder| Wanted::embedded(folder, few));
    let daemon = host.start(None);
    host.delivered(few);
    let each = rotate(&daemon, &mut host, few, ROTATIONS.min(options.fleet) / few);
    daemon.stop();
    each
}

/// CPU time of a rotation in so many rounds of all.
fn rotate(daemon: &Daemon, host: &mut Host, targets: usize, rounds: usize) -> Duration {
    let before = daemon.cpu();
    for _ in 0..rounds {
        host.rotate_all(targets);
    }
    (daemon.cpu() - before).div_f64((rounds * targets) as f64)
}

fn first(report: &mut Report, host: &mut Host, targets: usize) {
    let daemon = host.start(None);
    let took = daemon::since(daemon.begun(), host.delivered(targets));
    let each = milliseconds(daemon.cpu().div_f64(targets as f64));
    let rate = targets as f64 / took.as_secs_f64();
    report.add(Row::new("first delivery, start included", format!("{rate:.0}/s, {each} CPU each")));
    report.add(Row::new("… peak resident memory", mib(daemon.memory("VmHWM"))));
    daemon.stop();
}

fn start_rows(report: &mut Report, what: &str, again: &Again, limit: f64) {
    let row = Row::new(format!("start with all fresh, {what}, until ready"), milliseconds(again.ready));
    report.add(row.reach(&format!("≤ {limit} s"), again.ready.as_secs_f64() <= limit));
    let none = again.minted + again.written == 0;
    report.add(Row::new("… tokens minted, files written", format!("{}, {}", again.minted, again.written)).reach("0, 0", none));
}

fn rest(report: &mut Report, daemon: &Daemon, options: &Options) {
    let cpu = daemon.cpu();
    std::thread::sleep(options.rest);
    let share = (daemon.cpu() - cpu).as_secs_f64() / options.rest.as_secs_f64();
    let memory = daemon.memory("VmRSS");
    report.add(Row::new("at rest: resident memory", mib(memory)).reach("≤ 64 MiB", memory <= 64 << 20));
    let what = format!("at rest: CPU over {} s, of one core", options.rest.as_secs());
    report.add(Row::new(what, format!("{:.2} %", share * 100.0)).reach("≤ 0.2 %", share <= 0.002));
}

/// The command as a person or a script runs it: from the start of its process to its end.
fn get(report: &mut Report, host: &Host, targets: usize) {
    let mut times: Vec<Duration> = (0..GETS)
        .map(|i| {
            let name = format!("t{}", (i + 1) * targets / GETS - 1);
            let mut get = std::process::Command::new(daemon::PROGRAM);
            get.arg("--schedule").arg(host.schedule()).args(["get", &name]).stdin(Stdio::null()).stdout(Stdio::null());
            let begun = Instant::now();
            let status = get.status().expect("the program starts");
            let took = begun.elapsed();
            assert!(status.success(), "get {name}: {status}");
            took
        })
        .collect();
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    let row = Row::new(format!("`get` with the daemon running, median of {GETS}"), milliseconds(median));
    report.add(row.beside(format!("longest {}", milliseconds(longest))).reach("≤ 5 ms", median <= Duration::from_millis(5)));
}

/// One target of all is another one; the loop is asked all the time whether it turns.
fn reload(report: &mut Report, host: &Host, what: &str, change: impl FnOnce()) {
    let pulse = Pulse::start(&host.socket());
    std::thread::sleep(STILL);
    let (still, _) = pulse.longest();
    change();
    let pulse = Pulse::start(&host.socket());
    let begun = Instant::now();
    let out = host.command(None, &["reload", "-o", "json"]).stderr(Stdio::inherit()).output().expect("the program starts");
    let took = begun.elapsed();
    let (longest, answers) = pulse.longest();
    let verdict: serde_json::Value = serde_json::from_slice(&out.stdout).expect("reload -o json prints JSON");
    assert!(verdict["accepted"] == true && verdict["changed"].as_array().is_some_and(|c| c.len() == 1), "reload: {verdict}");
    let row = Row::new(format!("reload with one changed, {what}"), milliseconds(took));
    report.add(row.reach("≤ 1.5 s", took <= Duration::from_millis(1500)));
    let row = Row::new(format!("… longest that the loop was blocked ({answers} looks)"), milliseconds(longest));
    report.add(row.beside(format!("at rest {}", milliseconds(still))).reach("≤ 20 ms", longest <= Duration::from_millis(20)));
}
