//! A server whose log was damaged, by itself: what it does not do, and when that ends (D4).

use atomix_protocol::peer::{
    AppendEntries, AppendOutcome, InstallSnapshot, PeerMessage, RequestVote, SnapshotMeta, TimeoutNow,
};
use atomix_protocol::{ClusterTime, Configuration, EntryId, HardState, Index, MemberKind, Round, Term};
use atomix_raft::{ChunkOutcome, Config, Input, Recovered, Role};
use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::*;
use bytes::Bytes;

/// Of three voters, in term 2, with these entries left of what once reached to `until`.
fn damaged(until: u64, terms: &[u64]) -> Machine {
    recovered(until, terms, configuration(3, 0))
}

fn recovered(until: u64, terms: &[u64], configuration: Configuration) -> Machine {
    let hard_state = HardState { term: Term(2), voted_for: None };
    let (entries, abstention) = (log(terms), Some(Index(until)));
    let recovered = Recovered { hard_state, configuration, snapshot: None, entries, abstention };
    Machine::recovered(Config::default(), 1, recovered)
}

/// From the leader of this term, whose log ends with `last`: entries of these terms behind `prev`, and how far they are committed.
fn send(term: u64, prev: EntryId, terms: &[u64], commit: u64, last: u64) -> PeerMessage {
    let entries = terms.iter().zip(prev.index.0 + 1..).map(|(term, index)| entry(*term, index)).collect();
    let PeerMessage::AppendEntries(message) = append(term, prev, entries, commit) else { unreachable!() };
    PeerMessage::AppendEntries(AppendEntries { last_index: Index(last), ..message })
}

/// Whether the write that is under way ends the abstention.
fn ends(machine: &Machine) -> bool {
    machine.write.as_ref().is_some_and(|(_, batch)| batch.abstention == Some(None))
}

/// Lets the disk come to rest. Whether it abstains still.
fn settled(machine: &mut Machine) -> bool {
    while machine.write.is_some() {
        machine.persist();
    }
    machine.raft.abstains_until().is_some()
}

fn is_silent(said: &[PeerMessage]) -> bool {
    !said.iter().any(|m| matches!(m, PeerMessage::PreVote(_) | PeerMessage::RequestVote(_)))
}

#[test]
fn d4_it_gives_nobody_its_vote_and_says_no() {
    let mut machine = damaged(5, &[1, 1]);
    assert_eq!(machine.raft.abstains_until(), Some(Index(5)));
    let reply = pre_vote_reply(&machine.hear(2, pre_vote(3, id(2, 9))));
    assert!(!reply.granted && !reply.sticky);
    let ordinary = request_vote(3, id(2, 9));
    let transfer = RequestVote { term: Term(4), last: id(2, 9), transfer: Some(Round(7)) };
    for (term, request) in [(3, ordinary), (4, PeerMessage::RequestVote(transfer))] {
        let mut said = machine.hear(2, request);
        said.extend(machine.persist());
        assert_eq!(vote(&said), Some(false));
        assert_eq!((machine.raft.term(), machine.raft.hard_state().voted_for), (Term(term), None));
    }
    assert_eq!(machine.raft.marks().vote_abstained, 3);
}

#[test]
fn d4_it_campaigns_for_no_reason() {
    let mut machine = damaged(5, &[1, 1]);
    for _ in 0..50 {
        assert!(is_silent(&said(&machine.pass(700))));
    }
    machine.hear(2, send(2, EntryId::ZERO, &[], 0, 9));
    let timeout = PeerMessage::TimeoutNow(TimeoutNow { term: Term(2), round: Round(1) });
    assert!(is_silent(&machine.hear(2, timeout)));
    machine.input(Input::LinkClosed { from: server(2) });
    for _ in 0..50 {
        assert!(is_silent(&said(&machine.pass(5))));
    }
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::Follower, Term(2)));
    assert!(machine.raft.next_deadline().is_some_and(|at| at > machine.now), "nor is it busy with that");
}

#[test]
fn d4_alone_it_never_leads() {
    let mut machine = recovered(5, &[1, 1], configuration(1, 0));
    for _ in 0..50 {
        assert!(is_silent(&said(&machine.pass(700))));
    }
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::Follower, Term(2)));
}

/// It acknowledges what is durable now, however much it acknowledged before, and answers rounds.
#[test]
fn d4_it_acknowledges_what_it_has_now() {
    let mut machine = damaged(5, &[1, 1]);
    let replies = append_replies(&machine.hear(2, send(2, id(2, 5), &[], 5, 6)));
    assert_eq!(replies[0].outcome, AppendOutcome::Mismatch { prev: id(2, 5), hint: id(1, 2) });
    assert!(replies[0].abstains && replies[0].round == Round(1));
    let replies = append_replies(&machine.hear(2, send(2, id(1, 2), &[2], 5, 6)));
    assert!(replies.is_empty(), "entries are acknowledged when they are durable");
    let heartbeat = append_replies(&machine.hear(2, send(2, id(2, 3), &[], 5, 6)));
    assert_eq!(heartbeat[0].outcome, AppendOutcome::Durable(Index(2)));
    let replies = append_replies(&machine.persist());
    assert_eq!(replies[0].outcome, AppendOutcome::Durable(Index(3)));
    assert_eq!(machine.raft.commit_index(), Index(3), "what is committed is applied as ever");
}

#[test]
fn d4_it_ends_when_the_log_is_whole_and_the_leader_has_committed_an_entry_of_its_own() {
    // Left of the log: entries 1 and 2 of term 1. What was there reached to `until`; the leader's log is as long as `last`. It
    // sends these, and `commit`.
    for (until, last, terms, commit, ended) in [
        (5, 5, &[2, 2, 2][..], 5, true),
        (5, 5, &[2, 2, 2], 3, true),
        (5, 5, &[2, 2, 2], 2, false), // nothing of its own is committed
        (5, 5, &[1, 1, 2], 4, false), // nor here
        (5, 5, &[1, 1, 2], 5, true),
        (5, 5, &[2, 2], 4, false), // entry 5 is missing
        (5, 9, &[2, 2, 2], 5, true),
        (5, 4, &[2, 2], 4, true), // the leader never had it: it was not committed
        (9, 5, &[2, 2, 2], 5, true),
        (9, 6, &[2, 2, 2], 5, false),
        (3, 9, &[2], 3, true),
    ] {
        let case = format!("until {until}, last {last}, {terms:?}, commit {commit}");
        let mut machine = damaged(until, &[1, 1]);
        machine.hear(2, send(2, id(1, 2), terms, commit, last));
        assert!(!ends(&machine), "{case}: the entries are not durable yet");
        assert_eq!(settled(&mut machine), !ended, "{case}");
        assert_eq!(machine.raft.marks().abstention_ended, u64::from(ended));
        let granted = vote(&{
            machine.pass(700);
            let mut said = machine.hear(3, request_vote(3, id(2, 20)));
            said.extend(machine.persist());
            said
        });
        assert_eq!(granted, Some(ended), "{case}");
        assert_eq!(machine.restart().raft.abstains_until().is_none(), ended, "{case}: the disk knows");
    }
}

/// What is left is all that there is to have, and it is known to be committed: nothing needs to be sent.
#[test]
fn d4_it_ends_without_an_entry_if_none_is_missing() {
    let mut machine = damaged(9, &[1, 2]);
    machine.hear(2, send(2, EntryId::ZERO, &[], 2, 2));
    assert!(!ends(&machine), "whether the logs agree is not known");
    machine.hear(2, send(2, id(2, 2), &[], 2, 2));
    assert!(ends(&machine));
    assert!(!settled(&mut machine));
}

#[test]
fn d4_it_votes_only_once_the_end_is_durable() {
    let mut machine = damaged(3, &[1, 2]);
    machine.hear(2, send(2, id(2, 2), &[2], 3, 3));
    machine.persist();
    assert!(ends(&machine) && machine.raft.abstains_until().is_some());
    machine.pass(700);
    assert_eq!(machine.raft.role(), Role::Follower);
    let reply = pre_vote_reply(&machine.hear(3, pre_vote(3, id(2, 3))));
    assert!(!reply.granted);
    let mut machine = machine.restart();
    assert_eq!(machine.raft.abstains_until(), Some(Index(3)), "the write was lost");
    machine.hear(2, send(2, id(2, 3), &[], 3, 3));
    assert!(ends(&machine), "and is made again");
    machine.persist();
    machine.pass(700);
    assert_eq!(machine.raft.role(), Role::PreCandidate);
    assert!(machine.restart().raft.abstains_until().is_none());
}

/// What the leader says later of its log counts too: it may have committed more by then, with an earlier acknowledgement.
#[test]
fn d4_the_leader_says_how_far_its_log_reaches_with_each_message() {
    let mut machine = damaged(9, &[1, 2]);
    machine.hear(2, send(2, id(2, 2), &[], 1, 2));
    assert!(!ends(&machine), "entry 2 is not committed");
    machine.hear(2, send(2, id(2, 2), &[], 2, 6));
    assert!(!ends(&machine), "there is more by now");
    machine.hear(2, send(2, id(2, 2), &[2, 2, 2, 2], 2, 4));
    assert!(!settled(&mut machine), "a leader's log grows only, and that is all of it");
}

/// The disk is busy when everything is there; before it is free, the next term begins.
#[test]
fn d4_another_leader_is_judged_anew() {
    let mut machine = damaged(4, &[1, 2]);
    machine.hear(2, send(2, id(2, 2), &[2, 2], 4, 4));
    let (_, writing) = machine.write.clone().unwrap();
    assert_eq!(writing.entries.len(), 2);
    // Server 3 leads term 3, with a longer log. Nothing of that is committed yet.
    machine.hear(3, send(3, id(2, 4), &[3], 4, 6));
    assert!(settled(&mut machine));
    machine.hear(3, send(3, id(3, 5), &[3], 4, 6));
    assert!(settled(&mut machine), "no entry of term 3 is committed");
    machine.hear(3, send(3, id(3, 6), &[], 5, 6));
    assert!(!settled(&mut machine));
}

/// A suffix that contradicts the leader's goes like any other, and does not count before that.
#[test]
fn d4_a_suffix_that_contradicts_the_leader_is_not_whole() {
    let mut machine = damaged(6, &[1, 1, 1, 1]);
    machine.hear(2, send(2, id(1, 2), &[], 0, 4));
    assert!(settled(&mut machine));
    machine.hear(2, send(2, id(1, 2), &[2, 2], 4, 4));
    assert!(!ends(&machine), "the new suffix is not durable");
    assert!(!settled(&mut machine));
    assert_eq!(machine.terms(), [1, 1, 2, 2]);
}

fn with_snapshot(hard_term: u64, last: EntryId, until: u64) -> Machine {
    let meta = SnapshotMeta {
        last,
        time: ClusterTime(30),
        configuration: configuration(3, 0),
        size: 0,
        checksum: 0,
    };
    let hard_state = HardState { term: Term(hard_term), voted_for: None };
    let (snapshot, abstention) = (Some(meta), Some(Index(until)));
    let recovered =
        Recovered { hard_state, configuration: configuration(3, 0), snapshot, entries: vec![], abstention };
    Machine::recovered(Config::default(), 1, recovered)
}

/// The snapshot shows a term that the hard state does not, and with it that an entry of its leader is committed.
#[test]
fn d4_a_snapshot_of_the_leaders_term_shows_that_it_has_committed_something() {
    for (snapshot_term, ended) in [(3, true), (2, false)] {
        let mut machine = with_snapshot(2, id(snapshot_term, 5), 8);
        assert_eq!(machine.raft.term(), Term(snapshot_term));
        machine.hear(2, send(3, id(snapshot_term, 5), &[3, 3], 5, 7));
        assert_eq!(settled(&mut machine), !ended, "a snapshot of term {snapshot_term}");
        machine.hear(2, send(3, id(3, 7), &[], 6, 7));
        assert!(!settled(&mut machine));
    }
}

/// A snapshot says nothing of how far the leader's log reaches: more may be committed that was acknowledged here.
#[test]
fn d4_a_snapshot_that_is_installed_is_not_the_end() {
    let mut machine = damaged(10, &[1, 1]);
    let (last, time) = (id(2, 8), ClusterTime(80));
    let meta = SnapshotMeta { last, time, configuration: configuration(3, 0), size: 2, checksum: 0 };
    let (term, data, round) = (Term(2), Bytes::from_static(b"ab"), Round(1));
    let chunk = InstallSnapshot { term, meta, offset: 0, data, done: true, time, round };
    machine.hear(2, PeerMessage::InstallSnapshot(chunk));
    machine.input(Input::ChunkWritten { last, outcome: ChunkOutcome::Whole });
    machine.input(Input::Installed { last });
    assert_eq!((machine.raft.commit_index(), machine.raft.durable_index()), (Index(8), Index(8)));
    assert!(settled(&mut machine), "nobody has said that this is all");
    machine.hear(2, send(2, last, &[], 10, 10));
    assert!(settled(&mut machine), "there is more");
    machine.hear(2, send(2, last, &[2, 2], 10, 10));
    assert!(!settled(&mut machine));
}

/// A learner abstains too, and comes back: it may be given the vote some day.
#[test]
fn d4_a_learner_is_repaired_like_a_voter() {
    let mut configuration = configuration(3, 0);
    configuration.members[0].kind = MemberKind::Learner;
    let mut machine = recovered(4, &[1], configuration);
    machine.hear(2, send(2, id(1, 1), &[2, 2, 2], 3, 4));
    assert!(!settled(&mut machine));
}
