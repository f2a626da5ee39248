//! A long file in blocks of whole lines that are parsed side by side, and handed out in their order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use crate::record::chain::{self, Link, Seal};
use crate::record::files::{self, LONGEST};
use crate::record::line::{Line, VERSION};

/// Bytes that are read at once.
const BLOCK: usize = 512 << 10;

/// What a line is, by itself.
pub(super) enum Parsed {
    /// A line, and whether its hash is its own.
    Line(Box<Line>, bool),
    /// One whose kind only a newer program knows: it still has its place in the chain.
    Link(Link, bool),
    /// A newer program wrote it, with that version.
    Newer(u32),
    /// No line of the records.
    Unsound,
    /// Longer than any line may be.
    TooLong,
    /// Bytes without a newline at the file's end.
    Torn,
}

/// A line's text, newline taken off.
fn parsed(text: &[u8]) -> Parsed {
    if text.len() as u64 >= LONGEST {
        return Parsed::TooLong;
    }
    let fits = || matches!(chain::seal_of(text), Seal::Fits(_));
    if let Ok(line) = serde_json::from_slice::<Line>(text)
        && !line.hash.is_empty()
        && !line.previous.is_empty()
    {
        return if line.version > VERSION { Parsed::Newer(line.version) } else { Parsed::Line(Box::new(line), fits()) };
    }
    // The links are read by themselves: a kind that only a newer program knows still has its place in the chain.
    let link = chain::link(text);
    match link.as_ref().map_or_else(|| chain::version(text), |link| Some(link.version)) {
        Some(version) if version > VERSION => Parsed::Newer(version),
        _ => link.map_or(Parsed::Unsound, |link| Parsed::Link(link, fits())),
    }
}

/// Whole lines, each with its newline; at the end of a file perhaps without the last one.
type Block = Vec<u8>;

/// Hands out blocks of a file.
struct Blocks {
    input: File,
    /// What was read beyond the last newline.
    rest: Block,
    number: usize,
    over: bool,
}

impl Blocks {
    fn next(&mut self) -> io::Result<Option<(usize, Block)>> {
        let mut block = std::mem::take(&mut self.rest);
        while !self.over {
            let from = block.len();
            self.over = (&mut self.input).take(BLOCK as u64).read_to_end(&mut block)? == 0;
            let end = block[from..].iter().rposition(|byte| *byte == b'\n').map(|at| from + at + 1);
            if let Some(end) = end {
                self.rest = block.split_off(end);
                break;
            }
            // Nobody asks how such a line goes on.
            self.over |= block.len() as u64 >= LONGEST;
        }
        let number = self.number;
        self.number += 1;
        Ok((!block.is_empty()).then_some((number, block)))
    }
}

/// Lines of one block with the bytes that each takes in the file.
type Lines = Vec<(Parsed, u64)>;

fn lines(block: &[u8]) -> Lines {
    let one = |text: &[u8]| match text.strip_suffix(b"\n") {
        Some(line) => (parsed(line), text.len() as u64),
        None if text.len() as u64 >= LONGEST => (Parsed::TooLong, 0),
        None => (Parsed::Torn, 0),
    };
    block.split_inclusive(|byte| *byte == b'\n').map(one).collect()
}

/// Hands out what stands in a file, line by line with its length in bytes, until `each` has enough.
///
/// # Errors
/// The first that opening and reading have shown; what stands before it is handed out.
pub(super) fn read(path: &Path, mut each: impl FnMut(&Parsed, u64) -> bool) -> io::Result<()> {
    let mut blocks = Blocks { input: files::open(path)?, rest: Block::new(), number: 0, over: false };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    while let Some((_, block)) = blocks.next()? {
        if !lines(&block).iter().all(|(line, bytes)| each(line, *bytes)) {
            return Ok(());
        }
        if cores > 1 && !blocks.over {
            return abreast(&Mutex::new(blocks), cores, each);
        }
    }
    Ok(())
}

/// The same, from the second block on.
fn abreast(blocks: &Mutex<Blocks>, cores: usize, mut each: impl FnMut(&Parsed, u64) -> bool) -> io::Result<()> {
    let (hand, take) = sync_channel::<(usize, io::Result<Lines>)>(cores);
    let (give_back, spent) = channel::<Lines>();
    let spent = Mutex::new(spent);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (hand, spent) = (hand.clone(), &spent);
            scope.spawn(move || parse(blocks, &hand, spent));
        }
        drop(hand);
        in_order(take, &give_back, &mut each)
    })
}

/// Parses one block after the other, until there are no more or nobody wants them. Lines that were folded come back: who
/// made them frees them sooner than another thread would.
fn parse(blocks: &Mutex<Blocks>, hand: &SyncSender<(usize, io::Result<Lines>)>, spent: &Mutex<Receiver<Lines>>) {
    loop {
        let block = blocks.lock().unwrap_or_else(PoisonError::into_inner).next();
        let (number, lines) = match block {
            Ok(None) => return,
            Ok(Some((number, block))) => (number, Ok(lines(&block))),
            // It comes after all that was read before.
            Err(error) => (usize::MAX, Err(error)),
        };
        let is_last = lines.is_err();
        if hand.send((number, lines)).is_err() || is_last {
            return;
        }
        let lines = spent.lock().unwrap_or_else(PoisonError::into_inner).try_recv();
        drop(lines);
    }
}

fn in_order(
    take: Receiver<(usize, io::Result<Lines>)>,
    give_back: &Sender<Lines>,
    each: &mut impl FnMut(&Parsed, u64) -> bool,
) -> io::Result<()> {
    let (mut early, mut wanted) = (BTreeMap::new(), 1);
    for (number, lines) in &take {
        early.insert(number, lines);
        while let Some(lines) = early.remove(&wanted) {
            wanted += 1;
            let lines = lines?;
            if !lines.iter().all(|(line, bytes)| each(line, *bytes)) {
                // Those who parse on find nobody who takes it.
                drop(take);
                return Ok(());
            }
            // The receiver outlives all threads.
            let _ = give_back.send(lines);
        }
    }
    early.into_values().find_map(Result::err).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &Path, most: usize) -> Vec<(String, u64)> {
        let mut seen = Vec::new();
        read(path, |line, bytes| {
            let what = match line {
                Parsed::Line(line, fits) => format!("{} {fits}", line.seq),
                Parsed::Link(link, fits) => format!("link {} {fits}", link.seq),
                Parsed::Newer(version) => format!("newer {version}"),
                Parsed::Unsound => "unsound".into(),
                Parsed::TooLong => "too long".into(),
                Parsed::Torn => "torn".into(),
            };
            seen.push((what, bytes));
            seen.len() < most
        })
        .unwrap();
        seen
    }

    #[test]
    fn lines_of_many_blocks_come_in_their_order_and_no_more_than_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records-000000000001.jsonl");
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for seq in 1..=20_000 {
            let mut line = Line {
                error: Some("x".repeat(seq as usize % 700)),
                ..Line::new(crate::record::Kind::Stopped, jiff::Timestamp::UNIX_EPOCH)
            };
            let from = text.len();
            chain::seal(&mut line, seq, chain::GENESIS, &mut text);
            ends.push((text.len() - from) as u64);
        }
        assert!(text.len() > 8 * BLOCK);
        text.extend_from_slice(b"not a record\n{\"version\":9}\n");
        text.extend_from_slice(br#"{"version":1,"time":"2026-01-01T00:00:00Z","seq":7,"kind":"dreamt","previous":"x","hash":"y"}"#);
        text.extend_from_slice(b"\ntorn");
        std::fs::write(&path, &text).unwrap();
        let all = seen(&path, usize::MAX);
        assert_eq!(all.len(), 20_004);
        for (index, (seen, bytes)) in all[..20_000].iter().enumerate() {
            assert_eq!((seen.as_str(), *bytes), (format!("{} true", index + 1).as_str(), ends[index]));
        }
        let rest: Vec<&str> = all[20_000..].iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(rest, ["unsound", "newer 9", "link 7 false", "torn"]);
        assert_eq!(seen(&path, 12_345).len(), 12_345);
    }

    #[test]
    fn an_empty_file_and_one_without_an_end_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "").unwrap();
        assert_eq!(seen(&path, usize::MAX), []);
        let endless = std::fs::File::create(&path).unwrap();
        endless.set_len(LONGEST + (3 << 20)).unwrap();
        assert_eq!(seen(&path, usize::MAX), [("too long".to_owned(), 0)]);
        assert!(read(&folder.path().join("none"), |_, _| true).is_err());
    }
}
