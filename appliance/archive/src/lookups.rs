//! Whose turn it is to be looked up in the store. A lookup may read whole objects, one at a time, so their number
//! is the memory that they take: of a session by its [`Queue`], of the process by its [`Turns`].
//!
//! Invariants:
//! - At most [`limits::LOOKUPS_ALL`] lookups run in the process, and [`limits::LOOKUPS_URGENT_ALL`] of urgent
//!   offers beside them; of one session [`limits::LOOKUPS`] and [`limits::LOOKUPS_URGENT`] run or wait for a turn.
//! - What is routine never keeps an urgent offer waiting, whatever the store does.

use std::collections::VecDeque;

use protocol::manifest::Class;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::limits;

/// Lookups that may run, of all sessions together.
#[derive(Debug)]
pub struct Turns {
    any: Semaphore,
    urgent: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Turns {
            any: Semaphore::new(limits::LOOKUPS_ALL),
            urgent: Semaphore::new(limits::LOOKUPS_URGENT_ALL),
        }
    }
}

impl Turns {
    /// Waits for a turn: first come, first served. It ends with the permit.
    pub async fn take(&self, class: Class) -> SemaphorePermit<'_> {
        let turns = match class {
            Class::Urgent => &self.urgent,
            _ => &self.any,
        };
        turns
            .acquire()
            .await
            .expect("these semaphores are never closed")
    }
}

/// Offers of one session that were verified and are not looked up yet.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: VecDeque<(Class, T)>,
    looking: usize,
    looking_urgent: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            waiting: VecDeque::new(),
            looking: 0,
            looking_urgent: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Whether no further offer of that class may wait.
    #[must_use]
    pub fn is_full(&self, class: Class) -> bool {
        let reserve = match class {
            Class::Urgent => limits::OFFERS_URGENT,
            _ => 0,
        };
        self.waiting.len() >= limits::OFFERS + reserve
    }

    /// An offer begins to wait.
    pub fn push(&mut self, class: Class, offer: T) {
        self.waiting.push_back((class, offer));
    }

    /// The next to be looked up, if any may: the highest class first, then the oldest. [`Queue::done`] follows.
    pub fn start(&mut self) -> Option<(Class, T)> {
        let waiting = self.waiting.iter().map(|(class, _)| *class);
        let most = waiting.clone().filter(|c| self.may_start(*c)).max()?;
        let at = waiting.clone().position(|class| class == most)?;
        *self.running(most) += 1;
        self.waiting.remove(at)
    }

    /// A lookup of that class has ended.
    pub fn done(&mut self, class: Class) {
        *self.running(class) -= 1;
    }

    fn may_start(&self, class: Class) -> bool {
        match class {
            Class::Urgent => self.looking_urgent < limits::LOOKUPS_URGENT,
            _ => self.looking < limits::LOOKUPS,
        }
    }

    fn running(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Urgent => &mut self.looking_urgent,
            _ => &mut self.looking,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn lookups_of_the_process_are_bounded_and_urgent_ones_have_turns_of_their_own() {
        let turns = Turns::default();
        let now = |class| turns.take(class).now_or_never();
        let mut any: Vec<_> = (0..limits::LOOKUPS_ALL)
            .map(|_| now(Class::Routine).unwrap())
            .collect();
        assert!(now(Class::Routine).is_none() && now(Class::Flagged).is_none());
        let urgent: Vec<_> = (0..limits::LOOKUPS_URGENT_ALL)
            .map(|_| now(Class::Urgent).unwrap())
            .collect();
        assert!(now(Class::Urgent).is_none());
        drop(urgent);
        assert!(now(Class::Routine).is_none(), "not for routine ones");
        any.pop();
        assert!(now(Class::Flagged).is_some());
    }

    #[test]
    fn the_highest_class_goes_first_then_the_oldest_and_routine_lookups_keep_no_urgent_one_waiting()
    {
        let mut queue = Queue::default();
        for n in 0..limits::LOOKUPS + 1 {
            queue.push(Class::Routine, n);
        }
        queue.push(Class::Flagged, 100);
        assert_eq!(queue.start(), Some((Class::Flagged, 100)));
        for n in 0..limits::LOOKUPS - 1 {
            assert_eq!(queue.start(), Some((Class::Routine, n)));
        }
        assert_eq!(queue.start(), None, "as many as may run do");
        for n in 0..=limits::LOOKUPS_URGENT {
            queue.push(Class::Urgent, n);
        }
        for n in 0..limits::LOOKUPS_URGENT {
            assert_eq!(queue.start(), Some((Class::Urgent, n)));
        }
        assert_eq!(queue.start(), None);
        queue.done(Class::Flagged);
        assert_eq!(queue.start(), Some((Class::Routine, limits::LOOKUPS - 1)));
        queue.done(Class::Urgent);
        assert_eq!(queue.start(), Some((Class::Urgent, limits::LOOKUPS_URGENT)));
    }

    #[test]
    fn what_may_wait_is_bounded() {
        let mut queue = Queue::default();
        for n in 0..limits::OFFERS {
            assert!(!queue.is_full(Class::Flagged));
            queue.push(Class::Routine, n);
        }
        assert!(queue.is_full(Class::Flagged));
        for n in 0..limits::OFFERS_URGENT {
            assert!(!queue.is_full(Class::Urgent));
            queue.push(Class::Urgent, n);
        }
        assert!(queue.is_full(Class::Urgent));
    }
}
