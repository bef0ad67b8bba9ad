//! I17: what has a limit keeps to it.

use atomix_protocol::peer::PeerMessage;
use atomix_protocol::{Entry, limits};
use bytes::Bytes;

use super::checker::{Check, hold, id_of};
use super::network::Node;
use super::server::Machine;
use super::world::World;

impl World {
    /// A message of bare consensus: most bytes of entries, unless one is larger alone, and of a chunk.
    pub(super) fn check_message_bounds(&self, server: Node, message: &PeerMessage) -> Check {
        match message {
            PeerMessage::AppendEntries(append) => {
                let bytes: u64 = append.entries.iter().map(Entry::weight).sum();
                let within = append.entries.len() < 2 || bytes <= self.settings.append_bytes;
                hold("I17", within, || {
                    let count = append.entries.len();
                    format!("server {} sends {count} entries of {bytes} bytes", id_of(server))
                })
            }
            PeerMessage::InstallSnapshot(chunk) => {
                hold("I17", chunk.data.len() <= self.settings.snapshot_chunk_bytes, || {
                    format!("server {} sends a chunk of {} bytes", id_of(server), chunk.data.len())
                })
            }
            _ => Ok(()),
        }
    }

    /// A frame of whoever.
    pub(super) fn check_frame_bounds(&self, node: Node, frame: &Bytes) -> Check {
        hold("I17", frame.len() <= limits::FRAME_BYTES, || {
            format!("node {node} sends a frame of {} bytes", frame.len())
        })
    }

    /// A server that stepped.
    pub(super) fn check_server_bounds(&self, server: Node) -> Check {
        let process = self.servers[server].process.as_ref();
        let Some(Machine::Full(engine)) = process.map(|process| &process.machine) else { return Ok(()) };
        let sessions = engine.table().len();
        hold("I17", sessions <= self.settings.server_sessions, || {
            format!("server {} has {sessions} sessions open", id_of(server))
        })
    }
}
