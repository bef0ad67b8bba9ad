//! One consensus machine by hand, and its disk: for tests of single rules, in which the test is everyone else.

use std::time::Duration;

use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{
    Configuration, Entry, EntryId, EntryKind, HardState, Index, LocalTime, Term, WriteBatch,
};
use atomix_raft::{Config, Input, Output, Raft, Recovered, Refused, Role};
use bytes::Bytes;

use super::words::{configuration, log, pre_vote_granted, said, server, vote_granted};

/// One server.
#[derive(Debug)]
pub struct Machine {
    /// The machine itself.
    pub raft: Raft,
    /// Its clock.
    pub now: LocalTime,
    /// All there ever were.
    pub outputs: Vec<Output>,
    /// The one under way.
    pub write: Option<(u64, WriteBatch)>,
    /// Whether what is handed on is applied at once.
    pub applies: bool,
    /// What survives a power cut.
    disk: (HardState, Vec<Entry>, Option<Index>),
    configuration: Configuration,
}

impl Machine {
    /// Server 1 of these voters and learners, in this term, with a log of these terms.
    pub fn new(voters: u64, learners: u64, term: u64, terms: &[u64]) -> Self {
        Machine::with(Config::default(), 1, configuration(voters, learners), term, log(terms))
    }

    /// Server 1 of three.
    pub fn follower(term: u64, terms: &[u64]) -> Self {
        Machine::new(3, 0, term, terms)
    }

    /// Server `own` of this configuration, in this term, with these entries on its disk.
    pub fn with(
        config: Config,
        own: u64,
        configuration: Configuration,
        term: u64,
        entries: Vec<Entry>,
    ) -> Self {
        let hard_state = HardState { term: Term(term), voted_for: None };
        let recovered = Recovered { hard_state, configuration, snapshot: None, entries, abstention: None };
        Machine::recovered(config, own, recovered)
    }

    /// Server `own`, with what is on its disk. It has been up for so long that whatever the process before it may have promised is
    /// over (R3).
    pub fn recovered(config: Config, own: u64, recovered: Recovered) -> Self {
        let disk = (recovered.hard_state, recovered.entries.clone(), recovered.abstention);
        let configuration = recovered.configuration.clone();
        let now = LocalTime::from_millis(10_000);
        let raft = Raft::new(config, server(own), recovered, 7, LocalTime::from_millis(9_700));
        let (outputs, write) = (Vec::new(), None);
        Machine { raft, now, outputs, write, applies: true, disk, configuration }
    }

    /// Leader of the next term; its first entry went out and is not durable yet.
    ///
    /// # Panics
    /// If it is not elected.
    pub fn leader(config: Config, voters: u64, learners: u64, term: u64, terms: &[u64]) -> Self {
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
    ///
    /// # Panics
    /// If it does not come so far.
    pub fn campaign(&mut self) {
        self.pass(700);
        let (current, voters) = (self.raft.term(), self.configuration.voters().collect::<Vec<_>>());
        for voter in voters {
            if self.raft.role() == Role::PreCandidate && voter != self.raft.server() {
                self.hear(voter.0, pre_vote_granted(current.next().0, current.0));
            }
        }
        assert_eq!(self.raft.role(), Role::Candidate);
    }

    /// Takes an input, and carries out what is not sent. Everything that it asked for.
    pub fn input(&mut self, input: Input) -> Vec<Output> {
        self.raft.step(self.now, input);
        self.drain()
    }

    /// Ends a batch of inputs. Everything that it asked for.
    ///
    /// # Panics
    /// If it begins a write while another is outstanding (D2).
    pub fn drain(&mut self) -> Vec<Output> {
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
    pub fn hear(&mut self, from: u64, message: PeerMessage) -> Vec<PeerMessage> {
        said(&self.input(Input::Received { from: server(from), message }))
    }

    /// What is said when the outstanding write is durable.
    pub fn persist(&mut self) -> Vec<PeerMessage> {
        let Some((token, batch)) = self.write.take() else { return Vec::new() };
        if let Some(last) = batch.truncate_after {
            self.disk.1.truncate(last.index.0 as usize);
        }
        self.disk.0 = batch.hard_state.unwrap_or(self.disk.0);
        self.disk.1.extend(batch.entries);
        self.disk.2 = batch.abstention.unwrap_or(self.disk.2);
        said(&self.input(Input::Written { token }))
    }

    /// The power is cut: what was being written is lost.
    #[must_use]
    pub fn restart(self) -> Self {
        let ((hard_state, entries, abstention), configuration) = (self.disk, self.configuration);
        let recovered = Recovered { hard_state, configuration, snapshot: None, entries, abstention };
        Machine::recovered(Config::default(), self.raft.server().0, recovered)
    }

    /// Time passes.
    pub fn pass(&mut self, millis: u64) -> Vec<Output> {
        self.now = self.now + Duration::from_millis(millis);
        self.input(Input::Tick)
    }

    /// The terms of its log, from index 1 on.
    ///
    /// # Panics
    /// If it does not know them all any more.
    pub fn terms(&self) -> Vec<u64> {
        (1..=self.raft.last().index.0)
            .map(|index| self.raft.entry_term(Index(index)).expect("a known entry").0)
            .collect()
    }

    /// What a client asks for. It goes out with the next drain.
    ///
    /// # Errors
    /// If it is refused.
    pub fn propose_quietly(&mut self, payload: &'static [u8]) -> Result<EntryId, Refused> {
        self.raft.propose(self.now, EntryKind::Session, Bytes::from_static(payload), None)
    }

    /// What a client asks for. What is said at once.
    ///
    /// # Panics
    /// If it is refused.
    pub fn propose(&mut self, payload: &'static [u8]) -> Vec<PeerMessage> {
        self.propose_quietly(payload).expect("a leader with room");
        said(&self.drain())
    }

    /// Through where this leader believes a follower's copy to be durable.
    pub fn matched(&self, follower: u64) -> u64 {
        self.raft.matches().find(|(id, _)| *id == server(follower)).map_or(0, |(_, index)| index.0)
    }

    /// The entries handed on so far.
    pub fn committed(&self) -> Vec<Entry> {
        let committed = self.outputs.iter().filter_map(|output| match output {
            Output::Committed { entries } => Some(entries.clone()),
            _ => None,
        });
        committed.flatten().collect()
    }
}
