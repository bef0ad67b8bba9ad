//! Full disks: who says so, and who leads instead (D5).

use atomix_protocol::Index;
use atomix_protocol::peer::{AppendEntriesReply, PeerMessage};
use atomix_raft::{Config, Input, Refused};
use atomix_testkit::scenario::words::*;
use atomix_testkit::scenario::{Machine, Running};

/// Three servers that run for a while under server 1, whose priorities are these. These disks are full.
fn led(priorities: &[u8], full: &[u64]) -> Running {
    let mut running = Running::new(3, priorities, Config::default());
    running.elect_first(1);
    running.run(1_000);
    for id in full {
        running.step(*id, Input::Room(false));
        running.run(300);
    }
    running
}

#[test]
fn d5_a_server_says_whether_its_disk_has_room() {
    let mut machine = Machine::follower(1, &[]);
    let room =
        |machine: &mut Machine| append_replies(&machine.hear(2, append(1, id(0, 0), vec![], 0)))[0].room;
    machine.persist();
    assert!(room(&mut machine));
    machine.input(Input::Room(false));
    assert!(!room(&mut machine));
    machine.input(Input::Room(true));
    assert!(room(&mut machine));
}

#[test]
fn d5_a_leader_without_room_gives_way_to_a_voter_that_has_it() {
    // priorities, full disks, who leads then
    for (priorities, full, expected) in [
        (&[0, 0, 0][..], &[1][..], 2),
        (&[0, 0, 7], &[1], 3),
        (&[9, 0, 0], &[1], 2), // the priority of a full disk counts for nothing
        (&[0, 7, 0], &[2, 1], 3),
        (&[0, 0, 0], &[3, 2, 1], 1),
        (&[0, 9, 0], &[2], 1),
    ] {
        let mut running = led(priorities, full);
        assert_eq!(running.leader(), Some(expected), "priorities {priorities:?}, full {full:?}");
        running.run(30_000);
        assert_eq!(running.leader(), Some(expected), "{priorities:?}, {full:?}: and it stays so");
        assert_eq!((running.failed_transfers(), running.verdict()), (&[][..], Ok(())));
    }
}

#[test]
fn d5_a_leader_that_finds_nobody_with_room_goes_on_and_so_do_its_own_entries() {
    let mut running = led(&[], &[3, 2, 1]);
    let term = running.raft(1).unwrap().term();
    // Which entries are refused for want of room is for those to say who know what is in them.
    assert!(running.propose(1).is_ok());
    running.run(10_000);
    assert_eq!((running.leader(), running.raft(1).unwrap().term()), (Some(1), term));
    running.step(2, Input::Room(true));
    running.run(300);
    assert_eq!(running.leader(), Some(2), "one has room again");
    running.step(1, Input::Room(true));
    running.run(30_000);
    assert_eq!(running.leader(), Some(2), "and that is no reason to go back");
}

/// There is time between two attempts for the disks to make up their minds.
#[test]
fn d5_full_disks_do_not_pass_leadership_around() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.persist();
    let mut begun = Vec::new();
    for beat in 0..1_000 {
        machine.pass(50);
        while machine.write.is_some() {
            machine.persist();
        }
        for follower in [2, 3] {
            let (round, last) = (machine.raft.round().0, machine.raft.last().index.0);
            machine.hear(follower, durable(1, round, last));
        }
        machine.input(Input::Room(beat % 2 == 0));
        begun.push(machine.raft.marks().full_hand_over);
    }
    assert_eq!(begun.last(), Some(&5), "in fifty seconds, for nobody took over");
}

/// It takes a write while it is being handed over as little as ever: whoever asks is told to come again.
#[test]
fn d5_nothing_is_taken_while_a_leader_with_room_is_sought() {
    let mut running = led(&[], &[]);
    running.hang(3, true);
    running.hang(2, true);
    running.propose(1).unwrap();
    running.step(1, Input::Room(false));
    assert_eq!(running.propose(1), Err(Refused::HandingOver));
}

/// Nobody who has not come so far could be elected.
#[test]
fn d5_only_who_has_caught_up_is_given_way_to() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    machine.persist();
    let answer = |room: bool, index: u64| {
        let PeerMessage::AppendEntriesReply(reply) = durable(1, 2, index) else { unreachable!() };
        PeerMessage::AppendEntriesReply(AppendEntriesReply { room, ..reply })
    };
    for _ in 0..14 {
        machine.pass(50);
        machine.hear(2, answer(false, 1));
        machine.hear(3, answer(true, 0));
    }
    assert_eq!(machine.raft.commit_index(), Index(1));
    machine.input(Input::Room(false));
    assert!(!machine.raft.is_handing_over());
    machine.hear(3, answer(true, 1));
    machine.pass(50);
    assert!(machine.raft.is_handing_over());
}

/// No room for entries is no reason for a cluster to have no leader: term and vote need none.
#[test]
fn d5_a_vote_is_given_while_entries_wait_for_room() {
    let mut machine = Machine::follower(1, &[]);
    machine.hear(2, append(1, id(0, 0), vec![entry(1, 1)], 0));
    let (token, batch) = machine.write.take().expect("an entry");
    assert_eq!(batch.entries.len(), 1);
    machine.input(Input::NotWritten { token });
    assert!(machine.write.is_none(), "nothing is asked for at once");
    machine.pass(3_000);
    machine.hear(3, request_vote(2, id(1, 1)));
    let (_, batch) = machine.write.as_ref().expect("term and vote");
    assert!(batch.entries.is_empty() && batch.hard_state.is_some(), "{batch:?}");
    assert_eq!(vote(&machine.persist()), Some(true));
    // With the word of room, whichever it is, it is time for another attempt.
    assert!(machine.write.is_none());
    machine.input(Input::Room(false));
    let (_, batch) = machine.write.as_ref().expect("the entry");
    assert_eq!((batch.entries.len(), batch.hard_state), (1, None));
    machine.persist();
    assert_eq!(machine.raft.durable_index(), Index(1));
}

/// Followers with room commit what its own disk has none for.
#[test]
fn d5_a_leader_whose_entries_wait_for_room_goes_on() {
    let mut machine = Machine::leader(Config::default(), 3, 0, 0, &[]);
    let (token, _) = machine.write.take().expect("its first entry");
    machine.input(Input::NotWritten { token });
    let round = machine.raft.round().0;
    machine.hear(2, durable(1, round, 1));
    assert_eq!(machine.raft.commit_index(), Index(0), "its own copy does not count");
    machine.hear(3, durable(1, round, 1));
    assert_eq!(machine.raft.commit_index(), Index(1));
    assert_eq!(machine.raft.durable_index(), Index(0));
    machine.input(Input::Room(true));
    machine.persist();
    assert_eq!(machine.raft.durable_index(), Index(1));
}
