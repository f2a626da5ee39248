//! Copies in fallbacks go, once the places that they stood in for have held for a while ([`failback`]).

use std::sync::Arc;

use super::{Clearing, Moment, Order, Timetable};
use crate::daemon::{failback, step};
use crate::record::Line;

impl Timetable {
    /// Sets the time at which copies may go, by the records.
    pub(super) fn arm_clear(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        if self.manner.once {
            return;
        }
        let (Some(course), Some(state)) = (self.courses.get_mut(name), self.state.target(name)) else { return };
        let now = moment.ms();
        let (clear, again) = failback::clearable(&course.target.deliver, state, step::life(state), now / 1000);
        let at = if clear.is_empty() { again.map(|at| at.saturating_mul(1000)) } else { Some(now) };
        course.arm_clear(name, &mut self.timers, at);
    }

    /// Has the copies removed that may go now.
    pub(super) fn clear(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        let (Some(course), Some(state)) = (self.courses.get_mut(name), self.state.target(name)) else { return };
        course.debt.edit().clear_at = None;
        let now = moment.ms();
        let (copies, again) = failback::clearable(&course.target.deliver, state, step::life(state), now / 1000);
        // What tokens do just now is judged when they are done.
        if course.rotating || course.paying || copies.is_empty() {
            let at = again.map(|at| at.saturating_mul(1000).max(now + 1000));
            return course.arm_clear(name, &mut self.timers, at);
        }
        course.arm_clear(name, &mut self.timers, again.map(|at| at.saturating_mul(1000)));
        let clearing = Clearing { name: Arc::clone(name), target: Arc::clone(&course.target), state: state.clone(), copies };
        self.orders.push(Order::Clear(Box::new(clearing)));
    }

    /// Takes what came of a removal; `line` is its record.
    pub fn cleared(&mut self, name: &Arc<str>, line: &Line, moment: &Moment<'_>) {
        if self.courses.contains_key(name) {
            self.state.apply(line);
            self.arm_clear(name, moment);
        }
    }
}
