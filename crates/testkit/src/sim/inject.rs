//! How faults strike, and how they end.

use super::Profile;
use super::checker::{Check, hold, id_of};
use super::client::Client;
use super::coverage::Mark;
use super::faults::{Class, Fault, Shape, Target, cut_links};
use super::loss::Loss;
use super::network::{Node, Reach};
use super::settings::{MILLISECOND, Time};
use super::world::{Event, World};

/// What has to be undone when a fault ends.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    Cut(Vec<(Node, Node)>),
    /// Not the links of that cut, but who is cut off next.
    Move {
        victim: Node,
        lasts: Time,
    },
    /// Whoever leads then falls asleep.
    Sleep {
        lasts: Time,
    },
    Pause {
        server: Node,
        machine: bool,
    },
    Disk {
        server: Node,
        hung: bool,
    },
    PauseClient(usize),
}

impl World {
    /// Schedules the first fault of each class.
    pub(super) fn start_faults(&mut self) {
        for generator in 0..self.generators.len() {
            let wait = self.generators[generator].wait();
            self.after(wait, Event::Fault(generator));
        }
    }

    pub(super) fn on_fault(&mut self, generator: usize) -> Check {
        if !self.faults_on {
            return Ok(());
        }
        let wait = self.generators[generator].wait();
        self.after(wait, Event::Fault(generator));
        let fault = self.generators[generator].draw(&self.settings);
        self.trace.change(self.now, || format!("fault {fault:?}"));
        self.strike(fault)
    }

    fn victim(&self, target: Target) -> Node {
        match target {
            Target::Server(server) => server,
            Target::Leader(otherwise) => self.leader().unwrap_or(otherwise),
        }
    }

    pub(super) fn strike(&mut self, fault: Fault) -> Check {
        match fault {
            Fault::Cut { class, shape, victim, with_clients, lasts } => {
                self.cut(class, shape, victim, with_clients, lasts);
            }
            Fault::Clog { victim, lasts } => self.clog(victim, lasts),
            Fault::Reset { victim, half_open } => self.reset(victim, half_open),
            Fault::Crash { class, victim, loss, silent, down } => {
                let server = self.victim(victim);
                if self.servers[server].process.is_none() {
                    return Ok(());
                }
                if class == Class::D1 && self.randoms.fault.chance(0.6) {
                    self.servers[server].armed = Some((silent, down));
                    return Ok(());
                }
                self.coverage.fault(class);
                self.crash(server, loss, silent);
                self.after(down, Event::Boot(server));
            }
            Fault::CrashAll { loss, down, stagger } => {
                self.coverage.fault(Class::P9);
                for server in 0..self.servers.len() {
                    self.crash(server, loss, loss == Loss::Power);
                    let wait = down + self.randoms.fault.below(stagger + 1);
                    self.after(wait, Event::Boot(server));
                }
            }
            Fault::Pause { class, victim, lasts } => {
                let server = self.victim(victim);
                let machine = class == Class::C3;
                self.coverage.fault(class);
                self.servers[server].paused += 1;
                self.servers[server].hung += u32::from(machine);
                self.end_later(lasts, Ending::Pause { server, machine });
            }
            Fault::Disk { victim, slower, lasts } => {
                let server = self.victim(victim);
                self.coverage.fault(Class::D13);
                match slower {
                    Some(slower) => self.servers[server].slower = slower,
                    None => self.servers[server].hung += 1,
                }
                self.end_later(lasts, Ending::Disk { server, hung: slower.is_none() });
            }
            Fault::Drift { victim, rate } => {
                let server = self.victim(victim);
                self.coverage.fault(Class::C2);
                self.servers[server].clock.drift(self.now, rate);
                self.set_server_timer(server);
            }
            Fault::Wipe { victim, down } => self.wipe(victim, down),
            Fault::CutClient { client } => {
                let node = self.servers.len() + client;
                self.coverage.fault(Class::S1);
                self.reset_node(node, false, false);
            }
            Fault::KillClient { client, down } => {
                if self.clients[client].core.is_some() {
                    self.coverage.fault(Class::S7);
                    self.stop_client(client);
                    self.start_client_after(down, client);
                }
            }
            Fault::PauseClient { client, lasts } => self.pause_client(client, lasts),
        }
        Ok(())
    }

    fn pause_client(&mut self, client: usize, lasts: Time) {
        self.coverage.fault(Class::S8);
        let client = self.someone_with_a_lock().unwrap_or(client);
        self.clients[client].paused += 1;
        self.end_later(lasts, Ending::PauseClient(client));
    }

    /// Half the time somebody who believes to hold a lock, if anybody does.
    fn someone_with_a_lock(&mut self) -> Option<usize> {
        let random = &mut self.randoms.side;
        let holds = |client: &&Client| client.paused == 0 && client.contender.guards().next().is_some();
        let holders: Vec<usize> = self.clients.iter().filter(holds).map(|client| client.number).collect();
        if random.chance(0.5) { random.pick(&holders) } else { None }
    }

    /// The power goes while a write is under way.
    pub(super) fn on_power_cut(&mut self, server: Node, epoch: u32, silent: bool, down: Time) {
        if self.faults_on && self.servers[server].epoch == epoch && self.servers[server].process.is_some() {
            self.coverage.fault(Class::D1);
            self.crash(server, Loss::Power, silent);
            self.after(down, Event::Boot(server));
        }
    }

    pub(super) fn end_later(&mut self, lasts: Time, ending: Ending) {
        self.next_ending += 1;
        self.active.insert(self.next_ending, ending);
        self.after(lasts, Event::End(self.next_ending));
    }

    fn cut(&mut self, class: Class, shape: Shape, victim: Target, with_clients: bool, lasts: Time) {
        let servers = self.servers.len();
        let victim = self.victim(victim);
        let mut pairs = cut_links(shape, servers, victim, &mut self.randoms.fault);
        if with_clients && matches!(shape, Shape::Isolate | Shape::Mute | Shape::Deaf) {
            for node in servers..servers + self.clients.len() {
                pairs.extend((!matches!(shape, Shape::Deaf)).then_some((victim, node)));
                pairs.extend((!matches!(shape, Shape::Mute)).then_some((node, victim)));
            }
        }
        if pairs.is_empty() {
            return;
        }
        if self.profile == Profile::Full && !with_clients {
            self.take_clients_along(victim, &mut pairs);
        }
        self.coverage.fault(class);
        if matches!(shape, Shape::Moving) {
            let companion = (0..servers).find(|other| *other != victim && !pairs.contains(&(victim, *other)));
            if let Some(victim) = companion {
                self.end_later(lasts, Ending::Move { victim, lasts });
            }
            // What the old leader still gets in is more than the new one will at first.
            if self.profile == Profile::Core {
                for n in 0..6 {
                    self.after((1 + 8 * n) * MILLISECOND, Event::Burst(victim));
                }
            }
        }
        self.block(pairs, lasts);
    }

    /// Some clients are on the victim's side of a cut: they see it, and none of those that it does not see.
    fn take_clients_along(&mut self, victim: Node, pairs: &mut Vec<(Node, Node)>) {
        let servers = self.servers.len();
        let beyond: Vec<Node> = (0..servers).filter(|other| pairs.contains(&(victim, *other))).collect();
        for node in servers..servers + self.settings.clients {
            if self.randoms.side.chance(0.4) {
                pairs.extend(beyond.iter().flat_map(|server| [(*server, node), (node, *server)]));
            }
        }
    }

    /// A partition moves: its companion is cut off alone, and whoever leads the rest falls asleep.
    fn move_cut(&mut self, victim: Node, lasts: Time) -> Check {
        if !self.faults_on {
            return Ok(());
        }
        self.strike(Fault::Cut {
            class: Class::N3,
            shape: Shape::Isolate,
            victim: Target::Server(victim),
            with_clients: false,
            lasts: 2 * lasts,
        })?;
        let wait = self.randoms.fault.below(self.settings.longest_election());
        self.end_later(wait, Ending::Sleep { lasts });
        Ok(())
    }

    fn put_to_sleep(&mut self, lasts: Time) -> Check {
        match self.leader().filter(|_| self.faults_on) {
            Some(leader) => {
                self.strike(Fault::Pause { class: Class::P3, victim: Target::Server(leader), lasts })
            }
            None => Ok(()),
        }
    }

    fn clog(&mut self, victim: Target, lasts: Time) {
        let from = self.victim(victim);
        let to = self.randoms.fault.below(self.servers.len() as u64) as usize;
        if from != to {
            self.coverage.fault(Class::N10);
            self.block(vec![(from, to)], lasts);
        }
    }

    fn block(&mut self, pairs: Vec<(Node, Node)>, lasts: Time) {
        for (from, to) in &pairs {
            self.network.block(*from, *to);
            // Some of those who are cut off learn of it before it is over.
            if self.profile == Profile::Core && self.randoms.fault.chance(0.3) {
                let wait = self.randoms.fault.below(lasts);
                self.after(wait, Event::Link { at: *to, other: *from, up: false });
            }
        }
        self.look_for_deaf();
        self.end_later(lasts, Ending::Cut(pairs));
    }

    fn reset(&mut self, victim: Target, half_open: bool) {
        let server = self.victim(victim);
        self.coverage.fault(Class::N9);
        if self.profile == Profile::Full {
            self.reset_node(server, half_open, true);
            return;
        }
        let other = self.randoms.fault.below(self.servers.len() as u64) as usize;
        if other != server {
            self.after(0, Event::Link { at: other, other: server, up: false });
            if !half_open {
                self.after(0, Event::Link { at: server, other, up: false });
            }
            for (at, other) in [(other, server), (server, other)] {
                let wait = self.randoms.fault.range(1, 50) * MILLISECOND;
                self.after(wait, Event::Link { at, other, up: true });
            }
        }
    }

    fn reset_node(&mut self, node: Node, half_open: bool, some: bool) {
        for connection in self.network.connections_of(node) {
            if !some || self.randoms.fault.chance(0.5) {
                self.network.reset(self.now, connection, half_open);
            }
        }
        self.settle_network();
    }

    /// The process dies, and perhaps the machine.
    pub(super) fn crash(&mut self, server: Node, loss: Loss, silent: bool) {
        let at = &mut self.servers[server];
        if at.process.is_none() {
            return;
        }
        let tearing = self.swarm.has(Class::D2);
        let damage = at.disk.crash(loss, tearing, &mut self.randoms.disk);
        at.stop(if silent { Reach::Silent } else { Reach::Refuses });
        self.checker.stopped(server);
        self.trace.change(self.now, || format!("server {} is down ({loss:?}): {damage:?}", id_of(server)));
        for _ in 0..damage.torn {
            self.coverage.fault(Class::D2);
        }
        self.network.gone(self.now, server, silent);
        self.settle_network();
        if self.profile == Profile::Core && !silent {
            for other in (0..self.servers.len()).filter(|other| *other != server) {
                let wait = self.network.delay();
                self.after(wait, Event::Link { at: other, other: server, up: false });
            }
        }
        self.deaf.remove(&server);
    }

    /// An operator's mistake: only where a majority remains, and once in a run.
    fn wipe(&mut self, victim: Target, down: Time) {
        let server = self.victim(victim);
        let formed = self.servers.iter().filter(|s| s.raft().is_some()).count() == self.servers.len();
        if self.servers.len() < 3 || !formed || self.servers.iter().any(|server| server.wiped) {
            return;
        }
        self.coverage.fault(Class::M13);
        self.crash(server, Loss::Process, false);
        self.servers[server].disk.wipe();
        self.servers[server].wiped = true;
        self.checker.wiped(server);
        self.after(down, Event::Boot(server));
    }

    /// A server's process comes up; or it dies in the attempt.
    pub(super) fn boot(&mut self, server: Node) -> Check {
        if self.servers[server].process.is_some() {
            return Ok(());
        }
        let opened = self.servers[server].open_disk(&self.settings);
        let place = || format!("server {} can't start", id_of(server));
        let (threads, found, job) = match opened {
            Ok(opened) => opened,
            Err(error) => return hold("I15", false, || format!("{}: {error}", place())),
        };
        self.coverage.mark(Mark::TornTail, u64::from(self.servers[server].disk.has_zeroed(job)));
        if self.faults_on && self.randoms.fault.chance(self.swarm.recovery_crash) {
            self.coverage.fault(Class::P2);
            let tearing = self.swarm.has(Class::D2);
            self.servers[server].disk.crash(Loss::Power, tearing, &mut self.randoms.disk);
            let wait = self.randoms.fault.range(1, 200) * MILLISECOND;
            self.after(wait, Event::Boot(server));
            return Ok(());
        }
        self.servers[server].disk.complete(job);
        let (hard_state, snapshot) = (found.recovered.hard_state, found.recovered.snapshot.clone());
        self.checker.recovered(server, hard_state, snapshot.as_ref(), &found.entries)?;
        for mark in self.checker.take_marks() {
            self.coverage.mark(mark, 1);
        }
        self.trace
            .change(self.now, || format!("server {} starts: {hard_state:?} {snapshot:?}", id_of(server)));
        let started = self.servers[server].start(self.now, self.profile, &self.settings, threads, found);
        hold("I15", started.is_ok(), || format!("{}: {started:?}", place()))?;
        if self.profile == Profile::Core {
            for other in (0..self.servers.len()).filter(|other| *other != server) {
                if self.servers[other].process.is_some() {
                    for (at, other) in [(server, other), (other, server)] {
                        let wait = self.network.delay();
                        self.after(wait, Event::Link { at, other, up: true });
                    }
                }
            }
        }
        if self.servers[server].paused == 0 { self.step(server) } else { Ok(()) }
    }

    pub(super) fn on_end(&mut self, ending: u64) -> Check {
        match self.active.remove(&ending) {
            Some(ending) => self.end(ending),
            None => Ok(()),
        }
    }

    fn end(&mut self, ending: Ending) -> Check {
        self.trace.change(self.now, || format!("ends {ending:?}"));
        match ending {
            Ending::Move { victim, lasts } => self.move_cut(victim, lasts),
            Ending::Sleep { lasts } => self.put_to_sleep(lasts),
            Ending::Cut(pairs) => {
                self.check_deaf()?;
                for (from, to) in &pairs {
                    self.network.unblock(self.now, *from, *to);
                    if self.profile == Profile::Core && !self.network.is_blocked(*from, *to) {
                        let wait = self.network.delay();
                        self.after(wait, Event::Link { at: *from, other: *to, up: true });
                    }
                }
                self.settle_network();
                self.look_for_deaf();
                Ok(())
            }
            Ending::Pause { server, machine } => {
                self.servers[server].paused -= 1;
                self.servers[server].hung -= u32::from(machine);
                self.release_disk(server);
                self.wake_server(server)
            }
            Ending::Disk { server, hung } => {
                let at = &mut self.servers[server];
                if hung {
                    at.hung -= 1;
                } else {
                    at.slower = 1;
                }
                self.release_disk(server);
                Ok(())
            }
            Ending::PauseClient(client) => {
                self.clients[client].paused -= 1;
                if self.clients[client].paused > 0 {
                    return Ok(());
                }
                self.wake_client(client)
            }
        }
    }

    fn wake_server(&mut self, server: Node) -> Check {
        self.deaf.remove(&server);
        if self.servers[server].is_running() { self.step(server) } else { Ok(()) }
    }

    /// What the disk was at gets done, now that nothing slows it down.
    fn release_disk(&mut self, server: Node) {
        let at = &self.servers[server];
        let Some(process) = at.process.as_ref().filter(|_| at.hung == 0 && at.slower == 1) else { return };
        let epoch = at.epoch;
        for (lane, job) in process.threads.running() {
            self.after(self.settings.disk_latency.0, Event::Lane { server, epoch, lane, job });
        }
    }

    /// Remembers which running servers hear nobody from now on.
    fn look_for_deaf(&mut self) {
        let servers = self.servers.len();
        for server in 0..servers {
            let hears = (0..servers).any(|other| other != server && !self.network.is_blocked(other, server));
            let at = &self.servers[server];
            match at.raft().filter(|_| !hears && servers > 1 && at.is_running()) {
                Some(raft) => {
                    self.deaf.entry(server).or_insert((self.now, raft.term().0, at.epoch));
                }
                None => {
                    self.deaf.remove(&server);
                }
            }
        }
    }

    /// L7: who hears nobody does not raise its term, and does not go on leading.
    pub(super) fn check_deaf(&mut self) -> Check {
        let patience = 3 * self.settings.longest_election();
        for (server, (since, term, epoch)) in std::mem::take(&mut self.deaf) {
            let at = &self.servers[server];
            let Some(raft) = at.raft().filter(|_| at.epoch == epoch && at.is_running()) else { continue };
            let now = raft.term().0;
            // What had arrived before may still count once.
            hold("L7", now <= term + 2, || {
                format!(
                    "server {} heard nobody since {since} us, and went from term {term} to {now}",
                    id_of(server)
                )
            })?;
            let leads = raft.role() == atomix_raft::Role::Leader;
            hold("L7", !leads || self.now - since < patience, || {
                format!("server {} heard nobody since {since} us, and still leads term {now}", id_of(server))
            })?;
        }
        Ok(())
    }

    /// Everything that was broken is mended.
    pub(super) fn heal(&mut self) -> Check {
        self.check_deaf()?;
        self.faults_on = false;
        for server in &mut self.servers {
            server.armed = None;
        }
        self.trace.change(self.now, || "all is healed".into());
        for (_, ending) in std::mem::take(&mut self.active) {
            self.end(ending)?;
        }
        self.network.heal(self.now);
        self.settle_network();
        self.deaf.clear();
        for server in 0..self.servers.len() {
            self.boot(server)?;
        }
        for client in 0..self.settings.clients {
            if self.clients[client].core.is_none() {
                self.start_client(client)?;
            }
        }
        Ok(())
    }
}
