//! Manners of the sinks that keep more than the payload: what is said beside it, what is ours, which old versions go.
//! Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Context;
use crate::token::Payload;

/// The key under which a store is told that a secret is ours, and our name there.
pub const MARK: (&str, &str) = ("managed-by", "tokenferry");
/// Prefix of what else we say.
const OURS: &str = "tokenferry/";

/// How long the generation before stays good where the schedule does not say, seconds.
pub const OVERLAP: u64 = 600;

/// What a sink is told for its manners.
#[derive(Debug, Clone, Copy)]
pub struct Manners<'a> {
    /// The target's label `owner`.
    pub owner: Option<&'a str>,
    /// How long the generation before stays good.
    pub overlap: Duration,
    /// Whether whose token it is may be said beside it to nobody: what stands there is encrypted.
    pub sealed: bool,
    /// Whether something that stands at a place is a token of this target.
    pub ours: Ours<'a>,
    /// Whether it is one that was issued later: nobody replaces it with an older one.
    pub newer: Ours<'a>,
}

impl Default for Manners<'_> {
    fn default() -> Self {
        Self { owner: None, overlap: Duration::from_secs(OVERLAP), sealed: false, ours: Ours(&|_| false), newer: Ours(&|_| false) }
    }
}

/// Tells whether what stands at a place is a token of this target.
#[derive(Clone, Copy)]
pub struct Ours<'a>(pub &'a (dyn Fn(&Payload) -> bool + Sync));

impl Ours<'_> {
    /// Whether this text is.
    pub fn is(self, text: &str) -> bool {
        (self.0)(&Payload::new(text.as_bytes().to_vec()))
    }
}

impl fmt::Debug for Ours<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ours")
    }
}

/// What stands in a mark where what it would say is nobody's business: it goes over what an earlier put said there.
const HIDDEN: &str = "encrypted";

/// What a store is told beside the payload: that it is ours, whose token it is, until when; never a token. Beside an
/// encrypted one that it is ours and until when: our own has to be known by something, and the end stands in the payload
/// too, for everybody to read.
/// `clean` makes a value what that store takes, `None` where nothing is left of it.
pub fn marks(context: &Context<'_>, clean: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let until = jiff::Timestamp::from_second(context.expires_at).map(|t| t.to_string()).unwrap_or_default();
    let whose = match context.manners.sealed {
        true => [Some(HIDDEN); 2],
        false => [context.manners.owner, Some(context.target)],
    };
    let said = [("expires-at", Some(&*until)), ("owner", whose[0]), ("target", whose[1])];
    let said = said.into_iter().filter_map(|(key, value)| Some((format!("{OURS}{key}"), clean(value?)?)));
    said.chain([(MARK.0.to_owned(), MARK.1.to_owned())]).collect()
}

/// Whether these marks say that it is ours.
pub fn marked(found: &BTreeMap<String, String>) -> bool {
    found.get(MARK.0).is_some_and(|who| who == MARK.1)
}

/// Whether a key is one of ours.
pub fn is_mark(key: &str) -> bool {
    key == MARK.0 || key.starts_with(OURS)
}

/// What stood there with our marks set anew: other people's stay.
pub fn with_marks(found: &BTreeMap<String, String>, marks: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let others = found.iter().filter(|(key, _)| !is_mark(key));
    others.chain(marks).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Versions to be retired: all but the newest `keep`, once the one that replaced them is `overlap` seconds old. Each
/// comes with its time, seconds; the newest one's time is now, so no other clock is needed. They may come in any order.
pub fn retirable<T: Clone + Ord>(versions: &[(i64, T)], keep: usize, overlap: i64) -> Vec<T> {
    let mut versions: Vec<_> = versions.iter().collect();
    versions.sort();
    let Some(now) = versions.last().map(|(at, _)| *at) else { return Vec::new() };
    let replaced = versions.windows(2).map(|pair| (&pair[0].1, pair[1].0));
    let old = replaced.take(versions.len().saturating_sub(keep.max(1)));
    old.filter(|(_, at)| now.saturating_sub(*at) >= overlap).map(|(version, _)| version.clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_version_is_retired_only_when_newer_ones_are_enough_and_its_successor_is_as_old_as_the_overlap() {
        let versions = [(0, 1), (1_000, 2), (2_000, 3), (2_100, 4)];
        assert_eq!(retirable(&versions, 2, 600), [1]);
        assert_eq!(retirable(&versions, 1, 600), [1], "version 3 was replaced just now, version 2 a moment before");
        assert_eq!(retirable(&versions, 1, 100), [1, 2]);
        assert_eq!(retirable(&versions, 1, 0), [1, 2, 3]);
        assert_eq!(retirable(&versions, 9, 0), [0; 0]);
    }

    #[test]
    fn marks_say_whose_token_it_is_and_leave_what_others_said() {
        let manners = Manners { owner: Some("team a"), ..Manners::default() };
        let context =
            Context { target: "ci", issue: "j", issued_at: 0, expires_at: 2_000_000_000, generation: 1, timeout: Duration::ZERO, manners };
        let ours = marks(&context, |text| Some(text.to_owned()));
        let found = BTreeMap::from([("team".to_owned(), "b".to_owned()), ("tokenferry/owner".to_owned(), "old".to_owned())]);
        assert!(!marked(&found));
        let all = with_marks(&found, &ours);
        assert!(marked(&all));
        assert_eq!(
            all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
            [
                "managed-by=tokenferry",
                "team=b",
                "tokenferry/expires-at=2033-05-18T03:33:20Z",
                "tokenferry/owner=team a",
                "tokenferry/target=ci"
            ]
        );
    }

    #[test]
    fn marks_beside_something_encrypted_say_until_when_and_not_whose_it_is_over_what_was_said_before() {
        let manners = Manners { owner: Some("team a"), sealed: true, ..Manners::default() };
        let context =
            Context { target: "ci", issue: "j", issued_at: 0, expires_at: 2_000_000_000, generation: 1, timeout: Duration::ZERO, manners };
        let plain = Context { manners: Manners { sealed: false, ..manners }, ..context };
        let said = |context: &Context<'_>| marks(context, |text| Some(text.to_owned()));
        let ours = said(&context);
        let all: Vec<String> = ours.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let expected = [
            "managed-by=tokenferry",
            "tokenferry/expires-at=2033-05-18T03:33:20Z",
            "tokenferry/owner=encrypted",
            "tokenferry/target=encrypted",
        ];
        assert_eq!(all, expected);
        // A store that adds what it is told to what stands there forgets the names nevertheless.
        assert!(said(&plain).keys().all(|key| ours.contains_key(key)));
    }

    proptest! {
        #[test]
        fn the_newest_version_is_never_retired_nor_one_that_was_good_within_the_overlap(
            times in proptest::collection::vec(0i64..10_000, 1..20), keep in 0usize..6, overlap in 0i64..5_000
        ) {
            let mut times = times;
            times.sort_unstable();
            let versions: Vec<(i64, usize)> = times.iter().copied().zip(0..).collect();
            let now = times[times.len() - 1];
            let gone = retirable(&versions, keep, overlap);
            prop_assert!(versions.len() - gone.len() >= keep.max(1).min(versions.len()));
            for version in gone {
                prop_assert!(version + 1 < versions.len());
                prop_assert!(now - versions[version + 1].0 >= overlap);
            }
        }
    }
}
