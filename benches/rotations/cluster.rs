//! The real API server of tests/servers with an account for each target, and the loop that we are measured against.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{self, Cpu};

/// Where the accounts are.
pub const NAMESPACE: &str = "bench";

/// The loop that rotate-external-token.sh and its like are: a process, a handshake and a request for each token.
/// Neither side proves the tokens.
const LOOP: &str = "i=0; while [ $i -lt \"$COUNT\" ]; do \
    \"$KUBECTL\" --kubeconfig \"$KUBECONFIG\" create token \"account-$((i % ACCOUNTS))\" -n \"$NAMESPACE\" --duration 1h > \"$OUT/$((i % ACCOUNTS))\" || exit 1; \
    i=$((i + 1)); done";

/// An API server and etcd, ended with this process.
pub struct Cluster {
    folder: PathBuf,
    environment: Value,
    accounts: usize,
}

impl Cluster {
    /// Starts it and creates the accounts `account-0` and on.
    pub fn start(accounts: usize, p256: bool) -> Self {
        let folder = std::env::temp_dir().join(format!("tokenferry-bench-{}", std::process::id()));
        let owner = std::process::id().to_string();
        let options = ["--only", "etcd,kube", "--owner", &owner, "--rsa"];
        script("start", &folder, &options[..options.len() - usize::from(p256)]);
        let text = std::fs::read_to_string(folder.join("env.json")).expect("the servers leave env.json");
        let environment = serde_json::from_str(&text).expect("env.json is JSON");
        let cluster = Self { folder, environment, accounts };
        cluster.create_accounts();
        cluster
    }

    fn text(&self, pointer: &str) -> &str {
        self.environment.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("env.json has no {pointer}"))
    }

    /// The user that may create tokens and nothing else.
    pub fn kubeconfig(&self) -> &str {
        self.text("/kube/minterKubeconfig")
    }

    /// CPU time that the servers took so far.
    pub fn cpu(&self) -> Cpu {
        let of = |pointer| {
            let pid = self.environment.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("env.json has no {pointer}"));
            process::cpu(u32::try_from(pid).expect("a process id"))
        };
        Cpu { api: of("/kube/pid"), etcd: of("/etcd/pid") }
    }

    fn create_accounts(&self) {
        let account =
            |i| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": format!("account-{i}"), "namespace": NAMESPACE}});
        let mut items = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
        items.extend((0..self.accounts).map(account));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let mut kubectl = Command::new(self.text("/kube/kubectl"));
        kubectl.args(["--kubeconfig", self.text("/kube/adminKubeconfig"), "apply", "--server-side", "-f", "-"]);
        let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("kubectl runs");
        child.stdin.take().expect("piped").write_all(list.to_string().as_bytes()).expect("kubectl reads the list");
        assert!(child.wait().expect("kubectl ends").success(), "kubectl apply failed");
    }

    /// Rotates that many times with kubectl, files on the same file system as ours. Gives the time it took.
    pub fn kubectl_loop(&self, count: usize) -> Duration {
        let out = tempfile::Builder::new().prefix("tokenferry-bench-").tempdir_in(memory()).expect("a folder in memory");
        let mut shell = Command::new("sh");
        shell.args(["-c", LOOP]).env("COUNT", count.to_string()).env("ACCOUNTS", self.accounts.to_string());
        shell.env("KUBECTL", self.text("/kube/kubectl")).env("KUBECONFIG", self.kubeconfig());
        shell.env("NAMESPACE", NAMESPACE).env("OUT", out.path());
        let begun = Instant::now();
        assert!(shell.status().expect("sh runs").success(), "the kubectl loop failed");
        begun.elapsed()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        script("stop", &self.folder, &[]);
    }
}

/// A tmpfs, as /run is on hosts with systemd.
pub fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

fn script(verb: &str, folder: &Path, rest: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/servers");
    let run = Command::new(&script).arg(verb).arg(folder).args(rest).stdout(Stdio::null()).status();
    let run = run.unwrap_or_else(|e| panic!("cannot run {}: {e}", script.display()));
    assert!(run.success(), "{} {verb}: {run}", script.display());
}
