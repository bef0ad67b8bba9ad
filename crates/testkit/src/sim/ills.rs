//! What ails single servers: disks that fail, panics, clocks that begin again, terms from elsewhere, snapshots all
//! the time.

use atomix_protocol::{HardState, Index, Term, WriteBatch};
use atomix_storage::{Storage, StorageError};
use atomix_storage_file::FileStorage;

use super::checker::{Broken, Check, hold, id_of};
use super::disk::Call;
use super::faults::{Class, Fault};
use super::inject::Ending;
use super::loss::Loss;
use super::network::Node;
use super::random::Random;
use super::server::Armed;
use super::settings::Time;
use super::storage::{LANES, LOG, Moment, Task, file_options};
use super::versions::Version;
use super::world::{Event, World};

/// What a server has.
#[derive(Debug)]
pub(super) struct Ills {
    /// The next call of a kind to its disk fails.
    failing: Option<Failing>,
    /// One did: the process will stop, and writes nothing any more.
    pub(super) broken: bool,
    /// Its state machine panics on what comes next.
    panics: Option<Panics>,
    /// How many times slower each storage thread is than the others.
    pub(super) lanes: [u64; LANES],
    /// The next process takes a snapshot whenever so many bytes were logged.
    snapshots: Option<u64>,
    /// This one does.
    pub(super) snaps: bool,
    /// Its boot clock began again, and it did not lead since.
    rebooted: bool,
}

/// A disk that will fail.
#[derive(Clone, Copy, Debug)]
struct Failing {
    class: Class,
    loss: Loss,
    down: Time,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Panics {
    class: Class,
    /// What was applied when it was decided.
    applied: Index,
    down: Time,
    seed: u64,
}

impl Default for Ills {
    fn default() -> Self {
        Ills {
            failing: None,
            broken: false,
            panics: None,
            lanes: [1; LANES],
            snapshots: None,
            snaps: false,
            rebooted: false,
        }
    }
}

impl Ills {
    /// The process is gone, and with it what it would have met.
    pub(super) fn gone(&mut self) {
        self.failing = None;
        self.broken = false;
        self.panics = None;
        self.snaps = false;
    }

    /// How many logged bytes make a snapshot due, for the process that starts now.
    pub(super) fn snapshot_bytes(&mut self, usual: u64) -> u64 {
        self.snaps = self.snapshots.is_some();
        self.snapshots.take().unwrap_or(usual)
    }
}

impl Failing {
    /// Whether a task is the one, and which of its calls fails then.
    fn call(&self, task: &Task, leads: bool) -> Option<Call> {
        let vote = |batch: &WriteBatch| batch.hard_state.is_some_and(|state| state.voted_for.is_some());
        match (self.class, task) {
            (Class::D9, task) if task.moment().is_some() => Some(Call::Sync),
            // What the leader writes is on its way to the others already.
            (Class::D10, Task::Write(_, batch)) if leads && !batch.entries.is_empty() => Some(Call::Write),
            (Class::D11, Task::Write(_, batch)) if vote(batch) => {
                Some(if self.seed.is_multiple_of(2) { Call::Write } else { Call::Sync })
            }
            (Class::D14, task) if task.moment().is_none() => Some(Call::Read),
            _ => None,
        }
    }
}

impl World {
    /// The faults that strike one server alone and last until its process ends, or are gone at once.
    pub(super) fn strike_rarer(&mut self, class: Class, fault: Fault, random: &mut Random) -> Check {
        let seed = random.next();
        match fault {
            Fault::CrashAt { victim, moment, loss, silent, down } => {
                let server = self.victim(victim);
                self.servers[server].armed = Some(Armed { class, moment, loss, silent, down, seed });
            }
            Fault::Fail { victim, loss, down } => {
                let server = self.victim(victim);
                self.servers[server].ills.failing = Some(Failing { class, loss, down, seed });
            }
            Fault::Panic { victim, down } => {
                let server = self.victim(victim);
                let applied = self.servers[server].raft().map(atomix_raft::Raft::applied_index);
                self.servers[server].ills.panics =
                    applied.map(|applied| Panics { class, applied, down, seed });
            }
            Fault::Slow { victim, extra, lasts } => self.slow_down(class, victim, extra, lasts),
            Fault::Lane { victim, lane, slower, lasts } => {
                let (server, lane) = (self.victim(victim), lane % LANES);
                self.coverage.faults_of(class, u64::from(self.servers[server].process.is_some()));
                self.servers[server].ills.lanes[lane] = slower;
                self.end_later(lasts, Ending::Lane { server, lane });
            }
            Fault::Snapshots { victim, bytes, down } => {
                let server = self.victim(victim);
                self.crash(server, Loss::Process, false, random);
                self.servers[server].ills.snapshots = Some(bytes);
                self.after(down, Event::Boot(server));
            }
            Fault::Reboot { victim, shown, down } => {
                let server = self.victim(victim);
                if self.servers[server].process.is_some() {
                    self.crash(server, Loss::Power, true, random);
                    self.servers[server].clock.restart(self.now, shown);
                    self.servers[server].ills.rebooted = true;
                    self.after(down, Event::Boot(server));
                }
            }
            Fault::Upgrade { victim, down } => {
                self.replace_binary(class, victim, Version::NEWEST, down, random);
            }
            Fault::Downgrade { victim, map, lock, down } => {
                let version = Version { map, lock };
                self.replace_binary(class, victim, version, down, random);
            }
            Fault::Inflate { victim, terms, down } => {
                return self.inflate(class, victim, terms, down, random);
            }
            _ => {}
        }
        Ok(())
    }

    /// A server comes back with a far greater term on its disk, as one has that stood in elections on its own for
    /// long (N7).
    fn inflate(
        &mut self,
        class: Class,
        victim: super::faults::Target,
        terms: u64,
        down: Time,
        random: &mut Random,
    ) -> Check {
        let server = self.victim(victim);
        if self.servers[server].raft().is_none() || !self.checker.is_sound(server) {
            return Ok(());
        }
        self.coverage.fault(class);
        self.crash(server, Loss::Process, false, random);
        let options = file_options(self.settings.segment_bytes);
        let disk = Box::new(self.servers[server].disk.clone());
        let mut entries = Vec::new();
        let raised = FileStorage::open(disk, options).and_then(|mut storage| {
            let found = storage.recover(&mut |entry| entries.push(entry))?;
            let hard_state = found.hard_state;
            let term = Term(hard_state.term.0 + terms);
            let hard_state = Some(HardState { term, voted_for: None });
            let batch = WriteBatch { hard_state, ..WriteBatch::default() };
            let written = match storage.write(&batch) {
                // Then it may have been written all the same.
                Err(StorageError::Full(_)) => false,
                written => written.map(|()| true)?,
            };
            Ok((found, batch, written))
        });
        self.after(down, Event::Boot(server));
        match raised {
            Ok((found, batch, written)) => {
                self.checker.recovered(server, &found, &entries)?;
                self.checker.issued(server, u64::MAX, &batch)?;
                if written { self.checker.written(server, u64::MAX) } else { Ok(()) }
            }
            // Then it comes back as it was.
            Err(StorageError::Full(_)) => Ok(()),
            Err(error) => self.storage_breaks(server, &error),
        }
    }

    /// Whoever leads goes, right before sessions expire (C5).
    pub(super) fn depose(&mut self, class: Class, seed: u64) -> Check {
        match self.leader().filter(|_| self.faults_on) {
            Some(leader) => {
                self.coverage.fault(class);
                self.usurp(leader, seed)
            }
            None => Ok(()),
        }
    }

    /// A server leads.
    pub(super) fn leads_now(&mut self, server: Node) {
        if std::mem::take(&mut self.servers[server].ills.rebooted) {
            self.coverage.fault(Class::C4);
        }
    }

    /// A server is about to begin a task: whether its disk fails in it.
    pub(super) fn begin_task(&mut self, server: Node, lane: usize) {
        let leads = self.leader() == Some(server);
        let at = &mut self.servers[server];
        let Some(task) = at.process.as_ref().and_then(|process| process.threads.next(lane)) else { return };
        let call = at.ills.failing.filter(|_| self.faults_on).and_then(|failing| failing.call(task, leads));
        let moment = task.moment();
        at.disk.fail_next(call);
        if moment == Some(Moment::Snapshot) && at.ills.snaps {
            self.coverage.fault(Class::P6);
        }
        if moment == Some(Moment::Compact) {
            let slow = self.active.values().find_map(|ending| match ending {
                Ending::Slow { class, server: other } if *other != server => Some(*class),
                _ => None,
            });
            if let Some(class) = slow {
                self.coverage.fault(class);
            }
        }
    }

    /// A server's storage failed. Where that was to be, it stops for good as soon as it hears of it; its next process
    /// finds what is there.
    pub(super) fn task_fails(&mut self, server: Node, lane: usize, error: &StorageError) -> Check {
        let Some(failing) =
            self.servers[server].ills.failing.filter(|_| self.servers[server].disk.has_failed())
        else {
            if self.meets_harm(server, error) {
                self.servers[server].disk.break_off();
                return self.tell_of_failure(server, error);
            }
            return self.storage_breaks(server, error);
        };
        let at = &mut self.servers[server];
        let epoch = at.epoch;
        // D5: a failed write or sync is final for the process, whatever it is asked for next.
        if let Some(process) = at.process.as_mut().filter(|_| lane == LOG) {
            let again = process.threads.is_poisoned();
            hold("storage", again, || format!("server {} goes on writing after {error}", id_of(server)))?;
        }
        self.servers[server].disk.break_off();
        let Failing { class, loss, down, seed } = failing;
        let armed = Armed { class, moment: Moment::Write, loss, silent: false, down, seed };
        let wait = Random::of(seed).exponential(self.settings.disk_latency.1);
        self.after(wait, Event::PowerCut { server, epoch, armed });
        self.tell_of_failure(server, error)
    }

    fn storage_breaks(&self, server: Node, error: &StorageError) -> Check {
        Err(Broken { name: "storage", detail: format!("server {}: {error}", id_of(server)) })
    }

    /// Whether a server's state machine panics in the step that it just made: nothing of it ever leaves the process
    /// (P4).
    pub(super) fn panics(&mut self, server: Node) -> bool {
        let Some(panics) = self.servers[server].ills.panics.filter(|_| self.faults_on) else { return false };
        let applied = self.servers[server].raft().map(atomix_raft::Raft::applied_index);
        if applied.is_none_or(|applied| applied <= panics.applied) {
            return false;
        }
        self.coverage.fault(panics.class);
        self.crash(server, Loss::Process, false, &mut Random::of(panics.seed));
        self.after(panics.down, Event::Boot(server));
        true
    }
}
