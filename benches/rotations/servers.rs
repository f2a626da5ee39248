//! The real servers of tests/servers: an API server with an account for each target, OpenBao, moto.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::guard::Folder;
use super::process::{self, Cpu};

/// Where the accounts are.
pub const NAMESPACE: &str = "bench";

/// Servers, ended with this process.
pub struct Servers {
    folder: PathBuf,
    environment: Value,
    /// How many accounts there are, `account-0` and on.
    pub accounts: usize,
    own: Folder,
}

impl Servers {
    /// Starts those of that list.
    pub fn start(only: &str, p256: bool) -> Self {
        script(&["install"]);
        let own = Folder::in_memory();
        let folder = own.path().join("servers");
        let (owner, at) = (std::process::id().to_string(), folder.display().to_string());
        let options = ["start", &at, "--only", only, "--owner", &owner, "--rsa"];
        script(&options[..options.len() - usize::from(p256)]);
        let text = std::fs::read_to_string(folder.join("env.json")).expect("the servers leave env.json");
        let environment = serde_json::from_str(&text).expect("env.json is JSON");
        Self { folder, environment, accounts: 0, own }
    }

    /// What env.json says there.
    pub fn text(&self, pointer: &str) -> &str {
        self.environment.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("env.json has no {pointer}"))
    }

    /// The process of a server: `kube`, `etcd`, `controllerManager`, `bao`, `moto`.
    pub fn pid(&self, server: &str) -> u32 {
        let pid = self.environment.pointer(&format!("/{server}/pid")).and_then(Value::as_u64);
        u32::try_from(pid.unwrap_or_else(|| panic!("env.json has no pid of {server}"))).expect("a process id")
    }

    /// The log that a server keeps of its answers.
    pub fn answers(&self, server: &str) -> String {
        std::fs::read_to_string(self.text(&format!("/{server}/auditLog"))).unwrap_or_default()
    }

    /// CPU time that the API server and etcd took so far.
    pub fn cpu(&self) -> Cpu {
        Cpu { api: process::cpu(self.pid("kube")), etcd: process::cpu(self.pid("etcd")) }
    }

    /// The real kubectl, for the administrator.
    pub fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(self.text("/kube/kubectl"));
        // HOME: it keeps its discovery cache there.
        kubectl.env("HOME", self.own.path()).args(["--kubeconfig", self.text("/kube/adminKubeconfig")]);
        kubectl
    }

    /// Creates accounts for targets, and `minter`, which may create tokens and nothing else.
    pub fn create_accounts(&mut self, accounts: usize) {
        let names = (0..accounts).map(|i| format!("account-{i}")).chain(["minter".to_owned()]);
        let account = |name| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}});
        let mut items = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
        items.extend(names.map(account));
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tokenferry-minter"});
        let subject = json!({"kind": "ServiceAccount", "name": "minter", "namespace": NAMESPACE});
        items
            .push(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench-minter"},
            "roleRef": role, "subjects": [subject]}));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let mut kubectl = self.kubectl();
        let mut child =
            kubectl.args(["apply", "--server-side", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("kubectl runs");
        child.stdin.take().expect("piped").write_all(list.to_string().as_bytes()).expect("kubectl reads the list");
        assert!(child.wait().expect("kubectl ends").success(), "kubectl apply failed");
        self.accounts = accounts;
        self.write_minter();
    }

    /// A token of `minter` and a kubeconfig that uses it: wrk has no client certificates, and both sides log in alike.
    fn write_minter(&self) {
        let made = self.kubectl().args(["create", "token", "minter", "-n", NAMESPACE, "--duration", "24h"]).output().expect("kubectl runs");
        assert!(made.status.success(), "kubectl create token: {}", String::from_utf8_lossy(&made.stderr));
        let file = self.minter_token();
        private(&file, String::from_utf8_lossy(&made.stdout).trim());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": self.text("/kube/server"), "certificate-authority": self.text("/kube/ca")}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "minter"}}],
            "users": [{"name": "minter", "user": {"tokenFile": file}}],
        });
        private(&self.minter_kubeconfig(), &config.to_string());
    }

    /// File with a token of the account `minter`.
    pub fn minter_token(&self) -> PathBuf {
        self.own.path().join("minter-token")
    }

    /// The account that may create tokens and nothing else.
    pub fn minter_kubeconfig(&self) -> PathBuf {
        self.own.path().join("minter.kubeconfig")
    }

    /// A folder beside the servers' own that goes with them.
    pub fn folder(&self) -> &Path {
        self.own.path()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Not through `script`: a panic within a panic would end nothing at all.
        let stopped = servers().args(["stop", &self.folder.display().to_string()]).status();
        if !stopped.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("the servers did not stop ({stopped:?}); their guardian ends them with this process");
        }
    }
}

/// Writes a file that only this user may read.
pub fn private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes())).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn servers() -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/servers"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn script(arguments: &[&str]) {
    let run = servers().args(arguments).status().unwrap_or_else(|e| panic!("cannot run tests/servers/servers: {e}"));
    assert!(run.success(), "tests/servers/servers {}: {run}", arguments.join(" "));
}
