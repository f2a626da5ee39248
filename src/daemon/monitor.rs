//! Tokens that others mint, watched all the same: what stands in each file under `monitor`, and whether it is good. It is
//! read as `inspect` reads it, proven by nobody, and never written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::published::{LEEWAY, Published, Unusable};
pub use crate::record::Verdict;
use crate::record::{Kind, Line, MonitoredLine};
use crate::schedule::alerts::MonitorSpec;
use crate::sink::file;

/// A file system that does not answer within that is given up for this look.
const PATIENCE: Duration = Duration::from_secs(10);

/// One monitored file, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Monitored {
    /// The file.
    pub path: PathBuf,
    /// How it stands.
    pub state: Verdict,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not well.
    pub reason: Option<String>,
    /// The token's `sub`.
    pub subject: Option<String>,
    /// Its `jti`.
    pub jti: Option<String>,
    /// Its `iat`.
    pub issued_at: Option<Timestamp>,
    /// Its `exp`.
    pub expires_at: Option<Timestamp>,
    /// Oldest that it may get, seconds.
    pub max_age: Option<u64>,
}

/// What a token says of itself, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// `sub`.
    pub subject: String,
    /// `jti`.
    pub jti: Option<String>,
    /// `iat`, seconds.
    pub issued: Option<i64>,
    /// `nbf`, seconds.
    pub begins: Option<i64>,
    /// `exp`, seconds.
    pub ends: Option<i64>,
}

/// What a file held, or why nothing was found in it.
pub type Held = Result<Found, (Verdict, String)>;

/// Reads these files at the same time; one that hangs holds up no other.
pub async fn read(paths: Vec<PathBuf>) -> Vec<(PathBuf, Held)> {
    let one = |path: PathBuf| async move {
        let at = path.clone();
        let held = file::apart(PATIENCE, &path, move || Ok(held(&at))).await;
        (path, held.unwrap_or_else(|failure| Err((Verdict::Unreadable, failure.message))))
    };
    join_all(paths.into_iter().map(one)).await
}

fn held(path: &Path) -> Held {
    let found = Published::read(path).map_err(|why| {
        let verdict = match why {
            Unusable::Missing => Verdict::Missing,
            Unusable::NotAFile | Unusable::TooLarge | Unusable::Empty | Unusable::NoToken | Unusable::Encrypted => Verdict::NoToken,
            _ => Verdict::Unreadable,
        };
        (verdict, why.to_string())
    })?;
    let claims = found.claims;
    Ok(Found { subject: claims.sub, jti: claims.jti, issued: claims.iat, begins: claims.nbf, ends: claims.exp })
}

/// How it stands at a time, since when as far as the token tells, and why it is not well. Pure.
pub fn judge(spec: &MonitorSpec, held: &Held, now: i64) -> (Verdict, Option<i64>, Option<String>) {
    let found = match held {
        Ok(found) => found,
        Err((verdict, why)) => return (*verdict, None, Some(why.clone())),
    };
    let shown = |seconds: i64| Timestamp::from_second(seconds).map_or_else(|_| "a time that no calendar has".into(), |at| at.to_string());
    if let Some(ends) = found.ends.filter(|ends| *ends <= now) {
        return (Verdict::Expired, Some(ends), Some(format!("expired since {}", shown(ends))));
    }
    if let Some(begins) = found.begins.filter(|begins| *begins > now.saturating_add(LEEWAY)) {
        return (Verdict::NotYetValid, None, Some(format!("not valid before {}; or this host's clock is behind", shown(begins))));
    }
    if found.ends.is_none() {
        return (
            Verdict::Endless,
            None,
            Some("it says no end (a legacy token): nothing tells whether it is still good; replace it".into()),
        );
    }
    let limit = spec.max_age.map(|age| i64::try_from(age).unwrap_or(i64::MAX));
    match (limit, found.issued) {
        (Some(_), None) => (Verdict::TooOld, None, Some("it does not say when it was issued, so nothing tells its age".into())),
        (Some(limit), Some(issued)) if issued.saturating_add(limit) <= now => {
            let age = crate::schedule::measure::Seconds(now.saturating_sub(issued).unsigned_abs());
            let most = crate::schedule::measure::Seconds(limit.unsigned_abs());
            let why = format!("issued at {}, {age} ago, and may be {most} old: whoever replaces it has stopped", shown(issued));
            (Verdict::TooOld, Some(issued.saturating_add(limit)), Some(why))
        }
        _ => (Verdict::Fresh, None, None),
    }
}

/// A file, judged now.
pub fn shown(spec: &MonitorSpec, held: &Held, seen: Timestamp, now: Timestamp) -> Monitored {
    let (state, since, reason) = judge(spec, held, now.as_second());
    let time = |seconds: Option<i64>| seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let found = held.as_ref().ok();
    Monitored {
        path: spec.path.clone(),
        state,
        since: time(since).unwrap_or(seen),
        reason,
        subject: found.map(|found| found.subject.clone()),
        jti: found.and_then(|found| found.jti.clone()),
        issued_at: found.and_then(|found| time(found.issued)),
        expires_at: found.and_then(|found| time(found.ends)),
        max_age: spec.max_age,
    }
}

/// A file is recorded again after that long where nothing changes, seconds: a report of a month knows of it.
const AGAIN: i64 = 86_400;

/// What was recorded of a file last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    state: Verdict,
    jti: Option<String>,
    at: Timestamp,
}

/// The record of a file, where its state or its token is another one than was recorded, or nothing was for a day. Pure.
pub fn line(file: &Monitored, before: Option<&Recorded>, now: Timestamp) -> Option<(Line, Recorded)> {
    let known = before.is_some_and(|before| {
        before.state == file.state && before.jti == file.jti && (0..AGAIN).contains(&(now.as_second() - before.at.as_second()))
    });
    if known {
        return None;
    }
    let mut line = Line::new(Kind::Monitored, now);
    line.monitored = Some(MonitoredLine { path: file.path.clone(), state: file.state, max_age: file.max_age });
    line.jti.clone_from(&file.jti);
    (line.issued_at, line.expires_at) = (file.issued_at, file.expires_at);
    line.error.clone_from(&file.reason);
    Some((line, Recorded { state: file.state, jti: file.jti.clone(), at: now }))
}

/// All files of a plan as they stand now, for whoever has no daemon to ask.
pub async fn look(files: &[MonitorSpec], now: Timestamp) -> Vec<Monitored> {
    let held = read(files.iter().map(|spec| spec.path.clone()).collect()).await;
    files.iter().zip(&held).map(|(spec, (_, held))| shown(spec, held, now, now)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(max_age: Option<u64>) -> MonitorSpec {
        MonitorSpec { path: "/t".into(), max_age }
    }

    fn found(issued: Option<i64>, ends: Option<i64>) -> Held {
        Ok(Found { issued, ends, ..Found::default() })
    }

    fn verdict(spec: &MonitorSpec, held: &Held, now: i64) -> Verdict {
        judge(spec, held, now).0
    }

    #[test]
    fn each_way_to_be_unwell_has_its_word_and_its_reason() {
        let hour = spec(Some(3600));
        assert_eq!(judge(&hour, &found(Some(0), Some(9000)), 3599), (Verdict::Fresh, None, None));
        let (state, since, why) = judge(&hour, &found(Some(0), Some(9000)), 3600);
        assert_eq!((state, since), (Verdict::TooOld, Some(3600)));
        assert!(why.unwrap().contains("1h ago, and may be 1h old"));
        assert_eq!(verdict(&spec(None), &found(Some(0), Some(9000)), 8999), Verdict::Fresh);
        let (state, since, why) = judge(&hour, &found(Some(0), Some(9000)), 9000);
        assert_eq!((state, since, why.as_deref()), (Verdict::Expired, Some(9000), Some("expired since 1970-01-01T02:30:00Z")));
        assert_eq!(verdict(&hour, &found(Some(0), None), 10), Verdict::Endless);
        assert_eq!(verdict(&hour, &found(None, Some(9000)), 10), Verdict::TooOld);
        let early = Ok(Found { begins: Some(100), ends: Some(900), ..Found::default() });
        assert_eq!((verdict(&spec(None), &early, 39), verdict(&spec(None), &early, 40)), (Verdict::NotYetValid, Verdict::Fresh));
    }

    #[tokio::test]
    async fn files_are_read_in_every_format_and_each_says_why_it_holds_no_token() {
        use base64::Engine;
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let jwt = format!("{}.{}.c2ln", part(r#"{"alg":"ES256"}"#), part(r#"{"sub":"s","jti":"j","iat":10,"exp":20}"#));
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("raw"), format!("{jwt}\n")).unwrap();
        std::fs::write(at("json"), format!(r#"{{"status":{{"token":"{jwt}"}}}}"#)).unwrap();
        std::fs::write(at("text"), "no token here").unwrap();
        std::fs::write(at("empty"), "").unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("raw"), at("link")).unwrap();
        let names = ["raw", "json", "link", "text", "empty", "folder", "gone"];
        let read = read(names.iter().map(|name| at(name)).collect()).await;
        for (path, held) in &read[..3] {
            assert_eq!(held.as_ref().map(|found| (found.jti.as_deref(), found.ends)), Ok((Some("j"), Some(20))), "{}", path.display());
        }
        let words: Vec<Verdict> = read[3..].iter().map(|(_, held)| held.as_ref().unwrap_err().0).collect();
        assert_eq!(words, [Verdict::NoToken, Verdict::NoToken, Verdict::NoToken, Verdict::Missing]);
        assert!(read.iter().all(|(_, held)| held.as_ref().err().is_none_or(|(_, why)| !why.is_empty() && !why.contains("no token here"))));
    }

    #[test]
    fn a_file_is_recorded_when_its_state_or_token_changes_and_once_a_day() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let file = |jti: &str, now: i64| {
            let held = Ok(Found { jti: Some(jti.into()), issued: Some(0), ends: Some(200_000), ..Found::default() });
            shown(&spec(Some(100_000)), &held, at(0), at(now))
        };
        let (first, known) = line(&file("a", 10), None, at(10)).unwrap();
        assert_eq!((first.kind, first.jti.as_deref(), first.monitored.unwrap().state), (Kind::Monitored, Some("a"), Verdict::Fresh));
        assert_eq!(line(&file("a", 20), Some(&known), at(20)), None);
        assert!(line(&file("b", 20), Some(&known), at(20)).is_some(), "another token");
        assert!(line(&file("a", 86_411), Some(&known), at(86_411)).is_some(), "a day later");
        let (old, _) = line(&file("a", 100_000), Some(&Recorded { at: at(99_999), ..known }), at(100_000)).unwrap();
        assert!(old.error.unwrap().contains("whoever replaces it has stopped"));
    }

    proptest! {
        #[test]
        fn no_claims_are_too_odd_and_only_a_fresh_one_has_no_reason(
            issued in any::<Option<i64>>(), begins in any::<Option<i64>>(), ends in any::<Option<i64>>(), age in any::<Option<u64>>(), now in any::<i64>(),
        ) {
            let held = Ok(Found { issued, begins, ends, ..Found::default() });
            let (state, _, why) = judge(&spec(age), &held, now);
            prop_assert_eq!(state == Verdict::Fresh, why.is_none());
            prop_assert!(state != Verdict::Fresh || ends.is_some_and(|ends| ends > now));
        }
    }
}
