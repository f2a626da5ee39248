//! The loop between those who append and the disk.

use super::Appended;
use super::backlog::Backlog;
use super::queue::Shared;
use super::scribe::Scribe;

/// Writes until closed.
pub(super) fn run(shared: &Shared, mut scribe: Scribe) {
    let mut backlog = Backlog::default();
    let mut error = shared.health().error;
    if error.is_some() {
        backlog.put_off();
    }
    loop {
        let taken = shared.take(backlog.pause());
        backlog.turned_away(taken.turned_away);
        for lines in taken.batches {
            backlog.push(lines);
        }
        let mut lost = 0;
        if backlog.due() || taken.closing {
            error = backlog.write(&mut scribe).err().map(|error| error.to_string());
            if error.is_some() {
                backlog.put_off();
            }
        }
        if error.is_some() {
            lost = backlog.trim(&mut scribe);
        }
        shared.signed(scribe.unsigned());
        let outcome = if error.is_some() { Appended::Waiting } else { Appended::Durable };
        shared.answer(outcome, scribe.state(), backlog.waiting(), lost, error.clone());
        if taken.closing {
            break;
        }
    }
    drop(scribe);
    shared.let_go();
}
