//! Looks: at the places of a new plan, at files that were touched, on the beat of the proof.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Looking, Moment, Order, SETTLED, Timetable};
use crate::cluster::Proven;
use crate::daemon::moves::Touch;
use crate::daemon::parts;
use crate::daemon::rotation::identify;
use crate::daemon::start::{Depth, Finding};
use crate::record::fold::TargetState;
use crate::record::{Kind, Line, Reason};
use crate::schedule::{Target, own};

/// Targets that are looked at together.
const TOGETHER: usize = 128;
/// A proof that met a rotation waits for that long, ms: in an outage thousands may be under way for hours.
const BUSY: i64 = 60_000;

/// How long a look waits for a rotation or another look to end, ms.
fn pause(depth: Depth) -> i64 {
    if depth == Depth::Everything { BUSY } else { 5 * SETTLED }
}

impl Timetable {
    /// Has the places of these targets looked at, at the start with orphaned temporary files removed first. Those
    /// that stand on a file system or store that hangs are found later than the others.
    pub(super) fn look(&mut self, targets: Vec<Arc<Target>>, why: Looking) {
        for target in &targets {
            if let Some(course) = self.courses.get_mut(&*target.name) {
                course.seen_from = self.state.target(&target.name).map_or(0, |s| s.generation);
            }
        }
        let ends = |target: &Arc<Target>| self.state.target(&target.name).and_then(|s| s.expires_at);
        for mut part in parts::parts(targets) {
            // What ends first is found first, and need not wait for all others.
            part.sort_by_cached_key(|target| ends(target).map_or(i64::MAX, Timestamp::as_second));
            let wanted = |t: &Arc<Target>| (Arc::clone(t), self.state.targets.get(&*t.name).cloned());
            let looks = part.chunks(TOGETHER).map(|some| some.iter().map(wanted).collect());
            if why == Looking::Start {
                self.orders.push(Order::Begin(looks.collect()));
            } else {
                self.orders.extend(looks.map(|wanted| Order::Look(wanted, why)));
            }
        }
    }

    /// The time of a look has come.
    pub(super) fn beat(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        let depth = course.prove_at.take().map_or(Depth::Files, |(_, depth)| depth);
        if course.looking || course.rotating {
            self.arm_look(name, depth, pause(depth), moment);
            return;
        }
        course.looking = true;
        let target = Arc::clone(&course.target);
        self.look(vec![target], Looking::Beat(depth));
        // A quick look at a touched file must not put the next proof off for ever.
        if depth == Depth::Files {
            self.arm_next_proof(name, moment);
        }
    }

    /// Whether a look fell into a rotation: what was seen while tokens changed says nothing.
    pub(super) fn is_stale(&self, name: &str) -> bool {
        let generation = self.state.target(name).map_or(0, |s| s.generation);
        self.courses.get(name).is_some_and(|course| course.rotating || course.seen_from != generation)
    }

    /// Takes what a look at a target's places has shown, at the start and after a reload.
    pub fn found(&mut self, finding: Finding, moment: &Moment<'_>) {
        let name = self.name_of(&finding.target);
        for note in &finding.notes {
            tracing::warn!(target_name = &*name, "{note}");
        }
        let stale = self.is_stale(&name);
        let Some(course) = self.courses.get_mut(&name) else { return };
        course.flaws.edit().notes = finding.notes;
        course.found = true;
        if self.state.is_withdrawn(&name) && !self.manner.force {
            self.arm_next_proof(&name, moment);
            return;
        }
        if stale {
            self.arm_next_proof(&name, moment);
            self.arm_look(&name, Depth::Files, SETTLED, moment);
            return;
        }
        if self.waits_to_see(&name, finding.unseen && finding.adopted.is_none(), moment) {
            return;
        }
        if let Some(line) = finding.adopted {
            self.record(*line);
        }
        let Some(course) = self.courses.get_mut(&name) else { return };
        if let Some((held, places)) = finding.copy {
            course.debt.edit().held = Some(held);
            self.pay(&name, Some(places));
        }
        let forced = self.manner.force;
        let mint = finding.mint.or(forced.then_some(Reason::Manual));
        let suspended = self.courses.get(&name).is_some_and(|c| c.target.suspend);
        match mint {
            // A start in the midst of it makes no loop of mending either.
            Some(reason @ (Reason::Repair | Reason::Rejected)) if !forced && !self.manner.once => self.mend(&name, reason, moment),
            Some(reason) if !suspended || forced => self.arm_at(&name, Some((moment.ms(), reason))),
            _ => self.arm(&name, moment),
        }
        self.arm_clear(&name, moment);
        self.arm_revoke(&name, moment);
        self.succeed(&name, moment);
        self.arm_next_proof(&name, moment);
    }

    /// Takes what a look in between has shown: what is wrong is mended at once, but never in a loop.
    pub fn looked(&mut self, finding: Finding, depth: Depth, moment: &Moment<'_>) {
        let name = self.name_of(&finding.target);
        self.told_time(&finding.target.cluster, moment);
        let stale = self.is_stale(&name);
        let Some(course) = self.courses.get_mut(&name) else { return };
        course.looking = false;
        if self.state.is_withdrawn(&name) {
            self.arm_next_proof(&name, moment);
            return;
        }
        if stale || course.paying {
            self.arm_look(&name, depth, pause(depth), moment);
            return;
        }
        if course.debt.held.is_some() {
            self.arm_next_proof(&name, moment);
            return;
        }
        if depth == Depth::Everything {
            self.arm_next_proof(&name, moment);
        }
        if let Some(Proven::Refused(why)) = &finding.proven {
            let mut line = Line::new(Kind::Rejected, moment.now);
            identify(&mut line, &finding.target);
            line.jti = self.state.target(&name).and_then(|s| s.jti.as_ref()).map(ToString::to_string);
            line.error = Some(format!("the delivered token is refused: {why}"));
            self.record(line);
            self.mend(&name, Reason::Rejected, moment);
            return;
        }
        if let Some(course) = self.courses.get_mut(&name)
            && finding.proven.as_ref().is_none_or(|p| matches!(p, Proven::Online | Proven::Signed))
            && finding.copy.is_none()
            && finding.mint.is_none()
        {
            course.proven_at = Some(moment.now);
        }
        if let Some(line) = finding.adopted {
            self.record(*line);
            if own::cluster_of(&name).is_some() {
                // A person renewed it: what failed before is over.
                if let Some(course) = self.courses.get_mut(&name) {
                    course.failures = 0;
                }
                self.freed(&finding.target, moment);
            }
            self.arm(&name, moment);
            self.arm_revoke(&name, moment);
        }
        if let Some((held, places)) = finding.copy {
            tracing::warn!(target_name = &*name, "places do not have what was delivered; they are written again");
            if let Some(course) = self.courses.get_mut(&name) {
                course.debt.edit().held = Some(held);
            }
            self.pay(&name, Some(places));
        }
        if let Some(reason) = finding.mint {
            tracing::warn!(target_name = &*name, "a place lost its token, and no other has it; it is minted anew");
            self.mend(&name, reason, moment);
        }
    }

    fn mend(&mut self, name: &Arc<str>, reason: Reason, moment: &Moment<'_>) {
        let Some(course) = self.courses.get_mut(name).filter(|c| !c.target.suspend) else { return };
        let at = course.mend_at(moment.ms());
        let target = Arc::clone(&course.target);
        // However often it was mended, it is rotated when its life says so.
        let state = self.state.target(name).map(|s| TargetState { rejected_at: None, ..s.clone() });
        let (at, reason) = match self.judge(&target, state.as_ref(), moment) {
            Some((due, why)) if due < at && state.is_some() => (due, why),
            _ => (at, reason),
        };
        self.arm_at(name, Some((at, reason)));
    }

    pub(super) fn arm_look(&mut self, name: &Arc<str>, depth: Depth, after: i64, moment: &Moment<'_>) {
        if self.manner.once {
            return;
        }
        if let Some(course) = self.courses.get_mut(name) {
            let next = moment.ms() + after;
            let sooner = course.prove_at.is_none_or(|(at, _)| next < at);
            if sooner {
                course.arm_look(name, &mut self.timers, Some((next, depth)));
            }
        }
    }

    /// The beat of the proof, spread by chance so that not all are tried at once.
    fn arm_next_proof(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        let Some(course) = self.courses.get(name).filter(|c| c.target.prove && c.target.prove_every > 0) else { return };
        let every = i64::try_from(course.target.prove_every.saturating_mul(1000)).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let after = (every as f64 * (0.75 + moment.world.share() / 4.0)) as i64;
        self.arm_look(name, Depth::Everything, after, moment);
    }

    /// Files of places, or their folders, were touched: the targets whose own rotation it was not are looked at once
    /// the dust has settled.
    pub fn touched(&mut self, touches: &[Touch], moment: &Moment<'_>) {
        for Touch { target, moved } in touches {
            let Some(course) = self.courses.get_mut(target) else { continue };
            if course.rotating {
                course.moves.meanwhile(*moved);
            } else if !course.moves.is_own(*moved, moment.ms()) {
                self.arm_look(target, Depth::Files, SETTLED, moment);
            }
        }
    }
}
