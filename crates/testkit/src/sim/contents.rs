//! I16: whatever comes from a disk, to be applied, kept or sent, is byte for byte what went there.

use std::collections::BTreeMap;

use atomix_engine::Input;
use atomix_protocol::EntryId;
use bytes::Bytes;

use super::checker::{Check, Checker, hold, id_of};
use super::network::Node;
use super::storage::{Content, Found, Running};
use super::world::World;

/// So many snapshots are remembered.
const REMEMBERED: usize = 48;

/// The snapshots that servers took. Servers of different versions may write one state in different ways.
#[derive(Debug, Default)]
pub(super) struct Contents(BTreeMap<EntryId, Vec<Bytes>>);

impl Contents {
    fn add(&mut self, last: EntryId, bytes: Bytes) {
        let known = self.0.entry(last).or_default();
        if !known.contains(&bytes) {
            known.push(bytes);
        }
        if self.0.len() > REMEMBERED {
            self.0.pop_first();
        }
    }

    /// Whether these are the bytes from `offset` on of a snapshot that was taken. One that is forgotten may hold anything.
    fn has(&self, last: EntryId, offset: usize, bytes: &[u8], whole: bool) -> bool {
        let forgotten = || self.0.first_key_value().is_some_and(|(first, _)| last < *first);
        let is_part = |known: &Bytes| {
            known.get(offset..).is_some_and(|rest| rest.starts_with(bytes))
                && (!whole || known.len() == bytes.len())
        };
        match self.0.get(&last) {
            Some(known) => known.iter().any(is_part),
            None => forgotten(),
        }
    }
}

impl Checker {
    /// A server wrote a snapshot of its own.
    pub(super) fn took(&mut self, last: EntryId, bytes: Bytes) {
        self.contents.add(last, bytes);
    }

    fn check_snapshot_bytes(&self, server: usize, last: EntryId, bytes: &[u8]) -> Check {
        hold("I16", self.contents.has(last, 0, bytes, true), || {
            format!("server {} reads a snapshot of {last} that nobody took", id_of(server))
        })
    }

    /// What was read for another server.
    fn check_read(&self, server: usize, report: &Input) -> Check {
        match report {
            Input::Fetched { entries: Some(entries), .. } => {
                entries.iter().try_for_each(|entry| self.check_entry(server, "read", entry))
            }
            Input::ChunkRead { last, offset, data: Some(data), .. } => {
                let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                hold("I16", self.contents.has(*last, offset, data, false), || {
                    format!(
                        "server {} reads what is not at {offset} of the snapshot of {last}",
                        id_of(server)
                    )
                })
            }
            _ => Ok(()),
        }
    }
}

impl World {
    /// A storage thread is done with something.
    pub(super) fn check_content(&mut self, server: Node, running: &Running) -> Check {
        match &running.content {
            Some(Content::Written(last, bytes)) => self.checker.took(*last, bytes.clone()),
            Some(Content::Read(last, bytes)) => self.checker.check_snapshot_bytes(server, *last, bytes)?,
            None => {}
        }
        running.reports.iter().try_for_each(|report| self.checker.check_read(server, report))
    }

    /// A server came up and found something.
    pub(super) fn check_found(&mut self, server: Node, found: &Found) -> Check {
        if let (Some(meta), Some(bytes)) = (&found.recovered.snapshot, &found.snapshot) {
            self.checker.check_snapshot_bytes(server, meta.last, bytes)?;
        }
        self.checker.recovered(server, &found.recovered, &found.entries)
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{Index, Term};

    use super::*;

    #[test]
    fn only_what_was_taken_is_read() {
        let id = |index| EntryId::new(Term(1), Index(index));
        let mut contents = Contents::default();
        contents.add(id(5), Bytes::from_static(b"state"));
        contents.add(id(5), Bytes::from_static(b"older"));
        for (offset, bytes, whole, expected) in [
            (0, &b"state"[..], true, true),
            (0, b"older", true, true),
            (0, b"stat", true, false),
            (2, b"at", false, true),
            (2, b"aT", false, false),
            (4, b"ee", false, false),
            (9, b"", false, false),
        ] {
            assert_eq!(contents.has(id(5), offset, bytes, whole), expected, "{bytes:?} at {offset}");
        }
        assert!(!contents.has(id(6), 0, b"state", true), "another one");
        assert!(contents.has(id(4), 0, b"state", true), "too old to be remembered");
    }
}
