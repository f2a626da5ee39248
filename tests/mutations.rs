//! T9: schedules made bad by mutation from a good one, each refused with exactly one error, at the line, the column
//! and the key of what was spoiled; and a daemon that is told to take one after the other stays as it was.
//! Those made by hand stand under `schedules/bad` (`bad_schedules.rs`).

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use tokenferry::daemon::control::{Choice, call};
use tokenferry::schedule::{Problem, Severity, Sources, plan};

use crate::support::daemon::Host;
use crate::support::until;

/// What stands in a slot: it decides what is wrong there.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Duration,
    Size,
    Share,
    Mode,
    Switch,
    Count,
    Text,
    File,
    List,
    Group,
    Choice,
    Cron,
    Zone,
    Clock,
    Days,
    Cluster,
    Store,
    Account,
    Name,
    Address,
    Format,
    StorePath,
    Listen,
    Version,
}

/// Every value that is spoiled: as it stands in the file (between `«` and `»`, with as much before as makes it the
/// only one), its key, what it is.
const SLOTS: &[(&str, &str, What)] = &[
    ("version: «1»", "version", What::Version),
    ("include: «[to-mutate.d/*.yaml]»", "include", What::List),
    ("    kubeconfig: «prod.kubeconfig»", "clusters.prod.kubeconfig", What::File),
    ("    context: «production»", "clusters.prod.context", What::Text),
    ("    endpoints: «[\"https://a:6443\", \"https://b:6443\"]»", "clusters.prod.endpoints", What::List),
    ("    proxyUrl: «http://proxy:3128»", "clusters.prod.proxyUrl", What::Text),
    ("    limits: «{inFlight: 32, perSecond: 200}»", "clusters.prod.limits", What::Group),
    ("    limits: {inFlight: «32»", "clusters.prod.limits.inFlight", What::Count),
    ("inFlight: 32, perSecond: «200»", "clusters.prod.limits.perSecond", What::Count),
    ("{embedded: «{directory: /tmp/trial, issuer: \"https://trial.example.com\"}»", "clusters.trial.embedded", What::Group),
    ("{embedded: {directory: «/tmp/trial»", "clusters.trial.embedded.directory", What::File),
    ("issuer: «\"https://trial.example.com\"»", "clusters.trial.embedded.issuer", What::Text),
    ("{vault: {address: «\"https://bao:8200\"»", "stores.bao.vault.address", What::Address),
    ("namespace: «team/a»", "stores.bao.vault.namespace", What::Text),
    ("caFile: «/etc/bao.pem»", "stores.bao.vault.caFile", What::File),
    ("auth: {token: {file: «/run/bao»", "stores.bao.vault.auth.token.file", What::File),
    ("limits: {inFlight: «4»", "stores.bao.limits.inFlight", What::Count),
    ("{vault: {address: «\"https://role:8200\"»", "stores.role.vault.address", What::Address),
    ("{appRole: {mount: «approle»", "stores.role.vault.auth.appRole.mount", What::StorePath),
    ("roleId: «r-1»", "stores.role.vault.auth.appRole.roleId", What::Text),
    ("secretIdFile: «secret-id»", "stores.role.vault.auth.appRole.secretIdFile", What::File),
    ("      region: «eu-central-1»", "stores.aws.awsSecretsManager.region", What::Text),
    ("      profile: «default»", "stores.aws.awsSecretsManager.profile", What::Text),
    ("      endpoint: «http://localhost:5000»", "stores.aws.awsSecretsManager.endpoint", What::Text),
    ("      kmsKeyId: «alias/tokens»", "stores.aws.awsSecretsManager.kmsKeyId", What::Text),
    (
        "      assumeRole: «{roleArn: \"arn:aws:iam::123456789012:role/tokens\", externalId: ext-1}»",
        "stores.aws.awsSecretsManager.assumeRole",
        What::Group,
    ),
    ("externalId: «ext-1»", "stores.aws.awsSecretsManager.assumeRole.externalId", What::Text),
    ("records: «{directory: /var/lib/tokenferry/records, keep: 400d, maxSize: 64MiB}»", "records", What::Group),
    ("records: {directory: «/var/lib/tokenferry/records»", "records.directory", What::File),
    ("keep: «400d»", "records.keep", What::Duration),
    ("maxSize: «64MiB»", "records.maxSize", What::Size),
    ("control: «{socket: /run/tokenferry/control.sock}»", "control", What::Group),
    ("control: {socket: «/run/tokenferry/control.sock»", "control.socket", What::File),
    ("metrics: «{listen: \"127.0.0.1:9467\"}»", "metrics", What::Group),
    ("metrics: {listen: «\"127.0.0.1:9467\"»", "metrics.listen", What::Listen),
    ("reloadOnChange: «true»", "reloadOnChange", What::Switch),
    ("defaults: {cluster: prod, duration: «2h»", "defaults.duration", What::Duration),
    ("duration: 2h, rotate: {at: «66.7%»", "defaults.rotate.at", What::Share),
    ("  - name: «everything.1»", "targets[0].name", What::Name),
    ("    labels: «{owner: payments, tier: \"1\"}»", "targets[0].labels", What::Group),
    ("    cluster: «prod»", "targets[0].cluster", What::Cluster),
    ("    serviceAccount: «cicd/cicd-deployer»", "targets[0].serviceAccount", What::Account),
    ("    duration: «1d12h»", "targets[0].duration", What::Duration),
    ("    audiences: «[https://kubernetes.default.svc, vault]»", "targets[0].audiences", What::List),
    ("    boundTo: «{secret: marker}»", "targets[0].boundTo", What::Choice),
    ("    boundTo: {secret: «marker»", "targets[0].boundTo.secret", What::Text),
    ("      at: «80%»", "targets[0].rotate.at", What::Share),
    ("      cron: «[\"0 2 * * *\", \"@hourly\"]»", "targets[0].rotate.cron", What::Cron),
    ("      timeZone: «Europe/Berlin»", "targets[0].rotate.timeZone", What::Zone),
    ("      splay: «10m»", "targets[0].rotate.splay", What::Duration),
    ("      window: «{from: \"22:00\", to: \"06:00\", days: Mon-Fri}»", "targets[0].rotate.window", What::Group),
    ("      window: {from: «\"22:00\"»", "targets[0].rotate.window.from", What::Clock),
    ("to: «\"06:00\"»", "targets[0].rotate.window.to", What::Clock),
    ("days: «Mon-Fri»", "targets[0].rotate.window.days", What::Days),
    ("    suspend: «false»", "targets[0].suspend", What::Switch),
    ("    prove: {every: «3h»", "targets[0].prove.every", What::Duration),
    ("    compliance: «{maxAge: 26h, maxLifetime: 48h}»", "targets[0].compliance", What::Group),
    ("    compliance: {maxAge: «26h»", "targets[0].compliance.maxAge", What::Duration),
    ("maxLifetime: «48h»", "targets[0].compliance.maxLifetime", What::Duration),
    ("      - file: {path: «out/token»", "targets[0].deliver[0].file.path", What::File),
    ("mode: «\"0640\"»", "targets[0].deliver[0].file.mode", What::Mode),
    ("group: «ci»", "targets[0].deliver[0].file.group", What::Text),
    ("format: «raw»", "targets[0].deliver[0].file.format", What::Format),
    ("        required: «false»", "targets[0].deliver[0].required", What::Switch),
    ("- vault: {store: «bao»", "targets[0].deliver[1].vault.store", What::Store),
    ("mount: «kv/team»", "targets[0].deliver[1].vault.mount", What::StorePath),
    ("mount: kv/team, path: «a/b»", "targets[0].deliver[1].vault.path", What::StorePath),
    ("path: a/b, key: «token»", "targets[0].deliver[1].vault.key", What::Text),
    ("key: token, format: «execCredential»", "targets[0].deliver[1].vault.format", What::Format),
    ("          - file: {path: «/var/lib/fallback»", "targets[0].deliver[1].fallback[0].file.path", What::File),
    ("- awsSecretsManager: {store: «aws»", "targets[0].deliver[2].awsSecretsManager.store", What::Store),
    ("secretId: «plain»", "targets[0].deliver[2].awsSecretsManager.secretId", What::Text),
    ("secretId: plain, key: «field»", "targets[0].deliver[2].awsSecretsManager.key", What::Text),
    ("  - name: «second»", "targets[1].name", What::Name),
    ("    serviceAccount: «cicd/second»", "targets[1].serviceAccount", What::Account),
    ("    rotate: {cron: «\"*/30 * * * *\"»", "targets[1].rotate.cron", What::Cron),
    ("    prove: «false»", "targets[1].prove", What::Switch),
    ("deliver: [{file: {path: «/run/second»", "targets[1].deliver[0].file.path", What::File),
];

/// A wrong value of that kind: what is written, at which byte of it the problem stands, what the key gains, a part
/// of what is said.
type Wrong = (&'static str, usize, &'static str, &'static str);

const NO_TEXT: [Wrong; 3] = [("[a]", 0, "", "not a list"), ("{a: b}", 0, "", "not settings"), ("7", 0, "", "without quotes")];
const NO_GROUP: [Wrong; 4] =
    [("often", 0, "", "not the text"), ("[a]", 0, "", "not a list"), ("7", 0, "", "not the number"), ("true", 0, "", "expected")];

impl What {
    fn wrong(self) -> Vec<Wrong> {
        match self {
            Self::Duration => vec![
                ("5x", 0, "", "`5x`"),
                ("-1h", 0, "", "`-1h`"),
                ("3600", 0, "", "no unit"),
                ("\"\"", 0, "", "duration"),
                ("[1h]", 0, "", "a list stands"),
                ("{a: 1h}", 0, "", "settings"),
                ("99999999999999999999h", 0, "", "too large"),
            ],
            Self::Size => vec![("64MB", 0, "", "`64MB`"), ("-1MiB", 0, "", "size"), ("[64MiB]", 0, "", "list"), ("64", 0, "", "size")],
            Self::Share => vec![
                ("100%", 0, "", "100%"),
                ("0%", 0, "", "0%"),
                ("0.8", 0, "", "write 80%"),
                ("80", 0, "", "`80`"),
                ("-5%", 0, "", "`-5%`"),
                ("[80%]", 0, "", "list"),
                ("soon", 0, "", "`soon`"),
            ],
            Self::Mode => vec![
                ("640", 0, "", "without quotes"),
                ("0640", 0, "", "without quotes"),
                ("\"0888\"", 0, "", "no file mode"),
                ("\"1777\"", 0, "", "no file mode"),
                ("\"0666\"", 0, "", "0666"),
                ("\"0040\"", 0, "", "0040"),
                ("\"u=rw\"", 0, "", "no file mode"),
                ("[\"0640\"]", 0, "", "list"),
            ],
            Self::Switch => vec![("maybe", 0, "", "maybe"), ("yes", 0, "", "yes"), ("1", 0, "", "1"), ("[true]", 0, "", "list")],
            Self::Count => vec![
                ("-1", 0, "", "-1"),
                ("many", 0, "", "many"),
                ("1.5", 0, "", "1.5"),
                ("[1]", 0, "", "list"),
                ("{a: 1}", 0, "", "settings"),
            ],
            Self::Text => NO_TEXT.to_vec(),
            Self::File => [&NO_TEXT[..], &[("\"\"", 0, "", "")]].concat(),
            Self::List => vec![
                ("text", 0, "", "not the text"),
                ("{a: b}", 0, "", "not settings"),
                ("[7]", 1, "[0]", "without quotes"),
                ("[[a]]", 1, "[0]", "not a list"),
                ("true", 0, "", "expected"),
            ],
            Self::Group => NO_GROUP.to_vec(),
            Self::Choice => vec![
                ("often", 0, "", "`often`"),
                ("[a]", 0, "", "not a list"),
                ("7", 0, "", "`7`"),
                ("{secret: a, node: b}", 0, "", "keep one"),
                ("{secretz: a}", 1, ".secretz", "did you mean `secret`"),
            ],
            Self::Cron => vec![
                ("0 2 * *", 0, "", "here are 4"),
                ("\"0 0 2 * * *\"", 0, "", "here are 6"),
                ("\"61 * * * *\"", 0, "", "minute 61"),
                ("\"0 25 * * *\"", 0, "", "hour 25"),
                ("\"0 0 31 2 *\"", 0, "", "never fires"),
                ("\"@reboot\"", 0, "", "only @hourly"),
                ("\"0 22-6 * * *\"", 0, "", "backwards"),
                ("[\"0 2 * * *\", \"x * * * *\"]", 14, "[1]", "`x`"),
                ("{a: b}", 0, "", "settings"),
            ],
            Self::Zone => [&NO_TEXT[..], &[("Mars/Phobos", 0, "", "Mars/Phobos"), ("\"../etc/passwd\"", 0, "", "passwd")]].concat(),
            Self::Clock => {
                vec![("\"24:61\"", 0, "", "24:61"), ("\"6\"", 0, "", "6"), ("\"six\"", 0, "", "six"), ("[\"06:00\"]", 0, "", "list")]
            }
            Self::Days => vec![("Mo-Fri", 0, "", "Mo"), ("\"1-5\"", 0, "", "1"), ("[Mon]", 0, "", "list"), ("Mon-", 0, "", "")],
            Self::Cluster => [&NO_TEXT[..], &[("nowhere", 0, "", "nowhere"), ("Prod", 0, "", "Prod")]].concat(),
            Self::Store => [&NO_TEXT[..], &[("nowhere", 0, "", "nowhere"), ("\"\"", 0, "", "")]].concat(),
            Self::Account => [
                &NO_TEXT[..],
                &[
                    ("deployer", 0, "", "NAMESPACE/NAME"),
                    ("a/b/c", 0, "", ""),
                    ("CICD/deployer", 0, "", "CICD"),
                    ("cicd/Deployer_1", 0, "", "Deployer_1"),
                    ("/deployer", 0, "", ""),
                ],
            ]
            .concat(),
            Self::Name => {
                [&NO_TEXT[..], &[("Big", 0, "", "Big"), ("\"a b\"", 0, "", "a b"), ("a/b", 0, "", "a/b"), ("\"\"", 0, "", "")]].concat()
            }
            Self::Address => [
                &NO_TEXT[..],
                &[
                    ("bao", 0, "", "https://"),
                    ("\"ftp://bao\"", 0, "", "ftp"),
                    ("\"https://\"", 0, "", ""),
                    ("\"https://bao/path?x=1\"", 0, "", ""),
                ],
            ]
            .concat(),
            Self::Format => vec![("yaml", 0, "", "yaml"), ("[raw]", 0, "", "list"), ("7", 0, "", "7"), ("{env: 7}", 6, ".env", "")],
            Self::StorePath => [&NO_TEXT[..], &[("/a", 0, "", ""), ("a//b", 0, "", ""), ("../a", 0, "", ""), ("\"\"", 0, "", "")]].concat(),
            Self::Listen => [&NO_TEXT[..], &[("nowhere", 0, "", "nowhere"), ("\"127.0.0.1:99999\"", 0, "", "99999")]].concat(),
            Self::Version => {
                vec![("0", 0, "", "version 0"), ("2", 0, "", "newer"), ("\"1\"", 0, "", "1"), ("[1]", 0, "", "list"), ("1.5", 0, "", "1.5")]
            }
        }
    }
}

/// A schedule that has to be refused, and where.
struct Bad {
    what: String,
    text: String,
    line: usize,
    column: usize,
    key: String,
    says: String,
}

fn good() -> (std::path::PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schedules/good/to-mutate.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// Line and column (in characters) of a byte, from 1.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte];
    (before.matches('\n').count() + 1, before[before.rfind('\n').map_or(0, |at| at + 1)..].chars().count() + 1)
}

/// Where a slot's value stands in the text.
fn slot(text: &str, slot: &str) -> (usize, usize) {
    let (before, rest) = slot.split_once('«').unwrap();
    let (value, after) = rest.split_once('»').unwrap();
    let whole = format!("{before}{value}{after}");
    let found: Vec<usize> = text.match_indices(&whole).map(|(at, _)| at).collect();
    assert_eq!(found.len(), 1, "{slot} stands {} times in the schedule", found.len());
    (found[0] + before.len(), found[0] + before.len() + value.len())
}

/// One schedule for each wrong value of each slot; each key once more, and once misspelt beside itself.
fn mutations(good: &str) -> Vec<Bad> {
    let mut all = Vec::new();
    let mut bad = |what: String, (from, to): (usize, usize), with: &str, at: usize, key: String, says: &str| {
        let text = format!("{}{with}{}", &good[..from], &good[to..]);
        let (line, column) = place(&text, from + at);
        all.push(Bad { what, text, line, column, key, says: says.into() });
    };
    for (written, key, what) in SLOTS {
        let range = slot(good, written);
        for (wrong, at, more, says) in what.wrong() {
            bad(format!("{key}: {wrong}"), range, wrong, at, format!("{key}{more}"), says);
        }
        // After a value of a flow mapping a comma follows the key, in a block a new line with the same indent.
        let line = good[..range.0].rfind('\n').map_or(0, |at| at + 1);
        let name = key.rsplit(['.', ']']).next().unwrap();
        let start = range.0 - name.len() - 2;
        assert_eq!(&good[start..range.0], format!("{name}: "), "{written}");
        let flow = good[line..start].contains(['{', '[']);
        let join = if flow { ", ".to_owned() } else { format!("\n{}", " ".repeat(start - line)) };
        let value = &good[range.0..range.1];
        let after = (range.1, range.1);
        bad(format!("{key} twice"), after, &format!("{join}{name}: {value}"), join.len(), (*key).to_owned(), "stands here twice");
        let (wrong, unknown) = (format!("x{name}"), format!("{}x{name}", &key[..key.len() - name.len()]));
        bad(format!("{unknown}: an unknown key"), after, &format!("{join}{wrong}: {value}"), join.len(), unknown, "unknown");
    }
    all
}

fn planned(path: &Path, text: &str) -> Result<(), Vec<Problem>> {
    let sources = Sources { path: path.into(), text: text.into(), includes: Vec::new() };
    plan(&sources, &BTreeMap::new()).map(drop)
}

impl Bad {
    fn is(&self, problem: &Problem) -> bool {
        (problem.line, problem.column, problem.key.as_str()) == (self.line, self.column, self.key.as_str())
            && problem.message.contains(&self.says)
    }
}

#[test]
fn t9_g9_each_of_five_hundred_mutations_is_refused_with_its_line_column_and_key() {
    let (path, text) = good();
    assert_eq!(planned(&path, &text), Ok(()), "the schedule that is mutated has to be good");
    let all = mutations(&text);
    let mut wrong = Vec::new();
    for bad in &all {
        let said: Vec<Problem> = match planned(&path, &bad.text) {
            Ok(()) => Vec::new(),
            Err(problems) => problems.into_iter().filter(|problem| problem.severity == Severity::Error).collect(),
        };
        if said.len() != 1 || !bad.is(&said[0]) {
            let said: Vec<String> = said.iter().map(|p| format!("{}:{}: {}: {}", p.line, p.column, p.key, p.message)).collect();
            wrong.push(format!(
                "{}\n  wanted {}:{}: {}: …{}…\n  said   {}",
                bad.what,
                bad.line,
                bad.column,
                bad.key,
                bad.says,
                said.join("\n         ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    let texts: HashSet<&str> = all.iter().map(|bad| bad.text.as_str()).collect();
    assert!(texts.len() >= 500, "only {} different schedules", texts.len());
    println!("figures: T9: {} schedules by mutation, each refused with its line, column and key", texts.len());
}

/// The targets of a status, but for when they were looked at last.
fn as_it_stands(status: &serde_json::Value) -> serde_json::Value {
    let mut targets = status["targets"].clone();
    for target in targets.as_array_mut().unwrap() {
        target.as_object_mut().unwrap().remove("provenAt");
    }
    targets
}

#[test]
fn t9_g9_five_hundred_reloads_with_a_bad_schedule_leave_the_daemon_as_it_was() {
    let (_, text) = good();
    let mut host = Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}]\n",
    );
    host.start();
    until("it is delivered", 60, || host.records_of("rotated", "one").len() == 1);
    until("it is fresh", 60, || host.target("one")["state"] == "fresh");
    let kept = || {
        let mut files: Vec<_> =
            std::fs::read_dir(host.path("state")).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
        files.extend(
            std::fs::read_dir(host.path("state/records"))
                .unwrap()
                .flatten()
                .map(|e| e.path())
                .filter(|p| p.is_file() && p.extension().is_none_or(|e| e != "jsonl")),
        );
        files.sort();
        files.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let stands = || (host.read("out/one"), as_it_stands(&host.json(&["status"])), host.records_of("rotated", "one").len());
    let (before, files) = (stands(), kept());
    assert!(!files.is_empty(), "the accepted schedule is kept somewhere");
    let socket = host.path("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (all, nothing) = (mutations(&text), Choice::default());
    for bad in &all {
        std::fs::write(host.schedule(), &bad.text).unwrap();
        let ask = call(&socket, http::Method::POST, "/reload", &nothing, Duration::from_secs(60));
        let verdict = runtime.block_on(ask).unwrap_or_else(|error| panic!("{}: {error}", bad.what));
        assert_eq!(verdict["accepted"], false, "{}: {verdict}", bad.what);
        let named =
            |p: &serde_json::Value| p["line"] == bad.line && p["column"] == bad.column && p["key"].as_str().unwrap_or("") == bad.key;
        assert!(verdict["problems"].as_array().unwrap().iter().any(named), "{}: {verdict}", bad.what);
    }
    // The status is asked for by the socket: no schedule names it now.
    let status = runtime.block_on(call(&socket, http::Method::GET, "/status", &nothing, Duration::from_secs(60))).unwrap();
    assert_eq!(as_it_stands(&status), before.1, "the targets stand as they stood");
    assert_eq!(host.read("out/one"), before.0);
    assert_eq!(host.records_of("rotated", "one").len(), before.2);
    assert_eq!(kept(), files, "what was kept is what was accepted");
    let refused = host.records().iter().filter(|line| line["kind"] == "reloadRefused").count();
    assert_eq!(refused, all.len(), "each refusal is recorded once");
    println!("figures: T9: {} reloads with a bad schedule, each refused at its place, nothing changed", all.len());
}
