//! Handing leadership over (§3.10), because somebody asked for it or because another has priority. One test per rule,
//! and one per bug that others had, named after what broke.

use atomix_protocol::change::TransferRefused;
use atomix_protocol::peer::{AppendEntries, PeerMessage, PreVote, TimeoutNow};
use atomix_protocol::{Address, ClusterTime, EntryId, EntryKind, Index, MemberKind, Round, ServerId, Term};
use atomix_raft::{Config, Input, Raft, Refused, Role};
use atomix_testkit::scenario::Running;
use bytes::Bytes;

use crate::single::Single;
use crate::{led, role, term, three, told_to_campaign};

#[test]
fn the_server_named_takes_over_at_once() {
    let mut running = three();
    let before = term(&running, 1);
    assert_eq!(running.transfer(1, Some(3)), Ok(ServerId(3)));
    running.run(5);
    assert_eq!(running.leader(), Some(3));
    assert_eq!((role(&running, 1), term(&running, 1)), (Role::Follower, before.next()));
    assert!(running.raft(3).expect("it is up").is_established());
    assert_eq!((running.failed_transfers(), running.verdict()), (&[][..], Ok(())));
}

#[test]
fn who_is_not_named_is_the_best_placed() {
    // Of those that answer the highest priority, of those the furthest log.
    for (priorities, silent, expected) in
        [(&[0, 1, 2, 2][..], 0, 3), (&[0, 1, 2, 2], 3, 4), (&[9, 1, 1, 0], 2, 3), (&[0, 0, 0, 0], 0, 2)]
    {
        let mut running = led(Running::new(4, priorities, Config::default()));
        if silent > 0 {
            running.isolate(silent);
            running.run(400);
        }
        assert_eq!(running.transfer(1, None), Ok(ServerId(expected)), "{priorities:?}, {silent} is silent");
    }
    let mut running = three();
    running.hang(2, true);
    running.propose(1).unwrap();
    running.run(100);
    assert_eq!(running.transfer(1, None), Ok(ServerId(3)), "2 holds less");
}

#[test]
fn what_can_not_be_handed_over_is_refused() {
    let mut running = three();
    let address = Some(Address::new("1"));
    assert_eq!(running.transfer(2, None), Err(TransferRefused::NotLeader { leader: address }));
    assert_eq!(running.transfer(1, Some(1)), Err(TransferRefused::NotATarget(ServerId(1))));
    assert_eq!(running.transfer(1, Some(9)), Err(TransferRefused::NotATarget(ServerId(9))));
    running.isolate(3);
    running.run(400);
    assert_eq!(running.transfer(1, Some(3)), Err(TransferRefused::Nobody), "it does not answer");
    running.hang(2, true);
    running.propose(1).unwrap();
    assert_eq!(running.transfer(1, Some(2)), Ok(ServerId(2)));
    assert_eq!(running.transfer(1, Some(2)), Err(TransferRefused::Pending));
    assert_eq!(running.transfer(1, None), Err(TransferRefused::Pending));
    let mut alone = Running::new(1, &[], Config::default());
    alone.elect();
    assert_eq!(alone.transfer(1, None), Err(TransferRefused::Nobody));
}

#[test]
fn m15_the_target_holds_the_whole_log_durably_first() {
    let mut running = three();
    running.hang(3, true);
    let last = running.propose(1).unwrap().index;
    running.run(20);
    assert_eq!(running.raft(3).map(Raft::last).map(|id| id.index), Some(last), "it has received it");
    running.transfer(1, Some(3)).unwrap();
    running.run(300);
    assert_eq!((told_to_campaign(&mut running), running.leader()), (vec![], Some(1)));
    running.hang(3, false);
    running.run(5);
    assert_eq!((told_to_campaign(&mut running), running.leader()), (vec![3], Some(3)));
}

#[test]
fn timeout_now_is_repeated_with_the_heartbeats_and_names_the_last_round() {
    let mut running = three();
    running.hold(1, 3);
    running.transfer(1, Some(3)).unwrap();
    running.run(300);
    let sent = running.take_sent();
    let named: Vec<Round> = sent
        .iter()
        .filter_map(|(_, to, message)| match message {
            PeerMessage::TimeoutNow(message) if *to == 3 => Some(message.round),
            _ => None,
        })
        .collect();
    assert!((5..=8).contains(&named.len()) && named.is_sorted_by(|a, b| a < b), "{named:?}");
    assert_eq!(named.last(), running.raft(1).map(Raft::round).as_ref());
    running.release(1, 3);
    running.run(5);
    assert_eq!((running.leader(), running.verdict()), (Some(3), Ok(())), "and one of them is enough");
}

/// hashicorp/raft#581: a leader that was handing over took writes all the same, and its target lagged for ever.
#[test]
fn hashicorp_raft_581_writes_during_a_transfer() {
    let mut running = three();
    running.hang(3, true);
    running.propose(1).unwrap();
    running.transfer(1, Some(3)).unwrap();
    for _ in 0..50 {
        running.run(5);
        assert_eq!(running.propose(1), Err(Refused::HandingOver));
    }
    running.hang(3, false);
    running.run(5);
    assert_eq!(running.leader(), Some(3));
    assert!(running.propose(3).is_ok());
    assert!(matches!(running.propose(1), Err(Refused::NotLeader { leader: Some(ServerId(3)) })));
}

/// databendlabs/openraft#1747: the target never took over, the transfer never ended, and reads went on; so nothing
/// was written any more, and nobody else was elected.
#[test]
fn openraft_1747_a_transfer_that_never_ends() {
    let mut running = three();
    running.isolate(3);
    running.transfer(1, Some(3)).unwrap();
    for _ in 0..590 {
        running.run(1);
        running.read(1).unwrap();
        assert_eq!(running.propose(1), Err(Refused::HandingOver));
    }
    running.run(60);
    assert_eq!(running.failed_transfers(), [(1, ServerId(3))]);
    assert!(running.propose(1).is_ok(), "after the longest election timeout it leads on");
    running.run(100);
    assert_eq!((running.leader(), running.verdict()), (Some(1), Ok(())));
    assert_eq!(running.answered().len(), 590, "reads are answered all the time");
    assert_eq!(running.transfer(1, Some(2)), Ok(ServerId(2)), "another may be tried");
    running.run(5);
    assert_eq!(running.leader(), Some(2));
}

/// databendlabs/openraft#1805: the leader had promoted its target, which did not know that yet, was told to campaign,
/// and fell over its own votes.
#[test]
fn openraft_1805_a_target_that_does_not_know_that_it_votes() {
    let mut learner = single(MemberKind::Learner);
    let outputs = learner.hear(1, timeout_now(3, 1));
    assert_eq!((outputs, learner.raft.role(), learner.raft.term()), (vec![], Role::Follower, Term(3)));
}

/// databendlabs/openraft@4490c678: an election on a server that led already.
#[test]
fn m16_a_timeout_now_that_means_nothing_does_nothing() {
    for (from, message) in [
        (1, timeout_now(2, 1)), // of an earlier term
        (2, timeout_now(3, 1)), // of a server that does not lead
        (1, timeout_now(4, 1)), // of a term that nobody leads
    ] {
        let mut machine = single(MemberKind::Voter);
        machine.hear(from, message.clone());
        assert_eq!(
            (machine.raft.role(), machine.raft.term()),
            (Role::Follower, Term(3)),
            "{from} {message:?}"
        );
    }
    let mut machine = single(MemberKind::Voter);
    machine.hear(1, timeout_now(3, 1));
    assert_eq!((machine.raft.role(), machine.raft.term()), (Role::Candidate, Term(4)));
    assert_eq!(machine.hear(1, timeout_now(3, 1)), [], "twice");
    assert_eq!((machine.raft.term(), machine.raft.counters().elections), (Term(4), 1));
    // To a leader, its own and another's.
    let mut running = three();
    let (led, round) = (term(&running, 1), running.raft(1).map_or(Round(0), Raft::round));
    for from in [2, 3] {
        let message = PeerMessage::TimeoutNow(TimeoutNow { term: led, round });
        running.step(1, Input::Received { from: ServerId(from), message });
    }
    running.run(5);
    assert_eq!((running.leader(), term(&running, 1)), (Some(1), led));
}

#[test]
fn m16_a_single_voter_is_elected_once() {
    let mut alone = Running::new(1, &[], Config::default());
    alone.elect();
    alone.run(5_000);
    assert_eq!(alone.raft(1).map(|raft| (raft.term(), raft.counters().elections)), Some((Term(1), 1)));
}

/// canonical/raft#203: the target asked for pre-votes, heard a heartbeat of the leader that had told it to campaign,
/// and gave up.
#[test]
fn canonical_raft_203_a_transfer_needs_no_pre_vote() {
    let mut running = three();
    running.transfer(1, Some(2)).unwrap();
    running.run(60);
    let asked = running.take_sent().into_iter().filter(|(_, _, m)| matches!(m, PeerMessage::PreVote(_)));
    assert_eq!((asked.count(), running.leader()), (0, Some(2)));
}

/// hashicorp/raft#605: a leader that had stepped down was refused by those who still took it for the leader.
#[test]
fn hashicorp_raft_605_the_leader_itself_is_refused_its_pre_vote() {
    let mut machine = single(MemberKind::Voter);
    let last = EntryId::ZERO;
    let reply = |said: Vec<PeerMessage>| match &said[..] {
        [PeerMessage::PreVoteReply(reply)] => reply.granted,
        other => panic!("{other:?}"),
    };
    let ask = |term| PeerMessage::PreVote(PreVote { term: Term(term), last });
    assert!(!reply(machine.hear(2, ask(4))), "it hears a leader");
    assert!(reply(machine.hear(1, ask(4))), "which has given up");
    assert!(!reply(machine.hear(1, ask(3))), "that was said before it led");
}

/// tikv/tikv#9239: a leader to whom leadership had been handed over answered a read as of what was committed before,
/// though the leader before it had answered later ones.
#[test]
fn tikv_9239_a_read_right_after_a_transfer() {
    let mut running = three();
    running.hold(1, 2);
    running.hold(1, 3);
    running.propose(1).unwrap();
    running.run(5);
    running.hold(2, 1);
    running.release(1, 3);
    running.run(2);
    running.propose(1).unwrap();
    running.run(10);
    let committed = running.committed();
    assert_eq!(Some(committed), running.raft(1).map(Raft::last).map(|id| id.index));
    running.hold(1, 2);
    running.transfer(1, Some(3)).unwrap();
    running.cut(1, 2);
    for _ in 0..20 {
        running.run(1);
        let _ = running.read(3);
    }
    running.heal();
    running.run(1_000);
    assert_eq!(running.verdict(), Ok(()));
    assert!(running.answered().len() >= 10);
}

// Priority.

#[test]
fn a_voter_of_greater_priority_that_has_caught_up_takes_over_in_the_end() {
    let mut running = Running::new(3, &[0, 5, 1], Config::default());
    running.elect_first(1);
    running.run(2_500);
    assert_eq!(running.leader(), Some(1), "not as soon as it leads");
    running.run(1_000);
    assert_eq!(running.leader(), Some(2));
    let after = term(&running, 2);
    running.run(30_000);
    assert_eq!((running.leader(), term(&running, 2)), (Some(2), after), "once");
}

#[test]
fn a_voter_that_lags_or_is_silent_gets_no_leadership_for_its_priority() {
    let mut running = Running::new(3, &[0, 5, 0], Config::default());
    running.elect_first(1);
    running.hang(2, true);
    running.propose(1).unwrap();
    running.run(10_000);
    assert_eq!(
        (running.leader(), running.raft(1).map(|raft| raft.marks().hand_over_begun)),
        (Some(1), Some(0))
    );
    running.isolate(2);
    running.hang(2, false);
    running.run(10_000);
    assert_eq!(
        (running.leader(), running.raft(1).map(|raft| raft.marks().hand_over_begun)),
        (Some(1), Some(0))
    );
}

#[test]
fn priority_is_tried_at_a_bounded_rate() {
    // 2 and 3 answer and hold everything, and never campaign.
    let mut leader = Single::new(
        1,
        Config::default(),
        Term(0),
        &[(1, 0), (2, 5), (3, 0)].map(|(id, p)| (id, MemberKind::Voter, p)),
    );
    leader.lead();
    for _ in 0..60_000 / 50 {
        leader.pass(50);
        let last = leader.raft.last().index;
        [2, 3].into_iter().for_each(|from| leader.answer(from, last));
    }
    assert_eq!(leader.raft.role(), Role::Leader);
    let marks = leader.raft.marks();
    assert!((4..=6).contains(&marks.priority_hand_over), "{marks:?}");
    assert_eq!(marks.hand_over_failed, marks.priority_hand_over);
    assert!(
        leader.raft.propose(leader.now, EntryKind::Session, Bytes::new(), None).is_ok(),
        "and it leads on"
    );
}

#[test]
fn leadership_that_was_given_away_is_not_given_back_for_priority() {
    let mut running = Running::new(3, &[5, 0, 0], Config::default());
    running.elect_first(1);
    running.run(100);
    running.transfer(1, Some(2)).unwrap();
    running.run(60_000);
    assert_eq!(running.leader(), Some(2), "an operator wanted it so");
    running.stop(2);
    let next = running.elect();
    running.start(2);
    running.run(10_000);
    assert_eq!((next.is_some(), running.leader()), (true, Some(1)), "until that term is over");
}

fn timeout_now(term: u64, round: u64) -> PeerMessage {
    PeerMessage::TimeoutNow(TimeoutNow { term: Term(term), round: Round(round) })
}

/// Server 3, which follows server 1 in term 3.
fn single(kind: MemberKind) -> Single {
    let members = [(1, MemberKind::Voter, 0), (2, MemberKind::Voter, 0), (3, kind, 0)];
    let mut single = Single::new(3, Config::default(), Term(3), &members);
    // Whatever the process before it may have promised is over (R3).
    single.pass(300);
    let heartbeat = AppendEntries {
        term: Term(3),
        prev: EntryId::ZERO,
        leader_commit: Index(0),
        last_index: Index(0),
        time: ClusterTime(1),
        promise_ms: 0,
        round: Round(1),
        entries: Vec::new(),
    };
    single.hear(1, PeerMessage::AppendEntries(heartbeat));
    single
}
