//! Keys that people know from elsewhere, or from this format's own drafts: what is written here instead. A new word is
//! one row.

/// What to write instead of a key that this format does not have, in place of a guess at a slip of the pen; `structure`
/// is the type that reads the settings around it.
pub fn instead(structure: &str, key: &str) -> Option<&'static str> {
    // `expiration_seconds`, `expiration-seconds` and `expirationSeconds` are one word.
    let plain: String = key.chars().filter(|sign| !matches!(sign, '-' | '_')).flat_map(char::to_lowercase).collect();
    let rows = match structure {
        "ScheduleFile" => SCHEDULE,
        "RecordsFile" => RECORDS,
        "ClusterSpec" => CLUSTER,
        "TargetFile" => TARGET,
        "RotateFile" => ROTATE,
        "PlaceFile" => PLACE,
        "FileSpec" | "DirectoryFile" => FILE,
        "VaultSpec" => VAULT,
        "AwsSpec" => AWS,
        _ => return None,
    };
    rows.iter().find(|(words, _)| words.contains(&plain.as_str())).map(|(_, instead)| *instead)
}

type Rows = &'static [(&'static [&'static str], &'static str)];

const SCHEDULE: Rows = &[
    (&["apiversion", "kind", "metadata", "spec"], "this is no object of Kubernetes: begin the file with `version: 1`"),
    (&["tokens", "jobs", "secrets", "accounts"], "write `targets`: a list, `- name: …`"),
    (&["vaults", "backends", "sinks"], "write `stores`, each with a name: `vault: {vault: {address: …}}`"),
    (&["cluster", "kubeconfig"], "write `clusters`, each with a name: `prod: {kubeconfig: …}`"),
    (&["socket", "statussocket"], "write `control: {socket: …}`"),
    (&["history", "audit", "journal"], "write `records: {directory: …, keep: …}`"),
    (&["prometheus"], "write `metrics: {listen: 127.0.0.1:9467}`"),
    (&["includes", "imports"], "write `include`, a list of patterns"),
    (&["watch", "autoreload"], "write `reloadOnChange: true`"),
];

const RECORDS: Rows = &[
    (&["path", "dir", "folder"], "write `directory`"),
    (&["retention", "retain", "maxage"], "write `keep`, such as 400d"),
    (&["key", "signwith"], "write `signingKey: {file: …}`"),
];

const CLUSTER: Rows = &[
    (
        &["server", "servers", "url", "address"],
        "the API server stands in the kubeconfig; others that serve the same cluster go into `endpoints`",
    ),
    (&["proxy", "httpsproxy", "httpproxy"], "write `proxyUrl`"),
    (&["qps", "rate", "ratelimit"], "write `limits: {perSecond: …}`"),
    (&["concurrency", "maxinflight", "burst"], "write `limits: {inFlight: …}`"),
    (
        &["insecure", "insecureskiptlsverify", "skipverify"],
        "a server is always verified: name its CA in the kubeconfig (`certificate-authority`)",
    ),
    (&["token", "tokenfile"], "it stands in the kubeconfig, in the user's `tokenFile`"),
];

const TARGET: Rows = &[
    (&["ttl", "expirationseconds", "expiration", "lifetime", "tokenduration", "validity"], "write `duration`, such as 1h or 3600s"),
    (&["aud"], "write `audiences`, a list"),
    (&["namespace", "ns"], "it is a part of the account: write `serviceAccount: NAMESPACE/NAME`"),
    (&["serviceaccountname", "account", "sa"], "write `serviceAccount: NAMESPACE/NAME`"),
    (&["schedule", "cron", "crontab"], "write `rotate: {cron: \"0 2 * * *\"}`"),
    (&["timezone", "tz"], "write it into `rotate`: `rotate: {cron: …, timeZone: …}`"),
    (
        &["refreshinterval", "interval", "every", "rotationperiod"],
        "write `duration`, and `rotate: {at: 80%}` for when in its life it is rotated",
    ),
    (&["renewbefore", "refreshbefore", "rotatebefore"], "write `rotate: {at: 80%}`: the share of its life after which it is rotated"),
    (&["sinks", "sink", "outputs", "output", "destinations", "destination", "to", "write"], "write `deliver`, a list: `- file: {path: …}`"),
    (&["fallback", "fallbacks"], "it belongs to the place that it stands in for: `deliver: [{vault: {…}, fallback: [{file: {…}}]}]`"),
    (&["hooks", "hook", "postrotate", "onrotate", "notify", "exec"], "write `after`, a list: `- exec: {command: […]}`"),
    (&["boundobjectref", "bound"], "write `boundTo: {secret: …}`, `{pod: …}` or `{node: …}`"),
    (&["paused", "disabled", "enabled"], "write `suspend: true` to leave it alone"),
    (
        &["retries", "retry", "backoff", "maxretries"],
        "it is tried again for as long as the token in use lives, without a setting: leave it out",
    ),
    (&["token"], "no secret stands in a schedule: it is minted; leave it out"),
];

const ROTATE: Rows = &[
    (&["schedule", "crontab"], "write `cron`"),
    (&["tz"], "write `timeZone`"),
    (&["jitter", "random", "randomizeddelay", "spread"], "write `splay`"),
    (
        &["before", "renewbefore", "interval", "every", "percent"],
        "write `at`: the share of its life after which it is rotated, such as 80%",
    ),
    (&["maintenance", "maintenancewindow", "hours"], "write `window: {from: \"22:00\", to: \"06:00\"}`"),
];

const PLACE: Rows = &[
    (&["type", "kind"], "the sink's name is the key: `- file: {path: …}`"),
    (&["path", "mode", "owner", "group", "format"], "it belongs to the sink's own settings: `- file: {path: …, mode: …}`"),
    (&["openbao", "bao", "hashicorpvault"], "write `vault`: OpenBao is spoken to in the same way"),
    (&["aws", "secretsmanager", "awssecret"], "write `awsSecretsManager`"),
    (&["kubernetes", "secret", "k8ssecret"], "write `kubernetesSecret`"),
    (&["exec", "script", "pipe"], "write `command: {command: […]}`: it gets the token on its standard input"),
    (&["optional"], "write `required: false`"),
    (&["else", "otherwise", "backup"], "write `fallback`, a list of places"),
];

const FILE: Rows = &[
    (&["file", "filename", "dest", "destination"], "write `path`"),
    (&["permissions", "perms", "perm", "chmod"], "write `mode`, octal in quotes, such as \"0640\""),
    (&["user", "uid", "chown"], "write `owner`"),
    (&["gid"], "write `group`"),
    (&["acl", "acls", "readableby"], "write `readers`, such as [user:ci]"),
];

const VAULT: Rows = &[
    (&["engine", "mountpath", "enginepath"], "write `mount`"),
    (&["secretpath", "secret"], "write `path`, without the mount"),
    (&["field", "property"], "write `key`"),
    (&["address", "namespace", "auth", "token"], "it belongs to the store: `stores: {vault: {vault: {…}}}`"),
];

const AWS: Rows = &[
    (&["name", "secretname", "arn", "secretarn", "secret"], "write `secretId`"),
    (&["field", "property"], "write `key`"),
    (&["region", "profile", "endpoint", "rolearn"], "it belongs to the store: `stores: {aws: {awsSecretsManager: {…}}}`"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::schema;

    const ALL: [(&str, Rows); 9] = [
        ("Schedule", SCHEDULE),
        ("Records", RECORDS),
        ("Cluster", CLUSTER),
        ("Target", TARGET),
        ("Rotate", ROTATE),
        ("Place", PLACE),
        ("File", FILE),
        ("Vault", VAULT),
        ("AwsSecretsManager", AWS),
    ];

    #[test]
    fn a_word_is_one_however_it_is_written_and_means_something_else_elsewhere() {
        for key in ["expirationSeconds", "expiration_seconds", "expiration-seconds", "ExpirationSeconds"] {
            assert_eq!(instead("TargetFile", key), Some("write `duration`, such as 1h or 3600s"), "{key}");
        }
        assert_ne!(instead("TargetFile", "schedule"), instead("RotateFile", "schedule"));
        assert_eq!(instead("SpareSpec", "ttl"), None);
    }

    #[test]
    fn no_row_has_a_word_that_is_a_key_and_what_it_says_to_write_is_one() {
        let schema = schema::of_schedule();
        for (name, rows) in ALL {
            let settings = if name == "Schedule" { &schema } else { &schema["definitions"][name] };
            let keys: Vec<&str> = settings["properties"].as_object().expect(name).keys().map(String::as_str).collect();
            let mut words: Vec<&str> = rows.iter().flat_map(|(words, _)| words.iter().copied()).collect();
            assert!(!words.iter().any(|word| keys.iter().any(|key| key.to_lowercase() == *word)), "{name}");
            assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())), "{name}");
            let count = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), count, "{name}: a word stands twice");
            for said in rows.iter().filter_map(|(_, said)| said.strip_prefix("write `")) {
                let key = said.split(|sign: char| !sign.is_ascii_alphanumeric()).next().unwrap();
                assert!(keys.contains(&key), "{name}: {said}");
            }
        }
    }
}
