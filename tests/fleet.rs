//! A fleet of real daemons on a real API server: they share their targets, one that dies is replaced, one that stops gives
//! up at once, and while their Leases cannot be reached everybody goes on as before.

mod days;
mod fence;
mod figures;
mod hosts;
mod tunnel;
mod turns;

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokenferry::token::Claims;

use crate::support::daemon::{Done, Host};
use crate::support::servers::{cluster, kubeconfig};
use crate::support::until;
use tunnel::Tunnel;

/// One namespace, and a fleet in it.
pub struct Fleet {
    namespace: String,
    targets: usize,
    duration: &'static str,
}

/// One member: its host, and its way to the Leases.
pub struct Member {
    name: String,
    host: Host,
    tunnel: Tunnel,
}

impl Fleet {
    fn new(namespace: &str, targets: usize) -> Self {
        cluster().kubectl(&["create", "namespace", namespace]);
        cluster().kubectl(&["-n", namespace, "create", "serviceaccount", "ci"]);
        Self { namespace: namespace.into(), targets, duration: "1h" }
    }

    /// The one schedule of all: whatever differs from host to host is named by a path beside it.
    fn schedule(&self) -> String {
        let Self { namespace, targets, duration } = self;
        let mut text = format!(
            "version: 1\nrecords: {{directory: state/records}}\ncontrol: {{socket: control.sock}}\nclusters:\n  \
             prod: {{kubeconfig: user.kubeconfig}}\n  meet: {{kubeconfig: lease.kubeconfig}}\n\
             fleet: {{lease: {{cluster: meet, namespace: {namespace}, name: ferry}}}}\n\
             defaults: {{cluster: prod, serviceAccount: {namespace}/ci, duration: {duration}, prove: false}}\ntargets:\n"
        );
        for n in 0..*targets {
            text += &format!("  - {{name: t{n}, deliver: [{{kubernetesSecret: {{namespace: {namespace}, name: t{n}}}}}]}}\n");
        }
        text
    }

    /// A member that has not started.
    fn member(&self, name: &str) -> Member {
        self.member_with(name, &self.schedule())
    }

    fn member_with(&self, name: &str, schedule: &str) -> Member {
        let admin = &cluster().kube().admin_kubeconfig;
        // A user of this host's own gets the rights that `rbac` prints for the schedule, and no other.
        let meant = schedule.replace("user.kubeconfig", admin.to_str().unwrap()).replace("lease.kubeconfig", admin.to_str().unwrap());
        let body = meant.split_once("clusters:").map(|(_, rest)| format!("clusters:{rest}")).unwrap();
        let host = Host::new(&body);
        let tunnel = Tunnel::to(cluster().kube().server.trim_start_matches("https://"));
        let written: Value = serde_yaml::from_str(&host.read("schedule.yaml")).unwrap();
        let user = std::fs::read_to_string(written["clusters"]["prod"]["kubeconfig"].as_str().unwrap()).unwrap();
        let user: Value = serde_json::from_str(&user).unwrap();
        let through = kubeconfig(&tunnel.url(), &cluster().kube().ca, user["users"][0]["user"].clone());
        host.write("user.kubeconfig", &user.to_string());
        host.write("lease.kubeconfig", &through);
        std::fs::write(host.schedule(), schedule).unwrap();
        Member { name: name.into(), host, tunnel }
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        cluster().kubectl(&[&["-n", &*self.namespace], arguments].concat())
    }

    /// The token that stands in each Secret: its `jti` and `iat`.
    fn tokens(&self) -> BTreeMap<String, (String, i64)> {
        let secrets: Value = serde_json::from_str(&self.kubectl(&["get", "secrets", "-o", "json"])).unwrap();
        let one = |secret: &Value| {
            use base64::Engine;
            let token = base64::engine::general_purpose::STANDARD.decode(secret["data"]["token"].as_str()?).ok()?;
            let claims = Claims::of(std::str::from_utf8(&token).ok()?).ok()?;
            Some((secret["metadata"]["name"].as_str()?.to_owned(), (claims.jti?, claims.iat?)))
        };
        secrets["items"].as_array().unwrap().iter().filter_map(one).collect()
    }

    fn leases(&self) -> Vec<String> {
        let names = self.kubectl(&["get", "leases", "-o", "jsonpath={.items[*].metadata.name}"]);
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until every target has a token.
    fn served(&self) {
        until("every target has its token", 60, || self.tokens().len() == self.targets);
    }
}

impl Member {
    fn start(&mut self) {
        self.host.start_with(&[("TOKENFERRY_MEMBER", &self.name)]);
        let host = &self.host;
        until("the daemon answers", 60, || host.run(&["status", "-o", "json", "--timeout", "20s"]).stdout.contains("\"pid\""));
    }

    fn status(&self) -> Value {
        self.host.json(&["status"])
    }

    /// Targets that it serves, and has looked at.
    fn serves(&self) -> Vec<String> {
        let status = self.status();
        let here = |row: &&Value| row["state"] != "elsewhere" && row["owner"] == *self.name && !row["expiresAt"].is_null();
        status["targets"].as_array().unwrap().iter().filter(here).map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    }

    fn is_joined(&self) -> bool {
        self.status()["daemon"]["fleet"]["joined"] == true
    }

    /// Members that it takes for alive.
    fn alive(&self) -> Vec<String> {
        let members = self.status()["daemon"]["fleet"]["members"].as_array().unwrap().clone();
        members.iter().filter(|m| m["alive"] == true).map(|m| m["name"].as_str().unwrap().to_owned()).collect()
    }

    fn records(&self, kind: &str) -> Vec<Value> {
        self.host.records().into_iter().filter(|line| line["kind"] == kind).collect()
    }

    fn rotate(&self, target: &str) -> Done {
        self.host.run(&["rotate", target])
    }
}

/// Two members that have shared all targets out, each with some, and all of them with a token.
fn two(fleet: &Fleet) -> (Member, Member) {
    let (mut a, mut b) = (fleet.member("a"), fleet.member("b"));
    a.start();
    until("a is a member", 60, || a.is_joined());
    fleet.served();
    b.start();
    until("both know each other", 60, || a.alive().len() == 2 && b.alive().len() == 2);
    until("all is shared out", 60, || a.serves().len() + b.serves().len() == fleet.targets && !b.serves().is_empty());
    assert!(!a.serves().is_empty());
    (a, b)
}

fn minted(members: &[&Member]) -> usize {
    members.iter().map(|member| member.records("rotated").len()).sum()
}

#[test]
fn two_daemons_share_their_targets_and_when_one_is_killed_the_other_serves_all_without_a_mint() {
    let fleet = Fleet::new("fleet-kill", 12);
    let (mut a, mut b) = two(&fleet);
    let before = fleet.tokens();
    assert_eq!(minted(&[&a, &b]), 12, "who comes mints nothing that is fresh");
    let taken = b.records("takenOver");
    assert_eq!(taken.len(), b.serves().len());
    assert!(taken.iter().all(|line| line["fleet"]["from"] == "a" && line["fleet"]["to"] == "b"), "{taken:?}");
    assert_eq!(a.records("handedOver").len(), taken.len());
    assert_eq!((a.records("joined").len(), b.records("joined").len()), (1, 1));
    let shown = b.host.run(&["status", "--fleet"]);
    assert!(shown.stdout.contains("MEMBER") && shown.stdout.contains("OWNER"), "{shown:?}");
    assert_eq!(shown.code, Some(0), "{shown:?}");
    a.host.kill();
    until("b serves all", 60, || b.serves().len() == 12);
    assert_eq!(fleet.tokens(), before, "no fresh token was minted again");
    assert_eq!(minted(&[&a, &b]), 12);
    assert!(b.host.log().contains("member a is dead"), "{}", b.host.log());
    // The same daemon again: it is known by its records, and gets its share back.
    a.start();
    until("all is shared out again", 60, || a.serves().len() + b.serves().len() == 12 && !a.serves().is_empty());
    assert_eq!(fleet.tokens(), before);
    assert_eq!((a.host.stop(), b.host.stop()), (Some(0), Some(0)));
    assert!(fleet.leases().is_empty(), "who stops leaves no Lease: {:?}", fleet.leases());
}

#[test]
fn a_daemon_that_stops_gives_its_targets_up_at_once_and_one_that_is_asked_rotates_what_it_has_taken() {
    let fleet = Fleet::new("fleet-stop", 6);
    let (mut a, b) = two(&fleet);
    assert_eq!(a.host.stop(), Some(0));
    until("b serves all", 60, || b.serves().len() == 6);
    let log = b.host.log();
    assert!(log.contains("member a left") && !log.contains("member a is dead"), "its Lease was given up, it did not run out:\n{log}");
    assert_eq!(fleet.leases(), ["ferry.b"]);
    assert_eq!(a.records("left").len(), 1);
    let before = fleet.tokens();
    for (target, (jti, iat)) in before {
        assert_eq!(b.rotate(&target).code, Some(0));
        let now = fleet.tokens().remove(&target).unwrap();
        assert!(now.0 != jti && now.1 >= iat, "{target}");
    }
}

#[test]
fn while_the_leases_cannot_be_reached_owners_go_on_and_nobody_takes_over() {
    let fleet = Fleet::new("fleet-away", 6);
    let (mut a, b) = two(&fleet);
    let (of_a, of_b) = (a.serves(), b.serves());
    let taken = a.records("takenOver").len() + b.records("takenOver").len();
    a.tunnel.cut(true);
    b.tunnel.cut(true);
    let sees = |member: &Member| member.status()["daemon"]["fleet"]["error"].as_str().unwrap_or_default().contains("does not answer");
    until("both say that the Leases are away", 60, || sees(&a) && sees(&b));
    assert_eq!(b.host.run(&["status"]).code, Some(1), "that needs a person");
    // Longer than a Lease.
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!((a.serves(), b.serves()), (of_a.clone(), of_b.clone()));
    assert_eq!(a.rotate(&of_a[0]).code, Some(0), "owners go on: {}", a.host.log());
    a.host.kill();
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(b.serves(), of_b, "nobody knows that it is dead");
    assert_eq!(a.records("takenOver").len() + b.records("takenOver").len(), taken);
    b.tunnel.cut(false);
    until("b serves all", 60, || b.serves().len() == 6);
    assert!(b.status()["daemon"]["fleet"]["error"].is_null());
}

#[test]
fn one_that_is_cut_off_is_replaced_and_writes_nothing_older_when_it_comes_back() {
    let fleet = Fleet::new("fleet-cut", 6);
    let (a, b) = two(&fleet);
    let mine = a.serves();
    a.tunnel.cut(true);
    until("b serves all", 60, || b.serves().len() == 6);
    // Both think that it is theirs now. The newer token stays, whoever writes last.
    for target in &mine {
        assert_eq!(b.rotate(target).code, Some(0), "{}", b.host.log());
    }
    let newer = fleet.tokens();
    a.tunnel.cut(false);
    // Each of these it looked at anew, for its Lease had run out.
    let learned = |target: &String| a.records("adopted").iter().any(|line| line["target"] == **target);
    until("a has its share again", 60, || mine.iter().all(learned) && a.serves() == mine && b.serves().len() + mine.len() == 6);
    for (target, (_, iat)) in fleet.tokens() {
        assert!(iat >= newer[&target].1, "{target}: an older token stands where a newer one stood");
    }
}

#[test]
fn an_owner_that_was_stopped_for_longer_than_its_lease_writes_nothing_that_it_began_before() {
    let fleet = Fleet::new("fleet-stopped", 6);
    let (a, b) = two(&fleet);
    let mine = a.serves();
    a.host.signal(Signal::STOP);
    until("b serves all", 60, || b.serves().len() == 6);
    for target in &mine {
        assert_eq!(b.rotate(target).code, Some(0));
    }
    let newer = fleet.tokens();
    a.host.signal(Signal::CONT);
    let learned = |target: &String| a.records("adopted").iter().any(|line| line["target"] == **target);
    until("a has its share again", 60, || mine.iter().all(learned) && a.serves() == mine);
    assert!(!a.records("left").is_empty(), "it knows that it was away");
    assert_eq!(fleet.tokens(), newer, "and mints nothing");
    assert!(a.records("left")[0]["error"].as_str().unwrap().contains("ran out"));
}

#[test]
fn a_second_daemon_with_the_same_name_is_told_so_and_serves_nothing() {
    let fleet = Fleet::new("fleet-twins", 4);
    let mut a = fleet.member("a");
    a.start();
    until("a is a member", 60, || a.is_joined());
    fleet.served();
    let mut twin = fleet.member("a");
    twin.start();
    until("the twin is told", 60, || {
        twin.status()["daemon"]["fleet"]["error"].as_str().unwrap_or_default().contains("another daemon is member a")
    });
    assert_eq!(twin.status()["daemon"]["fleet"]["joined"], false);
    assert_eq!(a.serves().len(), 4);
    assert_eq!(minted(&[&a, &twin]), 4);
    assert_eq!(twin.host.run(&["status"]).code, Some(1));
}

#[test]
fn a_member_with_another_schedule_is_told_of_and_nothing_is_left_unserved() {
    let fleet = Fleet::new("fleet-schedules", 4);
    let mut a = fleet.member("a");
    a.start();
    until("a is a member", 60, || a.is_joined());
    fleet.served();
    // It does not know the last target, and has one of its own.
    let other = fleet.schedule().replace("t3", "t9");
    let all = format!("{}  - {{name: t9, deliver: [{{kubernetesSecret: {{namespace: fleet-schedules, name: t9}}}}]}}\n", fleet.schedule());
    let mut b = fleet.member_with("b", &all);
    std::fs::write(b.host.schedule(), &other).unwrap();
    b.start();
    until("b serves all of its own", 60, || b.serves().len() == 4);
    assert_eq!(a.serves(), ["t0", "t1", "t2", "t3"], "and a goes on with all of its own");
    let shown = a.host.run(&["status", "--fleet"]);
    assert!(shown.stdout.contains("Member b: it has another schedule"), "{shown:?}");
    let mine: Vec<_> = b.records("rotated").iter().map(|line| line["target"].as_str().unwrap().to_owned()).collect();
    assert_eq!(mine, ["t9"], "what is fresh already is not minted by the other one either");
    // The second brings its schedule to the first's: now they share.
    std::fs::write(b.host.schedule(), fleet.schedule()).unwrap();
    assert_eq!(b.host.run(&["reload"]).code, Some(0));
    until("all is shared out", 60, || a.serves().len() + b.serves().len() == 4);
}

#[test]
fn without_rights_on_leases_a_member_says_which_and_serves_nothing_that_is_shared() {
    let fleet = Fleet::new("fleet-rights", 2);
    let mut a = fleet.member("a");
    for binding in fleet.kubectl(&["get", "rolebindings", "-o", "name"]).split_whitespace() {
        fleet.kubectl(&["delete", binding]);
    }
    let doctor = a.host.run(&["doctor"]);
    assert!(doctor.stdout.contains("leases"), "doctor names the right: {doctor:?}");
    a.start();
    until("it says which rights", 60, || {
        let error = a.status()["daemon"]["fleet"]["error"].as_str().unwrap_or_default().to_owned();
        error.contains("may not list, watch, create, update, delete leases") && error.contains("tokenferry rbac")
    });
    assert!(a.serves().is_empty() && a.records("rotated").is_empty());
}
