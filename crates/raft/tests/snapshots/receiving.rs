//! A server that is sent a snapshot, by itself, with a disk that takes its time: what it answers, whom, and what it ignores (R6).

use atomix_protocol::peer::{InstallOutcome, InstallSnapshot, PeerMessage, SnapshotMeta};
use atomix_protocol::{ClusterTime, Configuration, EntryId, Round, Term};
use atomix_raft::{ChunkOutcome, Input, Output};
use atomix_testkit::scenario::Machine;
use atomix_testkit::scenario::words::{append, configuration, id, said};
use bytes::Bytes;

const LAST: (u64, u64) = (2, 9);

fn last() -> EntryId {
    id(LAST.0, LAST.1)
}

/// Two bytes of a snapshot of six, from the leader of this term.
fn chunk(term: u64, offset: u64) -> InstallSnapshot {
    let (time, size) = (ClusterTime(80), 6);
    let meta = SnapshotMeta { last: last(), time, configuration: configuration(3, 0), size, checksum: 0 };
    let data = Bytes::from_static(b"ab");
    let done = offset + 2 == size;
    InstallSnapshot { term: Term(term), meta, offset, data, done, time, round: Round(1) }
}

fn outcomes(said: &[PeerMessage]) -> Vec<InstallOutcome> {
    let replies = said.iter().filter_map(|message| match message {
        PeerMessage::InstallSnapshotReply(reply) => Some(reply.outcome.clone()),
        _ => None,
    });
    replies.collect()
}

fn hear(machine: &mut Machine, from: u64, chunk: InstallSnapshot) -> Vec<InstallOutcome> {
    outcomes(&machine.hear(from, PeerMessage::InstallSnapshot(chunk)))
}

fn written(machine: &mut Machine, outcome: ChunkOutcome) -> Vec<Output> {
    machine.input(Input::ChunkWritten { last: last(), outcome })
}

/// What was received and not written yet is never named: the leader would hear less later, and begin anew.
#[test]
fn r6_answers_name_what_is_written() {
    let mut machine = Machine::follower(3, &[]);
    for offset in [0, 2] {
        assert_eq!(hear(&mut machine, 2, chunk(3, offset)), []);
    }
    assert_eq!(hear(&mut machine, 2, chunk(3, 0)), [], "a late copy");
    for next in [2, 4] {
        let answers = outcomes(&said(&written(&mut machine, ChunkOutcome::Next(next))));
        assert_eq!(answers, [InstallOutcome::Next(next)]);
    }
    assert_eq!(hear(&mut machine, 2, chunk(3, 0)), [InstallOutcome::Next(4)]);
}

/// Another leader sends the very same while chunks are still being written: it is told as they are.
#[test]
fn r6_whoever_sends_the_very_same_next_is_answered() {
    let mut machine = Machine::follower(3, &[]);
    hear(&mut machine, 2, chunk(3, 0));
    machine.hear(3, append(4, EntryId::ZERO, vec![], 0));
    machine.persist();
    assert_eq!(hear(&mut machine, 3, chunk(4, 0)), []);
    let outputs = written(&mut machine, ChunkOutcome::Next(2));
    assert!(matches!(&outputs[..], [Output::Send { to, .. }] if to.0 == 3), "{outputs:?}");
    assert_eq!(outcomes(&said(&outputs)), [InstallOutcome::Next(2)]);
    assert_eq!(machine.raft.marks().install_taken_over, 1);
}

/// The leader is lost while the whole is verified. What the next one sends of it says that it is wanted.
#[test]
fn r6_a_whole_that_is_verified_under_the_next_leader_is_put_in_place() {
    for sends in [false, true] {
        let mut machine = Machine::follower(3, &[]);
        for offset in [0, 2, 4] {
            hear(&mut machine, 2, chunk(3, offset));
        }
        [2, 4].into_iter().for_each(|next| _ = written(&mut machine, ChunkOutcome::Next(next)));
        machine.hear(3, append(4, EntryId::ZERO, vec![], 0));
        machine.persist();
        if sends {
            assert_eq!(hear(&mut machine, 3, chunk(4, 0)), []);
        }
        let outputs = written(&mut machine, ChunkOutcome::Whole);
        assert_eq!(outputs.iter().any(|output| matches!(output, Output::Install { .. })), sends);
        let outputs = machine.input(Input::Installed { last: last() });
        let expected = if sends { vec![InstallOutcome::Installed] } else { vec![] };
        assert_eq!(outcomes(&said(&outputs)), expected);
    }
}

#[test]
fn r6_chunks_that_no_server_sends_are_ignored() {
    let with = |how: &dyn Fn(&mut InstallSnapshot)| {
        let mut chunk = chunk(3, 0);
        how(&mut chunk);
        chunk
    };
    for absurd in [
        with(&|chunk| chunk.data = Bytes::new()),
        with(&|chunk| chunk.done = true),
        with(&|chunk| chunk.meta.size = 1),
        with(&|chunk| chunk.meta.last.term = Term(4)),
        with(&|chunk| chunk.meta.configuration = Configuration::default()),
        with(&|chunk| chunk.meta.configuration.members.swap(0, 1)),
        with(&|chunk| chunk.meta.configuration.next_server_id = 3),
    ] {
        let mut machine = Machine::follower(3, &[]);
        let what = format!("{absurd:?}");
        assert_eq!(hear(&mut machine, 2, absurd), [], "{what}");
        assert_eq!(
            (machine.raft.is_installing(), machine.raft.marks().hostile_refused),
            (false, 1),
            "{what}"
        );
    }
}
