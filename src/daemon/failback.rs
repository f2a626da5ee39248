//! The way of a place with fallbacks, from owed to paid and back: an explicit little state machine, pure. Its state is
//! read off the records, where each step is written down: `owed`, `fellBack`, `paid`, `cleared`.
//!
//! ```text
//!            missed            fallen                 arrived                  quiet            cleared
//! Settled ──────────▶ Owed ──────────▶ FellBack ──────────────▶ Returning ──────────▶ Clearing ──────────▶ Settled
//!    ▲                 │                   ▲                        │ missed, fallen       │ missed, fallen
//!    └─────────────────┘ arrived           └────────────────────────┴──────────────────────┘
//! ```
//! A place that flaps goes between `FellBack` and `Returning` and never gets as far as `Clearing`: the copy in the
//! fallback stays for readers until the place has held the newest token for a while, and goes at most once for
//! each quiet time.

use crate::record::fold::{PlaceState, TargetState};
use crate::schedule::timing::Life;
use crate::sink::{Leftover, Place, WhenPaid};

/// How long a place that came back has to hold, seconds; less for a short life.
const QUIET: i64 = 600;
/// That share of a token's life is enough.
const QUIET_SHARE: i64 = 20;
/// Seconds after which a copy that could not be removed is tried again.
const AGAIN: i64 = 60;

/// How a place stands with its fallbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// The place has the token, and no copy stands elsewhere.
    Settled,
    /// Nobody has the token yet; the place is tried again.
    Owed,
    /// A fallback has it; the place is tried again.
    FellBack,
    /// The place has it again; the copy stays until the place has held for a while.
    Returning,
    /// The place has held: the copy is to be removed.
    Clearing,
}

/// What happens to such a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The place has the newest token.
    Arrived,
    /// A newest token reached neither the place nor a fallback.
    Missed,
    /// A newest token reached a fallback only.
    Fallen,
    /// The place has held for the quiet time.
    Quiet,
    /// No copy stands any more.
    Cleared,
}

impl Failback {
    /// The state after that event. `copied`: whether a copy of an older token stands in a fallback.
    #[must_use]
    pub fn after(self, event: Event, copied: bool) -> Self {
        match (self, event) {
            (_, Event::Fallen) => Self::FellBack,
            (_, Event::Missed) => Self::Owed,
            (Self::Settled, Event::Arrived) => Self::Settled,
            (Self::Owed, Event::Arrived) if !copied => Self::Settled,
            (Self::Owed | Self::FellBack | Self::Returning, Event::Arrived) => Self::Returning,
            (Self::Clearing, Event::Arrived) => Self::Clearing,
            (Self::Returning, Event::Quiet) => Self::Clearing,
            (Self::Returning | Self::Clearing, Event::Cleared) => Self::Settled,
            // A quiet time or a removal that ends too late to matter.
            (state, Event::Quiet | Event::Cleared) => state,
        }
    }

    /// Where a place stands by its records.
    pub fn of(place: &PlaceState, life: Option<Life>, now: i64) -> Self {
        match () {
            () if place.owed() && place.outcome == crate::record::Outcome::FellBack => Self::FellBack,
            () if place.owed() => Self::Owed,
            () if place.detour.copies.is_empty() => Self::Settled,
            () if now < quiet_at(place, life) => Self::Returning,
            () => Self::Clearing,
        }
    }
}

/// When a place that came back has held for long enough, unix seconds.
fn quiet_at(place: &PlaceState, life: Option<Life>) -> i64 {
    let quiet = life.map_or(QUIET, |l| QUIET.min(l.seconds() / QUIET_SHARE));
    place.detour.returned_at.unwrap_or(place.since).as_second().saturating_add(quiet)
}

/// The places of a target whose copies may go now, by index and fallback place, and when to look again (unix seconds).
///
/// Never a copy while the place lacks the newest token, nor where the schedule keeps copies or knows the fallback no
/// more.
pub fn clearable(places: &[Place], state: &TargetState, life: Option<Life>, now: i64) -> (Vec<(usize, String)>, Option<i64>) {
    let (mut clear, mut again) = (Vec::new(), None::<i64>);
    for (index, place) in places.iter().enumerate() {
        let (sink, at) = (place.sink.kind(), place.sink.place());
        let Some(recorded) = state.place(sink, &at) else { continue };
        if place.when_paid == WhenPaid::Keep || recorded.jti != state.jti {
            continue;
        }
        let removable = |copy: &&String| place.fallback.iter().any(|f| Leftover::of(f).is_some() && f.sink.place() == **copy);
        let copies: Vec<String> = recorded.detour.copies.iter().filter(removable).cloned().collect();
        if copies.is_empty() {
            continue;
        }
        let next = match Failback::of(recorded, life, now) {
            Failback::Settled | Failback::Owed | Failback::FellBack => continue,
            Failback::Returning => quiet_at(recorded, life),
            Failback::Clearing => {
                clear.extend(copies.into_iter().map(|copy| (index, copy)));
                now + AGAIN
            }
        };
        again = Some(again.map_or(next, |at| at.min(next)));
    }
    (clear, again)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::record::fold::State;
    use crate::record::{Kind, Line, Outcome, SinkLine};
    use crate::sink::SinkSpec;
    use crate::sink::file::{FileSpec, Mode};
    use crate::sink::vault::VaultSpec;
    use crate::token::Format;

    const COPY: &str = "/copy";
    const LIFE: Life = Life { issued_at: 0, expires_at: 86_400 };

    fn places(when_paid: WhenPaid) -> Vec<Place> {
        let file = FileSpec { path: COPY.into(), mode: Mode::default(), owner: None, group: None, readers: Vec::new() };
        let vault = VaultSpec { store: "v".into(), mount: "secret".into(), path: "a".into(), key: "token".into(), ..VaultSpec::default() };
        let place = |sink, fallback| Place { sink, format: Format::Raw, encrypt_to: Vec::new(), required: true, fallback, when_paid };
        vec![place(SinkSpec::Vault(Box::new(vault)), vec![place(SinkSpec::File(file), Vec::new())])]
    }

    fn line(kind: Kind, at: i64, jti: i64, outcome: Outcome) -> Line {
        let fallback = (outcome == Outcome::FellBack || kind == Kind::Cleared).then(|| COPY.to_owned());
        let sink = SinkLine { attempts: 1, fallback, ..SinkLine::new("vault", "v/secret/a", outcome) };
        Line {
            target: Some("one".into()),
            jti: Some(jti.to_string()),
            issued_at: Some(Timestamp::UNIX_EPOCH),
            expires_at: Timestamp::from_second(86_400).ok(),
            sinks: vec![sink],
            ..Line::new(kind, Timestamp::from_second(at).unwrap())
        }
    }

    /// The machine beside the fold of the records, fed with the same events.
    struct Both {
        machine: Failback,
        state: State,
        jti: i64,
        copied: bool,
    }

    impl Both {
        fn new() -> Self {
            Self { machine: Failback::Settled, state: State::default(), jti: 0, copied: false }
        }

        fn take(&mut self, now: i64, rotation: bool, event: Event) {
            self.jti += i64::from(rotation);
            let (kind, outcome) = match event {
                Event::Arrived => (Kind::Paid, Outcome::Written),
                Event::Missed => (Kind::Paid, Outcome::Owed),
                Event::Fallen => (Kind::Paid, Outcome::FellBack),
                Event::Quiet => return,
                Event::Cleared => (Kind::Cleared, Outcome::Unchanged),
            };
            self.state.apply(&line(if rotation { Kind::Rotated } else { kind }, now, self.jti, outcome));
            self.machine = self.machine.after(event, self.copied);
            self.copied = match event {
                Event::Fallen => true,
                Event::Cleared => false,
                _ => self.copied,
            };
        }

        fn clearable(&self, when_paid: WhenPaid, now: i64) -> (Vec<(usize, String)>, Option<i64>) {
            clearable(&places(when_paid), &self.state.targets["one"], Some(LIFE), now)
        }
    }

    #[test]
    fn a_copy_goes_once_the_place_has_held_the_newest_token_for_the_quiet_time() {
        let mut both = Both::new();
        both.take(100, true, Event::Fallen);
        assert_eq!(both.clearable(WhenPaid::Remove, 10_000), (Vec::new(), None), "the place lacks the token");
        both.take(200, false, Event::Arrived);
        assert_eq!(both.clearable(WhenPaid::Remove, 799), (Vec::new(), Some(800)));
        assert_eq!(both.clearable(WhenPaid::Remove, 800), (vec![(0, COPY.to_owned())], Some(860)));
        assert_eq!(both.clearable(WhenPaid::Keep, 800), (Vec::new(), None));
        both.take(801, false, Event::Cleared);
        assert_eq!(both.clearable(WhenPaid::Remove, 9_999), (Vec::new(), None));
    }

    #[test]
    fn the_copy_of_a_token_that_the_place_does_not_have_stays_even_where_nothing_is_owed() {
        let mut both = Both::new();
        both.take(100, true, Event::Fallen);
        both.take(200, false, Event::Arrived);
        // A newer token was found at another place of the target, which says nothing of this one.
        let mut adopted = line(Kind::Adopted, 300, 2, Outcome::Written);
        adopted.sinks.clear();
        both.state.apply(&adopted);
        assert_eq!(both.state.targets["one"].places[0].jti, Some("1".into()), "the place has the token before");
        assert_eq!(both.clearable(WhenPaid::Remove, 10_000), (Vec::new(), None));
    }

    #[test]
    fn a_rotation_in_between_starts_no_new_quiet_time_and_a_fall_does() {
        let mut both = Both::new();
        both.take(100, true, Event::Fallen);
        both.take(200, false, Event::Arrived);
        both.take(700, true, Event::Arrived);
        assert_eq!(both.clearable(WhenPaid::Remove, 700).1, Some(800));
        both.take(750, true, Event::Missed);
        assert_eq!(both.clearable(WhenPaid::Remove, 5_000), (Vec::new(), None));
        both.take(5_000, false, Event::Arrived);
        assert_eq!(both.clearable(WhenPaid::Remove, 5_000), (Vec::new(), Some(5_600)), "an older copy stands there still");
    }

    #[test]
    fn a_short_life_has_a_short_quiet_time() {
        let mut both = Both::new();
        both.take(0, true, Event::Fallen);
        both.take(1, false, Event::Arrived);
        let life = Some(Life { issued_at: 0, expires_at: 20 });
        let (clear, _) = clearable(&places(WhenPaid::Remove), &both.state.targets["one"], life, 2);
        assert_eq!(clear.len(), 1);
    }

    fn event() -> impl Strategy<Value = (i64, bool, Event)> {
        let event = prop_oneof![Just(Event::Arrived), Just(Event::Missed), Just(Event::Fallen), Just(Event::Quiet)];
        (1i64..900, any::<bool>(), event)
    }

    proptest! {
        #[test]
        fn records_and_machine_agree_and_no_copy_goes_before_the_place_has_the_newest_token(events in proptest::collection::vec(event(), 1..40)) {
            let (mut both, mut now, mut trouble) = (Both::new(), 0, i64::MIN);
            let mut newest_there = false;
            both.take(now, true, Event::Arrived);
            for (gap, rotation, event) in events {
                now += gap;
                // What the daemon itself would see: the quiet time that has passed by now.
                let before = Failback::of(&both.state.targets["one"].places[0], Some(LIFE), now);
                if before == Failback::Clearing && both.machine == Failback::Returning {
                    both.machine = both.machine.after(Event::Quiet, both.copied);
                }
                let (clear, _) = both.clearable(WhenPaid::Remove, now);
                if !clear.is_empty() {
                    prop_assert!(newest_there, "the copy goes while the place lacks the newest token");
                    prop_assert!(now - trouble >= QUIET, "a flapping place is failed back to after {} s", now - trouble);
                    prop_assert_eq!(both.machine, Failback::Clearing);
                    both.take(now, false, Event::Cleared);
                }
                both.take(now, rotation, event);
                match event {
                    Event::Arrived => newest_there = true,
                    Event::Missed | Event::Fallen => { newest_there = false; trouble = now; }
                    _ => {}
                }
                let recorded = Failback::of(&both.state.targets["one"].places[0], Some(LIFE), now);
                let same = recorded == both.machine || (recorded == Failback::Clearing && both.machine == Failback::Returning);
                prop_assert!(same, "the records say {:?}, the machine {:?}", recorded, both.machine);
            }
        }

        #[test]
        fn from_every_state_a_place_that_holds_ends_settled(events in proptest::collection::vec(event(), 0..20)) {
            let (mut both, mut now) = (Both::new(), 0);
            for (gap, rotation, event) in events {
                now += gap;
                both.take(now, rotation, event);
            }
            both.take(now, true, Event::Arrived);
            now += QUIET;
            let (clear, _) = both.clearable(WhenPaid::Remove, now);
            if !clear.is_empty() {
                both.take(now, false, Event::Cleared);
            }
            prop_assert_eq!(Failback::of(&both.state.targets["one"].places[0], Some(LIFE), now), Failback::Settled);
        }
    }
}
