//! Revocable generations against the real API server: a token dies with its marker, and no token that somebody needs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::daemon::{Done, Host, finish};
use crate::support::faults::{Fault, Flavour, Proxy, Real, certificates};
use crate::support::servers::{cluster, kubeconfig};
use crate::support::until;

/// A namespace with an account `ci`, and a host that mints for it.
struct Here {
    namespace: String,
    host: Host,
}

fn admin() -> String {
    cluster().kube().admin_kubeconfig.display().to_string()
}

impl Here {
    /// `more` are further lines of the target.
    fn new(namespace: &str, more: &str) -> Self {
        Self::by(namespace, &admin(), more)
    }

    fn by(namespace: &str, kubeconfig: &str, more: &str) -> Self {
        cluster().kubectl(&["create", "namespace", namespace]);
        cluster().kubectl(&["-n", namespace, "create", "serviceaccount", "ci"]);
        let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
        let here = Self { namespace: namespace.into(), host };
        here.schedule(kubeconfig, more);
        here
    }

    fn schedule(&self, kubeconfig: &str, more: &str) {
        let deliver = if more.contains("deliver:") { "" } else { "    deliver: [{file: {path: HERE/out/token}}]\n" };
        self.host.write_schedule(&format!(
            "clusters: {{prod: {{kubeconfig: {kubeconfig}}}}}\ntargets:\n  - name: ci\n    cluster: prod\n    serviceAccount: {}/ci\n    duration: 1h\n{deliver}{more}",
            self.namespace
        ));
    }

    fn start(&mut self) {
        self.host.start();
        until("the first token stands", 60, || !self.host.records_of("rotated", "ci").is_empty());
    }

    fn token(&self) -> String {
        self.host.read("out/token")
    }

    /// Rotates, whatever becomes of it; the record.
    fn rotate(&self) -> Value {
        self.host.rotate("ci").expect("the daemon answers")
    }

    fn revoke(&self, flags: &[&str]) -> (Done, Value) {
        let done = self.host.run(&[&["revoke", "ci", "-o", "json"], flags].concat());
        let answer = serde_json::from_str(&done.stdout).unwrap_or(Value::Null);
        (done, answer)
    }

    /// Whether the API server accepts the token.
    fn accepts(&self, token: &str) -> bool {
        accepted(&self.host, token)
    }

    fn dies(&self, token: &str) {
        until("the token is refused", 60, || !self.accepts(token));
    }

    /// The markers that stand: name and UID.
    fn ring(&self) -> Vec<(String, String)> {
        let list: Value = serde_json::from_str(&cluster().kubectl(&["-n", &self.namespace, "get", "secrets", "-o", "json"])).unwrap();
        let all = list["items"].as_array().unwrap().iter().map(|secret| &secret["metadata"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        all.map(|meta| (text(&meta["name"]), text(&meta["uid"]))).filter(|(name, _)| name.starts_with("tokenferry.")).collect()
    }

    /// The records in their order: kind, and for markers the generation.
    fn story(&self) -> Vec<String> {
        let told = ["rotated", "failed", "paid", "told", "revoking", "revoked", "adopted"];
        let lines = self.host.records();
        let lines = lines.iter().filter(|l| told.contains(&l["kind"].as_str().unwrap()));
        lines.map(|l| format!("{} {}", l["kind"].as_str().unwrap(), l["generation"])).collect()
    }

    fn gone(&self, generation: u64) -> bool {
        self.host.records_of("revoked", "ci").iter().any(|line| line["generation"] == generation)
    }
}

/// Tries a token as anybody could.
fn accepted(host: &Host, token: &str) -> bool {
    let kube = cluster().kube();
    let file = host.write("tried-token", token);
    let config = kube.kubeconfig(json!({"tokenFile": file}));
    let config = host.write("tried.kubeconfig", &config);
    let mut command = Command::new(&kube.kubectl);
    command.arg("--kubeconfig").arg(config).args(["auth", "whoami"]).env("HOME", host.folder.path()).stdin(Stdio::null());
    let done = finish(command, Duration::from_secs(60));
    assert!(done.code == Some(0) || done.stderr.contains("Unauthorized") || done.stderr.contains("logged in"), "{done:?}");
    done.code == Some(0)
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// UID of the Secret that a token is bound to.
fn bound_to(token: &str) -> String {
    claims(token)["kubernetes.io"]["secret"]["uid"].as_str().expect("it is bound to a Secret").to_owned()
}

fn after(story: &[String], first: &str, second: &str) -> bool {
    let at = |what: &str| story.iter().position(|told| told == what).unwrap_or_else(|| panic!("no `{what}` in {story:?}"));
    at(first) < at(second)
}

#[test]
fn a_revoked_token_is_replaced_first_and_refused_afterwards() {
    let mut here = Here::new("revoke-first", "    revocable: true\n");
    here.start();
    let first = here.token();
    assert!(here.accepts(&first));
    let (done, answer) = here.revoke(&[]);
    assert_eq!((done.code, answer["outcome"].as_str()), (Some(0), Some("revoked")), "{done:?}");
    let record = &answer["records"][0];
    assert_eq!((record["generation"].as_u64(), record["markers"][0]["verified"].as_str()), (Some(1), Some("refused")), "{answer}");
    let second = here.token();
    assert!(!here.accepts(&first), "it was said to be refused");
    assert!(second != first && here.accepts(&second));
    let story = here.story();
    assert!(after(&story, "revoking 1", "rotated 2") && after(&story, "rotated 2", "revoked 1"), "{story:?}");
    assert_eq!(here.ring().into_iter().map(|(_, uid)| uid).collect::<Vec<_>>(), [bound_to(&second)]);
    let asked = &here.host.records_of("revoking", "ci")[0];
    assert!(asked["actor"]["command"].as_str().unwrap().starts_with("tokenferry "), "{asked}");
    let again = here.host.run(&["revoke", "ci", "--all-but-newest"]);
    assert_eq!((again.code, again.stderr.contains("nothing is to be revoked")), (Some(0), true), "{again:?}");
    assert!(here.accepts(&second));
}

#[test]
fn at_once_means_that_the_token_dies_before_or_while_the_next_one_is_made() {
    let mut here = Here::new("revoke-now", "    revocable: true\n");
    here.start();
    let first = here.token();
    let (done, answer) = here.revoke(&["--now"]);
    assert_eq!((done.code, answer["records"][0]["markers"][0]["verified"].as_str()), (Some(0), Some("refused")), "{done:?}");
    assert!(!here.accepts(&first));
    until("the next one is delivered", 60, || here.token() != first && here.accepts(&here.token()));
    assert_eq!(here.host.target("ci")["state"], "fresh");
}

#[test]
fn one_generation_of_several_is_revoked_and_the_others_live() {
    let mut here = Here::new("revoke-one", "    revocable: true\n");
    here.start();
    let first = here.token();
    here.rotate();
    let second = here.token();
    here.rotate();
    let third = here.token();
    let (done, answer) = here.revoke(&["--generation", "2"]);
    assert_eq!((done.code, answer["outcome"].as_str()), (Some(0), Some("revoked")), "{done:?}");
    here.dies(&second);
    assert!(here.accepts(&first) && here.accepts(&third));
    assert_eq!(here.token(), third, "the token in use is not touched");
    let unknown = here.host.run(&["revoke", "ci", "--generation", "2"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("generation 2 has no marker"), "{unknown:?}");
    let later = here.host.run(&["revoke", "ci", "--generation", "9"]);
    assert!(later.code == Some(1) && later.stderr.contains("no generation 9 yet"), "{later:?}");
    let nobody = here.host.run(&["revoke", "nobody"]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    here.host.stop();
    assert_eq!(here.host.run(&["revoke", "ci"]).code, Some(3));
}

#[test]
fn the_generation_before_dies_after_the_overlap_and_not_before() {
    let mut here = Here::new("revoke-overlap", "    revocable: true\n    overlap: 20s\n");
    here.start();
    let first = here.token();
    let begun = std::time::Instant::now();
    here.rotate();
    until("its marker is deleted", 120, || here.gone(1));
    assert!(begun.elapsed() > Duration::from_secs(19), "gone after {:?}", begun.elapsed());
    let told = &here.host.records_of("revoked", "ci")[0];
    assert_eq!(told["markers"][0]["verified"], "gone");
    here.dies(&first);
    assert!(here.accepts(&here.token()));
    assert_eq!(here.ring().len(), 1);
}

#[test]
fn a_generation_lives_while_a_place_is_owed_the_next_one() {
    let deliver = "    revocable: true\n    overlap: 0s\n    deliver:\n      - file: {path: HERE/out/token}\n      - file: {path: HERE/more/token}\n        required: false\n";
    let mut here = Here::new("revoke-owed", deliver);
    here.start();
    let first = here.token();
    // A file where the folder was: nothing can be written there.
    std::fs::rename(here.host.path("more"), here.host.path("kept")).unwrap();
    std::fs::write(here.host.path("more"), "in the way").unwrap();
    here.rotate();
    assert_ne!(here.token(), first);
    let asked = here.host.run(&["revoke", "ci", "--generation", "1", "--timeout", "3s"]);
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(here.accepts(&first), "somebody may read it at the place that is owed");
    let said = here.host.run(&["status"]).stdout;
    assert!(said.contains("the revocation of generation 1") && said.contains("a newer token has to stand at every place first"), "{said}");
    std::fs::remove_file(here.host.path("more")).unwrap();
    std::fs::rename(here.host.path("kept"), here.host.path("more")).unwrap();
    until("it is paid and revoked", 120, || here.gone(1));
    let story = here.story();
    let paid = story.iter().position(|told| told.starts_with("paid")).expect("it was paid");
    assert!(paid < story.iter().position(|told| told == "revoked 1").unwrap(), "{story:?}");
    here.dies(&first);
}

#[test]
fn a_generation_lives_while_a_hook_is_not_told_of_the_next_one() {
    let hook = "    revocable: true\n    overlap: 0s\n    after: [{exec: {command: [test, -e, HERE/open]}}]\n";
    let mut here = Here::new("revoke-hook", hook);
    std::fs::write(here.host.path("open"), "").unwrap();
    here.start();
    until("the hook is told of the first", 60, || here.story().contains(&"told 1".to_owned()));
    let first = here.token();
    std::fs::remove_file(here.host.path("open")).unwrap();
    here.rotate();
    until("the hook failed twice", 60, || {
        here.host.log().matches("exec").filter(|_| true).count() > 0 && here.host.target("ci")["hooks"][0]["outcome"] == "failed"
    });
    assert!(here.accepts(&first) && !here.gone(1));
    std::fs::write(here.host.path("open"), "").unwrap();
    until("it is revoked", 120, || here.gone(1));
    let told = here.host.records_of("told", "ci").into_iter().filter(|l| l["generation"] == 2 && l["hooks"][0]["outcome"] == "done");
    let revoked = here.host.records_of("revoked", "ci")[0]["seq"].as_u64();
    assert!(told.map(|line| line["seq"].as_u64()).max().unwrap() < revoked);
    here.dies(&first);
}

#[test]
fn who_withdraws_a_target_ends_its_tokens_and_a_removed_one_that_is_deleted_too() {
    let mut here = Here::new("revoke-withdraw", "    revocable: true\n    whenRemoved: delete\n");
    here.start();
    let token = here.token();
    assert!(here.accepts(&token));
    let done = here.host.run(&["withdraw", "ci"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!here.host.path("out/token").exists(), "it is unpublished");
    assert_eq!(here.ring(), [], "no marker stays");
    here.dies(&token);
    here.rotate();
    let again = here.token();
    assert!(here.accepts(&again) && here.ring().len() == 1, "a rotation takes it up again");
    let schedule = here.host.read("schedule.yaml");
    std::fs::write(here.host.schedule(), schedule.split("targets:").next().unwrap().to_owned() + "targets: []\n").unwrap();
    assert_eq!(here.host.run(&["reload"]).code, Some(0));
    until("its marker is gone", 30, || here.ring().is_empty());
    here.dies(&again);
}

#[test]
fn names_come_round_again_with_new_uids_and_more_rotations_than_names_kill_nothing() {
    let mut here = Here::new("revoke-ring", "    revocable: true\n    overlap: 1h\n");
    here.start();
    let mut tokens = vec![here.token()];
    // The overlap keeps every generation: the ring of four names is full with the fourth.
    for _ in 0..5 {
        assert_eq!(here.rotate()["kind"], "rotated");
        tokens.push(here.token());
    }
    assert_eq!(here.ring().len(), 4);
    assert_eq!(bound_to(&tokens[4]), bound_to(&tokens[3]), "the fifth shares the fourth's");
    assert!(tokens.iter().all(|token| here.accepts(token)));
    let (done, answer) = here.revoke(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(answer["records"].as_array().unwrap().len(), 4, "{answer}");
    assert!(tokens.iter().all(|token| !here.accepts(token)), "all that was delivered before is dead");
    let newest = here.token();
    assert!(here.accepts(&newest));
    let used: Vec<String> = tokens.iter().map(|token| bound_to(token)).collect();
    assert!(!used.contains(&bound_to(&newest)), "a name that is used again is another object");
    let names: Vec<String> = here.ring().into_iter().map(|(name, _)| name).collect();
    assert!(names.len() == 1 && names[0].starts_with("tokenferry.ci."), "{names:?}");
}

#[test]
fn a_secret_of_somebody_else_is_never_taken_and_where_no_name_is_left_the_record_says_so() {
    let mut here = Here::new("revoke-foreign", "    revocable: true\n    overlap: 0s\n");
    let foreign = |n: u32| {
        let name = format!("tokenferry.ci.{n}");
        cluster().kubectl(&["-n", "revoke-foreign", "create", "secret", "generic", &name, "--from-literal=own=1"]);
    };
    let theirs = || -> Vec<Value> {
        let text = cluster().kubectl(&["-n", "revoke-foreign", "get", "secrets", "-o", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s["data"]["own"] == "MQ==")
            .map(|s| s["metadata"]["resourceVersion"].clone())
            .collect()
    };
    foreign(1);
    let before = theirs();
    here.start();
    let first = here.token();
    assert!(here.accepts(&first));
    here.rotate();
    until("the first is revoked", 60, || here.gone(1));
    assert_eq!(theirs(), before);
    assert!(here.host.log().contains("is not ours and stands where a marker would"));
    here.host.stop();
    for n in [0, 2, 3] {
        let name = format!("tokenferry.ci.{n}");
        cluster().kubectl(&["-n", "revoke-foreign", "delete", "secret", &name, "--ignore-not-found"]);
        foreign(n);
    }
    let before = theirs();
    let once = here.host.run(&["once", "--force"]);
    assert_eq!(once.code, Some(1), "{once:?}");
    let failed = here.host.records_of("failed", "ci");
    let why = failed.last().unwrap()["error"].as_str().unwrap();
    assert!(why.contains("tokenferry.ci.0") && why.contains("not ours") && why.contains("delete or rename them"), "{why}");
    assert_eq!((theirs(), before.len()), (before, 4));
}

#[test]
fn a_target_without_a_marker_gets_a_successor_and_the_words_what_would_end_the_old_token() {
    let mut here = Here::new("revoke-plain", "    boundTo: {secret: session}\n");
    cluster().kubectl(&["-n", "revoke-plain", "create", "secret", "generic", "session"]);
    here.start();
    let first = here.token();
    let done = here.host.run(&["revoke", "ci"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    for words in [
        "generation 1 of ci has no marker",
        "generation 2, is delivered",
        "deleting Secret revoke-plain/session",
        "deleting ServiceAccount revoke-plain/ci",
        "revocable: true",
    ] {
        assert!(done.stderr.contains(words), "{words}: {done:?}");
    }
    assert!(here.token() != first && here.accepts(&first), "it was said to live on");
    let (done, answer) = here.revoke(&["--now"]);
    assert_eq!((done.code, answer["outcome"].as_str(), answer["successor"]["kind"].as_str()), (Some(1), Some("noMarker"), Some("rotated")));
    assert!(answer["expiresAt"].is_string());
}

#[test]
fn a_target_that_becomes_revocable_is_minted_anew_and_one_that_is_no_more_loses_its_markers() {
    let mut here = Here::new("revoke-change", "");
    here.start();
    here.schedule(&admin(), "    revocable: true\n    overlap: 0s\n");
    assert_eq!(here.host.run(&["reload"]).code, Some(0));
    until("the next token is bound", 60, || here.ring().len() == 1);
    until("it is delivered", 60, || claims(&here.token())["kubernetes.io"]["secret"]["uid"].is_string());
    let bound = here.token();
    here.schedule(&admin(), "    overlap: 0s\n");
    assert_eq!(here.host.run(&["reload"]).code, Some(0));
    until("no marker stands any more", 60, || here.ring().is_empty());
    here.dies(&bound);
    assert!(here.accepts(&here.token()));
}

/// An account of its own that may do exactly what `rbac` prints; gives a kubeconfig by way of that server.
fn entitled(here: &Here, server: &str, ca: &Path) -> String {
    let namespace = &here.namespace;
    let printed = here.host.run(&["rbac", "--for", "kubernetes", "--subject", &format!("{namespace}/ferry")]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    cluster().kubectl(&["-n", namespace, "create", "serviceaccount", "ferry"]);
    let manifests = here.host.write("rights.yaml", &printed.stdout);
    cluster().kubectl(&["apply", "-f", manifests.to_str().unwrap()]);
    let token = cluster().kubectl(&["-n", namespace, "create", "token", "ferry", "--duration", "2h"]);
    let file = here.host.write("ferry-token", token.trim());
    let config = kubeconfig(server, ca, json!({"tokenFile": file}));
    here.host.write("ferry.kubeconfig", &config).display().to_string()
}

/// A host whose account has the printed rights alone, behind a proxy.
fn behind(namespace: &str, more: &str) -> (Here, Proxy) {
    let here = Here::new(namespace, more);
    let kube = cluster().kube();
    let proxy = Proxy::before(Real::at(&kube.server, Some(&kube.ca)), Flavour::Kube);
    let kubeconfig = entitled(&here, &proxy.url(), &certificates().ca);
    here.schedule(&kubeconfig, more);
    (here, proxy)
}

#[test]
fn while_the_api_server_is_away_a_revocation_is_owed_recorded_and_done_when_it_is_back() {
    let (mut here, proxy) = behind("revoke-away", "    revocable: true\n");
    here.start();
    let first = here.token();
    proxy.set(Fault::Refuse);
    let (done, answer) = here.revoke(&["--now"]);
    assert_eq!((done.code, answer["outcome"].as_str()), (Some(1), Some("owed")), "{done:?}");
    assert!(done.stderr.contains("could not be deleted") && done.stderr.contains("tries again until it is done"), "{done:?}");
    assert!(
        here.host
            .records_of("revoking", "ci")
            .iter()
            .any(|line| line["error"].as_str().is_some_and(|e| e.contains("could not be deleted")))
    );
    assert!(here.accepts(&first), "nobody could revoke it yet");
    // What is owed outlives the daemon.
    here.host.kill();
    here.host.start();
    let said = here.host.run(&["status"]).stdout;
    assert!(said.contains("the revocation of generation 1"), "{said}");
    proxy.set(Fault::None);
    until("it is revoked", 120, || here.gone(1));
    here.dies(&first);
    until("the next one is good", 120, || here.token() != first && here.accepts(&here.token()));
    let owed = here.host.records_of("revoking", "ci").len();
    assert!(owed <= 4, "each trouble is recorded once, not each try: {owed}");
}

#[test]
fn g2_g4_a_kill_between_any_two_requests_orphans_no_marker_and_kills_no_live_token() {
    let (mut here, proxy) = behind("revoke-kill", "    revocable: true\n    overlap: 0s\n");
    here.start();
    let (mut kills, mut quiet) = (0, 0);
    for after in 0.. {
        for lands in [false, true] {
            let stop = Fault::Stop { after, lands };
            proxy.set(stop.clone());
            let socket = here.host.path("control.sock");
            let asked = std::thread::spawn(move || crate::support::daemon::rotate(&socket, "ci"));
            let reached = || proxy.seen().iter().filter(|seen| seen.fault == stop).count() > after;
            let begun = std::time::Instant::now();
            while !reached()
                && begun.elapsed() < Duration::from_secs(20)
                && !(asked.is_finished() && begun.elapsed() > Duration::from_secs(6))
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            quiet += u32::from(!reached());
            here.host.kill();
            proxy.set(Fault::None);
            let _ = asked.join();
            kills += 1;
            let token = here.token();
            assert!(here.accepts(&token), "killed after {after} requests (lands: {lands}): what stands at the place is dead");
            here.host.start();
            until("it is settled", 60, || here.host.target("ci")["state"] == "fresh");
            assert!(here.accepts(&here.token()), "killed after {after} requests (lands: {lands}): dead after the start");
        }
        if quiet >= 2 {
            break;
        }
        assert!(after < 30, "a rotation never ends");
    }
    assert!(kills >= 10, "only {kills} kills: the requests are not met");
    here.rotate();
    until("one marker stands, that of the token in use", 120, || {
        here.ring().into_iter().map(|(_, uid)| uid).collect::<Vec<_>>() == [bound_to(&here.token())]
    });
    assert!(here.accepts(&here.token()));
    println!("figures: revocable generations: {kills} kills, one before and one after each request of a rotation, 0 bad");
}

#[test]
fn lost_records_kill_no_token_and_the_markers_that_nobody_knows_go_in_time() {
    let mut here = Here::new("revoke-lost", "    revocable: true\n    overlap: 1h\n");
    here.start();
    for _ in 0..2 {
        here.rotate();
    }
    assert_eq!(here.ring().len(), 3);
    let token = here.token();
    here.host.stop();
    std::fs::remove_dir_all(here.host.path("state/records")).unwrap();
    here.schedule(&admin(), "    revocable: true\n    overlap: 0s\n");
    here.host.start();
    until("the token is adopted", 60, || !here.host.records_of("adopted", "ci").is_empty());
    assert!(here.accepts(&token) && here.token() == token);
    // Generations are counted anew; those of the old count are told by their age and number.
    until("no marker is left but that of the token in use", 180, || {
        assert!(here.accepts(&here.token()));
        here.rotate();
        here.ring().into_iter().map(|(_, uid)| uid).collect::<Vec<_>>() == [bound_to(&here.token())]
    });
}

fn exec(host: &Host, arguments: &[&str]) -> Command {
    std::fs::create_dir_all(host.path("run")).unwrap();
    let mut command = host.command(&[&["exec", "--kubeconfig", &*admin()], arguments].concat());
    command.env("XDG_RUNTIME_DIR", host.path("run"));
    command
}

#[test]
fn exec_ends_its_token_with_the_command() {
    let here = Here::new("revoke-exec", "");
    let script = "cat \"$TOKENFERRY_TOKEN_FILE\"; exit 7";
    let done = finish(exec(&here.host, &["revoke-exec/ci", "--revocable", "--", "sh", "-c", script]), Duration::from_secs(60));
    assert_eq!(done.code, Some(7), "{done:?}");
    assert!(done.stderr.contains("is revoked") && !done.stderr.contains("would be good"), "{done:?}");
    bound_to(&done.stdout);
    here.dies(&done.stdout);
    assert_eq!(here.ring(), vec![]);
    assert_eq!(std::fs::read_dir(here.host.path("run")).unwrap().count(), 0);
    let without = finish(exec(&here.host, &["revoke-exec/ci", "--", "true"]), Duration::from_secs(60));
    assert!(without.stderr.contains("a copy would be good until"), "{without:?}");
    let missing = finish(exec(&here.host, &["revoke-exec/ci", "--revocable", "--", "./no-such"]), Duration::from_secs(60));
    assert_eq!((missing.code, here.ring()), (Some(127), vec![]), "{missing:?}");
}

#[test]
fn the_next_exec_ends_the_token_of_one_that_was_killed() {
    let here = Here::new("revoke-exec-kill", "");
    let copy = here.host.path("copy").display().to_string();
    let script = "cp \"$TOKENFERRY_TOKEN_FILE\" \"$0.new\"; mv \"$0.new\" \"$0\"; exec sleep 300";
    let mut child = exec(&here.host, &["revoke-exec-kill/ci", "--revocable", "--", "sh", "-c", script, &copy]).spawn().unwrap();
    until("the command has its token", 60, || here.host.path("copy").exists());
    let token = here.host.read("copy");
    let command = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(here.accepts(&token) && here.ring().len() == 1);
    let done = finish(exec(&here.host, &["revoke-exec-kill/ci", "--", "true"]), Duration::from_secs(60));
    assert_eq!(done.code, Some(0), "{done:?}");
    here.dies(&token);
    assert_eq!((here.ring(), std::fs::read_dir(here.host.path("run")).unwrap().count()), (vec![], 0));
    for pid in command.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
        // It may have ended with its parent.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
