//! How faults strike, and how they end.

use super::Profile;
use super::checker::Check;
use super::client::Client;
use super::faults::{Class, Fault, Planned, Target};
use super::loss::Loss;
use super::network::Node;
use super::random::{Component, Random};
use super::server::Armed;
use super::settings::Time;
use super::storage::Moment;
use super::world::{Event, World};

/// What has to be undone when a fault ends.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    Cut(Vec<(Node, Node)>),
    /// Not the links of that cut, but who is cut off next.
    Move {
        victim: Node,
        lasts: Time,
        seed: u64,
    },
    /// Whoever leads then falls asleep.
    Sleep {
        lasts: Time,
        seed: u64,
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
    Slow {
        class: Class,
        server: Node,
    },
    /// One storage thread of a server is as fast as the others again.
    Lane {
        server: Node,
        lane: usize,
    },
    /// A disk has room again.
    Fill {
        server: Node,
    },
    /// A server gets its own directory back.
    Exchange {
        server: Node,
        down: Time,
    },
    /// Whoever leads then goes.
    Depose {
        class: Class,
        seed: u64,
    },
}

impl World {
    /// Schedules the first fault of each source.
    pub(super) fn start_faults(&mut self) {
        for source in 0..self.sources.len() {
            self.schedule_fault(source);
        }
    }

    fn schedule_fault(&mut self, source: usize) {
        let next = self.sources[source].next(&self.settings);
        if let Some(fault) = &next {
            self.schedule(fault.at, Event::Fault(source));
        }
        self.next_faults[source] = next;
    }

    pub(super) fn on_fault(&mut self, source: usize) -> Check {
        let Some(planned) = self.next_faults[source].take().filter(|_| self.faults_on) else { return Ok(()) };
        self.schedule_fault(source);
        let Planned { class, fault, seed, .. } = planned.clone();
        self.trace.change(self.now, || format!("{}: {}", class.row(), fault.say()));
        self.struck.push(planned);
        self.strike(class, fault, &mut Random::of(seed))
    }

    pub(super) fn victim(&self, target: Target) -> Node {
        let (Target::Server(server) | Target::Leader(server)) = target;
        // A plan may have been made for more servers.
        let server = server % self.servers.len();
        match target {
            Target::Server(_) => server,
            Target::Leader(_) => self.leader().unwrap_or(server),
        }
    }

    pub(super) fn strike(&mut self, class: Class, fault: Fault, random: &mut Random) -> Check {
        match fault {
            Fault::Cut { shape, victim, with_clients, lasts } => {
                self.cut(class, shape, victim, with_clients, lasts, random);
            }
            Fault::Clog { victim, lasts } => self.clog(victim, lasts, random),
            Fault::Reset { victim, half_open } => self.reset(victim, half_open, random),
            Fault::Crash { victim, loss, silent, armed, down } => {
                let server = self.victim(victim);
                if self.servers[server].process.is_none() {
                    return Ok(());
                }
                if armed {
                    let (moment, seed) = (Moment::Write, random.next());
                    self.servers[server].armed = Some(Armed { class, moment, loss, silent, down, seed });
                    return Ok(());
                }
                self.coverage.fault(class);
                self.crash(server, loss, silent, random);
                self.after(down, Event::Boot(server));
            }
            Fault::CrashAll { loss, down, stagger } => {
                let up = self.servers.iter().any(|server| server.process.is_some());
                self.coverage.faults_of(class, u64::from(up));
                for server in 0..self.servers.len() {
                    self.crash(server, loss, loss == Loss::Power, random);
                    let wait = down + random.below(stagger + 1);
                    self.after(wait, Event::Boot(server));
                }
            }
            Fault::Pause { victim, machine, lasts } => {
                let server = self.victim(victim);
                // Whoever is down comes up asleep; that alone does not count.
                self.coverage.faults_of(class, u64::from(self.servers[server].is_running()));
                self.servers[server].paused += 1;
                self.servers[server].hung += u32::from(machine);
                self.end_later(lasts, Ending::Pause { server, machine });
            }
            Fault::Disk { victim, slower, lasts } => {
                let server = self.victim(victim);
                self.coverage.faults_of(class, u64::from(self.servers[server].process.is_some()));
                match slower {
                    Some(slower) => self.servers[server].slower = slower,
                    None => self.servers[server].hung += 1,
                }
                self.end_later(lasts, Ending::Disk { server, hung: slower.is_none() });
            }
            Fault::Drift { victim, rate } => {
                let server = self.victim(victim);
                self.coverage.fault(class);
                self.servers[server].clock.drift(self.now, rate);
                self.set_server_timer(server);
            }
            Fault::Wipe { victim, down } => self.wipe(victim, down, random),
            Fault::CutClient { .. }
            | Fault::KillClient { .. }
            | Fault::PauseClient { .. }
            | Fault::NearExpiry { .. } => self.strike_client(class, fault, random),
            Fault::Rot { .. }
            | Fault::Amnesia { .. }
            | Fault::Lose { .. }
            | Fault::Astray { .. }
            | Fault::Fill { .. } => self.strike_disk(class, fault, random),
            Fault::Exchange { victim, lasts, down } => {
                return self.exchange(class, victim, lasts, down, random);
            }
            other => return self.strike_rarer(class, other, random),
        }
        Ok(())
    }

    fn strike_client(&mut self, class: Class, fault: Fault, random: &mut Random) {
        let clients = self.settings.clients.max(1);
        match fault {
            Fault::CutClient { client } => {
                let node = self.servers.len() + client % clients;
                let broken = self.reset_node(node, false, None);
                self.coverage.faults_of(class, u64::from(broken > 0));
            }
            Fault::KillClient { client, down } => {
                let client = client % clients;
                if self.clients[client].core.is_some() {
                    self.coverage.fault(class);
                    self.stop_client(client);
                    self.start_client_after(down, client);
                }
            }
            Fault::PauseClient { client, lasts } => {
                let client = self.someone_with_a_lock(random).unwrap_or(client % clients);
                self.coverage.faults_of(class, u64::from(self.clients[client].core.is_some()));
                self.clients[client].paused += 1;
                self.end_later(lasts, Ending::PauseClient(client));
            }
            Fault::NearExpiry { client, after, lasts } => {
                let client = client % clients;
                self.clients[client].paused += 1;
                self.end_later(lasts, Ending::PauseClient(client));
                self.end_later(after, Ending::Depose { class, seed: random.next() });
            }
            _ => {}
        }
    }

    /// Half the time somebody who believes to hold a lock, if anybody does.
    fn someone_with_a_lock(&mut self, random: &mut Random) -> Option<usize> {
        let holds = |client: &&Client| client.paused == 0 && client.contender.guards().next().is_some();
        let holders: Vec<usize> = self.clients.iter().filter(holds).map(|client| client.number).collect();
        if random.chance(0.5) { random.pick(&holders) } else { None }
    }

    pub(super) fn end_later(&mut self, lasts: Time, ending: Ending) {
        self.next_ending += 1;
        self.active.insert(self.next_ending, ending);
        self.after(lasts, Event::End(self.next_ending));
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
            Ending::Move { victim, lasts, seed } => self.move_cut(victim, lasts, seed),
            Ending::Sleep { lasts, seed } => self.put_to_sleep(lasts, seed),
            Ending::Depose { class, seed } => self.depose(class, seed),
            Ending::Slow { server, .. } => {
                self.network.slow(server, None);
                Ok(())
            }
            Ending::Fill { server } => {
                self.servers[server].disk.limit(None);
                Ok(())
            }
            Ending::Exchange { server, down } => {
                self.give_back(server, down);
                Ok(())
            }
            Ending::Lane { server, lane } => {
                self.servers[server].ills.lanes[lane] = 1;
                Ok(())
            }
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

    /// Everything that was broken is mended.
    pub(super) fn heal(&mut self) -> Check {
        self.check_deaf()?;
        self.faults_on = false;
        self.upgrade_all();
        for server in 0..self.servers.len() {
            self.servers[server].armed = None;
            if self.servers[server].ills.broken {
                let mut random = Random::stream(self.seed, Component::End, server as u64 + 1);
                self.crash(server, Loss::Process, false, &mut random);
            }
        }
        self.end_all()
    }

    /// All that lasts ends; whoever is down comes up.
    pub(super) fn end_all(&mut self) -> Check {
        self.trace.change(self.now, || "all is healed".into());
        for (_, ending) in std::mem::take(&mut self.active) {
            self.end(ending)?;
        }
        self.left_out.clear();
        self.end_console();
        self.end_impostor();
        self.network.heal(self.now);
        self.settle_network();
        self.deaf.clear();
        for server in 0..self.servers.len() {
            if self.servers[server].has_begun() {
                self.boot(server)?;
            }
        }
        for client in 0..self.settings.clients {
            if self.clients[client].core.is_none() {
                self.start_client(client)?;
            }
        }
        Ok(())
    }
}
