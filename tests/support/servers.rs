//! The real servers that tests run against, started by `tests/servers/servers` and ended with this process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;

/// Where the started servers stand, as the script's `env.json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Servers {
    /// The folder of this set of servers.
    #[serde(skip)]
    pub folder: PathBuf,
    /// A Python with what moto needs, PyYAML and jsonschema among it.
    pub python: PathBuf,
    /// The API server, where it was asked for.
    pub kube: Option<Kube>,
    /// OpenBao, where it was asked for.
    pub bao: Option<Bao>,
    /// moto, where it was asked for.
    pub moto: Option<Moto>,
}

/// OpenBao over TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bao {
    /// `https://127.0.0.1:PORT`.
    pub address: String,
    /// The CA that signed its certificate.
    pub ca: PathBuf,
    /// File with the root token.
    pub root_token_file: PathBuf,
}

/// moto: AWS in memory.
#[derive(Debug, Clone, Deserialize)]
pub struct Moto {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
}

/// A real kube-apiserver with RBAC, etcd and controller manager.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kube {
    /// `https://127.0.0.1:PORT`.
    pub server: String,
    /// The CA that signed its certificate.
    pub ca: PathBuf,
    /// Its AuthenticationConfiguration, which it reads again when it changes.
    pub authentication_config: PathBuf,
    /// For the tests' own orders.
    pub admin_kubeconfig: PathBuf,
    /// A user that may create `serviceaccounts/token` and nothing else.
    pub minter_kubeconfig: PathBuf,
    /// Another one.
    pub minter2_kubeconfig: PathBuf,
    /// The real kubectl.
    pub kubectl: PathBuf,
    /// A client of client-go that loads its settings as in a Pod.
    pub in_cluster: PathBuf,
}

impl Kube {
    /// A kubeconfig for this API server whose user is that: `{"tokenFile": …}`, `{"token": …}`, `{"exec": …}`.
    pub fn kubeconfig(&self, user: serde_json::Value) -> String {
        kubeconfig(&self.server, &self.ca, user)
    }
}

/// A kubeconfig for whatever answers at that URL with a certificate of that CA.
pub fn kubeconfig(server: &str, ca: &Path, user: serde_json::Value) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": ca}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user}],
    })
    .to_string()
}

/// An API server, OpenBao and moto, started once for all tests that stop none of them.
pub fn cluster() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| Servers::start("cluster", &["etcd", "kube"]))
}

/// OpenBao and moto, started once for all tests of this binary.
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| Servers::start("stores", &["bao", "moto"]))
}

/// A Python with PyYAML and jsonschema.
pub fn python() -> &'static Path {
    &servers().python
}

impl Servers {
    /// Starts a set of its own, for a test that stops servers. They end when this process does.
    pub fn start(name: &str, parts: &[&str]) -> Self {
        Self::start_with(name, parts, &[])
    }

    /// The same, with further options of the script.
    pub fn start_with(name: &str, parts: &[&str], options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("tokenferry-{name}-{}", std::process::id()));
        script("start", &folder, &[&["--only", &*parts.join(","), "--owner", &*std::process::id().to_string()], options].concat());
        Self::of(&folder)
    }

    /// Those that were started in that folder.
    pub fn of(folder: &Path) -> Self {
        let path = folder.join("env.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("the servers left no {}: {e}", path.display()));
        let servers: Self = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{} is not as expected: {e}\n{text}", path.display()));
        Self { folder: folder.to_owned(), ..servers }
    }

    /// The API server.
    pub fn kube(&self) -> &Kube {
        self.kube.as_ref().expect("kube was asked for")
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let kube = self.kube();
        super::daemon::tool(Command::new(&kube.kubectl).arg("--kubeconfig").arg(&kube.admin_kubeconfig).args(arguments))
    }

    /// kubectl with that token; whatever else it is configured with has no say.
    pub fn kubectl_with(&self, token: &str, arguments: &[&str]) -> String {
        let kube = self.kube();
        let mut kubectl = Command::new(&kube.kubectl);
        kubectl.env("KUBECONFIG", "/dev/null").arg("--server").arg(&kube.server).arg("--certificate-authority").arg(&kube.ca);
        super::daemon::tool(kubectl.arg("--token").arg(token.trim()).args(arguments))
    }

    /// OpenBao.
    pub fn bao(&self) -> &Bao {
        self.bao.as_ref().expect("bao was asked for")
    }

    /// moto.
    pub fn moto(&self) -> &Moto {
        self.moto.as_ref().expect("moto was asked for")
    }

    /// Ends one server as SIGKILL does.
    pub fn kill(&self, part: &str) {
        script("kill", &self.folder, &[part]);
    }

    /// Starts a killed server again, at the same address.
    pub fn restart(&self, part: &str) {
        script("restart", &self.folder, &[part]);
    }
}

/// Where a program of the tests' own stands: promtool, dashboard, kubectl or bao.
pub fn program(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/servers");
    super::daemon::tool(Command::new(&script).args(["path", name])).trim().into()
}

/// Runs the script of the servers; it has to succeed.
pub fn script(verb: &str, folder: &Path, rest: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/servers");
    let run = Command::new(&script).arg(verb).arg(folder).args(rest).output();
    let run = run.unwrap_or_else(|e| panic!("cannot run {}: {e}", script.display()));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{} {verb} {}: {}\n{said}", script.display(), rest.join(" "), run.status);
}
