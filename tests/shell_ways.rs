//! The shell's way of asking a token beside ours, on tokens of the real API server: decoding it with cut, base64 and jq,
//! telling its age, looking whether it is good. Where both are right they agree; where the shell is wrong that is shown.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::daemon::{Done, Host};
use crate::support::servers::cluster;

/// Whose token it is, as the scripts ask: the middle part, decoded, and fields of it.
const CLAIMS: &str = "cut -d. -f2 < \"$1\" | base64 -d 2>/dev/null | jq -c .";
/// Seconds left, as a loop prints them every minute.
const LEFT: &str = r#"
payload=$(cut -d. -f2 < "$1" | base64 -d 2>/dev/null)
end=$(echo "$payload" | grep -o '"exp":[0-9]*' | cut -d: -f2)
echo $((end - $(date +%s)))
"#;
/// Seconds since the file was written.
const FILE_AGE: &str = "echo $(($(date +%s) - $(stat -c %Y \"$1\")))";
/// Seconds since it was issued, as a monitor computes them.
const AGE: &str = r#"
issued=$(cut -d. -f2 < "$1" | base64 -d 2>/dev/null | jq -r .iat)
echo $(($(date +%s) - issued))
"#;
/// A script that looks whether a token is as expected: how long it lives, for whom it is, which Pod has it.
const VALIDATE: &str = r#"
payload=$(cut -d. -f2 < "$1" | base64 -d 2>/dev/null)
echo "ends in $(($(echo "$payload" | jq -r .exp) - $(date +%s))) s"
echo "for $(echo "$payload" | jq -r '.aud[]')"
echo "bound to Pod $(echo "$payload" | jq -r '."kubernetes.io".pod.name')"
"#;

struct Bench {
    host: Host,
    kubeconfig: String,
}

impl Bench {
    fn new() -> Self {
        Self { host: Host::new("targets: []"), kubeconfig: cluster().kube().admin_kubeconfig.display().to_string() }
    }

    /// A token of that account, as kubectl hands it out, in a file.
    fn token(&self, account: &str, more: &[&str]) -> PathBuf {
        let text = cluster().kubectl(&[&["create", "token", account, "-n", "cicd", "--duration", "10m"], more].concat());
        self.host.write("token", text.trim())
    }

    fn shell(&self, script: &str, token: &std::path::Path) -> Output {
        Command::new("sh").args(["-c", script, "sh"]).arg(token).output().unwrap()
    }

    fn said(&self, script: &str, token: &std::path::Path) -> String {
        String::from_utf8(self.shell(script, token).stdout).unwrap().trim().to_owned()
    }

    fn inspect(&self, token: &std::path::Path) -> Value {
        self.host.json(&["inspect", token.to_str().unwrap()])
    }

    /// `verify` with the keys and the word of the API server.
    fn verify(&self, token: &std::path::Path, more: &[&str]) -> Done {
        let own = ["verify", token.to_str().unwrap(), "--kubeconfig", &self.kubeconfig, "--cluster-keys", "--review", "--token-review"];
        self.host.run(&[&own, more].concat())
    }

    /// Whether kubectl gets an answer with it.
    fn kubectl_accepts(&self, token: &std::path::Path, arguments: &[&str]) -> bool {
        let kube = cluster().kube();
        let mut kubectl = Command::new(&kube.kubectl);
        kubectl.env("KUBECONFIG", "/dev/null").arg("--server").arg(&kube.server).arg("--certificate-authority").arg(&kube.ca);
        kubectl.arg("--token").arg(std::fs::read_to_string(token).unwrap()).args(arguments).output().unwrap().status.success()
    }
}

#[test]
fn claims_that_base64_can_decode_are_the_ones_that_we_show() {
    let bench = Bench::new();
    // Without padding some decoders give up in two cases of three: the name's length decides.
    let mut agreed = 0;
    for account in ["shell", "shell1", "shell12"] {
        cluster().kubectl(&["create", "serviceaccount", account, "-n", "cicd"]);
        let token = bench.token(account, &[]);
        let ours = bench.inspect(&token);
        assert_eq!(ours["subject"], format!("system:serviceaccount:cicd:{account}"));
        let Ok(theirs) = serde_json::from_str::<Value>(&bench.said(CLAIMS, &token)) else { continue };
        agreed += 1;
        assert_eq!(
            (&ours["subject"], &ours["issuer"], &ours["jti"], &ours["audiences"]),
            (&theirs["sub"], &theirs["iss"], &theirs["jti"], &theirs["aud"])
        );
        let own = &theirs["kubernetes.io"];
        assert_eq!((&ours["namespace"], &ours["serviceAccount"]), (&own["namespace"], &own["serviceaccount"]["name"]));
        assert_eq!(ours["lifetime"].as_i64(), theirs["exp"].as_i64().zip(theirs["iat"].as_i64()).map(|(exp, iat)| exp - iat));
    }
    assert!(agreed > 0, "one of three lengths needs no padding");
}

#[test]
fn a_payload_with_a_letter_of_base64url_is_read_by_us_and_not_by_the_shell() {
    let bench = Bench::new();
    // Three tildes in a row: one of them becomes a `-`, which base64 does not have.
    let audience = "https://ci.example.com/~~~";
    let token = bench.token("builder", &["--audience", audience]);
    let text = std::fs::read_to_string(&token).unwrap();
    assert!(text.split('.').nth(1).unwrap().contains('-'), "the audience does not do what this test needs");
    assert!(!bench.shell(CLAIMS, &token).status.success(), "jq has got whole claims: {}", bench.said(CLAIMS, &token));
    let left: i64 = bench.said(LEFT, &token).parse().unwrap_or(i64::MIN);
    assert!(!(0..=600).contains(&left), "the loop is right here: {left}");
    let ours = bench.inspect(&token);
    assert_eq!(ours["audiences"], serde_json::json!([audience]));
    assert!((500..=600).contains(&ours["remaining"].as_i64().unwrap()), "{ours}");
}

#[test]
fn the_age_of_a_file_is_not_the_age_of_its_token() {
    let bench = Bench::new();
    let token = bench.token("builder", &[]);
    let touched = Command::new("touch").args(["-d", "3 hours ago"]).arg(&token).status().unwrap();
    assert!(touched.success());
    let by_file: i64 = bench.said(FILE_AGE, &token).parse().unwrap();
    let ours = bench.inspect(&token)["age"].as_i64().unwrap();
    assert!(by_file > 10_000 && ours < 120, "{by_file} {ours}");
    assert_eq!(bench.host.run(&["verify", token.to_str().unwrap(), "--max-age", "2h"]).code, Some(0));
    // By `iat`, where that can be decoded, both say the same.
    if let Ok(by_claim) = bench.said(AGE, &token).parse::<i64>()
        && (0..600).contains(&by_claim)
    {
        let again = bench.inspect(&token)["age"].as_i64().unwrap();
        assert!((by_claim - again).abs() <= 2, "{by_claim} {again}");
    }
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(bench.host.run(&["verify", token.to_str().unwrap(), "--max-age", "1s"]).code, Some(1));
}

#[test]
fn a_good_token_is_good_to_kubectl_and_in_each_of_our_checks() {
    let bench = Bench::new();
    let token = bench.token("builder", &[]);
    assert!(bench.kubectl_accepts(&token, &["auth", "whoami"]) && bench.kubectl_accepts(&token, &["get", "--raw", "/version"]));
    let done = bench.verify(&token, &["--subject", "cicd/builder", "--min-remaining", "5m", "--max-lifetime", "1h"]);
    assert_eq!((done.code, done.stdout.contains("BAD"), done.stdout.contains("UNKNOWN")), (Some(0), false, false), "{done:?}");
    for check in ["signature", "review", "tokenReview", "minRemaining"] {
        assert!(done.stdout.lines().any(|line| line.starts_with("good") && line.contains(check)), "{check}: {}", done.stdout);
    }
}

#[test]
fn a_token_that_was_changed_passes_the_script_and_fails_with_kubectl_and_us() {
    let bench = Bench::new();
    // An audience of its own, padded so that every decoder reads the claims.
    let token = decodable(&bench);
    let before = bench.said(VALIDATE, &token);
    let text = std::fs::read_to_string(&token).unwrap();
    let (head, tail) = text.split_at(text.len() - 8);
    let tail: String = tail.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    bench.host.write("token", &format!("{head}{tail}"));
    let after = bench.said(VALIDATE, &token);
    let shape =
        |text: &str| text.lines().map(|line| line.split(|c: char| c.is_ascii_digit()).next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(shape(&before), shape(&after), "the script notices nothing");
    assert!(!bench.kubectl_accepts(&token, &["auth", "whoami"]));
    let done = bench.verify(&token, &[]);
    assert_eq!(done.code, Some(1));
    for check in ["signature", "review", "tokenReview"] {
        assert!(done.stdout.lines().any(|line| line.starts_with("BAD") && line.contains(check)), "{check}: {}", done.stdout);
    }
}

#[test]
fn a_token_of_a_deleted_account_is_refused_by_the_api_server_though_its_signature_and_its_times_are_good() {
    let bench = Bench::new();
    cluster().kubectl(&["create", "serviceaccount", "shell-gone", "-n", "cicd"]);
    let token = bench.token("shell-gone", &[]);
    cluster().kubectl(&["delete", "serviceaccount", "shell-gone", "-n", "cicd"]);
    crate::support::until("the API server refuses it", 60, || !bench.kubectl_accepts(&token, &["auth", "whoami"]));
    let done = bench.verify(&token, &[]);
    assert_eq!(done.code, Some(1));
    let verdict = |check: &str| {
        let line = done.stdout.lines().find(|line| line.split_whitespace().nth(1) == Some(check));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
    };
    assert_eq!(
        [verdict("end"), verdict("signature"), verdict("review"), verdict("tokenReview")],
        ["good", "good", "BAD", "BAD"],
        "{done:?}"
    );
}

#[test]
fn a_token_for_no_pod_is_null_to_the_script_and_a_failed_check_to_us() {
    let bench = Bench::new();
    let token = decodable(&bench);
    assert!(bench.said(VALIDATE, &token).contains("bound to Pod null"), "{}", bench.said(VALIDATE, &token));
    cluster().kubectl(&["create", "secret", "generic", "shell-marker", "-n", "cicd"]);
    let path = token.to_str().unwrap();
    let done = bench.host.run(&["verify", path, "--bound-to", "pod/web-1"]);
    assert!(done.code == Some(1) && done.stdout.contains("bound to nothing, not to pod/web-1"), "{done:?}");
    let bound = bench.token("builder", &["--bound-object-kind", "Secret", "--bound-object-name", "shell-marker"]);
    assert_eq!(bench.host.run(&["verify", bound.to_str().unwrap(), "--bound-to", "secret/shell-marker"]).code, Some(0));
}

/// A token whose claims every base64 decodes: an audience fills them up to a length without padding.
fn decodable(bench: &Bench) -> PathBuf {
    for fill in ["a", "ab", "abc"] {
        let token = bench.token("builder", &["--audience", "https://kubernetes.default.svc", "--audience", fill]);
        if std::fs::read_to_string(&token).unwrap().split('.').nth(1).unwrap().len().is_multiple_of(4) {
            return token;
        }
    }
    panic!("three lengths in a row, and none a multiple of three");
}
