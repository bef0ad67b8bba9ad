//! Reads by lease, and the promises behind them (R3). One test per part of the rule, and one per bug that others had,
//! named after what broke. What clocks that drift and links that close may do to it is in
//! `testkit::scenario::leadership`.

use std::time::Duration;

use atomix_protocol::peer::*;
use atomix_protocol::{ClusterTime, EntryId, Index, LocalTime, MemberKind, Round, ServerId, Term};
use atomix_raft::{Config, ConfigError, Input, Output, Raft, Role};
use atomix_testkit::scenario::Running;

use crate::single::Single;

const PROMISE: Duration = Duration::from_millis(300);

fn config() -> Config {
    Config { promise: PROMISE, ..Config::default() }
}

fn led(config: Config) -> Running {
    crate::led(Running::new(3, &[], config))
}

fn holds(running: &Running, id: u64) -> bool {
    running.raft(id).is_some_and(|raft| raft.lease_holds(running.local(id)))
}

fn by_lease(running: &Running) -> Vec<bool> {
    running.answered().iter().map(|(_, lease)| *lease).collect()
}

#[test]
fn a_read_by_lease_costs_no_message() {
    let mut running = led(config());
    for _ in 0..100 {
        running.read(1).unwrap();
    }
    assert_eq!((by_lease(&running), running.take_sent()), (vec![true; 100], vec![]));
    assert_eq!(running.raft(1).map(|raft| raft.marks().read_by_lease), Some(100));
}

#[test]
fn without_a_promise_there_is_no_lease() {
    let mut running = led(Config::default());
    running.read(1).unwrap();
    running.run(1);
    assert_eq!((by_lease(&running), holds(&running, 1)), (vec![false], false));
}

#[test]
fn it_lasts_as_long_as_the_drift_allows_from_the_last_round_that_a_quorum_answered() {
    let mut running = led(config());
    running.isolate(1);
    let length = 300 * 95 / 105;
    running.run(length - 50);
    assert!(holds(&running, 1), "the last round is at most a heartbeat old");
    running.run(51);
    assert!(!holds(&running, 1));
    let _ = running.read(1);
    assert!(by_lease(&running).is_empty());
}

#[test]
fn a_new_leader_waits_for_its_first_entry_all_the_same() {
    let mut running = led(config());
    // Heartbeats are answered at once, entries are not: 2 has a lease before it has committed anything.
    [1, 3].into_iter().for_each(|id| running.hang(id, true));
    running.propose(1).unwrap();
    running.run(20);
    running.stop(1);
    running.start(1);
    [1, 3].into_iter().for_each(|id| running.hang(id, false));
    let next = running.elect().expect("somebody leads");
    running.read(next).unwrap();
    running.run(50);
    assert_eq!(running.verdict(), Ok(()));
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    leader.answer(2, Index(0));
    assert!(leader.raft.lease_holds(leader.now));
    leader.raft.read(leader.now, 7).unwrap();
    assert!(!leader.drain().iter().any(|output| matches!(output, Output::ReadsReady { .. })));
    leader.answer(2, Index(1));
    assert_eq!(leader.raft.commit_index(), Index(1));
}

// What a follower promises.

/// A follower of server 1 in term 3 that has promised 300 ms in round 5.
fn promised() -> Single {
    let mut machine = one_of_three(3, Config::default(), Term(3));
    machine.now = machine.now + PROMISE;
    let said = machine.hear(1, append(3, 5, 300));
    assert!(matches!(
        said[..],
        [PeerMessage::AppendEntriesReply(AppendEntriesReply { round: Round(5), .. })]
    ));
    machine
}

fn request(term: u64, transfer: Option<u64>) -> PeerMessage {
    let (term, last) = (Term(term), EntryId::new(Term(3), Index(9)));
    PeerMessage::RequestVote(RequestVote { term, last, transfer: transfer.map(Round) })
}

fn pre_vote(term: u64) -> PeerMessage {
    PeerMessage::PreVote(PreVote { term: Term(term), last: EntryId::new(Term(3), Index(9)) })
}

fn granted(said: &[PeerMessage]) -> bool {
    said.iter().any(|message| {
        matches!(
            message,
            PeerMessage::RequestVoteReply(RequestVoteReply { granted: true, .. })
                | PeerMessage::PreVoteReply(PreVoteReply { granted: true, .. })
        )
    })
}

#[test]
fn within_a_promise_nobody_gets_a_vote_or_a_pre_vote() {
    // Not even the leader, and not in a term in which the promise was not made.
    for (from, message) in [
        (2, pre_vote(4)),
        (2, request(4, None)),
        (1, pre_vote(4)),
        (1, request(4, None)),
        (2, request(9, None)),
    ] {
        let mut machine = promised();
        machine.input(Input::LinkClosed { from: ServerId(1) });
        machine.pass(299);
        assert!(!granted(&machine.hear(from, message.clone())), "{from} {message:?}");
        assert_eq!((machine.raft.term(), machine.raft.marks().promise_kept), (Term(3), 1));
        machine.pass(1);
        assert!(granted(&machine.hear(from, message.clone())), "{from} {message:?}");
    }
    let mut machine = promised();
    let later = AppendEntriesReply {
        term: Term(7),
        round: Round(0),
        room: true,
        abstains: false,
        outcome: AppendOutcome::StaleTerm,
    };
    machine.hear(2, PeerMessage::AppendEntriesReply(later));
    assert_eq!(machine.raft.term(), Term(7));
    assert!(!granted(&machine.hear(2, request(7, None))), "a later term forgets no promise");
}

#[test]
fn within_a_promise_nobody_campaigns() {
    let mut machine = promised();
    machine.input(Input::LinkClosed { from: ServerId(1) });
    for _ in 0..299 {
        machine.pass(1);
        assert_eq!(machine.raft.role(), Role::Follower);
    }
    machine.pass(31);
    assert_eq!(machine.raft.role(), Role::PreCandidate, "the closed link counts as soon as it may (R4)");
}

#[test]
fn a_process_that_comes_up_keeps_what_the_one_before_may_have_promised() {
    let mut machine = one_of_three(3, Config::default(), Term(3));
    machine.pass(299);
    assert!(!granted(&machine.hear(2, request(4, None))) && !granted(&machine.hear(2, pre_vote(4))));
    assert!(
        !granted(&machine.hear(2, request(4, Some(u64::MAX - 1)))),
        "no round of that term is late enough"
    );
    machine.pass(1);
    assert!(granted(&machine.hear(2, request(4, None))));
    let mut fresh = one_of_three(3, Config::default(), Term(0));
    assert!(granted(&fresh.hear(2, pre_vote(1))), "without a term nothing was ever acknowledged");
}

/// What it can't know it may have promised ends once, whatever it promises since: it holds up no hand-over for longer.
#[test]
fn a_follower_that_restarted_under_leases_takes_over_at_once() {
    let config = Config { promise: Duration::from_millis(200), ..Config::default() };
    for restarted in [0, 2, 3] {
        let mut running = led(config.clone());
        if restarted > 0 {
            running.stop(restarted);
            running.run(20);
            running.start(restarted);
        }
        running.run(10_000);
        if restarted == 3 {
            running.propose(1).unwrap();
            running.run(10);
        }
        assert_eq!(running.transfer(1, Some(2)), Ok(ServerId(2)));
        running.run(40);
        assert_eq!((running.leader(), running.verdict()), (Some(2), Ok(())), "{restarted} had restarted");
    }
}

/// etcd-io/etcd#12704: a heartbeat behind the TimeoutNow renewed the lease, and whom it told to campaign won all the
/// same.
#[test]
fn etcd_12704_a_timeout_now_lifts_promises_through_the_round_it_names() {
    for (named, expected) in [(4, false), (5, true), (6, true)] {
        let mut machine = promised();
        assert_eq!(granted(&machine.hear(2, request(4, Some(named)))), expected, "round {named}");
    }
    // The same for the target's own promise.
    for (named, expected) in [(4, Role::Follower), (5, Role::Candidate)] {
        let mut machine = promised();
        machine.hear(1, PeerMessage::TimeoutNow(TimeoutNow { term: Term(3), round: Round(named) }));
        assert_eq!(machine.raft.role(), expected, "round {named}");
    }
}

#[test]
fn a_promise_that_could_not_be_kept_across_a_restart_is_not_made() {
    let mut machine = promised();
    let answer = |round, outcome| {
        PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term: Term(3),
            round: Round(round),
            room: true,
            abstains: false,
            outcome,
        })
    };
    let (durable, unpromised) = (AppendOutcome::Durable(Index(0)), AppendOutcome::Unpromised);
    let said = machine.hear(1, append(3, 6, 301));
    assert_eq!(said, [answer(6, unpromised), answer(5, durable.clone())], "the round has come all the same");
    assert_eq!(machine.hear(1, append(3, 6, 301)), [answer(5, durable)], "it has been said");
    assert_eq!(machine.raft.marks().promise_too_long, 2);
    let config = Config { promise: Duration::from_millis(301), ..Config::default() };
    assert_eq!(config.validate(), Err(ConfigError::PromiseTooLong));
    let config = Config { drift_ppm: 1_000_000, ..Config::default() };
    assert_eq!(config.validate(), Err(ConfigError::DriftTooLarge));
}

// What a leader relies on.

#[test]
fn a_snapshot_chunk_promises_nothing() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    leader.answer(2, Index(1));
    let until = leader.raft.lease_until().expect("a lease");
    leader.pass(50);
    let outcome = InstallOutcome::Next(0);
    let (term, round) = (leader.raft.term(), leader.raft.round());
    let reply = InstallSnapshotReply { term, round, last: EntryId::ZERO, outcome };
    leader.hear(2, PeerMessage::InstallSnapshotReply(reply));
    assert_eq!(leader.raft.lease_until(), Some(until));
    leader.answer(2, Index(1));
    assert_eq!(leader.raft.lease_until(), Some(until + Duration::from_millis(50)));
}

/// Followers whose timeouts are shorter than the leader's: they promise nothing, and confirm reads and contacts all the same.
#[test]
fn a_promise_that_is_refused_extends_no_lease_and_holds_up_no_read() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    let (term, outcome) = (leader.raft.term(), AppendOutcome::Durable(Index(1)));
    let durable = AppendEntriesReply { term, round: Round(0), room: true, abstains: false, outcome };
    leader.hear(2, PeerMessage::AppendEntriesReply(durable.clone()));
    leader.raft.read(leader.now, 7).unwrap();
    leader.drain();
    let round = leader.raft.round();
    let refused =
        AppendEntriesReply { term, round, room: true, abstains: false, outcome: AppendOutcome::Unpromised };
    leader.hear(2, PeerMessage::AppendEntriesReply(refused));
    assert!(leader.last.contains(&Output::RoundConfirmed { term, round }));
    assert!(leader.last.contains(&Output::ReadsReady { reads: vec![7], index: Index(1), lease: false }));
    leader.hear(2, PeerMessage::AppendEntriesReply(durable));
    assert_eq!(leader.raft.lease_until(), None);
}

#[test]
fn a_lease_counts_from_the_sending_of_a_round() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    let sent = leader.now;
    leader.now = leader.now + Duration::from_millis(40);
    leader.answer(2, Index(1));
    let length = Duration::from_micros(300_000 * 950_000 / 1_050_000);
    assert_eq!(leader.raft.lease_until(), Some(sent + length));
}

/// databendlabs/openraft#1747: the lease was not ended by a transfer, and the old leader answered from before what
/// the new one committed.
#[test]
fn openraft_1747_a_lease_that_outlives_a_transfer() {
    let mut running = led(config());
    // The old leader does not hear of the new one, and the new one's entries are committed without it.
    [2, 3].into_iter().for_each(|other| running.cut(other, 1));
    running.transfer(1, Some(2)).unwrap();
    assert!(!holds(&running, 1));
    for _ in 0..400 {
        running.run(1);
        let _ = running.read(1);
        let _ = running.propose(2);
    }
    assert_eq!((running.verdict(), running.leader()), (Ok(()), Some(2)));
    assert!(running.committed() > Index(100));
}

#[test]
fn a_lease_that_was_given_up_resumes_with_a_fresh_round() {
    let mut running = led(config());
    running.hold(1, 3);
    running.transfer(1, Some(3)).unwrap();
    running.run(599);
    assert!(!holds(&running, 1), "though 2 answers all the time");
    running.read(1).unwrap();
    running.run(1);
    assert_eq!(by_lease(&running), [false]);
    running.run(150);
    assert_eq!((running.failed_transfers().len(), holds(&running, 1)), (1, true));
    // What told 3 to campaign comes now. 2 has promised anew since, and keeps to it; so does the leader.
    let before = running.raft(1).map(Raft::term);
    running.release(1, 3);
    for _ in 0..2_000 {
        running.run(1);
        let _ = running.read(1);
        let _ = running.leader().map(|leader| running.propose(leader));
        assert_eq!(running.verdict(), Ok(()));
    }
    assert!(running.raft(1).map(Raft::term) >= before);
}

/// Found by the simulator (seed 13514): the heartbeat behind the TimeoutNow had everyone promise anew, and whom it told to campaign
/// never got a vote.
#[test]
fn promises_do_not_hold_up_a_hand_over() {
    let mut running = Running::new(5, &[0, 5, 0, 0, 0], config());
    running.elect_first(1);
    running.run(3_500);
    assert_eq!((running.leader(), running.verdict()), (Some(2), Ok(())));
    // Heartbeats go out while the word is on its way.
    running.hold(2, 3);
    assert_eq!(running.transfer(2, Some(3)), Ok(ServerId(3)));
    running.run(200);
    running.release(2, 3);
    running.run(5);
    assert_eq!((running.leader(), running.verdict()), (Some(3), Ok(())));
}

#[test]
fn a_leader_that_told_another_to_campaign_asks_for_no_promise() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    [2, 3].into_iter().for_each(|from| leader.answer(from, Index(1)));
    leader.raft.transfer(leader.now, Some(ServerId(2))).expect("it begins");
    assert_eq!(promises(&leader.drain()), Vec::<u32>::new(), "a TimeoutNow");
    for _ in 0..11 {
        leader.pass(50);
        assert_eq!(promises(&leader.last), [0, 0]);
        [2, 3].into_iter().for_each(|from| leader.answer(from, Index(1)));
        assert_eq!(leader.raft.lease_until(), None, "what was not promised is no lease");
    }
    leader.pass(50);
    assert_eq!(leader.raft.lease_until(), None);
    assert_eq!(promises(&leader.last), [300, 300], "it came to nothing");
    leader.answer(2, Index(1));
    assert!(leader.raft.lease_holds(leader.now));
}

/// What the messages ask followers to promise, in milliseconds.
fn promises(outputs: &[Output]) -> Vec<u32> {
    let appends = outputs.iter().filter_map(|output| match output {
        Output::Send { message: PeerMessage::AppendEntries(append), .. } => Some(append.promise_ms),
        _ => None,
    });
    appends.collect()
}

/// etcd-io/raft#397 and etcd-io/etcd#20418: a leader that had stood still answered reads as of what it knew before.
#[test]
fn etcd_raft_397_a_leader_that_stood_still_answers_nothing_by_lease() {
    let mut running = led(config());
    running.pause(1, true);
    let next = running.elect_but(1).expect("another is elected");
    running.propose(next).unwrap();
    running.run(5);
    running.pause(1, false);
    for _ in 0..50 {
        let _ = running.read(1);
        running.run(1);
    }
    assert_eq!(running.verdict(), Ok(()));
    assert!(!by_lease(&running).contains(&true), "{:?}", running.answered());
}

/// sofastack/sofa-jraft#26, #34: leases were counted by the wall clock, which was set back. There is no wall clock
/// here; a reading that lies before an earlier one extends nothing either.
#[test]
fn sofa_jraft_26_a_clock_that_runs_back_extends_no_lease() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    leader.answer(2, Index(1));
    let until = leader.raft.lease_until();
    leader.pass(50);
    leader.now = LocalTime::from_millis(1_000);
    leader.answer(2, Index(1));
    leader.raft.read(leader.now, 1).unwrap();
    leader.drain();
    leader.answer(2, Index(1));
    assert!(leader.raft.lease_until() <= until.map(|until| until + Duration::from_millis(50)));
}

/// atomix/copycat PR 283: whether a server led was looked at before the state was read, and not afterwards.
#[test]
fn copycat_283_the_lease_is_looked_at_after_the_read() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    leader.answer(2, Index(1));
    leader.raft.read(leader.now, 7).unwrap();
    let ready = |lease| Output::ReadsReady { reads: vec![7], index: Index(1), lease };
    assert!(leader.drain().contains(&ready(true)));
    // Its host reads the state, stands still, and looks at the clock again.
    leader.now = leader.now + Duration::from_millis(290);
    assert!(!leader.raft.lease_holds(leader.now));
    leader.raft.read_by_round(leader.now, 7).unwrap();
    let outputs = leader.drain();
    assert!(!outputs.contains(&ready(true)));
    leader.answer(2, Index(1));
    assert!(leader.last.contains(&ready(false)));
}

#[test]
fn a_read_that_insists_on_a_round_gets_one() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    leader.answer(2, Index(1));
    assert!(leader.raft.lease_holds(leader.now));
    leader.raft.read_by_round(leader.now, 7).unwrap();
    assert!(!leader.drain().iter().any(|output| matches!(output, Output::ReadsReady { .. })));
    let later = AppendEntriesReply {
        term: Term(7),
        round: Round(0),
        room: true,
        abstains: false,
        outcome: AppendOutcome::StaleTerm,
    };
    leader.hear(2, PeerMessage::AppendEntriesReply(later));
    assert!(leader.last.contains(&Output::ReadsFailed { reads: vec![7] }));
    assert!(leader.raft.read_by_round(leader.now, 8).is_err());
}

#[test]
fn a_deposed_leader_keeps_to_its_lease() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    leader.answer(2, Index(1));
    let later = AppendEntriesReply {
        term: Term(7),
        round: Round(0),
        room: true,
        abstains: false,
        outcome: AppendOutcome::StaleTerm,
    };
    leader.hear(3, PeerMessage::AppendEntriesReply(later));
    assert_eq!((leader.raft.role(), leader.raft.lease_until()), (Role::Follower, None));
    let ask = || PeerMessage::RequestVote(RequestVote { term: Term(8), last: leader_log(), transfer: None });
    assert!(!granted(&leader.hear(3, ask())), "followers may count on it");
    leader.now = leader.now + PROMISE;
    assert!(granted(&leader.hear(3, ask())));
}

fn leader_log() -> EntryId {
    EntryId::new(Term(7), Index(9))
}

#[test]
fn a_leader_with_a_lease_gives_way_to_no_vote_that_a_stale_timeout_now_caused() {
    let mut leader = one_of_three(1, config(), Term(0));
    leader.lead();
    leader.answer(2, Index(1));
    let ask = RequestVote { term: Term(2), last: leader_log(), transfer: Some(Round(1)) };
    assert!(!granted(&leader.hear(3, PeerMessage::RequestVote(ask))));
    assert_eq!((leader.raft.role(), leader.raft.term()), (Role::Leader, Term(1)));
}

fn append(term: u64, round: u64, promise_ms: u32) -> PeerMessage {
    PeerMessage::AppendEntries(AppendEntries {
        term: Term(term),
        prev: EntryId::ZERO,
        leader_commit: Index(0),
        last_index: Index(0),
        time: ClusterTime(1),
        promise_ms,
        round: Round(round),
        entries: Vec::new(),
    })
}

/// One of three, as it comes up.
fn one_of_three(id: u64, config: Config, term: Term) -> Single {
    Single::new(id, config, term, &[1, 2, 3].map(|id| (id, MemberKind::Voter, 0)))
}
