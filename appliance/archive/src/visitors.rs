//! Who has a session: at most [`limits::SESSIONS_OF_ONE`] of one identity, so that one repeater, or whoever has its
//! key, leaves room for all others. A few, because a repeater that restarts often has some that still time out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::identity::Identity;

use crate::limits;

/// Sessions open, by identity.
#[derive(Debug, Default)]
pub struct Visitors {
    open: Mutex<HashMap<Identity, usize>>,
}

/// One session; its end ends it.
#[derive(Debug)]
pub struct Visit {
    visitors: Arc<Visitors>,
    who: Identity,
}

impl Visitors {
    /// Begins a session; none where its peer has as many as it may.
    #[must_use]
    pub fn enter(self: &Arc<Self>, who: &Identity) -> Option<Visit> {
        let mut open = self.lock();
        let count = open.entry(who.clone()).or_default();
        if *count >= limits::SESSIONS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Visit {
            visitors: Arc::clone(self),
            who: who.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut open = self.visitors.lock();
        if let Some(count) = open.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_identity_holds_so_many_sessions_and_keeps_out_nobody_else() {
        let visitors = Arc::new(Visitors::default());
        let one = Identity::repeater("s1", 1).unwrap();
        let other = Identity::repeater("s1", 2).unwrap();
        let mut held: Vec<Visit> = (0..limits::SESSIONS_OF_ONE)
            .map(|_| visitors.enter(&one).unwrap())
            .collect();
        assert!(visitors.enter(&one).is_none());
        assert!(visitors.enter(&other).is_some());
        held.pop();
        held.push(visitors.enter(&one).unwrap());
        assert!(visitors.enter(&one).is_none());
        held.clear();
        assert!(visitors.lock().is_empty(), "who is gone is forgotten");
    }
}
