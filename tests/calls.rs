//! T2: a kill at every file system call of a rotation, a reload, a failback and a roll-over of the records; between
//! two of them nothing on a disk changes, so these are all the points that there are. T3: every such call of a
//! rotation failing in eight ways, once and for good.
//!
//! The short form takes a sample, the same each time (`TOKENFERRY_SEED` takes another one); the long form takes all.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokenferry::record::{Kind, Line, Options, chain, open};
use tokenferry::token::{Claims, signature::Keys};

use crate::support::daemon::{Host, tool};
use crate::support::servers::{Servers, servers};
use crate::support::trace::{Act, ERRORS, Point, Traced, here, run};
use crate::support::{long, until};

/// No run takes longer.
const LIMIT: Duration = Duration::from_secs(120);
/// So many hosts go through their points side by side: what fails for good is waited for, ten seconds at a time.
const ABREAST: usize = 4;
const LONG_ABREAST: usize = 12;
/// A host goes through so many points, so that its history stays short: it is read and verified after each.
const POINTS_OF_A_HOST: usize = 40;

/// All of them, or about so many in even steps.
fn sample(all: usize, short: usize) -> impl Iterator<Item = usize> {
    let seed: usize = std::env::var("TOKENFERRY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    // Odd, so that it meets every one of a number of ways that is a power of two.
    let step = if long() { 1 } else { (all / short) | 1 };
    (seed % step..all).step_by(step)
}

/// What is interrupted, and what has to hold afterwards.
trait Scene {
    fn host(&self) -> &Host;
    /// From the same beginning each time.
    fn run(&mut self, point: Option<Point>) -> Traced;
    /// What readers see in the moment after.
    fn check(&self, what: &str);
    /// What the next start makes of it.
    fn recovered(&mut self, what: &str);
}

/// A whole token of this host's cluster, whatever else.
fn whole(host: &Host, what: &str, name: &str) -> Claims {
    let token = host.read(name);
    let keys = Keys::of(host.read("state/embedded/trial/jwks.json").as_bytes()).unwrap();
    assert!(keys.check(&token).is_ok(), "{what}: {name} holds {} bytes that are no token of ours", token.len());
    Claims::of(&token).unwrap()
}

fn no_panic(what: &str, traced: &Traced) {
    let done = &traced.done;
    assert!(!matches!(done.code, Some(101 | 134)) && !done.stderr.contains("panicked"), "{what}: {done:?}");
}

/// The next run mends everything: no orphan is left, nothing is booked twice, the chain is whole.
fn mended(host: &Host, what: &str) {
    let next = host.run(&["once"]);
    assert_eq!(next.code, Some(0), "{what}: the next run: {next:?}");
    let orphans: Vec<_> = std::fs::read_dir(host.path("out"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .filter(|n| n.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(orphans.is_empty(), "{what}: {orphans:?}");
    let mut seen = std::collections::HashSet::new();
    for line in &host.records() {
        match line["kind"].as_str() {
            Some("rotated" | "adopted") => {
                assert!(seen.insert((line["target"].clone(), line["jti"].clone())), "{what}: booked twice: {line}")
            }
            // What went out of the schedule and comes back is taken on again.
            Some("retired") => seen.retain(|(target, _)| *target != line["target"]),
            _ => {}
        }
    }
    chain::verify(&host.path("state/records"), None).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// A record says that the token is served: of a rotation that failed at one place, the one of its payment.
fn booked(host: &Host, what: &str, claims: &Claims) {
    let jti = claims.jti.as_deref().unwrap();
    let served = |l: &Value| matches!(l["kind"].as_str(), Some("rotated" | "adopted" | "paid")) && l["jti"] == jti;
    assert!(host.records().iter().any(served), "{what}: no record names the token that is served");
}

/// Goes through the points on several hosts; what became of each.
fn abreast<S: Scene, T: Send>(points: &[usize], new: impl Fn() -> S + Sync, each: impl Fn(&mut S, usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let go = || {
        let (mut scene, mut became) = (new(), Vec::new());
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            if became.len() % POINTS_OF_A_HOST == POINTS_OF_A_HOST - 1 {
                scene = new();
            }
            became.push(each(&mut scene, *point));
        }
        became
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..if long() { LONG_ABREAST } else { ABREAST }.min(points.len())).map(|_| scope.spawn(go)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// `once --force` with two places.
struct Rotation(Host);

impl Rotation {
    const SCHEDULE: &str = "clusters: {trial: {embedded: {}}}
targets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one, mode: \"0640\"}}, {file: {path: HERE/out/two}}]}]
";

    fn new() -> Self {
        let host = Host::new(Self::SCHEDULE);
        assert_eq!(host.run(&["once"]).code, Some(0));
        Self(host)
    }
}

fn places(host: &Host, what: &str) -> [Claims; 2] {
    assert_eq!(host.path("out/one").metadata().unwrap().mode() & 0o7777, 0o640, "{what}");
    [whole(host, what, "out/one"), whole(host, what, "out/two")]
}

impl Scene for Rotation {
    fn host(&self) -> &Host {
        &self.0
    }

    fn run(&mut self, point: Option<Point>) -> Traced {
        run(self.0.command(&["once", "--force"]), self.0.folder.path(), None, point, LIMIT)
    }

    fn check(&self, what: &str) {
        places(&self.0, what);
    }

    fn recovered(&mut self, what: &str) {
        mended(&self.0, what);
        let [one, two] = places(&self.0, what);
        assert_eq!(one.jti, two.jti, "{what}: the places differ");
        booked(&self.0, what, &one);
    }
}

/// A daemon that is told to take a schedule in which one target is new, one gone, one for another account.
struct Reload {
    host: Host,
    second: bool,
}

impl Reload {
    fn schedule(second: bool) -> String {
        let (account, name) = if second { ("ci/other", "three") } else { ("ci/one", "two") };
        let target = |name: &str, account: &str| {
            format!(
                "  - {{name: {name}, cluster: trial, serviceAccount: {account}, duration: 1h, deliver: [{{file: {{path: HERE/out/{name}}}}}]}}\n"
            )
        };
        format!("clusters: {{trial: {{embedded: {{}}}}}}\ntargets:\n{}{}", target("one", account), target(name, "ci/x"))
    }

    fn new() -> Self {
        let host = Host::new(&Self::schedule(false));
        assert_eq!(host.run(&["once"]).code, Some(0));
        Self { host, second: false }
    }

    fn names(&self) -> [&'static str; 2] {
        ["one", if self.second { "three" } else { "two" }]
    }

    /// Whether the schedule is in force: its account's token is served.
    fn done(&self) -> bool {
        let account = if self.second { "system:serviceaccount:ci:other" } else { "system:serviceaccount:ci:one" };
        let subject = Claims::of(&self.host.read("out/one")).map(|claims| claims.sub);
        let last = |name: &str| self.host.records_of("rotated", name).len();
        subject.is_ok_and(|subject| subject == account) && self.names().iter().all(|name| last(name) > 0)
    }
}

impl Scene for Reload {
    fn host(&self) -> &Host {
        &self.host
    }

    fn run(&mut self, point: Option<Point>) -> Traced {
        let counting = Arc::new(AtomicBool::new(false));
        let (command, folder, flag) = (self.host.command(&["run"]), self.host.folder.path().to_owned(), Arc::clone(&counting));
        let daemon = std::thread::spawn(move || run(command, &folder, Some(flag), point, LIMIT));
        let mut pid = None;
        until("the daemon answers", 60, || {
            let status: Option<Value> = serde_json::from_str(&self.host.run(&["status", "-o", "json"]).stdout).ok();
            pid = status.and_then(|status| status["daemon"]["pid"].as_i64());
            pid.is_some() || daemon.is_finished()
        });
        self.second = !self.second;
        self.host.write_schedule(&Self::schedule(self.second));
        counting.store(true, Ordering::Relaxed);
        let told = self.host.run(&["reload"]);
        until("it is taken, or the daemon is killed", 60, || daemon.is_finished() || (told.code == Some(0) && self.done()));
        if !daemon.is_finished() {
            let pid = Pid::from_raw(pid.and_then(|pid| i32::try_from(pid).ok()).expect("the daemon's pid")).unwrap();
            // It may be killed at a call of its own end.
            let _ = kill_process(pid, Signal::TERM);
        }
        daemon.join().unwrap()
    }

    fn check(&self, what: &str) {
        whole(&self.host, what, "out/one");
        for name in ["out/two", "out/three"] {
            if self.host.path(name).exists() {
                whole(&self.host, what, name);
            }
        }
    }

    fn recovered(&mut self, what: &str) {
        mended(&self.host, what);
        assert!(self.done(), "{what}: the schedule is not in force after the next start");
        for name in self.names() {
            let claims = whole(&self.host, what, &format!("out/{name}"));
            booked(&self.host, what, &claims);
        }
    }
}

/// State and tokens as they stand now, to begin from again and again.
struct Snapshot(PathBuf);

impl Snapshot {
    fn take(host: &Host) -> Self {
        let at = host.path("snapshot");
        let _ = std::fs::remove_dir_all(&at);
        std::fs::create_dir(&at).unwrap();
        tool(Command::new("cp").arg("-a").args([host.path("state"), host.path("out")]).arg(&at));
        Self(at)
    }

    fn restore(&self, host: &Host) {
        for name in ["state", "out"] {
            std::fs::remove_dir_all(host.path(name)).unwrap();
            tool(Command::new("cp").arg("-a").arg(self.0.join(name)).arg(host.path(name)));
        }
    }
}

/// A way to a server that can be shut.
struct Way {
    port: u16,
    open: Arc<AtomicBool>,
}

impl Way {
    fn to(address: &str) -> Self {
        let server = address.strip_prefix("https://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, open) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let way = Arc::clone(&open);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Dropped at once where the way is shut.
                if way.load(Ordering::Relaxed) {
                    let there = TcpStream::connect(&server).unwrap();
                    pump(stream.try_clone().unwrap(), there.try_clone().unwrap());
                    pump(there, stream);
                }
            }
        });
        Self { port, open }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

/// A store that was away comes back: it gets the token that the fallback holds.
struct Failback {
    host: Host,
    servers: &'static Servers,
    way: Way,
    snapshot: Snapshot,
    path: String,
}

impl Failback {
    fn new() -> Self {
        let servers = servers();
        let bao = servers.bao();
        let way = Way::to(&bao.address);
        let path = format!("failback/{}", way.port);
        let store = format!(
            "stores: {{vault: {{vault: {{address: \"https://127.0.0.1:{}\", caFile: {}, auth: {{token: {{file: {}}}}}}}}}}}\n",
            way.port,
            bao.ca.display(),
            bao.root_token_file.display()
        );
        let target = format!(
            "targets: [{{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{{vault: {{store: vault, mount: secret, path: {path}, key: token}}, fallback: [{{file: {{path: HERE/out/fallback}}}}]}}]}}]\n"
        );
        let host = Host::new(&format!("clusters: {{trial: {{embedded: {{}}}}}}\n{store}{target}"));
        assert_eq!(host.run(&["once"]).code, Some(0), "what fell back is served");
        assert_eq!(host.records_of("rotated", "one")[0]["sinks"][0]["outcome"], "fellBack");
        way.open.store(true, Ordering::Relaxed);
        let snapshot = Snapshot::take(&host);
        Self { host, servers, way, snapshot, path }
    }

    fn curl(&self, method: &str, kind: &str) -> Value {
        let bao = self.servers.bao();
        let config = self
            .host
            .write("curl", &format!("header = \"X-Vault-Token: {}\"\n", std::fs::read_to_string(&bao.root_token_file).unwrap().trim()));
        let url = format!("{}/v1/secret/{kind}/{}", bao.address, self.path);
        let text = tool(Command::new("curl").args(["-sS", "-X", method, "--config"]).arg(config).arg("--cacert").arg(&bao.ca).arg(url));
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// What the store holds; nothing where it was not paid yet.
    fn stored(&self) -> Option<String> {
        self.curl("GET", "data")["data"]["data"]["token"].as_str().map(str::to_owned)
    }
}

impl Scene for Failback {
    fn host(&self) -> &Host {
        &self.host
    }

    fn run(&mut self, point: Option<Point>) -> Traced {
        assert!(self.way.open.load(Ordering::Relaxed));
        self.curl("DELETE", "metadata");
        self.snapshot.restore(&self.host);
        run(self.host.command(&["once"]), self.host.folder.path(), None, point, LIMIT)
    }

    fn check(&self, what: &str) {
        let fallback = self.host.path("out/fallback").exists().then(|| self.host.read("out/fallback"));
        let stored = self.stored();
        assert!(fallback.is_some() || stored.is_some(), "{what}: neither the fallback nor the store has a token");
        if fallback.is_some() {
            whole(&self.host, what, "out/fallback");
        }
        assert!(stored.is_none() || fallback.is_none() || stored == fallback, "{what}: another token than the one that was owed");
    }

    fn recovered(&mut self, what: &str) {
        mended(&self.host, what);
        let stored = self.stored().unwrap_or_else(|| panic!("{what}: the next run did not pay"));
        let rotated = self.host.records_of("rotated", "one");
        assert_eq!(rotated.len(), 1, "{what}: a token was minted where one was owed");
        let jti = Claims::of(&stored).unwrap().jti.unwrap();
        assert_eq!(rotated[0]["jti"], jti.as_str(), "{what}");
        let paid = self.host.records_of("paid", "one");
        assert!(paid.len() == 1 && paid[0]["jti"] == jti.as_str(), "{what}: {paid:?}");
    }
}

/// A rotation whose record begins a new file of records.
struct RollOver {
    rotation: Rotation,
    snapshot: Snapshot,
}

impl RollOver {
    /// The least that a schedule allows.
    const OPTIONS: Options = Options { keep: 400 * 86_400, max_size: 64 << 10 };

    fn files(host: &Host) -> usize {
        std::fs::read_dir(host.path("state/records"))
            .unwrap()
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|e| e == "jsonl"))
            .count()
    }

    fn new() -> Self {
        let rotation = Rotation::new();
        let host = &rotation.0;
        let schedule = std::fs::read_to_string(host.schedule()).unwrap();
        std::fs::write(host.schedule(), schedule.replacen("state/records}", "state/records, maxSize: 64KiB}", 1)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = host.path("state/records");
        for more in [150, 20, 10, 5].into_iter().chain([1; 200]) {
            let before = Snapshot::take(host);
            assert_eq!(host.run(&["once", "--force"]).code, Some(0));
            if Self::files(host) > 1 {
                return Self { snapshot: before, rotation };
            }
            // Full, but for one run; where this was too much the step before is taken again, smaller.
            before.restore(host);
            runtime.block_on(async {
                let writer = open(&folder, Self::OPTIONS).unwrap().writer;
                writer.append((0..more).map(|_| Line::new(Kind::Stopped, jiff::Timestamp::now())).collect()).await;
                writer.close().await;
            });
            if Self::files(host) > 1 {
                before.restore(host);
            }
        }
        panic!("the records did not roll over");
    }
}

impl Scene for RollOver {
    fn host(&self) -> &Host {
        &self.rotation.0
    }

    fn run(&mut self, point: Option<Point>) -> Traced {
        self.snapshot.restore(&self.rotation.0);
        let traced = self.rotation.run(point);
        assert!(point.is_some() || Self::files(&self.rotation.0) > 1, "this run was to begin a new file");
        traced
    }

    fn check(&self, what: &str) {
        self.rotation.check(what);
    }

    fn recovered(&mut self, what: &str) {
        self.rotation.recovered(what);
    }
}

/// Kills at the calls of a scene: those of a sample, or all until none is left.
fn kill_at_each<S: Scene>(name: &str, new: impl Fn() -> S + Sync, short: usize) {
    let begun = Instant::now();
    let mut first = new();
    let quiet = first.run(None);
    assert_eq!(quiet.done.code, Some(0), "{name}: {quiet:?}");
    first.check(name);
    first.recovered(name);
    let all = quiet.calls.len();
    assert!(all >= 20, "{name}: only {all} calls: {:?}", quiet.calls);
    // Threads take turns: some runs have a few calls more.
    let beyond = if long() { all / 4 } else { 0 };
    let points: Vec<usize> = sample(all + beyond, short).collect();
    let over = AtomicBool::new(false);
    let kill = |scene: &mut S, nth: usize| {
        if over.load(Ordering::Relaxed) {
            return None;
        }
        let what = format!("{name}: SIGKILL at call {} of about {all}", nth + 1);
        let traced = scene.run(Some(Point { nth: nth + 1, act: Act::Kill }));
        no_panic(&what, &traced);
        let Some(call) = traced.hit else {
            over.fetch_or(nth >= all, Ordering::Relaxed);
            return None;
        };
        let what = format!("{what}, {call}");
        assert_eq!(traced.done.code, None, "{what}: {:?}", traced.done);
        scene.check(&what);
        scene.recovered(&what);
        Some(call)
    };
    let mut by_name = std::collections::BTreeMap::new();
    for call in abreast(&points, &new, kill).into_iter().flatten() {
        *by_name.entry(call).or_insert(0) += 1;
    }
    let kills: usize = by_name.values().sum();
    assert!(kills * 2 >= short.min(all), "{name}: only {kills} points were reached");
    println!("figures: T2: {name}: {kills} kills at {all} file system calls in {} s, 0 bad: {by_name:?}", begun.elapsed().as_secs());
}

#[test]
fn t2_g4_a_kill_at_any_call_of_a_rotation_is_put_right_by_the_next_run() {
    if here("T2, rotation") {
        kill_at_each("rotation", Rotation::new, 30);
    }
}

#[test]
fn t2_g4_g9_a_kill_at_any_call_of_a_reload_leaves_one_schedule_or_the_other() {
    if here("T2, reload") {
        kill_at_each("reload", Reload::new, 12);
    }
}

#[test]
fn t2_g1_g4_a_kill_at_any_call_of_a_failback_loses_neither_copy() {
    if here("T2, failback") {
        kill_at_each("failback", Failback::new, 12);
    }
}

#[test]
fn t2_g4_g10_a_kill_at_any_call_of_a_roll_over_of_the_records_loses_none() {
    if here("T2, roll-over") {
        kill_at_each("roll-over", RollOver::new, 15);
    }
}

#[test]
fn t3_g1_g3_g10_whatever_file_system_call_fails_the_old_token_or_the_new_one_stands_and_the_record_is_right() {
    if !here("T3") {
        return;
    }
    let begun = Instant::now();
    let all = Rotation::new().run(None).calls.len();
    let ways: Vec<usize> = sample(all * ERRORS.len() * 2, 70).collect();
    let became = abreast(&ways, Rotation::new, |scene, way| fail_at(scene, way, all));
    let faults = became.iter().flatten().count();
    let survived = became.iter().flatten().filter(|overcome| **overcome).count();
    assert!(faults >= 50, "only {faults} faults were reached");
    println!(
        "figures: T3: {faults} faults at {all} file system calls in {} s, {survived} of them overcome within the run, 0 bad",
        begun.elapsed().as_secs()
    );
}

/// One fault of the many; whether it was overcome within the run, nothing where the run did not come to it.
fn fail_at(scene: &mut Rotation, way: usize, all: usize) -> Option<bool> {
    // A sample goes through errors, and once and for good, as it goes through calls.
    let (nth, (name, error), forever) = (way / (2 * ERRORS.len()), ERRORS[way / 2 % ERRORS.len()], way % 2 == 1);
    let act = if forever { Act::FailForGood(error) } else { Act::Fail(error) };
    let traced = scene.run(Some(Point { nth: nth + 1, act }));
    let call = traced.hit?;
    let what = format!("{call} (call {} of about {all}) {name} {}", nth + 1, if forever { "for good" } else { "once" });
    no_panic(&what, &traced);
    let [one, two] = places(scene.host(), &what);
    match traced.done.code {
        Some(0) => {
            assert_eq!(one.jti, two.jti, "{what}: success, and the places differ: {:?}", traced.done);
            booked(scene.host(), &format!("{what}: success: {:?}", traced.done), &one);
        }
        Some(_) => assert!(!traced.done.stderr.trim().is_empty(), "{what}: it failed without a word: {:?}", traced.done),
        None => panic!("{what}: ended by a signal: {:?}", traced.done),
    }
    scene.recovered(&what);
    Some(traced.done.code == Some(0))
}
