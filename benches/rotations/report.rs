//! The table, as Markdown, so that it can be taken into a page as it is.

use std::time::Duration;

/// One figure.
pub struct Row {
    what: String,
    ours: String,
    theirs: String,
    ratio: String,
    reach: String,
    missed: bool,
}

impl Row {
    /// A figure of ours that nothing is asked of.
    pub fn new(what: &str, ours: String) -> Self {
        Self { what: what.into(), ours, theirs: String::new(), ratio: String::new(), reach: String::new(), missed: false }
    }

    /// The same of the kubectl loop.
    pub fn beside(self, theirs: String) -> Self {
        Self { theirs, ..self }
    }

    /// How they compare.
    pub fn ratio(self, ratio: String) -> Self {
        Self { ratio, ..self }
    }

    /// What is to be reached, and whether it is.
    pub fn reach(self, reach: &str, reached: bool) -> Self {
        Self { reach: reach.into(), missed: !reached, ..self }
    }
}

/// All figures.
pub struct Report {
    head: [String; 5],
    rows: Vec<Row>,
}

impl Report {
    /// With these columns.
    pub fn new(head: &[&str; 5]) -> Self {
        Self { head: head.map(str::to_owned), rows: Vec::new() }
    }

    /// One more.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Prints the table, and names every figure that was missed.
    pub fn print(&self) {
        let cells = |row: &Row| [row.what.clone(), row.ours.clone(), row.theirs.clone(), row.ratio.clone(), row.reach.clone()];
        let lines: Vec<[String; 5]> = std::iter::once(self.head.clone()).chain(self.rows.iter().map(cells)).collect();
        let widths: [usize; 5] = std::array::from_fn(|column| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0));
        for (number, line) in lines.iter().enumerate() {
            let padded: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("| {} |", padded.join(" | "));
            if number == 0 {
                println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
            }
        }
        println!();
        let missed: Vec<&Row> = self.rows.iter().filter(|r| r.missed).collect();
        if missed.is_empty() {
            println!("every figure is reached");
        }
        for row in missed {
            println!(
                "MISSED: {}: {} {}(to reach: {})",
                row.what,
                row.ours,
                if row.ratio.is_empty() { String::new() } else { format!("= {} ", row.ratio) },
                row.reach
            );
        }
    }
}

/// For people: `12.3 MiB`.
#[allow(clippy::cast_precision_loss)] // sizes of memory
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// For people: `1234 ms`.
pub fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}
