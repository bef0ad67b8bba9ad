//! Answers that only the leader's lease vouches for (R3).

use std::time::Duration;

use atomix_engine::{Input, LateRead, Output};
use atomix_protocol::client::{ClientRequest, ClientResponse, Consistency, QueryHeader};
use atomix_protocol::codec::Frame;
use atomix_protocol::{Index, LinkId, LocalTime, Sequence, SessionId};
use bytes::Bytes;

use crate::solo::*;

/// A leader of one with a lease, and a session on a link.
fn leader() -> (Solo, LinkId, SessionId) {
    leader_with(|options| options.raft.promise = Duration::from_millis(210))
}

fn read(solo: &mut Solo, link: LinkId, ticket: u64, after_index: Index) {
    let consistency = Consistency::Linearizable;
    let header = QueryHeader { ticket, consistency, after_index, after_sequence: Sequence::ZERO };
    solo.ask(link, ClientRequest::Query(header, Bytes::new()));
}

/// Tickets that were answered outright.
fn answered(solo: &Solo, link: LinkId) -> Vec<u64> {
    let answers = solo.told(link).into_iter().filter_map(|told| match told {
        ClientResponse::Answer(header, _) => Some(header.ticket),
        _ => None,
    });
    answers.collect()
}

/// Tickets of answers that hang on the clock, until when they are good, and what to give back if they are not.
fn by_lease(solo: &Solo) -> Vec<(u64, LocalTime, LateRead)> {
    let answers = solo.outputs.iter().filter_map(|output| match output {
        Output::Answer { frame, not_after, read, .. } => match Frame::decode(frame) {
            Ok(Frame::Response(ClientResponse::Answer(header, _))) => {
                Some((header.ticket, *not_after, read.clone()))
            }
            other => panic!("{other:?}"),
        },
        _ => None,
    });
    answers.collect()
}

#[test]
fn r3_an_answer_by_lease_names_the_time_at_which_it_is_too_late() {
    let (mut solo, link, _) = leader();
    solo.wait(Duration::from_millis(60));
    let before = solo.outputs.len();
    read(&mut solo, link, 7, Index::ZERO);
    let (ticket, not_after, _) = by_lease(&solo).pop().expect("an answer");
    assert_eq!((ticket, answered(&solo, link), solo.outputs.len()), (7, vec![], before + 1));
    let left = not_after - solo.now;
    assert!(Duration::from_millis(100) < left && left <= Duration::from_millis(190), "{left:?}");
    assert_eq!(solo.engine.marks().reads_by_lease, 1);
}

#[test]
fn r3_an_answer_that_was_too_late_is_given_after_a_round() {
    let (mut solo, link, _) = leader();
    read(&mut solo, link, 7, Index::ZERO);
    let (_, not_after, late) = by_lease(&solo).pop().expect("an answer");
    // The machine stood still, and its driver looked at the clock again.
    solo.now = not_after + Duration::from_millis(1);
    solo.step(Input::TooLate(late.clone()));
    assert_eq!((answered(&solo, link), by_lease(&solo).len()), (vec![7], 1));
    assert_eq!(solo.engine.marks().reads_too_late, 1);
    // Nobody waits any more.
    solo.step(Input::Closed(link));
    solo.step(Input::TooLate(late));
    assert_eq!(answered(&solo, link), [7]);
}

#[test]
fn r3_a_read_that_waited_for_longer_than_the_lease_is_confirmed_again() {
    let (mut solo, link, session) = leader();
    let next = solo.engine.status(solo.now).applied_index.next();
    read(&mut solo, link, 7, next);
    solo.hear(link, &command(session, 1));
    // It stands still before the command is applied.
    solo.now = solo.now + Duration::from_millis(300);
    solo.write();
    assert_eq!((answered(&solo, link), by_lease(&solo).len()), (vec![7], 0));
    assert_eq!((solo.engine.marks().reads_too_late, solo.engine.marks().reads_by_lease), (1, 0));
}
