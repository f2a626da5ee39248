//! T10: whatever others write, no reader of it panics, hangs or grows without bound. Well-formed seeds are spoiled a
//! little or a lot and thrown at the probes, in a process of their own whose memory and time are limited. libFuzzer
//! does the same by coverage (`fuzz/`, run by `tests/long T10`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::probes;
use crate::support::daemon::finish;

const CHILD: &str = "TOKENFERRY_TEST_FUZZ_CHILD";
/// Address space of the process that reads, in bytes: code, stacks and the allocator's arenas take half a GiB of it.
const MEMORY: u64 = 2 << 30;
/// No case of at most 100 kB takes as long on any machine that is not stuck.
const CASE: Duration = Duration::from_secs(30);
/// Text that means something to one of the readers.
const WORDS: [&str; 40] = [
    "\n",
    "\r\n\r\n",
    "\0",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "| ",
    "!!",
    "\"",
    "'",
    "%",
    "#",
    ",",
    ".",
    "-1",
    "0",
    "9999999999999999999999",
    "1e999",
    "null",
    "true",
    "\u{feff}",
    "\u{1f980}",
    "eyJ",
    "eyJhIjoxfQ",
    "Bearer ",
    "*/0",
    "1-5/2",
    "L",
    "Wed, 31 Feb 2026 25:61:61 GMT",
    "\"seq\":18446744073709551615",
    "\"hash\":\"",
    "content-length: 18446744073709551615\r\n",
    "HTTP/1.1",
];

#[derive(Debug, Clone)]
enum Edit {
    Bytes(Index, usize, Vec<u8>),
    Word(Index, usize, usize),
    Repeat(Index, usize, usize),
    Cut(Index),
    Swap(Index, Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (any::<Index>(), 0usize..16, proptest::collection::vec(any::<u8>(), 0..6)).prop_map(|(at, out, with)| Edit::Bytes(at, out, with)),
        6 => (any::<Index>(), 0usize..12, 0..WORDS.len()).prop_map(|(at, out, word)| Edit::Word(at, out, word)),
        2 => (any::<Index>(), 1usize..40, 1usize..2000).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        1 => any::<Index>().prop_map(Edit::Cut),
        1 => (any::<Index>(), any::<Index>(), 1usize..200).prop_map(|(from, to, length)| Edit::Swap(from, to, length)),
    ]
}

impl Edit {
    fn apply(&self, text: &mut Vec<u8>) {
        let place = |at: &Index, text: &[u8]| at.index(text.len() + 1);
        let end = |at: usize, length: usize, text: &[u8]| (at + length).min(text.len());
        match self {
            Self::Bytes(at, out, with) => {
                let at = place(at, text);
                text.splice(at..end(at, *out, text), with.iter().copied());
            }
            Self::Word(at, out, word) => {
                let at = place(at, text);
                text.splice(at..end(at, *out, text), WORDS[*word].bytes());
            }
            Self::Repeat(at, length, times) => {
                let at = place(at, text);
                let again = text[at..end(at, *length, text)].repeat(*times);
                text.splice(at..at, again.into_iter().take(90_000));
            }
            Self::Cut(at) => text.truncate(place(at, text)),
            Self::Swap(from, to, length) => {
                let from = place(from, text);
                let taken: Vec<u8> = text.drain(from..end(from, *length, text)).collect();
                let to = place(to, text);
                text.splice(to..to, taken);
            }
        }
        text.truncate(100_000);
    }
}

fn below(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    files
}

/// Runs the probe on its seeds, and on what becomes of them, in a child of this test with limits.
fn probe(name: &str, folders: &[&str], cases: [u32; 2], probe: fn(&[u8])) {
    let long = std::env::var("TOKENFERRY_LONG").is_ok_and(|long| long == "1");
    let cases = cases[usize::from(long)];
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        setrlimit(Resource::As, Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) }).unwrap();
        return throw(folders, cases, probe);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("fuzz::t10_{name}")]).env(CHILD, name);
    let begun = Instant::now();
    let done = finish(command, Duration::from_secs(if long { 900 } else { 300 }));
    assert!(done.code == Some(0), "{:?}\n{}\n{}", done.code, done.stdout, done.stderr);
    assert!(done.stdout.contains("1 passed"), "the child ran nothing: {}", done.stdout);
    println!("figures: T10: {name}: {cases} inputs in {:.1} s, below {} MiB, 0 bad", begun.elapsed().as_secs_f64(), MEMORY >> 20);
}

fn throw(folders: &[&str], cases: u32, probe: fn(&[u8])) {
    let seeds: Vec<Vec<u8>> = folders.iter().flat_map(|folder| below(folder)).map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| probe(seed));
    let input = prop_oneof![
        8 => (any::<Index>(), proptest::collection::vec(edit(), 1..6)).prop_map(move |(seed, edits)| {
            let mut text = seed.get(&seeds).clone();
            edits.iter().for_each(|edit| edit.apply(&mut text));
            text
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
        1 => "\\PC{0,200}".prop_map(String::into_bytes),
    ];
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let ran = runner.run(&input, |text| {
        let begun = Instant::now();
        probe(&text);
        if begun.elapsed() < CASE { Ok(()) } else { Err(TestCaseError::fail(format!("{:?} for {} bytes", begun.elapsed(), text.len()))) }
    });
    if let Err(error) = ran {
        panic!("{error}");
    }
}

#[test]
fn t10_schedule() {
    probe("schedule", &["schedules/good", "schedules/bad"], [150, 20_000], probes::schedule);
}

#[test]
fn t10_cron() {
    probe("cron", &["seeds/cron"], [400, 50_000], probes::cron);
}

#[test]
fn t10_jwt() {
    probe("jwt", &["seeds/jwt"], [400, 50_000], probes::jwt);
}

#[test]
fn t10_retry_after() {
    probe("retry_after", &["seeds/retry_after"], [1000, 200_000], probes::retry_after);
}

#[test]
fn t10_records() {
    probe("records", &["seeds/records"], [150, 10_000], probes::records);
}

#[test]
fn t10_control() {
    probe("control", &["seeds/control"], [150, 10_000], probes::control);
}
