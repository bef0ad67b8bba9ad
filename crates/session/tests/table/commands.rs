//! The replicated table: one test per rule, a naive twin, and the bytes of its snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ledger::reply;
use crate::replica::{Replica, TERM, check_damage};
use atomix_protocol::client::{EndReason, ReplyHeader, ReplyOutcome};
use atomix_protocol::session::{Acknowledged, Close, CommandHeader, Expire, Open, RaiseLevel, SessionEntry};
use atomix_protocol::{
    ClientId, ClusterTime, Entry, EntryId, EntryKind, Index, Sequence, SessionId, SessionKey, Term,
};
use atomix_session::TimerId;
use atomix_session::table::{Effect, Limits, Lookup};
use bytes::Bytes;
use proptest::prelude::*;

const LIMITS: Limits = Limits { sessions: 3, window: 4 };

impl Replica {
    fn small() -> Self {
        Replica::of(LIMITS)
    }

    fn open(&mut self, client: u128, attempt: u64) -> Vec<Effect> {
        self.apply(&open(client, attempt))
    }

    /// Opens a session and returns it.
    fn session(&mut self, client: u128) -> SessionId {
        match self.open(client, 1).last() {
            Some(Effect::Opened { session, .. }) => *session,
            other => panic!("not opened: {other:?}"),
        }
    }

    fn command_at(&mut self, session: SessionId, sequence: u64, body: &str) -> Effect {
        self.command_from(session, sequence, 1, body)
    }

    fn command_from(&mut self, session: SessionId, sequence: u64, lowest: u64, body: &str) -> Effect {
        let header = header(session, sequence, lowest);
        self.only(&SessionEntry::Command(header, Bytes::copy_from_slice(body.as_bytes())))
    }

    fn only(&mut self, entry: &SessionEntry) -> Effect {
        let mut effects = self.apply(entry);
        assert_eq!(effects.len(), 1, "{effects:?}");
        effects.remove(0)
    }
}

fn open(client: u128, attempt: u64) -> SessionEntry {
    SessionEntry::Open(Open {
        client: ClientId(client),
        attempt,
        key: SessionKey(99),
        principal: String::new(),
        timeout_ms: 5_000,
    })
}

fn header(session: SessionId, sequence: u64, lowest: u64) -> CommandHeader {
    CommandHeader {
        session,
        sequence: Sequence(sequence),
        lowest_unanswered: Sequence(lowest),
        acknowledged_event: Index::ZERO,
    }
}

fn opened(session: u64, client: u128, attempt: u64, new: bool) -> Effect {
    let (session, client) = (SessionId(session), ClientId(client));
    Effect::Opened { session, client, attempt, timeout: Duration::from_secs(5), new }
}

fn ended(session: SessionId, reason: EndReason, new: bool) -> Effect {
    Effect::Ended { session, reason, new }
}

fn replied(session: SessionId, sequence: u64, index: u64, body: &str, kept: bool) -> Effect {
    let header = reply_header(sequence, index, ReplyOutcome::Applied);
    Effect::Reply { session, header, body: reply(index, body.as_bytes()), kept, atomic: false }
}

fn reply_header(sequence: u64, index: u64, outcome: ReplyOutcome) -> ReplyHeader {
    ReplyHeader { sequence: Sequence(sequence), index: Index(index), event_index: Index::ZERO, outcome }
}

fn without_body(session: SessionId, sequence: u64, index: u64, outcome: ReplyOutcome, kept: bool) -> Effect {
    let header = reply_header(sequence, index, outcome);
    Effect::Reply { session, header, body: Bytes::new(), kept, atomic: false }
}

fn gap(session: SessionId, expected: u64) -> Effect {
    Effect::Gap { session, expected: Sequence(expected) }
}

#[test]
fn rule_s1_a_retry_of_the_same_attempt_returns_the_same_session() {
    let mut replica = Replica::small();
    assert_eq!(replica.open(7, 1), [opened(1, 7, 1, true)]);
    assert_eq!(replica.open(7, 1), [opened(1, 7, 1, false)]);
    assert_eq!(replica.table.opened_by(ClientId(7), 1), Some(SessionId(1)));
    assert_eq!(replica.table.opened_by(ClientId(7), 2), None);
    let info = replica.table.session(SessionId(1)).expect("open");
    assert_eq!((info.key, info.timeout), (SessionKey(99), Duration::from_secs(5)));
    assert!(!format!("{info:?}").contains("63"), "the key is not printed");
}

#[test]
fn rule_s1_another_key_is_another_opener() {
    let mut replica = Replica::small();
    let first = replica.session(7);
    let SessionEntry::Open(mut stranger) = open(7, 1) else { panic!("an open") };
    stranger.key = SessionKey(1);
    let effects = replica.apply(&SessionEntry::Open(stranger));
    assert_eq!(effects, [ended(first, EndReason::TakenOver, true), opened(2, 7, 1, true)]);
}

#[test]
fn rule_s1_the_number_of_sessions_is_bounded() {
    let mut replica = Replica::small();
    let sessions = [1, 2, 3].map(|client| replica.session(client));
    let refused = Effect::OpenRefused { client: ClientId(4), attempt: 1 };
    assert_eq!(replica.open(4, 1), [refused]);
    // Neither a retry nor a take-over needs room.
    assert_eq!(replica.open(3, 1), [opened(3, 3, 1, false)]);
    assert_eq!(replica.open(3, 2)[0], ended(sessions[2], EndReason::TakenOver, true));
    replica.apply(&SessionEntry::Close(Close { session: sessions[0] }));
    assert_eq!(replica.open(4, 1), [opened(8, 4, 1, true)]);
}

#[test]
fn rule_s3_a_command_is_applied_iff_it_is_the_next() {
    let mut replica = Replica::small();
    let session = replica.session(7);
    assert_eq!(replica.command_at(session, 2, "b"), gap(session, 1));
    assert_eq!(replica.command_at(session, 1, "a"), replied(session, 1, 3, "a", false));
    assert_eq!(replica.command_at(session, 1, "other"), replied(session, 1, 3, "a", true));
    assert_eq!(replica.command_at(session, u64::MAX, "z"), gap(session, 2));
    assert_eq!(replica.command_at(session, 2, "b"), replied(session, 2, 6, "b", false));
    assert_eq!(replica.machine.applied.len(), 2);
    assert_eq!(replica.table.lookup(session, Sequence(3)), Lookup::New);
    let kept = Lookup::Kept(reply_header(1, 3, ReplyOutcome::Applied), reply(3, b"a"), false);
    assert_eq!(replica.table.lookup(session, Sequence(1)), kept);
}

#[test]
fn rule_s3_a_reply_that_is_gone_is_never_applied_again() {
    let mut replica = Replica::small();
    let session = replica.session(7);
    replica.command_at(session, 1, "a");
    replica.command_from(session, 2, 2, "b");
    let gone = without_body(session, 1, 0, ReplyOutcome::ReplyGone, true);
    assert_eq!(replica.command_at(session, 1, "a"), gone);
    assert_eq!(
        replica.command_at(session, 0, "a"),
        without_body(session, 0, 0, ReplyOutcome::ReplyGone, true)
    );
    assert_eq!(replica.machine.applied.len(), 2);
}

#[test]
fn rule_s4_replies_are_dropped_below_the_lowest_unanswered_and_bounded_by_the_window() {
    let mut replica = Replica::small();
    let session = replica.session(7);
    for sequence in 1..=LIMITS.window {
        replica.command_at(session, sequence, "a");
    }
    let kept = |replica: &Replica| replica.table.session(session).map(|info| info.replies);
    assert_eq!(kept(&replica), Some(4));
    // The fifth would be a fifth reply to keep: refused until the client says that it has the first.
    assert_eq!(replica.command_at(session, 5, "a"), gap(session, 5));
    assert!(matches!(replica.command_from(session, 5, 2, "a"), Effect::Reply { kept: false, .. }));
    assert_eq!(kept(&replica), Some(4));
    replica.apply(&SessionEntry::Acknowledge(vec![
        Acknowledged { session, event: Index::ZERO, lowest_unanswered: Sequence(4) },
        Acknowledged { session: SessionId(99), event: Index::ZERO, lowest_unanswered: Sequence(4) },
    ]));
    assert_eq!(kept(&replica), Some(2));
    // What can't be is not believed: the reply is kept.
    replica.command_from(session, 6, u64::MAX, "a");
    assert!(matches!(replica.command_at(session, 6, "a"), Effect::Reply { kept: true, .. }));
}

#[test]
fn rule_s4_a_skip_consumes_its_sequence_and_does_nothing() {
    let mut replica = Replica::small();
    let session = replica.session(7);
    let skip = |sequence| SessionEntry::Skip(header(session, sequence, 1));
    assert_eq!(replica.only(&skip(2)), gap(session, 1));
    assert_eq!(replica.only(&skip(1)), without_body(session, 1, 3, ReplyOutcome::Skipped, false));
    // Whichever copy came first decides, for the skip as for the command.
    assert_eq!(replica.command_at(session, 1, "a"), without_body(session, 1, 3, ReplyOutcome::Skipped, true));
    replica.command_at(session, 2, "b");
    assert_eq!(replica.only(&skip(2)), replied(session, 2, 5, "b", true));
    assert_eq!(replica.machine.applied.len(), 1);
}

#[test]
fn rule_s7_only_an_expiry_of_the_current_term_ends_a_session() {
    let mut replica = Replica::small();
    let session = replica.session(7);
    let expire = |term| SessionEntry::Expire(Expire { session, decided_in: term });
    assert_eq!(replica.apply(&expire(Term(TERM.0 - 1))), []);
    assert_eq!(replica.apply(&expire(Term(TERM.0 + 1))), []);
    assert_eq!(replica.table.len(), 1);
    assert_eq!(replica.apply(&expire(TERM)), [ended(session, EndReason::Expired, true)]);
    assert_eq!(replica.apply(&expire(TERM)), []);
    assert!(replica.table.is_empty());
}

#[test]
fn rule_s9_a_session_ends_at_once_and_is_cleaned_up_in_slices() {
    let mut replica = Replica::small();
    let (session, other) = (replica.session(7), replica.session(8));
    for sequence in 1..=4 {
        replica.command_from(session, sequence, sequence, "own");
    }
    replica.command_at(other, 1, "own");
    for sequence in 5..=6 {
        replica.command_from(session, sequence, sequence, "own");
    }
    let close = |session| SessionEntry::Close(Close { session });
    assert_eq!(replica.apply(&close(session)), [ended(session, EndReason::Closed, true)]);
    // The first slice went with the ending entry.
    assert_eq!((replica.machine.owned[&session], replica.table.is_cleaning()), (4, true));
    assert_eq!(replica.command_at(session, 7, "own"), ended(session, EndReason::Unknown, false));
    assert_eq!(replica.table.lookup(session, Sequence(7)), Lookup::NoSession(EndReason::Unknown));
    assert_eq!(replica.machine.owned[&session], 2);
    // A clean-up survives a snapshot, and any entry carries it on.
    let mut replica = Replica::small().restored(&replica.bytes());
    assert!(replica.table.is_cleaning());
    replica.apply_raw(EntryKind::NoOp, Bytes::new());
    assert!(!replica.table.is_cleaning() && !replica.machine.owned.contains_key(&session));
    assert_eq!(replica.machine.owned[&other], 1);
    assert_eq!(replica.apply(&close(session)), [ended(session, EndReason::Unknown, false)]);
}

#[test]
fn rule_s10_a_new_attempt_takes_over_and_a_late_copy_of_the_old_one_does_not() {
    let mut replica = Replica::small();
    let first = replica.session(7);
    let taken = [ended(first, EndReason::TakenOver, true), opened(2, 7, 2, true)];
    assert_eq!(replica.open(7, 2), taken);
    assert_eq!(replica.open(7, 1), [Effect::OpenRefused { client: ClientId(7), attempt: 1 }]);
    assert_eq!(replica.table.sessions().collect::<Vec<_>>(), [(SessionId(2), Duration::from_secs(5))]);
}

#[test]
fn rule_s11_what_took_effect_is_a_prefix_of_what_was_submitted() {
    let mut replica = Replica::small();
    let session = replica.session(7);
    for sequence in [1, 3, 2, 3, 5, 1, 4, 2] {
        replica.command_at(session, sequence, "a");
    }
    let order: Vec<_> = replica.machine.applied.iter().map(|applied| applied.sequence).collect();
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn rule_t1_time_never_runs_back() {
    let mut replica = Replica::small();
    replica.time = 500;
    replica.apply(&SessionEntry::Time);
    replica.time = 400;
    replica.apply_raw(EntryKind::Configuration, Bytes::from_static(b"opaque"));
    assert_eq!(replica.table.applied(), (Index(2), ClusterTime(500)));
}

#[test]
fn rule_t2_timers_fire_before_the_entry_whose_time_passes_them() {
    let mut replica = Replica::small();
    let session = replica.session(7);
    for (sequence, deadline) in [(1, 30), (2, 10), (3, 10), (4, 90)] {
        replica.command_from(session, sequence, sequence, &format!("timer {deadline}"));
    }
    assert_eq!(replica.table.next_deadline(), Some(ClusterTime(10)));
    replica.time = 9;
    replica.apply(&SessionEntry::Time);
    assert_eq!(replica.machine.fired, []);
    // Any kind of entry, in order of deadline and then of creation, at the time of that entry.
    replica.time = 30;
    replica.apply_raw(EntryKind::NoOp, Bytes::new());
    let now = ClusterTime(30);
    assert_eq!(replica.machine.fired, [(7, now, TimerId(1)), (7, now, TimerId(2)), (7, now, TimerId(0))]);
    // Timers are part of the snapshot.
    let mut replica = Replica::small().restored(&replica.bytes());
    assert_eq!(replica.table.next_deadline(), Some(ClusterTime(90)));
    replica.time = 90;
    replica.command_from(session, 5, 5, "timer 80");
    assert_eq!(replica.machine.fired.last(), Some(&(8, ClusterTime(90), TimerId(3))));
    // Set with a deadline that had passed: before the next entry.
    replica.apply(&SessionEntry::Time);
    assert_eq!(replica.machine.fired.last(), Some(&(9, ClusterTime(90), TimerId(4))));
}

#[test]
fn rule_m2_what_does_not_decode_is_a_no_op() {
    let mut replica = Replica::small();
    replica.session(7);
    let before = replica.machine.clone();
    for payload in [&b""[..], b"\x00", b"\xff\xff", b"\x02", b"\x01\x01", b"\x06trailing"] {
        assert_eq!(replica.apply_raw(EntryKind::Session, Bytes::copy_from_slice(payload)), []);
    }
    assert_eq!(replica.machine, before);
    assert_eq!(replica.table.applied().0, Index(7));
}

#[test]
fn rule_m3_levels_only_rise_and_only_in_their_term() {
    let mut replica = Replica::small();
    let mut raise = |level, decided_in| {
        let raise = RaiseLevel { kind: "map".into(), level, decided_in };
        assert_eq!(replica.apply(&SessionEntry::RaiseLevel(raise)), []);
    };
    raise(4, TERM);
    raise(3, TERM);
    raise(9, Term(1));
    assert_eq!(replica.table.levels().iter().collect::<Vec<_>>(), [("map", 4)]);
    let restored = Replica::small().restored(&replica.bytes());
    assert_eq!(restored.table.levels().iter().collect::<Vec<_>>(), [("map", 4)]);
}

#[test]
#[should_panic(expected = "applied once, in order: term 3 index 1")]
fn an_entry_that_is_not_the_next_is_a_broken_invariant() {
    let mut replica = Replica::small();
    replica.apply(&SessionEntry::Time);
    let id = EntryId::new(TERM, Index(1));
    let again = Entry { id, time: ClusterTime::ZERO, kind: EntryKind::NoOp, payload: Bytes::new() };
    replica.table.apply(&again, &mut replica.machine);
}

#[test]
fn dropped_replies_are_gone() {
    let mut replica = Replica::small();
    let session = replica.session(7);
    replica.command_at(session, 1, "a");
    replica.table.drop_replies();
    let gone = without_body(session, 1, 0, ReplyOutcome::ReplyGone, true);
    assert_eq!(replica.command_at(session, 1, "a"), gone);
}

/// A replica with something of everything.
fn furnished() -> Replica {
    let mut replica = Replica::small();
    replica.time = 1_000;
    let (one, two) = (replica.session(7), replica.session(8));
    replica.command_at(one, 1, "a");
    replica.command_at(one, 2, "timer 2000");
    replica.only(&SessionEntry::Skip(header(one, 3, 2)));
    for sequence in 1..=3 {
        replica.command_at(two, sequence, "own");
    }
    replica.apply(&SessionEntry::Close(Close { session: two }));
    replica.apply(&SessionEntry::RaiseLevel(RaiseLevel { kind: "map".into(), level: 1, decided_in: TERM }));
    replica.apply(&open(9, 1));
    replica.apply(&open(9, 2));
    for sequence in 4..=5 {
        replica.command_from(one, sequence, 3, "own");
    }
    replica
}

#[test]
fn rule_m4_equal_states_give_equal_bytes_and_a_snapshot_is_of_its_moment() {
    let (mut replica, twin) = (furnished(), furnished());
    assert_eq!((replica.bytes(), replica.table.digest()), (twin.bytes(), twin.table.digest()));
    let mut source = replica.table.snapshot(&replica.machine);
    replica.command_at(SessionId(1), 6, "later");
    assert_ne!(replica.table.digest(), twin.table.digest());
    let mut bytes = Vec::new();
    source.write_to(&mut bytes).expect("written to memory");
    assert_eq!(bytes, twin.bytes());
    let restored = Replica::small().restored(&twin.bytes());
    assert_eq!(restored.bytes(), twin.bytes());
    assert_eq!(restored.machine, twin.machine);
}

#[test]
fn rule_m4_a_kept_reply_survives_a_snapshot() {
    let mut replica = furnished();
    let before = replica.command_at(SessionId(1), 5, "own");
    assert!(matches!(before, Effect::Reply { kept: true, .. }));
    let mut restored = Replica::small().restored(&furnished().bytes());
    assert_eq!(restored.command_at(SessionId(1), 5, "own"), before);
}

#[test]
fn golden_bytes_of_the_sessions_part() {
    let mut replica = Replica::small();
    replica.time = 300;
    let one = replica.session(7);
    replica.command_at(one, 1, "a");
    replica.only(&SessionEntry::Skip(header(one, 2, 2)));
    replica.command_from(one, 3, 2, "timer 500");
    let entry = SessionEntry::Command(header(one, 4, 2), Bytes::from_static(b"!send 1 hi"));
    assert_eq!(replica.apply(&entry).len(), 2);
    let (bytes, machine) = (replica.bytes(), atomix_protocol::codec::to_bytes(&replica.machine));
    let part = bytes.len() - machine.len() - 8 - 18;
    let golden = [
        "0873657373696f6e7302004c00000000000000", // name, version, length
        "05ac020101f4030000000101", // head: 5, 300 ms, one timer at 500 ms, no levels, no clean-ups, 1 body, 1 session
        "0500026869",               // the first body of 5
        "01070100630088270402",     // 1 of client 7, attempt 1, key, 5,000 ms; last 4, lowest 2
        "0000",                     // not given up, nothing trimmed
        "010501010001",             // one event, at 5: atomic, with the first body, of one part:
        "0100",                     // for instance 1, with its first body
        "03",                       // three replies
        "0300000200",               // 2: skipped at 3
        "040000000b343a74696d657220353030", // 3: applied at 4
        "050501000c353a2173656e642031206869", // 4: applied at 5, where its last event is; atomic
    ];
    assert_eq!(hex(&bytes[..part]), golden.concat());
    assert_eq!(hex(&bytes[part..part + 18]), "076d616368696e650100ffffffffffffffff");
    assert_eq!(bytes[bytes.len() - 8..], (machine.len() as u64).to_le_bytes());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn no_damaged_snapshot_is_taken_for_another() {
    check_damage(&furnished().bytes(), Replica::small);
}

proptest! {
    #[test]
    fn hostile_snapshots_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut replica = Replica::small();
        let _ = replica.table.restore(&Bytes::from(bytes), &mut replica.machine);
    }
}

// --- a naive twin -------------------------------------------------------------------------------------------------------

/// What a session comes to, kept as simply as can be.
#[derive(Default)]
struct Twin {
    sessions: BTreeMap<u64, TwinSession>,
}

struct TwinSession {
    client: u128,
    attempt: u64,
    predecessor: Option<u64>,
    /// Every reply there ever was: index and whether it was a skip.
    replies: Vec<(u64, bool)>,
    lowest: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Open { client: u128, attempt: u64 },
    Command { session: usize, sequence: u64, lowest: u64, skip: bool },
    End { session: usize, expire: bool },
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let command = (0..4usize, 0..9u64, 0..9u64, any::<bool>())
        .prop_map(|(session, sequence, lowest, skip)| Step::Command { session, sequence, lowest, skip });
    prop_oneof![
        2 => (1..6u128, 1..4u64).prop_map(|(client, attempt)| Step::Open { client, attempt }),
        12 => command,
        1 => (0..4usize, any::<bool>()).prop_map(|(session, expire)| Step::End { session, expire }),
        1 => Just(Step::Snapshot),
    ]
}

impl Twin {
    fn open(&mut self, index: u64, client: u128, attempt: u64) -> Vec<Effect> {
        let mine = self.sessions.iter().find(|(_, session)| session.client == client).map(|(id, _)| *id);
        let mut effects = Vec::new();
        let mut predecessor = None;
        if let Some(id) = mine {
            let session = &self.sessions[&id];
            if session.attempt == attempt {
                return vec![opened(id, client, attempt, false)];
            }
            if session.predecessor == Some(attempt) {
                return vec![Effect::OpenRefused { client: ClientId(client), attempt }];
            }
            predecessor = Some(session.attempt);
            self.sessions.remove(&id);
            effects.push(ended(SessionId(id), EndReason::TakenOver, true));
        } else if self.sessions.len() == LIMITS.sessions {
            return vec![Effect::OpenRefused { client: ClientId(client), attempt }];
        }
        self.sessions
            .insert(index, TwinSession { client, attempt, predecessor, replies: Vec::new(), lowest: 1 });
        effects.push(opened(index, client, attempt, true));
        effects
    }

    fn command(&mut self, index: u64, id: u64, sequence: u64, lowest: u64, skip: bool) -> Effect {
        let session = SessionId(id);
        let Some(twin) = self.sessions.get_mut(&id) else {
            return ended(session, EndReason::Unknown, false);
        };
        let last = twin.replies.len() as u64;
        twin.lowest = twin.lowest.max(lowest.min(last + 1));
        let kept = sequence <= last;
        if sequence > last + 1 || (!kept && sequence - twin.lowest >= LIMITS.window) {
            return gap(session, last + 1);
        }
        if !kept {
            twin.replies.push((index, skip));
        }
        if sequence < twin.lowest {
            return without_body(session, sequence, 0, ReplyOutcome::ReplyGone, true);
        }
        match twin.replies[sequence as usize - 1] {
            (index, true) => without_body(session, sequence, index, ReplyOutcome::Skipped, kept),
            (index, false) => replied(session, sequence, index, "c", kept),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_table_is_what_its_naive_twin_is(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut replica, mut twin) = (Replica::small(), Twin::default());
        for step in steps {
            let index = replica.table.applied().0.next().0;
            let pick = |place: usize| twin.sessions.keys().nth(place).copied().unwrap_or(1_000);
            match step {
                Step::Open { client, attempt } => {
                    prop_assert_eq!(replica.open(client, attempt), twin.open(index, client, attempt));
                }
                Step::Command { session, sequence, lowest, skip } => {
                    let session = pick(session);
                    let header = header(SessionId(session), sequence, lowest);
                    let entry = match skip {
                        true => SessionEntry::Skip(header),
                        false => SessionEntry::Command(header, Bytes::from_static(b"c")),
                    };
                    let expected = twin.command(index, session, sequence, lowest, skip);
                    prop_assert_eq!(replica.only(&entry), expected);
                }
                Step::End { session, expire } => {
                    let id = pick(session);
                    let session = SessionId(id);
                    let (entry, reason) = match expire {
                        true => (SessionEntry::Expire(Expire { session, decided_in: TERM }), EndReason::Expired),
                        false => (SessionEntry::Close(Close { session }), EndReason::Closed),
                    };
                    let expected = match (twin.sessions.remove(&id), expire) {
                        (Some(_), _) => vec![ended(session, reason, true)],
                        (None, true) => vec![],
                        (None, false) => vec![ended(session, EndReason::Unknown, false)],
                    };
                    prop_assert_eq!(replica.apply(&entry), expected);
                }
                Step::Snapshot => replica = Replica::small().restored(&replica.bytes()),
            }
            let open: Vec<_> = replica.table.sessions().map(|(session, _)| session.0).collect();
            prop_assert_eq!(open, twin.sessions.keys().copied().collect::<Vec<_>>());
            for (id, session) in &twin.sessions {
                let info = replica.table.session(SessionId(*id)).expect("open");
                let kept = session.replies.len() as u64 + 1 - session.lowest;
                prop_assert_eq!((info.replies as u64, info.replies as u64 <= LIMITS.window), (kept, true));
            }
        }
    }
}
