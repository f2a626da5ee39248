//! A long file in blocks of whole lines that are parsed side by side, and handed out in their order.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::record::chain::{self, Link, Seal};
use crate::record::files::{self, LONGEST};
use crate::record::line::{Line, VERSION};
use crate::record::text::Text;

/// Bytes that are read at once: with the lines that they become, they fit in the memory next to a core.
const BLOCK: usize = 128 << 10;

/// Few lines have fewer bytes.
const SHORT: usize = 400;

/// What a line is, by itself.
#[allow(clippy::large_enum_variant)] // nearly all are lines: a million boxes would be made and wiped
pub(super) enum Parsed<'a> {
    /// A line, and whether its hash is its own.
    Line(Line<Text<'a>>, bool),
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
fn parsed(text: &[u8]) -> Parsed<'_> {
    if text.len() as u64 >= LONGEST {
        return Parsed::TooLong;
    }
    let fits = || matches!(chain::seal_of(text), Seal::Fits(_));
    // Read as a whole it is known to be text, and no string in it is looked at for that. Where it is not, it depends on where.
    let line: Result<Line<Text<'_>>, _> = std::str::from_utf8(text).map_or_else(|_| serde_json::from_slice(text), serde_json::from_str);
    if let Ok(line) = line
        && !line.hash.as_ref().is_empty()
        && !line.previous.as_ref().is_empty()
    {
        return if line.version > VERSION { Parsed::Newer(line.version) } else { Parsed::Line(line, fits()) };
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
    /// Puts the next block, an empty one at the end, in the place of one that is done with. Its number comes with it.
    fn next(&mut self, block: &mut Block) -> (usize, io::Result<()>) {
        block.clear();
        block.append(&mut self.rest);
        let number = self.number;
        self.number += 1;
        (number, self.fill(block))
    }

    fn fill(&mut self, block: &mut Block) -> io::Result<()> {
        while !self.over {
            let from = block.len();
            block.reserve(BLOCK);
            self.over = (&mut self.input).take(BLOCK as u64).read_to_end(block)? == 0;
            let end = block[from..].iter().rposition(|byte| *byte == b'\n').map(|at| from + at + 1);
            if let Some(end) = end {
                self.rest.extend_from_slice(&block[end..]);
                block.truncate(end);
                break;
            }
            // Nobody asks how such a line goes on.
            self.over |= block.len() as u64 >= LONGEST;
        }
        Ok(())
    }
}

/// The lines of one block with the bytes that each takes in the file.
fn lines(block: &[u8]) -> Vec<(Parsed<'_>, u64)> {
    let mut lines = Vec::with_capacity(block.len() / SHORT);
    let mut rest = block;
    while !rest.is_empty() {
        let from = rest;
        let length = rest.skip_until(b'\n').expect("memory takes every read");
        lines.push(match from[..length].strip_suffix(b"\n") {
            Some(line) => (parsed(line), length as u64),
            None if length as u64 >= LONGEST => (Parsed::TooLong, 0),
            None => (Parsed::Torn, 0),
        });
    }
    lines
}

/// Hands out what stands in a file, line by line with its length in bytes, until `each` has enough.
///
/// # Errors
/// The first that opening and reading have shown; what stands before it is handed out.
pub(super) fn read(path: &Path, each: impl FnMut(&Parsed<'_>, u64) -> bool + Send) -> io::Result<()> {
    let input = files::open(path)?;
    let is_long = input.metadata()?.len() > BLOCK as u64;
    let cores = if is_long { std::thread::available_parallelism().map_or(1, std::num::NonZero::get) } else { 1 };
    let blocks = Mutex::new(Blocks { input, rest: Block::new(), number: 0, over: false });
    let turns = Turns { turn: Mutex::new(Turn { next: 0, each, end: None }), over: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 1..cores {
            scope.spawn(|| turns.work(&blocks));
        }
        turns.work(&blocks);
    });
    turns.turn.into_inner().unwrap_or_else(PoisonError::into_inner).end.unwrap_or(Ok(()))
}

/// Whose turn it is to hand out lines. Who parsed a block hands its lines out too, while others parse: so lines may borrow
/// from the block, and are freed where they were made.
struct Turns<E> {
    turn: Mutex<Turn<E>>,
    /// Wakes those who wait for theirs.
    over: Condvar,
}

struct Turn<E> {
    /// Number of the block.
    next: usize,
    each: E,
    /// How it ended: at the end of the file, with an error, or because `each` has enough.
    end: Option<io::Result<()>>,
}

impl<E: FnMut(&Parsed<'_>, u64) -> bool> Turns<E> {
    fn work(&self, blocks: &Mutex<Blocks>) {
        let mut block = Block::new();
        loop {
            let (number, read) = blocks.lock().unwrap_or_else(PoisonError::into_inner).next(&mut block);
            let lines = lines(&block);
            let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let wait = |turn: &mut Turn<E>| turn.next != number && turn.end.is_none();
            let mut turn = self.over.wait_while(turn, wait).unwrap_or_else(PoisonError::into_inner);
            if turn.end.is_some() {
                return;
            }
            turn.end = match read {
                Ok(()) if lines.is_empty() => Some(Ok(())),
                Ok(()) => (!lines.iter().all(|(line, bytes)| (turn.each)(line, *bytes))).then_some(Ok(())),
                Err(error) => Some(Err(error)),
            };
            turn.next += 1;
            self.over.notify_all();
        }
    }
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

    #[test]
    fn a_line_with_any_byte_changed_is_read_as_one_whose_texts_are_its_own() {
        let place = crate::record::SinkLine::new("file", "/run/tö\"ken", crate::record::Outcome::Written);
        let mut line = Line {
            target: Some("ci".into()),
            labels: [("of".to_owned(), "a\nb".to_owned())].into(),
            error: Some("é".into()),
            sinks: vec![place],
            ..Line::new(crate::record::Kind::Failed, jiff::Timestamp::UNIX_EPOCH)
        };
        let mut text = Vec::new();
        chain::seal(&mut line, 7, chain::GENESIS, &mut text);
        text.pop();
        let (mut read, mut not) = (0, 0);
        for at in 0..text.len() {
            for byte in [text[at], text[at] ^ 1, b'"', b'\\', b'0', b' ', 0, 0xff] {
                let mut changed = text.clone();
                changed[at] = byte;
                let owned = serde_json::from_slice::<Line>(&changed).ok().filter(|line| !line.hash.is_empty() && !line.previous.is_empty());
                match (parsed(&changed), owned) {
                    (Parsed::Line(line, fits), Some(owned)) => {
                        assert_eq!((format!("{line:?}"), fits), (format!("{owned:?}"), changed == text));
                        read += 1;
                    }
                    (Parsed::Newer(version), Some(owned)) => assert_eq!(version, owned.version),
                    (Parsed::Link(..) | Parsed::Newer(_) | Parsed::Unsound, None) => not += 1,
                    (_, owned) => panic!("{owned:?}: {}", String::from_utf8_lossy(&changed)),
                }
            }
        }
        assert!(read > text.len() && not > text.len());
    }
}
