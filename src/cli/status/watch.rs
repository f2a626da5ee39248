//! `status --watch`: the same again and again, in one place on a terminal, one after the other elsewhere.

use std::time::Duration;

use jiff::Zoned;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::{Looked, Status, shown};
use crate::cli::print::{self, Output};
use crate::cli::{Context, Exit};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// No cursor, and lines that are cut at the edge: a wrapped one would push the others out of their rows.
const BEGIN: &str = "\x1b[?25l\x1b[?7l";
const END: &str = "\x1b[?25h\x1b[?7h";

impl Status {
    /// Shows it until interrupted, or nobody reads it any more. A daemon that is away for a while is shown as away.
    ///
    /// # Errors
    /// Exit code 2 where no target is meant or the schedule is refused, 4 where the socket may not be used.
    pub(super) async fn watch(&self, context: &Context) -> Result<(), Exit> {
        let failed = |error: std::io::Error| Exit::own(format!("signals cannot be caught: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let live = print::is_terminal() && self.output == Output::Table;
        if live {
            print::data(BEGIN)?;
        }
        let seen = tokio::select! {
            seen = self.again(context, live) => seen,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        if live {
            print::data(END)?;
        }
        seen
    }

    async fn again(&self, context: &Context, live: bool) -> Result<(), Exit> {
        loop {
            let text = match self.look(context).await {
                Ok(looked) => {
                    self.check_meant(&looked.status)?;
                    self.text(&looked, live)?
                }
                // It goes on, or is started again: that is what somebody watches for.
                Err(exit) if exit.code == 1 => self.trouble(&exit.message.unwrap_or_default(), live),
                Err(exit) => return Err(exit),
            };
            if !print::flow(text.as_bytes())? {
                return Ok(());
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn text(&self, looked: &Looked, live: bool) -> Result<String, Exit> {
        if self.output == Output::Json {
            return line(&looked.status);
        }
        let note = looked.note.map(|note| format!("{note}\n")).unwrap_or_default();
        Ok(framed(&format!("{note}{}", shown(&looked.status, self.fleet)), live))
    }

    fn trouble(&self, message: &str, live: bool) -> String {
        match self.output {
            Output::Json => format!("{}\n", serde_json::json!({ "error": message })),
            Output::Table => framed(&format!("{message}\n"), live),
        }
    }
}

/// One JSON document for each line.
fn line(status: &Value) -> Result<String, Exit> {
    serde_json::to_string(status).map(|text| text + "\n").map_err(|error| Exit::own(error.to_string()))
}

/// With the time of the look; on a terminal over the one before, line by line, so that nothing flickers.
fn framed(text: &str, live: bool) -> String {
    let now = Zoned::now().strftime("%H:%M:%S").to_string();
    if !live {
        return format!("{now}\n{text}\n");
    }
    let lines: String =
        format!("{now}, every {} s; Ctrl-C ends it\n{text}", EVERY.as_secs()).lines().map(|line| format!("{line}\x1b[K\r\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_terminal_each_line_is_wiped_to_its_end_and_what_stood_below_is_gone() {
        let text = framed("one\ntwo\n", true);
        assert!(text.starts_with("\x1b[H") && text.ends_with("one\x1b[K\r\ntwo\x1b[K\r\n\x1b[J"), "{text:?}");
        let text = framed("one\n", false);
        assert!(!text.contains('\x1b') && text.ends_with("\none\n\n"), "{text:?}");
    }
}
