//! How server processes end and begin, and what their disks have then.

use atomix_storage::StorageError;

use super::Profile;
use super::checker::{Check, hold, id_of};
use super::coverage::Mark;
use super::faults::{Class, Target};
use super::loss::{Loss, Wear};
use super::network::{Node, Reach};
use super::random::{Component, Random};
use super::server::Armed;
use super::settings::{MILLISECOND, SECOND, Time};
use super::versions::attempt;
use super::world::{Event, World};

impl World {
    /// A process ends in the middle of something.
    pub(super) fn on_power_cut(&mut self, server: Node, epoch: u32, armed: Armed) {
        if self.faults_on && self.servers[server].epoch == epoch && self.servers[server].process.is_some() {
            self.coverage.fault(armed.class);
            self.crash(server, armed.loss, armed.silent, &mut Random::of(armed.seed));
            self.after(armed.down, Event::Boot(server));
        }
    }

    /// The process dies, and perhaps the machine.
    pub(super) fn crash(&mut self, server: Node, loss: Loss, silent: bool, random: &mut Random) {
        let wear = self.wear();
        let repairs = loss == Loss::Power && self.checker.abstains(server);
        self.coverage.mark(Mark::CutInRepair, u64::from(repairs && self.servers[server].process.is_some()));
        let at = &mut self.servers[server];
        if at.process.is_none() {
            return;
        }
        let damage = at.disk.crash(loss, wear, random);
        at.ills.gone();
        at.rising = Some(Random::of(random.next()));
        at.stop(if silent { Reach::Silent } else { Reach::Refuses });
        self.checker.stopped(server);
        self.trace.change(self.now, || format!("server {} is down ({loss:?}): {damage:?}", id_of(server)));
        for (class, times) in [(Class::D2, damage.torn), (Class::D3, damage.recycled)] {
            for _ in 0..times {
                self.coverage.fault(class);
            }
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

    /// A start came to nothing.
    fn crash_disk(&mut self, server: Node) {
        let n = super::random::mix(self.events, server as u64);
        let mut random = Random::stream(self.seed, Component::Decay, n);
        self.servers[server].disk.crash(Loss::Process, Wear::default(), &mut random);
    }

    fn wear(&self) -> Wear {
        Wear { tearing: self.swarm.has(Class::D2), recycling: self.swarm.has(Class::D3) }
    }

    /// An operator's mistake: only where a majority remains.
    pub(super) fn wipe(&mut self, victim: Target, down: Time, random: &mut Random) {
        let server = self.victim(victim);
        if !self.is_member(server) || !self.may_lose(server) {
            return;
        }
        self.coverage.fault(Class::M13);
        self.crash(server, Loss::Process, false, random);
        self.wipe_directory(server);
        self.after(down, Event::Boot(server));
    }

    /// A server's process comes up; or it dies in the attempt.
    pub(super) fn boot(&mut self, server: Node) -> Check {
        if self.servers[server].process.is_some() || self.left_out.contains(&server) {
            return Ok(());
        }
        if self.is_stranger(server) {
            return self.boot_stranger(server);
        }
        let opened = self.servers[server].open_disk(&self.settings);
        let place = || format!("server {} can't start", id_of(server));
        let (threads, found, job) = match opened {
            Ok(opened) => opened,
            Err(error) if self.forgets(server, &error) => return Ok(()),
            Err(StorageError::Full(_)) if self.checker.owes_nothing(server) => {
                // Somebody tries again and again.
                self.crash_disk(server);
                self.after(SECOND, Event::Boot(server));
                return Ok(());
            }
            Err(error @ StorageError::Full(_)) => {
                return hold("L5", false, || format!("{}: {error}", place()));
            }
            Err(error) => return hold("I15", false, || format!("{}: {error}", place())),
        };
        self.coverage.mark(Mark::TornTail, u64::from(self.servers[server].disk.has_zeroed(job)));
        if let Some(mut random) = self.servers[server].rising.take()
            && self.faults_on
            && random.chance(self.swarm.rate(Class::P2))
        {
            self.coverage.fault(Class::P2);
            self.servers[server].disk.crash(Loss::Power, self.wear(), &mut random);
            let wait = random.range(1, 200) * MILLISECOND;
            self.servers[server].rising = Some(random);
            self.after(wait, Event::Boot(server));
            return Ok(());
        }
        self.servers[server].disk.complete(job);
        let (hard_state, snapshot) = (found.recovered.hard_state, found.recovered.snapshot.clone());
        self.check_found(server, &found)?;
        for mark in self.checker.take_marks() {
            self.coverage.mark(mark, 1);
        }
        self.trace
            .change(self.now, || format!("server {} starts: {hard_state:?} {snapshot:?}", id_of(server)));
        let damage = found.recovered.damage.clone();
        let version = self.servers[server].version;
        self.checker.runs(server, version);
        let (now, profile) = (self.now, self.profile);
        let (at, settings) = (&mut self.servers[server], &self.settings);
        match attempt(version, || at.start(now, profile, settings, threads, found)) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return self.unreadable(server, "I15", format!("{}: {why}", place())),
            Err(panic) => return self.panicked(server, panic),
        }
        self.after_start(server, &damage);
        let full = self.servers[server].disk.take_refused() && self.servers[server].disk.is_limited();
        self.coverage.mark(Mark::StartedFull, u64::from(full));
        self.look_for_room_from_now(server);
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
}
