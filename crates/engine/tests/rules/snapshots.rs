//! R6.

use std::time::Duration;

use atomix_engine::{Input, Output};
use atomix_protocol::codec::Frame;
use atomix_protocol::peer::{AppendEntries, InstallSnapshot, PeerMessage, SnapshotMeta};
use atomix_protocol::{ClusterTime, Entry, EntryId, EntryKind, Index, LinkId, Round, Term};
use bytes::Bytes;

use crate::solo::{Solo, configuration, on_disk, peer};
use crate::world::World;

fn world_with_small_log() -> World {
    let mut world = World::new(3);
    world.options = |options| {
        options.snapshot_log_bytes = 4_096;
        options.raft.snapshot_chunk_bytes = 200;
        options.raft.log_memory_bytes = 16_384;
        options.raft.snapshot_bytes_in_flight = 600;
        options.raft.log_tail_bytes = 1_024;
    };
    world.start_all();
    world.until("a leader", |world| world.leader().is_some());
    world
}

#[test]
fn r6_a_log_that_outgrew_its_snapshot_gets_another() {
    let mut world = world_with_small_log();
    let client = world.client(None);
    for number in 1..=100 {
        assert_eq!(world.write(client, &format!("line-{number}")), number.to_string());
    }
    world.run(Duration::from_millis(200));
    for index in 0..3 {
        let status = world.status(index);
        assert!(status.counters.snapshots_taken >= 1, "{status:?}");
        assert!(status.snapshot_index > Default::default());
        assert!(world.servers[index].disk.entries.len() < 100, "the log is compacted");
    }
    let lines = world.lines(0);
    for index in 0..3 {
        world.crash(index);
    }
    world.start_all();
    assert_eq!(world.write(client, "last"), "101");
    world.until("all", |world| (0..3).all(|index| world.lines(index) == format!("{lines},last")));
}

#[test]
fn r6_a_follower_too_far_behind_gets_a_snapshot() {
    let mut world = world_with_small_log();
    let client = world.client(None);
    assert_eq!(world.write(client, "first"), "1");
    let follower = (world.leader().expect("one") + 1) % 3;
    world.crash(follower);
    for number in 2..=300 {
        assert_eq!(world.write(client, &format!("line-{number}")), number.to_string());
    }
    world.start(follower);
    let leader = world.leader().expect("one");
    world.until("the same state", |world| world.lines(follower) == world.lines(leader));
    assert_eq!(world.status(follower).counters.snapshots_installed, 1);
    assert_eq!(world.write(client, "last"), "301");
    world.until("the same state", |world| world.lines(follower) == world.lines(leader));
    // What it installed is what it finds again.
    world.crash(follower);
    world.start(follower);
    world.until("the same state", |world| world.lines(follower) == world.lines(leader));
}

#[test]
fn r6_sessions_and_kept_replies_come_with_a_snapshot() {
    let mut world = world_with_small_log();
    let client = world.client(None);
    assert_eq!(world.write(client, "first"), "1");
    let leader = world.leader().expect("one");
    let follower = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    world.crash(follower);
    for number in 2..=300 {
        assert_eq!(world.write(client, &format!("line-{number}")), number.to_string());
    }
    world.start(follower);
    world.until("the same state", |world| world.lines(follower) == world.lines(leader));
    world.crash(leader);
    world.crash(third);
    world.start(third);
    assert_eq!(world.write(client, "last"), "301");
    assert!(world.status(follower).counters.snapshots_installed >= 1);
}

#[test]
fn s3_a_retry_is_answered_with_a_reply_that_came_in_a_snapshot() {
    let mut answered = 0;
    for micros in (500..3_000).step_by(100) {
        let mut world = world_with_small_log();
        let (client, other) = (world.client(None), world.client(None));
        world.session(client);
        world.session(other);
        world.submit(client, "once");
        world.run(Duration::from_micros(micros));
        world.cut_off(client);
        for number in 1..=100 {
            world.write(other, &format!("line-{number}"));
        }
        for index in 0..3 {
            world.crash(index);
        }
        world.start_all();
        world.heal();
        world
            .until("its reply", |world| world.clients[client].endings.len() == 1 && world.leader().is_some());
        let leader = world.leader().expect("one");
        assert_eq!(world.lines(leader).matches("once").count(), 1);
        answered += world.engine(leader).marks().retries_after_snapshot;
    }
    assert!(answered > 0, "no snapshot held the reply that was asked for again");
}

#[test]
fn r6_a_snapshot_interrupted_by_a_crash_begins_anew() {
    for micros in (500..6_000).step_by(500) {
        let mut world = world_with_small_log();
        let client = world.client(None);
        let follower = (world.leader().expect("one") + 1) % 3;
        world.session(client);
        world.crash(follower);
        for number in 1..=200 {
            assert_eq!(world.write(client, &format!("line-{number}")), number.to_string());
        }
        world.start(follower);
        world.until("a leader known", |world| world.status(follower).leader.is_some());
        world.run(Duration::from_micros(micros));
        world.crash(follower);
        world.start(follower);
        let leader = world.leader().expect("one");
        world.until("the same state", |world| world.lines(follower) == world.lines(leader));
    }
}

#[test]
fn r6_a_transfer_whose_links_are_cut_goes_on() {
    let mut world = world_with_small_log();
    let client = world.client(None);
    let leader = world.leader().expect("one");
    let follower = (leader + 1) % 3;
    assert_eq!(world.write(client, "first"), "1");
    world.crash(follower);
    for number in 2..=300 {
        assert_eq!(world.write(client, &format!("line-{number}")), number.to_string());
    }
    world.start(follower);
    let installing = |world: &World| world.engine(follower).raft().is_some_and(|raft| raft.is_installing());
    for _ in 0..3 {
        world.until("chunks", |world| installing(world));
        world.run(Duration::from_micros(1_500));
        assert_eq!(world.status(follower).counters.snapshots_installed, 0, "cut in time");
        world.cut(leader, follower);
        world.run(Duration::from_millis(20));
        world.heal();
    }
    world.until("the same state", |world| world.lines(follower) == world.lines(leader));
    assert_eq!(world.status(follower).counters.snapshots_installed, 1);
    assert_eq!(world.leader(), Some(leader), "nobody else was needed");
}

#[test]
fn r6_a_follower_a_little_behind_gets_entries_though_a_snapshot_covers_them() {
    let mut world = World::new(3);
    world.options = |options| {
        options.snapshot_log_bytes = 4_096;
        options.raft.log_memory_bytes = 16_384;
        options.raft.log_tail_bytes = 8_192;
    };
    world.start_all();
    world.until("a leader", |world| world.leader().is_some());
    let client = world.client(None);
    let mut written = 0;
    let mut write = |world: &mut World| {
        written += 1;
        assert_eq!(world.write(client, &format!("line-{written}")), written.to_string());
    };
    (0..100).for_each(|_| write(&mut world));
    let leader = world.leader().expect("one");
    let follower = (leader + 1) % 3;
    let taken = world.status(leader).snapshot_index;
    world.crash(follower);
    while world.status(leader).snapshot_index == taken {
        write(&mut world);
    }
    world.start(follower);
    assert!(world.status(follower).applied_index < world.status(leader).snapshot_index);
    world.until("the same state", |world| world.lines(follower) == world.lines(leader));
    assert_eq!(world.status(follower).counters.snapshots_installed, 0);
    let raft = world.engine(leader).raft().expect("a member");
    assert!(raft.marks().served_from_tail > 0);
}

/// A follower whose log has outgrown its snapshot, and the link from its leader.
fn follower_with_a_due_snapshot() -> (Solo, LinkId, SnapshotMeta) {
    let (solo, link) = follower_with_entries(200);
    let meta = solo.outputs.iter().find_map(|output| match output {
        Output::TakeSnapshot(meta, _) => Some(meta.clone()),
        _ => None,
    });
    (solo, link, meta.expect("a snapshot is due"))
}

/// A follower with five entries, and the link from its leader.
fn follower_with_entries(snapshot_log_bytes: u64) -> (Solo, LinkId) {
    let mut solo =
        Solo::with(on_disk(3), Vec::new(), |options| options.snapshot_log_bytes = snapshot_log_bytes);
    let link = solo.greeted_by(peer(2));
    let entry = |index| Entry {
        id: EntryId::new(Term(1), Index(index)),
        time: ClusterTime(1),
        kind: EntryKind::NoOp,
        payload: Bytes::new(),
    };
    let append = AppendEntries {
        term: Term(1),
        prev: EntryId::ZERO,
        leader_commit: Index(5),
        last_index: Index(0),
        time: ClusterTime(1),
        promise_ms: 0,
        round: Round(1),
        entries: (1..=5).map(entry).collect(),
    };
    solo.hear(link, &Frame::Peer(PeerMessage::AppendEntries(append)));
    solo.write();
    (solo, link)
}

fn first_chunk() -> Frame {
    Frame::Peer(PeerMessage::InstallSnapshot(InstallSnapshot {
        term: Term(1),
        meta: SnapshotMeta {
            last: EntryId::new(Term(1), Index(90)),
            time: ClusterTime(2),
            configuration: configuration(3),
            size: 1_000,
            checksum: 1,
        },
        offset: 0,
        data: Bytes::from_static(&[0; 100]),
        done: false,
        time: ClusterTime(2),
        round: Round(2),
    }))
}

fn position(solo: &Solo, of: fn(&Output) -> bool) -> Option<usize> {
    solo.outputs.iter().position(of)
}

const TAKE: fn(&Output) -> bool = |output| matches!(output, Output::TakeSnapshot(..));
const PUBLISH: fn(&Output) -> bool = |output| matches!(output, Output::Publish(_));
const WRITE_CHUNK: fn(&Output) -> bool = |output| matches!(output, Output::WriteChunk { .. });
const COMPACT: fn(&Output) -> bool = |output| matches!(output, Output::Compact(_));

#[test]
fn r6_an_own_snapshot_gives_way_to_a_received_one() {
    let (mut solo, link, meta) = follower_with_a_due_snapshot();
    solo.hear(link, &first_chunk());
    solo.write();
    assert!(position(&solo, WRITE_CHUNK).is_some());
    solo.step(Input::SnapshotTaken(meta));
    assert_eq!(position(&solo, PUBLISH), None, "what the writer dropped is not published");
    assert_eq!(solo.engine.marks().snapshots_abandoned, 1);
}

/// What no snapshot covers can't be compacted: on a full disk nothing else makes room, and no command comes that would let one fall due.
#[test]
fn d5_on_a_full_disk_a_snapshot_is_due_sooner_and_the_log_is_compacted() {
    let (mut solo, _) = follower_with_entries(1_000);
    assert_eq!((position(&solo, TAKE), position(&solo, COMPACT)), (None, None));
    solo.step(Input::Room(false));
    assert!(position(&solo, COMPACT).is_some(), "what an earlier one covers goes at once");
    assert!(position(&solo, TAKE).is_some());
    let (mut solo, _) = follower_with_entries(10_000);
    solo.step(Input::Room(false));
    assert_eq!(position(&solo, TAKE), None, "it would bring too little");
}

#[test]
fn r6_a_chunk_waits_for_the_publication_of_an_own_snapshot() {
    let (mut solo, link, meta) = follower_with_a_due_snapshot();
    let last = meta.last;
    solo.step(Input::SnapshotTaken(meta));
    assert!(position(&solo, PUBLISH).is_some());
    solo.hear(link, &first_chunk());
    solo.write();
    assert_eq!(position(&solo, WRITE_CHUNK), None, "beginning anew would drop what is not published yet");
    solo.step(Input::Published(last));
    let (compact, chunk) = (position(&solo, COMPACT), position(&solo, WRITE_CHUNK));
    assert!(compact.is_some() && chunk.is_some() && compact < chunk);
    assert_eq!(solo.engine.status(solo.now).snapshot_index, last.index);
    assert_eq!(solo.engine.status(solo.now).counters.snapshots_taken, 1);
}
