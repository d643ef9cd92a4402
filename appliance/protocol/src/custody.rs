//! The custody of a segment: which stage follows which event. This is the whole rule book, one table; the
//! spool applies it, and its test prints it.
//!
//! `Announced -> Held -> Archived -> Released`, and Announced -> Archived where a site has it already.
//! Backward, too: damage, void receipts, early reclaim, a camera that lists again what it had released.

use std::fmt;

/// Where a segment stands at this repeater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// A verified manifest names it; its bytes are not durably here.
    Announced = 0,
    /// All bytes are on this disk, match the manifest, passed the barrier, and so did its header's.
    Held = 1,
    /// As many sites as the policy asks for have signed receipts that count.
    Archived = 2,
    /// The camera has said, durably, that it has those receipts.
    Released = 3,
    /// Its bytes failed their digest twice, or its header cannot be what the manifest names.
    Refused = 4,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 5] = [
        Stage::Announced,
        Stage::Held,
        Stage::Archived,
        Stage::Released,
        Stage::Refused,
    ];

    /// The stage of that number, as rows keep it.
    #[must_use]
    pub fn from_number(n: u8) -> Option<Stage> {
        Stage::ALL.into_iter().find(|s| *s as u8 == n)
    }

    /// The name used in status, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Announced => "announced",
            Stage::Held => "held",
            Stage::Archived => "archived",
            Stage::Released => "released",
            Stage::Refused => "refused",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What can happen to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its bytes and its header's passed the barrier and match the manifest.
    Committed,
    /// Receipts from as many sites as the policy asks for are durable here.
    Receipted,
    /// The camera said that it has those receipts.
    Released,
    /// The copy on this disk is gone or does not match its digest.
    Damaged,
    /// Too few of its receipts still count; its bytes are still here.
    ReceiptsVoidBytesHere,
    /// Too few of its receipts still count; its bytes were reclaimed.
    ReceiptsVoidBytesGone,
    /// Its bytes went above the high watermark, on at least one receipt, while its camera still listed it.
    ReclaimedEarly,
    /// Its bytes failed their digest when pulled from 0.
    Refused,
    /// A refused one is due for another try.
    Retried,
    /// The camera's newest inventory lists it without receipts.
    Listed,
}

impl Event {
    /// Every event, in the table's order.
    pub const ALL: [Event; 10] = [
        Event::Committed,
        Event::Receipted,
        Event::Released,
        Event::Damaged,
        Event::ReceiptsVoidBytesHere,
        Event::ReceiptsVoidBytesGone,
        Event::ReclaimedEarly,
        Event::Refused,
        Event::Retried,
        Event::Listed,
    ];
}

/// The stage after `event`; none where the event cannot happen in that stage, which the caller treats as a
/// contradiction in its own records, never as permission.
#[must_use]
pub fn next(stage: Stage, event: Event) -> Option<Stage> {
    use Event as E;
    use Stage as S;
    Some(match (stage, event) {
        (S::Announced, E::Committed) => S::Held,
        (S::Announced | S::Held | S::Archived | S::Refused, E::Receipted) => S::Archived,
        (S::Archived | S::Released, E::Released) => S::Released,
        (S::Announced | S::Held, E::Damaged) => S::Announced,
        // Archived and Released stand on receipts, not on the copy here.
        (S::Archived, E::Damaged) => S::Archived,
        (S::Released, E::Damaged | E::Receipted) => S::Released,
        (S::Archived | S::Released, E::ReceiptsVoidBytesHere) => S::Held,
        (S::Archived | S::Released, E::ReceiptsVoidBytesGone) => S::Announced,
        (S::Held, E::ReclaimedEarly) => S::Announced,
        (S::Announced | S::Refused, E::Refused) => S::Refused,
        (S::Refused, E::Retried) => S::Announced,
        (S::Released, E::Listed) => S::Archived,
        (S::Announced | S::Held | S::Archived | S::Refused, E::Listed) => stage,
        _ => return None,
    })
}

/// Whether a segment's bytes may be unlinked in this stage. The one exception, above the high watermark, is
/// [`Event::ReclaimedEarly`].
#[must_use]
pub fn may_reclaim(stage: Stage) -> bool {
    matches!(stage, Stage::Archived | Stage::Released)
}

/// Whether a segment in this stage is outstanding: announced, and not archived.
#[must_use]
pub fn is_outstanding(stage: Stage) -> bool {
    matches!(stage, Stage::Announced | Stage::Held | Stage::Refused)
}

/// The whole table, as ARCHITECTURE.md and the test show it.
#[must_use]
pub fn table() -> String {
    let mut out = format!("{:<24}", "event");
    Stage::ALL
        .iter()
        .for_each(|s| out += &format!("{:<11}", s.name()));
    for event in Event::ALL {
        out = format!("{}\n{:<24}", out.trim_end(), format!("{event:?}"));
        for stage in Stage::ALL {
            out += &format!("{:<11}", next(stage, event).map_or("-", Stage::name));
        }
    }
    out.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        let expected = "\
event                   announced  held       archived   released   refused
Committed               held       -          -          -          -
Receipted               archived   archived   archived   released   archived
Released                -          -          released   released   -
Damaged                 announced  announced  archived   released   -
ReceiptsVoidBytesHere   -          -          held       held       -
ReceiptsVoidBytesGone   -          -          announced  announced  -
ReclaimedEarly          -          announced  -          -          -
Refused                 refused    -          -          -          refused
Retried                 -          -          -          -          announced
Listed                  announced  held       archived   archived   refused
";
        assert_eq!(table(), expected);
    }

    #[test]
    fn nothing_but_receipts_leads_to_archived_and_nothing_but_archived_to_released() {
        for event in Event::ALL {
            for stage in Stage::ALL {
                let after = next(stage, event);
                if after == Some(Stage::Archived)
                    && !matches!(stage, Stage::Archived | Stage::Released)
                {
                    assert_eq!(event, Event::Receipted);
                }
                if after == Some(Stage::Released) {
                    assert!(matches!(stage, Stage::Archived | Stage::Released));
                }
            }
        }
    }
}
