//! Texts are parsed beside planning: while one target is planned the next ones are read, and those of other files with
//! them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use crate::schedule::yaml::{self, Broken, Node};

/// Bytes below which threads take longer than they spare.
const WORTH_IT: usize = 64 << 10;
/// Targets handed over together.
const TOGETHER: usize = 128;
/// So many times that wait between one file's parsing and its planning: trees are larger than what is planned of them.
const AHEAD: usize = 4;

/// What comes of parsing a text of targets.
pub(super) enum Parsed {
    /// One more.
    Target(Node),
    /// It has none.
    Empty,
    /// There are no more of that text.
    End(Result<(), Broken>),
}

type Batch = Vec<Parsed>;

/// A text: the number of its file, the text, and whether it is nothing but targets.
pub(super) type Text<'a> = (usize, &'a str, bool);

/// Parses these texts and hands out what comes of them, in their order; `each` is told the file and whether it is
/// nothing but targets.
pub(super) fn parse(texts: &[Text<'_>], mut each: impl FnMut(usize, bool, Parsed)) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores == 1 || texts.iter().map(|(_, text, _)| text.len()).sum::<usize>() < WORTH_IT {
        for &(file, text, whole) in texts {
            one((file, text, whole), |parsed| each(file, whole, parsed));
        }
        return;
    }
    let (hands, ends): (Vec<SyncSender<Batch>>, Vec<Receiver<Batch>>) = texts.iter().map(|_| sync_channel(AHEAD)).unzip();
    let next = AtomicUsize::new(0);
    let hands: Vec<_> = hands.into_iter().map(|hand| Mutex::new(Some(hand))).collect();
    std::thread::scope(|scope| {
        for _ in 0..cores.min(texts.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((text, hand)) = texts.get(index).zip(hands.get(index)) else { return };
                    // Its end of the channel goes with it, so that the planner knows when nothing more comes.
                    if let Some(hand) = hand.lock().unwrap_or_else(PoisonError::into_inner).take() {
                        hand_over(*text, &hand);
                    }
                }
            });
        }
        for (&(file, _, whole), end) in texts.iter().zip(&ends) {
            end.iter().flatten().for_each(|parsed| each(file, whole, parsed));
        }
    });
}

fn hand_over(text: Text<'_>, hand: &SyncSender<Batch>) {
    let mut some = Vec::with_capacity(TOGETHER);
    one(text, |parsed| {
        some.push(parsed);
        if some.len() == TOGETHER {
            // Nobody takes it where planning panicked; that is told elsewhere.
            let _ = hand.send(std::mem::replace(&mut some, Vec::with_capacity(TOGETHER)));
        }
    });
    let _ = hand.send(some);
}

fn one((_, text, whole): Text<'_>, mut each: impl FnMut(Parsed)) {
    if whole && yaml::is_empty(text) {
        return each(Parsed::Empty);
    }
    let ended = yaml::targets(text, whole, |node| each(Parsed::Target(node)));
    each(Parsed::End(ended));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_many_large_files_come_in_their_order_with_what_is_wrong_in_each() {
        let list = |file: usize, count: usize| (0..count).map(|n| format!("- name: f{file}-{n}\n")).collect::<String>();
        let mut texts: Vec<String> = (0..9).map(|file| list(file, 3_000)).collect();
        texts[3] = "# nothing\n".into();
        texts[5].push_str("- name: [\n");
        let texts: Vec<Text<'_>> = texts.iter().enumerate().map(|(file, text)| (file, &**text, true)).collect();
        let (mut names, mut empty, mut broken) = (Vec::new(), Vec::new(), Vec::new());
        parse(&texts, |file, whole, parsed| {
            assert!(whole);
            match parsed {
                Parsed::Target(node) => names.push((file, node.get("name").map(|name| format!("{:?}", name.value)))),
                Parsed::Empty => empty.push(file),
                Parsed::End(Ok(())) => {}
                Parsed::End(Err(why)) => broken.push((file, why.at.line)),
            }
        });
        assert_eq!((empty, broken.len(), broken[0].0), (vec![3], 1, 5));
        assert!(broken[0].1 >= 3_000);
        assert_eq!(names.len(), 8 * 3_000);
        for (file, numbers) in [0usize, 1, 2, 4, 5, 6, 7, 8].into_iter().zip(names.chunks(3_000)) {
            for (number, (of, name)) in numbers.iter().enumerate() {
                assert!(*of == file && name.as_ref().is_some_and(|name| name.contains(&format!("\"f{file}-{number}\""))), "{of} {name:?}");
            }
        }
    }
}
