//! Versions of the program: which of a kind's operations a server's binary has, upgrades one by one and back again, and what must
//! hold of levels (M2, M3).

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use atomix_collections::map::MapState;
use atomix_coordination::lock::LockState;
use atomix_engine::Engine;
use atomix_protocol::session::{RaiseLevel, SessionEntry};
use atomix_protocol::{Configuration, Entry, EntryKind, Index, Member, MemberKind};
use atomix_resource::{Registry, Resource};
use atomix_session::StateMachine;

use super::checker::{Broken, Check, Checker, hold, id_of};
use super::coverage::Mark;
use super::faults::{Class, Target};
use super::loss::Loss;
use super::membership::holds_log;
use super::network::Node;
use super::random::{Component, Random, mix};
use super::settings::Time;
use super::world::{Event, World};
use super::{Profile, said};

/// The kinds that are used here.
pub(super) const KINDS: [&str; 2] = [MapState::KIND, LockState::KIND];
/// How often the servers of a seed begin with an earlier version.
const EARLIER: f64 = 0.35;
/// How what stops a replica for its version says so, beside the operation and the kind.
const LACKS: &str = "this binary";

/// A version of the program: the highest operation that it has of each kind; zero: it lacks the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) map: u16,
    pub(super) lock: u16,
}

impl Version {
    /// With everything that there is.
    pub(super) const NEWEST: Version = Version { map: u16::MAX, lock: u16::MAX };

    /// Any earlier one: a map without fenced writes, without some queries or watches; a lock that can't be looked at, that no wait
    /// for can be given up, or none.
    pub(super) fn earlier(r: &mut Random) -> Version {
        let map = r.pick(&[u16::MAX, 35, 35, 34, 33, 9, 7]).unwrap_or(35);
        let lock = r.pick(&[u16::MAX, u16::MAX, u16::MAX, 3, 3, 2, 0]).unwrap_or(3);
        let version = Version { map, lock };
        if version == Version::NEWEST { Version { map: 35, lock } } else { version }
    }

    /// What it has of a kind.
    pub(super) fn level(self, kind: &str) -> u16 {
        match kind {
            MapState::KIND => self.map,
            LockState::KIND => self.lock,
            _ => u16::MAX,
        }
    }

    pub(super) fn registry(self) -> Registry {
        let all = atomix_coordination::register(Registry::new().with::<MapState>());
        KINDS.into_iter().fold(all, |registry, kind| registry.as_of(kind, self.level(kind)))
    }

    fn and(self, other: Version) -> Version {
        Version { map: self.map.max(other.map), lock: self.lock.max(other.lock) }
    }
}

/// With what servers begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) earlier: Version,
    /// Which servers have the earlier version, a bit for each. Zero: all begin with the newest.
    pub(super) servers: u64,
}

impl Beginning {
    pub(super) fn draw(seed: u64, profile: Profile) -> Beginning {
        let mut r = Random::stream(seed, Component::Version, 0);
        let some = r.chance(EARLIER) && profile == Profile::Full;
        let earlier = Version::earlier(&mut r);
        let which = if r.chance(0.5) { u64::from(u16::MAX) } else { r.below(1 << 16) };
        Beginning { earlier, servers: if some { which } else { 0 } }
    }

    /// The version with which a server begins.
    pub(super) fn of(&self, server: usize) -> Version {
        if self.servers >> server.min(63) & 1 == 1 { self.earlier } else { Version::NEWEST }
    }
}

/// The committed levels behind each index, as the sequential twin has them.
#[derive(Debug, Default)]
pub(super) struct LevelTwin(BTreeMap<String, Vec<(Index, u16)>>);

impl LevelTwin {
    /// The level of a kind behind an index.
    pub(super) fn at(&self, kind: &str, index: Index) -> u16 {
        let Some(history) = self.0.get(kind) else { return 0 };
        let count = history.partition_point(|(at, _)| *at <= index);
        count.checked_sub(1).and_then(|last| history.get(last)).map_or(0, |(_, level)| *level)
    }

    pub(super) fn latest(&self, kind: &str) -> u16 {
        self.at(kind, Index(u64::MAX))
    }

    /// An entry raises a level; whether an operation may be used from here on that could not when the kind could.
    pub(super) fn raise(&mut self, index: Index, raise: &RaiseLevel) -> bool {
        let before = self.latest(&raise.kind);
        if raise.level <= before {
            return false;
        }
        self.0.entry(raise.kind.clone()).or_default().push((index, raise.level));
        before > 0
    }
}

/// What an entry raises, if it does: what was decided in another term was decided on nothing (R8).
fn raise_in(entry: &Entry) -> Option<RaiseLevel> {
    if entry.kind != EntryKind::Session {
        return None;
    }
    match SessionEntry::decode(&entry.payload) {
        Ok(SessionEntry::RaiseLevel(raise)) if raise.decided_in == entry.id.term => Some(raise),
        _ => None,
    }
}

/// By data directory: all that programs had which ran with it.
#[derive(Debug, Default)]
pub(super) struct Binaries(BTreeMap<usize, Version>);

impl Checker {
    /// A program of that version runs, with a server's directory.
    pub(super) fn runs(&mut self, server: usize, version: Version) {
        let Some(directory) = self.directory_of(server) else { return };
        let before = self.binaries.0.get(&directory).copied().unwrap_or(Version { map: 0, lock: 0 });
        self.binaries.0.insert(directory, before.and(version));
    }

    /// M3: a level is raised only to what every member has said to have that holds state. A directory that is gone holds none.
    pub(super) fn check_raise(&self, entry: &Entry) -> Check {
        let Some(raise) = raise_in(entry) else { return Ok(()) };
        let Some(configuration) = self.membership.at(entry.id.index) else { return Ok(()) };
        let lacks = |member: &&Member| {
            let directory = self.membership.directory(member.incarnation);
            let known = directory.and_then(|at| self.binaries.0.get(&at)).map_or(0, |v| v.level(&raise.kind));
            member.kind != MemberKind::Reserve
                && !self.membership.is_wiped(member.incarnation)
                && known < raise.level
        };
        let lacking = configuration.members.iter().find(lacks);
        hold("M3", lacking.is_none(), || {
            format!(
                "{} is committed as {raise:?}, and never was there a binary of {lacking:?} that has it",
                entry.id
            )
        })
    }
}

/// M3: a server has the levels that the log says.
pub(super) fn check_levels(server: Node, engine: &Engine, applied: Index, twin: &LevelTwin) -> Check {
    let levels = engine.table().levels();
    let equal = KINDS.into_iter().all(|kind| levels.of(kind) == twin.at(kind, applied));
    hold("M3", equal, || {
        let expected = KINDS.map(|kind| (kind, twin.at(kind, applied)));
        format!("server {} at {applied} has {levels:?}, must be {expected:?}", id_of(server))
    })
}

/// Lets a program do something. What panics in an earlier version may be its right.
pub(super) fn attempt<T>(version: Version, act: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    if version == Version::NEWEST { Ok(act()) } else { catch_unwind(AssertUnwindSafe(act)) }
}

impl World {
    /// A process ends and comes back as another version of the program.
    pub(super) fn replace_binary(
        &mut self,
        class: Class,
        victim: Target,
        version: Version,
        down: Time,
        random: &mut Random,
    ) {
        let first = self.victim(victim);
        let count = self.servers.len();
        // An upgrade goes on with whoever comes next and has not had it.
        let tried = if class == Class::U1 { count } else { 1 };
        let differs = |node: &Node| {
            let server = &self.servers[*node];
            server.process.is_some() && server.version != version
        };
        let Some(server) = (first..first + tried).map(|node| node % count).find(differs) else { return };
        self.coverage.fault(class);
        self.servers[server].version = version;
        self.crash(server, Loss::Process, false, random);
        self.after(down, Event::Boot(server));
    }

    /// All is healed: every server gets the newest.
    pub(super) fn upgrade_all(&mut self) {
        for server in 0..self.servers.len() {
            if self.servers[server].version != Version::NEWEST {
                self.servers[server].version = Version::NEWEST;
                let mut random = Random::stream(self.seed, Component::Version, server as u64 + 1);
                self.crash(server, Loss::Process, false, &mut random);
            }
        }
    }

    /// A program of an earlier version panicked: for what it lacks, or else for no good reason.
    pub(super) fn panicked(&mut self, server: Node, panic: Box<dyn Any + Send>) -> Check {
        let words = said(panic.as_ref());
        if !words.contains(LACKS) || !self.is_outrun(server) {
            resume_unwind(panic);
        }
        self.stops_for_its_version(server, &words);
        Ok(())
    }

    /// A server can't read a state.
    pub(super) fn unreadable(&mut self, server: Node, name: &'static str, detail: String) -> Check {
        if !detail.contains(LACKS) || !self.is_outrun(server) {
            return Err(Broken { name, detail });
        }
        self.stops_for_its_version(server, &detail);
        Ok(())
    }

    /// Whether more is committed of a kind than a server's binary has: in the ledger, or by what it knows committed itself.
    fn is_outrun(&self, server: Node) -> bool {
        let at = &self.servers[server];
        let (through, known) =
            (at.raft().map_or(Index::ZERO, atomix_raft::Raft::commit_index), self.checker.ledger.last());
        let news = (known.0 + 1..=through.0).filter_map(|index| self.checker.logged(server, Index(index)));
        let raises: Vec<RaiseLevel> = news.filter_map(raise_in).collect();
        let more = |raise: &RaiseLevel| raise.level > at.version.level(&raise.kind);
        let levels = &self.model.resources.levels;
        KINDS.into_iter().any(|kind| levels.latest(kind) > at.version.level(kind)) || raises.iter().any(more)
    }

    /// M2: it stops before it differs from the others. After a while somebody brings the newest.
    fn stops_for_its_version(&mut self, server: Node, words: &str) {
        self.trace.change(self.now, || format!("server {} stops for its version: {words}", id_of(server)));
        self.coverage.mark(Mark::LevelStopped, 1);
        let at = &mut self.servers[server];
        at.version = Version::NEWEST;
        let n = mix(u64::from(at.epoch), server as u64 + 1);
        let mut random = Random::stream(self.seed, Component::Version, n);
        self.crash(server, Loss::Process, false, &mut random);
        let down = random.scale(self.settings.longest_election() / 4, 4 * self.settings.longest_election());
        self.after(down, Event::Boot(server));
    }

    /// Whether two versions run.
    pub(super) fn is_mixed(&self) -> bool {
        let mut running = self.servers.iter().filter(|server| server.process.is_some());
        let Some(first) = running.next() else { return false };
        running.any(|server| server.version != first.version)
    }

    /// M3, after healing: what all servers have may be used, if all that are members can say what they have.
    pub(super) fn expect_levels(&mut self) -> Check {
        if self.profile == Profile::Core
            || !self.checker.membership.latest().is_some_and(|c| self.all_tell(c))
        {
            return Ok(());
        }
        let newest = Version::NEWEST.registry().kinds();
        let raised = self.run(self.progress_deadline(), |world| {
            newest.iter().all(|known| world.model.resources.levels.latest(&known.kind) == known.level)
        })?;
        hold("L2", raised, || {
            let levels = &self.model.resources.levels;
            format!("all servers have {newest:?}, committed is {levels:?}; {}", self.describe())
        })
    }

    /// Whether every member that counts for levels is there to say what it has.
    fn all_tell(&self, configuration: &Configuration) -> bool {
        let members = &configuration.members;
        let replaced = |member: &Member| {
            members.iter().any(|other| other.id > member.id && other.peer_address == member.peer_address)
        };
        members
            .iter()
            .filter(|member| holds_log(member))
            .all(|member| self.is_whole(member) || replaced(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_that_behind_an_index() {
        let mut levels = LevelTwin::default();
        let raise = |level| RaiseLevel { kind: "map".into(), level, decided_in: atomix_protocol::Term(1) };
        assert!(!levels.raise(Index(3), &raise(7)), "the first");
        assert!(!levels.raise(Index(4), &raise(6)), "it sinks never");
        assert!(levels.raise(Index(5), &raise(9)));
        let found = [2, 3, 4, 5, 6].map(|index| levels.at("map", Index(index)));
        assert_eq!((found, levels.latest("map"), levels.latest("lock")), ([0, 7, 7, 9, 9], 9, 0));
    }

    #[test]
    fn an_earlier_version_lacks_something() {
        let newest = Version::NEWEST.registry().kinds();
        for seed in 0..50 {
            let kinds = Version::earlier(&mut Random::of(seed)).registry().kinds();
            assert!(kinds.iter().all(|kind| newest.iter().any(|new| kind.level <= new.level)));
            assert_ne!(kinds, newest);
        }
    }
}
