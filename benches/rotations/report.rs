//! The table, as Markdown, so that it can be taken into a page as it is.

use std::time::Duration;

/// One figure.
pub struct Row {
    what: String,
    ours: String,
    theirs: String,
    ratio: String,
    reach: String,
    reached: Option<bool>,
}

impl Row {
    /// A figure of ours that nothing is asked of.
    pub fn new(what: impl Into<String>, ours: impl Into<String>) -> Self {
        let (theirs, ratio, reach) = (String::new(), String::new(), String::new());
        Self { what: what.into(), ours: ours.into(), theirs, ratio, reach, reached: None }
    }

    /// The same of the other side.
    pub fn beside(self, theirs: impl Into<String>) -> Self {
        Self { theirs: theirs.into(), ..self }
    }

    /// How they compare.
    pub fn ratio(self, ratio: impl Into<String>) -> Self {
        Self { ratio: ratio.into(), ..self }
    }

    /// What is to be reached, and whether it is.
    pub fn reach(self, reach: &str, reached: bool) -> Self {
        Self { reach: reach.into(), reached: Some(reached), ..self }
    }

    fn cells(&self) -> [String; COLUMNS] {
        let verdict = self.reached.map_or("", |reached| if reached { "reached" } else { "MISSED" });
        [self.what.as_str(), &self.ours, &self.theirs, &self.ratio, &self.reach, verdict].map(str::to_owned)
    }
}

const COLUMNS: usize = 6;
const HEAD: [&str; COLUMNS] = ["what", "tokenferry", "beside it", "ratio", "to reach", ""];

/// All figures.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// What of the table follows.
    pub fn part(&mut self, name: &str) {
        eprintln!("-- {name}");
        self.rows.push(Row::new(format!("**{name}**"), ""));
    }

    /// One more; said at once, so that a run that ends early has told something.
    pub fn add(&mut self, row: Row) {
        let cells = row.cells();
        eprintln!("   {}", cells.iter().filter(|c| !c.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" · "));
        self.rows.push(row);
    }

    /// Prints the table, and names every figure that was missed.
    pub fn print(&self) {
        let lines: Vec<[String; COLUMNS]> = std::iter::once(HEAD.map(str::to_owned)).chain(self.rows.iter().map(Row::cells)).collect();
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0));
        for (number, line) in lines.iter().enumerate() {
            let padded: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("| {} |", padded.join(" | "));
            if number == 0 {
                println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
            }
        }
        let asked = self.rows.iter().filter(|r| r.reached.is_some()).count();
        let missed = self.rows.iter().filter(|r| r.reached == Some(false)).count();
        println!("\n{} of {asked} figures reached", asked - missed);
    }
}

/// For people: `12.3 MiB`.
#[allow(clippy::cast_precision_loss)] // sizes of memory
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// For people: `1234 ms`, and `1.23 ms` where that says more.
pub fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 20.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.0} ms") }
}
