//! `legacy`: a real eternal token through all stages and back, on the real API server with the real controller manager;
//! beside what kubectl, jq and base64 find; and by the real tool `age`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{Done, Host, tool};
use crate::support::servers::{Servers, cluster};
use crate::support::until;

/// A namespace of its own, with an account and its eternal token.
struct Place {
    host: Host,
    servers: &'static Servers,
    space: String,
    admin: String,
}

impl Place {
    fn new(space: &str) -> Self {
        let servers = cluster();
        let host = Host::new("clusters: {here: {kubeconfig: HERE/admin.kubeconfig}}\ntargets: []");
        let admin = servers.kube().admin_kubeconfig.display().to_string();
        servers.kubectl(&["create", "namespace", space]);
        let place = Self { host, servers, space: space.to_owned(), admin };
        until("the namespace has its account", 60, || place.kubectl(&["get", "serviceaccounts", "-o", "name"]).contains("/default"));
        place.kubectl(&["create", "serviceaccount", "bot"]);
        place
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.servers.kubectl(&[&["-n", &self.space], arguments].concat())
    }

    fn apply(&self, object: Value) {
        let file = self.host.write("object.json", &object.to_string());
        self.kubectl(&["create", "-f", &file.display().to_string()]);
    }

    /// The Secret of a legacy token, filled by the controller manager; its token.
    fn eternal(&self, name: &str) -> String {
        let metadata = json!({"name": name, "annotations": {"kubernetes.io/service-account.name": "bot"}});
        self.apply(json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": metadata}));
        until("the token controller fills the Secret", 60, || self.secret(name)["data"]["token"].is_string());
        self.token(name)
    }

    fn secret(&self, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", "secret", name, "-o", "json"])).unwrap()
    }

    fn token(&self, name: &str) -> String {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.secret(name)["data"]["token"].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn exists(&self, name: &str) -> bool {
        self.kubectl(&["get", "secrets", "-o", "name"]).lines().any(|line| line == format!("secret/{name}"))
    }

    /// Whether the API server takes the token; asking is a use of it.
    fn accepts(&self, token: &str) -> bool {
        let kube = self.servers.kube();
        let config = self.host.write("token.kubeconfig", &kube.kubeconfig(json!({"token": token})));
        let mut command = Command::new(&kube.kubectl);
        command.arg("--kubeconfig").arg(config).args(["auth", "whoami"]);
        let said = command.output().unwrap();
        let error = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() || error.contains("Unauthorized") || error.contains("logged in"), "{error}");
        said.status.success()
    }

    fn legacy(&self, arguments: &[&str]) -> Done {
        self.host.run(&[&["legacy"], arguments, &["--kubeconfig", &self.admin]].concat())
    }

    fn done(&self, arguments: &[&str]) -> Done {
        let done = self.legacy(arguments);
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
        done
    }

    /// The finds of the namespace.
    fn finds(&self, arguments: &[&str]) -> Vec<Value> {
        let done = self.done(&[arguments, &["-n", &self.space, "-o", "json"]].concat());
        let shown: Value = serde_json::from_str(&done.stdout).unwrap();
        shown["finds"].as_array().unwrap().clone()
    }

    fn key(&self) -> (PathBuf, String) {
        let path = self.host.path("key.txt");
        tool(Command::new("age-keygen").arg("-o").arg(&path));
        let public = tool(Command::new("age-keygen").arg("-y").arg(&path));
        (path, public.trim().to_owned())
    }

    fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["serviceAccountName"] = json!("bot");
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "c", "image": "example.com/c"}]);
        }
        self.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.servers.kubectl(&["delete", "namespace", &self.space, "--wait=false"]);
    }
}

fn first_outcome(done: &Done) -> (String, String) {
    let shown: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    (shown[0]["outcome"].as_str().unwrap().to_owned(), shown[0]["notes"].to_string())
}

#[test]
fn an_eternal_token_goes_through_all_stages_and_back() {
    let place = Place::new("legacy-stages");
    let token = place.eternal("old");
    let named = format!("{}/old", place.space);
    let (key, recipient) = place.key();
    let (key, backup) = (key.display().to_string(), place.host.path("old.age").display().to_string());
    let mut said = String::new();
    let mut change = |arguments: &[&str]| {
        let done = place.legacy(&[arguments, &["-o", "json"]].concat());
        said.push_str(&format!("{done:?}"));
        (done.code, first_outcome(&done))
    };

    // Used, and named by a pod.
    assert!(place.accepts(&token));
    place.pod("reader", json!({"volumes": [{"name": "t", "secret": {"secretName": "old"}}]}));
    until("its use is noted", 60, || place.finds(&["list"])[0]["lastUsed"].is_string());
    let find = place.finds(&["list"]).remove(0);
    assert_eq!((&find["kind"], &find["accountIs"], &find["account"]["name"]), (&json!("tokenSecret"), &json!("here"), &json!("bot")));
    assert_eq!(find["references"], json!([{"kind": "Pod", "name": "reader", "how": "volume", "count": 1, "past": false}]));
    assert_eq!(find["boundPods"], 1, "the kubelet would give the pod a bound token too");
    let (code, (outcome, why)) = change(&["disable", &named, "--apply"]);
    assert!(code == Some(1) && outcome == "refused" && why.contains("Pod reader (volume)"), "{outcome} {why}");
    place.kubectl(&["delete", "pod", "reader", "--force", "--grace-period=0"]);

    // Disabled: refused; whoever uses it is seen on the same day.
    assert_eq!(change(&["disable", &named]).1.0, "wouldDisable");
    assert!(place.accepts(&token), "a dry run changes nothing");
    let (code, (outcome, why)) = change(&["disable", &named, "--apply"]);
    assert!(code == Some(0) && outcome == "disabled" && why.contains("10 s"), "{why}");
    assert!(place.secret("old")["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_null());
    until("the API server refuses it", 60, || !place.accepts(&token));
    until("the use after it was disabled shows", 60, || place.finds(&["plan", &named])[0]["stage"] == "missed");
    let (code, (outcome, why)) =
        change(&["delete", &named, "--backup", &backup, "--backup-recipient", &recipient, "--observe", "0s", "--apply"]);
    assert!(code == Some(1) && outcome == "refused" && why.contains("used after it was disabled"), "{why}");

    // Back by one command, and disabled once more, with nobody to miss it.
    assert_eq!(change(&["restore", &named, "--apply"]).1.0, "enabled");
    until("the API server takes it again", 60, || place.accepts(&token));
    assert_eq!(change(&["disable", &named, "--apply"]).1.0, "disabled");
    let (code, (_, why)) = change(&["delete", &named, "--backup", &backup, "--backup-recipient", &recipient, "--apply"]);
    assert!(code == Some(1) && why.contains("watched until"), "{why}");

    // Deleted, with a backup that the real age opens, and not without one.
    let bare = place.legacy(&["delete", &named, "--observe", "1s", "--apply"]);
    assert!(bare.code == Some(2) && bare.stderr.contains("age-keygen") && place.exists("old"), "{bare:?}");
    let whole = ["delete", &named, "--backup", &backup, "--backup-recipient", &recipient, "--observe", "1s"];
    until("it was quiet for a second", 60, || change(&whole).1.0 == "wouldDelete");
    assert!(place.exists("old") && !std::path::Path::new(&backup).exists());
    assert_eq!(change(&[&whole[..], &["--apply"]].concat()).1.0, "deleted");
    assert!(!place.exists("old"));
    until("the API server refuses it", 60, || !place.accepts(&token));
    let plain: Value = serde_json::from_str(&tool(Command::new("age").args(["-d", "-i", &key, &backup]))).unwrap();
    assert_eq!((&plain["secrets"][0]["metadata"]["name"], plain["secrets"].as_array().unwrap().len()), (&json!("old"), 1));
    let again = place.legacy(&[&whole[..], &["--apply"]].concat());
    assert!(again.code == Some(2) && again.stderr.contains("no Secret"), "{again:?}");

    // And back: the same token, good again.
    let back = ["restore", &backup, "--identity", &key];
    assert_eq!(change(&back).1.0, "wouldRestore");
    assert!(!place.exists("old"));
    let (code, (outcome, why)) = change(&[&back[..], &["--apply"]].concat());
    assert!(code == Some(0) && outcome == "restored" && why.contains("accepts its token"), "{why}");
    assert!(place.accepts(&token) && place.token("old") == token);
    let labels = &place.secret("old")["metadata"]["labels"];
    assert!(labels["kubernetes.io/legacy-token-invalid-since"].is_null(), "{labels}");
    assert_eq!(change(&[&back[..], &["--apply"]].concat()).1.0, "unchanged");

    // An account that was made anew is another one: its old token is dead for good.
    place.kubectl(&["delete", "serviceaccount", "bot"]);
    until("the token controller deletes the Secret", 60, || !place.exists("old"));
    place.kubectl(&["create", "serviceaccount", "bot"]);
    let (code, (outcome, why)) = change(&[&back[..], &["--apply"]].concat());
    assert!(code == Some(1) && outcome == "refused" && why.contains("made anew"), "{why}");
    let (_, signature) = token.rsplit_once('.').unwrap();
    assert!(!said.contains(signature), "a token was shown");
}

#[test]
fn the_inventory_by_kubectl_and_jq_misses_what_ours_finds() {
    let place = Place::new("legacy-shell");
    let eternal = place.eternal("old");
    // As the script that rotates a token Secret makes its successor: a year long, in a Secret of another type.
    let year = place.kubectl(&["create", "token", "bot", "--duration=8760h"]);
    let hour = place.kubectl(&["create", "token", "bot", "--duration=1h"]);
    let literal = |name: &str, key: &str, value: &str| {
        let data = json!({ key: value });
        place.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}));
    };
    literal("rotated", "token", year.trim());
    literal("fresh", "token", hour.trim());
    literal("ci", "config", &place.servers.kube().kubeconfig(json!({"token": eternal})));
    let container = json!({"name": "c", "image": "example.com/c", "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "old", "key": "token"}}}]});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"serviceAccountName": "bot", "containers": [container]}});
    place.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }));
    until("the Deployment has its pod", 60, || place.kubectl(&["get", "pods", "-o", "name"]).contains("pod/web"));

    // The script's question, and its answer.
    let shell = |script: &str| {
        let kube = place.servers.kube();
        let kubectl = format!("{} --kubeconfig {} -n {}", kube.kubectl.display(), place.admin, place.space);
        tool(Command::new("sh").args(["-c", &script.replace("KUBECTL", &kubectl)]))
    };
    let names =
        shell(r#"KUBECTL get secrets -o json | jq -r '.items[] | select(.type == "kubernetes.io/service-account-token").metadata.name'"#);
    assert_eq!(names.trim(), "old", "the script sees neither the copy nor the year");
    let bound = shell("KUBECTL get pods -o yaml | grep -c serviceAccountToken");
    assert!(bound.trim().parse::<u32>().unwrap() > 0, "the script takes this for: the pods use bound tokens, so the Secret may go");

    // Ours.
    let finds = place.finds(&["list"]);
    let of = |name: &str| finds.iter().find(|find| find["secret"] == name).cloned().unwrap_or_default();
    assert_eq!(
        finds.iter().map(|find| find["secret"].as_str().unwrap()).collect::<Vec<_>>(),
        ["ci", "old", "rotated"],
        "an hour is no find"
    );
    assert_eq!((&of("ci")["kind"], &of("ci")["form"], &of("ci")["copyOf"]["name"]), (&json!("copy"), &json!("kubeconfig"), &json!("old")));
    assert_eq!((&of("rotated")["kind"], &of("rotated")["lifetime"]), (&json!("long"), &json!(31_536_000)));
    let named: Vec<String> = of("old")["references"].as_array().unwrap().iter().map(|r| format!("{} {}", r["kind"], r["how"])).collect();
    assert!(named.contains(&"\"Deployment\" \"env\"".into()), "{named:?}");
    let (_, recipient) = place.key();
    let backup = place.host.path("b.age").display().to_string();
    let named = format!("{}/old", place.space);
    let kept = place.legacy(&["delete", &named, "--anyway", "--backup", &backup, "--backup-recipient", &recipient, "--apply"]);
    assert!(kept.code == Some(1) && kept.stdout.contains("Deployment web (env) hangs on it") && place.exists("old"), "{kept:?}");
    let other = place.legacy(&["disable", &format!("{}/rotated", place.space), "--apply"]);
    assert!(other.code == Some(2) && other.stderr.contains("legacy plan"), "{other:?}");

    // What ends the others, and the tables for people, in which no token is.
    let plans = place.finds(&["plan"]);
    let end = |name: &str| {
        let find = plans.iter().find(|find| find["secret"] == name).unwrap();
        find["steps"].as_array().unwrap().iter().find(|step| step["step"] == "end").unwrap()["what"].as_str().unwrap().to_owned()
    };
    assert!(end("ci").contains(&format!("Secret {}/old", place.space)) && end("rotated").contains("bound to nothing"), "{plans:?}");
    let shown = format!("{:?}{:?}", place.done(&["list", "-n", &place.space]), place.done(&["plan", "-n", &place.space]));
    assert!(shown.contains("lives 365d") && shown.contains("copy of"), "{shown}");
    for token in [&eternal, &year, &hour] {
        assert!(!shown.contains(token.trim().rsplit_once('.').unwrap().1), "a token was shown");
    }

    // Targets that replace them, as `check` takes them; a file that is there is left as it is.
    let file = place.host.path("targets.yaml").display().to_string();
    place.done(&["migrate", "-n", &place.space, "--write", &file]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("cluster: here") && text.contains("format: kubeconfig"), "{text}");
    place.host.write_schedule("include: [targets.yaml]\nclusters: {here: {kubeconfig: HERE/admin.kubeconfig}}\ntargets: []");
    let checked = place.host.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}\n{text}");
    let again = place.legacy(&["migrate", &named, "--write", &file]);
    assert!(again.code == Some(2) && std::fs::read_to_string(&file).unwrap() == text, "{again:?}");
}

#[test]
fn the_audit_log_tells_who_used_which_token_and_a_cut_one_says_where_it_was_cut() {
    let place = Place::new("legacy-log");
    let eternal = place.eternal("old");
    place.eternal("unused");
    let year = place.kubectl(&["create", "token", "bot", "--duration=8760h"]).trim().to_owned();
    place.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "year"}, "stringData": {"token": year}}));
    assert!(place.accepts(&eternal) && place.accepts(&year));
    let log = place.servers.folder.join("audit.log");
    let spaced = ["-n", &place.space, "-o", "json"];
    // Other tests write to the log meanwhile, so its last line may be cut; the exit code is of that alone.
    let plan = |log: &str| {
        let done = place.legacy(&[&["plan", "--audit-log", log], &spaced[..]].concat());
        (done.code, serde_json::from_str::<Value>(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}")))
    };
    let uses = |shown: &Value, name: &str| {
        let find = shown["finds"].as_array().unwrap().iter().find(|find| find["secret"] == name).unwrap().clone();
        find["uses"].as_array().unwrap().clone()
    };
    let path = log.display().to_string();
    until("both uses are in the log", 60, || ["old", "year"].iter().all(|name| !uses(&plan(&path).1, name).is_empty()));
    let (_, shown) = plan(&path);
    for name in ["old", "year"] {
        let used = uses(&shown, name);
        let kubectl = used.iter().find(|one| one["userAgent"].as_str().unwrap().contains("kubectl")).unwrap();
        assert_eq!((&kubectl["addresses"], &kubectl["certain"]), (&json!(["127.0.0.1"]), &json!(true)), "{name}: {used:?}");
    }
    assert_eq!(uses(&shown, "unused"), Vec::<Value>::new());

    // Cut in the middle of a line: what stands before it is told, and the rest is said to be missing.
    let whole = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let cut = format!("{}\n{}", lines[..lines.len() - 1].join("\n"), &lines[0][..lines[0].len() / 2]);
    let file = place.host.write("cut.log", &cut).display().to_string();
    let (code, shown) = plan(&file);
    assert_eq!(code, Some(1));
    assert!(shown["missing"].to_string().contains("cut in the middle") && !uses(&shown, "old").is_empty(), "{}", shown["missing"]);
    let none = place.legacy(&["plan", "--audit-log", "/nonexistent/audit.log"]);
    assert!(none.code == Some(1) && none.stderr.contains("/nonexistent/audit.log"), "{none:?}");
}

#[test]
fn who_may_see_part_of_the_cluster_gets_that_part_and_is_told_what_is_missing() {
    let place = Place::new("legacy-half");
    place.eternal("old");
    let hidden = Place::new("legacy-hidden");
    hidden.eternal("secret");
    let space = place.space.as_str();
    place.kubectl(&["create", "role", "half", "--verb=list,get,patch", "--resource=secrets,pods,serviceaccounts"]);
    place.kubectl(&["create", "rolebinding", "half", "--role=half", &format!("--serviceaccount={space}:bot")]);
    let token = place.kubectl(&["create", "token", "bot"]);
    let config = place.servers.kube().kubeconfig(json!({"token": token.trim()}));
    let config = place.host.write("half.kubeconfig", &config).display().to_string();
    let ask = |arguments: &[&str]| place.host.run(&[&["legacy"], arguments, &["--kubeconfig", &config]].concat());
    until("the rights hold", 30, || ask(&["list", "-n", space]).code != Some(4));

    // One namespace whole, but for the workloads.
    let half = ask(&["list", "-n", space, "-o", "json"]);
    let shown: Value = serde_json::from_str(&half.stdout).unwrap();
    assert_eq!((half.code, &shown["finds"][0]["secret"]), (Some(1), &json!("old")));
    assert!(
        shown["missing"].to_string().contains("deployments in namespace legacy-half") && half.stderr.contains("missing: deployments"),
        "{half:?}"
    );
    // Nothing is changed where it is not known who hangs on it.
    let kept = ask(&["disable", &format!("{space}/old"), "--anyway", "--apply"]);
    assert!(kept.code == Some(4) && kept.stderr.contains("deployments"), "{kept:?}");
    assert!(place.secret("old")["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"].is_null());
    // The whole cluster: no namespace may be listed, so none can be asked alone.
    let none = ask(&["list"]);
    assert!(none.code == Some(4) && none.stderr.contains("list secrets"), "{none:?}");
    // With the names of the namespaces each is asked alone.
    let role = format!("{space}-names");
    place.servers.kubectl(&["create", "clusterrole", &role, "--verb=list", "--resource=namespaces"]);
    place.servers.kubectl(&[
        "create",
        "clusterrolebinding",
        &role,
        &format!("--clusterrole={role}"),
        &format!("--serviceaccount={space}:bot"),
    ]);
    until("the names may be read", 30, || ask(&["list"]).code == Some(1));
    let parts = ask(&["list", "-o", "json"]);
    let shown: Value = serde_json::from_str(&parts.stdout).unwrap();
    assert!(shown["finds"].as_array().unwrap().iter().any(|find| find["namespace"] == space), "{parts:?}");
    assert!(!shown["finds"].to_string().contains("legacy-hidden"));
    let missing =
        shown["missing"].as_array().unwrap().iter().find(|gap| gap.as_str().unwrap().starts_with("secrets in namespaces")).unwrap();
    assert!(missing.as_str().unwrap().contains("legacy-hidden") && !missing.as_str().unwrap().contains("legacy-half,"), "{missing}");
    place.servers.kubectl(&["delete", "clusterrolebinding,clusterrole", &role]);
}

#[test]
fn secrets_too_large_for_one_answer_are_read_in_smaller_pages() {
    let place = Place::new("legacy-large");
    let year = place.kubectl(&["create", "token", "bot", "--duration=8760h"]);
    let blob = "x".repeat(400 << 10);
    let secret =
        |name: String, value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"v": value}});
    for n in 0..8 {
        place.apply(secret(format!("large-{n}"), &blob));
    }
    place.apply(secret("zz".into(), year.trim()));
    let finds = place.finds(&["list"]);
    assert_eq!((finds.len(), &finds[0]["secret"]), (1, &json!("zz")));
}
