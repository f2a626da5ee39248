//! Unix cron with a time zone: five fields, or a word such as `@daily`. Day of month and day of week are
//! alternatives where both are given, as in crontab(5); a daily time comes once on each day, also when the
//! clocks change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use croner::parser::CronParser;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// One cron expression in one time zone. Equal where text and zone are.
#[derive(Debug, Clone)]
pub struct CronRule {
    /// As written.
    pub text: String,
    /// In which zone its fields count.
    pub zone: TimeZone,
    parsed: Arc<Parsed>,
}

/// An expression, read; shared by all rules that write the same.
#[derive(Debug)]
struct Parsed {
    cron: croner::Cron,
    /// The five fields, with words such as `@daily` written out.
    fields: String,
    /// Seconds between two times, at least.
    gap: u64,
    /// Spans without a time, and the times that end them: thousands of targets ask for the same.
    spans: Mutex<Vec<Span>>,
}

/// In that zone, what comes after any time from `from` until just before `next` is `next`.
#[derive(Debug, Clone)]
struct Span {
    zone: TimeZone,
    from: Timestamp,
    next: Timestamp,
}

/// Spans that are kept: the last and the next of a few zones.
const SPANS: usize = 16;

/// Why an expression is refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronFault {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// No such date exists.
    #[error("it never fires: no date matches `{0}`")]
    Never(String),
}

/// Expressions read so far, so that 100,000 equal ones cost one.
#[derive(Debug, Default)]
pub struct CronTexts {
    read: HashMap<String, Result<Arc<Parsed>, CronFault>>,
    gaps: HashMap<String, Option<u64>>,
}

impl CronTexts {
    /// The rule of that text in that zone.
    ///
    /// # Errors
    /// [`CronFault`] where it is no Unix cron, or never fires.
    pub fn rule(&mut self, text: &str, zone: TimeZone) -> Result<CronRule, CronFault> {
        if !self.read.contains_key(text) {
            self.read.insert(text.to_owned(), parse(text).map(Arc::new));
        }
        let parsed = self.read[text].clone()?;
        Ok(CronRule { text: text.to_owned(), zone, parsed })
    }

    /// Most seconds between two times of several rules together (over their next 64 times, clock changes aside).
    /// `None` without rules.
    pub fn largest_gap(&mut self, rules: &[CronRule]) -> Option<u64> {
        let names: Vec<(&str, &str)> = rules.iter().map(|rule| (&*rule.text, rule.zone.iana_name().unwrap_or(""))).collect();
        let key = format!("{names:?}");
        if !self.gaps.contains_key(&key) {
            self.gaps.insert(key.clone(), largest_gap(rules));
        }
        self.gaps[&key]
    }
}

fn largest_gap(rules: &[CronRule]) -> Option<u64> {
    gaps(rules).map(|gaps| gaps.into_iter().max().unwrap_or(0))
}

/// The shortest time between two of the next times of these rules, seconds.
pub fn shortest_gap(rules: &[CronRule]) -> Option<u64> {
    gaps(rules)?.into_iter().min()
}

fn gaps(rules: &[CronRule]) -> Option<Vec<u64>> {
    let start = Timestamp::from_second(REFERENCE).ok()?;
    let next = |after: Timestamp| rules.iter().filter_map(|rule| rule.next(after)).min();
    let times: Vec<Timestamp> = std::iter::successors(Some(next(start)?), |last| next(*last)).take(65).collect();
    let between = |pair: &[Timestamp]| u64::try_from(pair[1].as_second() - pair[0].as_second()).unwrap_or(0);
    Some(times.windows(2).map(between).collect())
}

impl CronRule {
    /// A rule by itself.
    ///
    /// # Errors
    /// [`CronFault`] where the text is no Unix cron, or never fires.
    pub fn new(text: &str, zone: TimeZone) -> Result<Self, CronFault> {
        CronTexts::default().rule(text, zone)
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut spans = self.parsed.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = spans.iter().find(|span| span.from <= after && after < span.next && span.zone == self.zone) {
            return Some(known.next);
        }
        let found = self.parsed.cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()?;
        let span = Span { zone: self.zone.clone(), from: after, next: found.timestamp() };
        match spans.iter_mut().find(|known| known.next == span.next && known.zone == span.zone) {
            Some(known) => known.from = known.from.min(span.from),
            None => {
                if spans.len() == SPANS {
                    spans.remove(0);
                }
                spans.push(span.clone());
            }
        }
        Some(span.next)
    }

    /// The last time before `before`.
    pub fn previous(&self, before: Timestamp) -> Option<Timestamp> {
        self.parsed.cron.find_previous_occurrence(&before.to_zoned(self.zone.clone()), false).ok().map(|found| found.timestamp())
    }

    /// Seconds between two of its times, at least (clock changes aside).
    pub fn gap(&self) -> u64 {
        self.parsed.gap
    }

    /// The same with a field for seconds before, as tokio-cron-scheduler wants it. That crate computes other
    /// times from it (it wants both day fields to match), so its next tick has to come from [`CronRule::next`].
    pub fn scheduler_text(&self) -> String {
        format!("0 {}", self.parsed.fields)
    }
}

impl PartialEq for CronRule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone == other.zone
    }
}

/// Name, smallest and largest value of each field, and the names of its values from `first` on.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of week", 0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// 2026-01-01: gaps are measured from here, so that the same text always has the same.
const REFERENCE: i64 = 1_767_225_600;

const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

fn parse(text: &str) -> Result<Parsed, CronFault> {
    let unreadable = |why: String| CronFault::Unreadable(why);
    let written = text.trim().to_ascii_lowercase();
    let written = match WORDS.iter().find(|(word, _)| *word == written) {
        Some((_, fields)) => (*fields).to_owned(),
        None if written.starts_with('@') => {
            return Err(unreadable(
                "only @hourly, @daily, @weekly, @monthly and @yearly are known; write five fields, such as \"0 2 * * *\"".into(),
            ));
        }
        None => written,
    };
    let fields: Vec<&str> = written.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let hint = if fields.len() == 6 { " (there is no field for seconds)" } else { "" };
        return Err(unreadable(format!(
            "cron has five fields, minute hour day-of-month month day-of-week, here are {}{hint}: write such as \"0 2 * * *\"",
            fields.len()
        )));
    }
    let numbered: Vec<String> =
        fields.iter().zip(&FIELDS).map(|(field, known)| numbers(field, known)).collect::<Result<_, _>>().map_err(unreadable)?;
    let fields = numbered.join(" ");
    // crontab(5): a day field that begins with a star restricts together with the other one, it is no alternative
    let both = numbered[2].starts_with('*') || numbered[4].starts_with('*');
    let cron =
        CronParser::builder().dom_and_dow(both).build().parse(&fields).map_err(|e| unreadable(format!("it is no Unix cron: {e}")))?;
    let gap = smallest_gap(&cron).ok_or_else(|| CronFault::Never(text.trim().to_owned()))?;
    Ok(Parsed { cron, fields, gap, spans: Mutex::default() })
}

/// One field with names as numbers, or what is wrong with it.
fn numbers(field: &str, (name, low, high, names): &(&str, u32, u32, &[&str])) -> Result<String, String> {
    let value = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|known| *known == text).and_then(|at| u32::try_from(at).ok()).map(|at| at + low);
        let number = named.or_else(|| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten());
        let Some(number) = number else {
            return Err(format!("`{text}` is no {name}: write {low}-{high}, *, ranges 1-5, lists 1,3 or steps */5"));
        };
        if (*low..=*high).contains(&number) { Ok(number) } else { Err(format!("{name} {number} does not exist: write {low} to {high}")) }
    };
    let mut parts = Vec::new();
    for part in field.split(',') {
        let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
        let span = match span.split_once('-') {
            _ if span == "*" || (span == "?" && (*name == "day of month" || *name == "day of week")) => "*".to_owned(),
            Some((from, to)) => {
                let (from, to) = (value(from)?, value(to)?);
                if from > to {
                    return Err(format!("the {name} range {from}-{to} runs backwards: write {from}-{high},{low}-{to}"));
                }
                format!("{from}-{to}")
            }
            None if step.is_some() => format!("{}-{high}", value(span)?),
            None => value(span)?.to_string(),
        };
        match step {
            None => parts.push(span),
            Some(step) => match step.parse::<u32>() {
                Ok(step) if (1..=*high).contains(&step) => parts.push(format!("{span}/{step}")),
                _ => return Err(format!("`/{step}` is no step of the {name}: write /1 to /{high}")),
            },
        }
    }
    Ok(parts.join(","))
}

/// Over the next 32 times from a fixed day on. `None` where there is no time at all.
fn smallest_gap(cron: &croner::Cron) -> Option<u64> {
    let start = Timestamp::from_second(REFERENCE).ok()?.to_zoned(TimeZone::UTC);
    let mut last = cron.find_next_occurrence(&start, true).ok()?;
    let mut smallest = u64::MAX;
    for _ in 0..32 {
        let Ok(next) = cron.find_next_occurrence(&last, false) else { break };
        let gap = next.timestamp().as_second() - last.timestamp().as_second();
        smallest = smallest.min(u64::try_from(gap).unwrap_or(0));
        last = next;
    }
    Some(if smallest == u64::MAX { 366 * 86_400 } else { smallest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> CronRule {
        CronRule::new(text, TimeZone::get("Europe/Berlin").unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn times(text: &str, from: &str, count: usize) -> Vec<String> {
        let (rule, mut now) = (rule(text), at(from));
        (0..count)
            .map(|_| {
                now = rule.next(now).unwrap();
                now.to_string()
            })
            .collect()
    }

    fn fault(text: &str) -> String {
        CronRule::new(text, TimeZone::UTC).unwrap_err().to_string()
    }

    #[test]
    fn a_daily_time_comes_once_on_each_day_across_both_clock_changes() {
        for (day_before, days) in
            [("2026-03-27T23:00:00Z", 4), ("2026-10-23T22:00:00Z", 4), ("2027-03-26T23:00:00Z", 4), ("2027-10-29T22:00:00Z", 4)]
        {
            for hour in ["0", "1", "2", "3", "4"] {
                let rule = rule(&format!("30 {hour} * * *"));
                let (mut now, mut seen) = (at(day_before), Vec::new());
                for _ in 0..days {
                    now = rule.next(now).unwrap();
                    seen.push(now.to_zoned(rule.zone.clone()).date());
                }
                let wanted: Vec<_> =
                    (0..days).map(|i| at(day_before).to_zoned(rule.zone.clone()).date() + jiff::Span::new().days(i)).collect();
                assert_eq!(seen, wanted, "{hour}:30 from {day_before}");
            }
        }
    }

    #[test]
    fn a_time_that_the_spring_change_skips_comes_right_after_it() {
        assert_eq!(times("30 2 * * *", "2026-03-28T12:00:00Z", 2), ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        assert_eq!(times("30 2 * * *", "2027-03-27T12:00:00Z", 2), ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]);
    }

    #[test]
    fn half_hours_go_on_evenly_over_the_autumn_change() {
        let seen = times("*/30 * * * *", "2026-10-24T23:45:00Z", 5);
        assert_eq!(
            seen,
            ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"]
        );
    }

    #[test]
    fn both_day_fields_are_alternatives() {
        // the 13th is a Tuesday, the Friday after it the 16th
        assert_eq!(times("0 0 13 * fri", "2026-01-10T00:00:00Z", 2), ["2026-01-12T23:00:00Z", "2026-01-15T23:00:00Z"]);
    }

    #[test]
    fn previous_is_the_other_way_round() {
        let rule = rule("0 2 * * *");
        let next = rule.next(at("2026-06-01T12:00:00Z")).unwrap();
        assert_eq!(rule.previous(next + jiff::SignedDuration::from_secs(1)).unwrap(), next);
        assert_eq!(rule.previous(next).unwrap().to_string(), "2026-06-01T00:00:00Z");
    }

    #[test]
    fn words_and_names_are_written_out_for_the_scheduler() {
        assert_eq!(rule("@daily").scheduler_text(), "0 0 0 * * *");
        assert_eq!(rule("5 4 * JAN-MAR mon,FRI").scheduler_text(), "0 5 4 * 1-3 1,5");
        assert_eq!(rule("*/15 2 * * *").gap(), 900);
        assert_eq!(rule("0 2 * * 7").gap(), 7 * 86_400);
    }

    #[test]
    fn what_is_no_unix_cron_says_what_to_write() {
        assert!(fault("0 0 2 * * *").contains("no field for seconds"));
        assert!(fault("0 2 * *").contains("here are 4"));
        assert!(fault("61 2 * * *").contains("minute 61 does not exist"));
        assert!(fault("0 2 * * fry").contains("`fry` is no day of week"));
        assert!(fault("0 22-6 * * *").contains("22-23,0-6"));
        assert!(fault("*/0 * * * *").contains("no step"));
        assert!(fault("0 0 L * *").contains("day of month"));
        assert!(fault("0 0 * * 5#2").contains("day of week"));
        assert!(fault("@reboot").contains("@hourly"));
        assert!(fault("").contains("here are 0"));
    }

    #[test]
    fn an_impossible_date_never_fires() {
        assert!(fault("0 0 31 2 *").contains("never fires"));
        assert!(CronRule::new("0 0 29 2 *", TimeZone::UTC).is_ok());
    }

    #[test]
    fn rules_are_equal_where_text_and_zone_are() {
        let utc = CronRule::new("0 2 * * *", TimeZone::UTC).unwrap();
        assert_eq!(utc, CronRule::new("0 2 * * *", TimeZone::UTC).unwrap());
        assert_ne!(utc, rule("0 2 * * *"));
    }

    #[test]
    fn what_was_asked_before_changes_no_answer() {
        for zone in ["UTC", "Europe/Berlin", "America/St_Johns"] {
            let rule = |text: &str| CronRule::new(text, TimeZone::get(zone).unwrap()).unwrap();
            let (asked, text) = (rule("30 2 * * *"), "30 2 * * *");
            // Over both changes of the clocks in 2026, back and forth.
            for step in 0..400_i64 {
                let second = 1_772_323_200 + (step * 7_919 % 400) * 57_600;
                let at = Timestamp::from_second(second).unwrap();
                assert_eq!(asked.next(at), rule(text).next(at), "{zone} {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[-*/,?@0-9a-zLW# ]{0,20}") {
            let _ = CronRule::new(&text, TimeZone::UTC);
        }

        #[test]
        fn next_lies_after_and_nothing_lies_between(minute in 0_u32..60, hour in 0_u32..24, second in 1_767_225_600_i64..1_900_000_000) {
            let rule = rule(&format!("{minute} {hour} * * *"));
            let from = Timestamp::from_second(second).unwrap();
            let next = rule.next(from).unwrap();
            prop_assert!(next > from);
            prop_assert!(rule.previous(next).unwrap() <= from);
        }
    }
}
