//! E1–E6, frame by frame.

use std::time::Duration;

use atomix_engine::Input;
use atomix_protocol::client::{ClientRequest, ClientResponse, Consistency, EndReason, QueryHeader};
use atomix_protocol::codec::Frame;
use atomix_protocol::peer::{AppendEntries, PeerMessage};
use atomix_protocol::session::{Acknowledged, CommandHeader, Open, SessionEntry};
use atomix_protocol::{
    ClientId, ClusterTime, Entry, EntryId, EntryKind, Index, Round, Sequence, SessionId, Term,
};
use bytes::Bytes;

use crate::lone::{Lone, TIMEOUT};
use crate::solo::{KEY, Solo, client, peer};

#[test]
fn e5_events_of_an_index_come_before_its_reply_on_the_same_link() {
    let mut lone = Lone::new(|_| ());
    let user = lone.watcher();
    let first = lone.command(user, 2, "tell a");
    let second = lone.command(user, 3, "tell b");
    lone.command(user, 4, "x");
    let expected = format!("r1@0 e{first}<0:a r2@{first} e{second}<{first}:b r3@{second} r4@{second}");
    assert_eq!(lone.told(user), expected);
    assert_eq!((lone.marks().events_sent, lone.marks().events_resent), (2, 0));
}

#[test]
fn q2_an_answer_names_the_last_event() {
    let mut lone = Lone::new(|_| ());
    let user = lone.watcher();
    let event = lone.command(user, 2, "tell a");
    let (after_index, after_sequence) = (Index::ZERO, Sequence::ZERO);
    let header = QueryHeader { ticket: 1, consistency: Consistency::Causal, after_index, after_sequence };
    lone.ask(user.link, ClientRequest::Query(header, Bytes::new()));
    let told = lone.solo.told(user.link);
    assert!(matches!(told.last(), Some(ClientResponse::Answer(answer, _)) if answer.event_index.0 == event));
}

#[test]
fn e1_a_watcher_hears_of_what_others_do_and_of_timers() {
    let mut lone = Lone::new(|_| ());
    let (watcher, other) = (lone.watcher(), lone.open());
    let event = lone.command(other, 1, "tell a");
    assert_eq!(lone.told(watcher), format!("r1@0 e{event}<0:a"));
    assert_eq!(lone.told(other), "r1@0");
}

#[test]
fn e4_a_link_that_takes_over_goes_on_behind_what_the_client_has() {
    let mut lone = Lone::new(|_| ());
    let (mut watcher, other) = (lone.watcher(), lone.open());
    let events: Vec<u64> = (1..=3).map(|number| lone.command(other, number, "tell a")).collect();
    let [a, b, c] = events[..] else { unreachable!() };
    lone.hang_up(watcher);
    let d = lone.command(other, 4, "tell b");
    lone.attach(&mut watcher, a);
    assert_eq!(lone.told(watcher), format!("attached e{b}<{a}:a e{c}<{b}:a e{d}<{c}:b"));
    assert_eq!(lone.marks().events_resent, 3);
    let e = lone.command(other, 5, "tell c");
    assert!(lone.told(watcher).ends_with(&format!(" e{e}<{d}:c")));
    // A link that replaces one that stands: what was on its way there may be lost.
    lone.attach(&mut watcher, d);
    assert_eq!(lone.told(watcher), format!("attached e{e}<{d}:c"));
    assert_eq!(lone.marks().events_resent, 4);
}

#[test]
fn e4_another_leader_goes_on_behind_what_the_client_has() {
    let mut lone = Lone::new(|_| ());
    let (mut watcher, mut other) = (lone.watcher(), lone.open());
    let a = lone.command(other, 1, "tell a");
    let b = lone.command(other, 2, "tell b");
    lone.acknowledge(watcher, a);
    lone.restart();
    lone.attach(&mut watcher, a);
    assert_eq!(lone.told(watcher), format!("attached e{b}<{a}:b"));
    lone.attach(&mut other, 0);
    let c = lone.command(other, 3, "tell c");
    assert_eq!(lone.told(watcher), format!("attached e{b}<{a}:b e{c}<{b}:c"));
}

#[test]
fn e3_more_is_sent_as_acknowledgements_come() {
    let mut lone = Lone::new(|_| ());
    let (watcher, other) = (lone.watcher(), lone.open());
    let events: Vec<u64> = (1..=3).map(|number| lone.command(other, number, "fill 2000000")).collect();
    let [a, b, c] = events[..] else { unreachable!() };
    let sent = |lone: &Lone| lone.told(watcher).matches("[2000000]").count();
    assert_eq!(sent(&lone), 1);
    lone.acknowledge(watcher, a);
    assert_eq!(sent(&lone), 2);
    lone.keep_alive(watcher, 1, b);
    assert_eq!(sent(&lone), 3);
    // An own command does not overtake the events that its reply names.
    let (d, e) = (lone.command(other, 4, "fill 2000000"), lone.command(other, 5, "tell x"));
    assert_eq!(sent(&lone), 3);
    lone.command_having(watcher, 2, 0, "x");
    let tail = format!("e{c}<{b}:[2000000] e{d}<{c}:[2000000] e{e}<{d}:x r2@{e}");
    assert!(lone.told(watcher).ends_with(&tail), "{}", lone.told(watcher));
}

#[test]
fn e2_acknowledgements_are_folded_into_the_log_when_they_pile_up() {
    let mut lone = Lone::new(|options| options.outbox_events = 8);
    let (watcher, other) = (lone.watcher(), lone.open());
    let events: Vec<u64> = (1..=4).map(|number| lone.command(other, number, "tell a")).collect();
    lone.acknowledge(watcher, events[1]);
    assert_eq!(lone.outbox(watcher), events, "only the log trims");
    lone.acknowledge(watcher, events[2]);
    assert_eq!(lone.outbox(watcher), events[3..]);
    assert_eq!(lone.marks().acknowledge_entries, 1);
    let last = lone.last_index();
    lone.acknowledge(watcher, events[3]);
    lone.pass(Duration::from_millis(300), &[watcher, other]);
    assert_eq!(lone.last_index(), last, "one is not worth an entry");
    // A command carries it into the log by itself.
    lone.command_having(watcher, 2, events[3], "x");
    assert_eq!(lone.outbox(watcher), [0; 0]);
    assert_eq!(lone.marks().acknowledge_entries, 1);
}

#[test]
fn e2_acknowledgements_are_folded_before_a_snapshot() {
    let mut lone = Lone::new(|options| options.snapshot_log_bytes = 2_000);
    let (watcher, other) = (lone.watcher(), lone.open());
    let event = lone.command(other, 1, "fill 1500");
    lone.acknowledge(watcher, event);
    assert_eq!(lone.outbox(watcher), [event]);
    let mut sequence = 1;
    while lone.disk.snapshot.is_none() {
        sequence += 1;
        lone.command(other, sequence, "a line that makes the log longer");
    }
    assert_eq!((lone.outbox(watcher).len(), lone.marks().acknowledge_entries), (0, 1));
    let (meta, bytes) = lone.disk.snapshot.clone().expect("just seen");
    assert_eq!(meta.last.index.0, lone.last_index(), "it waited for that entry and for nothing else");
    assert!(bytes.len() < 1_500);
    // The next has nothing to fold but replies, and is not held up by what is not there.
    lone.restart();
    assert_eq!(lone.outbox(watcher), [0; 0]);
}

/// What is folded is an entry, and that may have to wait for the room that only the snapshot makes.
#[test]
fn d5_a_snapshot_of_a_full_server_waits_for_no_acknowledgements() {
    let mut lone = Lone::new(|options| options.snapshot_log_bytes = 1_600);
    let (watcher, other) = (lone.watcher(), lone.open());
    let event = lone.command(other, 1, "fill 4000");
    lone.acknowledge(watcher, event);
    assert!(lone.disk.snapshot.is_none());
    lone.solo.step(Input::Room(false));
    lone.work();
    assert!(lone.disk.snapshot.is_some());
    assert_eq!(lone.marks().acknowledge_entries, 0);
}

#[test]
fn e2_a_follower_trims_what_the_log_says_and_tells_nobody() {
    let mut solo = Solo::member(3);
    let leader = solo.greeted_by(peer(2));
    let session = SessionId(1);
    let header = |sequence, event| CommandHeader {
        session,
        sequence: Sequence(sequence),
        lowest_unanswered: Sequence(1),
        acknowledged_event: Index(event),
    };
    let command =
        |sequence, event, body: &'static str| SessionEntry::Command(header(sequence, event), body.into());
    let open =
        Open { client: ClientId(1), attempt: 1, key: KEY, principal: String::new(), timeout_ms: 1_000 };
    let acknowledged = Acknowledged { session, event: Index(4), lowest_unanswered: Sequence(1) };
    let entries = [
        SessionEntry::Open(open),
        command(1, 0, "watch"),
        command(2, 0, "tell a"),
        command(3, 3, "tell b"),
        command(4, 0, "tell c"),
        SessionEntry::Acknowledge(vec![acknowledged]),
    ];
    let entry = |(index, entry): (u64, &SessionEntry)| Entry {
        id: EntryId::new(Term(1), Index(index)),
        time: ClusterTime(1),
        kind: EntryKind::Session,
        payload: entry.encode(),
    };
    let append = AppendEntries {
        term: Term(1),
        prev: EntryId::ZERO,
        leader_commit: Index(6),
        last_index: Index(0),
        time: ClusterTime(1),
        promise_ms: 0,
        round: Round(1),
        entries: (1..).zip(&entries).map(entry).collect(),
    };
    solo.hear(leader, &Frame::Peer(PeerMessage::AppendEntries(append)));
    solo.write();
    let outbox: Vec<u64> =
        solo.engine.table().events(session, Index::ZERO).map(|(index, _)| index.0).collect();
    assert_eq!(outbox, [5]);
    assert_eq!((solo.engine.marks().events_sent, solo.engine.marks().acknowledge_entries), (0, 0));
}

#[test]
fn e3_a_full_outbox_ends_the_session_in_two_steps() {
    let mut lone = Lone::new(|options| options.outbox_events = 8);
    let (watcher, other) = (lone.watcher(), lone.open());
    for sequence in 1..=8 {
        lone.command(other, sequence, "tell a");
    }
    lone.keep_alive(watcher, 1, 0);
    lone.pass(Duration::from_millis(200), &[other]);
    assert_eq!(lone.confirmed(watcher), Some(1));
    assert_eq!((lone.outbox(watcher).len(), lone.marks().overflows), (8, 0));
    lone.command(other, 9, "tell a");
    let info = lone.solo.engine.table().session(watcher.session).expect("open");
    assert!(info.given_up && lone.outbox(watcher).is_empty());
    assert_eq!(lone.marks().overflows, 1);
    let (before, start) = (lone.told(watcher), lone.solo.now);
    // Its contacts do not count any more, its commands work, and it is told nothing of what happens.
    lone.keep_alive(watcher, 2, info.event_index.0);
    lone.command(other, 10, "tell b");
    lone.command(watcher, 2, "x");
    assert_eq!(lone.told(watcher), format!("{before} r2@{}", info.event_index));
    lone.pass(TIMEOUT - Duration::from_millis(200), &[watcher, other]);
    assert!(lone.is_open(watcher));
    assert_eq!(lone.confirmed(watcher), Some(1));
    lone.pass(Duration::from_millis(600), &[watcher, other]);
    assert!(!lone.is_open(watcher) && lone.is_open(other));
    assert!(lone.solo.now.since(start) >= TIMEOUT);
    let (session, reason) = (watcher.session, EndReason::Expired);
    assert!(lone.solo.told(watcher.link).contains(&ClientResponse::Ended { session, reason }));
}

#[test]
fn e3_another_leader_goes_on_letting_it_fall_silent() {
    let mut lone = Lone::new(|options| options.outbox_events = 8);
    let (mut watcher, mut other) = (lone.watcher(), lone.open());
    for sequence in 1..=9 {
        lone.command(other, sequence, "tell a");
    }
    assert_eq!(lone.marks().overflows, 1);
    let last_event = lone.solo.engine.table().session(watcher.session).expect("open").event_index;
    lone.restart();
    lone.attach(&mut watcher, last_event.0);
    lone.attach(&mut other, 0);
    lone.pass(TIMEOUT + Duration::from_millis(300), &[watcher, other]);
    assert_eq!((lone.is_open(watcher), lone.is_open(other)), (false, true));
    assert_eq!((lone.confirmed(watcher), lone.confirmed(other).is_some()), (None, true));
}

#[test]
fn e3_what_is_acknowledged_in_time_is_no_overflow() {
    let mut lone = Lone::new(|options| options.outbox_events = 8);
    let (watcher, other) = (lone.watcher(), lone.open());
    for sequence in 1..=50 {
        let event = lone.command(other, sequence, "tell a");
        if sequence % 8 == 0 {
            lone.acknowledge(watcher, event);
        }
    }
    assert_eq!(lone.marks().overflows, 0);
    assert!(lone.marks().acknowledge_entries >= 5);
    assert!(lone.outbox(watcher).len() <= 8);
}

#[test]
fn e3_an_outbox_is_given_up_also_if_its_client_never_came_to_this_leader() {
    let mut lone = Lone::new(|options| options.outbox_events = 8);
    let (watcher, mut other) = (lone.watcher(), lone.open());
    lone.command(other, 1, "tell a");
    lone.restart();
    lone.attach(&mut other, 0);
    for sequence in 2..=12 {
        lone.command(other, sequence, "tell a");
    }
    assert_eq!(lone.marks().overflows, 0, "it may have acknowledged some of them to the leader before");
    lone.command(other, 13, "tell a");
    assert_eq!(lone.marks().overflows, 1);
    assert!(lone.outbox(watcher).is_empty());
}

#[test]
fn e6_a_reply_waits_for_all_that_were_told() {
    let mut lone = Lone::new(|_| ());
    let (one, two, other) = (lone.watcher(), lone.watcher(), lone.open());
    let event = lone.command(other, 1, "!tell a");
    lone.command(other, 2, "x");
    assert!(lone.told(one).ends_with(&format!("E{event}<0:a")));
    assert_eq!(lone.told(other), "r2@0", "others do not wait for it");
    lone.acknowledge(one, event);
    assert_eq!(lone.told(other), "r2@0");
    lone.acknowledge(two, event);
    assert_eq!(lone.told(other), "r2@0 r1@0");
    assert_eq!(lone.marks().replies_held, 1);
    // One's own event has to be acknowledged too, by whatever carries it.
    let event = lone.command(one, 2, "!tell b");
    lone.command_having(two, 2, event, "x");
    assert!(!lone.told(one).contains("r2@"));
    lone.keep_alive(one, 1, event);
    assert!(lone.told(one).ends_with(&format!("r2@{event}")));
    // Nobody to wait for.
    for user in [one, two] {
        lone.ask(user.link, ClientRequest::Close);
    }
    lone.command(other, 3, "!tell c");
    assert!(lone.told(other).ends_with(" r3@0"));
    assert_eq!(lone.marks().replies_held, 2);
}

#[test]
fn e6_the_end_of_a_session_ends_the_wait_for_it() {
    let mut lone = Lone::new(|options| options.outbox_events = 8);
    let (closing, other) = (lone.watcher(), lone.open());
    let full = [lone.watcher(), lone.watcher()];
    lone.command(other, 1, "!tell a");
    lone.ask(closing.link, ClientRequest::Close);
    for sequence in 2..=9 {
        lone.command(other, sequence, "tell b");
    }
    assert!(full.iter().all(|user| lone.is_open(*user) && lone.outbox(*user).is_empty()), "given up");
    assert!(lone.told(other).ends_with(" r1@0"), "{}", lone.told(other));

    let mut lone = Lone::new(|_| ());
    let (_silent, other) = (lone.watcher(), lone.open());
    lone.command(other, 1, "!tell a");
    lone.pass(TIMEOUT / 2, &[other]);
    assert_eq!(lone.told(other), "");
    lone.pass(TIMEOUT, &[other]);
    assert_eq!(lone.told(other), "r1@0", "expired");
}

#[test]
fn e6_who_leaves_an_atomic_event_unacknowledged_counts_as_silent() {
    let mut lone = Lone::new(|_| ());
    let (slow, other) = (lone.watcher(), lone.open());
    lone.pass(TIMEOUT, &[slow, other]);
    let confirmed = lone.confirmed(slow);
    assert!(confirmed.is_some());
    lone.command(other, 1, "!tell a");
    lone.pass(TIMEOUT - Duration::from_millis(100), &[slow, other]);
    assert!(lone.is_open(slow), "a full timeout from then on");
    assert_eq!(lone.confirmed(slow), confirmed);
    lone.pass(Duration::from_millis(300), &[slow, other]);
    assert_eq!((lone.is_open(slow), lone.told(other)), (false, "r1@0".into()));
}

#[test]
fn e6_an_acknowledgement_makes_contacts_count_again() {
    let mut lone = Lone::new(|_| ());
    let (slow, other) = (lone.watcher(), lone.open());
    for round in 0..3 {
        let event = lone.command(other, 2 * round + 1, "!tell a");
        lone.pass(TIMEOUT * 4 / 5, &[slow, other]);
        let next = lone.command(other, 2 * round + 2, "!tell b");
        // The second has a timeout of its own.
        lone.acknowledge(slow, event);
        lone.pass(TIMEOUT * 4 / 5, &[slow, other]);
        assert!(lone.is_open(slow));
        let before = lone.confirmed(slow);
        lone.keep_alive(slow, 1_000_000 + round, next);
        lone.pass(Duration::from_millis(100), &[other]);
        assert_ne!(lone.confirmed(slow), before, "also the contact that carries it");
    }
    assert_eq!(lone.marks().sessions_expired, 0);
}

#[test]
fn e6_a_retry_passes_the_same_test() {
    let mut lone = Lone::new(|_| ());
    let (watcher, mut other) = (lone.watcher(), lone.open());
    let event = lone.command(other, 1, "!tell a");
    lone.attach(&mut other, 0);
    lone.command(other, 1, "!tell a");
    lone.command(other, 1, "!tell a");
    assert_eq!(lone.told(other), "attached");
    assert_eq!(lone.solo.engine.status(lone.solo.now).counters.answered_from_table, 2);
    lone.acknowledge(watcher, event);
    assert_eq!(lone.told(other), "attached r1@0", "once");
    lone.command(other, 1, "!tell a");
    assert_eq!(lone.told(other), "attached r1@0 r1@0");
}

#[test]
fn e6_a_retry_at_another_leader_passes_the_same_test() {
    for acknowledged in [false, true] {
        let mut lone = Lone::new(|_| ());
        let (mut watcher, mut other) = (lone.watcher(), lone.open());
        let event = lone.command(other, 1, "!tell a");
        if acknowledged {
            lone.acknowledge(watcher, event);
            assert_eq!(lone.told(other), "r1@0");
        }
        lone.restart();
        lone.attach(&mut other, 0);
        lone.command(other, 1, "!tell a");
        assert_eq!(lone.told(other), "attached", "this leader was told nothing yet");
        assert!(lone.solo.engine.deliveries().is_held(lone.solo.engine.table(), Index(event)));
        // Also here its contacts do not count before.
        lone.pass(TIMEOUT / 2, &[other]);
        lone.attach(&mut watcher, if acknowledged { event } else { 0 });
        if !acknowledged {
            assert_eq!(lone.told(watcher), format!("attached E{event}<0:a"));
            lone.pass(TIMEOUT / 4, &[watcher, other]);
            assert_eq!(lone.confirmed(watcher), None);
            lone.acknowledge(watcher, event);
        }
        assert_eq!(lone.told(other), "attached r1@0");
        lone.pass(TIMEOUT * 2, &[watcher, other]);
        assert!(lone.is_open(watcher) && lone.confirmed(watcher).is_some());
    }
}

#[test]
fn hostile_acknowledgements_change_nothing() {
    let mut lone = Lone::new(|options| options.outbox_events = 8);
    let (watcher, other) = (lone.watcher(), lone.open());
    let event = lone.command(other, 1, "!tell a");
    let stranger = lone.solo.greeted_by(client(None));
    let last = lone.last_index();
    for beyond in [event + 1, event + 1_000, u64::MAX] {
        lone.acknowledge(watcher, beyond);
        lone.keep_alive(watcher, 1, beyond);
    }
    // Of another session, and of none.
    lone.acknowledge(other, event);
    lone.ask(stranger, ClientRequest::Acknowledge { event: Index(event) });
    assert!(!lone.solo.is_closed(stranger));
    assert_eq!((lone.told(other), lone.outbox(watcher)), (String::new(), vec![event]));
    lone.command_having(watcher, 2, u64::MAX, "x");
    assert_eq!((lone.told(other), lone.outbox(watcher)), (String::new(), vec![event]));
    // A flood costs no entries.
    for _ in 0..5_000 {
        lone.acknowledge(watcher, event - 1);
    }
    for _ in 0..5_000 {
        lone.acknowledge(watcher, event);
    }
    assert_eq!(lone.last_index(), last + 1);
    assert_eq!(lone.told(other), "r1@0");
}
