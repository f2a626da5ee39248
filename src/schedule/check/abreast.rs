//! Texts are parsed beside planning: while one target is planned the next ones are read, and those of other files with
//! them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::texts::{Part, Text};
use crate::schedule::yaml::{self, Broken, Node};

/// Bytes below which threads take longer than they spare.
const WORTH_IT: usize = 64 << 10;
/// Targets handed over together.
const TOGETHER: usize = 128;
/// So many times that wait between one part's parsing and its planning: trees are larger than what is planned of them.
const AHEAD: usize = 4;

/// What comes of parsing a part.
pub(super) enum Parsed {
    /// It was planned before, and nothing is parsed.
    Known,
    /// It begins.
    Begin,
    /// One more target.
    Target(Node),
    /// The file has none.
    Empty,
    /// There are no more of that part.
    End(Result<(), Broken>),
    /// Nor of that file.
    EndOfFile,
}

type Batch = Vec<Parsed>;

/// Parses these parts and hands out what comes of them, in their order.
pub(super) fn parse<'a>(parts: &[Part<'a>], each: impl FnMut(&Part<'a>, Parsed)) {
    let todo: Vec<&Part<'_>> = parts.iter().filter(|part| !part.known).collect();
    let bytes: usize = todo.iter().map(|part| part.piece.map_or(part.text.1, |piece| piece.text).len()).sum();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut taker = Taker { each, given: 0, broken: false };
    if cores == 1 || bytes < WORTH_IT {
        for part in parts {
            taker.part(part, |take| parsed(part, take));
        }
        return;
    }
    let (hands, ends): (Vec<SyncSender<Batch>>, Vec<Receiver<Batch>>) = todo.iter().map(|_| sync_channel(AHEAD)).unzip();
    let next = AtomicUsize::new(0);
    let hands: Vec<_> = hands.into_iter().map(|hand| Mutex::new(Some(hand))).collect();
    // Whoever takes a part up waits until few of them are ahead of the planner.
    let (ahead, behind) = sync_channel::<()>(cores);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(todo.len()) {
            let ahead = ahead.clone();
            let (next, todo, hands) = (&next, &todo, &hands);
            scope.spawn(move || {
                while ahead.send(()).is_ok() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((part, hand)) = todo.get(index).zip(hands.get(index)) else { return };
                    // Its end of the channel goes with it, so that the planner knows when nothing more comes.
                    if let Some(hand) = hand.lock().unwrap_or_else(PoisonError::into_inner).take() {
                        hand_over(part, &hand);
                    }
                }
            });
        }
        // Both end with the planner, so that nobody waits for one that panicked.
        let (mut ends, behind) = (ends.into_iter(), behind);
        for part in parts {
            taker.part(part, |take| {
                ends.next().into_iter().flat_map(|end| end.into_iter().flatten()).for_each(take);
                // Who parsed it said so before.
                let _ = behind.recv();
            });
        }
    });
}

/// Hands out what comes of parts.
struct Taker<F> {
    each: F,
    /// Targets of the file at hand that were handed out.
    given: usize,
    /// Whether a piece of it turned out to be broken.
    broken: bool,
}

impl<F> Taker<F> {
    fn part<'a>(&mut self, part: &Part<'a>, parse: impl FnOnce(&mut dyn FnMut(Parsed)))
    where
        F: FnMut(&Part<'a>, Parsed),
    {
        if part.known {
            (self.each)(part, Parsed::Known);
        } else {
            (self.each)(part, Parsed::Begin);
            parse(&mut |parsed| self.take(part, parsed));
        }
        if part.last {
            (self.each)(part, Parsed::EndOfFile);
            (self.given, self.broken) = (0, false);
        }
    }

    fn take<'a>(&mut self, part: &Part<'a>, parsed: Parsed)
    where
        F: FnMut(&Part<'a>, Parsed),
    {
        match parsed {
            _ if self.broken => {}
            Parsed::Target(node) => {
                self.given += 1;
                (self.each)(part, Parsed::Target(node));
            }
            // What is wrong is told by who sees all of it.
            Parsed::End(Err(_)) if part.piece.is_some() => {
                self.broken = true;
                whole(part.text, self.given, &mut |parsed| (self.each)(part, parsed));
            }
            parsed => (self.each)(part, parsed),
        }
    }
}

fn hand_over(part: &Part<'_>, hand: &SyncSender<Batch>) {
    let mut some = Vec::with_capacity(TOGETHER);
    parsed(part, &mut |parsed| {
        some.push(parsed);
        if some.len() == TOGETHER {
            // Nobody takes it where planning panicked; that is told elsewhere.
            let _ = hand.send(std::mem::replace(&mut some, Vec::with_capacity(TOGETHER)));
        }
    });
    let _ = hand.send(some);
}

fn parsed(part: &Part<'_>, each: &mut dyn FnMut(Parsed)) {
    let Some(piece) = part.piece else { return whole(part.text, 0, each) };
    let ended = yaml::piece(piece, |node| each(Parsed::Target(node)));
    each(Parsed::End(ended));
}

/// Parses a text that is not cut; the first targets, so many, were handed out before.
fn whole((_, text, only_targets): Text<'_>, given: usize, each: &mut dyn FnMut(Parsed)) {
    if only_targets && yaml::is_empty(text) {
        each(Parsed::Empty);
        return each(Parsed::End(Ok(())));
    }
    let mut number = 0;
    let ended = yaml::targets(text, only_targets, |node| {
        number += 1;
        if number > given {
            each(Parsed::Target(node));
        }
    });
    each(Parsed::End(ended));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Sources;
    use super::super::texts::Texts;
    use super::*;

    fn sources(text: String, includes: Vec<String>) -> Sources {
        let includes = includes.into_iter().enumerate().map(|(file, text)| (format!("/{file}.yaml").into(), text)).collect();
        Sources { path: "/s.yaml".into(), text, includes }
    }

    #[test]
    fn targets_of_many_large_files_come_in_their_order_with_what_is_wrong_in_each() {
        let list = |file: usize, count: usize| (0..count).map(|n| format!("- name: f{file}-{n}\n")).collect::<String>();
        let mut texts: Vec<String> = (1..10).map(|file| list(file, 3_000 * file)).collect();
        texts[3] = "# nothing\n".into();
        texts[5].push_str("- name: [\n");
        let sources = sources("version: 1\n".into(), texts);
        let parts = Texts::of(&sources, &BTreeMap::new()).parts;
        assert!(parts.len() > 12, "some files are cut, others are not");
        let (mut names, mut empty, mut broken, mut ended) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        parse(&parts[1..], |part, parsed| {
            let (file, _, whole) = part.text;
            assert!(whole);
            match parsed {
                Parsed::Target(node) => names.push((file, node.get("name").map(|name| format!("{:?}", name.value)))),
                Parsed::Empty => empty.push(file),
                Parsed::End(Err(why)) => broken.push((file, why.at.line)),
                Parsed::EndOfFile => ended.push(file),
                Parsed::Known | Parsed::Begin | Parsed::End(Ok(())) => {}
            }
        });
        assert_eq!((empty, ended, broken.len(), broken[0].0), (vec![4], (1..10).collect(), 1, 6));
        assert!(broken[0].1 >= 18_000);
        for file in [1usize, 2, 3, 5, 7, 8, 9] {
            let seen: Vec<&String> = names.iter().filter(|(of, _)| *of == file).filter_map(|(_, name)| name.as_ref()).collect();
            assert_eq!(seen.len(), 3_000 * file);
            for (number, name) in seen.into_iter().enumerate() {
                assert!(name.contains(&format!("\"f{file}-{number}\"")), "{name}");
            }
        }
    }

    #[test]
    fn a_long_list_that_is_broken_in_its_midst_is_told_as_if_it_had_not_been_cut() {
        let list = |from: usize, to: usize| (from..to).map(|n| format!("- {{name: t{n}, labels: {{a: b}}}}\n")).collect::<String>();
        let text = format!("version: 1\ntargets:\n{}- name: 'x\n{}", list(0, 20_000), list(20_000, 40_000));
        let (mut cut, mut uncut) = ((0, Vec::new()), (0, Vec::new()));
        let count = |seen: &mut (usize, Vec<Broken>), parsed| match parsed {
            Parsed::Target(_) => seen.0 += 1,
            Parsed::End(ended) => seen.1.extend(ended.err()),
            Parsed::Known | Parsed::Begin | Parsed::Empty | Parsed::EndOfFile => {}
        };
        let sources = sources(text, Vec::new());
        let parts = Texts::of(&sources, &BTreeMap::new()).parts;
        assert!(parts.len() > 3);
        parse(&parts, |_, parsed| count(&mut cut, parsed));
        whole((0, &sources.text, false), 0, &mut |parsed| count(&mut uncut, parsed));
        assert_eq!(cut, uncut);
        assert_eq!((cut.0, cut.1.len()), (20_000, 1));
    }
}
