//! wrk, which asks a server as fast as it answers: what it reaches is the server's ceiling.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::guard;
use super::servers::private;

/// What wrk is to do.
pub struct Load<'a> {
    /// `https://127.0.0.1:PORT`.
    pub server: &'a str,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// How long, in whole seconds.
    pub turn: Duration,
    /// Lua that makes `requests`, a list of functions of the round's number that give method, path, headers and body;
    /// they are asked for in turn.
    pub script: &'a str,
    /// The core that it runs on, where it is not to have all.
    pub core: Option<usize>,
}

/// What it did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ran {
    /// Requests that were answered.
    pub requests: usize,
    /// In that time.
    pub took: Duration,
}

impl Ran {
    /// Requests per second.
    #[allow(clippy::cast_precision_loss)] // counts far below 2^52
    pub fn per_second(self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    /// With those of another turn.
    pub fn and(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, took: self.took + other.took }
    }
}

/// A request is made when one is sent, as any client does; nothing is asked twice at the same time.
const FRAME: &str = r#"
local made, of = 0, #requests
request = function()
  local step = requests[made % of + 1]
  local round = math.floor(made / of)
  made = made + 1
  return wrk.format(step(round))
end
done = function(summary)
  local e = summary.errors
  io.write(string.format("\nran %d %d %d %d\n", summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
"#;

/// Runs it. No answer may be an error: they are cheaper than what is measured.
pub fn run(load: &Load<'_>, folder: &Path) -> Ran {
    let script = folder.join("wrk.lua");
    private(&script, &format!("{}{FRAME}", load.script));
    let mut wrk = guard::bound_on(load.core, Path::new("wrk"));
    let (connections, turn) = (load.connections.to_string(), format!("{}s", load.turn.as_secs()));
    // One thread: it is far from busy, and with several the connections would not be spread alike.
    wrk.args(["-t", "1", "-c", &connections, "-d", &turn, "--timeout", "30s", "-s"]).arg(&script).arg(load.server);
    let out = wrk.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("wrk runs");
    let said = String::from_utf8_lossy(&out.stdout);
    let numbers: Vec<usize> = said
        .lines()
        .find_map(|line| line.strip_prefix("ran "))
        .map(|numbers| numbers.split(' ').filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    let [requests, duration, refused, broken] = numbers[..] else { panic!("wrk says\n{said}") };
    assert!(refused == 0 && broken == 0, "of {requests} requests of wrk {refused} were refused and {broken} broke off");
    Ran { requests, took: Duration::from_micros(duration as u64) }
}

/// Installs it from Debian where it is missing.
pub fn install() {
    let there = |name: &str| {
        Command::new("sh").args(["-c", &format!("command -v {name}")]).stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    if there("wrk") {
        return;
    }
    let root = rustix::process::geteuid().is_root();
    assert!(root && there("apt-get"), "wrk is missing: install it, on Debian with `sudo apt-get install wrk`");
    eprintln!("apt-get install wrk ...");
    let install = "apt-get -qq -o DPkg::Lock::Timeout=300 update && \
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 install wrk";
    let done = Command::new("sh").args(["-c", install]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(done.as_ref().is_ok_and(|s| s.success()), "wrk could not be installed from Debian: {done:?}");
}
