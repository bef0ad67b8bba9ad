//! The machine: recover, step, drain. Only dispatches; the rules are in the files named after them.

use alloc::vec::Vec;

use atomix_protocol::mutant::Mutant;
use atomix_protocol::peer::{PeerMessage, SnapshotMeta};
use atomix_protocol::status::Counters;
use atomix_protocol::{
    ClusterTime, Configuration, Entry, EntryId, HardState, Index, LocalTime, ServerId, Term,
};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use crate::clock::Clock;
use crate::durability::Durability;
use crate::invariant::Checked;
use crate::lease::Promise;
use crate::log::{Log, later};
use crate::progress::Progress;
use crate::role::{Following, State};
use crate::snapshot::Snapshots;
use crate::timer::Timers;
use crate::{Config, Input, Marks, Output, Role, quorum};

/// A term further ahead than this is not believed: no cluster gets there by elections.
const TERM_JUMP: u64 = 1 << 32;

/// What a server found on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The configuration in use when the last write was made, or the initial one.
    pub configuration: Configuration,
    /// The newest published snapshot; the state machine was restored from it.
    pub snapshot: Option<SnapshotMeta>,
    /// The entries after it.
    pub entries: Vec<Entry>,
    /// Part of the log is lost: entries through here may have been acknowledged (D4).
    pub abstention: Option<Index>,
}

/// One server's consensus.
#[derive(Debug)]
pub struct Raft {
    pub(crate) server: ServerId,
    pub(crate) config: Config,
    pub(crate) rng: Xoshiro256PlusPlus,
    /// Term and vote; durable once [`Durability`] says so. Invariant: the term never goes back, one vote per term.
    pub(crate) hard_state: HardState,
    pub(crate) log: Log,
    pub(crate) durability: Durability,
    /// Until when it abstains. Invariant: never set later than at the start, and forgotten only once that is durable (D4).
    pub(crate) abstains_until: Option<Index>,
    /// Whether the disk has room for more than what it keeps in reserve (D5).
    pub(crate) room: bool,
    /// Does not give way to a server with room before then, in whatever term it leads.
    pub(crate) yield_full_at: LocalTime,
    /// Last entry known committed. Invariant: never back, within the log.
    pub(crate) commit_index: Index,
    /// Last entry handed on for applying. Invariant: applied <= handed <= committed.
    pub(crate) handed: Index,
    pub(crate) state: State,
    pub(crate) following: Following,
    /// What it promised to leaders. Invariant: forgotten neither with a term nor with a link (R3).
    pub(crate) promise: Promise,
    pub(crate) snapshots: Snapshots,
    /// The latest configuration known to be committed. Invariant: its index never goes back.
    pub(crate) committed_configuration: Configuration,
    pub(crate) clock: Clock,
    pub(crate) timers: Timers,
    pub(crate) outputs: Vec<Output>,
    pub(crate) counters: Counters,
    pub(crate) marks: Marks,
    pub(crate) checked: Checked,
    /// Role, term and leader as last told.
    reported: (Role, Term, Option<ServerId>),
}

impl Raft {
    /// A server as it comes up: a follower that waits for a leader.
    ///
    /// `seed` decides its jitter.
    ///
    /// # Panics
    /// If `config` does not validate, or `server` is not in the configuration.
    #[must_use]
    pub fn new(config: Config, server: ServerId, recovered: Recovered, seed: u64, now: LocalTime) -> Self {
        assert_eq!(config.validate(), Ok(()), "server {server}: the configuration is not valid");
        let Recovered { mut hard_state, configuration, snapshot, entries, abstention } = recovered;
        let base = snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
        let rebuilds = snapshot.is_some() && entries.is_empty();
        let committed_configuration = match &snapshot {
            Some(meta) => later(meta.configuration.clone(), configuration.clone()),
            None => configuration.clone(),
        };
        let before = snapshot.as_ref().map_or(&configuration, |meta| &meta.configuration);
        let mut log = Log::new(base, before.clone(), entries);
        // A log that holds it also knows which one was in use before. Any other has not come to it, or is dead from there on.
        if !log.carries(&committed_configuration) {
            log.know(committed_configuration.clone());
        }
        // An own snapshot can be durable before the term of its last entry is: entries are applied that this disk lacks.
        let durable = hard_state;
        if log.last().term > hard_state.term {
            hard_state = HardState { term: log.last().term, voted_for: None };
        }
        let mut durability = Durability::new(durable, log.last().index, configuration.index);
        if rebuilds {
            // The log on disk may end before the snapshot, or contradict it: it goes on behind it.
            durability.reset(base);
        }
        let mut clock = Clock::default();
        clock.hear(snapshot.as_ref().map_or(ClusterTime::ZERO, |meta| meta.time));
        if !Mutant::C06.active() {
            clock.hear(log.last_time().unwrap_or_default());
        }
        // Without a term nothing was ever acknowledged.
        let promise = if hard_state.term == Term::ZERO || is_alone(log.configuration()) {
            Promise::default()
        } else {
            Promise::unknown(now, hard_state.term, &config)
        };
        let reported = (Role::Follower, hard_state.term, None);
        let mut raft = Raft {
            server,
            config,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            hard_state,
            log,
            durability,
            abstains_until: abstention.filter(|_| !Mutant::C07.active()),
            room: true,
            yield_full_at: now,
            commit_index: base.index,
            handed: base.index,
            state: State::Follower,
            following: Following::default(),
            promise,
            snapshots: Snapshots::new(snapshot),
            committed_configuration,
            clock,
            timers: Timers::new(now),
            outputs: Vec::new(),
            counters: Counters::default(),
            marks: Marks::default(),
            checked: Checked::default(),
            reported,
        };
        // It may have left: then it takes no part any more. Or the configuration that says so may never be committed.
        let known = [&configuration, &raft.committed_configuration, raft.log.configuration()];
        assert!(
            known.iter().any(|known| known.member(server).is_some()),
            "server {server} is not in the configuration"
        );
        if !quorum::holds(raft.log.configuration(), |voter| voter == server) {
            // A server that is a quorum of its own need not wait for anyone.
            raft.timers.restart_election(now, &raft.config, &mut raft.rng);
        }
        if Mutant::B11.active() && raft.hard_state.voted_for == Some(server) {
            raft.lead(now);
        }
        raft
    }

    /// Takes one input. Outputs gather until [`Raft::drain`].
    pub fn step(&mut self, now: LocalTime, input: Input) {
        match input {
            Input::Tick => self.on_tick(now),
            Input::Received { from, message } => self.on_message(now, from, message),
            Input::LinkOpened { to } => self.on_link_opened(now, to),
            Input::LinkClosed { from } => self.on_link_closed(now, from),
            Input::Written { token } => self.on_written(now, token),
            Input::Fetched { to, from, entries } => self.on_fetched(now, to, from, entries),
            Input::SnapshotPublished { meta } => self.on_snapshot_published(meta),
            Input::ChunkRead { to, last, offset, data } => self.on_chunk_read(now, to, last, offset, data),
            Input::ChunkWritten { last, outcome } => self.on_chunk_written(last, outcome),
            Input::Installed { last } => self.on_installed(now, last),
            Input::NotWritten { token } => self.on_not_written(token),
            Input::Room(room) => self.on_room(room),
        }
        self.tend_change(now);
        self.yield_for_room(now);
        self.report_role();
        self.check_invariants();
    }

    /// Ends a batch of inputs: replicates and writes what gathered, and hands over the outputs in order.
    pub fn drain(&mut self, now: LocalTime) -> Vec<Output> {
        self.begin_read_round(now);
        // Replication leaves before the own write (§10.2.1).
        self.replicate(now);
        let configurations = self.take_committed_configurations();
        let (committed, lifts) = (&self.committed_configuration, self.is_repaired());
        let (term, room) = (self.hard_state, self.room);
        let write = self.durability.next_write(now, term, &self.log, committed, lifts, room);
        if let Some((token, batch)) = write {
            self.outputs.push(Output::Write { token, batch });
        }
        self.hand_on();
        self.outputs.extend(configurations);
        self.check_invariants();
        core::mem::take(&mut self.outputs)
    }

    /// When to call [`Raft::step`] with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LocalTime> {
        Some(self.timers.next(matches!(self.state, State::Leader(_))))
    }

    fn on_tick(&mut self, now: LocalTime) {
        if let State::Leader(leader) = &mut self.state {
            if now >= self.timers.heartbeat {
                // Rounds that reads began do not put this off: what hangs on it would starve under a steady stream of reads.
                self.timers.heartbeat = now + self.config.heartbeat;
                leader.progress.values_mut().for_each(Progress::retry_fetch);
                self.check_quorum(now);
                self.resend_chunks(now);
                self.tend_members(now);
                self.tend_leadership(now);
                self.begin_heartbeat_round(now);
                self.pursue_hand_over();
            }
            return;
        }
        if self.timers.take_fast(now, &mut self.rng) && self.may_campaign(now) {
            self.marks.fast_prevote += 1;
            self.start_pre_vote(now);
        } else if now >= self.timers.election {
            self.on_election_timeout(now);
        }
    }

    fn on_message(&mut self, now: LocalTime, from: ServerId, message: PeerMessage) {
        let term = named_term(&message);
        let believable = term.0 <= self.hard_state.term.0.saturating_add(TERM_JUMP) && term.0 < u64::MAX;
        if from == self.server || !believable {
            self.marks.hostile_refused += 1;
            return;
        }
        if !self.hears(from, &message) {
            self.marks.removed_ignored += 1;
            return;
        }
        match message {
            PeerMessage::PreVote(message) => self.on_pre_vote(now, from, &message),
            PeerMessage::PreVoteReply(reply) => self.on_pre_vote_reply(now, from, &reply),
            PeerMessage::RequestVote(message) => self.on_request_vote(now, from, &message),
            PeerMessage::RequestVoteReply(reply) => self.on_request_vote_reply(now, from, &reply),
            PeerMessage::AppendEntries(message) => self.on_append_entries(now, from, message),
            PeerMessage::AppendEntriesReply(reply) => self.on_append_entries_reply(now, from, reply),
            PeerMessage::InstallSnapshot(message) => self.on_install_snapshot(now, from, message),
            PeerMessage::InstallSnapshotReply(reply) => self.on_install_snapshot_reply(now, from, &reply),
            PeerMessage::TimeoutNow(message) => self.on_timeout_now(now, from, &message),
            PeerMessage::Configure(message) => self.on_configure(now, message),
        }
    }

    /// A write is durable: everything that waited for it goes on (R2).
    fn on_written(&mut self, now: LocalTime, token: u64) {
        let Some(entries) = self.durability.complete(token) else { return };
        self.counters.syncs += 1;
        self.counters.entries_synced += entries;
        self.end_abstention();
        for (to, message) in self.durability.release(self.hard_state) {
            self.send_now(to, message);
        }
        self.count_own_vote(now);
        self.acknowledge_durable();
        self.advance_commit();
        self.release_memory();
    }

    /// Sends a message, not before term and vote are durable: whatever is said depends on them (R2).
    pub(crate) fn send(&mut self, to: ServerId, message: PeerMessage) {
        if self.durability.hard_state() == self.hard_state {
            self.send_now(to, message);
        } else {
            self.durability.hold(self.hard_state.term, to, message);
        }
    }

    pub(crate) fn send_now(&mut self, to: ServerId, message: PeerMessage) {
        self.outputs.push(Output::Send { to, message });
    }

    fn report_role(&mut self) {
        let present = (self.role(), self.hard_state.term, self.leader());
        if present != self.reported {
            self.reported = present;
            let (role, term, leader) = present;
            self.outputs.push(Output::RoleChanged { role, term, leader });
        }
    }
}

/// Whether nobody but the first server was ever a member: then nobody else can ever have led.
fn is_alone(configuration: &Configuration) -> bool {
    configuration.members.len() == 1 && configuration.next_server_id <= 2
}

/// The term in which a message claims that a server is, or may soon be.
fn named_term(message: &PeerMessage) -> Term {
    match message {
        PeerMessage::PreVote(message) => message.term,
        PeerMessage::PreVoteReply(reply) => reply.current,
        PeerMessage::RequestVote(message) => message.term,
        PeerMessage::RequestVoteReply(reply) => reply.term,
        PeerMessage::AppendEntries(message) => message.term,
        PeerMessage::AppendEntriesReply(reply) => reply.term,
        PeerMessage::InstallSnapshot(message) => message.term,
        PeerMessage::InstallSnapshotReply(reply) => reply.term,
        PeerMessage::TimeoutNow(message) => message.term,
        PeerMessage::Configure(message) => message.term,
    }
}
