//! The report as a table for spreadsheets (RFC 4180): one line for each target.

use crate::audit::report::{Judged, Report, Verdict};

const HEAD: [&str; 22] = [
    "from",
    "until",
    "target",
    "owner",
    "cluster",
    "serviceAccount",
    "verdict",
    "why",
    "longestAge",
    "maxAge",
    "longestLife",
    "maxLifetime",
    "rotations",
    "missed",
    "failures",
    "shortened",
    "withoutToken",
    "receivers",
    "jti",
    "expiresAt",
    "rehearsedAt",
    "rehearsal",
];

/// Durations are seconds, times RFC 3339.
pub fn csv(report: &Report) -> String {
    let mut text = line(HEAD.map(str::to_owned));
    for judged in &report.targets {
        text += &line(row(report, judged));
    }
    text
}

fn row(report: &Report, judged: &Judged) -> [String; 22] {
    let course = &judged.course;
    let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
    let receivers: Vec<String> = course.receivers.iter().map(|r| format!("{} {}", r.sink, r.place)).collect();
    let verdict = match judged.verdict {
        Verdict::Kept => "kept",
        Verdict::NoLimits => "noLimits",
        Verdict::Broken => "broken",
    };
    [
        report.period.from.to_string(),
        report.period.until.to_string(),
        course.name.clone(),
        course.labels.get(&report.group_by).cloned().unwrap_or_default(),
        course.cluster.clone().unwrap_or_default(),
        course.service_account.clone().unwrap_or_default(),
        verdict.to_owned(),
        judged.why.join("; "),
        number(course.longest_age),
        number(judged.max_age),
        number(course.longest_life),
        number(judged.max_lifetime),
        course.rotations.to_string(),
        course.missed.to_string(),
        course.failures.to_string(),
        course.shortened.to_string(),
        course.without_token.to_string(),
        receivers.join("; "),
        course.jti.clone().unwrap_or_default(),
        course.expires_at.map(|time| time.to_string()).unwrap_or_default(),
        course.rehearsal.as_ref().map(|rehearsal| rehearsal.time.to_string()).unwrap_or_default(),
        course.rehearsal.as_ref().map(|rehearsal| rehearsal.error.clone().unwrap_or_else(|| "good".into())).unwrap_or_default(),
    ]
}

fn line<const N: usize>(cells: [String; N]) -> String {
    cells.map(|cell| quoted(&cell)).join(",") + "\r\n"
}

/// Quoted where it has to be; what a spreadsheet would take for a formula is made text.
fn quoted(cell: &str) -> String {
    let guarded = if cell.starts_with(['=', '+', '-', '@', '\t']) { format!("'{cell}") } else { cell.to_owned() };
    if guarded.contains([',', '"', '\n', '\r']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_no_formula_gets_through() {
        assert_eq!(line(["a".into(), "b,\"c\"".into(), "=cmd()".into()]), "a,\"b,\"\"c\"\"\",'=cmd()\r\n");
    }
}
