//! What the daemon of a test may do on a real API server: a user of that host alone, with the rights that `rbac` prints
//! for the host's schedule, and no other.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::daemon::{Host, tool};
use super::servers::Servers;
use super::until;

/// The schedule with each kubeconfig of a test's server replaced by one of this host's own user.
pub fn own_users(host: &Host, text: &str) -> String {
    let Ok(schedule) = serde_yaml::from_str::<Value>(text) else { return text.to_owned() };
    let mut text = text.to_owned();
    for path in clusters(&schedule).flat_map(|(_, cluster)| ways(cluster)) {
        if let Some(servers) = of_servers(&path) {
            text = text.replace(path.to_str().unwrap(), kubeconfig(host, &servers, &path).to_str().unwrap());
        }
    }
    text
}

/// Gives this host's users what `rbac` prints for the schedule as it stands. What a schedule before it needed stays
/// granted: a target that goes is cleared up with the rights that it had.
pub fn grant(host: &Host, more: &[&str]) {
    let Ok(schedule) = serde_yaml::from_str::<Value>(&host.read("schedule.yaml")) else { return };
    for (name, cluster) in clusters(&schedule) {
        for path in ways(cluster).filter(|path| path.parent().is_some_and(|folder| folder.ends_with("rights"))) {
            let servers = Servers::of(&std::fs::read_link(path.with_extension("servers")).unwrap());
            let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let context = cluster["context"].as_str().or(config["current-context"].as_str()).unwrap();
            let user = user_of(host, context);
            // A spare way in is not the one that `rbac --diff` asks about.
            if give(host, &servers, name, &user, more) && cluster["kubeconfig"] == path.to_str().unwrap() {
                known(host, name, more);
            }
        }
    }
}

/// Whether there was something new to be given.
fn give(host: &Host, servers: &Servers, cluster: &str, user: &str, more: &[&str]) -> bool {
    let subject = format!("user:{user}");
    let printed = host.run(&[&["rbac", "--cluster", cluster, "--subject", &subject, "--name", "NAME"], more].concat());
    // A schedule that is refused needs nothing: the test says what becomes of it.
    if printed.code == Some(2) || printed.stdout.is_empty() {
        return false;
    }
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let folder = host.path("rights").join("granted");
    std::fs::create_dir_all(&folder).unwrap();
    let mut number = 0;
    while let Ok(before) = std::fs::read_to_string(folder.join(format!("{user}-{number}.yaml"))) {
        if before == printed.stdout {
            return false;
        }
        number += 1;
    }
    let file = folder.join(format!("{user}-{number}.yaml"));
    std::fs::write(&file, &printed.stdout).unwrap();
    apply(servers, &printed.stdout.replace("NAME", &format!("{user}-{number}")));
    true
}

/// Waits until the API server knows of a new Role.
fn known(host: &Host, cluster: &str, more: &[&str]) {
    until("the rights hold", 60, || {
        let shown = host.run(&[&["rbac", "--cluster", cluster, "--diff", "-o", "json"], more].concat());
        let lines: Vec<Value> = serde_json::from_str(&shown.stdout).unwrap_or_else(|e| panic!("{e}: {shown:?}"));
        lines.iter().all(|line| line["verdict"] == "surplus")
    });
}

/// Manifests, as kubectl takes them.
pub fn apply(servers: &Servers, manifests: &str) {
    let kube = servers.kube();
    let mut kubectl = Command::new(&kube.kubectl);
    kubectl.arg("--kubeconfig").arg(&kube.admin_kubeconfig).args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = kubectl.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), manifests.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "kubectl refused:\n{manifests}");
}

/// A kubeconfig of the servers as this host's users have it: the same contexts, other people.
pub fn kubeconfig(host: &Host, servers: &Servers, original: &Path) -> PathBuf {
    let folder = host.path("rights");
    std::fs::create_dir_all(&folder).unwrap();
    let instance = servers.folder.file_name().unwrap().to_string_lossy().into_owned();
    let path = folder.join(format!("{instance}-{}", original.file_name().unwrap().to_string_lossy()));
    if path.exists() {
        return path;
    }
    let mut config: Value = serde_json::from_slice(&std::fs::read(original).unwrap()).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        let (certificate, key) = certificate(&folder, servers, &user_of(host, user["name"].as_str().unwrap()));
        user["user"] = serde_json::json!({"client-certificate-data": certificate, "client-key-data": key});
    }
    std::os::unix::fs::symlink(&servers.folder, path.with_extension("servers")).unwrap();
    host.write(&format!("rights/{}", path.file_name().unwrap().to_string_lossy()), &config.to_string())
}

fn user_of(host: &Host, name: &str) -> String {
    format!("{name}.{}", host.folder.path().file_name().unwrap().to_string_lossy())
}

fn certificate(folder: &Path, servers: &Servers, user: &str) -> (String, String) {
    let (ca, at) = (servers.folder.join("kube/ca"), folder.join(user));
    let mut script = Command::new("sh");
    script.args(["-euc", SIGN, "sh"]).arg(user).arg(&at).arg(&ca);
    tool(&mut script);
    let read = |end: &str| STANDARD.encode(std::fs::read(format!("{}.{end}", at.display())).unwrap());
    (read("crt"), read("key"))
}

const SIGN: &str = r#"
umask 077
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -keyout "$2.key" -out "$2.csr" -subj "/CN=$1" 2>/dev/null
printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n' >"$2.ext"
openssl x509 -req -in "$2.csr" -CA "$3.crt" -CAkey "$3.key" -sha256 -days 2 -set_serial "0x$(openssl rand -hex 16)" -out "$2.crt" -extfile "$2.ext" 2>/dev/null
"#;

fn clusters(schedule: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schedule["clusters"].as_object().into_iter().flatten()
}

/// The kubeconfig of a cluster, and its spare one.
fn ways(cluster: &Value) -> impl Iterator<Item = PathBuf> {
    [&cluster["kubeconfig"], &cluster["spare"]["kubeconfig"]].into_iter().filter_map(Value::as_str).map(PathBuf::from)
}

/// The servers in whose folder a kubeconfig stands.
fn of_servers(path: &Path) -> Option<Servers> {
    let folder = path.parent()?;
    folder.join("tokenferry-servers").is_file().then(|| Servers::of(folder))
}
