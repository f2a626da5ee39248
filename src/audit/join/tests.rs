use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::record::{Line, Proof};

/// Seconds of 2026-01-01.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

struct Place {
    folder: tempfile::TempDir,
    lines: Vec<Line>,
    events: Vec<Value>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), lines: vec![Line::new(Kind::Started, at(0))], events: vec![event(0), event(10_000)] }
    }

    /// A record of a rotation at that second of a token that lives for an hour.
    fn rotated(&mut self, target: &str, second: i64, jti: &str, audit_id: &str) -> &mut Line {
        self.lines.push(Line {
            target: Some(target.into()),
            cluster: Some("prod".into()),
            service_account: Some(format!("ci/{target}")),
            jti: Some(jti.into()),
            audit_id: Some(audit_id.into()),
            issued_at: Some(at(second)),
            expires_at: Some(at(second + 3600)),
            proof: Some(Proof::Online),
            ..Line::new(Kind::Rotated, at(second + 1))
        });
        self.lines.last_mut().unwrap()
    }

    fn minted(&mut self, account: &str, second: i64, jti: &str, audit_id: &str) -> &mut Value {
        let mut minted = event(second);
        minted["auditID"] = audit_id.into();
        minted["verb"] = "create".into();
        minted["user"] = json!({"username": "ferry", "groups": ["system:authenticated"]});
        minted["objectRef"] = json!({"resource": "serviceaccounts", "subresource": "token", "namespace": "ci", "name": account});
        minted["responseStatus"] = json!({"code": 201});
        minted["annotations"] = json!({"authentication.kubernetes.io/issued-credential-id": format!("JTI={jti}")});
        self.events.push(minted);
        self.events.last_mut().unwrap()
    }

    fn used(&mut self, second: i64, jti: &str) -> &mut Value {
        let mut used = event(second);
        used["user"] = json!({"username": "x", "extra": {"authentication.kubernetes.io/credential-id": [format!("JTI={jti}")]}});
        (used["sourceIPs"], used["userAgent"]) = (json!(["192.0.2.1"]), json!("deploy/1"));
        self.events.push(used);
        self.events.last_mut().unwrap()
    }

    fn write(&mut self) -> Question {
        self.events.sort_by_key(|event| event["stageTimestamp"].to_string());
        let text: String = self.events.iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(self.folder.path().join("audit.log"), text).unwrap();
        let records: String = self
            .lines
            .iter_mut()
            .enumerate()
            .map(|(index, line)| {
                line.seq = if line.seq == 0 { index as u64 + 1 } else { line.seq };
                format!("{}\n", serde_json::to_string(line).unwrap())
            })
            .collect();
        std::fs::write(self.folder.path().join("records-000000000001.jsonl"), records).unwrap();
        self.question()
    }

    fn question(&self) -> Question {
        let folder: &Path = self.folder.path();
        Question {
            logs: vec![folder.join("audit.log")],
            records: folder.to_owned(),
            query: Query::default(),
            cluster: None,
            defaults: BTreeMap::new(),
        }
    }

    fn join(&mut self) -> Joined {
        join(self.write()).unwrap_or_else(|why| panic!("{why}"))
    }
}

fn event(second: i64) -> Value {
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": format!("e{second}"), "stage": "ResponseComplete",
        "verb": "get", "user": {"username": "somebody"}, "requestReceivedTimestamp": at(second), "stageTimestamp": at(second),
    })
}

fn verdicts(joined: &Joined) -> Vec<Found> {
    joined.rotations.iter().map(|rotation| rotation.verdict).collect()
}

#[test]
fn each_rotation_finds_its_event_by_both_ids_and_nothing_is_left_over() {
    let mut place = Place::new();
    place.rotated("a", 100, "j1", "r1");
    place.minted("a", 100, "j1", "r1");
    // Before Kubernetes 1.30 events do not name the token; a record that was rebuilt does not name the request.
    place.rotated("a", 200, "j2", "r2");
    place.minted("a", 200, "j2", "r2")["annotations"] = json!({});
    place.rotated("a", 300, "j3", "r3").audit_id = None;
    place.minted("a", 300, "j3", "r3");
    let joined = place.join();
    assert_eq!(verdicts(&joined), [Found::Joined; 3]);
    let said: Vec<&str> = joined.rotations.iter().map(|r| r.detail.split(';').next().unwrap()).collect();
    assert_eq!(said, ["by Audit-Id and token", "by Audit-Id", "by token"]);
    assert_eq!((joined.mints.len(), joined.is_sound(), joined.clusters.len()), (0, true, 1));
}

#[test]
fn a_rotation_without_its_event_is_missing_where_the_log_covers_it_and_unknown_where_it_does_not() {
    let mut place = Place::new();
    place.rotated("a", 50, "j0", "r0");
    place.minted("a", 50, "j0", "r0");
    place.rotated("a", 100, "j1", "r1");
    place.rotated("a", 20_000, "j2", "r2");
    let joined = place.join();
    assert_eq!(verdicts(&joined), [Found::Joined, Found::Missing, Found::NotCovered]);
    assert!(!joined.is_sound());
    // The same, with a line that cannot be read where the event would stand.
    let question = place.question();
    let text = std::fs::read_to_string(&question.logs[0]).unwrap();
    let (before, after) = text.split_at(text.find("e10000").map(|at| text[..at].rfind('\n').unwrap() + 1).unwrap());
    std::fs::write(&question.logs[0], format!("{before}{{\"kind\":\"Ev\n{after}")).unwrap();
    let joined = join(question).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(verdicts(&joined), [Found::Joined, Found::NotCovered, Found::NotCovered]);
    assert!(joined.is_sound() && joined.notes[0].contains("is cut in the middle"), "{:?}", joined.notes);
}

#[test]
fn an_event_of_another_account_or_another_token_contradicts_its_record() {
    let mut place = Place::new();
    place.rotated("a", 100, "j1", "r1");
    place.minted("b", 100, "j1", "r1");
    place.rotated("a", 200, "j2", "r2");
    place.minted("a", 200, "other", "r2");
    place.rotated("a", 300, "j3", "r3");
    place.minted("a", 300, "j3", "forged");
    let joined = place.join();
    assert_eq!(verdicts(&joined), [Found::Contradicts; 3]);
    assert!(!joined.is_sound());
}

#[test]
fn a_failure_is_joined_with_its_refusal_and_a_refused_request_of_others_is_no_mint() {
    let mut place = Place::new();
    let failed = place.rotated("a", 100, "j1", "r1");
    (failed.kind, failed.jti, failed.issued_at) = (Kind::Failed, None, None);
    for id in ["r1", "theirs"] {
        let refused = place.minted("a", 100, "", id);
        (refused["responseStatus"], refused["annotations"]) = (json!({"code": 403}), json!({}));
    }
    let joined = place.join();
    assert_eq!((verdicts(&joined), joined.mints.len(), joined.is_sound()), (vec![Found::Joined], 0, true));
}

#[test]
fn mints_of_our_accounts_that_no_record_names_are_told_with_who_and_from_where() {
    let mut place = Place::new();
    place.rotated("a", 100, "j1", "r1");
    place.minted("a", 100, "j1", "r1");
    place.minted("a", 150, "x1", "s1")["user"] = json!({"username": "system:node:n1", "groups": ["system:nodes"]});
    let theirs = place.minted("a", 200, "x2", "s2");
    (theirs["user"], theirs["sourceIPs"]) = (json!({"username": "mallory"}), json!(["192.0.2.9"]));
    place.minted("a", 250, "x3", "s3");
    place.minted("stranger", 300, "x4", "s4");
    let mut half = place.minted("a", 350, "x5", "s5").clone();
    (half["stage"], half["responseStatus"], half["annotations"]) = (json!("RequestReceived"), Value::Null, Value::Null);
    *place.events.last_mut().unwrap() = half;
    let joined = place.join();
    let said: Vec<(&str, Origin)> = joined.mints.iter().map(|mint| (mint.event.audit_id.as_str(), mint.verdict)).collect();
    assert_eq!(said, [("s1", Origin::Kubelet), ("s2", Origin::Unexplained), ("s3", Origin::Unexplained), ("s5", Origin::Unknown)]);
    assert_eq!(
        (joined.mints[1].event.user.as_str(), joined.mints[1].event.source_ips.as_slice()),
        ("mallory", &["192.0.2.9".to_owned()][..])
    );
    assert!(joined.mints[2].detail.contains("the very user of our own"), "{}", joined.mints[2].detail);
    assert!(!joined.is_sound());
}

#[test]
fn a_mint_where_records_are_missing_is_unknown_and_the_hole_is_told() {
    let mut place = Place::new();
    place.rotated("a", 100, "j1", "r1");
    place.minted("a", 100, "j1", "r1");
    place.minted("a", 200, "j2", "r2");
    // The rotation of second 200 is cut out of the records.
    place.rotated("a", 300, "j3", "r3").seq = 4;
    place.minted("a", 300, "j3", "r3");
    place.minted("a", 400, "x", "s");
    let joined = place.join();
    assert_eq!(joined.mints.iter().map(|mint| mint.verdict).collect::<Vec<_>>(), [Origin::Unknown, Origin::Unexplained]);
    assert_eq!((joined.holes.len(), joined.holes[0].from, joined.holes[0].to), (1, at(101), at(301)));
    assert!(joined.notes.iter().any(|note| note.contains("2 is followed by 4")), "{:?}", joined.notes);
    // A damaged line is a hole too, and what stands after it is read.
    let records = place.folder.path().join("records-000000000001.jsonl");
    let text = std::fs::read_to_string(&records).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(&records, format!("{}\n{}\n{}\n{}\n", lines[0], lines[1], &lines[1][..40], lines[2])).unwrap();
    let joined = join(place.question()).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(verdicts(&joined), [Found::Joined; 2]);
    assert!(joined.holes[0].why.contains(".jsonl:3 is no record"), "{:?}", joined.holes);
}

#[test]
fn lines_that_could_not_be_written_are_a_hole_and_what_came_before_the_records_is_unknown() {
    let mut place = Place::new();
    place.lines[0].time = at(1000);
    place.rotated("a", 1100, "j1", "r1");
    place.minted("a", 1100, "j1", "r1");
    place.lines.push(Line { count: Some(3), ..Line::new(Kind::Gap, at(1200)) });
    place.minted("a", 1150, "x1", "s1");
    place.minted("a", 500, "x0", "s0");
    let joined = place.join();
    let said: Vec<(&str, Origin)> = joined.mints.iter().map(|mint| (mint.event.audit_id.as_str(), mint.verdict)).collect();
    assert_eq!(said, [("s0", Origin::Unknown), ("s1", Origin::Unknown)]);
    assert!(joined.is_sound());
}

fn states(joined: &Joined) -> Vec<(&str, Visible)> {
    joined.targets.iter().map(|target| (target.target.as_str(), target.state)).collect()
}

#[test]
fn a_target_is_unused_only_where_the_log_covers_a_tokens_whole_time_and_its_audience_is_the_api_servers() {
    let mut place = Place::new();
    for target in ["idle", "other", "short", "used", "vague"] {
        let second = if target == "short" { 9000 } else { 100 };
        place.rotated(target, second, &format!("j-{target}"), &format!("r-{target}"));
        place.minted(target, second, &format!("j-{target}"), &format!("r-{target}"));
        let line = place.lines.last_mut().unwrap();
        line.proof = Some(match target {
            "other" => Proof::Signature,
            "vague" => Proof::Claims,
            _ => Proof::Online,
        });
    }
    place.used(200, "j-used");
    // Our own proof is no use.
    let proof = place.used(101, "j-idle");
    (proof["userAgent"], proof["objectRef"]) =
        (json!("tokenferry/1.0"), json!({"resource": "selfsubjectreviews", "apiGroup": "authentication.k8s.io"}));
    let joined = place.join();
    let expected = [
        ("idle", Visible::Unused),
        ("other", Visible::NotVisible),
        ("short", Visible::NotCovered),
        ("used", Visible::Used),
        ("vague", Visible::NotVisible),
    ];
    assert_eq!(states(&joined), expected);
    assert!(joined.targets[3].callers.contains("192.0.2.1 (deploy/1)"), "{:?}", joined.targets[3]);
    assert!(joined.is_sound(), "an unused target is no contradiction");
    assert!(joined.notes.iter().any(|note| note.contains("records do not carry audiences")), "{:?}", joined.notes);
    // The schedule knows more.
    let mut question = place.question();
    question.defaults = BTreeMap::from([("vague".to_owned(), true), ("other".to_owned(), false)]);
    question.query.targets = vec!["v*".into()];
    assert_eq!(states(&join(question).unwrap_or_else(|why| panic!("{why}"))), [("vague", Visible::Unused)]);
}

#[test]
fn a_log_that_names_no_tokens_tells_nothing_of_their_use() {
    let mut place = Place::new();
    place.rotated("a", 100, "j1", "r1");
    place.minted("a", 100, "j1", "r1");
    let joined = place.join();
    assert_eq!(states(&joined), [("a", Visible::NotVisible)]);
    assert!(joined.notes.iter().any(|note| note.contains("since 1.30")), "{:?}", joined.notes);
}

#[test]
fn a_log_is_that_of_the_cluster_whose_records_join_or_of_the_one_that_is_named() {
    let mut place = Place::new();
    place.rotated("a", 100, "j1", "r1");
    place.minted("a", 100, "j1", "r1");
    place.rotated("b", 100, "j2", "r2").cluster = Some("elsewhere".into());
    place.minted("b", 200, "x", "s");
    let joined = place.join();
    assert_eq!((verdicts(&joined), joined.mints.len()), (vec![Found::Joined, Found::OtherCluster], 0));
    let mut question = place.question();
    question.cluster = Some("elsewhere".into());
    let joined = join(question).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!((verdicts(&joined), joined.mints.len()), (vec![Found::Joined, Found::Missing], 1));
}

#[test]
fn an_empty_log_and_one_without_token_requests_say_so() {
    let mut place = Place::new();
    place.rotated("a", 100, "j1", "r1");
    let joined = place.join();
    assert_eq!(verdicts(&joined), [Found::Missing]);
    assert!(joined.notes.iter().any(|note| note.contains("hold no TokenRequest at all")), "{:?}", joined.notes);
    place.events.clear();
    let joined = place.join();
    assert!(joined.rotations.is_empty() && joined.notes.iter().any(|note| note.contains("hold no event")), "{:?}", joined.notes);
}
