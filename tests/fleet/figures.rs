//! The figures of a fleet of three on real servers, printed: how soon others serve what a member served that was killed,
//! stopped or cut off; fresh tokens that were minted again; older tokens over newer ones; calls at rest.
//!
//! `TOKENFERRY_FLEET_TARGETS=10000 TOKENFERRY_FLEET_HANDOVERS=1000 cargo test --test all fleet::figures -- --nocapture`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{Fleet, Member, minted};
use crate::support::servers::cluster;
use crate::support::{count, until};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long until the other two serve everything, from now.
fn served_elsewhere(fleet: &Fleet, others: [&Member; 2]) -> Duration {
    let begun = Instant::now();
    until("the others serve all", 120, || others.iter().map(|member| member.serves().len()).sum::<usize>() == fleet.targets);
    begun.elapsed()
}

fn shared_out(fleet: &Fleet, members: &[Member]) {
    until("all is shared out", 300, || {
        members.iter().all(|member| member.alive().len() == members.len())
            && members.iter().map(|member| member.serves().len()).sum::<usize>() == fleet.targets
    });
}

/// Calls of each member within that time, by the API server's own audit log.
fn calls(members: &[Member], seconds: u64) -> Vec<f64> {
    let log = cluster().folder.join("audit.log");
    let begun = std::fs::metadata(&log).unwrap().len();
    std::thread::sleep(Duration::from_secs(seconds));
    let text = std::fs::read(&log).unwrap();
    let text = String::from_utf8_lossy(&text[usize::try_from(begun).unwrap()..]).into_owned();
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let one = |member: &Member| {
        let host = member.host.folder.path().file_name().unwrap().to_string_lossy().into_owned();
        let own = |event: &&Value| event["user"]["username"].as_str().is_some_and(|user| user.ends_with(&host));
        // A watch is logged when it begins and when it ends.
        let whole = |event: &&Value| event["stage"] == "ResponseComplete";
        let calls = events.iter().filter(own).filter(whole).count();
        calls as f64 * 10.0 / seconds as f64
    };
    members.iter().map(one).collect()
}

/// Looks at every Secret all the time; counts tokens that are older than what stood there before.
struct Watcher {
    over: Arc<AtomicBool>,
    older: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    fn of(fleet: &Fleet) -> Self {
        let (over, older) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (end, seen) = (Arc::clone(&over), Arc::clone(&older));
        let fleet = Fleet { namespace: fleet.namespace.clone(), ..*fleet };
        let thread = std::thread::spawn(move || {
            let mut newest: BTreeMap<String, i64> = BTreeMap::new();
            while !end.load(Ordering::Relaxed) {
                for (target, (_, iat)) in fleet.tokens() {
                    let known = newest.entry(target).or_insert(iat);
                    if iat < *known {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                    *known = iat;
                }
            }
        });
        Self { over, older, thread: Some(thread) }
    }

    fn end(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.older.load(Ordering::Relaxed)
    }
}

#[test]
fn the_figures_of_a_fleet_of_three_that_loses_a_member_in_each_way() {
    let fleet = Fleet::new("fleet-figures", count("TOKENFERRY_FLEET_TARGETS", 60, 1_000));
    let mut members: Vec<Member> = NAMES.iter().map(|name| fleet.member(name)).collect();
    members.iter_mut().for_each(Member::start);
    until("every target has its token", 900, || fleet.tokens().len() == fleet.targets);
    shared_out(&fleet, &members);
    let fresh = fleet.tokens();
    let first = minted(&members.iter().collect::<Vec<_>>());
    let most = members.iter().map(|member| member.serves().len()).max().unwrap();
    println!("members 3, targets {}, largest share {:.3} of the mean", fleet.targets, most as f64 * 3.0 / fleet.targets as f64);
    let calls = calls(&members, 60);
    println!("API calls per member per 10 s at rest: {calls:.2?} (2 at most)");

    members[0].host.kill();
    println!("kill -9: served elsewhere after {:.1?} (20 s at most)", served_elsewhere(&fleet, [&members[1], &members[2]]));
    members[0].start();
    shared_out(&fleet, &members);
    members[1].host.signal(Signal::STOP);
    println!("SIGSTOP: served elsewhere after {:.1?}", served_elsewhere(&fleet, [&members[0], &members[2]]));
    members[1].host.signal(Signal::CONT);
    shared_out(&fleet, &members);
    members[2].tunnel.cut(true);
    println!("network cut: served elsewhere after {:.1?}", served_elsewhere(&fleet, [&members[0], &members[1]]));
    members[2].tunnel.cut(false);
    shared_out(&fleet, &members);
    let again = minted(&members.iter().collect::<Vec<_>>()) - first;
    println!("fresh tokens minted again: {again}");
    assert_eq!((again, fleet.tokens()), (0, fresh));

    let wanted = count("TOKENFERRY_FLEET_HANDOVERS", 60, 1_000);
    let (watcher, begun, mut turn) = (Watcher::of(&fleet), Instant::now(), 0);
    let moved = |members: &[Member]| members.iter().map(|m| m.records("takenOver").len()).sum::<usize>();
    let before = moved(&members);
    while moved(&members) - before < wanted {
        // Whoever is asked mints anew while a third of all targets moves.
        let all: Vec<String> = (0..fleet.targets).step_by(7).map(|n| format!("t{n}")).collect();
        let asked: Vec<_> = members
            .iter()
            .map(|m| m.host.command(&[&["rotate"][..], &all.iter().map(String::as_str).collect::<Vec<_>>()].concat()))
            .collect();
        let mut asked: Vec<_> = asked
            .into_iter()
            .map(|mut c| c.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap())
            .collect();
        let index = turn % 3;
        members[index].host.stop();
        until("the others serve all", 120, || {
            (0..3).filter(|n| *n != index).map(|n| members[n].serves().len()).sum::<usize>() == fleet.targets
        });
        members[index].start();
        shared_out(&fleet, &members);
        asked.iter_mut().for_each(|child| _ = child.wait());
        turn += 1;
    }
    let (handed, took) = (moved(&members) - before, begun.elapsed());
    let older = watcher.end();
    println!("{handed} forced hand-overs in {took:.0?}: older tokens over newer ones: {older}");
    assert_eq!(older, 0);
}
