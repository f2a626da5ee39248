//! Writes to OpenBao and to AWS Secrets Manager (moto), beside what wrk reaches on the same server with as many
//! connections: once with the requests that one of our writes is made of, as the server's own log counts them, and once
//! with bare writes that ask nothing before and say nothing beside.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::bao::Bao;
use super::daemon::Host;
use super::guard::Folder;
use super::options::Options;
use super::report::{Report, Row};
use super::schedule::{Deliver, Wanted};
use super::servers::Servers;
use super::wrk::{self, Load, Ran};

/// Writes in flight, and connections of wrk.
const ABREAST: usize = 16;
/// Letters where a token would be.
const SIZE: usize = 600;

/// Both stores.
pub fn run(report: &mut Report, options: &Options) {
    wrk::install();
    report.part(&format!("writes to stores, {ABREAST} in flight, beside wrk"));
    let servers = Servers::start("bao,moto", false);
    vault(report, options, &servers);
    aws(report, options, &servers);
}

/// A store that is measured.
struct Store<'a> {
    name: &'a str,
    server: &'a str,
    targets: usize,
    host: Host,
    /// What the server answered so far.
    counts: &'a dyn Fn() -> Counts,
    /// Lua that knows how to make each request.
    lua: String,
    /// The request that writes.
    write: &'static str,
}

/// How often each kind of request was answered.
type Counts = BTreeMap<String, usize>;

fn vault(report: &mut Report, options: &Options, servers: &Servers) {
    let bao = Bao::new(servers);
    let (address, ca, token) = (servers.text("/bao/address"), servers.text("/bao/ca"), servers.text("/bao/rootTokenFile"));
    let targets = 500.min(options.targets / 4);
    let spec = format!("vault: {{address: {address:?}, caFile: {ca}, auth: {{token: {{file: {token}}}}}}}");
    let mut lua = format!("local headers = {{[\"X-Vault-Token\"] = \"{}\", [\"Content-Type\"] = \"application/json\"}}\n", bao.token());
    let _ = write!(
        lua,
        r#"
local name = function(kind, round) return "/v1/secret/" .. kind .. "/wrk/t" .. round % {targets} end
local value, marks = string.rep("x", {SIZE}), '{{"custom_metadata":{{"managed-by":"wrk","target":"t0","cluster":"bench","expires":"2030-01-01T00:00:00Z"}}}}'
local known = {{
  ["read data"] = function(round) return "GET", name("data", round), headers, nil end,
  ["write data"] = function(round) return "POST", name("data", round), headers, '{{"data":{{"token":"' .. round .. value .. '"}}}}' end,
  ["read metadata"] = function(round) return "GET", name("metadata", round), headers, nil end,
  ["write metadata"] = function(round) return "POST", name("metadata", round), headers, marks end,
}}
"#
    );
    for i in 0..targets {
        bao.write(&format!("secret/data/wrk/t{i}"), &serde_json::json!({"data": {"token": "none"}}));
    }
    let counts = || {
        let mut counts = Counts::new();
        for entry in servers.answers("bao").lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()).filter(|e| e["type"] == "request")
        {
            let path = entry["request"]["path"].as_str().unwrap_or_default();
            let verb = if entry["request"]["operation"] == "read" { "read" } else { "write" };
            if let Some(kind) = path.strip_prefix("secret/").and_then(|p| p.split_once("/bench/")).map(|(kind, _)| kind) {
                *counts.entry(format!("{verb} {kind}")).or_default() += 1;
            }
        }
        counts
    };
    let host = host(spec, Deliver::Vault, targets);
    let store = Store { name: "OpenBao, KV version 2", server: address, targets, host, counts: &counts, lua, write: "write data" };
    compare(report, options, store);
}

fn aws(report: &mut Report, options: &Options, servers: &Servers) {
    let address = servers.text("/moto/endpoint");
    let targets = 100.min(options.targets / 10);
    let spec = format!("awsSecretsManager: {{region: eu-central-1, endpoint: {address:?}}}");
    let host = host(spec, Deliver::Aws, targets).variable("AWS_ACCESS_KEY_ID", "bench").variable("AWS_SECRET_ACCESS_KEY", "bench");
    let host = host.variable("AWS_EC2_METADATA_DISABLED", "true");
    // The same secrets as ours, which are there by then: creating is not what is measured.
    let lua = format!(
        r#"
local call = function(action, body)
  return "POST", "/", {{
    ["X-Amz-Target"] = "secretsmanager." .. action, ["Content-Type"] = "application/x-amz-json-1.1",
    ["Authorization"] = "AWS4-HMAC-SHA256 Credential=bench/20300101/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0",
  }}, body
end
local value = string.rep("x", {SIZE})
local id = function(round) return '{{"SecretId":"bench/t' .. round % {targets} .. '"' end
local known = {{
  ["GetSecretValue"] = function(round) return call("GetSecretValue", id(round) .. "}}") end,
  ["DescribeSecret"] = function(round) return call("DescribeSecret", id(round) .. "}}") end,
  ["PutSecretValue"] = function(round) return call("PutSecretValue", id(round) .. ',"SecretString":"' .. round .. value .. '"}}') end,
  ["TagResource"] = function(round) return call("TagResource", id(round) .. ',"Tags":[{{"Key":"wrk","Value":"t0"}}]}}') end,
}}
"#
    );
    let recording = servers.text("/dir").to_owned() + "/moto/recording";
    let counts = || {
        let mut counts = Counts::new();
        for line in std::fs::read_to_string(&recording).unwrap_or_default().lines() {
            let entry: Value = serde_json::from_str(line).unwrap_or_default();
            let headers = entry["headers"].as_object().into_iter().flatten();
            let target = headers.filter(|(key, _)| key.eq_ignore_ascii_case("x-amz-target")).find_map(|(_, value)| value.as_str());
            if let Some(action) = target.and_then(|t| t.strip_prefix("secretsmanager.")) {
                *counts.entry(action.to_owned()).or_default() += 1;
            }
        }
        counts
    };
    let store = Store { name: "AWS Secrets Manager (moto)", server: address, targets, host, counts: &counts, lua, write: "PutSecretValue" };
    compare(report, options, store);
}

fn host(spec: String, deliver: Deliver, targets: usize) -> Host {
    let store = Some(format!("{spec}, limits: {{inFlight: {ABREAST}}}"));
    Host::new(|folder| Wanted { store, deliver, ..Wanted::embedded(folder, targets) })
}

/// What one write is made of: how often each request comes for one of that kind.
fn mix(asked: &Counts, write: &str) -> Vec<String> {
    let writes = asked.get(write).copied().unwrap_or(0).max(1);
    let times = |count: &usize| (count + writes / 2) / writes;
    asked.iter().flat_map(|(kind, count)| std::iter::repeat_n(kind.clone(), times(count))).collect()
}

fn compare(report: &mut Report, options: &Options, store: Store<'_>) {
    let Store { name, server, targets, mut host, counts, lua, write } = store;
    let folder = Folder::in_memory();
    let daemon = host.start(None);
    host.delivered(targets);
    let before = counts();
    host.rotate_all(targets);
    let mut asked = counts();
    for (kind, count) in &mut asked {
        *count -= before.get(kind).copied().unwrap_or(0);
    }
    let mix = mix(&asked, write);
    assert!(!mix.is_empty(), "{name} counted none of our writes");
    let turn = |kinds: &[String]| {
        let steps: String = kinds.iter().map(|kind| format!("known[{kind:?}],")).collect();
        let script = format!("{lua}\nrequests = {{{steps}}}\n");
        wrk::run(&Load { server, connections: ABREAST, turn: options.turn, script: &script, core: None }, folder.path())
    };
    let (mut ours, mut same, mut bare) = (Ran::default(), Ran::default(), Ran::default());
    for _ in 0..options.rounds {
        same = same.and(turn(&mix));
        ours = ours.and(Ran { requests: targets, took: host.rotate_all(targets) });
        bare = bare.and(turn(&[write.to_owned()]));
    }
    daemon.stop();
    rows(report, name, &mix, ours, same, bare);
}

fn rows(report: &mut Report, name: &str, mix: &[String], ours: Ran, same: Ran, bare: Ran) {
    let theirs = same.per_second() / mix.len() as f64;
    let ratio = ours.per_second() / theirs;
    let row = Row::new(format!("{name}: writes of {} requests ({})", mix.len(), mix.join(", ")), format!("{:.0}/s", ours.per_second()));
    report.add(row.beside(format!("wrk, the same requests {theirs:.0}/s")).ratio(format!("{ratio:.2}")).reach("≥ 0.9", ratio >= 0.9));
    let ratio = ours.per_second() / bare.per_second();
    let row = Row::new("… beside bare writes", format!("{:.0}/s", ours.per_second()));
    report.add(row.beside(format!("wrk, bare writes {:.0}/s", bare.per_second())).ratio(format!("{ratio:.2}")));
}
