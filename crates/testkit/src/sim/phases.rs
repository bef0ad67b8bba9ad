//! The phases of a run: faults; a majority on its own; all healed, liveness; a scan; the power goes everywhere;
//! another scan.

use std::time::Duration;

use atomix_protocol::client::Consistency;

use super::checker::{Check, hold, id_of};
use super::faults::Class;
use super::inspect;
use super::loss::Loss;
use super::map_operation::{MapCommand, MapQuery};
use super::operation::{Command, Place, Query};
use super::plan::Plan;
use super::random::{Component, Random};
use super::server::Machine;
use super::settings::{MILLISECOND, SECOND, Settings, Time};
use super::world::{Event, World};
use super::{Options, Profile};

/// A run in which nothing happens any more is over after this much time, whatever it counted.
const LONGEST: Time = 600 * SECOND;

impl World {
    /// All phases.
    pub(super) fn run_phases(&mut self, options: &Options) -> Check {
        self.begin()?;
        match &options.plan {
            Some(plan) => self.run(plan.until, |_| false)?,
            None => {
                let faulty = options.events / 4 * 3;
                self.run(LONGEST, |world| world.events >= faulty)?;
                // All of this moment, so that a plan can say when it was.
                self.run(self.now, |_| false)?
            }
        };
        self.healed_at = Some(self.now);
        self.heal()?;
        if self.end_without_recovery(options.events)? {
            return Ok(());
        }
        self.expect_majority_lives(self.settings.clients + 2)?;
        self.end_all()?;
        self.expect_leader("after healing")?;
        self.expect_levels()?;
        if !self.can_serve() {
            return self.end_without_service(options.events);
        }
        self.expect_progress(self.settings.clients)?;
        self.expect_cured()?;
        let enough = options.events;
        self.run(self.now + LONGEST, |world| world.events >= enough)?;
        self.expect_quiet()?;
        self.expect_events()?;
        self.expect_equal()?;
        self.scan(self.settings.clients)?;
        self.cut_power_everywhere()?;
        self.expect_leader("after the power cut")?;
        if self.profile == Profile::Full {
            self.expect_progress(self.settings.clients + 1)?;
            self.scan(self.settings.clients + 1)?;
        }
        self.expect_sessions_gone()?;
        self.expect_nothing_left()?;
        self.expect_equal()?;
        self.expect_cured()?;
        self.expect_no_watches()?;
        self.check_refusals()?;
        self.proposals.scan(&self.checker.ledger)
    }

    /// Nothing can ever be created: sessions and commands can't be asked for (L2, the scans), all else can.
    fn end_without_service(&mut self, events: u64) -> Check {
        self.trace.change(self.now, || "nothing can ever be created: no service is owed".into());
        self.coverage.without_service += 1;
        self.run(self.now + LONGEST, |world| world.events >= events)?;
        self.expect_quiet()?;
        self.expect_equal()?;
        self.cut_power_everywhere()?;
        self.expect_leader("after the power cut")?;
        self.expect_equal()?;
        self.expect_cured()?;
        self.check_refusals()
    }

    fn begin(&mut self) -> Check {
        self.trace.change(0, || format!("{:?}", self.settings));
        self.trace.change(0, || format!("{:?}", self.swarm));
        let late = self.swarm.has(Class::Late);
        for server in 0..self.settings.servers {
            let latest = if late { 3 * SECOND } else { 20 * MILLISECOND };
            let wait = Random::stream(self.seed, Component::Begin, server as u64).below(latest);
            self.after(wait, Event::Boot(server));
            if late {
                self.coverage.fault(Class::Late);
            }
        }
        for client in 0..self.settings.clients {
            let wait = Random::stream(self.seed, Component::Client, client as u64).below(SECOND);
            self.start_client_after(wait, client);
        }
        if self.profile == Profile::Core {
            self.after(100 * MILLISECOND, Event::Propose);
        }
        if self.swarm.has(Class::C6) {
            self.coverage.fault(Class::C6);
        }
        self.start_faults();
        self.start_operator();
        Ok(())
    }

    fn election(&self) -> Time {
        self.settings.longest_election()
    }

    /// What handshakes, connections and slow snapshots may take beside elections.
    fn slack(&self) -> Time {
        let handshake = self.settings.handshake_timeout.as_micros() as Time;
        10 * SECOND + 3 * handshake + 200 * (self.settings.latency.1 + self.settings.disk_latency.1)
    }

    /// What it takes to send bare consensus' snapshots, which may be needed to commit anything: chunk by chunk, each read and written.
    fn longest_transfer(&self) -> Time {
        let Settings { latency, disk_latency, padding, snapshot_chunk_bytes, .. } = &self.settings;
        let chunks = (padding / snapshot_chunk_bytes) as Time + 1;
        2 * chunks * (latency.0 + latency.1 + disk_latency.0 + disk_latency.1)
    }

    fn leads(world: &World) -> bool {
        world
            .leader()
            .is_some_and(|leader| world.servers[leader].raft().is_some_and(atomix_raft::Raft::is_established))
    }

    /// By when there must be a leader.
    pub(super) fn leader_deadline(&self) -> Time {
        // Connections that were cut take a while to be seen as such; bare consensus has none.
        let slack =
            if self.profile == Profile::Full { self.slack() } else { SECOND + self.longest_transfer() };
        self.now + 10 * self.election() + slack
    }

    /// By when something that is asked now must be done.
    pub(super) fn progress_deadline(&self) -> Time {
        self.now + 20 * self.election() + self.slack()
    }

    /// L1.
    fn expect_leader(&mut self, when: &str) -> Check {
        let led = self.run(self.leader_deadline(), Self::leads)?;
        hold("L1", led, || format!("no leader {when}: {}", self.describe()))
    }

    /// L2: a fresh session's fresh command commits.
    pub(super) fn expect_progress(&mut self, client: usize) -> Check {
        let deadline = self.progress_deadline();
        if self.profile == Profile::Core {
            let count = self.proposals.count();
            let done = self.run(deadline, |world| world.proposals.count() > count)?;
            return hold("L2", done, || format!("no proposal is acknowledged: {}", self.describe()));
        }
        // A full house is no want of progress: somebody has to leave first.
        let full = self.settings.server_sessions <= self.settings.clients + 2;
        if full {
            for other in (0..self.clients.len()).filter(|other| *other != client) {
                self.stop_client(other);
            }
            let latest = self.now + self.session_end() + self.slack();
            let none = self.run(latest, |world| world.model.open_sessions().next().is_none())?;
            hold("S7", none, || "sessions of clients that are gone do not expire".into())?;
        }
        self.start_client(client)?;
        self.expect_ready(client, deadline)?;
        let local = self.clients[client].clock.read(self.now);
        let (user, mut shared) = self.client_and_shared(client);
        let fresh = Command::Map(MapCommand::Put(0, bytes::Bytes::from_static(b"fresh")));
        user.submit(local, fresh, None, &mut shared);
        self.drain_client(client)?;
        let done = self.run(deadline, |world| world.clients[client].outstanding() == 0)?;
        hold("L2", done, || format!("a fresh command does not commit: {}", self.describe()))
    }

    /// A client has everything open that it wants to use.
    fn expect_ready(&mut self, client: usize, deadline: Time) -> Check {
        self.clients[client].active = true;
        let ready = self.run(deadline, |world| world.clients[client].is_ready(&world.settings))?;
        self.clients[client].active = false;
        hold("L2", ready, || {
            format!("a fresh client does nothing: {:?}; {}", self.clients[client].session(), self.describe())
        })
    }

    /// L4: everything that was asked ends.
    fn expect_quiet(&mut self) -> Check {
        for client in &mut self.clients {
            client.active = false;
        }
        let deadline = self.now + 20 * self.election() + self.session_end() + self.slack();
        let quiet =
            self.run(deadline, |world| world.clients.iter().all(|client| client.outstanding() == 0))?;
        hold("L4", quiet, || {
            let waiting: Vec<_> =
                self.clients.iter().map(|client| (client.number, client.outstanding())).collect();
            format!("operations do not end: {waiting:?}; {}", self.describe())
        })
    }

    /// I11: whoever is alive is told everything, and is not given up in silence.
    fn expect_events(&mut self) -> Check {
        let deadline = self.now + 20 * self.election() + self.session_end() + self.slack();
        let told = self
            .run(deadline, |world| world.clients.iter().all(|client| client.has_all_events(&world.model)))?;
        hold("I11", told, || {
            let missing: Vec<_> =
                self.clients.iter().filter_map(|client| client.missing(&self.model)).collect();
            format!(
                "events do not arrive (session, instance, how many did): {missing:?}; {}",
                self.describe()
            )
        })
    }

    /// Everybody leaves, in good order or not: no lock is held or waited for, nothing is watched.
    fn expect_nothing_left(&mut self) -> Check {
        if self.profile == Profile::Core {
            return Ok(());
        }
        let in_order = self.randoms.side.chance(0.7);
        for client in 0..self.clients.len() {
            // Whoever is between two sessions is gone too, and does not open the next.
            if in_order && self.clients[client].session().is_some() {
                let local = self.clients[client].clock.read(self.now);
                self.clients[client].close(local);
                self.drain_client(client)?;
            } else {
                self.stop_client(client);
            }
        }
        let deadline = self.now + self.session_end() + self.slack();
        let gone = self.run(deadline, |world| world.model.open_sessions().next().is_none())?;
        hold("S7", gone, || {
            let open: Vec<_> = self.model.open_sessions().map(|(_, session)| session).collect();
            format!("nobody is there any more, and {open:?} stay open; {}", self.describe())
        })?;
        let left = self.model.resources.left();
        hold("I12", left.is_empty(), || {
            format!("nobody is there any more, and something is left: {left:?}")
        })?;
        Ok(())
    }

    /// Nor has any server.
    fn expect_no_watches(&self) -> Check {
        for server in self.servers.iter().filter(|server| self.belongs(server.number)) {
            let Some(Machine::Full(engine)) = server.process.as_ref().map(|process| &process.machine) else {
                continue;
            };
            let watches = inspect::watches(engine);
            hold("I11", watches == 0, || {
                format!("nobody is there any more, and server {} has {watches} watches", id_of(server.number))
            })?;
        }
        Ok(())
    }

    fn session_end(&self) -> Time {
        self.settings.session_timeout.1.max(200 * MILLISECOND) * 11 / 10 + 2 * self.election()
    }

    /// L3: all servers that belong are equal.
    fn expect_equal(&mut self) -> Check {
        let proposing = self.profile == Profile::Core;
        let deadline = self.now + 20 * self.election() + 2 * self.slack();
        if proposing {
            self.quiet = true;
        }
        let equal = self.run(deadline, |world| {
            let members = world.servers.iter().filter(|server| world.belongs(server.number));
            let mut views = members.map(|server| {
                let raft = server.raft()?;
                let settled = raft.configuration().outgoing_voters.is_none();
                settled.then_some((raft.last(), raft.commit_index(), raft.applied_index()))
            });
            let Some(Some(first)) = views.next() else { return false };
            first.0.index == first.1 && first.1 == first.2 && views.all(|view| view == Some(first))
        })?;
        hold("L3", equal, || format!("servers stay different: {}", self.describe()))?;
        for server in 0..self.servers.len() {
            if self.belongs(server)
                && let Some(applied) = self.servers[server].raft().map(atomix_raft::Raft::applied_index)
            {
                self.force_compare(server, applied)?;
            }
        }
        self.quiet = false;
        Ok(())
    }

    /// Every key is read, and every answer checked against what was acknowledged.
    fn scan(&mut self, client: usize) -> Check {
        if self.profile == Profile::Core {
            return self.proposals.scan(&self.checker.ledger);
        }
        let deadline = self.now + 20 * self.election() + self.slack();
        let keys = (0..self.settings.keys).map(MapQuery::Get).chain([MapQuery::Len, MapQuery::Entries]);
        let locks = (0..self.settings.demand.locks).map(|lock| (Place::Lock(lock), Query::Inspect));
        let map = keys.map(|query| (Place::Map, Query::Map(query)));
        for (place, query) in map.chain(locks) {
            // Something that it had open may have been deleted late.
            self.expect_ready(client, deadline)?;
            let local = self.clients[client].clock.read(self.now);
            let (user, mut shared) = self.client_and_shared(client);
            let read = shared.coverage.reads;
            let taken = user.ask(local, place, query, Consistency::Linearizable, None, &mut shared);
            hold("L2", taken, || "the scan can't ask".into())?;
            self.drain_client(client)?;
            self.run(deadline, |world| world.clients[client].outstanding() == 0)?;
            hold("L2", self.coverage.reads > read, || {
                format!("the scan is not answered: {}", self.describe())
            })?;
        }
        Ok(())
    }

    pub(super) fn cut_power_everywhere(&mut self) -> Check {
        // The end of every run: no fault that counts.
        let mut random = Random::stream(self.seed, Component::End, 0);
        for server in 0..self.servers.len() {
            self.crash(server, Loss::Power, true, &mut random);
        }
        self.run(self.now + 10 * MILLISECOND, |_| false)?;
        for server in 0..self.servers.len() {
            let wait = random.below(50 * MILLISECOND);
            if self.servers[server].has_begun() {
                self.after(wait, Event::Boot(server));
            }
        }
        Ok(())
    }

    /// S7: sessions whose clients are gone are ended.
    fn expect_sessions_gone(&mut self) -> Check {
        if self.profile == Profile::Core {
            return Ok(());
        }
        let deadline = self.now + self.session_end() + self.slack();
        let gone = self.run(deadline, |world| {
            let alive = |session| world.clients.iter().any(|client| client.session() == Some(session));
            world.model.open_sessions().all(|(_, session)| alive(session))
        })?;
        hold("S7", gone, || {
            let open: Vec<_> = self.model.open_sessions().map(|(_, session)| session).collect();
            format!("a session whose client is gone stays open: {open:?}; {}", self.describe())
        })
    }

    /// The servers as they are, for people.
    pub(super) fn describe(&self) -> String {
        let one = |server: &super::server::Server| {
            let view = server.raft().map(|raft| {
                let (role, term, leader) = (raft.role().as_str(), raft.term(), raft.leader());
                let (last, commit, applied) = (raft.last(), raft.commit_index(), raft.applied_index());
                format!("{role} of {term} under {leader:?}, last {last}, commit {commit}, applied {applied}")
            });
            format!("[{}: {}]", id_of(server.number), view.unwrap_or_else(|| "no consensus".into()))
        };
        let servers: Vec<String> = self.servers.iter().map(one).collect();
        format!("committed {}; {}", self.checker.ledger.last(), servers.join(" "))
    }

    /// What happened, as far as it did.
    pub(super) fn plan(&self, events: u64) -> Plan {
        let numbers = self.settings.numbers().into_iter();
        Plan {
            profile: self.profile,
            seed: self.seed,
            events,
            until: self.healed_at.unwrap_or(self.now),
            settings: numbers.map(|(name, value)| (name.to_owned(), value)).collect(),
            rates: self.swarm.rates(),
            faults: self.struck.clone(),
        }
    }

    /// Whether a run is worth comparing: its hash, and what it counted.
    pub(super) fn fingerprint(&self) -> u64 {
        let counted = self.events ^ self.coverage.operations << 20 ^ self.checker.ledger.last_chain();
        super::random::mix(self.hash, counted)
    }

    /// How much time was simulated.
    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now)
    }
}
