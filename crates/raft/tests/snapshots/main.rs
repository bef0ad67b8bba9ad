//! Snapshots on their way, and the log that stays or goes before them (§5, R6): interrupted at any chunk, resumed, raced, outrun.
//! Servers 1 and 2 keep up, server 3 has been away.

mod receiving;
mod sending;

use std::time::Duration;

use atomix_protocol::peer::{InstallOutcome, PeerMessage};
use atomix_protocol::{HardState, Index, ServerId, Term};
use atomix_raft::{Config, Input, Role};
use atomix_testkit::scenario::{Cluster, Settings};

const LEADER: ServerId = ServerId(1);
const OTHER: ServerId = ServerId(2);
const AWAY: ServerId = ServerId(3);
const CHUNK: u64 = 10;

/// Nothing stays in memory, so that whoever is behind the snapshot needs it.
fn small() -> Config {
    Config {
        log_memory_bytes: 1,
        snapshot_chunk_bytes: CHUNK as usize,
        snapshot_bytes_in_flight: 3 * CHUNK,
        ..Config::default()
    }
}

fn elect(cluster: &mut Cluster, id: ServerId) {
    for _ in 0..5 {
        cluster.campaign(id);
        cluster.settle();
        if cluster.leader() == Some(id) {
            return;
        }
    }
    panic!("{id} is not elected: {:?}", recent(cluster));
}

fn propose(cluster: &mut Cluster, count: u64) {
    for number in 0..count {
        cluster.propose(LEADER, &format!("command {number}")).expect("it leads");
        cluster.settle();
    }
}

/// Lets all come to rest in agreement.
fn agree(cluster: &mut Cluster) {
    for _ in 0..20 {
        cluster.tick(Duration::from_millis(50));
        cluster.settle();
    }
    assert_eq!(cluster.checker().violation(), None);
    assert!(cluster.agreed().is_some(), "{:?}", recent(cluster));
}

/// The last things that happened.
fn recent(cluster: &mut Cluster) -> Vec<String> {
    let log = cluster.take_log();
    log[log.len().saturating_sub(20)..].to_vec()
}

/// Server 3 was away while the log went into a snapshot that both others took at the same index. It is back, and has heard nothing yet.
fn away(config: Config) -> Cluster {
    let mut cluster = Cluster::new(Settings { config, ..Settings::default() });
    elect(&mut cluster, LEADER);
    cluster.isolate(AWAY);
    propose(&mut cluster, 10);
    cluster.tick_one(LEADER);
    cluster.settle();
    for id in [LEADER, OTHER] {
        cluster.snapshot(id);
    }
    assert_eq!(cluster.raft(LEADER).snapshot_index(), cluster.raft(OTHER).snapshot_index());
    propose(&mut cluster, 2);
    cluster.heal();
    cluster
}

/// The offsets of the chunks on the way from a leader to server 3.
fn offsets(cluster: &Cluster, from: ServerId) -> Vec<u64> {
    let chunks = cluster.queued(from, AWAY).into_iter().filter_map(|message| match message {
        PeerMessage::InstallSnapshot(chunk) => Some(chunk.offset),
        _ => None,
    });
    chunks.collect()
}

/// Lets a leader notice that server 3 needs a snapshot, up to its first chunk on the way.
fn begin(cluster: &mut Cluster, from: ServerId) {
    for _ in 0..20 {
        if !offsets(cluster, from).is_empty() {
            return;
        }
        cluster.tick_one(from);
        cluster.deliver_link(from, AWAY);
        cluster.persist(AWAY);
        cluster.deliver_link(AWAY, from);
    }
    panic!("no snapshot is sent: {:?}", recent(cluster));
}

/// One message there, all answers back. The offset, if it was a chunk.
fn step(cluster: &mut Cluster, from: ServerId) -> Option<u64> {
    let chunk = cluster.queued(from, AWAY).first().and_then(|message| match message {
        PeerMessage::InstallSnapshot(chunk) => Some(chunk.offset),
        _ => None,
    });
    cluster.deliver(from, AWAY, 0, false);
    cluster.persist(AWAY);
    cluster.deliver_link(AWAY, from);
    chunk
}

/// All that follows, until server 3 has the snapshot; the offsets of the chunks that it was sent.
fn finish(cluster: &mut Cluster, from: ServerId) -> Vec<u64> {
    let mut sent = Vec::new();
    for _ in 0..400 {
        if cluster.raft(AWAY).marks().snapshot_installed > 0 {
            agree(cluster);
            return sent;
        }
        if cluster.queued(from, AWAY).is_empty() {
            cluster.tick_one(from);
        }
        sent.extend(step(cluster, from));
    }
    panic!("never installed: {:?}", recent(cluster));
}

/// How many chunks the snapshot has.
fn chunks() -> u64 {
    let mut cluster = away(small());
    begin(&mut cluster, LEADER);
    finish(&mut cluster, LEADER).len() as u64
}

#[test]
fn chunks_are_sent_ahead_within_the_window_and_heartbeats_pass_between_them() {
    let mut cluster = away(small());
    begin(&mut cluster, LEADER);
    assert_eq!(offsets(&cluster, LEADER), [0], "the first alone");
    step(&mut cluster, LEADER);
    assert_eq!(offsets(&cluster, LEADER), [10, 20, 30]);
    cluster.tick_one(LEADER);
    let behind = cluster.queued(LEADER, AWAY).len() - offsets(&cluster, LEADER).len();
    assert_eq!(
        (offsets(&cluster, LEADER).len(), behind),
        (3, 1),
        "a heartbeat waits behind a window at most"
    );
    let sent = finish(&mut cluster, LEADER);
    assert!(sent.is_sorted_by(|a, b| a < b), "nothing is sent twice where nothing is lost: {sent:?}");
}

#[test]
fn fault_m9_a_transfer_cut_at_any_chunk_goes_on_where_it_was() {
    for cut in 0..chunks() {
        let mut cluster = away(small());
        begin(&mut cluster, LEADER);
        for _ in 0..cut {
            step(&mut cluster, LEADER);
        }
        let applied = cluster.raft(AWAY).applied_index();
        cluster.drop_link(LEADER, AWAY);
        cluster.drop_link(AWAY, LEADER);
        cluster.input(LEADER, Input::LinkOpened { to: AWAY });
        assert_eq!(cluster.raft(AWAY).applied_index(), applied, "live state is untouched");
        let sent = finish(&mut cluster, LEADER);
        assert_eq!(sent[0], cut * CHUNK, "of {sent:?}");
        assert_eq!(sent.len() as u64, chunks() - cut);
    }
}

#[test]
fn fault_m9_lost_chunks_and_lost_answers_are_sent_again() {
    for lost in 0..chunks() {
        for answer in [false, true] {
            let mut cluster = away(small());
            begin(&mut cluster, LEADER);
            for _ in 0..lost {
                step(&mut cluster, LEADER);
            }
            if answer {
                cluster.deliver(LEADER, AWAY, 0, false);
                cluster.drop_link(AWAY, LEADER);
            } else {
                cluster.drop_message(LEADER, AWAY, 0);
            }
            finish(&mut cluster, LEADER);
        }
    }
}

#[test]
fn fault_m9_a_leader_that_restarted_goes_on_where_it_was() {
    for cut in 2..chunks() {
        let mut cluster = away(small());
        begin(&mut cluster, LEADER);
        for _ in 0..cut {
            step(&mut cluster, LEADER);
        }
        cluster.crash(LEADER, 0);
        cluster.restart(LEADER);
        cluster.isolate(AWAY);
        elect(&mut cluster, LEADER);
        cluster.heal();
        begin(&mut cluster, LEADER);
        let sent = finish(&mut cluster, LEADER);
        assert_eq!(sent[..2], [0, cut * CHUNK], "the first chunk asks where it stands");
        assert_eq!(cluster.raft(LEADER).marks().transfer_resumed, 1);
        assert_eq!(cluster.raft(AWAY).marks().install_aborted, 1);
    }
}

#[test]
fn fault_m9_another_leader_with_the_same_snapshot_goes_on_where_the_first_was() {
    for cut in 2..chunks() {
        let mut cluster = away(small());
        begin(&mut cluster, LEADER);
        for _ in 0..cut {
            step(&mut cluster, LEADER);
        }
        cluster.isolate(AWAY);
        elect(&mut cluster, OTHER);
        cluster.heal();
        begin(&mut cluster, OTHER);
        let sent = finish(&mut cluster, OTHER);
        assert_eq!(sent[..2], [0, cut * CHUNK]);
        assert_eq!(cluster.raft(AWAY).marks().install_taken_over, 1);
    }
}

#[test]
fn fault_m9_a_follower_that_restarted_begins_anew() {
    for cut in 1..chunks() {
        let mut cluster = away(small());
        begin(&mut cluster, LEADER);
        for _ in 0..cut {
            step(&mut cluster, LEADER);
        }
        cluster.crash(AWAY, 0);
        cluster.restart(AWAY);
        cluster.input(LEADER, Input::LinkOpened { to: AWAY });
        let sent = finish(&mut cluster, LEADER);
        assert!(sent.contains(&0) && sent.iter().filter(|offset| **offset == 0).count() == 1, "{sent:?}");
    }
}

#[test]
fn fault_m9_chunks_of_a_deposed_leader_are_refused_and_its_transfer_does_not_return() {
    let mut cluster = away(small());
    begin(&mut cluster, LEADER);
    step(&mut cluster, LEADER);
    let late = cluster.queued(LEADER, AWAY);
    cluster.isolate(AWAY);
    elect(&mut cluster, OTHER);
    cluster.heal();
    begin(&mut cluster, OTHER);
    step(&mut cluster, OTHER);
    let marks = *cluster.raft(AWAY).marks();
    for message in late {
        cluster.input(AWAY, Input::Received { from: LEADER, message });
    }
    assert_eq!(*cluster.raft(AWAY).marks(), marks);
    let answers = cluster.queued(AWAY, LEADER);
    let stale = |message: &PeerMessage| matches!(message, PeerMessage::InstallSnapshotReply(reply) if reply.outcome == InstallOutcome::StaleTerm);
    assert!(!answers.is_empty() && answers.iter().all(stale), "{answers:?}");
    finish(&mut cluster, OTHER);
}

#[test]
fn fault_m11_a_leader_without_a_log_sends_its_snapshot() {
    let mut cluster = away(small());
    propose(&mut cluster, 1);
    cluster.isolate(AWAY);
    cluster.snapshot(LEADER);
    for id in [LEADER, OTHER] {
        cluster.crash(id, 0);
        cluster.restart(id);
    }
    assert_eq!(cluster.raft(LEADER).last().index, cluster.raft(LEADER).snapshot_index(), "nothing behind it");
    elect(&mut cluster, LEADER);
    cluster.heal();
    begin(&mut cluster, LEADER);
    finish(&mut cluster, LEADER);
}

/// While server 3 gets one snapshot, the leader would have taken several.
#[test]
fn fault_m11_writes_that_outrun_every_install_do_not_make_it_endless() {
    // A disk that takes a few entries at once: whoever is slower than the writes never catches up.
    let mut cluster = away(Config { log_memory_bytes: 300, log_tail_bytes: 0, ..small() });
    begin(&mut cluster, LEADER);
    for round in 0..300 {
        cluster.propose(LEADER, "more").expect("it leads");
        for _ in 0..3 {
            cluster.deliver_link(LEADER, OTHER);
            cluster.persist(LEADER);
            cluster.persist(OTHER);
            cluster.deliver_link(OTHER, LEADER);
        }
        if round % 5 == 0 && cluster.raft(LEADER).may_take_snapshot() {
            cluster.snapshot(LEADER);
        }
        step(&mut cluster, LEADER);
        if cluster.queued(LEADER, AWAY).is_empty() {
            cluster.tick_one(LEADER);
        }
        let behind = cluster.raft(LEADER).last().index.since(cluster.raft(AWAY).applied_index());
        if cluster.raft(AWAY).marks().snapshot_installed > 0 && behind < 5 {
            break;
        }
    }
    assert_eq!(cluster.raft(AWAY).marks().snapshot_installed, 1);
    agree(&mut cluster);
}

#[test]
fn the_log_behind_an_installed_snapshot_stays_while_its_follower_catches_up() {
    let mut cluster = away(small());
    begin(&mut cluster, LEADER);
    let mut first = Index::ZERO;
    while first == Index::ZERO {
        step(&mut cluster, LEADER);
        first = cluster.raft(AWAY).snapshot_index();
    }
    assert!(cluster.raft(LEADER).may_take_snapshot(), "the transfer is over");
    cluster.drop_link(LEADER, AWAY);
    for _ in 0..3 {
        cluster.propose(LEADER, "more").expect("it leads");
        cluster.deliver_link(LEADER, OTHER);
        cluster.persist(LEADER);
        cluster.persist(OTHER);
        cluster.deliver_link(OTHER, LEADER);
        cluster.snapshot(LEADER);
    }
    assert!(cluster.raft(LEADER).snapshot_index() > first);
    assert_eq!(cluster.raft(LEADER).compactable_index(), first);
    // Nothing is heard of it for long.
    for _ in 0..200 {
        cluster.tick_one(LEADER);
        cluster.drop_link(LEADER, AWAY);
        cluster.deliver_link(LEADER, OTHER);
        cluster.persist(OTHER);
        cluster.deliver_link(OTHER, LEADER);
    }
    assert_eq!(cluster.raft(LEADER).compactable_index(), cluster.raft(LEADER).snapshot_index());
}

/// Server 3 misses a few entries that a snapshot then covers.
fn a_little_behind(log_memory_bytes: u64, log_tail_bytes: u64, more: u64) -> Cluster {
    let config = Config { log_memory_bytes, log_tail_bytes, ..small() };
    let mut cluster = Cluster::new(Settings { config, ..Settings::default() });
    elect(&mut cluster, LEADER);
    propose(&mut cluster, 20);
    cluster.isolate(AWAY);
    propose(&mut cluster, 3);
    for _ in 0..2 {
        cluster.tick_one(LEADER);
        cluster.settle();
        cluster.snapshot(LEADER);
        propose(&mut cluster, more);
    }
    cluster.heal();
    agree(&mut cluster);
    cluster
}

#[test]
fn r6_a_follower_a_little_behind_gets_entries_of_the_tail_instead_of_a_snapshot() {
    // memory, tail, entries after each snapshot, whether the tail serves
    for (memory, tail, more, served) in [
        (100_000, 2_000, 1, true),
        // It lies in memory no more: storage has it.
        (1_500, 1_500, 8, true),
        (100_000, 100, 8, true),
        (100, 100, 8, false),
        (1, 2_000, 1, false),
    ] {
        let cluster = a_little_behind(memory, tail, more);
        let (leader, follower) = (cluster.raft(LEADER).marks(), cluster.raft(AWAY).marks());
        let case = format!("memory {memory}, tail {tail}, {more} more: {leader:?}");
        assert_eq!(follower.snapshot_installed, u64::from(!served), "{case}");
        assert_eq!(leader.served_from_tail > 0, served, "{case}");
    }
}

#[test]
fn fault_n11_a_full_pipeline_under_which_the_log_is_compacted_ends_in_a_snapshot() {
    let config = Config { appends_in_flight: 2, ..small() };
    let mut cluster = Cluster::new(Settings { config, ..Settings::default() });
    elect(&mut cluster, LEADER);
    cluster.cut(LEADER, AWAY);
    cluster.cut(AWAY, LEADER);
    for _ in 0..3 {
        propose(&mut cluster, 5);
        cluster.snapshot(LEADER);
    }
    assert!(cluster.raft(LEADER).marks().window_full > 0);
    cluster.heal();
    begin(&mut cluster, LEADER);
    finish(&mut cluster, LEADER);
}

/// A heartbeat names an entry that the follower has compacted: it is agreed with, since it is committed.
#[test]
fn fault_n11_an_empty_append_behind_a_compaction_is_agreed_with() {
    let mut cluster = Cluster::new(Settings { config: small(), ..Settings::default() });
    elect(&mut cluster, LEADER);
    propose(&mut cluster, 3);
    let queued = {
        cluster.tick_one(LEADER);
        cluster.queued(LEADER, AWAY)
    };
    cluster.drop_link(LEADER, AWAY);
    propose(&mut cluster, 3);
    for _ in 0..3 {
        cluster.tick_one(LEADER);
        cluster.settle();
    }
    cluster.snapshot(AWAY);
    assert!(cluster.raft(AWAY).entry_term(Index(1)).is_none(), "it has compacted");
    for message in queued {
        cluster.input(AWAY, Input::Received { from: LEADER, message });
    }
    agree(&mut cluster);
}

#[test]
fn fault_m10_a_candidate_that_is_sent_a_snapshot_follows_and_does_not_campaign_while_it_is_put_in_place() {
    let mut cluster = away(small());
    begin(&mut cluster, LEADER);
    cluster.tick(Duration::from_millis(1));
    // It asks for votes that nobody gives; its own term is the leader's.
    cluster.campaign(AWAY);
    assert_eq!(cluster.raft(AWAY).role(), Role::PreCandidate);
    cluster.drop_link(AWAY, LEADER);
    cluster.drop_link(AWAY, OTHER);
    step(&mut cluster, LEADER);
    assert_eq!(cluster.raft(AWAY).role(), Role::Follower);
    assert!(cluster.raft(AWAY).is_installing() && !cluster.raft(AWAY).may_take_snapshot());
    finish(&mut cluster, LEADER);
}

#[test]
#[should_panic(expected = "a leader's snapshot ends with")]
fn fault_m12_a_snapshot_that_contradicts_what_is_committed_stops_the_server() {
    let mut cluster = away(small());
    begin(&mut cluster, LEADER);
    let Some(PeerMessage::InstallSnapshot(mut chunk)) = cluster.queued(LEADER, AWAY).first().cloned() else {
        panic!("a chunk is on the way");
    };
    finish(&mut cluster, LEADER);
    chunk.term = Term(chunk.term.0 + 1);
    chunk.meta.last.term = chunk.term;
    cluster.input(AWAY, Input::Received { from: OTHER, message: PeerMessage::InstallSnapshot(chunk) });
}

#[test]
fn fault_m12_a_snapshot_of_what_is_committed_already_is_answered_and_changes_nothing() {
    let mut cluster = away(small());
    begin(&mut cluster, LEADER);
    let first = cluster.queued(LEADER, AWAY);
    finish(&mut cluster, LEADER);
    let applied = cluster.raft(AWAY).applied_index();
    for message in first {
        cluster.input(AWAY, Input::Received { from: LEADER, message });
    }
    assert!(!cluster.raft(AWAY).is_installing());
    assert_eq!(cluster.raft(AWAY).applied_index(), applied);
    agree(&mut cluster);
}

/// An own snapshot that was begun before is published while chunks come in.
#[test]
fn fault_p6_an_own_snapshot_published_during_an_install_is_of_its_own_index() {
    let mut cluster = Cluster::new(Settings { config: small(), ..Settings::default() });
    elect(&mut cluster, LEADER);
    propose(&mut cluster, 5);
    for _ in 0..2 {
        cluster.tick_one(LEADER);
        cluster.settle();
    }
    let own = cluster.raft(AWAY).snapshot_point();
    cluster.isolate(AWAY);
    propose(&mut cluster, 5);
    cluster.tick_one(LEADER);
    cluster.settle();
    cluster.snapshot(LEADER);
    cluster.heal();
    begin(&mut cluster, LEADER);
    step(&mut cluster, LEADER);
    cluster.input(AWAY, Input::SnapshotPublished { meta: own.clone() });
    assert_eq!(cluster.raft(AWAY).snapshot_index(), own.last.index);
    finish(&mut cluster, LEADER);
    assert!(cluster.raft(AWAY).snapshot_index() > own.last.index);
    // Told late, it is no news.
    cluster.input(AWAY, Input::SnapshotPublished { meta: own.clone() });
    assert!(cluster.raft(AWAY).snapshot_index() > own.last.index);
}

/// Entries are committed by the others' copies and applied before this disk has them: so can their snapshot be, with its term.
#[test]
fn a_term_that_only_the_snapshot_shows_is_made_durable_before_anything_is_said_in_it() {
    let mut cluster = away(small());
    begin(&mut cluster, LEADER);
    finish(&mut cluster, LEADER);
    cluster.prepare(AWAY, HardState::default(), Vec::new());
    assert_eq!(cluster.raft(AWAY).term(), cluster.raft(LEADER).term());
    assert_eq!(cluster.raft(AWAY).durable_hard_state().term, Term(0));
    cluster.tick_one(LEADER);
    cluster.deliver_link(LEADER, AWAY);
    assert_eq!(cluster.queued(AWAY, LEADER), []);
    cluster.persist(AWAY);
    assert_eq!(cluster.raft(AWAY).durable_hard_state().term, cluster.raft(LEADER).term());
    assert_ne!(cluster.queued(AWAY, LEADER), []);
    agree(&mut cluster);
}

#[test]
fn a_new_server_gets_the_snapshot_from_whoever_leads() {
    let mut cluster = away(small());
    cluster.prepare(AWAY, HardState::default(), Vec::new());
    begin(&mut cluster, LEADER);
    finish(&mut cluster, LEADER);
}
