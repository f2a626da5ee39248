//! Looks of the loop: at the places of a new plan, at files that were touched, on the beat of the proof.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Done, Looking, SETTLED, Wheel};
use crate::cluster::Proven;
use crate::daemon::clock::{now_ms, share};
use crate::daemon::rotation::{identify, tell};
use crate::daemon::start::{self, Depth, Finding};
use crate::daemon::touched::Touched;
use crate::record::{Kind, Line, Reason};
use crate::schedule::Target;

/// Targets that are looked at together.
const TOGETHER: usize = 32;

impl Wheel {
    /// Has the places of these targets looked at, at the start with orphaned temporary files removed first. Those
    /// that stand on a file system or store that hangs are found later than the others.
    pub(super) fn look(&mut self, targets: Vec<Arc<Target>>, why: Looking) {
        let ends = |target: &Arc<Target>| self.state.targets.get(&target.name).and_then(|s| s.expires_at);
        let mut parts: Vec<Vec<Arc<Target>>> = Vec::new();
        for mut part in start::parts(targets) {
            // What ends first is found first, and need not wait for all others.
            part.sort_by_cached_key(|target| ends(target).map_or(i64::MAX, Timestamp::as_second));
            parts.extend(part.chunks(TOGETHER).map(<[_]>::to_vec));
        }
        if why == Looking::Start {
            // A plan without targets has been looked at, too.
            if parts.is_empty() {
                parts.push(Vec::new());
            }
            self.unsettled = parts.len();
        }
        for part in parts {
            let scene = Arc::clone(&self.scene);
            let states: Vec<_> = part.iter().map(|t| self.state.targets.get(&t.name).cloned()).collect();
            let depth = if let Looking::Beat(depth) = why { depth } else { Depth::Files };
            self.tasks.spawn(async move {
                if why == Looking::Start {
                    start::sweep(&part).await;
                }
                Done::Looked(start::look(&scene, part.into_iter().zip(states).collect(), depth).await, why)
            });
        }
    }

    /// Takes what a look at a target's places has shown.
    pub(super) async fn found(&mut self, finding: Finding) {
        let name: Arc<str> = Arc::from(finding.target.name.as_str());
        for note in &finding.notes {
            tracing::warn!(target_name = &*name, "{note}");
        }
        if let Some(line) = finding.adopted {
            tell(&line);
            self.record(line).await;
        }
        let Some(course) = self.courses.get_mut(&name) else { return };
        course.notes = finding.notes;
        if let Some((held, places)) = finding.copy {
            course.held = Some(held);
            let paying = places.clone();
            self.pay(&name, Some(paying));
        }
        let forced = self.options.once.as_ref().is_some_and(|once| once.force);
        let mint = finding.mint.or(forced.then_some(Reason::Manual));
        let suspended = self.courses.get(&name).is_some_and(|c| c.target.suspend);
        match mint {
            Some(reason) if !suspended || forced => self.arm_at(&name, Some((now_ms(), reason))),
            _ => self.arm(&name),
        }
        self.arm_next_proof(&name);
    }

    /// Takes what a look in between has shown: what is wrong is mended at once, but never in a loop.
    pub(super) async fn looked(&mut self, finding: Finding, depth: Depth) {
        let name: Arc<str> = Arc::from(finding.target.name.as_str());
        let Some(course) = self.courses.get_mut(&name) else { return };
        course.looking = false;
        // What was seen while tokens changed says nothing.
        if course.rotating || course.paying.is_some() {
            self.arm_look(&name, depth, SETTLED);
            return;
        }
        if course.held.is_some() {
            self.arm_next_proof(&name);
            return;
        }
        let now = now_ms();
        if depth == Depth::Everything {
            self.arm_next_proof(&name);
        }
        if let Some(Proven::Refused(why)) = &finding.proven {
            let mut line = Line::new(Kind::Rejected, Timestamp::now());
            identify(&mut line, &finding.target);
            line.jti = self.state.targets.get(&*name).and_then(|s| s.jti.clone());
            line.error = Some(format!("the delivered token is refused: {why}"));
            tell(&line);
            self.record(line).await;
            self.mend(&name, Reason::Rejected, now);
            return;
        }
        if let Some(course) = self.courses.get_mut(&name)
            && finding.proven.as_ref().is_none_or(|p| *p == Proven::Online)
            && finding.copy.is_none()
            && finding.mint.is_none()
        {
            course.proven_at = Some(Timestamp::now());
        }
        if let Some(line) = finding.adopted {
            tell(&line);
            self.record(line).await;
            self.arm(&name);
        }
        if let Some((held, places)) = finding.copy {
            tracing::warn!(target_name = &*name, "places do not have what was delivered; they are written again");
            if let Some(course) = self.courses.get_mut(&name) {
                course.held = Some(held);
            }
            self.pay(&name, Some(places));
        }
        if let Some(reason) = finding.mint {
            tracing::warn!(target_name = &*name, "a place lost its token, and no other has it; it is minted anew");
            self.mend(&name, reason, now);
        }
    }

    pub(super) fn mend(&mut self, name: &Arc<str>, reason: Reason, now: i64) {
        let Some(course) = self.courses.get_mut(name).filter(|c| !c.target.suspend) else { return };
        let at = course.mend_at(now);
        self.arm_at(name, Some((at, reason)));
    }

    pub(super) fn arm_look(&mut self, name: &Arc<str>, depth: Depth, after: i64) {
        if self.options.once.is_some() {
            return;
        }
        if let Some(course) = self.courses.get_mut(name) {
            let next = now_ms() + after;
            let sooner = course.prove_at.is_none_or(|(at, _)| next < at);
            if sooner {
                course.arm_look(name, &mut self.timers, Some((next, depth)));
            }
        }
    }

    /// The beat of the proof, spread by a stable share so that not all are tried at once.
    pub(super) fn arm_next_proof(&mut self, name: &Arc<str>) {
        let Some(course) = self.courses.get(name).filter(|c| c.target.prove && c.target.prove_every > 0) else { return };
        let every = i64::try_from(course.target.prove_every.saturating_mul(1000)).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let after = (every as f64 * (0.75 + share() / 4.0)) as i64;
        self.arm_look(name, Depth::Everything, after);
    }

    /// A file of a place, or its folder, was touched: its target is looked at once the dust has settled.
    pub(super) fn touched(&mut self, names: &[Arc<str>]) {
        for name in names {
            self.arm_look(name, Depth::Files, SETTLED);
        }
    }

    pub(super) fn watch_places(&mut self) {
        if self.options.once.is_none() {
            self.watched = Touched::watch(&self.scene.plan);
        }
    }
}
