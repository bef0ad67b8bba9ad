//! Votes and pre-votes: given twice, forgotten, confused, or refused for ever.

use atomix_protocol::peer::*;
use atomix_protocol::*;
use atomix_raft::{Input, Output, Role};

use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::*;

/// sofastack/sofa-jraft#1243: the vote could not be written, and was granted.
#[test]
fn a_vote_whose_write_never_ends_is_never_answered() {
    let mut machine = Machine::follower(3, &[]);
    for _ in 0..5 {
        assert_eq!(
            vote(&machine.hear(2, request_vote(4, EntryId::ZERO))),
            None,
            "asked again: still not durable"
        );
        assert_eq!(said(&machine.pass(10)), []);
    }
    // Nobody was promised anything, so after a restart the vote is free.
    let mut machine = machine.restart();
    machine.hear(3, request_vote(4, EntryId::ZERO));
    assert_eq!(vote(&machine.persist()), Some(true));
}

/// sofastack/sofa-jraft#1245 and jgroups-extras/jgroups-raft@4c6961f: a vote was answered and not on disk, so that a
/// restarted server voted twice in one term.
#[test]
fn a_vote_that_was_answered_outlives_a_restart() {
    let mut machine = Machine::follower(3, &[]);
    machine.hear(2, request_vote(4, EntryId::ZERO));
    assert_eq!(vote(&machine.persist()), Some(true));
    let mut machine = machine.restart();
    assert_eq!(vote(&machine.hear(3, request_vote(4, id(3, 9)))), Some(false));
    assert_eq!(vote(&machine.hear(2, request_vote(4, EntryId::ZERO))), Some(true), "the same one, again");
}

/// canonical/raft PR 247: a pre-vote, sent or received, cleared the stored vote.
#[test]
fn a_pre_vote_leaves_the_vote_that_was_given() {
    let mut machine = Machine::follower(3, &[]);
    machine.hear(2, request_vote(4, EntryId::ZERO));
    machine.persist();
    let given = HardState { term: Term(4), voted_for: Some(server(2)) };
    machine.pass(700);
    assert_eq!((machine.raft.role(), machine.raft.hard_state()), (Role::PreCandidate, given));
    assert!(pre_vote_reply(&machine.hear(3, pre_vote(5, EntryId::ZERO))).granted);
    assert_eq!((machine.raft.hard_state(), machine.write.is_some()), (given, false));
    assert_eq!(vote(&machine.hear(3, request_vote(4, EntryId::ZERO))), Some(false));
}

/// canonical/raft PR 248: an answer to a pre-vote was counted as a vote.
#[test]
fn an_answer_to_a_pre_vote_is_no_vote() {
    let mut machine = Machine::follower(0, &[]);
    machine.campaign();
    machine.persist();
    for asked in [1, 2] {
        machine.hear(3, pre_vote_granted(asked, 0));
    }
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::Candidate, Term(1)));
    let mut machine = Machine::follower(0, &[]);
    machine.pass(700);
    let reply = RequestVoteReply { term: Term(0), asked: Term(1), granted: true };
    machine.hear(2, PeerMessage::RequestVoteReply(reply));
    assert_eq!(machine.raft.role(), Role::PreCandidate, "nor is a vote an answer to a pre-vote");
}

/// canonical/raft PR 281: the answer of a server behind in term was dropped, for its own term was in it, and nobody
/// could be elected.
#[test]
fn a_pre_vote_counts_for_the_term_that_was_asked_for() {
    let mut behind = Machine::follower(1, &[]);
    assert_eq!(pre_vote_reply(&behind.hear(2, pre_vote(4, EntryId::ZERO))).asked, Term(4));
    let mut machine = Machine::follower(3, &[]);
    machine.pass(700);
    machine.hear(2, pre_vote_granted(3, 1));
    assert_eq!(machine.raft.role(), Role::PreCandidate, "an answer to an earlier question");
    machine.hear(2, pre_vote_granted(4, 1));
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::Candidate, Term(4)));
}

/// databendlabs/openraft#1796: of the two servers left, one has the later term and the other the longer log. Each
/// refuses the other's pre-vote, and without learning from refusals that goes on for ever.
#[test]
fn the_longer_log_wins_over_the_later_term() {
    let mut later = Machine::follower(9, &[1]);
    let mut longer = Machine::with(Default::default(), 2, configuration(3, 0), 3, log(&[1, 3]));
    for _ in 0..10 {
        let outputs = later.pass(700);
        deliver(&mut later, &mut longer, outputs);
        let outputs = longer.pass(700);
        deliver(&mut longer, &mut later, outputs);
        if longer.raft.role() == Role::Leader {
            break;
        }
    }
    assert_eq!((longer.raft.role(), longer.terms()), (Role::Leader, vec![1, 3, longer.raft.term().0]));
    assert!(longer.raft.term() > Term(9));
}

/// Carries what one says to the other, and what comes of it, until both are silent.
fn deliver(one: &mut Machine, other: &mut Machine, mut outputs: Vec<Output>) {
    let (mut from, mut to) = (one, other);
    for _ in 0..20 {
        let meant = to.raft.server();
        let messages: Vec<PeerMessage> = outputs
            .drain(..)
            .filter_map(|output| match output {
                Output::Send { to, message } if to == meant => Some(message),
                _ => None,
            })
            .collect();
        let mut next = Vec::new();
        for message in messages {
            next.extend(to.input(Input::Received { from: from.raft.server(), message }));
        }
        for machine in [&mut *from, &mut *to] {
            if let Some((token, _)) = machine.write.take() {
                let written = machine.input(Input::Written { token });
                if machine.raft.server() == meant {
                    next.extend(written);
                } else {
                    // Said by the one who spoke last: to be carried in the same direction again.
                    outputs.extend(written);
                }
            }
        }
        if outputs.is_empty() {
            core::mem::swap(&mut from, &mut to);
            outputs = next;
        } else {
            assert!(next.iter().all(|output| !matches!(output, Output::Send { .. })), "one speaks at a time");
        }
    }
}

/// tikv/raft-rs#84: with pre-vote and check-quorum, messages of an earlier term were ignored in silence, so that a
/// server whose term had run ahead left the group without a leader.
#[test]
fn whoever_is_behind_in_term_is_told() {
    let mut machine = Machine::follower(5, &[1]);
    let reply = pre_vote_reply(&machine.hear(2, pre_vote(4, id(3, 9))));
    assert_eq!((reply.granted, reply.current), (false, Term(5)));
    let replies = append_replies(&machine.hear(3, append(3, id(1, 1), vec![], 0)));
    assert_eq!((replies[0].term, &replies[0].outcome), (Term(5), &AppendOutcome::StaleTerm));
    let said = machine.hear(2, request_vote(4, id(3, 9)));
    assert!(matches!(&said[..], [PeerMessage::RequestVoteReply(r)] if r.term == Term(5) && !r.granted));
}

/// eBay/NuRaft#185: a candidate with a stale log was elected, and rolled committed entries back. Here the leader that
/// gave way picked it, which lifts stickiness and nothing else.
#[test]
fn a_stale_candidate_is_refused_whoever_sent_it() {
    for last in [id(1, 9), id(2, 1), EntryId::ZERO] {
        let mut machine = Machine::follower(3, &[1, 2]);
        machine.hear(2, append(3, id(2, 2), vec![], 2));
        let message = RequestVote { term: Term(4), last, transfer: Some(Round(1)) };
        machine.hear(3, PeerMessage::RequestVote(message));
        assert_eq!(vote(&machine.persist()), Some(false), "{last:?}");
    }
}
