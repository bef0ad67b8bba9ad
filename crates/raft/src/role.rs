//! The roles of a server and the ways from one to another (§3.3, §3.4, §9.6).
//!
//! ```text
//!             no leader heard          quorum would vote           quorum voted
//! Follower ───────────────► PreCandidate ───────────► Candidate ───────────► Leader
//!    ▲   TimeoutNow: ────────────────────────────────────▲                     │
//!    └──────── a leader of the term is heard, or a later term, or no quorum answers ──┘
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use atomix_protocol::mutant::Mutant;
use atomix_protocol::{ClusterTime, EntryKind, HardState, Index, LocalTime, Round, ServerId, Term};
use bytes::Bytes;

use crate::lease::{Lease, Promise};
use crate::progress::Progress;
use crate::read_index::Reads;
use crate::transfer::HandOver;
use crate::{Output, Raft, quorum};

/// What a server is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Listens to a leader, or waits for one.
    Follower,
    /// Asks whether a campaign could win (§9.6).
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    /// In words, for status and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        }
    }
}

/// What a server keeps for its role only.
#[derive(Debug)]
pub(crate) enum State {
    Follower,
    PreCandidate(Ballot),
    Candidate(Ballot),
    Leader(Box<Leader>),
}

/// Who has said yes to a campaign.
#[derive(Debug, Default)]
pub(crate) struct Ballot {
    pub(crate) granted: BTreeSet<ServerId>,
    /// Who has said no to the question whether it could win, in this attempt or one right before, though it knows no leader.
    pub(crate) refused: BTreeSet<ServerId>,
    /// Set when a TimeoutNow caused the campaign (§3.10): who sent it, and the round it named.
    pub(crate) transfer: Option<(ServerId, Round)>,
}

/// What a leader keeps (Figure 3.1: volatile state on leaders).
#[derive(Debug)]
pub(crate) struct Leader {
    /// Index of the first entry of its term (R1).
    pub(crate) first: Index,
    pub(crate) progress: BTreeMap<ServerId, Progress>,
    /// Found to have less than it acknowledged, and does not abstain for it (D4).
    pub(crate) forgetful: Option<ServerId>,
    pub(crate) reads: Reads,
    /// Where its log ended at each heartbeat of the last election timeout, and at the one before.
    pub(crate) ends: VecDeque<(LocalTime, Index)>,
    /// Heartbeats since its election.
    pub(crate) beats: u32,
    /// The committed configuration leaves it out: it has begun to hand over.
    pub(crate) gives_way: bool,
    pub(crate) lease: Lease,
    /// When it was elected.
    pub(crate) since: LocalTime,
    /// The leader that handed over to this one (§3.10).
    pub(crate) given_by: Option<ServerId>,
    /// Leadership is being handed over.
    pub(crate) hand_over: Option<HandOver>,
    /// When its own disk was found to hang (D6).
    pub(crate) stalled: Option<LocalTime>,
    /// Does not give way to a greater priority before then.
    pub(crate) yield_at: LocalTime,
}

/// What a server keeps of the leader of its term. Forgotten with the term.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// The leader of this term, itself included. Invariant: never changes within a term (§3.4).
    pub(crate) leader: Option<ServerId>,
    /// It went silent, or gave up: it is no longer worth a redirection.
    pub(crate) lost: bool,
    /// When it was last heard.
    pub(crate) heard: Option<LocalTime>,
    /// Its link closed since: stickiness is lifted (R4).
    pub(crate) lifted: bool,
    /// When its last AppendEntries came, and the commit index in it (Q4).
    pub(crate) fresh: Option<(LocalTime, Index)>,
    /// The log agrees with the leader's through here.
    pub(crate) matched: Index,
    /// As far as its log is known to reach (D4).
    pub(crate) leaders_last: Option<Index>,
    /// The greatest round it sent.
    pub(crate) round: Round,
    /// The greatest round it sent in AppendEntries, whose promise this server has made (R3).
    pub(crate) promised: Round,
    /// The greatest round that was answered.
    pub(crate) answered: Round,
    /// An acknowledgement waits for the disk (R2).
    pub(crate) ack_due: bool,
}

impl Raft {
    /// Adopts a later term, which has no known leader yet (§3.3).
    pub(crate) fn adopt_term(&mut self, now: LocalTime, term: Term) {
        if term > self.hard_state.term {
            self.follow(now);
            self.hard_state = HardState { term, voted_for: None };
            self.following = Following::default();
            self.abandon_snapshot();
        }
    }

    /// Becomes a follower in the present term.
    pub(crate) fn follow(&mut self, now: LocalTime) {
        let state = core::mem::replace(&mut self.state, State::Follower);
        if let State::Leader(leader) = state {
            self.promise_own_lease(now, &leader.lease, leader.reads.round);
            let reads = leader.reads.into_all();
            let mut own =
                self.log.slice(self.commit_index.next(), self.log.last().index, u64::MAX).into_iter();
            if !reads.is_empty()
                || own.any(|e| e.kind == EntryKind::Session && e.id.term == self.hard_state.term)
            {
                self.marks.leader_deposed_with_requests += 1;
            }
            if !reads.is_empty() {
                self.outputs.push(Output::ReadsFailed { reads });
            }
            self.following.lost = true;
            self.clock.follow(now);
            self.timers.restart_election(now, &self.config, &mut self.rng);
            self.compact_log();
        }
    }

    /// Takes note of the leader of `term`, which is at least the present one. False if that server can't lead it: then its
    /// message is ignored.
    pub(crate) fn hear_leader(
        &mut self,
        now: LocalTime,
        from: ServerId,
        term: Term,
        time: ClusterTime,
        round: Round,
    ) -> bool {
        self.adopt_term(now, term);
        if self.following.leader.is_some_and(|leader| leader != from)
            || matches!(self.state, State::Leader(_))
        {
            self.marks.hostile_refused += 1;
            return false;
        }
        self.follow(now);
        self.following.leader = Some(from);
        self.following.lost = false;
        self.following.heard = Some(now);
        self.following.lifted = false;
        self.following.round = self.following.round.max(round);
        self.clock.hear(time);
        self.timers.stop_fast();
        self.timers.restart_election(now, &self.config, &mut self.rng);
        true
    }

    /// Starts to lead (§3.4), with an entry of its own term (R1).
    pub(crate) fn lead(&mut self, now: LocalTime) {
        let last = self.log.last().index;
        let start = if Mutant::C06.active() {
            self.snapshots.applied_time
        } else {
            // T1: the last entry, committed or not, the snapshot, or a heartbeat, whichever is latest.
            self.clock.heard().max(self.log.last_time().unwrap_or_default())
        };
        self.clock.lead(now, start);
        let given_by = match &self.state {
            State::Candidate(ballot) => ballot.transfer.map(|(leader, _)| leader),
            _ => None,
        };
        let followers =
            quorum::log_holders(self.log.configuration()).into_iter().filter(|id| *id != self.server);
        let progress = followers.map(|id| (id, Progress::new(last, now))).collect();
        self.following.leader = Some(self.server);
        self.following.lost = false;
        self.timers.stop_fast();
        self.timers.heartbeat = now + self.config.heartbeat;
        let first = last.next();
        self.state = State::Leader(Box::new(Leader {
            first,
            progress,
            forgetful: None,
            reads: Reads::default(),
            ends: [(now, first)].into(),
            beats: 0,
            gives_way: false,
            lease: Lease::new(&self.config),
            since: now,
            given_by,
            hand_over: None,
            stalled: None,
            yield_at: now,
        }));
        self.append_own(now, EntryKind::NoOp, Bytes::new());
        self.begin_round(now);
    }

    /// Whether this server could lead: it votes, nothing that it should hold is lost (D4), no snapshot is being put in place of its
    /// state (R6), and its disk does not hang (D6).
    pub(crate) fn is_eligible(&self, now: LocalTime) -> bool {
        self.counts_as_voter()
            && !self.abstains()
            && !self.snapshots.is_replacing()
            && !self.is_disk_stalled(now)
    }

    /// Whether this server votes, or did until a configuration that is not known to be committed. In that case it may be the only
    /// one that could be elected: others may need its vote, and it gives it to no shorter log (§4.2.2).
    fn counts_as_voter(&self) -> bool {
        let latest = self.log.configuration();
        let before = self.log.configuration_before().filter(|_| !self.is_configuration_committed());
        quorum::votes(latest, self.server) || before.is_some_and(|before| quorum::votes(before, self.server))
    }

    /// Whether this server may campaign: it could lead, and has promised nobody not to (R3).
    pub(crate) fn may_campaign(&self, now: LocalTime) -> bool {
        self.is_eligible(now) && !self.is_bound(now, None)
    }

    /// Whether a leader is alive as far as this server can tell, so that nobody else gets its vote (§4.2.3). A closed link to the
    /// leader lifts it (R4). A leader that asks for votes itself has given up.
    pub(crate) fn is_sticky(&self, now: LocalTime, candidate: ServerId) -> bool {
        let shortest = self.config.election_timeout.0;
        if matches!(self.state, State::Leader(_)) {
            return self.quorum_contact(now).is_some_and(|contact| now.since(contact) < shortest);
        }
        let another = self.following.leader != Some(candidate);
        another
            && !self.following.lifted
            && self.following.heard.is_some_and(|heard| now.since(heard) < shortest)
    }

    /// No leader for an election timeout: asks whether a campaign could win.
    pub(crate) fn on_election_timeout(&mut self, now: LocalTime) {
        self.timers.restart_election(now, &self.config, &mut self.rng);
        self.following.lost = true;
        if self.may_campaign(now) {
            self.start_pre_vote(now);
        }
    }

    /// The link that carried that server's messages closed. If it leads, it may be dead (R4). What this server promised it stands
    /// all the same (R3): the fast pre-vote waits for the end of that.
    pub(crate) fn on_link_closed(&mut self, now: LocalTime, from: ServerId) {
        let follows = self.following.leader == Some(from) && matches!(self.state, State::Follower);
        if follows && self.is_eligible(now) {
            if Mutant::C09.active() {
                self.promise = Promise::default();
            }
            self.following.lifted = true;
            self.timers.start_fast(now.max(self.promise.until()), &mut self.rng);
        }
    }
}
