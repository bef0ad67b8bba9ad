//! A hostile peer: somebody who passes for a member that is down, and says what no server says (X3).
//!
//! What only a server that lies about itself could say is left out, since nobody claims to bear it: copies that
//! are not there, votes and entries of the present term or of one that might come. Everything else goes: terms
//! and indexes at the end of numbers, answers to nothing, chunks beyond the end, words of earlier terms, words
//! in one's own name.

use atomix_protocol::peer::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Configure, InstallOutcome, InstallSnapshot,
    InstallSnapshotReply, PeerMessage, PreVote, PreVoteReply, RequestVote, RequestVoteReply, SnapshotMeta,
    TimeoutNow,
};
use atomix_protocol::{ClusterTime, Configuration, Entry, EntryId, EntryKind, Index, Round, ServerId, Term};
use atomix_raft::{Input as RaftInput, Raft};
use bytes::Bytes;

use super::Profile;
use super::checker::Check;
use super::faults::Class;
use super::network::Node;
use super::random::Random;
use super::server::Input;
use super::settings::MILLISECOND;
use super::world::{Event, World};

/// Mean time between two attempts.
const MEAN: u64 = 400 * MILLISECOND;
/// An id that nobody ever gets.
const NOBODY: ServerId = ServerId(1 << 40);

/// Numbers that a reader might add one to, or trust.
const ABSURD: [u64; 6] = [0, 1, 1 << 32, (1 << 63) - 1, u64::MAX - 1, u64::MAX];

/// What a stranger knows of whom it speaks to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) term: Term,
    pub(super) last: EntryId,
    pub(super) snapshot: Index,
}

impl Mark {
    pub(super) fn of(raft: &Raft) -> Mark {
        Mark { term: raft.term(), last: raft.last(), snapshot: raft.snapshot_index() }
    }
}

impl World {
    pub(super) fn start_hostile(&mut self) {
        let full = self.profile == Profile::Full;
        if self.swarm.has(Class::X3) || full && (self.swarm.has(Class::O2) || self.swarm.has(Class::N12)) {
            self.after(MEAN, Event::Hostile);
        }
    }

    pub(super) fn on_hostile(&mut self) -> Check {
        if !self.faults_on {
            self.end_impostor();
            return Ok(());
        }
        let wait = self.randoms.hostile.exponential(MEAN) + MILLISECOND;
        self.after(wait, Event::Hostile);
        match self.profile {
            Profile::Core => self.speak_to_bare(),
            Profile::Full => self.send_impostor(),
        }
    }

    /// Members that are down, with the id under which they are known.
    pub(super) fn absent(&self) -> Vec<(Node, ServerId)> {
        let down =
            |server: &&super::server::Server| server.process.is_none() && self.is_member(server.number);
        let ids = self.servers.iter().filter(down).filter_map(|server| Some((server.number, server.id?)));
        ids.collect()
    }

    fn speak_to_bare(&mut self) -> Check {
        let absent = self.absent();
        let Some((_, from)) = self.randoms.hostile.pick(&absent) else { return Ok(()) };
        let up: Vec<Node> = self.servers.iter().filter(|s| s.is_running()).map(|s| s.number).collect();
        let Some(to) = self.randoms.hostile.pick(&up) else { return Ok(()) };
        for _ in 0..self.randoms.hostile.range(1, 8) {
            let Some(raft) = self.servers[to].raft() else { return Ok(()) };
            let (mark, own) = (Mark::of(raft), raft.server());
            let from = match self.randoms.hostile.below(8) {
                0 => own,
                1 => NOBODY,
                _ => from,
            };
            let message = absurd(&mut self.randoms.hostile, mark);
            self.coverage.fault(Class::X3);
            self.trace.change(self.now, || format!("somebody says as {from} to server {own}: {message:?}"));
            self.give(to, Input::Raft(RaftInput::Received { from, message }))?;
        }
        Ok(())
    }
}

/// Something that no server says.
pub(super) fn absurd(r: &mut Random, mark: Mark) -> PeerMessage {
    let number = r.pick(&ABSURD).unwrap_or(0);
    let other = r.pick(&ABSURD).unwrap_or(0);
    // Not a term that an election could come to: either long gone, or one that nobody believes.
    let past = Term(mark.term.0.saturating_sub(1 + r.below(3)));
    let future =
        Term(r.pick(&[u64::MAX, u64::MAX - 1, 1 << 63, mark.term.0 + (1 << 33)]).unwrap_or(u64::MAX));
    let term = if r.chance(0.5) { past } else { future };
    let any = EntryId::new(Term(number), Index(other));
    let time = ClusterTime(number);
    match r.below(12) {
        0 => PeerMessage::PreVote(PreVote { term: if r.chance(0.5) { mark.term } else { term }, last: any }),
        1 => PeerMessage::PreVoteReply(PreVoteReply {
            asked: Term(number),
            granted: number != mark.term.0 + 1,
            current: term,
            sticky: r.chance(0.5),
        }),
        2 => PeerMessage::RequestVote(RequestVote { term, last: any, transfer: Some(Round(number)) }),
        3 => PeerMessage::RequestVoteReply(RequestVoteReply { term, asked: term, granted: true }),
        4 => PeerMessage::AppendEntries(AppendEntries {
            term,
            prev: any,
            leader_commit: Index(u64::MAX),
            last_index: Index(0),
            time,
            promise_ms: u32::MAX,
            round: Round(other),
            entries: entries(r, any),
        }),
        // Far beyond the end nothing can be durable, also not when the log has grown by the time it arrives: no leader can believe
        // it.
        5 => PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term: mark.term,
            round: Round(u64::MAX),
            room: true,
            abstains: false,
            outcome: AppendOutcome::Durable(Index(mark.last.index.0.saturating_add(1 << 32).max(number))),
        }),
        6 => PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term: if r.chance(0.5) { mark.term } else { term },
            round: Round(u64::MAX),
            room: true,
            abstains: false,
            outcome: match r.below(2) {
                0 => AppendOutcome::Mismatch { prev: any, hint: EntryId::new(Term(other), Index(number)) },
                _ => AppendOutcome::StaleTerm,
            },
        }),
        7 => absurd_chunk(term, any, r.chance(0.5)),
        8 => PeerMessage::InstallSnapshotReply(InstallSnapshotReply {
            term: if r.chance(0.5) { mark.term } else { term },
            round: Round(u64::MAX),
            last: if r.chance(0.5) { any } else { EntryId::new(mark.last.term, mark.snapshot) },
            outcome: match r.below(2) {
                0 => InstallOutcome::Next(number.max(1 << 32)),
                _ => InstallOutcome::StaleTerm,
            },
        }),
        9 => PeerMessage::TimeoutNow(TimeoutNow { term, round: Round(number) }),
        10 => PeerMessage::Configure(Configure { term, configuration: Configuration::default() }),
        _ => PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term,
            round: Round(number),
            room: true,
            abstains: false,
            outcome: AppendOutcome::Durable(Index(other)),
        }),
    }
}

/// A chunk that no snapshot has, beyond every end.
fn absurd_chunk(term: Term, last: EntryId, done: bool) -> PeerMessage {
    let (size, offset) = (last.index.0, last.term.0);
    let time = ClusterTime(offset);
    let configuration = Configuration::default();
    PeerMessage::InstallSnapshot(InstallSnapshot {
        term,
        meta: SnapshotMeta { last, time, configuration, size, checksum: 0 },
        offset,
        data: Bytes::from_static(b"absurd"),
        done,
        time,
        round: Round(size),
    })
}

/// Entries that can't follow each other, or lie at the end of numbers.
fn entries(r: &mut Random, prev: EntryId) -> Vec<Entry> {
    let entry = |index: u64| Entry {
        id: EntryId::new(prev.term, Index(index)),
        time: ClusterTime(index),
        kind: EntryKind::Session,
        payload: Bytes::from_static(b"\xFF\xFF"),
    };
    match r.below(3) {
        0 => Vec::new(),
        1 => vec![entry(prev.index.0.saturating_add(1)), entry(prev.index.0.saturating_add(2))],
        _ => vec![entry(1), entry(u64::MAX), entry(0)],
    }
}
