//! How disks are harmed, and what follows: a server that lost something stands back until a leader has given it again, and meanwhile
//! goes down once more, or loses more.

use atomix_engine::{Input as EngineInput, Output};
use atomix_storage::StorageError;

use super::checker::{Check, hold, id_of};
use super::coverage::Mark;
use super::decay::{Harm, Part, When};
use super::faults::{Class, Fault};
use super::inject::Ending;
use super::loss::Loss;
use super::network::Node;
use super::random::{Component, Random};
use super::server::{Armed, Input, Machine};
use super::settings::Time;
use super::storage::{READS, Task};
use super::strays::{Stray, Way};
use super::world::{Event, World};

/// What is wrong with a server's disk, beside what it holds.
#[derive(Debug, Default)]
pub(super) struct Scars {
    /// A write of it will go wrong.
    astray: Option<Astray>,
    /// Something goes bad right before it is read.
    brittle: Option<Brittle>,
    /// What follows the next start is drawn from this.
    relapse: Option<u64>,
    /// Both copies of the manifest were harmed: the next start may refuse.
    amnesia: bool,
    /// A segment is gone.
    gap: bool,
    /// One copy of the manifest was harmed.
    manifest: bool,
    /// It has less room than it wants, and did not say so yet.
    filled: Option<Class>,
}

#[derive(Clone, Copy, Debug)]
struct Astray {
    class: Class,
    part: Part,
    way: Way,
    down: Time,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Brittle {
    class: Class,
    part: Part,
    harm: Harm,
    down: Time,
    seed: u64,
}

impl Scars {
    /// The fault that left it less room than it wants, the first time that this is seen.
    pub(super) fn take_filled(&mut self) -> Option<Class> {
        self.filled.take()
    }
}

impl World {
    /// The faults that harm what a disk holds.
    pub(super) fn strike_disk(&mut self, class: Class, fault: Fault, random: &mut Random) {
        match fault {
            Fault::Rot { victim, part, harm, when: When::Read, down, .. } => {
                let server = self.victim(victim);
                let seed = random.next();
                self.servers[server].scars.brittle = Some(Brittle { class, part, harm, down, seed });
            }
            Fault::Rot { victim, part, harm, when, loss, down } => {
                let server = self.victim(victim);
                // With the power the mark may have gone.
                if self.may_harm(server) && self.servers[server].process.is_some() {
                    let resting = (when == When::Down).then_some(loss);
                    self.rot(class, server, (part, harm), resting, down, random);
                }
            }
            Fault::Amnesia { victim, harm, down } => {
                let server = self.victim(victim);
                if !self.may_harm(server) || !self.may_lose(server) {
                    return;
                }
                self.crash(server, Loss::Process, false, random);
                if let Some(what) = self.servers[server].disk.rot_manifest(harm, random) {
                    self.note_harm(class, server, &what);
                    self.servers[server].scars.amnesia = true;
                }
                self.come_back(server, down, random);
            }
            Fault::Lose { victim, part, which, loss, down } => {
                let server = self.victim(victim);
                if !self.may_harm(server) {
                    return;
                }
                self.servers[server].disk.let_marks_settle();
                self.crash(server, loss, false, random);
                if let Some(what) = self.servers[server].disk.lose(part, which, random) {
                    self.note_harm(class, server, &what);
                    let scars = &mut self.servers[server].scars;
                    scars.gap |= part == Part::Log;
                    scars.manifest |= part == Part::Manifest;
                }
                self.come_back(server, down, random);
            }
            Fault::Astray { victim, part, way, down } => {
                let server = self.victim(victim);
                let seed = random.next();
                self.servers[server].scars.astray = Some(Astray { class, part, way, down, seed });
            }
            Fault::Fill { victim, more, lasts } => {
                let server = self.victim(victim);
                self.servers[server].disk.limit(Some(more));
                self.servers[server].scars.filled = Some(class);
                self.end_later(lasts, Ending::Fill { server });
            }
            _ => {}
        }
    }

    /// Something goes bad: while the process is down, or under its feet, so that it notices with its next start at the latest.
    fn rot(
        &mut self,
        class: Class,
        server: Node,
        (part, harm): (Part, Harm),
        resting: Option<Loss>,
        down: Time,
        random: &mut Random,
    ) {
        self.servers[server].disk.let_marks_settle();
        if let Some(loss) = resting {
            self.crash(server, loss, false, random);
        }
        if let Some(what) = self.servers[server].disk.rot(part, harm, random) {
            self.note_harm(class, server, &what);
            self.servers[server].scars.manifest |= part == Part::Manifest;
        }
        if resting.is_some() {
            return self.come_back(server, down, random);
        }
        let epoch = self.servers[server].epoch;
        self.after(down, Event::Relapse { server, epoch, seed: random.next() });
    }

    /// A server that is down comes up again after a while; more may follow.
    fn come_back(&mut self, server: Node, down: Time, random: &mut Random) {
        self.servers[server].scars.relapse = Some(random.next());
        self.after(down, Event::Boot(server));
    }

    /// A server goes down for what is wrong with its disk, or in the middle of its repair; then more may go bad.
    pub(super) fn on_relapse(&mut self, server: Node, epoch: u32, seed: u64) {
        let at = &self.servers[server];
        if at.epoch != epoch || at.process.is_none() || !self.faults_on && !at.ills.broken {
            return;
        }
        let random = &mut Random::of(seed);
        let loss = if self.faults_on && random.chance(0.6) { Loss::Power } else { Loss::Process };
        let abstains = self.checker.abstains(server);
        if abstains {
            self.servers[server].disk.let_marks_settle();
        }
        self.crash(server, loss, false, random);
        // It counts for nothing already: that it loses more harms nobody.
        if abstains
            && self.faults_on
            && random.chance(0.3)
            && let Some(what) = self.servers[server].disk.rot(Part::Log, Harm::Bit, random)
        {
            self.note_harm(Class::D4, server, &what);
        }
        let down = random.exponential(self.settings.longest_election() / 2);
        self.come_back(server, down, random);
    }

    /// A server came up.
    pub(super) fn after_start(&mut self, server: Node, damage: &[String]) {
        let disk = self.servers[server].disk.clone();
        disk.looked_over();
        let scars = &mut self.servers[server].scars;
        scars.amnesia = false;
        if std::mem::take(&mut scars.manifest) && disk.has_whole_manifest() {
            self.coverage.mark(Mark::ManifestMended, 1);
        }
        if std::mem::take(&mut scars.gap) && !damage.is_empty() {
            self.coverage.mark(Mark::SegmentMissed, 1);
        }
        for what in damage {
            self.trace.change(self.now, || format!("server {}: {what}", id_of(server)));
        }
        let Some(seed) = self.servers[server].scars.relapse.take() else { return };
        if !self.faults_on || !self.checker.abstains(server) {
            return;
        }
        let mut random = Random::of(seed);
        let epoch = self.servers[server].epoch;
        match random.below(10) {
            0..=2 => {
                let moment = super::storage::Moment::Write;
                let down = random.exponential(self.settings.longest_election());
                let (loss, seed) = (Loss::Power, random.next());
                self.servers[server].armed =
                    Some(Armed { class: Class::D1, moment, loss, silent: false, down, seed });
            }
            3..=5 => {
                let (disk, link) = (self.settings.disk_latency, self.settings.latency);
                let wait = random.exponential(8 * (disk.0 + disk.1 + link.0 + link.1));
                self.after(wait, Event::Relapse { server, epoch, seed: random.next() });
            }
            _ => {}
        }
    }

    /// A start was refused: whether because identity and vote are lost. Then an operator empties the directory, and the server comes
    /// back as a new one (fault D7).
    pub(super) fn forgets(&mut self, server: Node, error: &StorageError) -> bool {
        if !self.servers[server].scars.amnesia || !matches!(error, StorageError::Corrupt(_)) {
            return false;
        }
        self.trace.change(self.now, || format!("server {} is begun anew: {error}", id_of(server)));
        self.coverage.mark(Mark::IdentityLost, 1);
        self.wipe_directory(server);
        self.after(self.settings.longest_election(), Event::Boot(server));
        true
    }

    /// A server is about to read for another one, or a snapshot for itself: whether what it reads goes bad right now.
    pub(super) fn may_crumble(&mut self, server: Node, lane: usize) {
        let at = &self.servers[server];
        let task = at.process.as_ref().and_then(|process| process.threads.next(lane));
        let read = match task {
            Some(Task::Fetch { .. }) => Part::Log,
            Some(Task::ReadChunk { .. } | Task::LoadSnapshot(_) | Task::Restore(..)) => Part::Snapshot,
            _ => return,
        };
        let Some(brittle) = at.scars.brittle.filter(|brittle| self.faults_on && brittle.part == read) else {
            return;
        };
        if self.may_harm(server) {
            let Brittle { class, part, harm, down, seed } = brittle;
            self.servers[server].scars.brittle = None;
            self.rot(class, server, (part, harm), None, down, &mut Random::of(seed));
        }
    }

    /// A server is about to write: whether that goes wrong.
    pub(super) fn may_stray(&mut self, server: Node, lane: usize) {
        let astray = self.servers[server].scars.astray.filter(|_| self.faults_on && lane != READS);
        let stray = astray.filter(|_| self.may_harm(server));
        let stray = stray.map(|Astray { part, way, seed, .. }| Stray { part, way, seed });
        self.servers[server].disk.stray_next(stray);
    }

    /// It has written.
    pub(super) fn look_for_stray(&mut self, server: Node) {
        let Some(what) = self.servers[server].disk.take_strayed() else { return };
        let Some(Astray { class, part, down, seed, .. }) = self.servers[server].scars.astray.take() else {
            return;
        };
        self.note_harm(class, server, &what);
        self.servers[server].scars.manifest |= part == Part::Manifest;
        let epoch = self.servers[server].epoch;
        self.after(down, Event::Relapse { server, epoch, seed });
    }

    /// A running server met what was harmed.
    pub(super) fn meets_harm(&mut self, server: Node, error: &StorageError) -> bool {
        if !self.checker.is_harmed(server)
            || !matches!(error, StorageError::Corrupt(_) | StorageError::BadSnapshot(_))
        {
            return false;
        }
        self.trace.change(self.now, || format!("server {} stops: {error}", id_of(server)));
        self.coverage.mark(Mark::ReadRefused, 1);
        let epoch = self.servers[server].epoch;
        let wait = self.settings.longest_election();
        self.after(
            wait,
            Event::Relapse { server, epoch, seed: super::random::mix(u64::from(epoch), server as u64) },
        );
        true
    }

    /// Whether a server is the only voter and has lost something, which nobody else has.
    pub(super) fn decides_alone_in_vain(&self, server: Node) -> bool {
        self.checker.abstains(server) && self.decides_alone(server)
    }

    /// It says so, and stops for good: only an operator could do something about it.
    pub(super) fn stops_for_damage(&mut self, server: Node) {
        self.trace.change(self.now, || format!("server {} can't be repaired by anybody", id_of(server)));
        self.coverage.mark(Mark::BeyondRepair, 1);
        let n = super::random::mix(u64::from(self.servers[server].epoch), server as u64);
        let mut random = Random::stream(self.seed, Component::Decay, n);
        self.crash(server, Loss::Process, false, &mut random);
    }

    /// A server is told that its disk failed for good: it lets another lead, and asks nothing of the disk any more (D5).
    pub(super) fn tell_of_failure(&mut self, server: Node, error: &StorageError) -> Check {
        self.servers[server].ills.broken = true;
        self.late(server, Input::Common(EngineInput::DiskFailed(error.to_string())));
        Ok(())
    }

    /// D5: whoever was told that its disk failed asks nothing of it any more.
    pub(super) fn check_silent(&self, server: Node, output: &Output) -> Check {
        let at = &self.servers[server];
        let Some(Machine::Full(engine)) = at.process.as_ref().map(|process| &process.machine) else {
            return Ok(());
        };
        let failed = at.ills.broken && engine.status(at.clock.read(self.now)).role == "failed";
        hold("storage", !failed, || format!("server {} asks its failed disk for {output:?}", id_of(server)))
    }
}
