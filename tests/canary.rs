//! T12: every token that was ever delivered is a canary. The real daemon at TRACE, with every sink, fallbacks, owed
//! places, refusals and every command: no part of a token in logs, records, status, metrics, arguments, environment,
//! core files or temporary files, nor in the daemon's own memory once idle connections are closed and nothing is owed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::support::daemon::{Host, PROGRAM, tool};
use crate::support::faults::{Fault, Flavour, Proxy, Real, certificates};
use crate::support::servers::{cluster, servers};
use crate::support::until;

const WINDOW: usize = 24;
/// What the daemon may hold of each token while connections are idle or places are owed: the token itself, its
/// payloads for the places under way, and the buffers of the connections that it came and went through.
const MOST_COPIES: usize = 12;

fn not_run(why: &str) {
    let _ = std::io::stderr().write_all(format!("\nNOT RUN: T12: {why}\n").as_bytes());
}

/// The texts by which a token would be known: windows of its signature, as text, as bytes, and inside base64 of the
/// whole token at each of its three alignments; and the end of its claims.
struct Needles(Vec<(&'static str, Vec<u8>)>);

impl Needles {
    fn of(tokens: &BTreeSet<String>) -> Self {
        let mut needles = Vec::new();
        for token in tokens {
            let parts: Vec<&str> = token.split('.').collect();
            for start in [0, (parts[2].len() - WINDOW) / 2, parts[2].len() - WINDOW] {
                needles.push(("signature", parts[2].as_bytes()[start..start + WINDOW].to_vec()));
            }
            let raw = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
            needles.push(("bytes of the signature", raw[..WINDOW].to_vec()));
            needles.push(("claims", parts[1].as_bytes()[parts[1].len() - 2 * WINDOW..].to_vec()));
            for shift in 0..3 {
                let shifted = STANDARD_NO_PAD.encode(format!("{}{token}", "x".repeat(shift)));
                let end = shifted.len() - 8;
                needles.push(("base64 of the token", shifted.as_bytes()[end - WINDOW..end].to_vec()));
            }
        }
        // What tokens have in common is looked for once.
        needles.sort();
        needles.dedup();
        Self(needles)
    }

    fn also(mut self, secrets: &[String]) -> Self {
        self.0.extend(secrets.iter().map(|s| ("a credential of ours", s.clone().into_bytes())));
        self
    }

    /// How often each sort is in there.
    fn count(&self, text: &[u8], found: &mut BTreeMap<&'static str, usize>) {
        let mut first: BTreeMap<[u8; 4], Vec<usize>> = BTreeMap::new();
        for (index, (_, needle)) in self.0.iter().enumerate() {
            first.entry(needle[..4].try_into().unwrap()).or_default().push(index);
        }
        let mut begins = vec![false; 1 << 16];
        for start in first.keys() {
            begins[usize::from(start[0]) << 8 | usize::from(start[1])] = true;
        }
        for at in 0..text.len().saturating_sub(WINDOW - 1) {
            if !begins[usize::from(text[at]) << 8 | usize::from(text[at + 1])] {
                continue;
            }
            let Some(candidates) = first.get(&text[at..at + 4]) else { continue };
            for (sort, needle) in candidates.iter().map(|i| &self.0[*i]).filter(|(_, n)| text[at..].starts_with(n)) {
                let _ = needle;
                *found.entry(sort).or_default() += 1;
            }
        }
    }

    /// What stands around a find in memory: whose buffer it is.
    fn around(&self, pid: u32) -> String {
        let (mut memory, mut shown) = (std::fs::File::open(format!("/proc/{pid}/mem")).unwrap(), String::new());
        for line in std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines().filter(|line| line.contains(" rw")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            let mut text = vec![0; usize::try_from(to - from).unwrap()];
            if memory.seek(SeekFrom::Start(from)).and_then(|_| memory.read_exact(&mut text)).is_err() {
                continue;
            }
            for (sort, needle) in &self.0 {
                if let Some(at) = text.windows(needle.len()).position(|window| window == needle.as_slice()) {
                    let near = &text[at.saturating_sub(700)..(at + 700).min(text.len())];
                    let near: String = near.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' }).collect();
                    shown += &format!("{sort} in {line}:\n{near}\n");
                }
            }
        }
        shown
    }

    fn in_text(&self, text: &str) -> BTreeMap<&'static str, usize> {
        let mut found = BTreeMap::new();
        self.count(text.as_bytes(), &mut found);
        found
    }

    /// In a process's memory that can be written.
    fn in_memory(&self, pid: u32) -> BTreeMap<&'static str, usize> {
        let mut found = BTreeMap::new();
        let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut buffer = vec![0; 4 << 20];
        for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[vvar")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            while at < to {
                let room = usize::try_from(to - at).unwrap().min(buffer.len());
                if memory.seek(SeekFrom::Start(at)).and_then(|_| memory.read_exact(&mut buffer[..room])).is_err() {
                    break;
                }
                self.count(&buffer[..room], &mut found);
                at += if room < buffer.len() { room } else { room - 64 } as u64;
            }
        }
        found
    }
}

/// Arguments and environment of a process and of all that it started.
fn processes(pid: u32) -> String {
    let read = |name: &str| String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).into_owned();
    let mut text = read("cmdline") + &read("environ");
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        text += &children.split_whitespace().map(|child| processes(child.parse().unwrap())).collect::<String>();
    }
    text
}

/// A call as OpenBao's root.
fn bao(method: &str, path: &str, body: &str) -> serde_json::Value {
    let bao = servers().bao();
    let root = std::fs::read_to_string(&bao.root_token_file).unwrap();
    let request = format!(
        "{method} /v1/{path} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        root.trim(),
        body.len()
    );
    let answer = Real::at(&bao.address, Some(&bao.ca)).ask(request.as_bytes()).unwrap();
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

struct Scene {
    host: Host,
    daemon: Child,
    port: u16,
    vault: Proxy,
    dead: Proxy,
    aws: Proxy,
    dead_aws: Proxy,
    secrets: Vec<String>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Every sink, and every way in which a delivery can end.
fn scene() -> Scene {
    let (kube, stores) = (cluster().kube(), servers());
    let proxy = |real: &Real, flavour| Proxy::before(real.clone(), flavour);
    let (bao_real, moto) = (Real::at(&stores.bao().address, Some(&stores.bao().ca)), Real::at(&stores.moto().endpoint, None));
    let (vault, dead) = (proxy(&bao_real, Flavour::Vault), proxy(&bao_real, Flavour::Vault));
    let (aws, dead_aws) = (proxy(&moto, Flavour::Aws), proxy(&moto, Flavour::Aws));
    bao("POST", "sys/auth/canary", r#"{"type":"approle"}"#);
    bao("POST", "sys/policies/acl/canary", r#"{"policy":"path \"secret/*\" {capabilities=[\"read\",\"create\",\"update\"]}"}"#);
    bao("POST", "auth/canary/role/canary", r#"{"token_policies":"canary","token_ttl":"1h"}"#);
    let role = bao("GET", "auth/canary/role/canary/role-id", "")["data"]["role_id"].as_str().unwrap().to_owned();
    let secret = bao("POST", "auth/canary/role/canary/secret-id", "{}")["data"]["secret_id"].as_str().unwrap().to_owned();
    let admin = |arguments: &[&str]| cluster().kubectl(arguments);
    admin(&["-n", "cicd", "create", "role", "canary", "--verb=create", "--resource=serviceaccounts/token"]);
    admin(&["-n", "cicd", "create", "rolebinding", "canary", "--role=canary", "--serviceaccount=cicd:cicd-deployer"]);
    let own = admin(&["-n", "cicd", "create", "token", "cicd-deployer", "--duration=1h"]).trim().to_owned();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = Host::new(&format!(
        "
metrics: {{listen: '127.0.0.1:{port}'}}
clusters: {{prod: {{kubeconfig: HERE/own.kubeconfig}}, broken: {{kubeconfig: HERE/broken.kubeconfig}}, trial: {{embedded: {{}}}}}}
stores:
  vault: {{vault: {{address: '{vault}', caFile: {ca}, auth: {{appRole: {{mount: canary, roleId: '{role}', secretIdFile: HERE/secret-id}}}}}}}}
  dead: {{vault: {{address: '{dead}', caFile: {ca}, auth: {{token: {{file: {root}}}}}}}}}
  refusing: {{vault: {{address: '{vault}', caFile: {ca}, auth: {{token: {{file: HERE/bad-token}}}}}}}}
  aws: {{awsSecretsManager: {{region: eu-central-1, endpoint: '{aws}'}}}}
  nobody: {{awsSecretsManager: {{region: eu-central-1, endpoint: '{dead_aws}'}}}}
defaults: {{duration: 10m, cluster: prod, serviceAccount: cicd/builder}}
targets:
  - {{name: raw, deliver: [{{file: {{path: HERE/out/raw}}}}]}}
  - {{name: json, deliver: [{{file: {{path: HERE/out/json, format: json}}}}]}}
  - {{name: credential, deliver: [{{file: {{path: HERE/out/credential, format: execCredential}}}}]}}
  - {{name: env, deliver: [{{file: {{path: HERE/out/env, format: {{env: {{name: KUBE_TOKEN}}}}}}}}]}}
  - {{name: vault, deliver: [{{file: {{path: HERE/out/vault}}}}, {{vault: {{store: vault, path: canary/vault}}}}]}}
  - {{name: aws, deliver: [{{file: {{path: HERE/out/aws}}}}, {{awsSecretsManager: {{store: aws, secretId: canary/aws}}}}]}}
  - {{name: fallback, deliver: [{{vault: {{store: dead, path: canary/fallback}}, fallback: [{{file: {{path: HERE/out/fallback}}}}]}}]}}
  - {{name: owed, deliver: [{{file: {{path: HERE/out/owed}}}}, {{awsSecretsManager: {{store: nobody, secretId: canary/owed}}}}]}}
  - {{name: refused, deliver: [{{file: {{path: HERE/out/refused}}}}, {{vault: {{store: refusing, path: canary/refused}}, required: false}}]}}
  - {{name: broken, cluster: broken, deliver: [{{file: {{path: HERE/out/broken}}}}]}}
  - {{name: local, cluster: trial, deliver: [{{file: {{path: HERE/out/local}}}}]}}
",
        vault = vault.url(),
        dead = dead.url(),
        aws = aws.url(),
        dead_aws = dead_aws.url(),
        ca = certificates().ca.display(),
        root = stores.bao().root_token_file.display(),
    ));
    let config = |token: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority: {}}}}}]\nusers: [{{name: u, user: {{tokenFile: {token}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            kube.server,
            kube.ca.display()
        )
    };
    host.write("own-token", &own);
    host.write("refused-token", &format!("{own}x"));
    host.write("secret-id", &secret);
    host.write("bad-token", "s.thisVaultTokenIsNobodysOwnAtAll");
    host.write("own.kubeconfig", &config("own-token"));
    host.write("broken.kubeconfig", &config("refused-token"));
    for proxy in [&dead, &dead_aws] {
        proxy.set(Fault::Refuse);
    }
    let root = std::fs::read_to_string(&stores.bao().root_token_file).unwrap().trim().to_owned();
    let signature = own.rsplit('.').next().unwrap().to_owned();
    let secrets = vec![secret, root, signature, "thisVaultTokenIsNobodysOwnAtAll".into(), "canarySecretAccessKeyValue".into()];
    let log = std::fs::File::create(host.path("daemon.log")).unwrap();
    // As much as can be asked for: core files without a limit, backtraces, every level.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh", PROGRAM, "--schedule"])
        .arg(host.schedule())
        .args(["-vv", "--log", "text", "run"]);
    shell.current_dir(host.folder.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    shell.env("RUST_BACKTRACE", "1").env("RUST_LOG", "trace").env("SSL_CERT_FILE", &certificates().ca);
    shell.env("AWS_ACCESS_KEY_ID", "canaryKeyId").env("AWS_SECRET_ACCESS_KEY", "canarySecretAccessKeyValue");
    let daemon = shell.spawn().unwrap();
    Scene { host, daemon, port, vault, dead, aws, dead_aws, secrets }
}

const FILES: [&str; 10] = ["raw", "json", "credential", "env", "vault", "aws", "fallback", "owed", "refused", "local"];

/// Every token that stands in a file place now.
fn gather(host: &Host, tokens: &mut BTreeSet<String>) {
    for name in FILES {
        if let Ok(text) = std::fs::read(host.path(&format!("out/{name}"))) {
            let token = tokenferry::token::extract(&text).unwrap_or_else(|| panic!("{name} holds no token"));
            tokens.insert(token.expose().to_owned());
        }
    }
}

/// Every file of the host but those that are meant to hold a secret.
fn written(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            assert!(
                !std::fs::read_dir(&path).unwrap().flatten().any(|e| e.file_name().to_string_lossy().ends_with(".tmp")),
                "G8: a temporary file"
            );
            if name != "out" && name != "embedded" {
                written(&path, text);
            }
        } else if !matches!(name.as_str(), "own-token" | "refused-token" | "secret-id" | "bad-token") && path.is_file() {
            assert!(!name.starts_with("core"), "G8: a core file");
            *text += &String::from_utf8_lossy(&std::fs::read(path).unwrap());
        }
    }
}

/// What every command says; `get` without `--path` alone is meant to print a token.
fn said(scene: &Scene) -> Vec<(String, String)> {
    let host = &scene.host;
    let raw = host.path("out/raw").display().to_string();
    let commands: [&[&str]; 17] = [
        &["status"],
        &["status", "-o", "json"],
        &["records"],
        &["records", "-o", "json"],
        &["records", "verify"],
        &["records", "head"],
        &["inspect", &raw],
        &["inspect", &raw, "-o", "json"],
        &["verify", &raw],
        &["verify", &raw, "-o", "json"],
        &["get", "--path", "raw"],
        &["rotate", "--all", "--timeout", "60s"],
        &["rotate", "--all", "--timeout", "60s", "-o", "json"],
        &["check"],
        &["reload"],
        &["once", "--dry-run"],
        &["status", "broken"],
    ];
    let mut texts: Vec<(String, String)> = Vec::new();
    for arguments in commands {
        let done = host.run(&[&["-vv"], arguments].concat());
        texts.push((arguments.join(" "), done.stdout + &done.stderr));
    }
    texts.push(("metrics".into(), tool(Command::new("curl").args(["-sS", &format!("http://127.0.0.1:{}/metrics", scene.port)]))));
    texts.push(("status by HTTP".into(), tool(Command::new("curl").args(["-sS", &format!("http://127.0.0.1:{}/status", scene.port)]))));
    texts
}

#[test]
fn t12_g8_no_token_is_found_anywhere_that_it_was_not_delivered_to() {
    if !rustix::process::geteuid().is_root() {
        return not_run("needs root, to read the daemon's memory");
    }
    let begun = Instant::now();
    let mut scene = scene();
    let pid = scene.daemon.id();
    let mut tokens = BTreeSet::new();
    let states = |scene: &Scene| -> BTreeMap<String, String> {
        let done = scene.host.run(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or(json!({"targets": []}));
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        status["targets"].as_array().unwrap().iter().map(|t| (text(&t["name"]), text(&t["state"]))).collect()
    };
    until("all that can be served is served", 120, || {
        let ended = scene.daemon.try_wait().unwrap();
        assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", scene.host.log());
        let now = states(&scene);
        ["raw", "json", "credential", "env", "vault", "aws", "local"].iter().all(|t| now.get(*t).is_some_and(|s| s == "fresh"))
            && FILES.iter().all(|f| scene.host.path(&format!("out/{f}")).exists())
            && !scene.host.records_of("failed", "broken").is_empty()
    });
    gather(&scene.host, &mut tokens);
    let mut shown = said(&scene);
    gather(&scene.host, &mut tokens);
    let mut environment = processes(pid);
    let rounds = if std::env::var_os("TOKENFERRY_LONG").is_some_and(|v| v == "1") { 60 } else { 1 };
    for _ in 0..rounds {
        scene.host.run(&["rotate", "--all", "--timeout", "60s"]);
        gather(&scene.host, &mut tokens);
        environment += &processes(pid);
    }
    // While places are owed the daemon has to hold their tokens: the search finds them, so it can find.
    let held = Needles::of(&tokens).in_memory(pid);
    println!("while places are owed, {} tokens: {held:?}", tokens.len());
    assert!(held.get("signature").is_some_and(|n| *n > 0), "the search finds nothing, so this test proves nothing");
    let most = tokens.len() * MOST_COPIES * 8;
    assert!(held.values().sum::<usize>() <= most, "more than {most} in memory: {held:?}");

    // The dead come back, everything is paid; idle connections are closed.
    scene.dead.set(Fault::None);
    scene.dead_aws.set(Fault::None);
    until("nothing is owed", 120, || {
        let now = states(&scene);
        ["fallback", "owed"].iter().all(|t| now.get(*t).is_some_and(|s| s == "fresh"))
    });
    // What could never be delivered goes out of the schedule: its token is held for as long as it is owed.
    let schedule = std::fs::read_to_string(scene.host.schedule()).unwrap();
    let kept: Vec<&str> = schedule.lines().filter(|l| !l.contains("name: refused") && !l.contains("name: broken")).collect();
    std::fs::write(scene.host.schedule(), kept.join("\n")).unwrap();
    assert_eq!(scene.host.run(&["reload"]).code, Some(0));
    gather(&scene.host, &mut tokens);
    let needles = Needles::of(&tokens);
    let (paid, mut left) = (Instant::now(), BTreeMap::new());
    // An API server closes an idle connection after 90 s, counted from its last use, which may be a later look.
    while paid.elapsed() < Duration::from_secs(240) {
        left = needles.in_memory(pid);
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    let forgotten = paid.elapsed();
    println!("memory is clean {forgotten:?} after the last payment");
    assert!(left.is_empty(), "G8: in memory {forgotten:?} after the last payment: {left:?}\n{}", needles.around(pid));

    // Everything that anybody can see.
    shown.extend(said(&scene).into_iter().filter(|(name, _)| !name.starts_with("rotate")));
    environment += &processes(pid);
    scene.secrets.extend([&scene.vault, &scene.dead, &scene.aws].iter().flat_map(|p| p.credentials()));
    assert!(scene.secrets.len() > 6, "the client token of the AppRole login was not seen");
    gather(&scene.host, &mut tokens);
    let needles = Needles::of(&tokens).also(&scene.secrets);
    // The one place where the AWS key is meant to be, as we put it there.
    shown.push(("arguments and environment".into(), environment.replace("AWS_SECRET_ACCESS_KEY=canarySecretAccessKeyValue", "")));
    shown.push(("log".into(), scene.host.log()));
    assert!(scene.host.log().contains("rotation failed"), "nothing failed: this test would test little");
    // A crash leaves nothing behind.
    tool(Command::new("kill").args(["-ABRT", &pid.to_string()]));
    let end = scene.daemon.wait().unwrap();
    assert!(end.signal() == Some(6) && !end.core_dumped(), "G8: {end:?}");
    let mut files = String::new();
    written(scene.host.folder.path(), &mut files);
    shown.push(("files".into(), files));
    for (name, text) in &shown {
        assert!(!text.contains("eyJ"), "G8: token-shaped text in {name}");
        let found = needles.in_text(text);
        assert!(found.is_empty(), "G8: in {name}: {found:?}");
    }
    println!(
        "figures: T12: {} s, {} tokens, {} texts of {} kB, {held:?} in memory while owed, none {:.0} s after the last payment, 0 hits",
        begun.elapsed().as_secs(),
        tokens.len(),
        shown.len(),
        shown.iter().map(|(_, t)| t.len()).sum::<usize>() >> 10,
        forgotten.as_secs_f64(),
    );
}

#[test]
fn t12_g8_nobody_of_the_same_user_reads_the_daemons_memory() {
    const SOMEBODY: u32 = 4242;
    if !rustix::process::geteuid().is_root() {
        return not_run("needs root, to become somebody else");
    }
    let host = Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}]\n",
    );
    tool(Command::new("chown").args(["-R", &SOMEBODY.to_string()]).arg(host.folder.path()));
    let as_somebody = |mut command: Command| {
        command.uid(SOMEBODY).gid(SOMEBODY).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut daemon = as_somebody(host.command(&["run"])).spawn().unwrap();
    until("it is delivered", 60, || host.path("out/one").exists());
    for name in ["mem", "environ", "maps"] {
        let mut read = Command::new("head");
        read.args(["-c", "1", &format!("/proc/{}/{name}", daemon.id())]);
        // `mem` gives nothing at address 0, so its opening has to be what fails.
        let output = read.uid(SOMEBODY).gid(SOMEBODY).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Permission denied") && output.stdout.is_empty(), "G8: its own user reads /proc/PID/{name}: {said}");
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
