//! `rotate` and `compliance`: merged, and their times held against the token's life.

use jiff::tz::TimeZone;

use super::Planner;
use super::target::Subject;
use crate::schedule::choice::OneOrMany;
use crate::schedule::cron::CronRule;
use crate::schedule::file::{ComplianceFile, RotateFile, WindowFile};
use crate::schedule::measure::{Seconds, Share, shown};
use crate::schedule::plan::{Compliance, Rotate, Window};
use crate::schedule::problem::Severity;
use crate::schedule::timing;
use crate::schedule::yaml::{Step, closest};

/// Share of the life after which a token is due where `at` is absent.
const AT: f64 = 0.8;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn key<'k>(name: &'k str) -> [Step<'k>; 2] {
    ["rotate".into(), name.into()]
}

impl Planner<'_> {
    /// Merges `rotate` with that of `defaults`, key by key, and checks it.
    pub(super) fn rotate(
        &mut self,
        subject: &Subject<'_>,
        own: Option<&RotateFile>,
        shared: Option<&RotateFile>,
        duration: Option<u64>,
        embedded: Option<bool>,
    ) -> Rotate {
        let none = RotateFile::default();
        let (own, shared) = (own.unwrap_or(&none), shared.unwrap_or(&none));
        let zone_name = own.time_zone.as_deref().or(shared.time_zone.as_deref());
        let zone = self.zone(subject, zone_name);
        let cron = own.cron.as_ref().or(shared.cron.as_ref());
        let window = own.window.as_ref().or(shared.window.as_ref());
        if zone_name.is_some() && cron.is_none_or(|cron| cron.0.is_empty()) && window.is_none() {
            self.say(subject, &key("timeZone"), Severity::Warning, "it changes nothing without `cron` or `window`: leave it out");
        }
        let rotate = Rotate {
            at: own.at.or(shared.at).map_or(AT, |at| at.0),
            cron: self.cron(subject, cron, &zone),
            splay: own.splay.or(shared.splay).map(|splay| splay.0),
            window: window.and_then(|window| self.window(subject, window, zone)),
        };
        if let Some(life) = duration {
            self.room(subject, &rotate, life, embedded);
        }
        rotate
    }

    fn zone(&mut self, subject: &Subject<'_>, name: Option<&str>) -> TimeZone {
        let Some(name) = name else { return TimeZone::try_system().unwrap_or(TimeZone::UTC) };
        if !self.zones.contains_key(name) {
            self.zones.insert(name.to_owned(), TimeZone::get(name).ok());
        }
        if let Some(zone) = &self.zones[name] {
            return zone.clone();
        }
        let names: Vec<String> = jiff::tz::db().available().map(|known| known.as_str().to_owned()).collect();
        let message = match closest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("there is no time zone {}: did you mean `{near}`?", shown(name)),
            None => format!("there is no time zone {}: write a name such as Europe/Berlin or UTC", shown(name)),
        };
        self.error(subject, &key("timeZone"), &message);
        TimeZone::UTC
    }

    fn cron(&mut self, subject: &Subject<'_>, texts: Option<&OneOrMany>, zone: &TimeZone) -> Vec<CronRule> {
        let mut rules: Vec<CronRule> = Vec::new();
        for (index, text) in texts.map_or(&[][..], |texts| &texts.0).iter().enumerate() {
            let steps = ["rotate".into(), "cron".into(), Step::Index(index)];
            match self.crons.rule(text, zone.clone()) {
                Ok(rule) if rules.contains(&rule) => self.error(subject, &steps, &format!("{} stands here twice: keep one", shown(text))),
                Ok(rule) => rules.push(rule),
                Err(fault) => self.error(subject, &steps, &fault.to_string()),
            }
        }
        rules
    }

    fn window(&mut self, subject: &Subject<'_>, file: &WindowFile, zone: TimeZone) -> Option<Window> {
        let at = |key| -> [Step<'_>; 3] { ["rotate".into(), "window".into(), Step::Key(key)] };
        let (from, to) = (minute(&file.from), minute(&file.to));
        for (key, text, minute) in [("from", &file.from, from), ("to", &file.to, to)] {
            if minute.is_none() {
                self.error(subject, &at(key), &format!("{} is no time of day: write such as \"22:00\"", shown(text)));
            }
        }
        let days = file.days.as_deref().map_or(Ok([true; 7]), days);
        if let Err(message) = &days {
            self.error(subject, &at("days"), message);
        }
        let (from, to, days) = (from?, to?, days.ok()?);
        if from == to % 1440 && to != 1440 {
            self.error(subject, &at("to"), "the window closes when it opens: write another time, or leave `window` out");
        }
        Some(Window { from: from % 1440, to: to % 1440, days, zone })
    }

    /// Whether enough time is left after the latest time by lifetime, and how that goes with cron.
    fn room(&mut self, subject: &Subject<'_>, rotate: &Rotate, life: u64, embedded: Option<bool>) {
        let (at, needed) = (Share(rotate.at), if embedded == Some(true) { 1 } else { 60 });
        if rotate.at <= 0.0 || rotate.at >= 1.0 {
            self.error(
                subject,
                &key("at"),
                &format!("{at} is no share of a life to rotate at: write more than 0% and less than 100%, such as 80%"),
            );
            return;
        }
        let due = share_of(life, rotate.at);
        let left = life.saturating_sub(due);
        if left < needed && embedded.is_some() {
            #[allow(clippy::cast_precision_loss)] // both are far below 2^52
            let most = Share((((1.0 - needed as f64 / life as f64) * 100.0).floor() / 100.0).max(0.0));
            let message = format!(
                "{at} of {} is due after {} and leaves {}, less than the {} that a rotation has to have: write {most} or less, or a longer duration",
                Seconds(life),
                Seconds(due),
                Seconds(left),
                Seconds(needed),
            );
            self.error(subject, &key("at"), &message);
            return;
        }
        let Some(gap) = self.crons.largest_gap(&rotate.cron) else { return };
        let splay = unsigned(timing::lifetime_splay(rotate, signed(life)));
        let earliest = due.saturating_sub(splay);
        if earliest < gap {
            let later = rotate.cron.iter().map(|rule| unsigned(timing::cron_splay(rotate, rule))).max().unwrap_or(0);
            let enough = gap.saturating_add(splay).saturating_add(later);
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a hint, to the hour
            let enough = Seconds(((enough as f64 / rotate.at / 3600.0).ceil() as u64).saturating_mul(3600));
            let message = format!(
                "the next time may be {} away, yet {at} of {} is due after {} already (less up to {} of splay): it rotates on both; \
                 for cron alone write `duration: {enough}` or more",
                Seconds(gap),
                Seconds(life),
                Seconds(due),
                Seconds(splay),
            );
            self.say(subject, &key("cron"), Severity::Warning, &message);
        }
    }

    /// Whether the plan keeps the limits that the target has to keep.
    /// A `rotate` that is not `sound` says nothing about ages.
    pub(super) fn compliance(
        &mut self,
        subject: &Subject<'_>,
        file: ComplianceFile,
        rotate: &Rotate,
        duration: Option<u64>,
        sound: bool,
    ) -> Compliance {
        let compliance = Compliance { max_age: file.max_age.map(|age| age.0), max_lifetime: file.max_lifetime.map(|life| life.0) };
        let Some(life) = duration else { return compliance };
        if let Some(most) = compliance.max_lifetime
            && most < life
        {
            let message = format!("a duration of {} breaks the limit of {}: write a shorter duration", Seconds(life), Seconds(most));
            self.error(subject, &["compliance".into(), "maxLifetime".into()], &message);
        }
        let due = share_of(life, rotate.at);
        let gap = self.crons.largest_gap(&rotate.cron);
        let splay = rotate.cron.iter().map(|rule| unsigned(timing::cron_splay(rotate, rule))).max().unwrap_or(0);
        let oldest = gap.map_or(due, |gap| due.min(gap.saturating_add(splay)));
        if let Some(most) = compliance.max_age
            && sound
            && most < oldest
        {
            let message = format!(
                "a token gets {} old before it is rotated, older than the limit of {}: write a shorter duration, an earlier `rotate.at` or more cron times",
                Seconds(oldest),
                Seconds(most)
            );
            self.error(subject, &["compliance".into(), "maxAge".into()], &message);
        }
        compliance
    }
}

/// `HH:MM` as minutes of the day; 24:00 is the end of it.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || minutes.len() != 2 || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((hours < 24 && minutes < 60) || (hours == 24 && minutes == 0)).then_some(hours * 60 + minutes)
}

/// `Mon-Fri`, `Sat,Sun`, `Fri-Mon`.
fn days(text: &str) -> Result<[bool; 7], String> {
    let day = |word: &str| {
        let lower = word.trim().to_lowercase();
        let known = DAYS.iter().position(|day| *day == lower);
        known.ok_or_else(|| format!("{} is no weekday: write such as Mon-Fri or Sat,Sun", shown(word.trim())))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (mut at, to) = (day(from)?, day(to)?);
        days[at] = true;
        while at != to {
            at = (at + 1) % 7;
            days[at] = true;
        }
    }
    Ok(days)
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // lives are below 2^52
fn share_of(life: u64, share: f64) -> u64 {
    (life as f64 * share) as u64
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn unsigned(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_hours_and_minutes() {
        assert_eq!((minute("22:00"), minute("6:30"), minute("24:00"), minute("00:00")), (Some(1320), Some(390), Some(1440), Some(0)));
        for text in ["", "22", "22:0", "24:01", "25:00", "10:60", "+1:00", "10:00:00"] {
            assert_eq!(minute(text), None, "{text}");
        }
    }

    #[test]
    fn weekdays_are_lists_and_ranges_that_may_go_over_sunday() {
        assert_eq!(days("Mon-Fri").unwrap(), [true, true, true, true, true, false, false]);
        assert_eq!(days("sat, sun").unwrap(), [false, false, false, false, false, true, true]);
        assert_eq!(days("Fri-Mon").unwrap(), [true, false, false, false, true, true, true]);
        assert!(days("Freitag").is_err());
        assert!(days("").is_err());
    }
}
