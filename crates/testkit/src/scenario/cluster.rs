//! A handful of consensus machines, with links and disks that do nothing on their own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{
    Configuration, Entry, EntryId, EntryKind, HardState, Index, LocalTime, MemberKind, ServerId, WriteBatch,
};
use atomix_raft::{Config, Input, Output, Raft, Recovered, Refused, Role};
use atomix_storage::Storage;
use bytes::Bytes;

use super::members::member;
use super::server::{Server, prefix, read_snapshot};
use super::{Checker, render};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers `1..=voters` vote.
    pub voters: u64,
    /// The servers behind them do not.
    pub learners: u64,
    /// Timeouts and limits of all.
    pub config: Config,
    /// Decides all jitter.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { voters: 3, learners: 0, config: Config::default(), seed: 1 }
    }
}

/// Consensus machines, their disks and the links between them.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    configuration: Configuration,
    now: LocalTime,
    pub(super) servers: BTreeMap<ServerId, Server>,
    links: BTreeMap<(ServerId, ServerId), VecDeque<PeerMessage>>,
    cut: BTreeSet<(ServerId, ServerId)>,
    pub(super) checker: Checker,
    log: Vec<String>,
    boots: u64,
}

impl Cluster {
    /// A cluster with empty disks.
    ///
    /// # Panics
    /// If the settings make no cluster.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let ids: Vec<u64> = (1..=settings.voters + settings.learners).collect();
        let kind = |id: u64| if id <= settings.voters { MemberKind::Voter } else { MemberKind::Learner };
        let configuration = Configuration {
            members: ids.iter().map(|id| member(*id, kind(*id))).collect(),
            next_server_id: ids.len() as u64 + 1,
            ..Configuration::default()
        };
        let mut cluster = Cluster {
            settings,
            configuration: configuration.clone(),
            now: LocalTime::from_millis(1_000),
            servers: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            checker: Checker::new(configuration.clone()),
            log: Vec::new(),
            boots: 0,
        };
        for id in ids.into_iter().map(ServerId) {
            cluster.add_server(id, Server::empty());
            cluster.restart(id);
        }
        cluster
    }

    /// A server that does not run yet.
    pub(super) fn add_server(&mut self, id: ServerId, server: Server) {
        self.servers.insert(id, server);
    }

    pub(super) fn server(&self, id: ServerId) -> &Server {
        &self.servers[&id]
    }

    pub(super) fn raft_mut(&mut self, id: ServerId) -> Option<&mut Raft> {
        self.servers.get_mut(&id)?.raft.as_mut()
    }

    /// Puts term, vote and entries on a server's disk, as if it had crashed with them, and starts it again.
    pub fn prepare(&mut self, id: ServerId, hard_state: HardState, entries: Vec<Entry>) {
        self.crash(id, 0);
        self.checker.wrote(id, Some(EntryId::ZERO), &entries);
        let batch = WriteBatch { hard_state: Some(hard_state), entries, ..WriteBatch::default() };
        self.servers.get_mut(&id).expect("a server").disk.write(&batch).expect("memory has no errors");
        self.restart(id);
    }

    /// The machine of a server.
    ///
    /// # Panics
    /// If it is down.
    #[must_use]
    pub fn raft(&self, id: ServerId) -> &Raft {
        self.servers[&id].raft.as_ref().expect("the server is up")
    }

    /// All servers that are up, ascending.
    #[must_use]
    pub fn up(&self) -> Vec<ServerId> {
        self.servers.iter().filter(|(_, server)| server.raft.is_some()).map(|(id, _)| *id).collect()
    }

    /// All servers, ascending.
    #[must_use]
    pub fn all(&self) -> Vec<ServerId> {
        self.servers.keys().copied().collect()
    }

    /// The server that leads in the latest term, if one does.
    #[must_use]
    pub fn leader(&self) -> Option<ServerId> {
        let leaders = self.up().into_iter().filter(|id| self.raft(*id).role() == Role::Leader);
        leaders.max_by_key(|id| self.raft(*id).term())
    }

    /// The clock.
    #[must_use]
    pub fn now(&self) -> LocalTime {
        self.now
    }

    /// What was checked.
    #[must_use]
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Reads answered by a server, with the index that each must see, since the last call.
    pub fn take_ready(&mut self, id: ServerId) -> Vec<(u64, Index)> {
        self.servers.get_mut(&id).map(|server| std::mem::take(&mut server.ready)).unwrap_or_default()
    }

    /// Reads that a server gave up, since the last call.
    pub fn take_failed(&mut self, id: ServerId) -> Vec<u64> {
        self.servers.get_mut(&id).map(|server| std::mem::take(&mut server.failed)).unwrap_or_default()
    }

    /// What happened since the last call, in words.
    pub fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// Messages on the way from one server to another, the oldest first.
    #[must_use]
    pub fn queued(&self, from: ServerId, to: ServerId) -> Vec<PeerMessage> {
        self.links.get(&(from, to)).map(|queue| queue.iter().cloned().collect()).unwrap_or_default()
    }

    /// Links that hold messages, with how many.
    #[must_use]
    pub fn busy_links(&self) -> Vec<(ServerId, ServerId, usize)> {
        let links = self.links.iter().filter(|(_, queue)| !queue.is_empty());
        links.map(|((from, to), queue)| (*from, *to, queue.len())).collect()
    }

    /// Whether a write is outstanding.
    #[must_use]
    pub fn is_writing(&self, id: ServerId) -> bool {
        self.servers[&id].write.is_some()
    }

    // Time.

    /// Lets time pass for all that are up; everyone notices every deadline.
    pub fn tick(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, id)) = self.next_deadline().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.input(id, Input::Tick);
        }
        self.now = end;
    }

    /// Lets time pass until this server's next deadline, unnoticed by the others.
    pub fn tick_one(&mut self, id: ServerId) {
        if let Some(at) = self.raft(id).next_deadline() {
            self.now = self.now.max(at);
        }
        self.input(id, Input::Tick);
    }

    /// Lets an election timeout pass, noticed by this server only.
    pub fn campaign(&mut self, id: ServerId) {
        self.now = self.now + self.settings.config.election_timeout.1;
        self.tick_one(id);
    }

    fn next_deadline(&self) -> Option<(LocalTime, ServerId)> {
        let deadline = |id: &ServerId| self.raft(*id).next_deadline().map(|at| (at, *id));
        self.up().iter().filter_map(deadline).min()
    }

    // Links.

    /// Delivers the message at `position` of a link; `keep` leaves it there, so that it arrives again.
    pub fn deliver(&mut self, from: ServerId, to: ServerId, position: usize, keep: bool) {
        let Some(queue) = self.links.get_mut(&(from, to)) else { return };
        let message = if keep { queue.get(position).cloned() } else { queue.remove(position) };
        if let Some(message) = message.filter(|_| self.servers.get(&to).is_some_and(|s| s.raft.is_some())) {
            self.input(to, Input::Received { from, message });
        }
    }

    /// Delivers what is on a link now, in order.
    pub fn deliver_link(&mut self, from: ServerId, to: ServerId) {
        for _ in 0..self.queued(from, to).len() {
            self.deliver(from, to, 0, false);
        }
    }

    /// Loses what is on a link.
    pub fn drop_link(&mut self, from: ServerId, to: ServerId) {
        self.links.remove(&(from, to));
    }

    /// Loses one message of a link.
    pub fn drop_message(&mut self, from: ServerId, to: ServerId, position: usize) {
        if let Some(queue) = self.links.get_mut(&(from, to)) {
            queue.remove(position);
        }
    }

    /// Loses everything that is sent from one to the other from now on.
    pub fn cut(&mut self, from: ServerId, to: ServerId) {
        self.cut.insert((from, to));
        self.drop_link(from, to);
    }

    /// Cuts a server off, both ways.
    pub fn isolate(&mut self, id: ServerId) {
        for other in self.all() {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// Mends all links.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Delivers and persists until nothing moves; time stands still.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let links = self.busy_links();
            links.iter().for_each(|(from, to, _)| self.deliver_link(*from, *to));
            let writing: Vec<ServerId> = self.all().into_iter().filter(|id| self.is_writing(*id)).collect();
            writing.iter().for_each(|id| self.persist(*id));
            if links.is_empty() && writing.is_empty() {
                return;
            }
        }
        self.checker.report("liveness: it never settles");
    }

    // Disks.

    /// Completes the outstanding write.
    pub fn persist(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some((token, batch)) = server.write.take() else { return };
        server.disk.write(&batch).expect("memory has no errors");
        if batch.abstention == Some(None) {
            self.look_at_repair(id);
        }
        self.input(id, Input::Written { token });
    }

    /// Crashes a server. Of the outstanding write the first `kept` parts are found on the disk.
    pub fn crash(&mut self, id: ServerId, kept: usize) {
        let server = self.servers.get_mut(&id).expect("a server");
        let written = server.write.take().filter(|_| kept > 0).map(|(_, batch)| prefix(batch, kept));
        if let Some(batch) = &written {
            server.disk.write(batch).expect("memory has no errors");
        }
        server.raft = None;
        if written.is_some_and(|batch| batch.abstention == Some(None)) {
            self.look_at_repair(id);
        }
        for other in self.all() {
            self.drop_link(id, other);
            self.drop_link(other, id);
        }
    }

    /// Starts a server with what its disk holds.
    pub fn restart(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("a server");
        let mut entries = Vec::new();
        let found = server.disk.recover(&mut |entry| entries.push(entry)).expect("memory has no errors");
        let last = found.snapshot.as_ref().map(|meta| meta.last);
        server.followed.clear();
        server.state = last.map(|last| read_snapshot(&mut server.disk, last)).unwrap_or_default();
        let recovered = Recovered {
            hard_state: found.hard_state,
            configuration: found.configuration.unwrap_or_else(|| self.configuration.clone()),
            snapshot: found.snapshot,
            entries,
            abstention: found.abstention,
        };
        self.boots += 1;
        let seed = self.settings.seed.wrapping_mul(1_000).wrapping_add(self.boots);
        server.raft = Some(Raft::new(self.settings.config.clone(), id, recovered, seed, self.now));
        self.drain(id);
    }

    /// Takes and publishes a snapshot of what a server has applied.
    pub fn snapshot(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("a server");
        let Some(raft) = server.raft.as_ref().filter(|raft| !raft.is_installing()) else { return };
        let mut meta = raft.snapshot_point();
        if meta.last.index <= raft.snapshot_index() {
            return;
        }
        let through = raft.compactable_index();
        server.writer.begin(meta.last).expect("memory has no errors");
        server.writer.write(&server.state).expect("memory has no errors");
        (meta.size, meta.checksum) = server.writer.written();
        server.writer.finish(&meta).expect("memory has no errors");
        server.disk.publish(&meta).expect("memory has no errors");
        server.published = meta.last.index;
        server.disk.compact(through).expect("memory has no errors");
        self.input(id, Input::SnapshotPublished { meta });
    }

    // Requests.

    /// Proposes a command.
    ///
    /// # Errors
    /// As [`Raft::propose`].
    pub fn propose(&mut self, id: ServerId, command: &str) -> Result<EntryId, Refused> {
        let now = self.now;
        let raft = self.servers.get_mut(&id).and_then(|server| server.raft.as_mut());
        let raft = raft.ok_or(Refused::NotLeader { leader: None })?;
        let payload = Bytes::copy_from_slice(command.as_bytes());
        let proposed = raft.propose(now, EntryKind::Session, payload, None);
        self.drain(id);
        proposed
    }

    /// Asks for a linearizable read.
    ///
    /// # Errors
    /// As [`Raft::read`].
    pub fn read(&mut self, id: ServerId, read: u64) -> Result<(), Refused> {
        let now = self.now;
        let raft = self.servers.get_mut(&id).and_then(|server| server.raft.as_mut());
        let asked = raft.ok_or(Refused::NotLeader { leader: None })?.read(now, read);
        self.drain(id);
        asked
    }

    /// Gives a machine an input and carries out what it asks for.
    pub fn input(&mut self, id: ServerId, input: Input) {
        let now = self.now;
        let Some(raft) = self.servers.get_mut(&id).and_then(|server| server.raft.as_mut()) else { return };
        let led = (raft.role() == Role::Leader).then(|| raft.term());
        raft.step(now, input);
        if raft.role() == Role::Leader && led != Some(raft.term()) {
            self.checker.elected(raft);
        }
        self.drain(id);
    }

    pub(super) fn drain(&mut self, id: ServerId) {
        loop {
            let now = self.now;
            let Some(raft) = self.servers.get_mut(&id).and_then(|server| server.raft.as_mut()) else {
                return;
            };
            let outputs = raft.drain(now);
            if outputs.is_empty() {
                let raft = self.servers[&id].raft.as_ref();
                raft.into_iter().for_each(|raft| self.checker.drained(raft));
                return;
            }
            for output in outputs {
                self.log.extend(render::output(id, &output));
                self.carry_out(id, output);
            }
        }
    }

    fn carry_out(&mut self, id: ServerId, output: Output) {
        match output {
            Output::Send { to, message } => {
                if let PeerMessage::AppendEntries(append) = &message {
                    self.checker.wrote(id, Some(append.prev), &append.entries);
                }
                if !self.cut.contains(&(id, to)) {
                    self.links.entry((id, to)).or_default().push_back(message);
                }
            }
            Output::Write { token, batch } => {
                let first = batch.entries.first().map(|entry| entry.id.index.previous());
                let before = first
                    .and_then(|index| self.raft(id).entry_term(index).map(|term| EntryId::new(term, index)));
                self.checker.wrote(id, batch.truncate_after.or(before), &batch.entries);
                let server = self.servers.get_mut(&id).expect("a server");
                if server.write.replace((token, batch)).is_some() {
                    self.checker.report(format!("D2: {id} writes while a write is outstanding"));
                }
            }
            Output::Committed { entries } => self.apply(id, entries),
            Output::ReadsReady { reads, index, .. } => {
                let server = self.servers.get_mut(&id).expect("a server");
                server.ready.extend(reads.into_iter().map(|read| (read, index)));
            }
            Output::ReadsFailed { reads } => {
                self.servers.get_mut(&id).expect("a server").failed.extend(reads)
            }
            Output::ConfigurationCommitted { configuration } => {
                self.servers.get_mut(&id).expect("a server").followed.push(configuration.index);
            }
            Output::RoundConfirmed { .. } | Output::RoleChanged { .. } => {}
            other => {
                let now = self.now;
                let server = self.servers.get_mut(&id).expect("a server");
                let Some(answer) = server.answer(other) else { return };
                if let Input::Installed { last } = &answer
                    && server.state != self.checker.state(last.index)
                {
                    self.checker
                        .report(format!("state machine safety: {id} installs another state at {last}"));
                }
                server.raft.as_mut().expect("the server is up").step(now, answer);
            }
        }
    }

    fn apply(&mut self, id: ServerId, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.id.index) else { return };
        let end = self.raft(id).last();
        let servers = &self.servers;
        let holds = |voter: ServerId, entry| servers.get(&voter).is_some_and(|voter| voter.stands_for(entry));
        self.checker.committed(id, &entries, end, holds);
        let server = self.servers.get_mut(&id).expect("a server");
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Session) {
            if !server.state.is_empty() {
                server.state.push(b'\n');
            }
            server.state.extend_from_slice(&entry.payload);
        }
        server.raft.as_mut().expect("the server is up").applied(last);
    }

    /// Whether every server that is up has committed, applied and made durable the same, and how far.
    #[must_use]
    pub fn agreed(&self) -> Option<Index> {
        let last = self.leader().map(|id| self.raft(id).last().index)?;
        let up = self.up();
        let same = up.iter().all(|id| {
            let raft = self.raft(*id);
            raft.last().index == last && raft.applied_index() == last && raft.durable_index() == last
        });
        (same && up.iter().all(|id| self.servers[id].state == self.checker.state(last))).then_some(last)
    }
}
