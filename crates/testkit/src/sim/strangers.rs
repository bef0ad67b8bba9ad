//! A server that gets the data directory of a server of another cluster (fault D16): nobody talks to it of consensus, and it stops
//! once it sees that the others are not its own. Then it gets its own directory back.
//!
//! Not simulated: a copy of a member's directory beside that member, which is refused for its boot nonce (the impostor shows such an
//! identity, fault O2); and a member's own older backup, which no server can tell from the real one. Whoever restores one must empty
//! the directory, and let the server join anew.

use atomix_protocol::{
    ClusterId, Configuration, Entry, EntryId, EntryKind, HardState, Identity, Incarnation, Index, Term,
    WriteBatch,
};
use atomix_protocol::{ClusterTime, ServerId};
use atomix_storage::Storage;
use atomix_storage_file::FileStorage;
use bytes::Bytes;

use super::checker::{Broken, Check, hold, id_of};
use super::coverage::Mark;
use super::disk::{Image, SimDisk};
use super::faults::{Class, Target};
use super::inject::Ending;
use super::loss::Loss;
use super::network::Node;
use super::random::Random;
use super::server::configuration;
use super::settings::Time;
use super::storage::file_options;
use super::world::{Event, World};

/// Frames that servers say to each other about consensus.
const CONSENSUS: std::ops::RangeInclusive<u8> = 16..=31;

/// What a server had before it became a stranger.
#[derive(Debug)]
pub(super) struct Stranger {
    own: Image,
    /// It has seen that it is one, and stopped.
    stopped: bool,
}

impl World {
    /// Whether any server has another cluster's directory.
    pub(super) fn has_stranger(&self) -> bool {
        self.servers.iter().any(|server| server.stranger.is_some())
    }

    /// Whether a server has another cluster's directory.
    pub(super) fn is_stranger(&self, server: Node) -> bool {
        self.servers[server].stranger.is_some()
    }

    /// A process comes up with the directory of a server of another cluster.
    pub(super) fn exchange(
        &mut self,
        class: Class,
        victim: Target,
        lasts: Time,
        down: Time,
        random: &mut Random,
    ) -> Check {
        let server = self.victim(victim);
        // Always the same address, as of the impostor: who met strangers at most of them would rightly take its cluster for gone.
        let members = self.checker.membership.latest().map_or(0, |latest| latest.members.len());
        let place = self.settings.servers > 2 && members > 2 && server + 1 == self.settings.servers;
        let runs = self.servers[server].process.is_some() && !self.is_stranger(server);
        // Whoever looks for a cluster to join takes the first that it meets.
        let looks = self.servers.iter().any(|other| other.id.is_none() && other.has_begun());
        if looks || !place || !runs || !self.belongs(server) {
            return Ok(());
        }
        self.coverage.fault(class);
        self.crash(server, Loss::Process, false, random);
        let own = std::mem::take(&mut *self.servers[server].disk.image.lock());
        fill(&self.servers[server].disk, server, &self.settings, random)?;
        self.servers[server].stranger = Some(Box::new(Stranger { own, stopped: false }));
        self.after(down, Event::Boot(server));
        self.end_later(lasts + self.settings.longest_election(), Ending::Exchange { server, down });
        Ok(())
    }

    /// A server gets its own directory back.
    pub(super) fn give_back(&mut self, server: Node, down: Time) {
        if self.servers[server].stranger.is_none() {
            // It was emptied meanwhile.
            return;
        }
        let n = self.next_ending;
        self.crash(server, Loss::Process, false, &mut Random::of(super::random::mix(self.seed, n)));
        if let Some(stranger) = self.servers[server].stranger.take() {
            *self.servers[server].disk.image.lock() = stranger.own;
            // What filled the disk may have gone meanwhile.
            self.servers[server].disk.limit(None);
        }
        self.after(down, Event::Boot(server));
    }

    /// A stranger's process comes up. What it finds is none of this cluster's business.
    pub(super) fn boot_stranger(&mut self, server: Node) -> Check {
        let stopped = self.servers[server].stranger.as_ref().is_none_or(|stranger| stranger.stopped);
        if stopped || self.servers[server].process.is_some() {
            return Ok(());
        }
        let failed = |error: String| Broken {
            name: "storage",
            detail: format!("stranger {}: {error}", id_of(server)),
        };
        let opened = self.servers[server].open_disk(&self.settings);
        let (threads, found, job) = opened.map_err(|error| failed(error.to_string()))?;
        self.servers[server].disk.complete(job);
        let (now, profile) = (self.now, self.profile);
        let (at, settings) = (&mut self.servers[server], &self.settings);
        at.start(now, profile, settings, threads, found).map_err(failed)?;
        self.step(server)
    }

    /// I14: nobody tells it anything of consensus.
    pub(super) fn check_told_stranger(&self, server: Node, frame: &Bytes) -> Check {
        let consensus = frame.first().is_some_and(|kind| CONSENSUS.contains(kind));
        hold("I14", !self.is_stranger(server) || !consensus, || {
            format!("server {} of another cluster is spoken to of consensus", id_of(server))
        })
    }

    /// It saw that the others are not its own.
    pub(super) fn stranger_stops(&mut self, server: Node, why: &str) {
        self.trace.change(self.now, || format!("stranger {} stops: {why}", id_of(server)));
        self.coverage.mark(Mark::StrangerStopped, 1);
        if let Some(stranger) = &mut self.servers[server].stranger {
            stranger.stopped = true;
        }
        let n = self.next_ending;
        self.crash(server, Loss::Process, false, &mut Random::of(super::random::mix(self.seed, n)));
    }
}

/// A directory of a server that was a member of another cluster at these addresses.
fn fill(disk: &SimDisk, server: Node, settings: &super::settings::Settings, random: &mut Random) -> Check {
    let mut configuration =
        Configuration { cluster: ClusterId(random.token()), ..configuration(settings.servers) };
    for member in &mut configuration.members {
        member.incarnation = Incarnation(random.token());
    }
    let incarnation = configuration.member(ServerId(server as u64 + 1)).map(|member| member.incarnation);
    let term = Term(random.range(1, 9));
    let entry = Entry {
        id: EntryId::new(term, Index(1)),
        time: ClusterTime::ZERO,
        kind: EntryKind::NoOp,
        payload: Bytes::new(),
    };
    let batch = WriteBatch {
        identity: incarnation.map(|incarnation| Identity { incarnation }),
        configuration: Some(configuration),
        hard_state: Some(HardState { term, voted_for: None }),
        entries: vec![entry],
        ..WriteBatch::default()
    };
    let filled = FileStorage::open(Box::new(disk.clone()), file_options(settings.segment_bytes)).and_then(
        |mut storage| {
            storage.recover(&mut |_| {})?;
            storage.write(&batch)
        },
    );
    filled.map_err(|error| Broken { name: "storage", detail: error.to_string() })
}
