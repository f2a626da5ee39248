//! Every command in README.md is run, on a host that a mount namespace makes of this one, against a real API
//! server. (`bash tests/run` runs these tests; that it is what continuous integration calls is looked up instead.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::shipped::{bare, root};
use crate::support::daemon::{PROGRAM, finish, tool};
use crate::support::servers::cluster;

/// Words that a person reads in ten minutes.
const TEN_MINUTES: usize = 2000;
/// Run by tests of their own.
const APART: [&str; 2] = ["examples/quickstart", "bash tests/run"];

/// The commands that make and install a package: the tests of packages run them.
pub fn of_packages() -> Vec<String> {
    let block = blocks("sh").into_iter().find(|block| block.starts_with("packaging/build"));
    block.expect("the README says how packages are made").lines().map(str::to_owned).collect()
}

/// The folders of the host that are written to, with others laid over them.
const LAYERS: &str = r#"
set -euo pipefail
mount -t tmpfs none "$LAYERS"
for folder in /etc /usr/local /var/lib; do
  mkdir -p "$LAYERS$folder/upper" "$LAYERS$folder/work"
  mount -t overlay none -o "lowerdir=$folder,upperdir=$LAYERS$folder/upper,workdir=$LAYERS$folder/work" "$folder"
done
mount -t tmpfs -o mode=0755 none /run
"#;

/// What stands before the README's commands: `sudo` and `systemctl`, which here does what the unit says without
/// a systemd.
const HOST: &str = r#"
getent group ci >/dev/null || echo 'ci:x:64321:' >>/etc/group

# Not optimised: the commands are under test here, not the code's speed.
cargo() { (cd "$REPOSITORY" && CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=0 command cargo "$@"); }
sudo() { "$@"; }
unit() { sed -n "s/^$1=-\{0,1\}//p" /etc/systemd/system/tokenferry.service; }
service() {
  # Split into words on purpose, as systemd does.
  setpriv --reuid "$(unit User)" --regid "$(unit Group)" --init-groups --no-new-privs --bounding-set -all --inh-caps -all $(unit "$1")
}
systemctl() {
  case $* in
    daemon-reload) ;;
    "enable --now tokenferry")
      service ExecStartPre
      service ExecStart &
      for ((tenth = 0; tenth < 300; tenth++)); do [[ ! -S /run/tokenferry/control.sock ]] || return 0; sleep 0.1; done
      return 1 ;;
    "reload tokenferry") service ExecReload ;;
    *) echo "systemctl $*: not known here" >&2; return 1 ;;
  esac
}
export -f systemctl unit service
PS4='+ README: '
set -x
"#;

/// What has to be true when all of them were run.
const AFTER: &str = r#"
set +x
echo "placed: $(stat -c '%a %U %G' /run/tokenferry/ci/token)"
echo "program: $(stat -c '%a %U' /usr/local/bin/tokenferry)"
echo "socket: $(stat -c '%a %U %G' /run/tokenferry/control.sock)"
echo "records: $(stat -c '%a %U' /var/lib/tokenferry/records)"
sed 's,prod.token,/run/tokenferry/ci/token,' prod.kubeconfig >reader.kubeconfig
echo "authenticates: $(kubectl --kubeconfig reader.kubeconfig auth whoami --output 'jsonpath={.status.userInfo.username}')"
"#;

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// The README's blocks of that language, in order.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(name), None) => {
                assert!(!name.is_empty(), "a block of the README does not say what it is, so nothing runs it");
                open = Some((name == language, String::new()));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block)),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn its_commands_install_a_service_that_keeps_a_first_token_fresh() {
    let work = tempfile::Builder::new().prefix("tokenferry-readme-").tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    std::fs::create_dir(at("layers")).unwrap();
    std::fs::write(at("layers.sh"), LAYERS).unwrap();
    let mut probe = namespace("layers.sh");
    probe.current_dir(work.path()).env("LAYERS", at("layers"));
    let probed = finish(probe, Duration::from_secs(60));
    if probed.code != Some(0) {
        println!("NOT RUN: the README's commands install a service; this needs root and mounts: {}", probed.stderr);
        return;
    }
    let kube = cluster().kube();
    for entry in std::fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), at(&entry.file_name().to_string_lossy())).unwrap();
    }
    let schedules = blocks("yaml");
    assert_eq!(schedules.len(), 1, "the README shows one schedule");
    std::fs::write(at("schedule.yaml"), &schedules[0]).unwrap();
    let commands: Vec<String> =
        blocks("sh").into_iter().filter(|block| !APART.contains(&block.trim()) && !block.starts_with("packaging/build")).collect();
    assert!(commands.len() >= 5, "only {} blocks of commands found", commands.len());
    std::fs::write(at("all.sh"), format!("{LAYERS}\n{HOST}\n{}\n{AFTER}", commands.join("\n"))).unwrap();

    let mut command = namespace("all.sh");
    let path = format!("{}:/usr/local/bin:{}", kube.kubectl.parent().unwrap().display(), std::env::var("PATH").unwrap());
    bare(&mut command).current_dir(work.path()).env("PATH", path).env("REPOSITORY", root()).env("LAYERS", at("layers"));
    command.env("CARGO_TARGET_DIR", target().join("readme")).env("KUBECONFIG", &kube.admin_kubeconfig).env("KUBECACHEDIR", at("cache"));
    let done = finish(command, Duration::from_secs(1800));
    let said = format!("{}\n{}", done.stdout, done.stderr);
    assert_eq!(done.code, Some(0), "{said}");
    for fact in [
        "placed: 640 tokenferry ci",
        "program: 755 root",
        "socket: 660 tokenferry tokenferry-admin",
        "records: 700 tokenferry",
        "authenticates: system:serviceaccount:cicd:cicd-deployer",
    ] {
        assert!(done.stdout.contains(fact), "not `{fact}`:\n{said}");
    }
    assert!(!said.contains("eyJhbGci"), "a token was shown");
}

/// A script among mounts and processes of its own, all of which end with it.
fn namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", script]);
    command
}

/// Where cargo put this test's program.
fn target() -> PathBuf {
    Path::new(PROGRAM).ancestors().nth(2).expect("TARGET/PROFILE/tokenferry").into()
}

#[test]
fn its_two_first_commands_are_the_quickstart_and_what_continuous_integration_runs() {
    let commands = blocks("sh");
    assert_eq!([commands[0].trim(), commands[1].trim()], APART);
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert_eq!(ci.lines().last(), Some("exec bash tests/run"));
    tool(Command::new("bash").arg("-n").arg(root().join("tests/run")));
}

#[test]
fn it_is_read_in_ten_minutes() {
    let words = readme().split_whitespace().count();
    assert!(words < TEN_MINUTES, "{words} words");
}

#[test]
fn its_links_lead_to_files() {
    let text = readme();
    let links: Vec<&str> =
        text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.starts_with("https:")).collect();
    assert!(links.len() > 3, "links: {links:?}");
    let dead: Vec<&&str> = links.iter().filter(|link| !root().join(link).exists()).collect();
    assert!(dead.is_empty(), "{dead:?}");
}
