//! Single requests of clients, answer by answer.

use std::time::Duration;

use atomix_engine::Input;
use atomix_protocol::client::{
    Attach, ClientRequest, ClientResponse, Consistency, EndReason, NotAnswered, NotLogged, OpenSession,
    QueryHeader, ReplyOutcome,
};
use atomix_protocol::session::SessionEntry;
use atomix_protocol::{Index, LinkId, Sequence, SessionId, SessionKey};
use bytes::Bytes;

use crate::solo::{KEY, Solo, client, command, entry, header, leader, leader_with, open};

fn attach(session: SessionId) -> Attach {
    Attach { session, key: KEY, last_event: Index::ZERO, read_only: false }
}

fn query(ticket: u64, consistency: Consistency, after_sequence: u64) -> ClientRequest {
    let after_sequence = Sequence(after_sequence);
    ClientRequest::Query(
        QueryHeader { ticket, consistency, after_index: Index::ZERO, after_sequence },
        Bytes::new(),
    )
}

/// Sequences answered on a link, with a letter each: `r`eply, `s`kipped, `n`ot logged, `g`ap.
fn story(solo: &Solo, link: LinkId) -> String {
    let word = |response| match response {
        ClientResponse::Reply(header, _) if header.outcome == ReplyOutcome::Skipped => {
            format!("s{}", header.sequence)
        }
        ClientResponse::Reply(header, _) => format!("r{}", header.sequence),
        ClientResponse::NotLogged { sequence, .. } => format!("n{sequence}"),
        ClientResponse::Gap { expected } => format!("g{expected}"),
        _ => String::new(),
    };
    let words: Vec<String> = solo.told(link).into_iter().map(word).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[test]
fn s1_a_request_waits_for_a_leader_that_is_about_to_be_established() {
    let mut solo = Solo::member(1);
    solo.wait(Duration::from_secs(2));
    while solo.engine.status(solo.now).role != "leader" {
        assert!(solo.write_one());
    }
    let (opener, attacher) = (solo.greeted_by(client(None)), solo.greeted_by(client(None)));
    solo.ask(opener, ClientRequest::Open(open(1)));
    solo.ask(attacher, ClientRequest::Attach(attach(SessionId(1))));
    assert_eq!(solo.told(opener), []);
    solo.write();
    assert!(solo.opened(opener).is_some());
    let (session, reason) = (SessionId(1), EndReason::Unknown);
    assert_eq!(solo.told(attacher), [ClientResponse::Ended { session, reason }]);
}

#[test]
fn s1_a_server_that_does_not_lead_says_so() {
    let mut solo = Solo::member(3);
    let link = solo.greeted_by(client(None));
    for request in [ClientRequest::Open(open(1)), ClientRequest::Attach(attach(SessionId(1)))] {
        solo.ask(link, request);
        assert!(matches!(solo.told(link).last(), Some(ClientResponse::NotLeader { leader: None, .. })));
    }
    let mut empty = Solo::empty(3);
    let link = empty.greeted_by(client(None));
    empty.ask(link, ClientRequest::Open(open(1)));
    empty.ask(link, ClientRequest::Status);
    assert!(matches!(
        &empty.told(link)[..],
        [ClientResponse::NotLeader { .. }, ClientResponse::Status(status)] if status.role == "forming"
    ));
}

#[test]
fn s7_a_leader_behind_a_session_does_not_say_that_it_ended() {
    let (mut solo, _, session) = leader();
    let (earlier, later) = (solo.greeted_by(client(None)), solo.greeted_by(client(None)));
    solo.ask(earlier, ClientRequest::Attach(attach(SessionId(1))));
    let (ended, reason) = (SessionId(1), EndReason::Unknown);
    assert_eq!(solo.told(earlier), [ClientResponse::Ended { session: ended, reason }]);
    // Opened by a leader of a later term, which this one has not heard of yet.
    solo.ask(later, ClientRequest::Attach(attach(SessionId(session.0 + 100))));
    assert!(matches!(solo.told(later)[..], [ClientResponse::NotLeader { leader: None, .. }]));
}

#[test]
fn s1_a_retry_of_an_attempt_finds_its_session() {
    let (mut solo, first, session) = leader();
    let last = solo.engine.status(solo.now).last_index;
    let second = solo.greeted_by(client(None));
    solo.ask(second, ClientRequest::Open(open(1)));
    assert_eq!(solo.opened(second), Some(session));
    assert_eq!(solo.engine.status(solo.now).last_index, last, "nothing is logged for it");
    assert!(solo.is_closed(first), "the earlier link is of no use any more");
    assert_eq!(solo.engine.marks().links_replaced, 1);

    let thief = solo.greeted_by(client(None));
    solo.ask(thief, ClientRequest::Open(OpenSession { key: SessionKey(1), ..open(1) }));
    assert!(solo.is_closed(thief) && !solo.is_closed(second));
}

#[test]
fn s1_two_tries_at_once_are_logged_once() {
    let mut solo = Solo::member(1);
    solo.wait(Duration::from_secs(2));
    solo.write();
    let (first, second) = (solo.greeted_by(client(None)), solo.greeted_by(client(None)));
    let last = solo.engine.status(solo.now).last_index;
    solo.ask(first, ClientRequest::Open(open(1)));
    solo.ask(second, ClientRequest::Open(open(1)));
    assert_eq!(solo.engine.status(solo.now).last_index, last.next());
    solo.write();
    assert!(solo.opened(first).is_none() && solo.opened(second).is_some());
}

#[test]
fn s1_the_timeout_is_clamped() {
    for (wanted, granted) in [(0, 200), (1_000, 1_000), (u64::MAX, 24 * 60 * 60 * 1_000)] {
        let mut solo = Solo::member(1);
        solo.wait(Duration::from_secs(2));
        solo.write();
        let link = solo.greeted_by(client(None));
        solo.ask(link, ClientRequest::Open(OpenSession { timeout_ms: wanted, ..open(1) }));
        solo.write();
        assert!(
            matches!(solo.told(link)[..], [ClientResponse::Opened(ref opened)] if opened.timeout_ms == granted)
        );
    }
}

#[test]
fn s1_a_session_is_given_to_whoever_has_its_key() {
    let (mut solo, _, session) = leader();
    for read_only in [false, true] {
        let link = solo.greeted_by(client(None));
        solo.ask(link, ClientRequest::Attach(Attach { key: SessionKey(1), read_only, ..attach(session) }));
        let reason = EndReason::WrongKey;
        assert_eq!(solo.told(link), [ClientResponse::Ended { session, reason }]);
        solo.ask(link, ClientRequest::Attach(Attach { read_only, ..attach(session) }));
        assert!(matches!(solo.told(link).last(), Some(ClientResponse::Attached(a)) if a.session == session));
    }
}

#[test]
fn s10_a_later_session_of_the_client_ends_the_one_before() {
    let (mut solo, first, session) = leader();
    let second = solo.greeted_by(client(None));
    solo.ask(second, ClientRequest::Open(open(2)));
    solo.write();
    let reason = EndReason::TakenOver;
    assert_eq!(solo.told(first).last(), Some(&ClientResponse::Ended { session, reason }));
    assert!(solo.opened(second).is_some_and(|other| other != session));
}

#[test]
fn s3_a_gap_is_answered_once_per_attempt() {
    let (mut solo, link, session) = leader();
    for sequence in [1, 3, 4, 5] {
        solo.hear(link, &command(session, sequence));
    }
    solo.write();
    assert_eq!(story(&solo, link), "g2 r1");
    for sequence in [3, 4] {
        solo.hear(link, &command(session, sequence));
    }
    assert_eq!(story(&solo, link), "g2 r1 g2", "it began again, and still lacks the second");
    for sequence in [2, 3, 4] {
        solo.hear(link, &command(session, sequence));
    }
    solo.write();
    assert_eq!(story(&solo, link), "g2 r1 g2 r2 r3 r4");
}

#[test]
fn s3_what_is_in_the_log_is_not_logged_again_and_what_was_applied_is_answered() {
    let (mut solo, link, session) = leader();
    let last = solo.engine.status(solo.now).last_index;
    for _ in 0..3 {
        solo.hear(link, &command(session, 1));
    }
    assert_eq!(solo.engine.status(solo.now).last_index, last.next());
    solo.write();
    assert_eq!(story(&solo, link), "r1");
    solo.hear(link, &command(session, 1));
    assert_eq!(story(&solo, link), "r1 r1");
    let status = solo.engine.status(solo.now);
    assert_eq!((status.last_index, status.counters.answered_from_table), (last.next(), 1));
}

#[test]
fn s3_a_link_that_takes_over_goes_on_where_the_log_is() {
    let (mut solo, first, session) = leader();
    solo.hear(first, &command(session, 1));
    solo.hear(first, &command(session, 2));
    solo.step(Input::Closed(first));
    let second = solo.greeted_by(client(None));
    solo.ask(second, ClientRequest::Attach(attach(session)));
    assert!(
        matches!(solo.told(second).last(), Some(ClientResponse::Attached(a)) if a.last_sequence == Sequence::ZERO)
    );
    for sequence in [1, 2, 3] {
        solo.hear(second, &command(session, sequence));
    }
    solo.write();
    assert_eq!(story(&solo, second), "r1 r2 r3");
    assert_eq!(solo.engine.status(solo.now).counters.commands_applied, 3);
}

#[test]
fn s4_a_refused_command_waits_for_its_skip() {
    let (mut solo, link, session) = leader();
    let large: &'static [u8] = Box::leak(vec![0; (1 << 20) + 1].into_boxed_slice());
    solo.ask(link, ClientRequest::Command(entry(session, 1, large).encode()));
    assert!(
        matches!(solo.told(link).last(), Some(ClientResponse::NotLogged { reason: NotLogged::TooLarge, .. })),
        "{:?}",
        solo.told(link)
    );
    solo.hear(link, &command(session, 2));
    solo.ask(link, ClientRequest::Command(SessionEntry::Skip(header(session, 1)).encode()));
    solo.hear(link, &command(session, 2));
    solo.write();
    assert_eq!(story(&solo, link), "n1 g1 s1 r2");
}

#[test]
fn s4_the_window_is_enforced_before_the_log() {
    let (mut solo, link, session) = leader();
    let window = 1_024 + 64;
    for sequence in 1..=window + 1 {
        solo.hear(link, &command(session, sequence));
    }
    let told = solo.told(link);
    let (sequence, reason) = (Sequence(window + 1), NotLogged::Busy);
    assert_eq!(told.last(), Some(&ClientResponse::NotLogged { sequence, reason }));
    solo.write();
    assert_eq!(solo.engine.status(solo.now).counters.commands_applied, window);
}

#[test]
fn q1_a_read_waits_for_its_sequence_and_not_for_ever() {
    let (mut solo, link, session) = leader();
    solo.ask(link, query(7, Consistency::Sequential, 1));
    solo.ask(link, query(8, Consistency::Sequential, 0));
    assert!(matches!(solo.told(link).last(), Some(ClientResponse::Answer(h, _)) if h.ticket == 8));
    solo.hear(link, &command(session, 1));
    solo.write();
    assert!(
        matches!(solo.told(link).last(), Some(ClientResponse::Answer(h, b)) if h.ticket == 7 && b == "x")
    );
    assert_eq!(solo.engine.marks().reads_waited, 1);

    solo.ask(link, query(9, Consistency::Sequential, 99));
    for _ in 0..12 {
        solo.wait(Duration::from_millis(500));
        solo.hear(link, &command(session, 1));
    }
    let timed_out = ClientResponse::NotAnswered { ticket: 9, reason: NotAnswered::TimedOut };
    assert_eq!(solo.told(link).iter().filter(|told| **told == timed_out).count(), 1);
}

#[test]
fn q1_a_read_waits_for_its_index() {
    for consistency in [Consistency::Linearizable, Consistency::Causal] {
        let (mut solo, link, session) = leader();
        let after_index = solo.engine.status(solo.now).applied_index.next();
        let header = QueryHeader { ticket: 1, consistency, after_index, after_sequence: Sequence::ZERO };
        solo.ask(link, ClientRequest::Query(header, Bytes::new()));
        solo.wait(Duration::from_millis(200));
        assert!(!solo.told(link).iter().any(|told| matches!(told, ClientResponse::Answer(..))));
        solo.hear(link, &command(session, 1));
        solo.write();
        let Some(ClientResponse::Answer(answer, body)) = solo.told(link).pop() else {
            panic!("{:?}", solo.told(link))
        };
        assert_eq!((answer.ticket, answer.index, &body[..]), (1, after_index, &b"x"[..]));
        assert_eq!(solo.engine.marks().reads_waited, 1);
    }
}

#[test]
fn q4_reads_that_wait_are_bounded() {
    let (mut solo, link, _) = leader();
    for ticket in 0..4_097 {
        solo.ask(link, query(ticket, Consistency::Causal, 1));
    }
    let busy = ClientResponse::NotAnswered { ticket: 4_096, reason: NotAnswered::Busy };
    assert_eq!(solo.told(link).last(), Some(&busy));
    solo.step(Input::Closed(link));
    solo.wait(Duration::from_secs(6));
}

#[test]
fn r5_a_full_log_has_room_for_the_leaders_time_entries() {
    let (mut solo, link, session) = leader_with(|options| options.raft.log_memory_bytes = 1_024);
    solo.ask(link, ClientRequest::Command(entry(session, 1, b"timer 100").encode()));
    solo.write();
    let refused = |solo: &Solo| solo.told(link).iter().any(|r| matches!(r, ClientResponse::NotLogged { .. }));
    let mut sequence = 1;
    while !refused(&solo) {
        sequence += 1;
        solo.hear(link, &command(session, sequence));
    }
    solo.wait(Duration::from_millis(200));
    assert_eq!(solo.engine.marks().time_entries, 1);
}

#[test]
fn q4_a_follower_without_a_leader_redirects() {
    let mut solo = Solo::member(3);
    let link = solo.greeted_by(client(None));
    solo.ask(link, ClientRequest::Attach(Attach { read_only: true, ..attach(SessionId(9)) }));
    assert_eq!(solo.told(link), [], "the session may become known yet");
    solo.wait(Duration::from_millis(600));
    assert!(matches!(solo.told(link)[..], [ClientResponse::NotLeader { leader: None, .. }]));
    solo.ask(link, query(1, Consistency::Causal, 0));
    assert!(solo.is_closed(link), "no session is attached");
}
