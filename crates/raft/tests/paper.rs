//! One test per rule: Figure 3.1 (the RPCs and what servers do), and the rules of docs/protocol.md that are Raft's part. The
//! properties of Figure 3.2 are checked after every step of every scenario and random history.
//!
//! A [`Machine`] is one server; the test is everyone else.

use std::time::Duration;

use atomix_protocol::peer::*;
use atomix_protocol::*;
use atomix_raft::{ChunkOutcome, Config, Input, Output, Raft, Recovered, Refused, Role};
use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::*;
use bytes::Bytes;

/// What a client asks for. It goes out at once.
fn propose(machine: &mut Machine) -> Result<EntryId, Refused> {
    let proposed = machine.propose_quietly(b"command");
    machine.drain();
    proposed
}

fn append_outcomes(messages: &[PeerMessage]) -> Vec<AppendOutcome> {
    let replies = messages.iter().filter_map(|message| match message {
        PeerMessage::AppendEntriesReply(reply) => Some(reply.outcome.clone()),
        _ => None,
    });
    replies.collect()
}

// Figure 3.1: AppendEntries, receiver.

#[test]
fn append_entries_1_a_stale_term_is_refused() {
    let mut machine = Machine::follower(5, &[1]);
    let said = machine.hear(2, append(4, id(1, 1), vec![entry(4, 2)], 2));
    assert_eq!(append_outcomes(&said), [AppendOutcome::StaleTerm]);
    assert_eq!((machine.terms(), machine.raft.leader()), (vec![1], None));
}

#[test]
fn append_entries_2_without_the_entry_before_it_is_refused_with_a_hint() {
    for (terms, prev, hint) in [
        (&[1, 1][..], id(1, 5), id(1, 2)),   // too short
        (&[1, 1, 3, 3], id(2, 4), id(1, 2)), // a later term there: skipped as a whole
        (&[1, 1, 1], id(2, 3), id(1, 2)),    // an earlier term there
        (&[], id(1, 1), EntryId::ZERO),
    ] {
        let mut machine = Machine::follower(5, terms);
        machine.hear(2, append(5, EntryId::ZERO, vec![], 0));
        let said = machine.hear(2, append(5, prev, vec![], 0));
        assert_eq!(append_outcomes(&said), [AppendOutcome::Mismatch { prev, hint }], "{terms:?} {prev:?}");
    }
}

#[test]
fn append_entries_3_a_conflicting_suffix_goes_and_nothing_else() {
    let mut machine = Machine::follower(3, &[1, 1, 2, 2]);
    machine.hear(2, append(3, id(1, 1), vec![entry(1, 2), entry(3, 3)], 0));
    assert_eq!(machine.terms(), [1, 1, 3]);
    // An old message, out of order, that conflicts with nothing takes nothing away.
    machine.hear(2, append(3, id(1, 1), vec![entry(1, 2)], 0));
    machine.hear(2, append(3, EntryId::ZERO, vec![], 0));
    assert_eq!(machine.terms(), [1, 1, 3]);
    let batch = machine.write.as_ref().unwrap().1.clone();
    assert_eq!((batch.truncate_after, batch.entries), (Some(id(1, 2)), vec![entry(3, 3)]));
}

#[test]
fn append_entries_4_new_entries_are_appended_once() {
    let mut machine = Machine::follower(1, &[]);
    for _ in 0..2 {
        machine.hear(2, append(1, EntryId::ZERO, vec![entry(1, 1), entry(1, 2)], 0));
    }
    machine.hear(2, append(1, id(1, 1), vec![entry(1, 2), entry(1, 3)], 0));
    assert_eq!(machine.terms(), [1, 1, 1]);
}

#[test]
fn append_entries_5_commit_is_bounded_by_the_last_new_entry() {
    let mut machine = Machine::follower(1, &[1, 1, 1]);
    machine.hear(2, append(2, id(1, 1), vec![], 3));
    assert_eq!(machine.raft.commit_index(), Index(1), "entries 2 and 3 may not be the leader's");
    machine.hear(2, append(2, id(1, 1), vec![entry(1, 2)], 1));
    assert_eq!(machine.raft.commit_index(), Index(1), "never beyond the leader's");
    machine.hear(2, append(2, id(1, 2), vec![entry(2, 3)], u64::MAX));
    assert_eq!((machine.raft.commit_index(), machine.terms()), (Index(3), vec![1, 1, 2]));
}

// Figure 3.1: RequestVote, receiver.

#[test]
fn request_vote_1_a_stale_term_is_refused() {
    let mut machine = Machine::follower(5, &[]);
    let said = machine.hear(2, request_vote(4, id(4, 9)));
    assert_eq!(vote(&said), Some(false));
    assert_eq!(machine.raft.term(), Term(5));
}

#[test]
fn request_vote_2_one_vote_per_term_to_an_up_to_date_log() {
    for (last, expected) in [
        (id(2, 2), true),
        (id(2, 3), true),
        (id(3, 1), true),
        (id(2, 1), false),
        (id(1, 9), false), // longer, and of an earlier term
    ] {
        let mut machine = Machine::follower(3, &[1, 2]);
        machine.hear(2, request_vote(4, last));
        assert_eq!(vote(&machine.persist()), Some(expected), "{last:?}");
    }
    let mut machine = Machine::follower(3, &[]);
    machine.hear(2, request_vote(4, EntryId::ZERO));
    machine.persist();
    assert_eq!(vote(&machine.hear(3, request_vote(4, id(3, 9)))), Some(false), "the vote is given");
    assert_eq!(vote(&machine.hear(2, request_vote(4, EntryId::ZERO))), Some(true), "to the same one, again");
}

// Figure 3.1: rules for servers.

#[test]
fn all_servers_1_what_is_committed_is_handed_on_once_and_in_order() {
    let mut machine = Machine::follower(1, &[]);
    machine.hear(2, append(1, EntryId::ZERO, vec![entry(1, 1), entry(1, 2)], 1));
    machine.hear(2, append(1, id(1, 2), vec![entry(1, 3)], 3));
    machine.hear(2, append(1, id(1, 3), vec![], 3));
    let handed = machine.outputs.iter().filter_map(|output| match output {
        Output::Committed { entries } => Some(entries.iter().map(|e| e.id.index.0).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(handed.collect::<Vec<_>>(), [vec![1], vec![2, 3]]);
}

#[test]
fn all_servers_2_a_later_term_makes_a_follower() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 4, &[]);
    let outcome = AppendOutcome::StaleTerm;
    let reply = AppendEntriesReply { term: Term(9), round: Round(0), room: true, abstains: false, outcome };
    machine.hear(2, PeerMessage::AppendEntriesReply(reply));
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::Follower, Term(9)));
}

#[test]
fn followers_2_without_a_leader_for_an_election_timeout_they_campaign() {
    let mut machine = Machine::follower(1, &[]);
    for _ in 0..20 {
        machine.pass(100);
        machine.hear(2, append(1, EntryId::ZERO, vec![], 0));
    }
    assert_eq!((machine.raft.role(), machine.raft.leader()), (Role::Follower, Some(server(2))));
    machine.pass(299);
    assert_eq!(machine.raft.role(), Role::Follower);
    machine.pass(302);
    assert_eq!((machine.raft.role(), machine.raft.leader()), (Role::PreCandidate, None));
}

#[test]
fn candidates_lead_with_a_quorum_and_yield_to_a_leader_of_their_term() {
    let mut machine = Machine::with(Config::default(), 1, configuration(5, 0), 0, vec![]);
    machine.campaign();
    machine.persist();
    let granted = |asked| RequestVoteReply { term: Term(1), asked: Term(asked), granted: true };
    machine.hear(2, PeerMessage::RequestVoteReply(granted(1)));
    machine.hear(2, PeerMessage::RequestVoteReply(granted(1)));
    machine.hear(3, PeerMessage::RequestVoteReply(granted(0)));
    assert_eq!(machine.raft.role(), Role::Candidate, "a repeated vote and one of another term do not count");
    machine.hear(4, append(1, EntryId::ZERO, vec![], 0));
    assert_eq!((machine.raft.role(), machine.raft.leader()), (Role::Follower, Some(server(4))));
    machine.hear(3, PeerMessage::RequestVoteReply(granted(1)));
    assert_eq!(machine.raft.role(), Role::Follower);
}

#[test]
fn leaders_4_commit_by_counting_only_what_is_of_their_term() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 2, &[1, 2, 2]);
    machine.hear(2, durable(3, 1, 3));
    machine.hear(3, durable(3, 1, 3));
    assert_eq!(machine.raft.commit_index(), Index(0));
    assert!(machine.raft.marks().old_term_entry_on_majority_uncommitted > 0);
    machine.hear(2, durable(3, 1, 4));
    machine.persist();
    assert_eq!(machine.raft.commit_index(), Index(4));
}

// R1: pre-vote, check-quorum, stickiness, the first entry of a term.

#[test]
fn r1_pre_vote_changes_nothing_and_echoes_the_term() {
    let mut machine = Machine::follower(3, &[1, 3]);
    let reply = pre_vote_reply(&machine.hear(2, pre_vote(4, id(3, 2))));
    assert_eq!(reply, PreVoteReply { asked: Term(4), granted: true, current: Term(3), sticky: false });
    assert!(!pre_vote_reply(&machine.hear(3, pre_vote(4, id(3, 1)))).granted, "a log behind ours");
    assert!(!pre_vote_reply(&machine.hear(3, pre_vote(3, id(3, 9)))).granted, "a term that is ours already");
    assert!(machine.write.is_none() && machine.raft.term() == Term(3));
}

#[test]
fn r1_a_refused_pre_candidate_learns_a_later_term() {
    let mut machine = Machine::follower(3, &[]);
    machine.pass(700);
    let reply = PreVoteReply { asked: Term(4), granted: false, current: Term(8), sticky: false };
    machine.hear(2, PeerMessage::PreVoteReply(reply));
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::Follower, Term(8)));
}

#[test]
fn r1_a_server_that_is_cut_off_does_not_raise_its_term() {
    let mut machine = Machine::follower(3, &[]);
    for _ in 0..100 {
        machine.pass(700);
    }
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::PreCandidate, Term(3)));
}

#[test]
fn r1_who_hears_a_leader_votes_for_nobody_else() {
    let mut machine = Machine::follower(3, &[]);
    machine.hear(2, append(3, EntryId::ZERO, vec![], 0));
    machine.pass(250);
    let reply = pre_vote_reply(&machine.hear(3, pre_vote(4, id(3, 9))));
    assert!(reply.sticky && !reply.granted);
    assert_eq!(vote(&machine.hear(3, request_vote(4, id(3, 9)))), Some(false));
    assert_eq!(machine.raft.term(), Term(3), "not even the term is adopted");
    let transfer = RequestVote { term: Term(4), last: id(3, 9), transfer: Some(Round(1)) };
    machine.hear(3, PeerMessage::RequestVote(transfer));
    assert_eq!(vote(&machine.persist()), Some(true), "unless the leader itself gave way (§3.10)");
}

#[test]
fn r1_a_leader_with_a_quorum_is_sticky_and_without_one_gives_up() {
    let mut machine = Machine::leader(Config::default(), 5, 0, 0, &[]);
    machine.persist();
    for round in 1..20 {
        machine.pass(50);
        machine.hear(2, durable(1, round, 0));
        machine.hear(3, durable(1, round, 0));
        assert!(!pre_vote_reply(&machine.hear(5, pre_vote(2, id(1, 9)))).granted);
    }
    for _ in 0..5 {
        machine.pass(50);
        machine.hear(2, durable(1, 1, 0));
    }
    assert_eq!(machine.raft.role(), Role::Leader);
    machine.pass(50);
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::Follower, Term(1)));
    assert_eq!(machine.raft.marks().check_quorum_step_down, 1);
}

#[test]
fn r1_a_leader_begins_with_an_entry_of_its_term() {
    let machine = Machine::leader(Config::default(), 3, 0, 4, &[1]);
    let first = machine.raft.entry(Index(2)).unwrap();
    assert_eq!((first.id, first.kind), (id(5, 2), EntryKind::NoOp));
    assert!(!machine.raft.is_established());
}

// R2: durability.

#[test]
fn r2_term_and_vote_are_durable_before_the_vote_is_answered() {
    let mut machine = Machine::follower(3, &[]);
    assert_eq!(machine.hear(2, request_vote(4, EntryId::ZERO)), []);
    let hard_state = HardState { term: Term(4), voted_for: Some(server(2)) };
    assert_eq!(machine.write.as_ref().unwrap().1.hard_state, Some(hard_state));
    assert_eq!(vote(&machine.persist()), Some(true));
}

#[test]
fn r2_a_candidate_asks_and_counts_itself_when_its_own_vote_is_durable() {
    let mut machine = Machine::with(Config::default(), 1, configuration(2, 0), 0, vec![]);
    machine.campaign();
    assert!(
        !machine
            .outputs
            .iter()
            .any(|o| matches!(o, Output::Send { message: PeerMessage::RequestVote(_), .. }))
    );
    let reply = RequestVoteReply { term: Term(1), asked: Term(1), granted: true };
    machine.hear(2, PeerMessage::RequestVoteReply(reply));
    assert_eq!(machine.raft.role(), Role::Candidate, "one of two: its own vote is not durable");
    machine.persist();
    assert_eq!(machine.raft.role(), Role::Leader);
}

#[test]
fn r2_an_answer_that_waits_dies_with_its_term() {
    let mut machine = Machine::follower(3, &[]);
    machine.hear(2, request_vote(4, EntryId::ZERO));
    machine.hear(3, request_vote(5, EntryId::ZERO));
    assert_eq!(machine.persist(), [], "the vote of term 4 is durable, but term 5 is not");
    let said = machine.persist();
    assert_eq!(said.len(), 1);
    assert!(matches!(&said[0], PeerMessage::RequestVoteReply(r) if r.asked == Term(5) && r.granted));
}

#[test]
fn r2_entries_are_acknowledged_when_durable_and_heartbeats_at_once() {
    let mut machine = Machine::follower(1, &[1]);
    machine.hear(2, append(1, id(1, 1), vec![], 0));
    assert_eq!(machine.hear(2, append(1, id(1, 1), vec![entry(1, 2)], 0)), [], "not durable");
    let at_once = machine.hear(2, append(1, id(1, 2), vec![], 0));
    assert_eq!(append_outcomes(&at_once), [AppendOutcome::Durable(Index(1))]);
    assert_eq!(append_outcomes(&machine.persist()), [AppendOutcome::Durable(Index(2))]);
}

#[test]
fn r2_only_what_agrees_with_this_leader_is_acknowledged() {
    let mut machine = Machine::follower(1, &[1, 1, 1]);
    let said = machine.hear(2, append(1, id(1, 1), vec![], 0));
    assert_eq!(append_outcomes(&said), [AppendOutcome::Durable(Index(1))], "2 and 3 may be another leader's");
}

#[test]
fn r2_a_leader_counts_its_own_copy_when_it_is_durable() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.hear(2, durable(1, 1, 1));
    assert_eq!(machine.raft.commit_index(), Index(0));
    machine.persist();
    assert_eq!(machine.raft.commit_index(), Index(1));
}

#[test]
fn r2_a_commit_does_not_need_the_leaders_own_copy() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.hear(2, durable(1, 1, 1));
    machine.hear(3, durable(1, 1, 1));
    assert_eq!((machine.raft.commit_index(), machine.raft.durable_index()), (Index(1), Index(0)));
}

#[test]
fn replication_leaves_before_the_own_write_and_one_write_is_outstanding() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    machine.outputs.clear();
    propose(&mut machine).unwrap();
    let place = |wanted: fn(&Output) -> bool| machine.outputs.iter().position(wanted);
    let sent = place(|o| matches!(o, Output::Send { message: PeerMessage::AppendEntries(_), .. }));
    assert!(sent.unwrap() < place(|o| matches!(o, Output::Write { .. })).unwrap());
    propose(&mut machine).unwrap();
    propose(&mut machine).unwrap();
    assert_eq!(machine.write.as_ref().unwrap().1.entries.len(), 1);
    machine.persist();
    assert_eq!(machine.write.as_ref().unwrap().1.entries.len(), 2);
}

// R4: a closed link.

#[test]
fn r4_only_the_leaders_link_lifts_stickiness() {
    let mut machine = Machine::follower(3, &[]);
    machine.hear(2, append(3, EntryId::ZERO, vec![], 0));
    machine.input(Input::LinkClosed { from: server(3) });
    machine.pass(31);
    assert_eq!(machine.raft.role(), Role::Follower);
    machine.input(Input::LinkClosed { from: server(2) });
    assert!(pre_vote_reply(&machine.hear(3, pre_vote(4, id(3, 9)))).granted);
    machine.pass(31);
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::PreCandidate, Term(3)));
    let refused = PreVoteReply { asked: Term(4), granted: false, current: Term(3), sticky: true };
    machine.hear(3, PeerMessage::PreVoteReply(refused));
    assert_eq!(machine.pass(31).len(), 2, "asks both again");
    machine.hear(2, append(3, EntryId::ZERO, vec![], 0));
    assert_eq!(machine.raft.role(), Role::Follower);
    assert!(pre_vote_reply(&machine.hear(3, pre_vote(4, id(3, 9)))).sticky, "a heartbeat restores it");
    assert_eq!(machine.pass(100), [], "and ends the fast pre-votes");
}

// R5: memory.

#[test]
fn r5_a_leader_is_busy_at_the_bound_but_for_its_own_entries() {
    let config = Config { log_memory_bytes: 1_000, ..Config::default() };
    let mut machine = Machine::leader(config, 3, 0, 0, &[]);
    machine.hear(2, durable(1, 1, 1));
    while propose(&mut machine).is_ok() {}
    assert_eq!(propose(&mut machine), Err(Refused::Busy));
    let own = machine.raft.propose(machine.now, EntryKind::Session, Bytes::new(), Some(Term(1)));
    assert!(own.is_ok());
    machine.persist();
    machine.persist();
    machine.hear(2, durable(1, 1, machine.raft.last().index.0));
    assert!(propose(&mut machine).is_ok(), "committed and applied entries do not count");
}

#[test]
fn r5_a_follower_at_the_bound_answers_heartbeats_and_goes_on_when_its_disk_has() {
    let config = Config { log_memory_bytes: 200, ..Config::default() };
    let mut machine = Machine::with(config, 1, configuration(3, 0), 1, vec![]);
    let entries: Vec<Entry> = (1..=10).map(|index| entry(1, index)).collect();
    machine.hear(2, append(1, EntryId::ZERO, entries[..2].to_vec(), 0));
    machine.hear(2, append(1, id(1, 2), entries[2..].to_vec(), 0));
    assert_eq!(machine.raft.last().index, Index(3));
    assert_eq!(
        append_outcomes(&machine.hear(2, append(1, id(1, 3), vec![], 0))),
        [AppendOutcome::Durable(Index(0))]
    );
    machine.persist();
    machine.hear(2, append(1, id(1, 3), entries[3..].to_vec(), 0));
    assert!(machine.raft.last().index > Index(3));
}

#[test]
fn r5_entries_that_memory_dropped_are_fetched_and_if_gone_replaced_by_a_snapshot() {
    let config = Config { log_memory_bytes: 1, ..Config::default() };
    let mut machine = Machine::leader(config, 3, 0, 0, &[]);
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    propose(&mut machine).unwrap();
    machine.persist();
    machine.hear(2, durable(1, 1, 2));
    assert_eq!((machine.raft.applied_index(), machine.raft.entry(Index(1))), (Index(2), None));
    let meta = SnapshotMeta { size: 3, ..machine.raft.snapshot_point() };
    let mismatch = AppendOutcome::Mismatch { prev: id(1, 1), hint: EntryId::ZERO };
    machine.pass(50);
    let reply =
        AppendEntriesReply { term: Term(1), round: Round(2), room: true, abstains: false, outcome: mismatch };
    let outputs =
        machine.input(Input::Received { from: server(3), message: PeerMessage::AppendEntriesReply(reply) });
    let fetch = Output::Fetch { to: server(3), from: Index(1), through: Index(2), bytes: 1 << 20 };
    assert!(outputs.contains(&fetch), "{outputs:?}");
    let gone = machine.input(Input::Fetched { to: server(3), from: Index(1), entries: None });
    assert_eq!(gone, [], "there is no snapshot yet: the next heartbeat tries again");
    assert!(machine.pass(50).contains(&fetch));
    machine.input(Input::SnapshotPublished { meta: meta.clone() });
    let outputs = machine.input(Input::Fetched { to: server(3), from: Index(1), entries: None });
    let chunk = Output::ReadChunk { to: server(3), meta, offset: 0, bytes: 256 << 10 };
    assert_eq!(outputs, [chunk]);
}

#[test]
fn r5_a_fetch_that_an_acknowledgement_overtook_is_dropped() {
    let config = Config { log_memory_bytes: 1, ..Config::default() };
    let mut machine = Machine::leader(config, 3, 0, 0, &[]);
    let mut entries = vec![machine.raft.entry(Index(1)).cloned().expect("its own first entry")];
    machine.persist();
    machine.hear(3, durable(1, 1, 0));
    machine.hear(2, durable(1, 1, 1));
    propose(&mut machine).unwrap();
    entries.push(machine.raft.entry(Index(2)).cloned().expect("not applied yet"));
    machine.persist();
    machine.hear(2, durable(1, 1, 2));
    machine.pass(50);
    let outcome = AppendOutcome::Mismatch { prev: id(1, 2), hint: EntryId::ZERO };
    let reply = AppendEntriesReply { term: Term(1), round: Round(2), room: true, abstains: false, outcome };
    let outputs =
        machine.input(Input::Received { from: server(3), message: PeerMessage::AppendEntriesReply(reply) });
    assert!(outputs.iter().any(|output| matches!(output, Output::Fetch { .. })), "{outputs:?}");
    machine.hear(3, durable(1, 2, 2));
    let late = machine.input(Input::Fetched { to: server(3), from: Index(1), entries: Some(entries) });
    assert_eq!(said(&late), [], "server 3 has them already");
    propose(&mut machine).unwrap();
    let sent = machine.outputs.iter().rev().find_map(|output| match output {
        Output::Send { to, message: PeerMessage::AppendEntries(m) } if *to == server(3) => Some(m.prev),
        _ => None,
    });
    assert_eq!(sent, Some(id(1, 2)), "and it is sent what comes next");
}

#[test]
fn r6_a_transfer_holds_the_log_back_until_the_follower_is_silent_for_long() {
    let config = Config { log_memory_bytes: 1, ..Config::default() };
    let mut machine = Machine::leader(config, 3, 0, 0, &[]);
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    propose(&mut machine).unwrap();
    machine.persist();
    machine.hear(2, durable(1, 1, 2));
    let first = SnapshotMeta { size: 3, ..machine.raft.snapshot_point() };
    machine.input(Input::SnapshotPublished { meta: first.clone() });
    machine.pass(50);
    let outcome = AppendOutcome::Mismatch { prev: id(1, 1), hint: EntryId::ZERO };
    let reply = AppendEntriesReply { term: Term(1), round: Round(2), room: true, abstains: false, outcome };
    machine.hear(3, PeerMessage::AppendEntriesReply(reply));
    machine.input(Input::Fetched { to: server(3), from: Index(1), entries: None });
    propose(&mut machine).unwrap();
    machine.persist();
    machine.hear(2, durable(1, 2, 3));
    let second = SnapshotMeta { size: 3, ..machine.raft.snapshot_point() };
    assert!(second.last.index > first.last.index);
    machine.input(Input::SnapshotPublished { meta: second.clone() });
    assert_eq!(machine.raft.compactable_index(), first.last.index, "server 3 goes on behind the first");
    for _ in 0..200 {
        machine.pass(50);
        let round = machine.raft.round().0;
        machine.hear(2, durable(1, round, 3));
    }
    assert_eq!(machine.raft.compactable_index(), second.last.index, "server 3 has been silent for 10 s");
}

#[test]
fn r6_a_transfer_goes_on_where_the_follower_says_unless_it_says_so_late() {
    let config = Config { log_memory_bytes: 1, snapshot_chunk_bytes: 2, ..Config::default() };
    let mut machine = Machine::leader(config, 3, 0, 0, &[]);
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    propose(&mut machine).unwrap();
    machine.persist();
    machine.hear(2, durable(1, 1, 2));
    let meta = SnapshotMeta { size: 8, ..machine.raft.snapshot_point() };
    machine.input(Input::SnapshotPublished { meta: meta.clone() });
    machine.pass(50);
    let outcome = AppendOutcome::Mismatch { prev: id(1, 1), hint: EntryId::ZERO };
    machine.hear(
        3,
        PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term: Term(1),
            round: Round(2),
            room: true,
            abstains: false,
            outcome,
        }),
    );
    machine.input(Input::Fetched { to: server(3), from: Index(1), entries: None });
    let last = meta.last;
    let read = |offset| Output::ReadChunk { to: server(3), meta: meta.clone(), offset, bytes: 2 };
    let data = Some(Bytes::from_static(b"ab"));
    machine.input(Input::ChunkRead { to: server(3), last, offset: 0, data: data.clone() });
    let sent_in = machine.raft.round();
    let answer = |round, offset| {
        let outcome = InstallOutcome::Next(offset);
        let reply = InstallSnapshotReply { term: Term(1), round, last, outcome };
        Input::Received { from: server(3), message: PeerMessage::InstallSnapshotReply(reply) }
    };
    let late = Round(sent_in.0 - 1);
    assert_eq!(machine.input(answer(late, 6)), [], "it had not received this chunk");
    assert_eq!(machine.input(answer(sent_in, 6)), [read(6)], "it has more, from an attempt before this one");
    machine.input(Input::ChunkRead { to: server(3), last, offset: 6, data });
    assert_eq!(machine.input(answer(sent_in, 2)), [], "it may have said so before");
    machine.pass(50);
    assert!(machine.input(answer(machine.raft.round(), 2)).contains(&read(2)), "it has begun anew");
}

// R6: snapshots.

fn chunk(term: u64, last: EntryId, offset: u64, data: &'static [u8], done: bool) -> PeerMessage {
    let meta = SnapshotMeta {
        last,
        time: ClusterTime(77),
        configuration: configuration(3, 0),
        size: 4,
        checksum: 0,
    };
    let data = Bytes::from_static(data);
    let (time, round) = (ClusterTime(80), Round(1));
    PeerMessage::InstallSnapshot(InstallSnapshot { term: Term(term), meta, offset, data, done, time, round })
}

fn install_outcomes(messages: &[PeerMessage]) -> Vec<InstallOutcome> {
    let replies = messages.iter().filter_map(|message| match message {
        PeerMessage::InstallSnapshotReply(reply) => Some(reply.outcome.clone()),
        _ => None,
    });
    replies.collect()
}

/// A follower that has the whole of snapshot 9@2 and is putting it in place.
fn installing(terms: &[u64]) -> Machine {
    let mut machine = Machine::follower(3, terms);
    let last = id(2, 9);
    machine.hear(2, chunk(3, last, 0, b"ab", false));
    let next = said(&machine.input(Input::ChunkWritten { last, outcome: ChunkOutcome::Next(2) }));
    assert_eq!(install_outcomes(&next), [InstallOutcome::Next(2)]);
    machine.hear(2, chunk(3, last, 2, b"cd", true));
    let whole = machine.input(Input::ChunkWritten { last, outcome: ChunkOutcome::Whole });
    assert!(matches!(&whole[..], [Output::Install { meta }] if meta.last == last));
    machine
}

#[test]
fn r6_a_snapshot_replaces_a_log_that_does_not_hold_its_last_entry() {
    for terms in [&[1, 1][..], &[1; 12]] {
        let mut machine = installing(terms);
        let replies = said(&machine.input(Input::Installed { last: id(2, 9) }));
        assert_eq!(install_outcomes(&replies), [InstallOutcome::Installed]);
        let raft = &machine.raft;
        assert_eq!((raft.last(), raft.commit_index(), raft.applied_index()), (id(2, 9), Index(9), Index(9)));
        let heard = ClusterTime(80.max(terms.len() as u64 * 10));
        assert_eq!((raft.snapshot_index(), raft.cluster_time(machine.now)), (Index(9), heard));
        assert_eq!(machine.write.as_ref().unwrap().1.truncate_after, Some(id(2, 9)));
        machine.hear(2, append(3, id(2, 9), vec![entry(3, 10)], 10));
        assert_eq!(machine.raft.commit_index(), Index(10));
    }
}

#[test]
fn r6_entries_behind_a_snapshot_that_agrees_are_kept() {
    let mut machine = installing(&[1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]);
    machine.input(Input::Installed { last: id(2, 9) });
    assert_eq!((machine.raft.last(), machine.raft.durable_index()), (id(2, 11), Index(11)));
    assert!(machine.write.is_none());
}

#[test]
fn r6_no_commit_and_no_campaign_while_a_snapshot_is_put_in_place() {
    let mut machine = installing(&[1, 1]);
    machine.persist();
    assert!(machine.raft.is_installing());
    machine.hear(2, append(3, id(1, 1), vec![], 1));
    assert_eq!(machine.raft.commit_index(), Index(0));
    machine.pass(700);
    machine.pass(700);
    assert_eq!((machine.raft.role(), machine.raft.leader()), (Role::Follower, None));
    machine.input(Input::Installed { last: id(2, 9) });
    machine.persist();
    machine.pass(700);
    assert_eq!(machine.raft.role(), Role::PreCandidate);
}

#[test]
fn r6_a_snapshot_that_stalls_does_not_keep_a_server_from_campaigning() {
    let mut machine = Machine::follower(3, &[]);
    machine.hear(2, chunk(3, id(2, 9), 0, b"ab", false));
    machine.pass(700);
    assert_eq!(machine.raft.role(), Role::PreCandidate);
    let outputs = machine.input(Input::ChunkWritten { last: id(2, 9), outcome: ChunkOutcome::Whole });
    assert_eq!(outputs, [], "it was given up");
    assert!(!machine.raft.is_installing());
}

#[test]
fn r6_a_log_that_reached_the_snapshot_by_itself_goes_on_without_it() {
    let mut machine = Machine::follower(3, &[1, 1]);
    let last = id(2, 9);
    machine.hear(2, chunk(3, last, 0, b"ab", false));
    machine.input(Input::ChunkWritten { last, outcome: ChunkOutcome::Next(2) });
    // A late acknowledgement told the leader that entries do: no further chunk comes.
    let rest = [1, 1, 1, 1, 1, 1, 2, 3].into_iter().zip(3..).map(|(term, index)| entry(term, index));
    machine.hear(2, append(3, id(1, 2), rest.collect(), 10));
    assert!(!machine.raft.is_installing());
    assert_eq!(machine.raft.commit_index(), Index(10));
}

#[test]
fn r6_chunks_out_of_place_and_bad_ones_begin_again() {
    let mut machine = Machine::follower(3, &[]);
    let last = id(2, 9);
    assert_eq!(install_outcomes(&machine.hear(2, chunk(3, last, 2, b"cd", true))), [InstallOutcome::Restart]);
    machine.hear(2, chunk(3, last, 0, b"ab", false));
    let again = machine.hear(2, chunk(3, last, 0, b"ab", false));
    assert_eq!(install_outcomes(&again), [], "it is being written");
    let written = said(&machine.input(Input::ChunkWritten { last, outcome: ChunkOutcome::Next(2) }));
    assert_eq!(install_outcomes(&written), [InstallOutcome::Next(2)]);
    assert_eq!(
        install_outcomes(&machine.hear(2, chunk(3, last, 1, b"bcd", true))),
        [InstallOutcome::Next(2)]
    );
    assert_eq!(
        install_outcomes(&machine.hear(2, chunk(3, last, 0, b"ab", false))),
        [InstallOutcome::Next(2)],
        "a copy of the first chunk that comes late does not begin anew"
    );
    machine.hear(2, chunk(3, last, 2, b"cd", true));
    let bad = said(&machine.input(Input::ChunkWritten { last, outcome: ChunkOutcome::Bad }));
    assert_eq!(install_outcomes(&bad), [InstallOutcome::Restart]);
}

#[test]
fn r6_a_snapshot_that_says_nothing_new_is_not_installed() {
    let mut machine = Machine::follower(3, &[1, 2, 2]);
    machine.hear(2, append(3, id(2, 3), vec![], 3));
    let outputs =
        machine.input(Input::Received { from: server(2), message: chunk(3, id(2, 2), 0, b"abcd", true) });
    assert_eq!(install_outcomes(&said(&outputs)), [InstallOutcome::Installed]);
    assert!(!outputs.iter().any(|output| matches!(output, Output::WriteChunk { .. })));
}

#[test]
fn r6_after_a_crash_between_publishing_and_resetting_the_log_it_goes_on_behind_the_snapshot() {
    let meta = SnapshotMeta {
        last: id(2, 9),
        time: ClusterTime(77),
        configuration: configuration(3, 0),
        size: 0,
        checksum: 0,
    };
    let hard_state = HardState { term: Term(3), voted_for: None };
    let snapshot = Some(meta);
    let configuration = configuration(3, 0);
    let recovered = Recovered { hard_state, configuration, snapshot, entries: vec![], abstention: None };
    let mut machine = Machine::recovered(Config::default(), 1, recovered);
    machine.hear(2, append(3, id(2, 9), vec![entry(3, 10)], 10));
    let batch = machine.write.as_ref().unwrap().1.clone();
    assert_eq!((batch.truncate_after, batch.entries), (Some(id(2, 9)), vec![entry(3, 10)]));
    assert_eq!(machine.raft.commit_index(), Index(10));
}

// R8: decisions belong to a term.

#[test]
fn r8_a_decision_of_another_term_is_refused() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 4, &[]);
    let now = machine.now;
    let propose =
        |raft: &mut Raft, term| raft.propose(now, EntryKind::Session, Bytes::new(), Some(Term(term)));
    assert_eq!(propose(&mut machine.raft, 4), Err(Refused::StaleTerm));
    assert_eq!(propose(&mut machine.raft, 5), Ok(id(5, 2)));
    let mut follower = Machine::follower(5, &[]);
    assert_eq!(propose(&mut follower.raft, 5), Err(Refused::NotLeader { leader: None }));
}

// Q3: reads.

#[test]
fn q3_a_read_waits_for_the_first_entry_of_the_term_and_for_a_round_begun_afterwards() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.raft.read(machine.now, 7).unwrap();
    machine.drain();
    machine.hear(2, durable(1, 1, 0));
    machine.persist();
    assert_eq!(machine.raft.marks().read_waited_for_own_term, 1);
    machine.outputs.clear();
    machine.hear(2, durable(1, 1, 1));
    assert_eq!(machine.raft.round(), Round(2), "begun when the entry was committed");
    assert!(!machine.outputs.iter().any(|output| matches!(output, Output::ReadsReady { .. })));
    let outputs = machine.input(Input::Received { from: server(3), message: durable(1, 2, 0) });
    let ready = Output::ReadsReady { reads: vec![7], index: Index(1), lease: false };
    let confirmed = Output::RoundConfirmed { term: Term(1), round: Round(2) };
    assert_eq!(outputs[..2], [confirmed, ready]);
}

#[test]
fn q3_reads_of_one_drain_share_a_round_and_an_older_answer_confirms_none() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.persist();
    machine.hear(2, durable(1, 1, 1));
    (1..=3).for_each(|read| machine.raft.read(machine.now, read).unwrap());
    machine.drain();
    assert_eq!(machine.raft.counters().read_rounds, 1);
    machine.hear(2, durable(1, 1, 1));
    machine.hear(3, durable(1, 99, 1));
    assert_eq!(machine.raft.counters().reads_confirmed, 0, "an old round, and one that was never begun");
    machine.hear(3, durable(1, machine.raft.round().0, 1));
    assert_eq!(machine.raft.counters().reads_confirmed, 3);
}

#[test]
fn q3_reads_of_a_deposed_leader_fail() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.raft.read(machine.now, 1).unwrap();
    machine.drain();
    let outputs =
        machine.input(Input::Received { from: server(2), message: append(2, EntryId::ZERO, vec![], 0) });
    assert!(outputs.contains(&Output::ReadsFailed { reads: vec![1] }));
    assert_eq!(machine.raft.read(machine.now, 2), Err(Refused::NotLeader { leader: Some(server(2)) }));
}

#[test]
fn q4_a_follower_is_fresh_while_it_hears_the_leader_and_has_applied_its_commit_index() {
    let mut machine = Machine::follower(1, &[]);
    let age = Duration::from_millis(100);
    machine.hear(2, append(1, EntryId::ZERO, vec![entry(1, 1)], 2));
    assert!(!machine.raft.is_fresh(machine.now, age), "2 is not here");
    machine.hear(2, append(1, id(1, 1), vec![entry(1, 2)], 2));
    assert!(machine.raft.is_fresh(machine.now, age));
    machine.pass(101);
    assert!(!machine.raft.is_fresh(machine.now, age));
}

// T1: cluster time.

#[test]
fn t1_a_new_leader_starts_from_the_latest_time_it_knows() {
    // The last entry, not committed, is of time 20.
    let machine = Machine::leader(Config::default(), 3, 0, 1, &[1, 1]);
    assert_eq!(machine.raft.entry(Index(3)).unwrap().time, ClusterTime(20));
    // A heartbeat said 1000.
    let mut machine = Machine::follower(1, &[1, 1]);
    machine.hear(2, append(1, id(1, 2), vec![], 0));
    machine.campaign();
    machine.persist();
    let reply = RequestVoteReply { term: Term(2), asked: Term(2), granted: true };
    machine.hear(2, PeerMessage::RequestVoteReply(reply));
    assert_eq!(machine.raft.entry(Index(3)).unwrap().time, ClusterTime(1_000));
    machine.pass(40);
    propose(&mut machine).unwrap();
    assert_eq!(machine.raft.entry(Index(4)).unwrap().time, ClusterTime(1_040));
}

// §10.2 and bad peers.

#[test]
fn late_answers_are_harmless() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 4, &[1, 2]);
    machine.persist();
    machine.hear(2, durable(3, 1, 3));
    assert_eq!(machine.raft.commit_index(), Index(0), "an answer of another term");
    machine.hear(2, durable(5, 1, 9));
    assert_eq!(machine.raft.commit_index(), Index(0), "more than was ever sent");
    let outcome = AppendOutcome::Mismatch { prev: id(2, 1), hint: EntryId::ZERO };
    let reply = AppendEntriesReply { term: Term(5), round: Round(1), room: true, abstains: false, outcome };
    assert_eq!(
        machine.hear(2, PeerMessage::AppendEntriesReply(reply)),
        [],
        "for nothing that is outstanding"
    );
    machine.hear(2, durable(5, 1, 3));
    assert_eq!(machine.raft.commit_index(), Index(3));
}

#[test]
fn absurd_messages_are_ignored() {
    let max = id(u64::MAX, u64::MAX);
    let absurd = [
        append(3, id(1, 1), vec![entry(1, 3)], 0),
        append(3, id(1, 1), vec![entry(2, 2), entry(1, 3)], 0),
        append(3, id(1, 1), vec![entry(4, 2)], 0),
        append(3, id(0, 1), vec![], 0),
        append(3, id(1, 0), vec![], 0),
        append(3, id(3, u64::MAX), vec![], u64::MAX),
        append(3, id(3, u64::MAX), vec![entry(3, u64::MAX)], u64::MAX),
        append(u64::MAX, max, vec![], u64::MAX),
        append((1 << 33) + 3, id(1, 1), vec![], 0),
        request_vote(u64::MAX, max),
        pre_vote(u64::MAX, max),
        durable(u64::MAX, u64::MAX, u64::MAX),
        chunk(3, id(3, u64::MAX), 0, b"abcd", true),
        chunk(3, id(2, 9), u64::MAX, b"abcd", true),
        chunk(3, id(2, 9), 0, b"abcd", false),
        chunk(3, id(9, 9), 0, b"abcd", true),
        PeerMessage::TimeoutNow(TimeoutNow { term: Term(3), round: Round(u64::MAX) }),
    ];
    for message in absurd {
        let mut follower = Machine::follower(3, &[1]);
        let said = follower.hear(2, message.clone());
        assert_eq!(said, [], "{message:?}");
        assert_eq!(
            (follower.terms(), follower.raft.term(), follower.raft.commit_index()),
            (vec![1], Term(3), Index(0))
        );
        let mut leader = Machine::leader(Config::default(), 3, 0, 2, &[1]);
        leader.hear(2, message.clone());
        assert_eq!((leader.raft.role(), leader.raft.commit_index()), (Role::Leader, Index(0)), "{message:?}");
        for stranger in [1, 9] {
            let mut follower = Machine::follower(3, &[1]);
            assert_eq!(follower.hear(stranger, append(3, id(1, 1), vec![entry(3, 2)], 1)), []);
            assert_eq!((follower.terms(), follower.raft.leader()), (vec![1], None));
        }
    }
}

#[test]
fn a_second_leader_of_one_term_is_ignored() {
    let mut machine = Machine::follower(3, &[]);
    machine.hear(2, append(3, EntryId::ZERO, vec![entry(3, 1)], 0));
    machine.hear(3, append(3, EntryId::ZERO, vec![entry(2, 1)], 1));
    assert_eq!((machine.terms(), machine.raft.leader()), (vec![3], Some(server(2))));
    let mut leader = Machine::leader(Config::default(), 3, 0, 2, &[]);
    leader.hear(3, append(3, EntryId::ZERO, vec![entry(2, 1)], 1));
    assert_eq!((leader.raft.role(), leader.terms()), (Role::Leader, vec![3]));
}

#[test]
#[should_panic(expected = "server 1 term 3 index 1: a leader contradicts an entry that is committed here")]
fn committed_entries_are_never_truncated() {
    let mut machine = Machine::follower(2, &[]);
    machine.hear(2, append(2, EntryId::ZERO, vec![entry(2, 1)], 1));
    machine.hear(3, append(3, EntryId::ZERO, vec![entry(3, 1)], 0));
}

#[test]
fn timeout_now_of_the_leader_campaigns_without_a_pre_vote() {
    let mut machine = Machine::follower(3, &[]);
    let message = PeerMessage::TimeoutNow(TimeoutNow { term: Term(3), round: Round(4) });
    machine.hear(2, append(3, EntryId::ZERO, vec![], 0));
    machine.hear(3, message.clone());
    assert_eq!(machine.raft.role(), Role::Follower);
    machine.hear(2, message);
    let asked = machine.persist();
    assert!(
        matches!(&asked[0], PeerMessage::RequestVote(m) if m.term == Term(4) && m.transfer == Some(Round(4)))
    );
}

#[test]
fn settings_are_validated() {
    let broken = Config { heartbeat: Duration::from_millis(200), ..Config::default() };
    assert!(broken.validate().is_err());
    let range = (Duration::from_millis(300), Duration::from_millis(300));
    assert!(Config { election_timeout: range, ..Config::default() }.validate().is_err());
    assert!(Config { append_bytes: 0, ..Config::default() }.validate().is_err());
    assert_eq!(Config::default().validate(), Ok(()));
}
