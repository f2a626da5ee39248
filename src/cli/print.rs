//! The one way to stdout and stderr: data to the one, talk to the other; tables for people, JSON for machines.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use super::Exit;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people.
    Table,
    /// JSON for machines.
    Json,
}

/// Writes data to stdout. A reader that closed the pipe has what it wanted.
pub fn data(text: &str) -> Result<(), Exit> {
    flow(text.as_bytes()).map(|_| ())
}

/// Writes data to stdout; false when its reader closed the pipe and wants no more.
pub fn flow(bytes: &[u8]) -> Result<bool, Exit> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Exit::own(format!("standard output cannot be written: {e}"))),
    }
}

/// Writes JSON to stdout, with line breaks.
pub fn json(value: &impl Serialize) -> Result<(), Exit> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Exit::own(e.to_string()))?;
    data(&format!("{text}\n"))
}

/// Whether a person reads the data.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether a person reads the talk.
pub fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Says something to the person on stderr. Nobody is left to tell when that fails.
pub fn talk(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Colours of table cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// As the terminal has it.
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Needs a person.
    Bad,
    /// Background.
    Faint,
}

/// One cell of a table.
pub struct Cell(String, Colour);

impl Cell {
    /// A cell in that colour.
    pub fn new(text: impl Into<String>, colour: Colour) -> Self {
        Self(text.into(), colour)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self(text, Colour::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self(text.to_owned(), Colour::Plain)
    }
}

/// A table with a head; columns as wide as they need, coloured on a terminal only.
pub fn table(head: &[&str], rows: &[Vec<Cell>]) -> String {
    lay_out(head, rows, coloured())
}

/// One row of a table that is shown as it comes; columns at least that wide.
pub fn row(cells: &[Cell], widths: &[usize]) -> String {
    let mut text = String::new();
    lay_row(&mut text, cells, widths, coloured());
    text
}

fn coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn lay_out(head: &[&str], rows: &[Vec<Cell>], coloured: bool) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.0.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let heads: Vec<Cell> = head.iter().map(|h| Cell::new(*h, Colour::Faint)).collect();
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        lay_row(&mut text, row, &widths, coloured);
    }
    text
}

fn lay_row(text: &mut String, row: &[Cell], widths: &[usize], coloured: bool) {
    for (index, cell) in row.iter().enumerate() {
        let width = widths.get(index).copied().unwrap_or(0);
        let pad = width.saturating_sub(cell.0.chars().count());
        let code = match cell.1 {
            _ if !coloured => "",
            Colour::Plain => "",
            Colour::Good => "32",
            Colour::Warn => "33",
            Colour::Bad => "31;1",
            Colour::Faint => "2",
        };
        if code.is_empty() {
            text.push_str(&cell.0);
        } else {
            text.push_str(&format!("\x1b[{code}m{}\x1b[0m", cell.0));
        }
        if index + 1 < row.len() {
            text.push_str(&" ".repeat(pad + 2));
        }
    }
    text.push('\n');
}

/// A time as a distance from now: `in 3h 20m`, `5m ago`.
pub fn distance(at: Option<Timestamp>, now: Timestamp) -> String {
    let Some(at) = at else { return "-".into() };
    let seconds = at.as_second() - now.as_second();
    let span = span(seconds.unsigned_abs());
    if seconds >= 0 { format!("in {span}") } else { format!("{span} ago") }
}

/// Seconds in the two largest units.
pub fn span(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s}s"),
        (0, _, _) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_colour_takes_no_room() {
        let rows = vec![vec![Cell::new("a", Colour::Bad), "bb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(lay_out(&["X", "Y"], &rows, false), "X    Y\na    bb\nccc  d\n");
        assert!(lay_out(&["X", "Y"], &rows, true).contains("\x1b[31;1ma\x1b[0m    bb"));
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!((span(59), span(61), span(3_660), span(90_000)), ("59s".into(), "1m 1s".into(), "1h 1m".into(), "1d 1h".into()));
    }
}
