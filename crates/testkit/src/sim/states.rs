//! Whether servers have the same state at the same index, and the sessions that the log says.

use std::collections::BTreeSet;
use std::io::{self, Write};

use atomix_engine::Engine;
use atomix_protocol::Index;

use super::Profile;
use super::checker::{Check, hold, id_of};
use super::inspect;
use super::network::Node;
use super::server::Machine;
use super::versions::check_levels;
use super::world::World;

/// States of servers are compared at every index that another server was seen at, and where the index is a multiple of this.
const SAMPLE: u64 = 8;

impl World {
    /// I5, where it is cheap enough.
    pub(super) fn compare_state(&mut self, server: Node, applied: Index) -> Check {
        let sampled = self.profile == Profile::Core
            || applied.0.is_multiple_of(SAMPLE)
            || self.checker.knows_state(applied);
        if sampled { self.force_compare(server, applied) } else { Ok(()) }
    }

    /// I5.
    pub(super) fn force_compare(&mut self, server: Node, applied: Index) -> Check {
        let Some(process) = &self.servers[server].process else { return Ok(()) };
        let digest = match &process.machine {
            Machine::Core(bare) => {
                let expected = self.checker.ledger.chain_at(applied);
                hold("I5", Some(bare.state()) == expected, || {
                    format!(
                        "server {} has applied another log through {applied} than is committed",
                        id_of(server)
                    )
                })?;
                bare.state()
            }
            Machine::Full(engine) => digest(engine),
        };
        self.coverage.digests += u64::from(self.checker.state(server, applied, digest)?);
        match &process.machine {
            Machine::Core(_) => Ok(()),
            Machine::Full(engine) => {
                self.compare_sessions(server, engine, applied)?;
                check_levels(server, engine, applied, &self.model.resources.levels)?;
                inspect::locks(server, engine, self.servers[server].version, &self.model)
            }
        }
    }

    /// I7, I21: a server has those sessions open that the log says, no more and no fewer.
    fn compare_sessions(&self, server: Node, engine: &Engine, applied: Index) -> Check {
        let place = || {
            let sessions: Vec<_> = engine.table().sessions().map(|(session, _)| session).collect();
            format!("server {} at {applied} has sessions {sessions:?} open", id_of(server))
        };
        let found: BTreeSet<_> = engine.table().sessions().map(|(session, _)| session).collect();
        let expected: BTreeSet<_> = self.model.open_at(applied).collect();
        hold("I21", found.is_superset(&expected), || format!("{}, of {expected:?}", place()))?;
        hold("I7", found == expected, || format!("{}, must be {expected:?}", place()))
    }
}

/// A hash of everything replicated.
fn digest(engine: &Engine) -> u64 {
    struct Hasher(u32, u64);
    impl Write for Hasher {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0 = crc32c::crc32c_append(self.0, data);
            self.1 += data.len() as u64;
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(0, 0);
    let written = engine.table().snapshot(engine.machine()).write_to(&mut hasher);
    assert!(written.is_ok(), "a hash can always be written");
    u64::from(hasher.0) << 32 | hasher.1 & 0xFFFF_FFFF
}
