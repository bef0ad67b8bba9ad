//! One server, its disk, and the messages that it is sent.

use std::time::Duration;

use atomix_protocol::peer::*;
use atomix_protocol::*;
use atomix_raft::{Config, Input, Output, Raft, Recovered, Refused, Role};
use bytes::Bytes;

pub(crate) fn server(id: u64) -> ServerId {
    ServerId(id)
}

pub(crate) fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

pub(crate) fn entry(term: u64, index: u64) -> Entry {
    let time = ClusterTime(index * 10);
    Entry { id: id(term, index), time, kind: EntryKind::Session, payload: Bytes::from_static(b"entry") }
}

/// Entries of these terms from index 1 on.
pub(crate) fn log(terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(1..).map(|(term, index)| entry(*term, index)).collect()
}

/// Voters from 1 on, and learners behind them.
pub(crate) fn configuration(voters: u64, learners: u64) -> Configuration {
    let member = |id, kind| Member {
        id: server(id),
        incarnation: Incarnation(u128::from(id)),
        peer_address: Address::default(),
        client_address: Address::default(),
        kind,
        priority: 0,
    };
    let mut members: Vec<Member> = (1..=voters).map(|id| member(id, MemberKind::Voter)).collect();
    members.extend((1..=learners).map(|id| member(voters + id, MemberKind::Learner)));
    Configuration { members, ..Configuration::default() }
}

pub(crate) fn append(term: u64, prev: EntryId, entries: Vec<Entry>, leader_commit: u64) -> PeerMessage {
    PeerMessage::AppendEntries(AppendEntries {
        term: Term(term),
        prev,
        leader_commit: Index(leader_commit),
        time: ClusterTime(1_000),
        promise_ms: 0,
        round: Round(1),
        entries,
    })
}

pub(crate) fn request_vote(term: u64, last: EntryId) -> PeerMessage {
    PeerMessage::RequestVote(RequestVote { term: Term(term), last, transfer: None })
}

pub(crate) fn pre_vote(term: u64, last: EntryId) -> PeerMessage {
    PeerMessage::PreVote(PreVote { term: Term(term), last })
}

pub(crate) fn pre_vote_granted(asked: u64, current: u64) -> PeerMessage {
    let reply = PreVoteReply { asked: Term(asked), granted: true, current: Term(current), sticky: false };
    PeerMessage::PreVoteReply(reply)
}

pub(crate) fn vote_granted(term: u64) -> PeerMessage {
    let reply = RequestVoteReply { term: Term(term), asked: Term(term), granted: true };
    PeerMessage::RequestVoteReply(reply)
}

fn append_reply(term: u64, round: u64, outcome: AppendOutcome) -> PeerMessage {
    PeerMessage::AppendEntriesReply(AppendEntriesReply { term: Term(term), round: Round(round), outcome })
}

pub(crate) fn durable(term: u64, round: u64, index: u64) -> PeerMessage {
    append_reply(term, round, AppendOutcome::Durable(Index(index)))
}

pub(crate) fn mismatch(term: u64, round: u64, prev: EntryId, hint: EntryId) -> PeerMessage {
    append_reply(term, round, AppendOutcome::Mismatch { prev, hint })
}

/// One server.
pub(crate) struct Machine {
    pub(crate) raft: Raft,
    pub(crate) now: LocalTime,
    /// All there ever were.
    pub(crate) outputs: Vec<Output>,
    /// The one under way.
    pub(crate) write: Option<(u64, WriteBatch)>,
    /// Whether what is handed on is applied at once.
    pub(crate) applies: bool,
    /// What survives a power cut.
    disk: (HardState, Vec<Entry>),
    configuration: Configuration,
}

impl Machine {
    /// Server 1 of these voters and learners, in this term, with a log of these terms.
    pub(crate) fn new(voters: u64, learners: u64, term: u64, terms: &[u64]) -> Self {
        Machine::with(Config::default(), 1, configuration(voters, learners), term, log(terms))
    }

    /// Server 1 of three.
    pub(crate) fn follower(term: u64, terms: &[u64]) -> Self {
        Machine::new(3, 0, term, terms)
    }

    pub(crate) fn with(
        config: Config,
        own: u64,
        configuration: Configuration,
        term: u64,
        entries: Vec<Entry>,
    ) -> Self {
        let hard_state = HardState { term: Term(term), voted_for: None };
        let disk = (hard_state, entries.clone());
        let recovered =
            Recovered { hard_state, configuration: configuration.clone(), snapshot: None, entries };
        // Up for long enough that whatever the process before it may have promised is over (R3).
        let now = LocalTime::from_millis(10_000);
        let raft = Raft::new(config, server(own), recovered, own, LocalTime::from_millis(9_700));
        let (outputs, write) = (Vec::new(), None);
        Machine { raft, now, outputs, write, applies: true, disk, configuration }
    }

    /// Leader of the next term; its first entry went out and is not durable yet.
    pub(crate) fn leader(config: Config, voters: u64, learners: u64, term: u64, terms: &[u64]) -> Self {
        let mut machine = Machine::with(config, 1, configuration(voters, learners), term, log(terms));
        machine.campaign();
        machine.persist();
        for voter in 2..=voters {
            machine.hear(voter, vote_granted(term + 1));
        }
        assert_eq!(machine.raft.role(), Role::Leader);
        machine
    }

    /// Up to the candidate whose write is outstanding.
    pub(crate) fn campaign(&mut self) {
        self.pass(700);
        let (current, voters) = (self.raft.term(), self.configuration.voters().collect::<Vec<_>>());
        for voter in voters {
            if self.raft.role() == Role::PreCandidate && voter != self.raft.server() {
                self.hear(voter.0, pre_vote_granted(current.next().0, current.0));
            }
        }
        assert_eq!(self.raft.role(), Role::Candidate);
    }

    pub(crate) fn input(&mut self, input: Input) -> Vec<Output> {
        self.raft.step(self.now, input);
        self.drain()
    }

    pub(crate) fn drain(&mut self) -> Vec<Output> {
        let outputs = self.raft.drain(self.now);
        for output in &outputs {
            match output {
                Output::Write { token, batch } => {
                    assert!(self.write.replace((*token, batch.clone())).is_none(), "one write at a time");
                }
                Output::Committed { entries } if self.applies => {
                    self.raft.applied(entries[entries.len() - 1].id.index);
                }
                _ => {}
            }
        }
        self.outputs.extend(outputs.iter().cloned());
        outputs
    }

    /// What is said at once when a message arrives.
    pub(crate) fn hear(&mut self, from: u64, message: PeerMessage) -> Vec<PeerMessage> {
        said(&self.input(Input::Received { from: server(from), message }))
    }

    /// What is said when the outstanding write is durable.
    pub(crate) fn persist(&mut self) -> Vec<PeerMessage> {
        let Some((token, batch)) = self.write.take() else { return Vec::new() };
        if let Some(last) = batch.truncate_after {
            self.disk.1.truncate(last.index.0 as usize);
        }
        self.disk.0 = batch.hard_state.unwrap_or(self.disk.0);
        self.disk.1.extend(batch.entries);
        said(&self.input(Input::Written { token }))
    }

    /// The power is cut: what was being written is lost.
    pub(crate) fn restart(self) -> Self {
        let (hard_state, entries) = self.disk;
        let mut machine = Machine::with(
            Config::default(),
            self.raft.server().0,
            self.configuration,
            hard_state.term.0,
            Vec::new(),
        );
        let recovered = Recovered {
            hard_state,
            configuration: machine.configuration.clone(),
            snapshot: None,
            entries: entries.clone(),
        };
        machine.raft = Raft::new(Config::default(), self.raft.server(), recovered, 7, machine.now);
        machine.now = machine.now + Config::default().election_timeout.0;
        machine.disk = (hard_state, entries);
        machine
    }

    pub(crate) fn pass(&mut self, millis: u64) -> Vec<Output> {
        self.now = self.now + Duration::from_millis(millis);
        self.input(Input::Tick)
    }

    pub(crate) fn terms(&self) -> Vec<u64> {
        (1..=self.raft.last().index.0)
            .map(|index| self.raft.entry_term(Index(index)).expect("a known entry").0)
            .collect()
    }

    /// What a client asks for. It goes out with the next drain.
    pub(crate) fn propose_quietly(&mut self, payload: &'static [u8]) -> Result<EntryId, Refused> {
        self.raft.propose(self.now, EntryKind::Session, Bytes::from_static(payload), None)
    }

    pub(crate) fn propose(&mut self, payload: &'static [u8]) -> Vec<PeerMessage> {
        self.propose_quietly(payload).expect("a leader with room");
        said(&self.drain())
    }

    pub(crate) fn matched(&self, follower: u64) -> u64 {
        self.raft.matches().find(|(id, _)| *id == server(follower)).map_or(0, |(_, index)| index.0)
    }

    /// The entries handed on so far.
    pub(crate) fn committed(&self) -> Vec<Entry> {
        let committed = self.outputs.iter().filter_map(|output| match output {
            Output::Committed { entries } => Some(entries.clone()),
            _ => None,
        });
        committed.flatten().collect()
    }
}

pub(crate) fn said(outputs: &[Output]) -> Vec<PeerMessage> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send { message, .. } => Some(message.clone()),
        _ => None,
    });
    sent.collect()
}

pub(crate) fn appends(messages: &[PeerMessage]) -> Vec<AppendEntries> {
    let appends = messages.iter().filter_map(|message| match message {
        PeerMessage::AppendEntries(message) => Some(message.clone()),
        _ => None,
    });
    appends.collect()
}

pub(crate) fn append_replies(messages: &[PeerMessage]) -> Vec<AppendEntriesReply> {
    let replies = messages.iter().filter_map(|message| match message {
        PeerMessage::AppendEntriesReply(reply) => Some(reply.clone()),
        _ => None,
    });
    replies.collect()
}

/// Whether a vote was granted, if one was answered.
pub(crate) fn vote(messages: &[PeerMessage]) -> Option<bool> {
    messages.iter().find_map(|message| match message {
        PeerMessage::RequestVoteReply(reply) => Some(reply.granted),
        _ => None,
    })
}

pub(crate) fn pre_vote_reply(messages: &[PeerMessage]) -> PreVoteReply {
    let reply = messages.iter().find_map(|message| match message {
        PeerMessage::PreVoteReply(reply) => Some(reply.clone()),
        _ => None,
    });
    reply.expect("a pre-vote is answered")
}
