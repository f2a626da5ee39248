//! What users copy from examples/consumers lives through a rotation: the programs run against a real API server
//! while their token is replaced and the old one dies, and none of their requests fails.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::shipped::root;
use crate::support::daemon::{Host, PROGRAM, finish, tool};
use crate::support::servers::cluster;
use crate::support::until;

const WHO: &str = "system:serviceaccount:cicd:cicd-deployer";

/// A program that asks who it is, line by line, until it is told to end.
struct Consumer {
    name: &'static str,
    child: Child,
    out: PathBuf,
}

impl Consumer {
    fn start(host: &Host, name: &'static str, command: &mut Command) -> Self {
        let out = host.path(&format!("{name}.out"));
        let said = std::fs::OpenOptions::new().append(true).create(true).open(&out).unwrap();
        let errors = std::fs::OpenOptions::new().append(true).create(true).open(host.path(&format!("{name}.err"))).unwrap();
        let child = command.stdin(Stdio::null()).stdout(said).stderr(errors).spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { name, child, out }
    }

    /// Ids of the tokens that it was known by, in order.
    fn ids(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.out).unwrap();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let id = |line: &str| {
            let (who, id) = line.split_once(" JTI=").unwrap_or_else(|| panic!("{} said `{line}`", self.name));
            assert_eq!(who, WHO, "{}", self.name);
            id.to_owned()
        };
        whole.lines().map(id).collect()
    }

    fn assert_well(&mut self, host: &Host) {
        let ended = self.child.try_wait().unwrap();
        let errors = host.read(&format!("{}.err", self.name));
        assert!(ended.is_none() && errors.is_empty(), "{} failed ({ended:?}): {errors}", self.name);
    }

    /// Between two requests, as systemd does with `KillMode=mixed`.
    fn end(&mut self) -> Option<i32> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example(name: &str) -> PathBuf {
    root().join("examples/consumers").join(name)
}

/// The program is found as on any host.
fn path() -> String {
    format!("{}:{}", Path::new(PROGRAM).parent().unwrap().display(), std::env::var("PATH").unwrap())
}

/// A target whose token dies with a Secret.
fn schedule(marker: &str) -> String {
    format!(
        "clusters: {{real: {{kubeconfig: {}}}}}\ntargets:\n- {{name: ci, cluster: real, serviceAccount: cicd/cicd-deployer, duration: 1h, \
         boundTo: {{secret: {marker}}}, deliver: [{{file: {{path: HERE/out/token}}}}]}}\n",
        cluster().kube().minter_kubeconfig.display()
    )
}

/// What `LoadCredential=` does when a unit starts: a copy for this start alone.
fn load_credentials(host: &Host, number: usize) -> PathBuf {
    let folder = host.path(&format!("credentials-{number}"));
    std::fs::create_dir(&folder).unwrap();
    for (name, from) in [("token", host.path("out/token")), ("ca.crt", cluster().kube().ca.clone())] {
        std::fs::copy(from, folder.join(name)).unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o400)).unwrap();
    }
    folder
}

fn unit(host: &Host, number: usize) -> Consumer {
    let mut command = Command::new(example("systemd/whoami.sh"));
    command.env("CREDENTIALS_DIRECTORY", load_credentials(host, number)).env("SERVER", &cluster().kube().server).env("BETWEEN", "0.2");
    Consumer::start(host, "unit", &mut command)
}

fn consumers(host: &Host) -> Vec<Consumer> {
    let kube = cluster().kube();
    let (ca, token) = (kube.ca.as_os_str(), host.path("out/token"));
    let watch = host.path("watch");
    tool(Command::new("go").args(["build", "-o"]).arg(&watch).arg(example("watch.go")).env("CGO_ENABLED", "0"));
    let mut python = Command::new("python3");
    python.arg(example("reread.py")).arg(&kube.server).arg(ca).arg(&token).arg("0.2");
    let mut go = Command::new(watch);
    go.arg(&kube.server).arg(ca).arg(&token).arg("0.2");
    let curl = |from: &str| {
        let mut command = Command::new(example("curl.sh"));
        command.arg(&kube.server).arg(ca).arg(from).arg("0.2").env("PATH", path()).env("TOKENFERRY_SCHEDULE", host.schedule());
        command
    };
    vec![
        Consumer::start(host, "python", &mut python),
        Consumer::start(host, "go", &mut go),
        Consumer::start(host, "curl-target", &mut curl("ci")),
        Consumer::start(host, "curl-file", &mut curl(token.to_str().unwrap())),
    ]
}

/// Whether the API server takes the token in this file.
fn is_taken(host: &Host, file: &Path) -> bool {
    let kube = cluster().kube();
    let config = kube.kubeconfig(serde_json::json!({"tokenFile": file}));
    let config = host.write("control.kubeconfig", &config);
    let mut command = Command::new(&kube.kubectl);
    command.arg("--kubeconfig").arg(config).args(["auth", "whoami"]);
    finish(command, Duration::from_secs(60)).code == Some(0)
}

#[test]
fn every_recipe_follows_a_rotation_without_one_failed_request() {
    let servers = cluster();
    let [before, after] = ["before", "after"].map(|name| format!("consumers-{name}-{}", std::process::id()));
    for name in [&before, &after] {
        servers.kubectl(&["create", "secret", "generic", name, "-n", "cicd"]);
    }
    let mut host = Host::new(&schedule(&before));
    host.start();
    until("the first token stands", 60, || host.path("out/token").exists());
    let old = host.write("old", &host.read("out/token"));

    let mut consumers = consumers(&host);
    let mut service = unit(&host, 0);
    let answered = |consumer: &Consumer| consumer.ids().len() >= 3;
    until("each has asked three times", 120, || consumers.iter().chain([&service]).all(answered));

    // Another marker is another token; the unit is started anew, as its .path unit would.
    host.write_schedule(&schedule(&after));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    until("the next token stands", 60, || host.read("out/token") != host.read("old"));
    assert_eq!(service.end(), Some(0));
    service = unit(&host, 1);

    // The old one dies: who kept it would fail from here on.
    servers.kubectl(&["delete", "secret", &before, "-n", "cicd"]);
    until("the old token is dead", 90, || !is_taken(&host, &old));
    let known: Vec<usize> = consumers.iter().chain([&service]).map(|consumer| consumer.ids().len()).collect();
    until("each has asked five times more", 120, || {
        let all = consumers.iter_mut().chain([&mut service]).zip(&known);
        all.fold(true, |enough, (consumer, known)| {
            consumer.assert_well(&host);
            enough && consumer.ids().len() >= known + 5
        })
    });

    let new = host.json(&["inspect", host.path("out/token").to_str().unwrap()])["jti"].as_str().unwrap().to_owned();
    for consumer in consumers.iter_mut().chain([&mut service]) {
        consumer.assert_well(&host);
        let ids = consumer.ids();
        assert_eq!((ids.iter().collect::<BTreeSet<_>>().len(), ids.last()), (2, Some(&new)), "{}: {ids:?}", consumer.name);
        assert!(ids.is_sorted_by_key(|id| *id == new), "{} went back to the old token: {ids:?}", consumer.name);
    }
    servers.kubectl(&["delete", "secret", &after, "-n", "cicd"]);
}

#[test]
fn a_reader_without_a_token_ends_and_says_why() {
    let host = Host::new("targets: []");
    let kube = cluster().kube();
    let mut curl = Command::new(example("curl.sh"));
    curl.arg(&kube.server).arg(&kube.ca).arg("/nonexistent/token").env("PATH", path());
    let done = finish(curl, Duration::from_secs(30));
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
    assert!(done.stderr.contains("/nonexistent/token: does not exist"), "{done:?}");
    let mut python = Command::new("python3");
    python.arg(example("reread.py")).arg(&kube.server).arg(&kube.ca).arg(host.write("bad", "no token"));
    let done = finish(python, Duration::from_secs(60));
    assert!(done.code == Some(1) && done.stderr.contains("401"), "{done:?}");
}

#[test]
fn the_units_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["whoami.service", "whoami-token.path", "whoami-token.service"];
    for name in names {
        let text = std::fs::read_to_string(example("systemd").join(name)).unwrap();
        // verify wants the programs to be there.
        let here = text.replace("/usr/local/lib/tokenferry", &example("systemd").display().to_string()).replace("=systemctl", "=/bin/true");
        std::fs::write(folder.path().join(name), here).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args(names.map(|name| folder.path().join(name)));
    let done = finish(verify, Duration::from_secs(60));
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    let text = |name: &str| std::fs::read_to_string(example("systemd").join(name)).unwrap();
    let line = |text: &str, key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::to_owned);
    let loaded = line(&text(names[0]), "LoadCredential=token:");
    assert!(loaded.is_some() && loaded == line(&text(names[1]), "PathChanged="), "the unit that watches watches another file");
}

#[test]
fn the_page_names_every_recipe_and_its_links_lead_to_files() {
    for folder in ["consumers", "ci"] {
        let text = std::fs::read_to_string(root().join("examples").join(folder).join("README.md")).unwrap();
        let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        let dead: Vec<&&str> = links.iter().filter(|link| !root().join("examples").join(folder).join(link).exists()).collect();
        assert!(links.len() >= 4 && dead.is_empty(), "{folder}: {dead:?} of {links:?}");
        let files = std::fs::read_dir(root().join("examples").join(folder)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let unnamed: Vec<String> = files.filter(|name| name != "README.md" && !text.contains(name.as_str())).collect();
        assert!(unnamed.is_empty(), "{folder}: nobody finds {unnamed:?}");
    }
    // Not executable, nobody runs it.
    for script in ["curl.sh", "reread.py", "systemd/whoami.sh"] {
        assert!(File::open(example(script)).unwrap().metadata().unwrap().permissions().mode() & 0o111 == 0o111, "{script}");
    }
}
