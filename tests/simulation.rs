//! T7 and T8: the real plan, timing, timetable, queues, tries and fold of the records under a simulated clock, in a
//! world of outages, clock steps, sleep, kills and meddling neighbours. One failure is one seed:
//! `TOKENFERRY_SEED=n` runs that one alone, `TOKENFERRY_LONG=1` the long form.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, clippy::cast_possible_wrap)]

mod chance;
mod fleet;
mod life;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use tokenferry::cluster::Limits;
use tokenferry::schedule::Plan;
use tokenferry::schedule::check::{Sources, plan};

use chance::Chance;
use life::{Event, Events, live};
use world::{DAY, Days, Fault, HOUR, MINUTE, SECOND, Server, World};

fn long() -> bool {
    std::env::var_os("TOKENFERRY_LONG").is_some_and(|v| v == "1")
}

fn seeds(short: u64) -> Vec<u64> {
    match std::env::var("TOKENFERRY_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=short).collect(),
    }
}

/// Runs a future under a clock that jumps from one event to the next.
fn simulate<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

const HEAD: &str = "version: 1
clusters:
  near: {kubeconfig: /near, limits: {inFlight: 64, perSecond: 200}}
  far: {kubeconfig: /far, limits: {inFlight: 24}}
  slow: {kubeconfig: /slow, limits: {inFlight: 4, perSecond: 1}}
stores:
  vault: {vault: {address: 'https://vault:8200', auth: {token: {file: /t}}}, limits: {inFlight: 32}}
targets:
";

fn planned(targets: &str) -> Plan {
    let sources = Sources { path: "/etc/s.yaml".into(), text: format!("{HEAD}{targets}"), includes: Vec::new() };
    plan(&sources, &BTreeMap::new()).unwrap_or_else(|problems| panic!("{}", problems[0]))
}

/// A mixed lot of targets; `turn` counts the reloads: some change with each, some come and go.
fn mixed(seed: u64, targets: usize, turn: u64) -> Plan {
    let mut text = String::new();
    for n in 0..targets {
        let chance = Chance::new(seed.wrapping_mul(7_919).wrapping_add(n as u64));
        let changed = if turn > 0 && (n as u64 + turn).is_multiple_of(50) { turn } else { 0 };
        if turn > 0 && (n as u64 + turn).is_multiple_of(97) {
            continue;
        }
        // Few live short where there are many, for the sake of the time that it takes.
        let duration = match (chance.next() % 200, targets) {
            (0, ..1_000) | (1..=4, ..100) => "10m",
            (1..=4, _) | (5..=15, ..100) => "1h",
            (5..=60, ..100) => "24h",
            (61..=120, ..100) => "36h",
            (5..=50, _) => "48h",
            _ => "7d",
        };
        let rotate = match chance.next() % 20 {
            0 | 1 => ", rotate: {cron: '0 2 * * *', timeZone: Europe/Berlin}",
            2 => ", rotate: {at: 66%, splay: 0s}",
            3 => ", rotate: {window: {from: '22:00', to: '06:00'}, timeZone: UTC}",
            _ => "",
        };
        let prove = if chance.one_in(4) { "{every: 6h}" } else { "{every: 7d}" };
        let cluster = if chance.one_in(3) { "far" } else { "near" };
        let deliver = match chance.next() % 6 {
            0 => format!("{{vault: {{store: vault, path: v/{n}}}}}"),
            1 => format!("{{vault: {{store: vault, path: v/{n}}}, fallback: [{{file: {{path: /f/{n}}}}}]}}, {{file: {{path: /b/{n}}}}}"),
            2 => format!("{{file: {{path: /r/{n}}}}}, {{vault: {{store: vault, path: v/{n}}}, required: false}}"),
            _ => format!("{{file: {{path: /r/{n}}}}}"),
        };
        writeln!(
            text,
            "  - {{name: t{n}, cluster: {cluster}, serviceAccount: a/b{changed}, duration: {duration}{rotate}, prove: {prove}, deliver: [{deliver}]}}"
        )
        .expect("text");
    }
    planned(&text)
}

fn servers(chance: &Chance, until: i64, gap: i64) -> (BTreeMap<String, Server>, BTreeMap<String, Server>) {
    let server = |limits, pace, skew, longest, refusing| {
        let mut server = Server::new(limits, pace);
        server.days = Days::random(chance, until, gap, refusing);
        server.skew = skew;
        server.longest = longest;
        server
    };
    let near = server(Limits { in_flight: 64, per_second: 200 }, (2, 40), chance.between(-2_000, 2_000), 86_400 * 2, true);
    let far = server(Limits { in_flight: 24, per_second: 0 }, (20, 300), chance.between(-90_000, 90_000), i64::MAX, true);
    let vault = server(Limits { in_flight: 32, per_second: 0 }, (2, 60), 0, i64::MAX, true);
    let slow = Server::new(Limits { in_flight: 4, per_second: 1 }, (1, 2));
    ([("near".into(), near), ("far".into(), far), ("slow".into(), slow)].into(), [("vault".into(), vault)].into())
}

/// What befalls the daemon, `gap` ms apart in the mean.
fn troubles(chance: &Chance, seed: u64, targets: usize, until: i64, gap: i64) -> Events {
    let mut events = Events::new();
    let (mut at, mut turn, mut wrong) = (chance.between(gap / 4, gap * 2), 0, false);
    while at < until {
        let anyone = chance.between(0, targets as i64) as usize;
        let event = match chance.next() % 16 {
            0..=3 => Event::Kill(chance.scale(200.0, HOUR as f64)),
            4 | 5 => Event::Sleep(chance.scale(10e3, 10.0 * HOUR as f64)),
            6 | 7 => {
                wrong = !wrong;
                let by = chance.scale(6e3, 12.0 * HOUR as f64);
                Event::Clock(if !wrong {
                    0
                } else if chance.one_in(2) {
                    by
                } else {
                    -by
                })
            }
            8 => {
                turn += 1;
                Event::Reload(Box::new(mixed(seed, targets, turn)))
            }
            9 | 10 => Event::Ask(anyone),
            11 | 12 => Event::Destroy(anyone),
            13 if chance.one_in(4) => Event::Hostile(anyone),
            _ => Event::Revoke(anyone),
        };
        events.push_back((at, event));
        at += chance.between(gap / 4, gap * 2);
    }
    if wrong {
        events.push_back((until, Event::Clock(0)));
    }
    events
}

/// One seed: bad days until `until`, then two days of calm after which all is as it should be.
fn run(seed: u64, targets: usize, until: i64, gap: i64) -> Rc<World> {
    simulate(async {
        let chance = Chance::new(seed);
        let (servers, stores) = servers(&chance, until, gap * 4);
        let world = Rc::new(World::new(seed, mixed(seed, targets, 0), servers, stores));
        let mut events = troubles(&chance, seed, targets, until, gap);
        let calm = until + 8 * DAY;
        while world.time() < calm {
            live(&world, &mut events, calm).await;
        }
        world.check_calm();
        world
    })
}

fn figures(name: &str, what: &str, worlds: &[Rc<World>], begun: std::time::Instant) {
    let sum = |count: fn(&World) -> u64| worlds.iter().map(|w| count(w)).sum::<u64>();
    println!(
        "figures: {name}: {what}, seeds {}..{}, {} events, {} mints, {} deliveries, {} starts, {} clock steps, {} outages, {} tokens ended where nothing could be done, 0 bad, {:.0} s",
        worlds[0].seed,
        worlds[worlds.len() - 1].seed,
        sum(|w| w.figures.events.get()),
        sum(|w| w.figures.mints.get()),
        sum(|w| w.figures.puts.get()),
        sum(|w| w.figures.starts.get()),
        sum(|w| w.figures.steps.get()),
        sum(|w| w.servers.values().chain(w.stores.values()).map(|s| s.days.len() as u64).sum()),
        sum(|w| w.figures.excused.get()),
        begun.elapsed().as_secs_f64(),
    );
}

#[test]
fn t7_g2_g5_g7_no_token_ends_that_could_have_been_renewed_and_none_is_minted_too_often() {
    let begun = std::time::Instant::now();
    let worlds: Vec<_> = seeds(if long() { 100 } else { 8 }).into_iter().map(|seed| run(seed, 24, 4 * DAY, 90 * MINUTE)).collect();
    figures("T7", "4 days x 24 targets each, trouble every 90 minutes", &worlds, begun);
}

#[test]
fn t7_a_thousand_days_with_a_thousand_targets() {
    if !long() {
        println!("NOT RUN: long form only (TOKENFERRY_LONG=1)");
        return;
    }
    let begun = std::time::Instant::now();
    let worlds = [run(seeds(1)[0], 1_000, 1_000 * DAY, DAY * 2)];
    figures("T7", "1,000 days x 1,000 targets", &worlds, begun);
}

#[test]
fn t7_a_day_with_ten_thousand_targets() {
    if !long() {
        println!("NOT RUN: long form only (TOKENFERRY_LONG=1)");
        return;
    }
    let begun = std::time::Instant::now();
    let worlds = [run(seeds(1)[0], 10_000, DAY, HOUR)];
    figures("T7", "24 h x 10,000 targets", &worlds, begun);
}

#[test]
fn t7_g6_a_hung_cluster_and_a_dead_store_make_no_other_target_wait() {
    let world = simulate(async {
        let near = Server::new(Limits { in_flight: 64, per_second: 200 }, (2, 40));
        let mut far = Server::new(Limits { in_flight: 24, per_second: 0 }, (20, 300));
        far.days = Days::one(HOUR, 9 * HOUR, Fault::Hung);
        let mut vault = Server::new(Limits { in_flight: 32, per_second: 0 }, (2, 60));
        vault.days = Days::one(2 * HOUR, 8 * HOUR, Fault::Hung);
        let slow = Server::new(Limits { in_flight: 4, per_second: 1 }, (1, 2));
        let servers = [("near".into(), near), ("far".into(), far), ("slow".into(), slow)].into();
        let world = World::new(5, mixed(5, 80, 0), servers, [("vault".into(), vault)].into());
        // The first hour gives everybody a token.
        let world = Rc::new(world);
        let mut events = Events::new();
        live(&world, &mut events, HOUR).await;
        world.servers["near"].longest_wait.set(0);
        live(&world, &mut events, 10 * HOUR).await;
        world
    });
    let waited = world.servers["near"].longest_wait.get();
    assert!(waited <= SECOND, "a target of a healthy cluster waited for {waited} ms");
    assert!(world.figures.mints.get() > 80, "nothing was rotated");
}

#[test]
fn t7_g7_a_place_that_is_owed_and_an_api_server_that_throttles_make_no_storm_of_requests() {
    // The world fails the test where one target asks too often.
    let world = simulate(async {
        let mut near = Server::new(Limits { in_flight: 64, per_second: 200 }, (2, 40));
        near.days = Days::one(HOUR + 5 * MINUTE, 3 * HOUR, Fault::Overloaded(None));
        let mut vault = Server::new(Limits { in_flight: 32, per_second: 0 }, (2, 60));
        vault.days = Days::one(HOUR, 4 * HOUR, Fault::Down);
        let idle = || Server::new(Limits { in_flight: 4, per_second: 1 }, (1, 2));
        let servers = [("near".into(), near), ("far".into(), idle()), ("slow".into(), idle())].into();
        let text = "  - {name: t0, cluster: near, serviceAccount: a/b, duration: 10m, deliver: [{vault: {store: vault, path: v/0}}]}\n";
        let world = Rc::new(World::new(7, planned(text), servers, [("vault".into(), vault)].into()));
        live(&world, &mut Events::new(), 6 * HOUR).await;
        world
    });
    assert!(world.figures.mints.get() > 10, "nothing was rotated after it");
}

#[test]
fn t7_g7_a_place_that_is_removed_again_and_again_costs_no_more_mints_for_restarts_in_between() {
    // The world fails the test where more tokens are minted than the floor between mends allows in that hour.
    let world = simulate(async {
        let server = || Server::new(Limits { in_flight: 64, per_second: 200 }, (2, 40));
        let servers = [("near".into(), server()), ("far".into(), server()), ("slow".into(), server())].into();
        let text = "  - {name: t0, cluster: near, serviceAccount: a/b, duration: 36h, deliver: [{file: {path: /r/0}}]}\n";
        let world = Rc::new(World::new(8, planned(text), servers, [("vault".into(), server())].into()));
        let mut events: Events = [(HOUR, Event::Hostile(0))].into();
        events.extend((1..18).map(|n| (HOUR + n * 3 * MINUTE, Event::Kill(500))));
        while world.time() < 4 * HOUR {
            live(&world, &mut events, 4 * HOUR).await;
        }
        world
    });
    assert!(
        world.figures.mints.get() > 4 && world.figures.starts.get() > 15,
        "{} mints, {} starts",
        world.figures.mints.get(),
        world.figures.starts.get()
    );
}

#[test]
fn t7_g2_under_overload_the_token_that_ends_first_is_served_first() {
    let world = simulate(async {
        let mut text = String::new();
        for n in 0..200 {
            let wants = if n < 12 { "duration: 10m" } else { "duration: 48h, rotate: {cron: '0 2 * * *', timeZone: UTC, splay: 0s}" };
            writeln!(
                text,
                "  - {{name: t{n}, cluster: slow, serviceAccount: a/b, {wants}, prove: false, deliver: [{{file: {{path: /r/{n}}}}}]}}"
            )
            .expect("text");
        }
        // At two o'clock more than three minutes of work: longer than a token of ten minutes can wait for.
        let limits = Limits { in_flight: 4, per_second: 1 };
        let servers = ["near", "far", "slow"].map(|name| (name.to_owned(), Server::new(limits, (5, 50))));
        let world = Rc::new(World::new(6, planned(&text), servers.into(), [("vault".into(), Server::new(limits, (1, 2)))].into()));
        live(&world, &mut Events::new(), 5 * HOUR).await;
        world
    });
    assert!(world.figures.mints.get() >= 2 * 188 + 12 * 30, "not everybody had a turn");
    assert_eq!(world.figures.expired.get(), 0);
}

/// All at two in the morning, UTC.
fn herd(targets: usize, changed: Option<usize>, splay: &str) -> Plan {
    let mut text = String::new();
    for n in 0..targets {
        let account = if changed == Some(n) { "other" } else { "b" };
        writeln!(
            text,
            "  - {{name: t{n}, cluster: near, serviceAccount: a/{account}, duration: 36h, rotate: {{cron: '0 2 * * *', timeZone: UTC{splay}}}, deliver: [{{file: {{path: /r/{n}}}}}]}}"
        )
        .expect("text");
    }
    planned(&text)
}

#[test]
fn t8_g7_a_herd_starts_rotates_returns_and_reloads_within_the_limits_and_none_is_late() {
    let begun = std::time::Instant::now();
    let targets = if long() { 10_000 } else { 300 };
    let mints = targets as u64;
    // A mint and its proof each, 200 a second, and some seconds in which the window grows.
    let enough = 2 * targets as i64 * 1000 / 200 + 15 * SECOND;
    let world = simulate(async {
        let limits = Limits { in_flight: 64, per_second: 200 };
        let mut near = Server::new(limits, (3, 40));
        // Down over two o'clock of the third day.
        near.days = Days::one(2 * DAY + HOUR, 2 * DAY + 3 * HOUR, Fault::Down);
        let idle = Server::new(limits, (1, 2));
        let far = Server::new(limits, (1, 2));
        let slow = Server::new(Limits { in_flight: 4, per_second: 1 }, (1, 2));
        let servers = [("near".into(), near), ("far".into(), far), ("slow".into(), slow)].into();
        let world = World::new(1, herd(targets, None, ", splay: 0s"), servers, [("vault".into(), idle)].into());
        let world = Rc::new(world);
        let minted = || world.figures.mints.get();
        let mut events = Events::new();
        live(&world, &mut events, enough).await;
        assert_eq!(minted(), mints, "not all had a token {enough} ms after the cold start");
        // A start with fresh tokens, after a gap in which nothing was due.
        live(&world, &mut events, HOUR).await;
        assert_eq!(minted(), mints, "G5: fresh tokens were minted anew by a restart");
        // Two o'clock of the first day: every token serves it, for each is younger than a day; it is the cron's time.
        live(&world, &mut events, 2 * HOUR + enough).await;
        assert_eq!(minted(), 2 * mints, "not all were rotated {enough} ms after two o'clock");
        events.push_back((20 * HOUR, Event::Reload(Box::new(herd(targets, Some(7), ", splay: 0s")))));
        live(&world, &mut events, 26 * HOUR + enough).await;
        assert_eq!(minted(), 3 * mints + 1, "a reload minted what had not changed, or two o'clock was missed");
        live(&world, &mut events, 2 * DAY + 3 * HOUR - 1).await;
        assert_eq!(minted(), 3 * mints + 1, "a dead API server minted");
        live(&world, &mut events, 2 * DAY + 3 * HOUR + enough + 5 * MINUTE).await;
        assert_eq!(minted(), 4 * mints + 1, "not all were rotated after the outage");
        live(&world, &mut events, 3 * DAY).await;
        assert_eq!(minted(), 4 * mints + 1, "fresh tokens were minted anew");
        world.check_calm();
        world
    });
    assert!(world.servers["near"].peak.get() <= 64);
    assert_eq!(world.figures.excused.get(), 0, "a token ended");
    figures("T8", &format!("{targets} targets at 02:00, peak {} at once", world.servers["near"].peak.get()), &[world], begun);
}
