//! examples/in-cluster on a real API server: admitted under the restricted Pod security standard, with the rights that `rbac`
//! prints and no other. There is no kubelet, so the test plays it: it mounts what the Pod asks for and runs the container's
//! arguments as its user.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::shipped::root;
use crate::support::daemon::{Done, PROGRAM, finish, tool};
use crate::support::servers::Servers;
use crate::support::{can_mount, until};

fn example(name: &str) -> PathBuf {
    root().join("examples/in-cluster").join(name)
}

/// An API server on which the example was applied.
fn applied() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let servers = Servers::start("in-cluster", &["etcd", "kube"]);
        servers.kubectl(&["apply", "--server-side", "-k", example("").to_str().unwrap()]);
        servers
    })
}

fn get(what: &[&str]) -> Value {
    serde_json::from_str(&applied().kubectl(&[&["get", "-o", "json", "-n", "tokenferry"], what].concat())).unwrap()
}

/// kubectl as the administrator, whatever comes of it.
fn tried(arguments: &[&str], input: &Value) -> Done {
    let kube = applied().kube();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("object.json");
    std::fs::write(&file, input.to_string()).unwrap();
    let mut kubectl = Command::new(&kube.kubectl);
    kubectl.arg("--kubeconfig").arg(&kube.admin_kubeconfig).args(arguments).arg("-f").arg(&file);
    finish(kubectl, Duration::from_secs(60))
}

#[test]
fn its_pods_are_admitted_under_the_restricted_standard_and_laxer_ones_are_not() {
    // Made by the Deployment's own controllers.
    let pods = || get(&["pods", "-l", "app.kubernetes.io/name=tokenferry"])["items"].as_array().unwrap().clone();
    until("both replicas are admitted", 60, || pods().len() == 2);
    assert_eq!(get(&["pdb", "tokenferry"])["spec"]["minAvailable"], 1);
    let deployment = get(&["deployment", "tokenferry"]);
    let template = &deployment["spec"]["template"];
    let pod = |change: &dyn Fn(&mut Value)| {
        let mut spec = template["spec"].clone();
        change(&mut spec);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial", "namespace": "tokenferry"}, "spec": spec});
        tried(&["create", "--dry-run=server"], &pod)
    };
    let done = pod(&|_| ());
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.stderr.contains("Warning"), "{done:?}");
    for lax in ["allowPrivilegeEscalation", "capabilities"] {
        let done = pod(&|spec| drop(spec["containers"][0]["securityContext"].as_object_mut().unwrap().remove(lax)));
        assert!(done.code == Some(1) && done.stderr.contains("violates PodSecurity \"restricted"), "{lax}: {done:?}");
    }
    let done = pod(&|spec| drop(spec["securityContext"].as_object_mut().unwrap().remove("runAsNonRoot")));
    assert!(done.stderr.contains("violates PodSecurity \"restricted"), "{done:?}");
    assert_eq!(template["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
}

#[test]
fn its_rights_are_those_that_rbac_prints() {
    let mut command = Command::new(PROGRAM);
    command.arg("rbac").arg(example("schedule.yaml")).args(["--subject", "tokenferry/tokenferry"]).env_remove("TOKENFERRY_SCHEDULE");
    let printed = finish(command, Duration::from_secs(60));
    let text = std::fs::read_to_string(example("rbac.yaml")).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!((first, rest), ("# Made by: tokenferry rbac schedule.yaml --subject tokenferry/tokenferry", printed.stdout.as_str()));
    let mut command = Command::new(PROGRAM);
    command.args(["check", "--strict"]).arg(example("schedule.yaml"));
    let done = finish(command, Duration::from_secs(60));
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
    let may = |what: &[&str]| {
        let account = "--as=system:serviceaccount:tokenferry:tokenferry";
        let kube = applied().kube();
        let mut kubectl = Command::new(&kube.kubectl);
        kubectl.arg("--kubeconfig").arg(&kube.admin_kubeconfig).args(["auth", "can-i"]).args(what).arg(account);
        finish(kubectl, Duration::from_secs(60)).stdout.trim() == "yes"
    };
    assert!(may(&["create", "serviceaccounts/cicd-deployer", "--subresource=token", "-n", "cicd"]));
    assert!(may(&["patch", "secrets/ci-deployer-token", "-n", "apps"]));
    assert!(!may(&["get", "secrets", "-n", "apps"]) && !may(&["get", "secrets", "-n", "tokenferry"]));
    assert!(!may(&["create", "serviceaccounts/builder", "--subresource=token", "-n", "cicd"]));
}

/// What a kubelet does for the Pod: the volumes, the account's token, a root that nobody writes to, its user.
const KUBELET: &str = r#"
set -eu
account=/var/run/secrets/kubernetes.io/serviceaccount
for folder in /var/lib /etc; do
  mkdir -p "$HERE/layers$folder/upper" "$HERE/layers$folder/work"
  mount -t overlay none -o "lowerdir=$folder,upperdir=$HERE/layers$folder/upper,workdir=$HERE/layers$folder/work" "$folder"
done
mount -t tmpfs -o mode=0755 none /run
mkdir -p /etc/tokenferry /var/lib/tokenferry /run/tokenferry "$(realpath -m $account)"
cp "$SCHEDULE" /etc/tokenferry/schedule.yaml
# As an emptyDir with fsGroup is.
for folder in /var/lib/tokenferry /run/tokenferry; do
  mount -t tmpfs -o mode=2777,gid=65532 none "$folder"
done
cp "$HERE/token" "$HERE/ca.crt" "$HERE/namespace" "$account/"
chmod 0644 "$account"/*
cp "$PROGRAM" /run/program
chmod 0755 /run/program
for folder in /etc /run; do mount -o remount,ro,bind "$folder" 2>/dev/null || { mount --bind "$folder" "$folder"; mount -o remount,ro,bind "$folder"; }; done
exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set -all --inh-caps -all \
  env -i PATH=/usr/bin:/bin KUBERNETES_SERVICE_HOST="$API_HOST" KUBERNETES_SERVICE_PORT="$API_PORT" /run/program "$@"
"#;

struct Pod {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Pod {
    fn run() -> Self {
        let folder = tempfile::Builder::new().prefix("tokenferry-pod-").tempdir_in("/dev/shm").unwrap();
        let servers = applied();
        let at = |name: &str| folder.path().join(name);
        // A token as the kubelet mounts it.
        std::fs::write(at("token"), servers.kubectl(&["create", "token", "tokenferry", "-n", "tokenferry", "--duration", "1h"]).trim())
            .unwrap();
        std::fs::copy(&servers.kube().ca, at("ca.crt")).unwrap();
        std::fs::write(at("namespace"), "tokenferry").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let schedule = std::fs::read_to_string(example("schedule.yaml")).unwrap().replace("0.0.0.0:9467", &format!("127.0.0.1:{port}"));
        std::fs::write(at("schedule.yaml"), schedule).unwrap();
        let deployment = get(&["deployment", "tokenferry"]);
        let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().clone();
        let (host, api) = servers.kube().server.strip_prefix("https://").unwrap().split_once(':').unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", KUBELET, "sh"])
            .args(arguments.iter().map(|a| a.as_str().unwrap()));
        command.env("HERE", folder.path()).env("SCHEDULE", at("schedule.yaml")).env("PROGRAM", PROGRAM);
        command.env("API_HOST", host).env("API_PORT", api).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        Self { folder, child, port }
    }

    fn probe(&self, path: &str) -> bool {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "--noproxy", "*", "-o", "/dev/null", &format!("http://127.0.0.1:{}{path}", self.port)]);
        finish(curl, Duration::from_secs(20)).code == Some(0)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the Pod's log:\n{}", self.log());
        }
    }
}

fn delivered() -> Option<String> {
    let kube = applied().kube();
    let mut kubectl = Command::new(&kube.kubectl);
    kubectl.arg("--kubeconfig").arg(&kube.admin_kubeconfig);
    kubectl.args(["get", "secret", "ci-deployer-token", "-n", "apps", "-o", "jsonpath={.data.token}"]);
    let done = finish(kubectl, Duration::from_secs(60));
    (done.code == Some(0)).then_some(done.stdout)
}

#[test]
fn its_container_serves_as_the_pods_own_user_and_one_that_comes_after_mints_nothing_fresh() {
    if !can_mount("its_container_serves_as_the_pods_own_user_and_one_that_comes_after_mints_nothing_fresh", &[]) {
        return;
    }
    let mut pod = Pod::run();
    until("the token is delivered", 60, || {
        assert!(pod.child.try_wait().unwrap().is_none(), "it ended:\n{}", pod.log());
        delivered().is_some()
    });
    until("it is ready", 30, || pod.probe("/readyz"));
    assert!(pod.probe("/livez"));
    let first = delivered().unwrap();
    let signal = rustix::process::Signal::TERM;
    rustix::process::kill_process(rustix::process::Pid::from_child(&pod.child), signal).unwrap();
    until("it ends in good order", 60, || pod.child.try_wait().unwrap().is_some_and(|status| status.code() == Some(0)));
    assert!(!pod.log().contains("eyJ"));
    // Its state went with it; the next one reads the place.
    let pod = Pod::run();
    until("the next one is ready", 60, || pod.probe("/readyz"));
    until("it adopts what stands there", 30, || pod.log().contains("adopted"));
    assert_eq!(delivered().unwrap(), first, "a fresh token was minted again");
    drop(pod);
    let minted = tool(Command::new("grep").args(["-c", "serviceaccounts/cicd-deployer/token"]).arg(applied().folder.join("audit.log")));
    assert_eq!(minted.trim(), "1");
}

#[test]
fn the_page_says_what_is_applied() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains("examples/in-cluster"), "nobody finds it");
    let kustomization: Value = serde_yaml::from_str(&std::fs::read_to_string(example("kustomization.yaml")).unwrap()).unwrap();
    let listed: Vec<&str> = kustomization["resources"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
    let mut files: Vec<String> = std::fs::read_dir(example("")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|file| file != "kustomization.yaml" && file != "schedule.yaml");
    files.sort();
    assert_eq!(files.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), listed.into_iter().collect());
    assert!(Path::new(&example("schedule.yaml")).exists());
}
