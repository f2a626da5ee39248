//! `audiences`: each once, and together small enough for what carries a token.

use std::collections::HashSet;

use super::Planner;
use super::target::Subject;
use crate::schedule::measure::{Bytes, shown};
use crate::schedule::problem::Severity;

/// Audiences larger than this make a token that usual servers refuse as a header (8 KiB).
const LARGE_AUDIENCES: u64 = 4 << 10;
/// What the largest store of any kind would still hold.
const LARGEST_AUDIENCES: u64 = 1 << 20;

impl Planner<'_> {
    pub(super) fn audiences(&mut self, subject: &Subject<'_>, audiences: &[String]) {
        let mut seen = HashSet::new();
        for (index, audience) in audiences.iter().enumerate() {
            let message = if audience.trim().is_empty() {
                "an audience is empty: write one, or leave `audiences` out for the API server's own".to_owned()
            } else if audience.chars().any(char::is_control) {
                "a control character stands in the audience: take it out".to_owned()
            } else if !seen.insert(audience) {
                format!("the audience {} stands here twice: keep one", shown(audience))
            } else {
                continue;
            };
            self.error(subject, &["audiences".into(), index.into()], &message);
        }
        let size = token_bytes(audiences);
        if size > LARGEST_AUDIENCES {
            let message = format!(
                "the audiences alone make a token of {size} bytes, more than any store holds ({}): write fewer",
                Bytes(LARGEST_AUDIENCES)
            );
            self.error(subject, &["audiences".into()], &message);
        } else if size > LARGE_AUDIENCES {
            let message =
                format!("the audiences alone make a token of {size} bytes: most servers refuse headers beyond 8 KiB; write fewer");
            self.say(subject, &["audiences".into()], Severity::Warning, &message);
        }
    }
}

/// Bytes of a token (base64url, RFC 7515) that its audiences alone take.
pub(super) fn token_bytes(audiences: &[String]) -> u64 {
    let json: usize = audiences.iter().map(|audience| audience.len() + 3).sum();
    u64::try_from(json.div_ceil(3).saturating_mul(4)).unwrap_or(u64::MAX)
}
