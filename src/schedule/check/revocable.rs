//! `revocable` and `overlap`: whether each generation can have a marker of its own.

use super::Planner;
use super::target::Subject;
use crate::schedule::file::TargetFile;
use crate::schedule::measure::Seconds;
use crate::schedule::problem::Severity;
use crate::sink::manners::OVERLAP;

/// Longest name of a target whose markers still have names: `tokenferry.` and a number come around it.
const LONGEST: usize = 253 - "tokenferry..0".len();

impl Planner<'_> {
    /// Whether the target is revocable, and how long a generation outlives the next one. `files` are the target's own
    /// and `defaults`.
    pub(super) fn revocable(
        &mut self,
        subject: &Subject<'_>,
        files: (&TargetFile, &TargetFile),
        embedded: Option<bool>,
        bound: bool,
        duration: Option<u64>,
    ) -> (bool, u64) {
        let (own, shared) = files;
        let overlap = own.overlap.or(shared.overlap).map_or(OVERLAP, |overlap| overlap.0);
        if !own.revocable.or(shared.revocable).unwrap_or(false) {
            return (false, overlap);
        }
        let steps = ["revocable".into()];
        if bound {
            let message = "it binds each token to a marker of its own, and `boundTo` to another object: keep one of the two";
            self.error(subject, &steps, message);
        }
        if embedded == Some(true) {
            let message = "an embedded cluster holds no Secrets, so no token of it can be revoked: leave it out, or name a real cluster";
            self.error(subject, &steps, message);
        }
        if own.name.as_ref().is_some_and(|name| name.len() > LONGEST) {
            let message = format!("its markers are named after the target, whose name is too long for that: {LONGEST} characters at most");
            self.error(subject, &["name".into()], &message);
        }
        if duration.is_some_and(|life| overlap >= life) {
            let message = format!(
                "{} is no less than the token's life: the generation before ends by itself before it would be revoked",
                Seconds(overlap)
            );
            let steps = [if own.overlap.or(shared.overlap).is_some() { "overlap" } else { "revocable" }.into()];
            self.say(subject, &steps, Severity::Warning, &message);
        }
        (true, overlap)
    }
}
