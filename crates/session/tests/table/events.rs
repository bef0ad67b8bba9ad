//! Events in the replicated table: one test per rule, a naive twin, and the snapshot.

use atomix_protocol::client::ReplyOutcome;
use atomix_protocol::session::{Close, SessionEntry};
use atomix_protocol::{EntryKind, Index, InstanceId, SessionId, Term, limits};
use atomix_session::table::{Backlog, Effect, Event, Lookup};
use bytes::Bytes;

use crate::replica::{Replica, TERM, check_damage};

impl Replica {
    fn close(&mut self, session: u64) -> Vec<Effect> {
        self.apply(&SessionEntry::Close(Close { session: SessionId(session) }))
    }
}

/// The events of an index for a session: who published before, and the texts of the parts in order.
pub(crate) fn texts(replica: &Replica, session: u64, index: u64) -> Option<(u64, Vec<String>)> {
    let mut events = replica.table.events(SessionId(session), Index(index - 1));
    let (_, event) = events.next().filter(|(at, _)| at.0 == index)?;
    let text = |(instance, body): &(InstanceId, u32)| {
        assert_eq!(instance.0, session, "the instance is the one that was named");
        String::from_utf8_lossy(&event.bodies[*body as usize]).into_owned()
    };
    Some((event.previous.0, event.parts.iter().map(text).collect()))
}

fn words(previous: u64, words: &[&str]) -> Option<(u64, Vec<String>)> {
    Some((previous, words.iter().map(|word| (*word).to_owned()).collect()))
}

fn published(session: u64, atomic: bool) -> Effect {
    Effect::Published { session: SessionId(session), atomic }
}

fn given_up(session: u64) -> Effect {
    Effect::GivenUp { session: SessionId(session) }
}

pub(crate) fn awaited(replica: &Replica, index: u64) -> Vec<u64> {
    replica.table.awaited(Index(index)).map(|session| session.0).collect()
}

/// Kept flag, atomic flag and last event of the reply that ends the effects.
fn reply_of(effects: &[Effect]) -> (bool, bool, u64) {
    match effects.last() {
        Some(Effect::Reply { header, kept, atomic, .. }) => (*kept, *atomic, header.event_index.0),
        other => panic!("no reply: {other:?}"),
    }
}

#[test]
fn rule_e1_events_are_chained_per_session_and_merged_per_index() {
    let mut replica = Replica::with_sessions(3);
    for session in [1, 2] {
        replica.command(session, "watch");
    }
    // 6: two publications to session 1, one to session 2; 7: only to session 2; 8: one to each.
    replica.command(3, "send 1,2 a;send 1 b");
    replica.command(3, "send 2 c");
    replica.command(3, "send 1,1 d;send 2 e");
    assert_eq!(texts(&replica, 1, 6), words(0, &["a", "b"]));
    assert_eq!(texts(&replica, 2, 6), words(0, &["a"]));
    assert_eq!(texts(&replica, 1, 7), None);
    assert_eq!(texts(&replica, 2, 7), words(6, &["c"]));
    assert_eq!(texts(&replica, 1, 8), words(6, &["d", "d"]));
    assert_eq!(texts(&replica, 2, 8), words(7, &["e"]));
    let (_, event) = replica.table.events(SessionId(1), Index(6)).next().expect("one");
    assert_eq!(event.bodies.len(), 1, "a body that is sent twice is kept once");
    assert_eq!(replica.table.events(SessionId(3), Index::ZERO).count(), 0);
}

#[test]
fn rule_e1_timers_clean_ups_and_the_command_of_one_entry_publish_together() {
    let mut replica = Replica::with_sessions(3);
    replica.command(1, "watch");
    replica.command(2, "timer 50");
    for _ in 0..4 {
        replica.command(3, "own");
    }
    replica.time = 50;
    // 10: the timer, then the end of session 3, whose clean-up goes on.
    assert_eq!(replica.close(3).last(), Some(&published(1, false)));
    assert_eq!(texts(&replica, 1, 10), words(0, &["fired", "ended 3"]));
    replica.command(2, "timer 60");
    replica.time = 60;
    let effects = replica.command(2, "tell x");
    assert_eq!(effects[..1], [published(1, false)]);
    assert_eq!(texts(&replica, 1, 12), words(10, &["fired", "x"]));
    // Also with an entry that is none of a session.
    replica.command(2, "timer 70");
    replica.time = 70;
    assert_eq!(replica.apply_raw(EntryKind::NoOp, Bytes::new()), [published(1, false)]);
}

#[test]
fn rule_e1_a_body_is_kept_once_for_all_sessions_and_not_with_its_command() {
    let mut replica = Replica::with_sessions(3);
    replica.command(1, "send 1,2,3 a body that all three share;send 3 a body that all three share");
    let body = |session| {
        let (_, event) = replica.table.events(SessionId(session), Index::ZERO).next().expect("one");
        assert_eq!(event.bodies.len(), 1);
        event.bodies[0].as_ptr()
    };
    assert_eq!((body(1), body(1)), (body(2), body(3)));
    let command = replica.machine.applied[0].command.as_ptr_range();
    assert!(!command.contains(&body(1)));
}

#[test]
fn rule_e1_sessions_that_are_not_open_are_passed_over() {
    let mut replica = Replica::with_sessions(2);
    replica.close(2);
    let effects = replica.command(1, "!send 2,9 a");
    assert_eq!(reply_of(&effects), (false, false, 0));
    assert_eq!(effects.len(), 1, "nobody was told, and nobody is waited for");
}

#[test]
fn rule_e2_only_the_log_trims() {
    let mut replica = Replica::with_sessions(2);
    for _ in 0..6 {
        replica.command(2, "send 1 a");
    }
    assert_eq!(replica.events(1), [3, 4, 5, 6, 7, 8]);
    replica.command_having(1, 3, "x");
    assert_eq!(replica.events(1), [4, 5, 6, 7, 8]);
    let skip = SessionEntry::Skip(replica.next_header(1, 4));
    replica.apply(&skip);
    assert_eq!(replica.events(1), [5, 6, 7, 8]);
    // A duplicate and a gap consume nothing, but what they say of events is true.
    let (mut duplicate, mut gap) = (replica.next_header(1, 5), replica.next_header(1, 6));
    duplicate.sequence = duplicate.sequence.previous();
    gap.sequence = gap.sequence.plus(7);
    replica.apply(&SessionEntry::Command(duplicate, Bytes::new()));
    assert_eq!(replica.events(1), [6, 7, 8]);
    replica.apply(&SessionEntry::Command(gap, Bytes::new()));
    assert_eq!(replica.events(1), [7, 8]);
    assert_eq!(replica.acknowledge(1, 7), [Effect::Trimmed { sessions: 1 }]);
    assert_eq!(replica.events(1), [8]);
    // The chain goes on where it was.
    replica.command(2, "send 1 b");
    assert_eq!(texts(&replica, 1, 8).map(|(previous, _)| previous), Some(7));
    assert_eq!(replica.acknowledge(1, replica.index().0), [Effect::Trimmed { sessions: 1 }]);
    replica.command(2, "send 1 c");
    assert_eq!(texts(&replica, 1, 16).map(|(previous, _)| previous), Some(14));
}

#[test]
fn rule_e2_what_can_not_be_is_not_believed() {
    let mut replica = Replica::with_sessions(2);
    replica.command(2, "send 1 a");
    for impossible in [4, u64::MAX] {
        assert_eq!(replica.acknowledge(1, impossible), []);
        replica.command_having(1, impossible, "x");
        assert_eq!(replica.acknowledge(99, impossible), []);
    }
    assert_eq!(replica.events(1), [3]);
    assert_eq!(replica.acknowledge(1, 3), [Effect::Trimmed { sessions: 1 }]);
    assert_eq!(replica.acknowledge(1, 3), []);
}

#[test]
fn rule_e3_an_overflow_gives_a_session_up_in_its_term_only() {
    let mut replica = Replica::with_sessions(2);
    replica.command(2, "!send 1 a");
    for stale in [TERM.0 - 1, TERM.0 + 1] {
        assert_eq!(replica.overflow(1, Term(stale)), []);
    }
    assert_eq!(replica.overflow(9, TERM), []);
    assert_eq!(replica.table.withheld().collect::<Vec<_>>(), [SessionId(1)], "for the atomic event");
    assert_eq!(replica.overflow(1, TERM), [given_up(1)]);
    assert_eq!(replica.overflow(1, TERM), []);
    assert_eq!(awaited(&replica, 3), [0; 0]);
    // Nothing more comes, its event index stands still, and it is for the leader to let it fall silent.
    assert_eq!(reply_of(&replica.command(2, "!send 1 b")), (false, false, 0));
    assert_eq!(replica.events(1), [0; 0]);
    let info = replica.table.session(SessionId(1)).expect("open");
    assert_eq!((info.given_up, info.event_index), (true, Index(3)));
    assert_eq!(replica.table.withheld().collect::<Vec<_>>(), [SessionId(1)]);
    assert_eq!(reply_of(&replica.command(1, "its commands work")), (false, false, 3));
    assert!(replica.expire(1).contains(&Effect::Ended {
        session: SessionId(1),
        reason: atomix_protocol::client::EndReason::Expired,
        new: true
    }));
}

#[test]
fn rule_e3_events_that_fit_no_frame_give_their_session_up() {
    let mut replica = Replica::with_sessions(3);
    let half = limits::EVENT_BYTES / 2;
    // Different bodies count, one body twice does not.
    let effects = replica.command(3, &format!("!fill {half} 1,2;fill {half} 2;fill {} 1", half + 1));
    assert_eq!(effects[..2], [given_up(1), published(2, true)]);
    assert_eq!(awaited(&replica, 4), [2]);
    let effects = replica.command(3, &format!("!fill {} 3", limits::EVENT_BYTES));
    assert_eq!(effects[0], given_up(3));
    assert_eq!(reply_of(&effects), (false, false, 0), "nobody is waited for");
    // So many events without any body take their room too.
    let mut many = String::from("fill 0 ");
    many.push_str(&vec!["2"; limits::EVENT_BYTES / 15].join(","));
    assert_eq!(replica.command(3, &many)[0], given_up(2));
}

#[test]
fn rule_e4_events_are_found_again_from_any_index_on() {
    let mut replica = Replica::with_sessions(2);
    for text in ["a", "bb", "ccc"] {
        replica.command(2, &format!("send 1 {text}"));
        replica.apply(&SessionEntry::Time);
    }
    let after = |index| -> Vec<u64> {
        replica.table.events(SessionId(1), Index(index)).map(|(index, _)| index.0).collect()
    };
    assert_eq!((after(0), after(3), after(4)), (vec![3, 5, 7], vec![5, 7], vec![5, 7]));
    assert_eq!((after(7), after(u64::MAX)), (vec![], vec![]));
    let backlog = |index| replica.table.backlog(SessionId(1), Index(index));
    assert_eq!([0, 3, 4, 5, 7, 9].map(|index| backlog(index).events), [3, 2, 2, 1, 0, 0]);
    assert!(backlog(0).bytes > backlog(3).bytes && backlog(7).bytes == 0);
    assert_eq!(replica.table.backlog(SessionId(9), Index::ZERO), Backlog::default());
}

#[test]
fn rule_e5_events_come_before_the_reply_of_their_index_and_the_reply_names_them() {
    let mut replica = Replica::with_sessions(2);
    let effects = replica.command(1, "send 2,1 a");
    assert_eq!(effects[..2], [published(1, false), published(2, false)]);
    assert_eq!(reply_of(&effects), (false, false, 3));
    assert_eq!(reply_of(&replica.command(1, "send 2 b")), (false, false, 3));
    assert_eq!(reply_of(&replica.command(2, "x")), (false, false, 4));
    // As it was then, also for a retry.
    let mut retry = replica.next_header(1, 0);
    retry.sequence = retry.sequence.previous();
    replica.command(2, "send 1 c");
    assert_eq!(reply_of(&replica.apply(&SessionEntry::Command(retry, Bytes::new()))), (true, false, 3));
}

#[test]
fn rule_e6_a_reply_awaits_the_live_sessions_that_were_told() {
    let mut replica = Replica::with_sessions(5);
    let effects = replica.command(1, "!send 1,2,3,4 a");
    assert_eq!(effects[..4], [1, 2, 3, 4].map(|session| published(session, true)));
    assert_eq!(reply_of(&effects), (false, true, 6));
    assert_eq!(awaited(&replica, 6), [1, 2, 3, 4]);
    assert_eq!((awaited(&replica, 5), awaited(&replica, 7)), (vec![], vec![]));
    // Acknowledged, ended, given up.
    replica.acknowledge(1, 6);
    assert_eq!(awaited(&replica, 6), [2, 3, 4]);
    replica.expire(2);
    assert_eq!(awaited(&replica, 6), [3, 4]);
    replica.overflow(3, TERM);
    assert_eq!(awaited(&replica, 6), [4]);
    // A later acknowledgement covers it.
    replica.command(5, "send 4 b");
    let index = replica.index().0;
    replica.command_having(4, index, "x");
    assert_eq!(awaited(&replica, 6), [0; 0]);
}

#[test]
fn rule_e6_a_retry_is_known_for_what_it_was() {
    let mut replica = Replica::with_sessions(2);
    replica.command(1, "!send 2 a");
    replica.command(1, "send 2 b");
    let mut retry = replica.next_header(1, 0);
    for (sequence, atomic) in [(1, true), (2, false)] {
        retry.sequence = atomix_protocol::Sequence(sequence);
        retry.lowest_unanswered = atomix_protocol::Sequence(1);
        let lookup = replica.table.lookup(SessionId(1), retry.sequence);
        assert!(matches!(lookup, Lookup::Kept(_, _, kept) if kept == atomic), "{lookup:?}");
        let effects = replica.apply(&SessionEntry::Command(retry, Bytes::new()));
        assert!(matches!(effects[..], [Effect::Reply { kept: true, atomic: kept, .. }] if kept == atomic));
    }
    // Once the reply is gone nobody waits for it.
    replica.command(1, "x");
    replica.command(1, "x");
    let Lookup::Kept(header, _, false) = replica.table.lookup(SessionId(1), atomix_protocol::Sequence(1))
    else {
        panic!("a reply that is gone")
    };
    assert_eq!(header.outcome, ReplyOutcome::ReplyGone);
}

#[test]
fn rule_e6_only_the_command_itself_can_hold_its_reply() {
    let mut replica = Replica::with_sessions(2);
    assert_eq!(reply_of(&replica.command(1, "!hold, and tell nobody")), (false, false, 0));
    replica.command(2, "watch");
    replica.command(1, "timer 10");
    replica.time = 10;
    // The timer's events are of this index too: they are waited for with the command's own.
    assert_eq!(reply_of(&replica.command(1, "!quiet")), (false, true, 0));
    assert_eq!(awaited(&replica, replica.index().0), [2]);
    assert_eq!(reply_of(&replica.command(1, "tell a")), (false, false, 0), "nothing is left of that");
}

/// Something of everything that has to do with events.
fn furnished() -> Replica {
    let mut replica = Replica::with_sessions(5);
    replica.time = 1_000;
    replica.command(1, "watch");
    replica.command(2, "watch");
    replica.command(3, "tell old");
    replica.acknowledge(1, 8);
    replica.command(3, "!tell shared;send 2,1 other;send 2 other");
    replica.command(3, "send 2,4 for two;send 1 for one");
    replica.command(4, "!send 3 x");
    replica.command_having(3, replica.index().0, "x");
    replica.command(1, "send 5 lost");
    replica.overflow(5, TERM);
    replica.command(3, "timer 2000");
    replica
}

#[test]
fn rule_m4_outboxes_are_in_the_snapshot_and_go_on_after_it() {
    let (mut replica, twin) = (furnished(), furnished());
    assert_eq!((replica.bytes(), replica.table.digest()), (twin.bytes(), twin.table.digest()));
    let mut restored = Replica::new().restored(&replica.bytes());
    assert_eq!(restored.bytes(), replica.bytes());
    for replica in [&mut replica, &mut restored] {
        replica.time = 2_000;
    }
    let bodies = |replica: &Replica, session| -> Vec<(Index, Event)> {
        let events = replica.table.events(SessionId(session), Index::ZERO);
        events.map(|(index, event)| (index, event.clone())).collect()
    };
    let orders = ["!tell more", "send 1,2,3,4,5 all", "x"];
    for (session, order) in (1..=5).chain(1..=5).zip(orders.iter().cycle()) {
        assert_eq!(restored.command(session, order), replica.command(session, order));
        for index in 1..=replica.index().0 {
            assert_eq!(awaited(&restored, index), awaited(&replica, index), "index {index}");
        }
        for session in 1..=5 {
            assert_eq!(bodies(&restored, session), bodies(&replica, session));
            for after in 0..=replica.index().0 {
                let backlog = |replica: &Replica| replica.table.backlog(SessionId(session), Index(after));
                assert_eq!(backlog(&restored), backlog(&replica));
            }
        }
        let event = replica.index().0 - 1;
        assert_eq!(restored.acknowledge(session, event), replica.acknowledge(session, event));
        assert_eq!((restored.bytes(), restored.table.digest()), (replica.bytes(), replica.table.digest()));
    }
}

#[test]
fn rule_m4_the_digest_covers_what_is_in_an_outbox() {
    let digest = |watchers: &[u64], trims: bool| {
        let mut replica = Replica::with_sessions(3);
        replica.machine.watchers = watchers.iter().copied().map(SessionId).collect();
        replica.command(3, "tell a");
        match trims {
            true => replica.acknowledge(1, 4),
            false => replica.apply(&SessionEntry::Time),
        };
        replica.table.digest()
    };
    let mut digests = vec![
        digest(&[], false),
        digest(&[1], false),
        digest(&[2], false),
        digest(&[1, 2], false),
        digest(&[1], true),
    ];
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 5);
}

#[test]
fn rule_m4_a_shared_body_is_written_once_and_shared_again() {
    let mut replica = Replica::with_sessions(100);
    let all: Vec<String> = (1..=100).map(|session| session.to_string()).collect();
    let before = replica.bytes().len();
    replica.command(1, &format!("fill 100000 {}", all.join(",")));
    let bytes = replica.bytes();
    assert!(bytes.len() < before + 110_000, "{} bytes more", bytes.len() - before);
    let restored = Replica::new().restored(&bytes);
    let pointer = |session| {
        let (_, event) = restored.table.events(SessionId(session), Index::ZERO).next().expect("one");
        assert_eq!(event.bodies[0].len(), 100_000);
        event.bodies[0].as_ptr()
    };
    assert!((2..=100).all(|session| pointer(session) == pointer(1)));
    assert!(!bytes.as_ptr_range().contains(&pointer(1)), "it does not keep the whole snapshot in memory");
}

#[test]
fn no_damaged_snapshot_with_events_is_taken_for_another() {
    check_damage(&furnished().bytes(), Replica::new);
}
