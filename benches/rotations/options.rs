//! What the benchmark was asked for.

use std::time::Duration;

/// A part of the table, with the name that `--only` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Mint to published file, beside wrk.
    Mint,
    /// The same beside a loop of `kubectl create token`.
    Kubectl,
    /// The same beside OpenBao Agent.
    Agent,
    /// What grows with a fleet: start, rest, reload, `get`, CPU per rotation.
    Fleet,
    /// `check` of a large schedule beside bare parsing.
    Check,
    /// Durable publication on ext4.
    Disk,
    /// Records: appended and folded.
    Records,
    /// Writes to OpenBao and to AWS Secrets Manager, beside wrk.
    Stores,
    /// The release binary.
    Size,
}

impl Part {
    /// All of them, in the order of the table.
    pub const ALL: [(&str, Self); 9] = [
        ("mint", Self::Mint),
        ("kubectl", Self::Kubectl),
        ("agent", Self::Agent),
        ("fleet", Self::Fleet),
        ("check", Self::Check),
        ("disk", Self::Disk),
        ("records", Self::Records),
        ("stores", Self::Stores),
        ("size", Self::Size),
    ];
}

/// Counts and times of all parts.
pub struct Options {
    /// The parts to run.
    pub parts: Vec<Part>,
    /// Targets of one API server.
    pub targets: usize,
    /// How often each side has its turn, the other between.
    pub rounds: usize,
    /// How long wrk and the loops have at each turn.
    pub turn: Duration,
    /// Rotations of the kubectl loop, half of them before our side and half after it.
    pub kubectl: usize,
    /// Targets of the larger round against OpenBao Agent.
    pub agent: usize,
    /// How long OpenBao Agent has for them.
    pub limit: Duration,
    /// Targets of an embedded cluster for what grows with a fleet.
    pub fleet: usize,
    /// How long the daemon is watched at rest.
    pub rest: Duration,
    /// Record lines to fold.
    pub lines: usize,
    /// The API server signs with P-256 instead of RSA 2048, which clusters sign with unless told otherwise.
    pub p256: bool,
    /// Minutes of the soak, which then is all that is done.
    pub soak: Option<usize>,
    /// Targets of each of its daemons.
    pub soaked: usize,
}

const USAGE: &str = "usage: cargo bench --bench rotations -- [--only PART,…] [OPTION…]
    --only PART,…   only these: mint kubectl agent fleet check disk records stores size
    --brief         small counts and short turns, to see that all of it works: the figures mean little
    --targets N     targets of one API server (2000)
    --rounds N      turns of each side in a comparison (3)
    --turn SECONDS  length of a turn (3)
    --kubectl N     rotations of the kubectl loop (200)
    --agent N       targets of the larger round against OpenBao Agent (1000)
    --limit SECONDS what OpenBao Agent has for them (400)
    --fleet N       targets of the fleet (100000)
    --rest SECONDS  how long the fleet is watched at rest (60)
    --lines N       record lines to fold (1000000)
    --p256          the API server signs ES256 instead of RS256
    --soak MINUTES  not the table: ten thousand targets with tokens of one minute, and a kill -9 a minute (1440: a day)";

impl Options {
    /// Of the words behind the program's name; the usage, and the end, where they make no sense.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self::new();
        // cargo says `--bench` to every benchmark.
        let mut arguments = arguments.filter(|a| a != "--bench");
        while let Some(argument) = arguments.next() {
            let mut number =
                |least: usize| arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n >= least).unwrap_or_else(|| usage());
            match argument.as_str() {
                "--targets" => options.targets = number(10),
                "--rounds" => options.rounds = number(1),
                "--turn" => options.turn = seconds(number(1)),
                "--kubectl" => options.kubectl = number(2),
                "--agent" => options.agent = number(10),
                "--limit" => options.limit = seconds(number(10)),
                "--fleet" => options.fleet = number(1_000),
                "--rest" => options.rest = seconds(number(1)),
                "--lines" => options.lines = number(1_000),
                "--p256" => options.p256 = true,
                "--soak" => options.soak = Some(number(3)),
                "--brief" => options.make_brief(),
                "--only" => options.parts = parts(&arguments.next().unwrap_or_else(|| usage())),
                _ => usage(),
            }
        }
        options
    }

    fn new() -> Self {
        Self {
            parts: Part::ALL.iter().map(|(_, part)| *part).collect(),
            targets: 2_000,
            rounds: 3,
            turn: Duration::from_secs(3),
            kubectl: 200,
            agent: 1_000,
            limit: Duration::from_secs(400),
            fleet: 100_000,
            rest: Duration::from_secs(60),
            lines: 1_000_000,
            p256: false,
            soak: None,
            soaked: 10_000,
        }
    }

    fn make_brief(&mut self) {
        let (rounds, turn, limit, rest) = (1, Duration::from_secs(1), Duration::from_secs(20), Duration::from_secs(3));
        *self = Self {
            targets: 200,
            rounds,
            turn,
            kubectl: 20,
            agent: 100,
            limit,
            fleet: 2_000,
            rest,
            lines: 20_000,
            soaked: 500,
            parts: std::mem::take(&mut self.parts),
            p256: self.p256,
            soak: self.soak,
        };
    }
}

fn parts(names: &str) -> Vec<Part> {
    let part = |name: &str| Part::ALL.iter().find(|(n, _)| *n == name).map_or_else(|| usage(), |(_, part)| *part);
    names.split(',').map(part).collect()
}

fn seconds(count: usize) -> Duration {
    Duration::from_secs(count as u64)
}

#[allow(clippy::disallowed_methods)] // before there is anything to wipe or to remove
fn usage() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2)
}
