//! One machine by itself.

use std::time::Duration;

use atomix_protocol::peer::{AppendEntriesReply, AppendOutcome, PeerMessage, PreVoteReply, RequestVoteReply};
use atomix_protocol::{
    Address, Configuration, HardState, Incarnation, Index, LocalTime, Member, MemberKind, ServerId, Term,
};
use atomix_raft::{Config, Input, Output, Raft, Recovered, Role};

/// One machine, by hand, whose disk writes at once; the test is everyone else.
pub(crate) struct Single {
    pub(crate) raft: Raft,
    pub(crate) now: LocalTime,
    /// What came of the last input.
    pub(crate) last: Vec<Output>,
}

impl Single {
    /// Of these members, as it comes up.
    pub(crate) fn new(id: u64, config: Config, term: Term, members: &[(u64, MemberKind, u8)]) -> Self {
        let member = |(id, kind, priority): &(u64, MemberKind, u8)| Member {
            id: ServerId(*id),
            incarnation: Incarnation((*id).into()),
            peer_address: Address::default(),
            client_address: Address::default(),
            kind: *kind,
            priority: *priority,
        };
        let members = members.iter().map(member).collect();
        let configuration = Configuration { members, next_server_id: 4, ..Configuration::default() };
        let hard_state = HardState { term, voted_for: None };
        let recovered =
            Recovered { hard_state, configuration, snapshot: None, entries: Vec::new(), abstention: None };
        let now = LocalTime::from_millis(10_000);
        Single { raft: Raft::new(config, ServerId(id), recovered, 7, now), now, last: Vec::new() }
    }

    /// Its disk writes at once.
    pub(crate) fn drain(&mut self) -> Vec<Output> {
        self.last.clear();
        loop {
            let outputs = self.raft.drain(self.now);
            if outputs.is_empty() {
                return self.last.clone();
            }
            for output in outputs {
                match &output {
                    Output::Write { token, .. } => self.raft.step(self.now, Input::Written { token: *token }),
                    Output::Committed { entries } => self.raft.applied(entries[entries.len() - 1].id.index),
                    _ => {}
                }
                self.last.push(output);
            }
        }
    }

    pub(crate) fn input(&mut self, input: Input) -> Vec<PeerMessage> {
        self.raft.step(self.now, input);
        let outputs = self.drain().into_iter();
        let sent = outputs.filter_map(|output| match output {
            Output::Send { message, .. } => Some(message),
            _ => None,
        });
        sent.collect()
    }

    pub(crate) fn hear(&mut self, from: u64, message: PeerMessage) -> Vec<PeerMessage> {
        self.input(Input::Received { from: ServerId(from), message })
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.input(Input::Tick);
    }

    /// Has it elected by server 2.
    pub(crate) fn lead(&mut self) {
        self.pass(700);
        let (current, asked) = (self.raft.term(), self.raft.term().next());
        self.hear(
            2,
            PeerMessage::PreVoteReply(PreVoteReply { asked, granted: true, current, sticky: false }),
        );
        self.hear(2, PeerMessage::RequestVoteReply(RequestVoteReply { term: asked, asked, granted: true }));
        assert_eq!(self.raft.role(), Role::Leader);
    }

    /// A follower answers the last round.
    pub(crate) fn answer(&mut self, from: u64, durable: Index) {
        let outcome = AppendOutcome::Durable(durable);
        let reply = AppendEntriesReply {
            term: self.raft.term(),
            round: self.raft.round(),
            room: true,
            abstains: false,
            outcome,
        };
        self.hear(from, PeerMessage::AppendEntriesReply(reply));
    }
}
