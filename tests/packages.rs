//! The packages: what is in them, and what they do to a real systemd when they are installed, upgraded, removed. The
//! operations page's commands, from the package to the first token of a real API server and on to the purge.

mod elsewhere;
mod tarball;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::readme::of_packages;
use crate::shipped::{bare, root};
use crate::support::daemon::{PROGRAM, finish, tool};
use crate::support::servers::{Servers, program};
use crate::support::system::System;
use crate::support::{tools, until};

/// The packages of one version.
struct Version {
    /// What is packed.
    program: PathBuf,
    deb: PathBuf,
    rpm: PathBuf,
}

/// What was packed for these tests, all of it once.
struct Packed {
    versions: [Version; 2],
    tarball: PathBuf,
}

/// Packs this version and the next one, whose program is the same but for its last byte, and this one's tarball. One
/// after the other: they share a folder.
fn packed() -> &'static Packed {
    static PACKED: OnceLock<Packed> = OnceLock::new();
    PACKED.get_or_init(|| {
        // Below the target folder, so that it is not left in /tmp; each run packs anew.
        let folder = root().join("target/package/tests");
        std::fs::create_dir_all(&folder).unwrap();
        let path = tools::path();
        let pack = |number: &str, tail: &[u8]| {
            let at = |name: &str| folder.join(format!("{number}-{name}"));
            tool(Command::new("strip").arg("-o").arg(at("program")).arg(PROGRAM));
            let bytes = std::fs::read(at("program")).unwrap();
            std::fs::write(at("program"), [bytes.as_slice(), tail].concat()).unwrap();
            let mut build = Command::new("bash");
            bare(build.args(["-c", &of_packages()[0]])).current_dir(root());
            build.env("PATH", &path).env("PROGRAM", at("program")).env("VERSION", number).env("FAST", "1");
            let done = finish(build, Duration::from_secs(600));
            assert_eq!(done.code, Some(0), "{done:?}");
            for kind in ["deb", "rpm"] {
                std::fs::rename(root().join(format!("target/package/tokenferry.{kind}")), at(&format!("package.{kind}"))).unwrap();
            }
            Version { program: at("program"), deb: at("package.deb"), rpm: at("package.rpm") }
        };
        let versions = [pack("0.1.0", b""), pack("0.2.0", b"\n")];
        let tarball = tarball::pack(&versions[0].program, &folder);
        Packed { versions, tarball }
    })
}

/// The packages of two versions.
fn versions() -> &'static [Version; 2] {
    &packed().versions
}

/// The system of these tests, with nothing of ours in it.
fn system() -> Option<MutexGuard<'static, System>> {
    static SYSTEM: OnceLock<Option<Mutex<System>>> = OnceLock::new();
    let system = SYSTEM.get_or_init(|| System::boot("packages").map(Mutex::new)).as_ref();
    if system.is_none() {
        println!("NOT RUN: this test needs the booted system");
    }
    let system = system?.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    system.run(&["dpkg", "--purge", "tokenferry"]);
    system.run(&["rpm", "--erase", "tokenferry"]);
    system.done(&["sh", "-c", "rm -rf /etc/tokenferry /var/lib/tokenferry* /run/tokenferry*; userdel tokenferry || true"]);
    Some(system)
}

/// A file of this host under that name in the system's root's home.
fn copy(system: &System, file: &Path, name: &str) {
    let to = system.path("/root").join(name);
    std::fs::copy(file, &to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}

/// Installs that version, and gives what was said.
fn install(system: &System, version: &Version) -> String {
    copy(system, &version.deb, "tokenferry.deb");
    system.done(&["dpkg", "--install", "/root/tokenferry.deb"])
}

const TRIAL: &str = "version: 1
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - {name: one, serviceAccount: ci/one, deliver: [{file: {path: /run/tokenferry/one}}]}
  - {name: two, serviceAccount: ci/two, deliver: [{file: {path: /run/tokenferry/two}}]}
";

/// The first schedule is there, the service runs, both targets are served.
fn served(system: &System) {
    system.write("/etc/tokenferry/schedule.yaml", TRIAL);
    system.done(&["systemctl", "start", "tokenferry"]);
    until("both are served", 60, || system.records("rotated") == 2);
}

fn list(package: &Path, command: &[&str]) -> BTreeSet<String> {
    let text = tool(Command::new(command[0]).args(&command[1..]).arg(package));
    let names = text.lines().filter_map(|line| line.rsplit(' ').next()).map(|name| name.trim_start_matches('.').to_owned());
    names.filter(|name| name.starts_with('/') && !name.ends_with('/')).collect()
}

#[test]
fn the_deb_passes_lintian() {
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root"]).arg(&versions()[0].deb);
    let done = finish(lintian, Duration::from_secs(900));
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
}

#[test]
fn both_packages_hold_the_same_files_where_their_systems_look_for_them() {
    let version = &versions()[0];
    let (deb, rpm) = (list(&version.deb, &["dpkg-deb", "--contents"]), list(&version.rpm, &["rpm", "-qp", "--list"]));
    for file in [
        "/usr/bin/tokenferry",
        "/usr/lib/systemd/system/tokenferry.service",
        "/usr/lib/systemd/system/tokenferry@.service",
        "/usr/lib/systemd/system/tokenferry-once@.timer",
        "/usr/lib/sysusers.d/tokenferry.conf",
        "/usr/lib/tmpfiles.d/tokenferry.conf",
        "/usr/share/man/man1/tokenferry-rotate.1.gz",
        "/usr/share/man/man5/tokenferry-schedule.5.gz",
        "/usr/share/man/man8/tokenferry.8.gz",
        "/usr/share/bash-completion/completions/tokenferry",
        "/usr/share/fish/vendor_completions.d/tokenferry.fish",
        "/usr/share/tokenferry/schedule.schema.json",
        "/usr/share/doc/tokenferry/sbom.cdx.json",
        "/usr/share/doc/tokenferry/examples/first.yaml",
        "/usr/share/doc/tokenferry/drop-ins/credentials.conf",
    ] {
        assert!(deb.contains(file), "the .deb has no {file}: {deb:?}");
        assert!(rpm.contains(file), "the .rpm has no {file}: {rpm:?}");
    }
    let apart =
        |file: &&String| ["/zsh/", "/usr/share/licenses/", "/lintian/", "/changelog", "/copyright"].iter().any(|part| file.contains(part));
    let differ: Vec<&String> = deb.symmetric_difference(&rpm).filter(|file| !apart(file)).collect();
    assert!(differ.is_empty(), "only in one of them: {differ:?}");
    assert!(!deb.iter().any(|file| file.starts_with("/etc/")), "a schedule is the administrator's: {deb:?}");
}

#[test]
fn the_rpm_names_what_it_needs_and_its_scripts_are_sh() {
    let rpm = &versions()[0].rpm;
    let asked = |question: &str| tool(Command::new("rpm").args(["-qp", question]).arg(rpm));
    let needs = asked("--requires");
    for need in ["/bin/sh", "systemd >= 239", "libc.so.6(GLIBC_2."] {
        assert!(needs.contains(need), "no {need}: {needs}");
    }
    let scripts = asked("--scripts");
    for (name, says) in [("postinstall", "systemd-sysusers"), ("preuninstall", "disable --now"), ("postuninstall", "try-restart")] {
        let (_, script) = scripts.split_once(&format!("{name} scriptlet")).unwrap_or_else(|| panic!("no {name}: {scripts}"));
        assert!(script.contains(says), "{name}: {scripts}");
    }
    for file in ["post", "preun", "postun"] {
        tool(Command::new("sh").arg("-n").arg(root().join("packaging/rpm").join(file)));
    }
    let about = asked("--info");
    assert!(about.contains("Version     : 0.1.0") && about.contains("Apache-2.0"), "{about}");
}

#[test]
fn the_bill_of_materials_names_every_crate_that_is_in_the_program() {
    let bill = root().join("target/package/files/sbom.cdx.json");
    versions();
    let text = std::fs::read_to_string(&bill).unwrap();
    let bill: Value = serde_json::from_str(&text).unwrap();
    let named: BTreeSet<String> = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|crate_| format!("{} {}", crate_["name"].as_str().unwrap(), crate_["version"].as_str().unwrap()))
        .collect();
    // Cargo's own word for what is linked: normal dependencies on this platform.
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]).current_dir(root());
    let tree = tool(bare(&mut tree));
    let linked: BTreeSet<String> = tree
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(" v"))
        .map(|(name, rest)| format!("{name} {}", rest.split(' ').next().unwrap()))
        .collect();
    assert!(linked.len() > 150, "{}", linked.len());
    let missing: Vec<&String> = linked.difference(&named).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let without = bill["components"].as_array().unwrap().iter().filter(|c| c["licenses"].is_null()).map(|c| c["name"].to_string());
    assert_eq!(without.collect::<Vec<_>>(), Vec::<String>::new(), "crates without a licence");
    assert_eq!((&bill["bomFormat"], &bill["metadata"]["component"]["name"]), (&"CycloneDX".into(), &"tokenferry".into()));
    assert!(!text.contains(root().to_str().unwrap()), "it says where it was made");
}

#[test]
fn installed_it_is_enabled_and_waits_for_a_schedule_without_failing() {
    let Some(system) = system() else { return };
    // As the README says.
    std::fs::create_dir_all(system.path("/root/target/package")).unwrap();
    copy(&system, &versions()[0].deb, "target/package/tokenferry.deb");
    let commands = of_packages();
    assert_eq!(commands.len(), 2, "{commands:?}");
    typed(&system, &format!("sudo() {{ \"$@\"; }}\n{}", commands[1]));
    assert_eq!(system.done(&["systemctl", "is-enabled", "tokenferry"]).trim(), "enabled");
    assert_eq!((system.show("ActiveState").as_str(), system.show("ConditionResult").as_str()), ("inactive", "no"));
    assert_eq!(system.run(&["systemctl", "is-failed", "tokenferry"]).status.code(), Some(1));
    let check = system.run(&["tokenferry", "check"]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(check.status.code(), Some(2));
    let steps: Vec<&str> = said.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).collect();
    assert_eq!(steps.len(), 5, "{said}");
    for (step, word) in steps.iter().zip(["schedule.yaml", "tokenferry check", "bootstrap", "host --apply", "enable --now"]) {
        assert!(step.contains(word), "{said}");
    }
    assert_eq!(
        system.done(&["stat", "-c", "%a %U %G", "/etc/tokenferry", "/var/lib/tokenferry"]),
        "755 root root\n711 tokenferry tokenferry\n"
    );
    assert!(system.done(&["getent", "group", "tokenferry-admin"]).trim().ends_with(":tokenferry"));
    // What dpkg keeps of each file is what stands there.
    assert_eq!(system.done(&["dpkg", "--verify", "tokenferry"]), "");
}

#[test]
fn man_shows_every_page_of_the_package() {
    let Some(system) = system() else { return };
    install(&system, &versions()[0]);
    let files = system.done(&["dpkg", "--listfiles", "tokenferry"]);
    let pages: Vec<&str> =
        files.lines().filter_map(|file| file.strip_prefix("/usr/share/man/man")?.get(2..)?.strip_suffix(".gz")).collect();
    assert!(pages.len() > 25, "{pages:?}");
    for page in pages {
        let (name, section) = page.rsplit_once('.').unwrap();
        let Output { status, stdout, stderr } = system.run(&["man", "--warnings", section, name]);
        let (shown, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success() && said.is_empty() && shown.lines().count() > 10, "{page}: {status} {said}{shown}");
    }
}

#[test]
fn g5_an_upgrade_runs_the_new_program_and_mints_nothing_that_is_fresh() {
    let Some(system) = system() else { return };
    let [first, next] = versions();
    install(&system, first);
    served(&system);
    let runs = || system.done(&["sh", "-c", "sha256sum </proc/$(systemctl show --value -p MainPID tokenferry)/exe"]);
    let sum = |file: &Path| tool(Command::new("sh").args(["-c", "sha256sum <\"$0\""]).arg(file));
    let tokens = system.done(&["sh", "-c", "cat /run/tokenferry/one /run/tokenferry/two"]);
    let before = system.show("MainPID");
    assert_eq!(runs(), sum(&first.program));
    install(&system, next);
    assert_eq!(system.show("ActiveState"), "active");
    assert_ne!(system.show("MainPID"), before);
    assert_eq!(runs(), sum(&next.program));
    until("it serves both", 30, || system.status()["targets"].as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "fresh")));
    assert_eq!(system.records("rotated"), 2, "an upgrade minted");
    assert_eq!(system.done(&["sh", "-c", "cat /run/tokenferry/one /run/tokenferry/two"]), tokens);
    // And back: an administrator who finds a fault in the new one.
    install(&system, first);
    assert_eq!((runs(), system.records("rotated")), (sum(&first.program), 2));
}

#[test]
fn what_an_administrator_disabled_stays_disabled_over_an_upgrade() {
    let Some(system) = system() else { return };
    let [first, next] = versions();
    install(&system, first);
    served(&system);
    system.done(&["systemctl", "disable", "--now", "tokenferry"]);
    install(&system, next);
    assert_eq!(system.run(&["systemctl", "is-enabled", "tokenferry"]).status.code(), Some(1));
    assert_eq!(system.show("ActiveState"), "inactive");
    // Nor does a version whose unit is wanted by one more: no link was ever there that could have been taken away.
    let unit = "unpacked/usr/lib/systemd/system/tokenferry.service";
    let repack = format!(
        "cd /root; rm -rf unpacked; dpkg-deb -R tokenferry.deb unpacked
        sed -i 's/^WantedBy=.*/& network-online.target/' {unit}; grep -q '^WantedBy=.* network-online' {unit}
        sed -i 's/^Version: .*/Version: 0.3.0-1/' unpacked/DEBIAN/control
        (cd unpacked; find . -path ./DEBIAN -prune -o -type f -printf '%P\\0' | xargs -0 md5sum >DEBIAN/md5sums)
        dpkg-deb -Zgzip -z1 -b unpacked tokenferry.deb; dpkg --install tokenferry.deb"
    );
    system.done(&["sh", "-ec", &repack]);
    assert_eq!(system.done(&["dpkg-query", "-W", "-f", "${Version}", "tokenferry"]), "0.3.0-1");
    assert_eq!(system.run(&["systemctl", "is-enabled", "tokenferry"]).status.code(), Some(1));
    assert_eq!(system.show("ActiveState"), "inactive");
}

#[test]
fn an_instance_is_upgraded_stopped_and_purged_as_the_one_daemon_is() {
    let Some(system) = system() else { return };
    let [first, next] = versions();
    install(&system, first);
    system.write("/etc/tokenferry/edge.yaml", &TRIAL.replace("/run/tokenferry/", "/run/tokenferry-edge/"));
    system.done(&["systemctl", "start", "tokenferry@edge"]);
    let pid = || system.done(&["systemctl", "show", "--value", "-p", "MainPID", "tokenferry@edge"]);
    let before = pid();
    install(&system, next);
    assert!(!["0\n", &before].contains(&pid().as_str()), "it still is {before}");
    system.done(&["dpkg", "--remove", "tokenferry"]);
    assert_eq!(pid(), "0\n");
    system.done(&["test", "-s", "/run/tokenferry-edge/one"]);
    system.done(&["dpkg", "--purge", "tokenferry"]);
    assert!(!system.run(&["test", "-e", "/run/tokenferry-edge"]).status.success());
    only_records(&system, "/var/lib/tokenferry-edge");
}

#[test]
fn records_outlive_a_purge_and_the_next_installation_goes_on_with_them() {
    let Some(system) = system() else { return };
    install(&system, &versions()[0]);
    served(&system);
    let Output { status, stderr, .. } = system.run(&["dpkg", "--purge", "tokenferry"]);
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success() && said.contains("stay in /var/lib/tokenferry/records"), "{said}");
    gone(&system);
    assert_eq!(system.done(&["stat", "-c", "%a %U", "/var/lib/tokenferry/records"]), "700 root\n");
    // Another system user may get the number that ours had.
    system.done(&["useradd", "--system", "other"]);
    install(&system, &versions()[0]);
    until("both are served again", 60, || system.records("rotated") == 4);
    let verified = system.run(&["tokenferry", "records", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
    system.done(&["userdel", "other"]);
}

/// Nothing of the package is left but what the administrator wrote, and the records.
fn gone(system: &System) {
    for command in [
        &["getent", "passwd", "tokenferry"][..],
        &["getent", "group", "tokenferry"],
        &["getent", "group", "tokenferry-admin"],
        &["test", "-e", "/run/tokenferry"],
        &["test", "-e", "/var/lib/tokenferry/own"],
        &["test", "-e", "/etc/tmpfiles.d/tokenferry-schedule.conf"],
        &["systemctl", "cat", "tokenferry.service"],
        &["sh", "-c", "ls /etc/systemd/system/*/tokenferry* /etc/systemd/system/tokenferry*"],
        &["sh", "-c", "command -v tokenferry"],
    ] {
        assert!(!system.run(command).status.success(), "still there: {command:?}");
    }
    assert_eq!(system.done(&["systemctl", "list-units", "--all", "--no-legend", "--plain", "tokenferry*"]), "");
    only_records(system, "/var/lib/tokenferry");
}

/// The records, and beside them what belongs to them, all root's.
fn only_records(system: &System, state: &str) {
    let left = system.done(&["find", state, "-mindepth", "1", "-maxdepth", "1", "-printf", "%f %u\n"]);
    assert!(left.lines().all(|line| line.starts_with("records") && line.ends_with(" root")) && !left.is_empty(), "{left}");
}

#[test]
fn the_rpm_installs_upgrades_and_goes_in_the_same_way() {
    let Some(system) = system() else { return };
    let [first, next] = versions();
    copy(&system, &first.rpm, "first.rpm");
    copy(&system, &next.rpm, "next.rpm");
    // Debian's packages are not in rpm's database.
    system.done(&["rpm", "--install", "--nodeps", "/root/first.rpm"]);
    assert_eq!(system.done(&["systemctl", "is-enabled", "tokenferry"]).trim(), "enabled");
    assert_eq!((system.show("ActiveState").as_str(), system.show("ConditionResult").as_str()), ("inactive", "no"));
    served(&system);
    let before = system.show("MainPID");
    system.done(&["rpm", "--upgrade", "--nodeps", "/root/next.rpm"]);
    assert_eq!(system.show("ActiveState"), "active");
    assert_ne!(system.show("MainPID"), before);
    assert_eq!(system.records("rotated"), 2, "an upgrade minted");
    assert_eq!(system.done(&["rpm", "--verify", "--nodeps", "tokenferry"]), "");
    let erased = system.run(&["rpm", "--erase", "tokenferry"]);
    assert!(erased.status.success(), "{erased:?}");
    assert!(String::from_utf8_lossy(&erased.stderr).contains("stay in /var/lib/tokenferry/records"), "{erased:?}");
    assert_eq!(system.done(&["systemctl", "list-units", "--all", "--no-legend", "--plain", "tokenferry*"]), "");
    assert!(!system.run(&["test", "-e", "/run/tokenferry"]).status.success());
}

/// The operations page's blocks of commands, under the title of their section.
fn blocks() -> Vec<(String, String)> {
    let page = tool(Command::new(PROGRAM).args(["man", "tokenferry.8"]));
    let mut found = Vec::new();
    for section in page.split("\n.SH ").skip(1) {
        let title = section.lines().next().unwrap();
        for block in section.split("\n.nf\n").skip(1) {
            let text = block.split("\n.fi").next().unwrap().replace("\\-", "-").replace("\\(aq", "'");
            assert!(!text.contains('\\'), "an escape that is not known here: {text}");
            found.push((title.to_owned(), text));
        }
    }
    found
}

/// Runs one block as it stands, in root's home.
fn typed(system: &System, commands: &str) {
    let run = system.run(&["sh", "-c", &format!("cd /root; set -eux\n{commands}")]);
    assert!(run.status.success(), "{}\n{}{}", run.status, String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}

/// A host whose administrator has kubectl, vault and a kubeconfig for the cluster.
fn outfit(system: &System, servers: &Servers) {
    let kube = servers.kube();
    std::fs::create_dir_all(system.path("/root/.kube")).unwrap();
    let config =
        tool(Command::new(&kube.kubectl).arg("--kubeconfig").arg(&kube.admin_kubeconfig).args(["config", "view", "--raw", "--flatten"]));
    system.write("/root/.kube/config", &config);
    std::fs::copy(&kube.kubectl, system.path("/usr/local/bin/kubectl")).unwrap();
    let bao = servers.bao();
    std::fs::copy(program("bao"), system.path("/usr/local/bin/bao")).unwrap();
    let token = std::fs::read_to_string(&bao.root_token_file).unwrap();
    let shell = format!(
        "#!/bin/sh\nexec env BAO_ADDR={} BAO_CACERT=/etc/ssl/certs/internal-ca.pem BAO_TOKEN={} /usr/local/bin/bao \"$@\"\n",
        bao.address,
        token.trim()
    );
    system.write("/usr/local/bin/vault", &shell);
    system.done(&["chmod", "0755", "/usr/local/bin/vault"]);
    std::fs::create_dir_all(system.path("/etc/ssl/certs")).unwrap();
    std::fs::copy(&bao.ca, system.path("/etc/ssl/certs/internal-ca.pem")).unwrap();
    copy(system, &versions()[0].deb, "tokenferry.deb");
    system.run(&["groupadd", "ci"]);
}

/// What the page says to put into the schedule for Vault, from the example that it names.
fn with_vault(system: &System, servers: &Servers) {
    let schedule = std::fs::read_to_string(system.path("/etc/tokenferry/schedule.yaml")).unwrap();
    let stores = format!(
        "stores: {{vault: {{vault: {{address: '{}', caFile: /etc/ssl/certs/internal-ca.pem, auth: {{jwt: {{mount: jwt, role: tokenferry, target: vault-login}}}}}}}}}}\n",
        servers.bao().address
    );
    let more = "  - {name: vault-login, cluster: prod, serviceAccount: tokenferry/vault-login, duration: 1h, audiences: [https://vault.example.com], deliver: [{file: {path: /run/tokenferry/logins/vault}}]}
  - {name: in-vault, cluster: prod, serviceAccount: cicd/cicd-deployer, duration: 1h, deliver: [{vault: {store: vault, mount: secret, path: ci/deployer, key: token}}]}
";
    system.write("/etc/tokenferry/schedule.yaml", &format!("{schedule}{stores}").replace("targets:\n", &format!("targets:\n{more}")));
}

fn fresh(system: &System) -> bool {
    system.status()["targets"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|one| one["state"] == "fresh"))
}

#[test]
fn the_operations_page_leads_from_the_package_to_the_first_token_of_a_real_api_server_and_on_to_the_purge() {
    let Some(system) = system() else { return };
    let servers = Servers::start("page", &["etcd", "kube", "bao"]);
    outfit(&system, &servers);
    let blocks = blocks();
    let path: Vec<&str> = blocks
        .iter()
        .filter(|(title, _)| ["INSTALLATION", "FIRST TARGET"].contains(&title.as_str()))
        .map(|(_, block)| block.as_str())
        .collect();
    let typed_by_hand: usize = path.iter().map(|block| block.len() + 1).sum();
    println!("the path of a new user, {typed_by_hand} characters:\n{}", path.join("\n"));
    // A slow typist's 150 characters a minute.
    assert!(typed_by_hand < 10 * 150, "{typed_by_hand} characters are no ten minutes of typing");

    let begun = Instant::now();
    let mut moved = None;
    for (title, block) in &blocks {
        match title.as_str() {
            "VAULT AND OPENBAO" => {
                with_vault(&system, &servers);
                typed(&system, block);
                until("Vault holds a token", 60, || fresh(&system));
                let held = system.done(&["vault", "kv", "get", "-field=token", "secret/ci/deployer"]);
                assert_eq!(who(&servers, &held), "system:serviceaccount:cicd:cicd-deployer");
            }
            "MOVING TO ANOTHER HOST" => moved = move_to(&system, &servers, block),
            _ if block.starts_with("tokenferry doctor") => {
                // Exits 1 where something is to be seen to: this host's clock is kept by nobody.
                let run = system.run(&["sh", "-c", block]);
                assert!([Some(0), Some(1)].contains(&run.status.code()), "{run:?}");
            }
            _ => typed(&system, block),
        }
        if block.contains("enable --now tokenferry") {
            until("the first token is there", 60, || fresh(&system));
            println!("the first token is there after {:.1} s of waiting for commands", begun.elapsed().as_secs_f64());
            let token = system.done(&["setpriv", "--reuid=nobody", "--regid=ci", "--clear-groups", "cat", "/run/tokenferry/ci/token"]);
            assert_eq!(who(&servers, &token), "system:serviceaccount:cicd:cicd-deployer");
        }
    }
    assert_eq!(moved, Some(true), "the page says nothing of moving");
    gone(&system);
    let left = servers.kubectl(&["get", "serviceaccounts", "-n", "tokenferry", "tokenferry", "--ignore-not-found"]);
    assert_eq!(left, "", "bootstrap --remove left the account");
    let records = system.done(&["sh", "-c", "cat /var/lib/tokenferry/records/*.jsonl"]);
    assert!(records.contains("\"kind\":\"retired\"") && !records.contains("eyJ"), "{records}");
}

fn who(servers: &Servers, token: &str) -> String {
    servers.kubectl_with(token, &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])
}

/// The new host: its records go on where the old host's backup ended.
fn move_to(old: &System, servers: &Servers, block: &str) -> Option<bool> {
    let new = System::boot("moved")?;
    outfit(&new, servers);
    copy(&new, &old.path("/root/tokenferry-backup.tar.gz"), "tokenferry-backup.tar.gz");
    typed(&new, block);
    until("it serves", 60, || fresh(&new));
    let count = |system: &System, kind: &str| system.records(kind);
    assert!(count(&new, "started") > 1 && count(&new, "rotated") > count(old, "rotated"), "the records of the old host go on");
    new.end();
    // The account is the new host's now, and here it goes on with the test.
    old.done(&["tokenferry", "bootstrap", "prod"]);
    Some(true)
}

#[test]
fn every_state_and_alert_is_explained_by_the_operations_page() {
    let page = tool(Command::new(PROGRAM).args(["man", "tokenferry.8"]));
    let explained = page.split_once(".SH STATES AND ALERTS").unwrap().1.split("\n.SH ").next().unwrap();
    let schema: Value = serde_json::from_str(&tool(Command::new(PROGRAM).arg("schema"))).unwrap();
    let on = schema.to_string();
    let rules = std::fs::read_to_string(root().join("examples/monitoring/tokenferry.rules.yaml")).unwrap();
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned));
    let words =
        ["failed", "atRisk", "expired", "rejected", "recovered", "owed", "recordsLost", "scheduleRefused", "ownCredential", "fleetTrouble"];
    for word in words {
        assert!(on.contains(&format!("\"{word}\"")), "{word} is no word of `alerts` any more");
    }
    let all: Vec<String> = words.iter().map(|&word| word.to_owned()).chain(alerts).collect();
    assert!(all.len() > 18, "{all:?}");
    for word in all {
        assert!(explained.contains(&word), "{word} is not explained");
    }
}
