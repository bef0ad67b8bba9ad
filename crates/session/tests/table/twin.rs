//! The outboxes of the table against naive ones.

use std::collections::BTreeMap;

use atomix_protocol::SessionId;
use proptest::prelude::*;

use crate::events::{awaited, texts};
use crate::replica::{Replica, TERM};

/// Outboxes, kept as simply as can be.
#[derive(Default)]
struct Twin {
    sessions: BTreeMap<u64, TwinSession>,
}

#[derive(Default)]
struct TwinSession {
    /// Every event there ever was: index, texts, and whether it is atomic.
    all: Vec<(u64, Vec<String>, bool)>,
    trimmed: u64,
    given_up: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Publish { by: u64, to: Vec<Vec<u64>>, atomic: bool, having: u64 },
    Acknowledge { session: u64, event: u64 },
    Overflow { session: u64 },
    Expire { session: u64 },
    Snapshot,
}

const SESSIONS: u64 = 4;

fn step() -> impl Strategy<Value = Step> {
    let to = prop::collection::vec(prop::collection::vec(1..=SESSIONS, 1..4), 0..3);
    prop_oneof![
        8 => (1..=SESSIONS, to, any::<bool>(), 0..40u64)
            .prop_map(|(by, to, atomic, having)| Step::Publish { by, to, atomic, having }),
        4 => (1..=SESSIONS, 0..40u64).prop_map(|(session, event)| Step::Acknowledge { session, event }),
        1 => (1..=SESSIONS).prop_map(|session| Step::Overflow { session }),
        1 => (1..=SESSIONS).prop_map(|session| Step::Expire { session }),
        2 => Just(Step::Snapshot),
    ]
}

impl Twin {
    fn acknowledge(&mut self, session: u64, event: u64) {
        if let Some(twin) = self.sessions.get_mut(&session)
            && twin.all.last().is_some_and(|(last, ..)| event <= *last)
        {
            twin.trimmed = twin.trimmed.max(event);
        }
    }

    fn publish(&mut self, index: u64, to: &[Vec<u64>], atomic: bool) {
        for (number, sessions) in to.iter().enumerate() {
            for session in sessions {
                let Some(twin) = self.sessions.get_mut(session).filter(|twin| !twin.given_up) else {
                    continue;
                };
                match twin.all.last_mut() {
                    Some((last, texts, _)) if *last == index => texts.push(number.to_string()),
                    _ => twin.all.push((index, vec![number.to_string()], atomic)),
                }
            }
        }
    }
}

impl TwinSession {
    fn kept(&self) -> impl Iterator<Item = (usize, &(u64, Vec<String>, bool))> {
        self.all.iter().enumerate().filter(|(_, (index, ..))| *index > self.trimmed && !self.given_up)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_outboxes_are_what_their_naive_twins_are(steps in prop::collection::vec(step(), 1..40)) {
        let mut replica = Replica::with_sessions(SESSIONS);
        let sessions = (1..=SESSIONS).map(|session| (session, TwinSession::default()));
        let mut twin = Twin { sessions: sessions.collect() };
        for step in steps {
            let index = replica.index().0 + 1;
            match step {
                Step::Publish { by, to, atomic, having } => {
                    let order = |(number, to): (usize, &Vec<u64>)| {
                        let to: Vec<String> = to.iter().map(u64::to_string).collect();
                        format!("send {} {number}", to.join(","))
                    };
                    let orders: Vec<String> = to.iter().enumerate().map(order).collect();
                    let hold = if atomic { "!" } else { "" };
                    replica.command_having(by, having, &format!("{hold}{}", orders.join(";")));
                    twin.acknowledge(by, having);
                    if twin.sessions.contains_key(&by) {
                        twin.publish(index, &to, atomic);
                    }
                }
                Step::Acknowledge { session, event } => {
                    replica.acknowledge(session, event);
                    twin.acknowledge(session, event);
                }
                Step::Overflow { session } => {
                    replica.overflow(session, TERM);
                    if let Some(twin) = twin.sessions.get_mut(&session) {
                        twin.given_up = true;
                    }
                }
                Step::Expire { session } => {
                    replica.expire(session);
                    twin.sessions.remove(&session);
                }
                Step::Snapshot => {
                    replica = Replica::new().restored(&replica.bytes());
                    continue;
                }
            }
            let mut expected: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for (session, twin) in &twin.sessions {
                let kept: Vec<u64> = twin.kept().map(|(_, (index, ..))| *index).collect();
                prop_assert_eq!(replica.events(*session), kept);
                for (place, (index, parts, atomic)) in twin.kept() {
                    let previous = place.checked_sub(1).map_or(0, |before| twin.all[before].0);
                    prop_assert_eq!(texts(&replica, *session, *index), Some((previous, parts.clone())));
                    if *atomic {
                        expected.entry(*index).or_default().push(*session);
                    }
                }
                let info = replica.table.session(SessionId(*session)).expect("open");
                prop_assert_eq!(info.event_index.0, twin.all.last().map_or(0, |(index, ..)| *index));
            }
            for index in 1..=replica.index().0 {
                prop_assert_eq!(awaited(&replica, index), expected.remove(&index).unwrap_or_default());
            }
        }
    }
}
