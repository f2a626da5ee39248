//! Revocations: markers go once nobody needs their tokens any more ([`revocation`]), or because somebody asked.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Moment, Order, Timetable};
use crate::cluster::Binding;
use crate::cluster::marker::{Marker, RING};
use crate::daemon::ask::{Asker, Demand, Revoked, Which, Word};
use crate::daemon::rotation::{Fault, Held, identify};
use crate::daemon::{binding, revocation, step};
use crate::record::fold::{MarkerState, TargetState};
use crate::record::{Actor, Asked, Kind, Line, Reason};
use crate::schedule::Target;

/// Markers to be deleted.
pub struct Revocation {
    /// Name of the target.
    pub name: Arc<str>,
    /// The target.
    pub target: Arc<Target>,
    /// Which.
    pub markers: Vec<MarkerState>,
    /// Tokens to be tried once their marker is gone.
    pub evidence: Vec<Arc<Held>>,
    /// What is needed to tell markers that no record knows, where they are to be looked for.
    pub strays: Option<Strays>,
}

/// How markers that no record knows are told from those that are needed.
pub struct Strays {
    /// Those that records know.
    pub known: Vec<Marker>,
    /// The newest generation.
    pub generation: u64,
    /// `iat` of the newest token.
    pub issued_at: i64,
}

/// What became of one marker.
pub struct Outcome {
    /// Its UID.
    pub uid: String,
    /// Its record, or why it stands yet.
    pub result: Result<Line, (String, Fault)>,
}

/// What a line says of a marker. Pure.
pub fn line_of(kind: Kind, target: &Target, marker: &MarkerState, now: Timestamp) -> Line {
    let mut line = Line::new(kind, now);
    identify(&mut line, target);
    line.ask = None;
    line.generation = Some(marker.generation);
    line.jti = marker.jti.as_ref().map(ToString::to_string);
    line.expires_at = marker.expires_at;
    line.markers = vec![marker.to_line()];
    line
}

impl Timetable {
    /// Sets the time at which markers may go, by the records.
    pub(crate) fn arm_revoke(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        let (Some(course), Some(state)) = (self.courses.get_mut(name), self.state.target(name)) else { return };
        if course.revoking || state.markers.is_empty() {
            return;
        }
        let now = moment.ms();
        let (go, again) = revocation::revocable(&course.target, state, course.rotating, now.div_euclid(1000));
        let at = if go.is_empty() { again.map(|at| at.saturating_mul(1000)) } else { Some(now.max(course.revocation.unrevoked.1)) };
        // `once` does now what may be done now, and tries nothing again.
        let at = at.filter(|at| !self.manner.once || *at <= now && course.revocation.unrevoked.0 == 0);
        course.arm_revoke(name, &mut self.timers, at);
    }

    /// Has the markers deleted that may go now.
    pub(super) fn revoke_due(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        let (Some(course), Some(state)) = (self.courses.get_mut(name), self.state.target(name)) else { return };
        course.revocation.edit().revoke_at = None;
        let (markers, _) = revocation::revocable(&course.target, state, course.rotating, moment.ms().div_euclid(1000));
        if course.revoking || markers.is_empty() {
            return self.arm_revoke(name, moment);
        }
        course.revoking = true;
        let bound = |held: &&Arc<Held>| {
            held.claims.kubernetes.secret.as_ref().is_some_and(|secret| markers.iter().any(|marker| marker.uid == secret.uid))
        };
        let evidence = course.revocation.evidence.iter().filter(bound).cloned().collect();
        // A rotation under way may share a marker that no record knows.
        let strays = state.issued_at.filter(|_| !course.rotating && course.target.revocable).map(|issued_at| Strays {
            known: state.markers.iter().map(binding::object).collect(),
            generation: state.generation,
            issued_at: issued_at.as_second(),
        });
        let revocation = Revocation { name: Arc::clone(name), target: Arc::clone(&course.target), markers, evidence, strays };
        self.orders.push(Order::Revoke(Box::new(revocation)));
    }

    /// A person wants generations dead; `evidence` are tokens of the target that were found at its places. The asker
    /// is told when it is done, or what it waits for.
    pub fn revoke(&mut self, demand: &Demand, evidence: Vec<Arc<Held>>, actor: &Actor, asker: Asker, moment: &Moment<'_>) {
        let name: Arc<str> = Arc::from(demand.target.as_str());
        let Some(course) = self.courses.get_mut(&name) else { return asker.tell(Revoked::new(&demand.target, Word::Nothing)) };
        let none = TargetState::default();
        let chosen = match chosen(demand, course.target.revocable, self.state.target(&name).unwrap_or(&none)) {
            Ok(chosen) => chosen,
            Err(answer) => {
                let ends_by = (answer.outcome == Word::NoMarker).then(|| ends_by(&course.target));
                return asker.tell(Revoked { ends_by, ..*answer });
            }
        };
        let mut asker = asker;
        asker.uids = chosen.iter().map(|marker| marker.uid.clone()).collect();
        let mut revocation = course.revocation.edit();
        revocation.evidence.extend(evidence);
        revocation.unrevoked = (0, 0);
        revocation.askers.push(asker);
        drop(revocation);
        let target = Arc::clone(&course.target);
        for marker in chosen {
            let asked = Some(if demand.now { Asked::Now } else { Asked::Delivered });
            let mut line = line_of(Kind::Revoking, &target, &MarkerState { asked, ..marker }, moment.now);
            line.reason = Some(Reason::Manual);
            line.actor = Some(actor.clone());
            self.record(line);
        }
        self.arm_revoke(&name, moment);
        self.succeed(&name, moment);
    }

    /// Has a successor minted for a token that is to be revoked, once the ring has room for its marker.
    pub(super) fn succeed(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        let (Some(course), Some(state)) = (self.courses.get(name), self.state.target(name)) else { return };
        let wanted = state.newest_marker().is_some_and(|marker| marker.asked.is_some());
        let others_go = course.revocation.revoke_at.is_some() || course.revoking;
        let crowded = course.target.revocable && state.markers.len() >= RING && others_go;
        let under_way = course.rotating || course.failures > 0;
        if wanted && !under_way && !crowded {
            self.arm_at(name, Some((moment.ms(), Reason::Manual)));
        }
    }

    /// Takes what came of a removal; lines of what is gone are written already.
    pub fn revoked(&mut self, name: &Arc<str>, outcomes: Vec<Outcome>, moment: &Moment<'_>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        course.revoking = false;
        let target = Arc::clone(&course.target);
        let mut fault = None;
        for Outcome { uid, result } in outcomes {
            match result {
                Ok(line) => {
                    self.state.apply(&line);
                    self.tell_gone(name, &uid, &line);
                }
                Err((error, why)) => {
                    fault = Some(why);
                    self.note_owed(name, &target, &uid, &error, moment);
                }
            }
        }
        let Some(course) = self.courses.get_mut(name) else { return };
        let mut revocation = course.revocation.edit();
        revocation.unrevoked = match fault {
            None => (0, 0),
            Some(fault) => {
                let tries = revocation.unrevoked.0 + 1;
                (tries, step::retry(moment.ms(), tries, fault, None, moment.world.share()))
            }
        };
        let state = self.state.target(name);
        let stands = |held: &Arc<Held>| {
            let secret = held.claims.kubernetes.secret.as_ref();
            secret.is_some_and(|s| state.is_some_and(|state| state.markers.iter().any(|marker| marker.uid == s.uid)))
        };
        revocation.evidence.retain(stands);
        drop(revocation);
        let dead = state.is_some_and(|state| state.rejected_at.is_some());
        if dead && !course.rotating && course.failures == 0 && !self.manner.once {
            self.arm(name, moment);
        }
        self.arm_revoke(name, moment);
        self.succeed(name, moment);
    }

    fn tell_gone(&mut self, name: &Arc<str>, uid: &str, line: &Line) {
        let Some(course) = self.courses.get_mut(name) else { return };
        let mut revocation = course.revocation.edit();
        for asker in std::mem::take(&mut revocation.askers) {
            revocation.askers.extend(asker.heard(uid, line));
        }
    }

    /// Records why a marker stands yet, once for each time that it begins to; and tells who waits.
    fn note_owed(&mut self, name: &Arc<str>, target: &Target, uid: &str, error: &str, moment: &Moment<'_>) {
        let Some(state) = self.state.target(name) else { return };
        let Some(marker) = state.markers.iter().find(|marker| marker.uid == uid) else { return };
        if marker.error.is_none() {
            let mut line = line_of(Kind::Revoking, target, marker, moment.now);
            line.error = Some(error.to_owned());
            self.record(line);
        }
        let why = format!("{error}; the daemon tries again until it is done");
        self.tell_owed(name, |asker| asker.uids.iter().any(|wanted| wanted == uid), &why);
    }

    fn tell_owed(&mut self, name: &Arc<str>, meant: impl Fn(&Asker) -> bool, why: &str) {
        let Some(course) = self.courses.get_mut(name) else { return };
        let mut revocation = course.revocation.edit();
        let (told, kept): (Vec<Asker>, Vec<Asker>) = std::mem::take(&mut revocation.askers).into_iter().partition(meant);
        revocation.askers = kept;
        for asker in told {
            let records = asker.records.clone();
            asker.tell(Revoked { error: Some(why.to_owned()), records, ..Revoked::new(name, Word::Owed) });
        }
    }

    /// A rotation is over: tells who waits for a successor that is not everywhere yet.
    pub(super) fn tell_successor(&mut self, name: &Arc<str>, line: &Line) {
        let missing =
            line.sinks.iter().find(|sink| !matches!(sink.outcome, crate::record::Outcome::Written | crate::record::Outcome::Unchanged));
        let why = match (missing, line.kind) {
            (Some(sink), _) => format!("{} does not have it: {}", sink.place, sink.error.as_deref().unwrap_or("it is owed")),
            (None, Kind::Failed) => line.error.clone().unwrap_or_default(),
            _ => return,
        };
        let Some(state) = self.state.target(name) else { return };
        let waits: Vec<String> =
            state.markers.iter().filter(|m| m.asked == Some(Asked::Delivered)).map(|marker| marker.uid.clone()).collect();
        let why = format!("the next generation has to be delivered first, and {why}. The daemon goes on; `--now` revokes at once");
        self.tell_owed(name, |asker| asker.uids.iter().any(|uid| waits.contains(uid)), &why);
    }

    /// A target goes out of the schedule: nobody looks after its markers any more, unless what it left is deleted.
    pub(super) fn abandon(&mut self, name: &Arc<str>, delete: bool) {
        let left: Vec<String> = self
            .state
            .targets
            .get(&**name)
            .into_iter()
            .flat_map(|state| state.markers.iter())
            .map(|m| format!("{}/{}", m.namespace, m.name))
            .collect();
        if !left.is_empty() && !delete {
            tracing::warn!(target_name = &**name, "its tokens stay good until they end or these Secrets are deleted: {}", left.join(", "));
        }
        self.tell_owed(name, |_| true, "the target went out of the schedule");
    }
}

/// What ends a token that has no marker.
fn ends_by(target: &Target) -> String {
    let ask = &target.ask;
    let account = format!("deleting ServiceAccount {}/{}, which ends every token of it", ask.namespace, ask.service_account);
    match ask.bound_to.as_deref() {
        Some(Binding::Secret(name)) => format!("deleting Secret {}/{name}, to which it is bound, or {account}", ask.namespace),
        Some(Binding::Pod(name)) => format!("deleting Pod {}/{name}, to which it is bound, or {account}", ask.namespace),
        Some(Binding::Node(name)) => format!("deleting Node {name}, to which it is bound, or {account}"),
        Some(Binding::Marker(_)) | None => account,
    }
}

/// The markers that are meant, as far as they stand.
fn chosen(demand: &Demand, revocable: bool, state: &TargetState) -> Result<Vec<MarkerState>, Box<Revoked>> {
    let newest = state.newest_marker();
    let delivered = || state.markers.iter().filter(|marker| marker.jti.is_some());
    let answer = |word, error: Option<String>| {
        let answer = Revoked::new(&demand.target, word);
        Box::new(Revoked { error, expires_at: state.expires_at, generation: Some(state.generation), ..answer })
    };
    let chosen: Vec<MarkerState> = match demand.which {
        Which::Delivered if newest.is_none() && state.jti.is_some() => return Err(answer(Word::NoMarker, None)),
        Which::Delivered => delivered().cloned().collect(),
        Which::AllButNewest if !revocable && state.markers.is_empty() => {
            let why = "the target is not `revocable`: what was delivered before the newest token has no marker and lives until it ends";
            return Err(answer(Word::Unknown, Some(why.into())));
        }
        Which::AllButNewest => delivered().filter(|m| newest.is_none_or(|newest| m.uid != newest.uid)).cloned().collect(),
        Which::Generation(wanted) => {
            let found: Vec<MarkerState> = state.markers.iter().filter(|marker| marker.covers(wanted)).cloned().collect();
            if found.is_empty() && newest.is_none() && wanted == state.generation && state.jti.is_some() {
                return Err(answer(Word::NoMarker, None));
            }
            if found.is_empty() {
                let why = if wanted > state.generation {
                    format!("there is no generation {wanted} yet; the newest is {}", state.generation)
                } else {
                    format!(
                        "generation {wanted} has no marker: it is revoked already, or was minted without one \
                         (`tokenferry records --target {}` tells)",
                        demand.target
                    )
                };
                return Err(answer(Word::Unknown, Some(why)));
            }
            found
        }
    };
    if chosen.is_empty() { Err(answer(Word::Nothing, None)) } else { Ok(chosen) }
}
