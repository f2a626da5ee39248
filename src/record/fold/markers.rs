//! What became of a target's markers: to which Secret which of its tokens is bound, and what is owed to them.

use jiff::Timestamp;

use super::TargetState;
use crate::record::hex::Hex;
use crate::record::line::{Kind, Line};
use crate::record::marker::{Asked, MarkerLine};
use crate::record::text::{assign, text};

/// A marker that stands as far as records know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerState {
    /// Its cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The first generation that is bound to it: where the ring was full, several share one.
    pub first: u64,
    /// The last one.
    pub generation: u64,
    /// `jti` of the last token; `None` where nobody got a token that is bound to it.
    pub jti: Option<Hex<16>>,
    /// That token's `exp`.
    pub expires_at: Option<Timestamp>,
    /// What a person wants of its revocation.
    pub asked: Option<Asked>,
    /// Why it could not be deleted yet.
    pub error: Option<String>,
}

impl MarkerState {
    /// Whether that generation is bound to it.
    pub fn covers(&self, generation: u64) -> bool {
        (self.first..=self.generation).contains(&generation)
    }

    /// As a line names it.
    pub fn to_line(&self) -> MarkerLine {
        MarkerLine {
            cluster: self.cluster.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            asked: self.asked,
            verified: None,
            first: (self.first != self.generation).then_some(self.first),
            generation: None,
            jti: None,
            expires_at: None,
            error: None,
        }
    }

    pub(super) fn to_checkpoint(&self) -> MarkerLine {
        MarkerLine {
            generation: Some(self.generation),
            jti: self.jti.as_ref().map(Hex::to_string),
            expires_at: self.expires_at,
            error: self.error.clone(),
            ..self.to_line()
        }
    }

    pub(super) fn from_checkpoint(line: &MarkerLine) -> Self {
        let generation = line.generation.unwrap_or(0);
        Self {
            generation,
            first: line.first.unwrap_or(generation),
            jti: line.jti.as_deref().map(Hex::from),
            expires_at: line.expires_at,
            error: line.error.clone(),
            ..Self::new(line)
        }
    }

    fn new(line: &MarkerLine) -> Self {
        Self {
            cluster: line.cluster.clone(),
            namespace: line.namespace.clone(),
            name: line.name.clone(),
            uid: line.uid.clone(),
            first: 0,
            generation: 0,
            jti: None,
            expires_at: None,
            asked: line.asked,
            error: None,
        }
    }

    fn is_that_of(&self, line: &MarkerLine) -> bool {
        self.uid == line.uid && self.name == line.name
    }
}

impl TargetState {
    /// A token was, or would have been, bound to these. A name that is used again is another object.
    pub(super) fn marked<S: AsRef<str>>(&mut self, line: &Line<S>) {
        let generation = line.generation.unwrap_or(self.generation);
        let mut markers = self.markers.edit();
        for bound in &line.markers {
            let place = |m: &MarkerState| (m.cluster == bound.cluster, m.namespace == bound.namespace, m.name == bound.name);
            markers.retain(|m| m.uid == bound.uid || place(m) != (true, true, true));
            let index = markers.iter().position(|m| m.is_that_of(bound)).unwrap_or_else(|| {
                markers.push(MarkerState { first: generation, ..MarkerState::new(bound) });
                markers.len() - 1
            });
            let marker = &mut markers[index];
            if marker.jti.is_none() {
                marker.first = generation;
            }
            marker.generation = marker.generation.max(generation);
            // A token without times was never handed to any place.
            if line.issued_at.is_some() {
                marker.jti = text(line.jti.as_ref()).map(Hex::from);
                marker.expires_at = line.expires_at;
            }
        }
    }

    /// Markers are to go, or could not be made to go yet.
    pub(super) fn revoking<S: AsRef<str>>(&mut self, line: &Line<S>) {
        let mut markers = self.markers.edit();
        for told in &line.markers {
            if let Some(marker) = markers.iter_mut().find(|m| m.is_that_of(told)) {
                marker.asked = marker.asked.max(told.asked);
                assign(&mut marker.error, line.error.as_ref());
            }
        }
    }

    /// Markers are gone, and with them the tokens that were bound to them; perhaps the one in use.
    pub(super) fn revoked<S: AsRef<str>>(&mut self, line: &Line<S>) {
        let gone = |marker: &MarkerState| line.markers.iter().any(|told| marker.is_that_of(told));
        if self.jti.is_some() && self.markers.iter().any(|m| gone(m) && m.jti == self.jti) {
            self.rejected_at = Some(line.time);
        }
        self.markers.edit().retain(|marker| !gone(marker));
    }

    /// The marker of the token in use.
    pub fn newest_marker(&self) -> Option<&MarkerState> {
        self.markers.iter().find(|marker| marker.jti.is_some() && marker.jti == self.jti)
    }

    /// What a line says of markers.
    pub(super) fn take_markers<S: AsRef<str>>(&mut self, line: &Line<S>) {
        match line.kind {
            Kind::Revoking => self.revoking(line),
            Kind::Revoked => self.revoked(line),
            _ => self.marked(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn marker(name: u64, uid: &str) -> MarkerLine {
        let marker = MarkerState::new(&MarkerLine {
            cluster: "c".into(),
            namespace: "ci".into(),
            name: format!("tokenferry.ci.{name}"),
            uid: uid.into(),
            ..MarkerLine::default()
        });
        MarkerLine { first: None, ..marker.to_line() }
    }

    fn line(kind: Kind, generation: u64, jti: Option<&str>, marker: MarkerLine) -> Line {
        Line {
            target: Some("ci".into()),
            generation: Some(generation),
            jti: jti.map(str::to_owned),
            issued_at: jti.map(|_| at(100)),
            expires_at: jti.map(|_| at(700)),
            markers: vec![marker],
            ..Line::new(kind, at(100))
        }
    }

    fn fold(lines: &[Line]) -> State {
        let mut state = State::default();
        lines.iter().for_each(|line| state.apply(line));
        state
    }

    #[test]
    fn a_marker_is_that_of_the_last_token_bound_to_it_and_covers_all_of_them() {
        let state = fold(&[line(Kind::Rotated, 3, Some("a"), marker(3, "u")), line(Kind::Rotated, 4, Some("b"), marker(3, "u"))]);
        let newest = state.targets["ci"].newest_marker().unwrap();
        assert_eq!((newest.first, newest.generation, newest.jti.clone()), (3, 4, Some("b".into())));
        assert!(newest.covers(3) && newest.covers(4) && !newest.covers(5));
    }

    #[test]
    fn a_marker_of_a_token_that_nobody_got_is_known_and_a_name_that_is_used_again_is_another_object() {
        let failed = line(Kind::Failed, 1, None, marker(1, "u"));
        let mut state = fold(&[failed]);
        assert_eq!(state.targets["ci"].markers[0].jti, None);
        state.apply(&line(Kind::Rotated, 5, Some("e"), marker(1, "v")));
        let uids: Vec<&str> = state.targets["ci"].markers.iter().map(|m| m.uid.as_str()).collect();
        assert_eq!(uids, ["v"]);
    }

    #[test]
    fn what_is_asked_outlives_a_checkpoint_and_what_is_gone_is_forgotten_with_its_token() {
        let asked = MarkerLine { asked: Some(Asked::Now), ..marker(1, "u") };
        let mut revoking = line(Kind::Revoking, 1, Some("a"), asked);
        let mut state = fold(&[line(Kind::Rotated, 1, Some("a"), marker(1, "u")), revoking.clone()]);
        revoking.markers[0].asked = None;
        revoking.error = Some("no answer".into());
        state.apply(&revoking);
        let mut again = fold(&state.checkpoint(at(200)));
        assert_eq!(again.targets, state.targets);
        let owed = &again.targets["ci"].markers[0];
        assert_eq!((owed.asked, owed.error.as_deref()), (Some(Asked::Now), Some("no answer")));
        again.apply(&line(Kind::Revoked, 1, Some("a"), marker(1, "u")));
        let ci = &again.targets["ci"];
        assert!(ci.markers.is_empty() && ci.rejected_at.is_some(), "the token in use is dead: it is replaced at once");
        again.apply(&line(Kind::Rotated, 2, Some("b"), marker(2, "w")));
        assert!(again.targets["ci"].rejected_at.is_none());
    }

    #[test]
    fn a_retired_target_does_not_come_back_by_what_is_said_of_its_markers() {
        let mut state = fold(&[line(Kind::Rotated, 1, Some("a"), marker(1, "u")), line(Kind::Retired, 1, None, marker(1, "u"))]);
        state.apply(&line(Kind::Revoked, 1, Some("a"), marker(1, "u")));
        assert!(state.targets.is_empty());
    }
}
