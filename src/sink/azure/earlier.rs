//! Which versions before the one in use are still enabled: each version names them in a tag, for Key Vault lists the
//! versions of a secret without order, a few at a time, and never forgets one. Pure.

use crate::sink::manners::retirable;

/// The tag's name.
pub(super) const TAG: &str = "tokenferry/earlier";
/// How many versions a tag can name: 43 characters for each of them, of 256.
pub(super) const MOST: usize = 5;

/// A version, and when it was made, seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub id: String,
    pub made: i64,
}

/// What the tag says. What is not of our making is left out.
pub(super) fn parsed(tag: &str) -> Vec<Version> {
    let one = |text: &str| {
        let (id, made) = text.split_once('@')?;
        let good = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
        Some(Version { id: good.then(|| id.to_owned())?, made: made.parse().ok()? })
    };
    tag.split(' ').filter_map(one).collect()
}

/// The tag that says it; none where there is nothing to say.
pub(super) fn written(versions: &[Version]) -> Option<String> {
    let texts: Vec<String> = versions.iter().map(|version| format!("{}@{}", version.id, version.made)).collect();
    Some(texts.join(" ")).filter(|text| !text.is_empty())
}

/// Which of them go before a new version is made at that time, and which stay; the last one is in use until then and
/// stays. More go than the overlap lets where a tag could not name them all.
pub(super) fn sorted_out(versions: Vec<Version>, now: i64, keep: usize, overlap: i64) -> (Vec<Version>, Vec<Version>) {
    let used = versions.len().saturating_sub(1);
    // The new one counts among those that are kept; whatever order the clocks have.
    let times: Vec<(i64, usize)> = versions.iter().map(|version| version.made).chain([now]).zip(0..).collect();
    let mut old = retirable(&times, keep, overlap);
    old.extend(0..versions.len().saturating_sub(MOST));
    let is_old = |index: usize| index < used && old.contains(&index);
    let (gone, stay): (Vec<_>, Vec<_>) = versions.into_iter().enumerate().partition(|(index, _)| is_old(*index));
    let plain = |versions: Vec<(usize, Version)>| versions.into_iter().map(|(_, version)| version).collect();
    (plain(gone), plain(stay))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(times: &[i64]) -> Vec<Version> {
        times.iter().map(|made| Version { id: format!("v{made}"), made: *made }).collect()
    }

    fn gone(times: &[i64], now: i64, keep: usize, overlap: i64) -> Vec<i64> {
        sorted_out(versions(times), now, keep, overlap).0.into_iter().map(|version| version.made).collect()
    }

    #[test]
    fn a_version_goes_once_its_successor_is_as_old_as_the_overlap_and_the_one_in_use_never() {
        assert_eq!(gone(&[100, 200, 900], 1_000, 1, 600), [100], "the second was replaced just now");
        assert_eq!(gone(&[100, 200, 900], 1_000, 1, 0), [100, 200], "the third is in use until the new one is there");
        assert_eq!(gone(&[100, 200, 900], 1_000, 3, 0), [100]);
        assert_eq!(gone(&[100], 1_000, 1, 0), [0; 0]);
        assert_eq!(gone(&[], 1_000, 1, 0), [0; 0]);
    }

    #[test]
    fn no_more_stay_than_a_tag_can_name() {
        let many: Vec<i64> = (0..9).collect();
        let (gone, stay) = sorted_out(versions(&many), 9, 9, 600);
        assert_eq!((gone.len(), stay.len()), (4, MOST));
        let long = vec![Version { id: "0123456789abcdef0123456789abcdef".into(), made: 4_102_444_800 }; MOST];
        assert!(written(&long).unwrap().len() <= 256);
    }

    #[test]
    fn what_a_tag_says_is_read_back_and_what_is_no_version_is_left_out() {
        let found = versions(&[1, 22]);
        assert_eq!(parsed(&written(&found).unwrap()), found);
        assert_eq!(written(&[]), None);
        assert_eq!(parsed("a/../b@1 @2 x@ y z@3"), [Version { id: "z".into(), made: 3 }]);
    }
}
