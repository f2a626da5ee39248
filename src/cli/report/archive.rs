//! Reports that are kept: one of each whole month, written once and never again.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Whole, chain, csv};
use crate::audit::report::{Report, Span, page};
use crate::cli::{Exit, print};
use crate::cluster::view::View;
use crate::daemon::whole;

/// The month before the one that we have, in UTC.
pub fn last_month(now: Timestamp) -> Span {
    let this = now.to_zoned(TimeZone::UTC).date().first_of_month();
    let before = this.yesterday().unwrap_or(this).first_of_month();
    let begin = |day: jiff::civil::Date| day.to_zoned(TimeZone::UTC).map_or(now, |zoned| zoned.timestamp());
    Span { from: begin(before), until: begin(this) }
}

/// Writes the report in every form, each with a detached signature where there is a key. What is there stays.
pub fn keep(folder: &Path, report: &Report, view: Option<&View>, key: Option<&Path>) -> Result<(), Exit> {
    std::fs::create_dir_all(folder).map_err(|error| Exit::own(format!("{}: {error}", folder.display())))?;
    let json = serde_json::to_vec_pretty(&Whole { report, cluster: view }).map_err(|e| Exit::own(e.to_string()))?;
    let month = report.period.from.strftime("%Y-%m").to_string();
    let forms = [("json", json), ("csv", csv::csv(report).into_bytes()), ("html", page::page(report, view).into_bytes())];
    for (form, bytes) in forms {
        let name = format!("tokenferry-{month}.{form}");
        if !write(folder, &name, &bytes)? {
            print::talk(&format!("{} is there already and stays as it is", folder.join(&name).display()));
            continue;
        }
        if let Some(key) = key {
            let signature = chain::sign_bytes(key, &bytes).map_err(|error| Exit::own(super::super::error::chain(&error)))?;
            write(folder, &format!("{name}.sig"), &signature)?;
        }
        print::data(&format!("{}\n", folder.join(&name).display()))?;
    }
    Ok(())
}

/// False where a file of that name is there.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<bool, Exit> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(false);
    }
    whole::write(&path, bytes, 0o600).map_err(|error| Exit::own(format!("{}: {error}", path.display())))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_month_before_is_whole() {
        let span = last_month("2026-03-31T23:59:59Z".parse().unwrap());
        assert_eq!((span.from.to_string(), span.until.to_string()), ("2026-02-01T00:00:00Z".into(), "2026-03-01T00:00:00Z".into()));
        let january = last_month("2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(january.from.to_string(), "2025-12-01T00:00:00Z");
    }
}
