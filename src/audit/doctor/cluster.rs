//! A cluster: whether it answers, is new enough, issues tokens, and lets our account do what the schedule asks.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{Finding, Findings, WITHIN};
use crate::audit::rbac::Needs;
use crate::cluster::access::Access;
use crate::cluster::call::{Call, Trouble};
use crate::cluster::client::Ends;
use crate::cluster::{Cluster, Urgency, Verdict as Health};
use crate::daemon::scene::Scene;
use crate::record::State;
use crate::schedule::measure::Seconds;

/// The clock may be off by so many seconds: what API servers forgive is a minute.
const SKEW: f64 = 10.0;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
const FORTNIGHT: i64 = 2 * WEEK;
/// TokenRequest with what we ask for is stable since 1.22; releases older than this get no repairs any more.
const OLDEST: u64 = 24;

pub(super) async fn examine(scene: &Scene, cluster: &Arc<Cluster>, state: &State) -> Vec<Finding> {
    let mut found = Findings::about(format!("cluster {}", cluster.name()));
    if cluster.is_embedded() {
        found.warn("embedded", "it signs with a key on this host", "for trials only: name a real cluster by its kubeconfig");
        return found.list;
    }
    let version = match get(cluster, "/version").await {
        Ok(version) => version,
        Err((trouble, why)) => {
            let remedy = match trouble {
                Trouble::Unauthorized => "our own credential is refused: renew what the kubeconfig names, or tokenferry bootstrap",
                _ => "mend the kubeconfig, the network or the API server; nothing else can be looked at before",
            };
            found.bad("reachable", why, remedy);
            return found.list;
        }
    };
    found.good("reachable", format!("it answers; Kubernetes {}", version["gitVersion"].as_str().unwrap_or("of an unknown version")));
    let minor: String = version["minor"].as_str().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    match minor.parse::<u64>() {
        Ok(minor) if minor < OLDEST => found.warn("version", format!("1.{minor} is out of support"), "upgrade the cluster"),
        Ok(minor) => found.good("version", format!("1.{minor}")),
        Err(_) => found.unknown("version", "the API server does not say its version", "ask its operator"),
    }
    skew(cluster, &mut found);
    certificate(cluster, &mut found).await;
    issuer(cluster, &mut found).await;
    token_request(cluster, &mut found).await;
    own(cluster, &mut found).await;
    rights(scene, cluster, &mut found).await;
    lifetimes(scene, cluster, state, &mut found);
    flags(cluster, &mut found).await;
    found.list
}

async fn get(cluster: &Cluster, path: &str) -> Result<Value, (Trouble, String)> {
    let permit = cluster.turn(Urgency { deadline: i64::MAX, retry: false }).await;
    let answer = cluster.call(Call::get(path, WITHIN)).await;
    permit.end(answer.as_ref().map_or_else(|refusal| refusal.verdict(), |_| Health::Healthy));
    let body = answer.map_err(|refusal| (refusal.trouble, refusal.message))?;
    serde_json::from_slice(&body).map_err(|_| (Trouble::BadAnswer, format!("{path}: the answer is not JSON: is this an API server?")))
}

fn skew(cluster: &Cluster, found: &mut Findings) {
    match cluster.upstream().skew() {
        Some(skew) if skew.abs() > SKEW => found.bad(
            "skew",
            format!("this host's clock is {:.0} s {} the API server's", skew.abs(), if skew > 0.0 { "behind" } else { "ahead of" }),
            "set this host's clock right (systemd-timesyncd, chrony): its consumers judge tokens by it",
        ),
        Some(skew) => found.good("skew", format!("{skew:+.1} s")),
        None => found.unknown("skew", "its answers carry no Date", "compare the clocks by hand"),
    }
}

async fn issuer(cluster: &Cluster, found: &mut Findings) {
    match get(cluster, "/.well-known/openid-configuration").await {
        Ok(document) => {
            let issuer = document["issuer"].as_str().unwrap_or_default();
            if issuer.starts_with("https://") {
                found.good("issuer", format!("{issuer}; keys at {}", document["jwks_uri"].as_str().unwrap_or("an unknown place")));
            } else {
                found.warn("issuer", format!("`{issuer}` is no https URL"), "set --service-account-issuer: others verify tokens by it");
            }
        }
        Err((Trouble::Forbidden, _)) => found.note(
            "issuer",
            super::Verdict::Warn,
            "our account may not read the issuer and its keys, so tokens for other audiences are proven by their claims alone",
            Some("bind the ClusterRole system:service-account-issuer-discovery: tokenferry rbac prints the binding"),
        ),
        Err((_, why)) => found.unknown("issuer", why, "kubectl get --raw /.well-known/openid-configuration"),
    }
}

async fn token_request(cluster: &Cluster, found: &mut Findings) {
    match get(cluster, "/api/v1").await {
        Ok(list) => {
            let offered = list["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "serviceaccounts/token"));
            if offered {
                found.good("tokenRequest", "serviceaccounts/token is served");
            } else {
                found.bad(
                    "tokenRequest",
                    "serviceaccounts/token is not served",
                    "TokenRequest needs --service-account-signing-key-file and --service-account-issuer",
                );
            }
        }
        Err((_, why)) => found.unknown("tokenRequest", why, "kubectl get --raw /api/v1"),
    }
}

async fn own(cluster: &Cluster, found: &mut Findings) {
    match cluster.own_name().await {
        Ok(name) => found.good("credential", format!("we are {name}")),
        Err(why) => found.unknown("credential", why, "kubectl auth whoami with the same kubeconfig"),
    }
    match cluster.own_expiry().await {
        Some(ends) => {
            // A token is renewed every few hours; a certificate by a person, who wants some days for it.
            let (what, at, soon) = match ends {
                Ends::Token(at) => ("token", at, HOUR),
                Ends::Certificate(at) => ("certificate", at, WEEK),
            };
            let left = at - Timestamp::now().as_second();
            let text = format!("our own {what} ends {}", time(at));
            if left <= 0 {
                found.bad("credentialLife", text, "renew it: tokenferry bootstrap, or whatever made the kubeconfig");
            } else if left < soon {
                found.warn(
                    "credentialLife",
                    text,
                    "`own` in the schedule keeps a token fresh; a certificate is renewed by whoever issued it",
                );
            } else {
                // Nobody counts the seconds of a year.
                let unit = if left > 2 * DAY { DAY } else { 60 };
                found.good("credentialLife", format!("{text}, in {}", Seconds((left / unit * unit).unsigned_abs())));
            }
        }
        None => found.good("credentialLife", "our own credential does not say when it ends"),
    }
}

/// The certificate that the API server shows.
async fn certificate(cluster: &Cluster, found: &mut Findings) {
    match cluster.served_until().await {
        Ok(at) => {
            let text = format!("its certificate is good until {}", time(at));
            if at - Timestamp::now().as_second() < FORTNIGHT {
                found.warn(
                    "certificate",
                    text,
                    "renew the API server's certificate (kubeadm certs renew apiserver): nobody reaches it with an old one",
                );
            } else {
                found.good("certificate", text);
            }
        }
        Err(why) => found.unknown(
            "certificate",
            format!("until when its certificate is good cannot be told: {why}"),
            "openssl s_client -connect HOST:PORT",
        ),
    }
}

fn time(at: i64) -> String {
    Timestamp::from_second(at).map(|time| time.to_string()).unwrap_or_default()
}

async fn rights(scene: &Scene, cluster: &Cluster, found: &mut Findings) {
    let mut missing = 0;
    let needs = Needs::of(&scene.plan, cluster.name());
    for right in needs.rights() {
        match cluster.has(&right).await {
            Access::Allowed => {}
            Access::Denied { why } => {
                missing += 1;
                found.bad("rights", why, "tokenferry rbac | kubectl apply -f -");
            }
            Access::Unknown { why } => {
                missing += 1;
                found.unknown("rights", why, "kubectl auth can-i --list with the same kubeconfig");
            }
        }
    }
    if missing == 0 {
        found.good("rights", format!("our account has the {} that the schedule needs", needs.rights().len()));
    }
}

/// What the records tell of a cap: nobody says it, and only a mint shows it.
fn lifetimes(scene: &Scene, cluster: &Cluster, state: &State, found: &mut Findings) {
    let mut least: Option<(u64, u64, &str)> = None;
    for target in scene.plan.targets.iter().filter(|target| *target.cluster == *cluster.name()) {
        let Some(known) = state.target(&target.name) else { continue };
        if let (Some(requested), Some(granted)) = (known.requested, known.granted)
            && granted < requested
            && least.is_none_or(|(_, before, _)| granted < before)
        {
            least = Some((requested, granted, &target.name));
        }
    }
    match least {
        Some((requested, granted, name)) => found.warn(
            "lifetimeCap",
            format!("{name} asked for {} and was given {}", Seconds(requested), Seconds(granted)),
            "the API server caps lives (--service-account-max-token-expiration): write a `duration` that it grants",
        ),
        None => found.good("lifetimeCap", "no recorded token was given less life than it asked for"),
    }
}

/// Flags of API servers that run as pods, as kubeadm and its like run them.
async fn flags(cluster: &Cluster, found: &mut Findings) {
    const ABOUT: [&str; 4] = [
        "--service-account-issuer=",
        "--service-account-max-token-expiration=",
        "--service-account-extend-token-expiration=",
        "--api-audiences=",
    ];
    match get(cluster, "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Dkube-apiserver&limit=5").await {
        Ok(pods) => {
            let words = |pod: &Value| {
                let of = |key: &str| pod["spec"]["containers"][0][key].as_array().cloned().unwrap_or_default();
                of("command").into_iter().chain(of("args")).filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>()
            };
            let all: Vec<String> = pods["items"].as_array().into_iter().flatten().flat_map(words).collect();
            let mut shown: Vec<String> = all.into_iter().filter(|word| ABOUT.iter().any(|flag| word.starts_with(flag))).collect();
            shown.sort();
            shown.dedup();
            if shown.is_empty() {
                found.good("flags", "no API server runs as a pod of this cluster, so its flags are not to be seen from here");
            } else {
                found.good("flags", shown.join(" "));
            }
        }
        Err((_, why)) => found.note("flags", super::Verdict::Good, format!("the API server's flags are not for us to see ({why})"), None),
    }
}
