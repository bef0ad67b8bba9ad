//! A user who watches the map: its events go through a stream as a handle's do, which it empties at once, or too slowly.

use std::fmt;

use atomix_protocol::Sequence;
use atomix_resource::stream::{EventStream, Feed, StreamEnd, stream};

use super::checker::{Broken, Check};
use super::coverage::{Coverage, Mark};
use super::map_operation::MapCommand;
use super::random::{Component, Random};
use super::settings::{Role, Settings};

/// Room in a stream whose user is slow.
const SMALL: usize = 4;
/// Room in any other.
const LARGE: usize = 1_024;

/// The user who watches, of one client.
pub(super) struct Watcher {
    random: Random,
    slow: bool,
    /// Watches that were registered, or asked for.
    watches: Vec<Sequence>,
    feed: Feed<u64>,
    stream: EventStream<u64>,
    /// Events fed into the stream, and taken out of it.
    fed: u64,
    taken: u64,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watcher({} of {} taken)", self.taken, self.fed)
    }
}

impl Watcher {
    pub(super) fn new(seed: u64, client: usize, role: Role) -> Self {
        let (feed, stream) = stream(if role.slow { SMALL } else { LARGE });
        Watcher {
            random: Random::stream(seed, Component::Watcher, client as u64),
            slow: role.slow,
            watches: Vec::new(),
            feed,
            stream,
            fed: 0,
            taken: 0,
        }
    }

    /// The process, its session, or the map is gone.
    pub(super) fn forget(&mut self) {
        self.watches.clear();
        self.begin();
    }

    fn begin(&mut self) {
        (self.feed, self.stream) = stream(if self.slow { SMALL } else { LARGE });
        (self.fed, self.taken) = (0, 0);
    }

    /// What it does next.
    pub(super) fn plan(&mut self, settings: &Settings) -> Option<MapCommand> {
        if self.watches.len() < 2 && self.random.chance(if self.watches.is_empty() { 0.6 } else { 0.05 }) {
            let all = self.random.chance(0.6);
            let key = self.random.below(settings.keys);
            return Some(MapCommand::Watch((!all).then_some(key)));
        }
        if self.random.chance(0.03) {
            return self.watches.pop().map(MapCommand::Unwatch);
        }
        None
    }

    /// How many watches it has, or asked for.
    pub(super) fn watches(&self) -> usize {
        self.watches.len()
    }

    pub(super) fn watching(&mut self, watch: Sequence) {
        self.watches.push(watch);
    }

    pub(super) fn not_watching(&mut self, watch: Sequence) {
        self.watches.retain(|other| *other != watch);
    }

    /// An event of the map arrived: it is queued for the user.
    pub(super) fn told(&mut self) {
        self.feed.push(self.fed);
        self.fed += 1;
    }

    /// The user takes what it will. I11: every event in order, until the stream says that some are missing.
    pub(super) fn take(&mut self, coverage: &mut Coverage) -> Check {
        let most = if self.slow { self.random.below(3) } else { u64::MAX };
        for _ in 0..most {
            match self.stream.try_next() {
                Ok(Some(event)) if event == self.taken => self.taken += 1,
                Ok(None) if self.taken == self.fed => break,
                Err(StreamEnd::Lagged) if self.taken < self.fed => {
                    coverage.mark(Mark::StreamLagged, 1);
                    self.begin();
                }
                other => {
                    let detail = format!("{self:?}, and then a stream gave {other:?}");
                    return Err(Broken { name: "I11", detail });
                }
            }
        }
        Ok(())
    }
}
