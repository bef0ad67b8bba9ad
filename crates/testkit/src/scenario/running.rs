//! Consensus machines that run by themselves, each by its own clock: links deliver at once and disks write at once,
//! unless they are told not to. For what hangs on time: leases, hand-overs, disks that hang.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use atomix_protocol::change::TransferRefused;
use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{
    Address, Configuration, EntryId, EntryKind, HardState, Incarnation, Index, LocalTime, Member, MemberKind,
    ServerId, Term,
};
use atomix_raft::{Config, Input, Output, Raft, Recovered, Refused, Role};
use bytes::Bytes;

/// One machine. The disk holds what was written by the last process.
#[derive(Debug)]
struct Node {
    raft: Option<Raft>,
    /// How fast its clock runs, in millionths of real time.
    rate: u64,
    disk: Recovered,
    write: Option<(u64, atomix_protocol::WriteBatch)>,
    hung: bool,
    paused: bool,
}

/// A running cluster.
#[derive(Debug)]
pub struct Running {
    config: Config,
    /// Real time.
    now: Duration,
    nodes: BTreeMap<u64, Node>,
    links: BTreeMap<(u64, u64), VecDeque<PeerMessage>>,
    cut: BTreeSet<(u64, u64)>,
    held: BTreeSet<(u64, u64)>,
    /// The greatest index that anybody committed.
    committed: Index,
    leaders: BTreeMap<Term, u64>,
    /// Reads under way: by whom, and what they must see.
    asked: BTreeMap<u64, (u64, Index)>,
    answered: Vec<(u64, bool)>,
    failed_transfers: Vec<(u64, ServerId)>,
    sent: Vec<(u64, u64, PeerMessage)>,
    reads: u64,
    violation: Option<String>,
}

impl Running {
    /// Servers `1..=voters` with these priorities; the rest have zero.
    ///
    /// # Panics
    /// If the settings are not valid.
    #[must_use]
    pub fn new(voters: u64, priorities: &[u8], config: Config) -> Self {
        let member = |id: u64| Member {
            id: ServerId(id),
            incarnation: Incarnation(id.into()),
            peer_address: Address::new(format!("{id}")),
            client_address: Address::new(format!("{id}")),
            kind: MemberKind::Voter,
            priority: priorities.get(id as usize - 1).copied().unwrap_or(0),
        };
        let configuration = Configuration {
            members: (1..=voters).map(member).collect(),
            next_server_id: voters + 1,
            ..Configuration::default()
        };
        let disk = Recovered {
            hard_state: HardState::default(),
            configuration,
            snapshot: None,
            entries: Vec::new(),
            abstention: None,
        };
        let node = |_| Node {
            raft: None,
            rate: 1_000_000,
            disk: disk.clone(),
            write: None,
            hung: false,
            paused: false,
        };
        let mut running = Running {
            config,
            now: Duration::from_secs(10),
            nodes: (1..=voters).map(|id| (id, node(id))).collect(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            committed: Index::ZERO,
            leaders: BTreeMap::new(),
            asked: BTreeMap::new(),
            answered: Vec::new(),
            failed_transfers: Vec::new(),
            sent: Vec::new(),
            reads: 0,
            violation: None,
        };
        (1..=voters).for_each(|id| running.start(id));
        running
    }

    /// How fast a server's clock runs, in millionths of real time. To be said before its first tick.
    pub fn rate(&mut self, id: u64, millionths: u64) {
        self.node(id).rate = millionths;
        self.start(id);
    }

    /// The process comes up with what its disk holds.
    pub fn start(&mut self, id: u64) {
        let (config, now) = (self.config.clone(), self.local(id));
        let node = self.node(id);
        (node.write, node.paused) = (None, false);
        node.raft = Some(Raft::new(config, ServerId(id), node.disk.clone(), id + 100, now));
    }

    /// Its disk fails for good (D5): it says its last word, and is gone.
    pub fn fail(&mut self, id: u64) {
        let now = self.local(id);
        let told = self.node(id).raft.take().and_then(|raft| raft.abdicate(now));
        if let Some((to, message)) = told {
            self.links.entry((id, to.0)).or_default().push_back(message);
            self.work();
        }
        self.stop(id);
    }

    /// The log of a server that is down is damaged behind an index, and so its server abstains (D4).
    pub fn damage(&mut self, id: u64, keep: u64) {
        let disk = &mut self.node(id).disk;
        disk.abstention = disk.abstention.max(disk.entries.last().map(|entry| entry.id.index));
        disk.entries.retain(|entry| entry.id.index.0 <= keep);
    }

    /// Puts a later term on the disk of a server that is down, as if it had campaigned without end.
    pub fn raise_term(&mut self, id: u64, term: u64) {
        self.node(id).disk.hard_state = HardState { term: Term(term), voted_for: None };
    }

    /// The process is gone, and the write that was outstanding with it. Every link to it closes.
    pub fn stop(&mut self, id: u64) {
        self.node(id).raft = None;
        self.node(id).write = None;
        self.links.retain(|(from, to), _| *from != id && *to != id);
        for other in self.others(id) {
            self.step(other, Input::LinkClosed { from: ServerId(id) });
        }
    }

    /// The link that carries what `from` says to `to` closes; another is opened at once, unless that is cut.
    pub fn close(&mut self, from: u64, to: u64) {
        self.links.remove(&(from, to));
        self.step(to, Input::LinkClosed { from: ServerId(from) });
        if !self.cut.contains(&(from, to)) {
            self.step(from, Input::LinkOpened { to: ServerId(to) });
        }
    }

    /// Loses everything between a server and the others from now on; nobody's link closes.
    pub fn isolate(&mut self, id: u64) {
        for other in self.others(id) {
            self.cut.extend([(id, other), (other, id)]);
            self.links.remove(&(id, other));
            self.links.remove(&(other, id));
        }
    }

    /// Loses what `from` says to `to` from now on.
    pub fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    /// Keeps on the way what `from` says to `to`, until it is released.
    pub fn hold(&mut self, from: u64, to: u64) {
        self.held.insert((from, to));
    }

    /// What was kept on the way arrives, in order.
    pub fn release(&mut self, from: u64, to: u64) {
        self.held.remove(&(from, to));
        for message in self.links.remove(&(from, to)).unwrap_or_default() {
            self.step(to, Input::Received { from: ServerId(from), message });
        }
    }

    /// All links work again.
    pub fn heal(&mut self) {
        self.cut.clear();
        for (from, to) in std::mem::take(&mut self.held) {
            self.release(from, to);
        }
    }

    /// Its disk hangs, or writes again.
    pub fn hang(&mut self, id: u64, hung: bool) {
        self.node(id).hung = hung;
    }

    /// The process stands still, or goes on. Its clock goes on all the time.
    pub fn pause(&mut self, id: u64, paused: bool) {
        self.node(id).paused = paused;
    }

    /// Lets so many milliseconds pass.
    pub fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            for id in self.ids() {
                let now = self.local(id);
                if self.raft(id).and_then(Raft::next_deadline).is_some_and(|deadline| deadline <= now) {
                    self.step(id, Input::Tick);
                }
            }
            self.work();
        }
    }

    /// Lets time pass until somebody leads who has committed an entry of its term; at most ten seconds.
    pub fn elect(&mut self) -> Option<u64> {
        self.elect_but(0)
    }

    /// The same, but not this one.
    pub fn elect_but(&mut self, not: u64) -> Option<u64> {
        for _ in 0..10_000 {
            self.run(1);
            let established = |id: &u64| *id != not && self.raft(*id).is_some_and(Raft::is_established);
            if let Some(leader) = self.leader().filter(established) {
                return Some(leader);
            }
        }
        None
    }

    /// Has this server elected first.
    ///
    /// # Panics
    /// If it is not.
    pub fn elect_first(&mut self, id: u64) {
        for other in self.others(id) {
            self.pause(other, true);
        }
        for _ in 0..2_000 {
            if self.raft(id).is_some_and(|raft| raft.role() == Role::PreCandidate) {
                break;
            }
            self.run(1);
        }
        for other in self.others(id) {
            self.pause(other, false);
            self.links.remove(&(other, id));
        }
        self.work();
        assert_eq!(self.elect(), Some(id), "it is elected first");
    }

    /// The server that leads in the latest term, if one does.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let leads = |id: &u64| self.raft(*id).is_some_and(|raft| raft.role() == Role::Leader);
        self.ids().into_iter().filter(leads).max_by_key(|id| self.raft(*id).map(Raft::term))
    }

    /// A machine, if its process runs.
    #[must_use]
    pub fn raft(&self, id: u64) -> Option<&Raft> {
        self.nodes.get(&id)?.raft.as_ref()
    }

    /// A server's clock.
    #[must_use]
    pub fn local(&self, id: u64) -> LocalTime {
        let rate = self.nodes.get(&id).map_or(1_000_000, |node| node.rate);
        LocalTime((self.now.as_micros() as u64).saturating_mul(rate) / 1_000_000)
    }

    /// What was sent since the last call.
    pub fn take_sent(&mut self) -> Vec<(u64, u64, PeerMessage)> {
        std::mem::take(&mut self.sent)
    }

    /// Hand-overs that came to nothing, by whom.
    #[must_use]
    pub fn failed_transfers(&self) -> &[(u64, ServerId)] {
        &self.failed_transfers
    }

    /// The greatest index that anybody committed.
    #[must_use]
    pub fn committed(&self) -> Index {
        self.committed
    }

    /// Reads that were answered, and whether by lease.
    #[must_use]
    pub fn answered(&self) -> &[(u64, bool)] {
        &self.answered
    }

    /// The first property that did not hold.
    ///
    /// # Errors
    /// That property.
    pub fn verdict(&self) -> Result<(), String> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// Proposes a command.
    ///
    /// # Errors
    /// As [`Raft::propose`].
    pub fn propose(&mut self, id: u64) -> Result<EntryId, Refused> {
        let now = self.local(id);
        let command = Bytes::from_static(b"command");
        let proposed = self.machine(id, |raft| raft.propose(now, EntryKind::Session, command, None));
        proposed.unwrap_or(Err(Refused::NotLeader { leader: None }))
    }

    /// Asks for a linearizable read: it must see all that was committed until now.
    ///
    /// # Errors
    /// As [`Raft::read`].
    pub fn read(&mut self, id: u64) -> Result<u64, Refused> {
        self.reads += 1;
        let (now, read) = (self.local(id), self.reads);
        self.asked.insert(read, (id, self.committed));
        let asked = self.machine(id, |raft| raft.read(now, read));
        asked.unwrap_or(Err(Refused::NotLeader { leader: None })).map(|()| read)
    }

    /// Asks a server to hand over.
    ///
    /// # Errors
    /// As [`Raft::transfer`].
    pub fn transfer(&mut self, id: u64, to: Option<u64>) -> Result<ServerId, TransferRefused> {
        let now = self.local(id);
        let asked = self.machine(id, |raft| raft.transfer(now, to.map(ServerId)));
        asked.unwrap_or(Err(TransferRefused::NotLeader { leader: None }))
    }

    /// Gives a machine an input.
    pub fn step(&mut self, id: u64, input: Input) {
        let now = self.local(id);
        self.machine(id, |raft| raft.step(now, input));
    }

    fn machine<T>(&mut self, id: u64, act: impl FnOnce(&mut Raft) -> T) -> Option<T> {
        let node = self.nodes.get_mut(&id).filter(|node| !node.paused)?;
        let outcome = act(node.raft.as_mut()?);
        self.drain(id);
        Some(outcome)
    }

    /// Links deliver and disks write, until nothing moves.
    fn work(&mut self) {
        for _ in 0..10_000 {
            let mut idle = true;
            for (from, to) in self.links.keys().copied().collect::<Vec<_>>() {
                let frozen = self.held.contains(&(from, to)) || self.nodes[&to].paused;
                while let Some(message) =
                    self.links.get_mut(&(from, to)).filter(|_| !frozen).and_then(VecDeque::pop_front)
                {
                    idle = false;
                    self.step(to, Input::Received { from: ServerId(from), message });
                }
            }
            for id in self.ids() {
                idle &= !self.persist(id);
            }
            if idle {
                return;
            }
        }
        self.report("liveness: it never comes to rest".into());
    }

    /// Completes the outstanding write, if the disk works.
    fn persist(&mut self, id: u64) -> bool {
        let node = self.node(id);
        if node.hung || node.paused {
            return false;
        }
        let Some((token, batch)) = node.write.take() else { return false };
        let disk = &mut node.disk;
        disk.hard_state = batch.hard_state.unwrap_or(disk.hard_state);
        if let Some(configuration) = batch.configuration {
            disk.configuration = configuration;
        }
        if let Some(last) = batch.truncate_after {
            disk.entries.retain(|entry| entry.id.index <= last.index);
        }
        disk.entries.extend(batch.entries);
        disk.abstention = batch.abstention.unwrap_or(disk.abstention);
        self.step(id, Input::Written { token });
        true
    }

    fn drain(&mut self, id: u64) {
        loop {
            let now = self.local(id);
            let Some(raft) = self.nodes.get_mut(&id).and_then(|node| node.raft.as_mut()) else { return };
            let outputs = raft.drain(now);
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.carry_out(id, output));
        }
    }

    fn carry_out(&mut self, id: u64, output: Output) {
        match output {
            Output::Send { to, message } => {
                self.sent.push((id, to.0, message.clone()));
                if !self.cut.contains(&(id, to.0)) && self.raft(to.0).is_some() {
                    self.links.entry((id, to.0)).or_default().push_back(message);
                }
            }
            Output::Write { token, batch } => self.node(id).write = Some((token, batch)),
            Output::Committed { entries } => {
                let last = entries.last().map_or(Index::ZERO, |entry| entry.id.index);
                self.committed = self.committed.max(last);
                if let Some(raft) = &mut self.node(id).raft {
                    raft.applied(last);
                }
            }
            Output::ReadsReady { reads, index, lease } => {
                reads.into_iter().for_each(|read| self.answer(read, index, lease));
            }
            Output::RoleChanged { role: Role::Leader, term, .. } => {
                let first = *self.leaders.entry(term).or_insert(id);
                if first != id {
                    self.report(format!("I1: {first} and {id} both lead term {term}"));
                }
            }
            Output::TransferFailed { to } => self.failed_transfers.push((id, to)),
            _ => {}
        }
    }

    fn answer(&mut self, read: u64, index: Index, lease: bool) {
        let Some((id, floor)) = self.asked.remove(&read) else { return };
        self.answered.push((read, lease));
        if index < floor {
            self.report(format!(
                "I9: {id} answers read {read} as of {index}; {floor} was committed before it"
            ));
        }
    }

    fn report(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    fn others(&self, id: u64) -> Vec<u64> {
        self.nodes.keys().copied().filter(|other| *other != id).collect()
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a server")
    }
}
