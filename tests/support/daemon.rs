//! The real program, run as a user runs it.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::until;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tokenferry");
/// No command of a test takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// A host of its own: folders, a schedule, perhaps a daemon.
pub struct Host {
    /// Everything is below it.
    pub folder: TempDir,
    daemon: Option<Child>,
}

impl Host {
    /// A host with that schedule; `HERE` in it stands for the host's folder. Records, socket and embedded keys
    /// are below the folder too.
    pub fn new(schedule: &str) -> Self {
        // /dev/shm is a tmpfs everywhere, as /run is on hosts with systemd.
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        Self::below(&base, schedule)
    }

    /// A host as above whose folder is below that one.
    pub fn below(base: &Path, schedule: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("tokenferry-test-").tempdir_in(base).unwrap();
        std::fs::create_dir(folder.path().join("out")).unwrap();
        let host = Self { folder, daemon: None };
        host.write_schedule(schedule);
        host
    }

    /// The host's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The schedule file.
    pub fn schedule(&self) -> PathBuf {
        self.path("schedule.yaml")
    }

    /// Writes the schedule; `records` and `control` are added. A kubeconfig of the tests' servers becomes that of a
    /// user of this host, who gets the rights that `rbac` prints.
    pub fn write_schedule(&self, text: &str) {
        self.write_schedule_with(text, &[]);
    }

    /// The same; `rights` are further words for `rbac`.
    pub fn write_schedule_with(&self, text: &str, rights: &[&str]) {
        let here = self.folder.path().display().to_string();
        let head = format!("version: 1\nrecords: {{directory: {here}/state/records}}\ncontrol: {{socket: {here}/control.sock}}\n");
        let text = super::rights::own_users(self, &(head + &text.replace("HERE", &here)));
        std::fs::write(self.schedule(), text).unwrap();
        super::rights::grant(self, rights);
    }

    /// A command of the program, on this host's schedule.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--schedule").arg(self.schedule()).args(arguments).env_remove("TOKENFERRY_SCHEDULE").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Done {
        finish(self.command(arguments), LIMIT)
    }

    /// Runs a command that shows JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let done = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{arguments:?} showed no JSON ({e}): {done:?}"))
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        self.start_with(&[]);
        until("the daemon answers", 60, || {
            self.assert_running();
            self.run(&["status", "-o", "json", "--timeout", "20s"]).stdout.contains("\"pid\"")
        });
    }

    /// Starts the daemon with these variables.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "a daemon runs already");
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path("daemon.log")).unwrap();
        let mut command = self.command(&["--log", "json", "run"]);
        command.envs(variables.iter().copied()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Starts the daemon in mounts of its own, once that script has changed them, and waits until it answers.
    pub fn start_below(&mut self, script: &str) {
        assert!(self.daemon.is_none(), "a daemon runs already");
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path("daemon.log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"]);
        command.arg(PROGRAM).arg("--schedule").arg(self.schedule()).args(["--log", "json", "run"]);
        command.env_remove("TOKENFERRY_SCHEDULE").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        until("the daemon answers", 60, || {
            self.assert_running();
            self.run(&["status", "-o", "json", "--timeout", "20s"]).stdout.contains("\"pid\"")
        });
    }

    /// Starts the daemon as a service manager would that gives it this state folder, and waits until it answers.
    pub fn start_as_a_service(&mut self, state: &Path) {
        assert!(self.daemon.is_none(), "a daemon runs already");
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path("daemon.log")).unwrap();
        let mut command = self.as_a_service(&["--log", "json", "run"], state);
        self.daemon = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        until("the daemon answers", 60, || {
            self.assert_running();
            self.run(&["status", "-o", "json", "--timeout", "20s"]).stdout.contains("\"pid\"")
        });
    }

    /// A command as a service manager starts it (systemd.exec(5)): it knows its own number, and a state folder.
    pub fn as_a_service(&self, arguments: &[&str], state: &Path) -> Command {
        std::fs::create_dir_all(state).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "SYSTEMD_EXEC_PID=$$ exec \"$@\"", "sh", PROGRAM, "--schedule"]).arg(self.schedule()).args(arguments);
        command.env("STATE_DIRECTORY", state).env_remove("TOKENFERRY_SCHEDULE").stdin(Stdio::null());
        command
    }

    fn assert_running(&mut self) {
        let ended = self.daemon.as_mut().and_then(|d| d.try_wait().unwrap());
        assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", self.log());
    }

    /// One rotation of a target, asked for over the socket, without a command.
    pub fn rotate(&self, target: &str) -> Option<Value> {
        rotate(&self.path("control.sock"), target)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon was started").id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap(), signal).unwrap();
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon was started");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Ends it in good order; gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let mut daemon = self.daemon.take().expect("a daemon was started");
        wait(&mut daemon, Duration::from_secs(60)).unwrap_or_else(|| panic!("the daemon did not stop\n{}", self.log()))
    }

    /// The status of a target.
    pub fn target(&self, name: &str) -> Value {
        let status = self.json(&["status", name]);
        status["targets"][0].clone()
    }

    /// Every line of the records, in order, checkpoints left out.
    pub fn records(&self) -> Vec<Value> {
        let folder = self.path("state/records");
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "jsonl"));
        files.sort();
        let lines =
            files.iter().flat_map(|f| std::fs::read_to_string(f).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>());
        let lines = lines.filter_map(|l| serde_json::from_str::<Value>(&l).ok());
        lines.filter(|l| !matches!(l["kind"].as_str(), Some("checkpoint" | "checkpointEnd"))).collect()
    }

    /// The records of a kind about a target.
    pub fn records_of(&self, kind: &str, target: &str) -> Vec<Value> {
        self.records().into_iter().filter(|l| l["kind"] == kind && l["target"] == target).collect()
    }

    /// Writes a private file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Reads a file of the host.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}

/// Asks the daemon behind that socket for a rotation; its terminal record, once it is durable.
pub fn rotate(socket: &Path, target: &str) -> Option<Value> {
    use std::io::Write;
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    write!(stream, "POST /rotate?target={target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    answer["outcomes"][0].get("record").cloned()
}

/// What became of a command.
#[derive(Debug)]
pub struct Done {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its data.
    pub stdout: String,
    /// Its talk.
    pub stderr: String,
}

/// Runs a command to its end, which has to come in time.
pub fn finish(mut command: Command, limit: Duration) -> Done {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdout = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipes.0.read_to_end(&mut text).map(|_| text)
    });
    let stderr = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipes.1.read_to_end(&mut text).map(|_| text)
    });
    let Some(code) = wait(&mut child, limit) else {
        let _ = child.kill();
        panic!("{command:?} did not end within {limit:?}");
    };
    let text = |bytes: std::io::Result<Vec<u8>>| String::from_utf8_lossy(&bytes.unwrap()).into_owned();
    Done { code, stdout: text(stdout.join().unwrap()), stderr: text(stderr.join().unwrap()) }
}

fn wait(child: &mut Child, limit: Duration) -> Option<Option<i32>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.code());
        }
        if begun.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a tool of the test's own; it has to succeed.
pub fn tool(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
